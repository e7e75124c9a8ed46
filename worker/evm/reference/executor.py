"""The reference executor: Ethereum's own executable specification behind our `Executor` protocol.

Slow and right. It arbitrates in tests and is the watcher's second opinion; every fork from Frontier to BPO2.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from core.errors import BlockError
from core.execution import (
    BlockContext,
    CallFrame,
    CallRequest,
    CallResult,
    ExecutionOutcome,
    Halt,
    Rejection,
    StructLog,
    TransactionTrace,
)
from core.fork import Fork
from core.receipts import ReceiptColumns
from core.state import StateDifference, StateReader
from core.transaction import TransactionColumns
from worker.evm.reference.rules import Refused
from worker.evm.reference.run import BlockRun, Effect
from worker.evm.reference.tracing import Tracer

__all__ = ["ReferenceExecutor"]


class ReferenceExecutor:
    """Implements `core.execution.Executor`. Holds no state; may be shared by threads (traces run one at a time)."""

    name = "reference"

    def execute_block(
        self, state: StateReader, context: BlockContext, transactions: TransactionColumns
    ) -> ExecutionOutcome:
        """See `Executor`. Raises BlockError where a system contract that the fork demands is missing or fails."""
        run = BlockRun(state, context)
        run.begin()
        included, rejections, effects = _transact_all(run, transactions)
        run.finish()
        return _outcome(run, transactions, included, rejections, effects)

    def execute_transactions(
        self, state: StateReader, context: BlockContext, transactions: TransactionColumns
    ) -> ExecutionOutcome:
        """See `Executor`."""
        run = BlockRun(state, context)
        return _outcome(run, transactions, *_transact_all(run, transactions))

    def call(self, state: StateReader, context: BlockContext, request: CallRequest) -> CallResult:
        """See `Executor` and `CallRequest`."""
        run = BlockRun(state, _call_context(context, request))
        try:
            effect = run.call(request)
        except Refused as refused:
            rejection = Rejection(0, refused.reason, refused.detail)
            return CallResult(False, Halt.NONE, b"", 0, 0, (), StateDifference.empty(), (), rejection)
        return CallResult(
            succeeded=effect.halt == Halt.NONE,
            halt=effect.halt,
            output=effect.output,
            gas_used=effect.gas_used,
            gas_refunded=effect.gas_refunded,
            logs=effect.logs,
            difference=run.working.difference(),
            accessed=effect.accessed,
        )

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
        run = BlockRun(state, context)
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
        return _traces(BlockRun(state, context), transactions, rows, struct_logs=struct_logs)

    def trace_call(
        self, state: StateReader, context: BlockContext, request: CallRequest, *, struct_logs: bool
    ) -> TransactionTrace:
        """See `Executor`. Raises BlockError when the request could not start at all."""
        run = BlockRun(state, _call_context(context, request))
        tracer = Tracer(run.rules, struct_logs=struct_logs)
        try:
            with tracer:
                effect = run.call(request)
        except Refused as refused:
            raise BlockError(f"the call cannot start: {refused.detail}") from refused
        frame = tracer.frame() or _collision(request.sender, request.value, request.data)
        return _trace(bytes(32), request.gas_limit, effect, frame, tracer.struct_logs())


def _call_context(context: BlockContext, request: CallRequest) -> BlockContext:
    """A call that offers no fee sees a base fee of 0, as in geth."""
    free = not request.validate and request.max_fee_per_gas == 0
    return replace(context, base_fee_per_gas=0) if free else context


def _traces(
    run: BlockRun, transactions: TransactionColumns, rows: Sequence[int], *, struct_logs: bool
) -> tuple[TransactionTrace, ...]:
    traces: dict[int, TransactionTrace] = {}
    for row in range(max(rows, default=-1) + 1):
        try:
            if row not in rows:
                _transact(run, transactions, row)
                continue
            tracer = Tracer(run.rules, struct_logs=struct_logs)
            with tracer:
                effect = _transact(run, transactions, row)
        except Refused as refused:
            if row in rows:
                raise BlockError(f"transaction {row} may not be included: {refused.detail}") from refused
            continue
        tx, sender = transactions.transaction(row), transactions.sender[row].tobytes()
        frame = tracer.frame() or _collision(sender, tx.value, tx.data)
        transaction_hash = transactions.hash[row].tobytes()
        traces[row] = _trace(transaction_hash, tx.gas_limit, effect, frame, tracer.struct_logs())
    return tuple(traces[row] for row in rows)


def _transact(run: BlockRun, transactions: TransactionColumns, row: int) -> Effect:
    return run.transact(transactions.transaction(row), transactions.sender[row].tobytes())


def _transact_all(
    run: BlockRun, transactions: TransactionColumns
) -> tuple[list[int], tuple[Rejection, ...], list[Effect]]:
    included, rejections, effects = [], [], []
    for row in range(len(transactions)):
        try:
            effects.append(_transact(run, transactions, row))
            included.append(row)
        except Refused as refused:
            rejections.append(Rejection(row, refused.reason, refused.detail))
    return included, tuple(rejections), effects


def _outcome(
    run: BlockRun,
    transactions: TransactionColumns,
    included: list[int],
    rejections: tuple[Rejection, ...],
    effects: list[Effect],
) -> ExecutionOutcome:
    kinds = [int(transactions.type[row]) for row in included]
    rows = [
        (kind, effect.halt == Halt.NONE, effect.gas_used, effect.logs)
        for kind, effect in zip(kinds, effects, strict=True)
    ]
    post_states = [effect.post_state for effect in effects if effect.post_state is not None]
    assert len(post_states) == (len(effects) if run.rules.number < Fork.BYZANTIUM else 0)
    return ExecutionOutcome(
        included=np.array(included, "<u4"),
        rejections=rejections,
        receipts=ReceiptColumns.from_rows(rows, post_states),
        difference=run.working.difference(),
        gas_used=run.gas_used,
        blob_gas_used=run.blob_gas_used,
        requests=run.requests,
    )


def _collision(sender: bytes, value: int, data: bytes) -> CallFrame:
    """The only message that EELS never starts: a creation whose address is taken."""
    return CallFrame("CREATE", sender, None, value, 0, 0, data, b"", Halt.ADDRESS_COLLISION, (), ())


def _trace(
    transaction_hash: bytes, gas_limit: int, effect: Effect, frame: CallFrame, struct_logs: tuple[StructLog, ...]
) -> TransactionTrace:
    return TransactionTrace(
        hash=transaction_hash,
        gas_used=effect.gas_used,
        succeeded=effect.halt == Halt.NONE,
        output=effect.output,
        frame=replace(frame, gas=gas_limit, gas_used=effect.gas_used),
        struct_logs=struct_logs,
    )
