"""The native engine behind the `Executor` protocol: blocks, transactions and calls on any `StateReader`.

Rules that the engine does not know (forks before Cancun, moved precompiles) go to another executor where one was given.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock

import numpy as np

from core.columns import Array, int_from_limbs
from core.errors import BlockError
from core.execution import (
    BlockContext,
    CallRequest,
    CallResult,
    ExecutionOutcome,
    Executor,
    Halt,
    Rejection,
    TransactionTrace,
    unsigned_transaction,
)
from core.overlay import OverlaidState
from core.receipts import ReceiptColumns
from core.state import Account, AccountChange, StateDifference, StateReader
from core.transaction import AccessListEntry, TransactionColumns
from worker.evm.base_state import BaseState
from worker.evm.batch import Outcomes, is_supported
from worker.evm.block_steps import BlockRun
from worker.evm.engine import Engine
from worker.evm.errors import ForkNotSupported
from worker.evm.kept_base import KeptBase
from worker.evm.layouts import HALTS, REJECTIONS, AccountFlag, EntryFlag, MessageKind, Status
from worker.evm.state_resolver import StateResolver
from worker.evm.trace_stream import TraceStream, TraceWish

__all__ = ["NativeExecutor"]

_PRECOMPILES = frozenset(number.to_bytes(20, "big") for number in (*range(1, 0x12), 0x100))


class _Seat:
    """An engine and the base that it keeps: what one thread at a time uses."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.kept = KeptBase()

    def open(self, state: StateReader, context: BlockContext) -> BlockRun:
        # An overlay would have to update a trie to know its root.
        root = None if isinstance(state, OverlaidState) else state.root
        return BlockRun(self.engine, context, *self.kept.open(state, root))

    def open_traced(self, state: StateReader, context: BlockContext) -> BlockRun:
        base = BaseState(accounts_complete=False, single_step=True)
        return BlockRun(self.engine, context, base, StateResolver(state))


class NativeExecutor:
    """Implements core.execution.Executor. Threads may share it: blocks take turns, calls and traces run side by side,
    each on an engine of its own that the next call takes over.

    `fallback` executes and traces what the engine has no rules for; without it, that raises ForkNotSupported.
    """

    def __init__(self, engine: Engine | None = None, fallback: Executor | None = None) -> None:
        self._fallback = fallback
        self._blocks, self._blocks_turn = _Seat(engine or Engine(threads=1)), Lock()
        self._idle: list[_Seat] = []
        self.name = self._blocks.engine.name

    def execute_block(
        self, state: StateReader, context: BlockContext, transactions: TransactionColumns
    ) -> ExecutionOutcome:
        """See `Executor`. Raises BlockError where a system contract that the fork demands is missing or fails."""
        if not is_supported(context):
            return self._other(context).execute_block(state, context, transactions)
        with self._blocks_turn:
            run = self._blocks.open(state, context)
            run.begin()
            outcomes = run.transact(transactions)
            included = _included(outcomes)
            receipts = _receipts(outcomes, transactions, included)
            run.finish(receipts)
            outcome = _outcome(run, outcomes, included, receipts)
            self._blocks.kept.executed(outcome.difference)
        return outcome

    def keep(self, difference: StateDifference, root: bytes) -> None:
        """The state after `difference`, which the last executed block made, has this root: the next block on it finds
        what this one brought and changed. Never needed for a right answer, and without effect for any other difference.
        """
        with self._blocks_turn:
            self._blocks.kept.keep(difference, root)

    def execute_transactions(
        self, state: StateReader, context: BlockContext, transactions: TransactionColumns
    ) -> ExecutionOutcome:
        """See `Executor`."""
        if not is_supported(context):
            return self._other(context).execute_transactions(state, context, transactions)
        with self._blocks_turn:
            run = self._blocks.open(state, context)
            outcomes = run.transact(transactions)
            included = _included(outcomes)
            return _outcome(run, outcomes, included, _receipts(outcomes, transactions, included))

    def call(self, state: StateReader, context: BlockContext, request: CallRequest) -> CallResult:
        """See `Executor` and `CallRequest`."""
        if not is_supported(context):
            return self._other(context).call(state, context, request)
        with self._seat() as seat:
            run = seat.open(state, _context_of_call(context, request))
            outcomes = run.transact(_columns_of_call(state, context, request), _kind_of_call(request))
            return _call_result(run, outcomes, request)

    def trace(
        self,
        state: StateReader,
        context: BlockContext,
        transactions: TransactionColumns,
        rows: Sequence[int],
        *,
        struct_logs: bool,
    ) -> tuple[TransactionTrace, ...]:
        """See `Executor`. Raises BlockError when a row that was asked for may not be included."""
        if not is_supported(context):
            return self._other(context).trace(state, context, transactions, rows, struct_logs=struct_logs)
        with self._seat() as seat:
            run = seat.open_traced(state, context)
            run.begin()
            return _traces(run, transactions, rows, struct_logs=struct_logs)

    def trace_transactions(
        self,
        state: StateReader,
        context: BlockContext,
        transactions: TransactionColumns,
        rows: Sequence[int],
        *,
        struct_logs: bool,
    ) -> tuple[TransactionTrace, ...]:
        """See `Executor`. Raises BlockError when a row that was asked for may not be included."""
        if not is_supported(context):
            other = self._other(context)
            return other.trace_transactions(state, context, transactions, rows, struct_logs=struct_logs)
        with self._seat() as seat:
            return _traces(seat.open_traced(state, context), transactions, rows, struct_logs=struct_logs)

    def trace_call(
        self, state: StateReader, context: BlockContext, request: CallRequest, *, struct_logs: bool
    ) -> TransactionTrace:
        """See `Executor`. Raises BlockError when the request could not start at all."""
        if not is_supported(context):
            return self._other(context).trace_call(state, context, request, struct_logs=struct_logs)
        columns, kind = _columns_of_call(state, context, request), _kind_of_call(request)
        with self._seat() as seat:
            run = seat.open_traced(state, _context_of_call(context, request))
            ((_, outcomes, stream),) = run.trace(columns, [0], _wishes(struct_logs), kind)
            rejections = _rejections(outcomes)
            if rejections:
                raise BlockError(f"the call cannot start: {rejections[0].detail}")
            return _trace(bytes(32), request.gas_limit, outcomes, stream, struct_logs)

    @contextmanager
    def _seat(self) -> Iterator[_Seat]:
        """A seat for one call: the last one left, whose memory is still warm, or a new one when all are taken."""
        try:
            seat = self._idle.pop()
        except IndexError:
            seat = _Seat(Engine(threads=1))
        yield seat
        self._idle.append(seat)  # not after an error: what the seat's base holds then is not known

    def _other(self, context: BlockContext) -> Executor:
        if self._fallback is None:
            raise ForkNotSupported(
                f"the native engine executes Cancun to BPO2 with every precompile in its place; for "
                f"{context.fork.name} give it another executor to fall back on, or use --executor reference"
            )
        return self._fallback


def _traces(
    run: BlockRun, transactions: TransactionColumns, rows: Sequence[int], *, struct_logs: bool
) -> tuple[TransactionTrace, ...]:
    traces = {}
    for row, outcomes, stream in run.trace(transactions, rows, _wishes(struct_logs)):
        rejections = _rejections(outcomes)
        if rejections:
            raise BlockError(f"transaction {row} may not be included: {rejections[0].detail}")
        gas_limit = int(transactions.gas_limit[row])
        traces[row] = _trace(transactions.hash[row].tobytes(), gas_limit, outcomes, stream, struct_logs)
    return tuple(traces[row] for row in rows)


# ---- outcomes in the protocol's terms ------------------------------------------------------------


def _outcome(run: BlockRun, outcomes: Outcomes, included: Array, receipts: ReceiptColumns) -> ExecutionOutcome:
    return ExecutionOutcome(
        included=included,
        rejections=_rejections(outcomes),
        receipts=receipts,
        difference=_difference(run.base),
        gas_used=int(receipts.gas_used.sum()),
        blob_gas_used=run.blob_gas_used,
        requests=run.requests,
    )


def _included(outcomes: Outcomes) -> Array:
    return np.flatnonzero(outcomes.results["status"] != Status.REJECTED).astype("<u4")


def _rejections(outcomes: Outcomes) -> tuple[Rejection, ...]:
    rejections = []
    for row in np.flatnonzero(outcomes.results["status"] == Status.REJECTED).tolist():
        reason = REJECTIONS[int(outcomes.results["rejection"][row])]
        assert reason is not None
        rejections.append(Rejection(row, reason, reason.value.replace("_", " ")))
    return tuple(rejections)


def _receipts(outcomes: Outcomes, transactions: TransactionColumns, included: Array) -> ReceiptColumns:
    status, gas_used = outcomes.results["status"], outcomes.results["gas_used"]
    return ReceiptColumns.from_rows(
        [
            (int(transactions.type[row]), int(status[row]) == Status.SUCCESS, int(gas_used[row]), outcomes.logs(row))
            for row in included.tolist()
        ]
    )


def _call_result(run: BlockRun, outcomes: Outcomes, request: CallRequest) -> CallResult:
    rejections = _rejections(outcomes)
    if rejections:
        return CallResult(False, Halt.NONE, b"", 0, 0, (), StateDifference.empty(), (), rejections[0])
    result = outcomes.results[0]
    return CallResult(
        succeeded=int(result["status"]) == Status.SUCCESS,
        halt=HALTS[int(result["halt"])],
        output=outcomes.output(0),
        gas_used=int(result["gas_used"]),
        gas_refunded=int(result["gas_refunded"]),
        logs=outcomes.logs(0),
        difference=_difference(run.base),
        accessed=_accessed(outcomes, request),
    )


def _difference(base: BaseState) -> StateDifference:
    """What really changed on `base` since it was filled."""
    taken = base.changes()
    changes: dict[int, tuple[bytes, AccountChange]] = {}
    changed: set[int] = set()
    for row, record in enumerate(taken.records.tolist()):
        before, after = taken.before[row], taken.after[row]
        change, real = _account_change(base, before, after, taken.code_hashes[row].tobytes())
        changes[record] = (after["address"].tobytes(), change)
        if real:
            changed.add(record)
    for slot, value_before in zip(taken.slots, taken.slots_before, strict=True):
        record = int(slot["account"])
        change = changes[record][1]
        if change.account is not None and not np.array_equal(slot["value"], value_before):
            change.storage[int_from_limbs(slot["key"])] = int_from_limbs(slot["value"])
            changed.add(record)
    return StateDifference.from_changes(dict(changes[record] for record in changed))


def _account_change(base: BaseState, before: Array, after: Array, code_hash: bytes) -> tuple[AccountChange, bool]:
    """An account's change, and whether it is one."""
    exists, existed = (bool(one["flags"] & AccountFlag.EXISTS) for one in (after, before))
    cleared = bool(after["flags"] & AccountFlag.CLEARED and before["flags"] & AccountFlag.HAS_STORAGE)
    recoded = base.code_hash(int(before["code"])) != code_hash
    same = exists == existed and all(np.array_equal(before[name], after[name]) for name in ("nonce", "balance"))
    account = Account(int(after["nonce"]), int_from_limbs(after["balance"]), code_hash) if exists else None
    code = base.code(int(after["code"])) if exists and recoded else b""
    return AccountChange(account, storage_cleared=cleared, code=code or None), not same or recoded or cleared


# ---- traces ------------------------------------------------------------


def _wishes(struct_logs: bool) -> TraceWish:
    everything = TraceWish.INSTRUCTIONS | TraceWish.MEMORY | TraceWish.RETURNED | TraceWish.MESSAGES
    return everything if struct_logs else TraceWish.MESSAGES


def _trace(
    transaction_hash: bytes, gas_limit: int, outcomes: Outcomes, stream: TraceStream, struct_logs: bool
) -> TransactionTrace:
    gas_used = int(outcomes.results["gas_used"][0])
    return TransactionTrace(
        hash=transaction_hash,
        gas_used=gas_used,
        succeeded=int(outcomes.results["status"][0]) == Status.SUCCESS,
        output=outcomes.output(0),
        frame=replace(stream.frame(), gas=gas_limit, gas_used=gas_used),
        struct_logs=stream.struct_logs() if struct_logs else (),
    )


# ---- calls ------------------------------------------------------------


def _context_of_call(context: BlockContext, request: CallRequest) -> BlockContext:
    """A call that offers no fee sees a base fee of 0, as in geth."""
    free = not request.validate and request.max_fee_per_gas == 0
    return replace(context, base_fee_per_gas=0) if free else context


def _kind_of_call(request: CallRequest) -> MessageKind:
    return MessageKind.CHECKED_CALL if request.validate else MessageKind.SIMULATION


def _columns_of_call(state: StateReader, context: BlockContext, request: CallRequest) -> TransactionColumns:
    """An unsigned message as a row of columns."""
    return TransactionColumns.from_transactions([unsigned_transaction(state, context, request)], [request.sender])


def _accessed(outcomes: Outcomes, request: CallRequest) -> tuple[AccessListEntry, ...]:
    """The access list that would have made everything warm, without what is warm anyway."""
    accounts = outcomes.accounts(0)
    addresses = [one["address"].tobytes() for one in accounts]
    target = request.to or outcomes.results["created"][0].tobytes()
    free = {request.sender, target} | _PRECOMPILES
    keys: dict[bytes, list[bytes]] = {
        address: []
        for address, flags in zip(addresses, accounts["flags"].tolist(), strict=True)
        if flags & EntryFlag.ASKED and address not in free
    }
    for slot in outcomes.slots(0):
        if slot["flags"] & EntryFlag.LOADED and not slot["flags"] & EntryFlag.TRANSIENT:
            key = int_from_limbs(slot["key"]).to_bytes(32, "big")
            keys.setdefault(addresses[int(slot["account"])], []).append(key)
    return tuple(AccessListEntry(address, tuple(sorted(slots))) for address, slots in sorted(keys.items()))
