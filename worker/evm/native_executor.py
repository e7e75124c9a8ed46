"""The native engine behind the `Executor` protocol: blocks, transactions and calls on any `StateReader`.

Reads state as transactions ask for it and turns outcomes into receipts and differences. System calls, withdrawals and
requests of a block are in `worker.evm.block_steps`.
"""

import numpy as np

from core.columns import Array, int_from_limbs
from core.execution import BlockContext, ExecutionOutcome, Rejection
from core.hashing import EMPTY_CODE_HASH, EMPTY_TRIE_ROOT
from core.receipts import ReceiptColumns
from core.state import Account, AccountChange, StateDifference, StateReader
from core.transaction import TransactionColumns
from worker.evm.base_state import BaseState
from worker.evm.batch import Batch, Outcomes, block_environments
from worker.evm.engine import Engine
from worker.evm.layouts import REJECTIONS, AccountFlag, RequestKind, Status

__all__ = ["NativeExecutor", "StateResolver"]


class StateResolver:
    """Answers requests from a `StateReader`; world 0 is its state. Remembers the records it has made."""

    def __init__(self, state: StateReader) -> None:
        self._state = state
        self._records: dict[bytes, int] = {}
        self._codes: dict[bytes, int] = {EMPTY_CODE_HASH: 0}

    def resolve(self, base: BaseState, batch: Batch, outcomes: Outcomes, rows: list[int]) -> None:
        for row in rows:
            request = outcomes.results["request"][row]
            kind, address = RequestKind(int(request["kind"])), request["address"].tobytes()
            assert kind in (RequestKind.ACCOUNT, RequestKind.SLOT), f"no answer to a request of kind {kind.name}"
            if kind == RequestKind.ACCOUNT:
                self.load_account(base, address)
            else:
                slot = int_from_limbs(request["key"])
                record = np.array([self._records[address]])
                value = self._state.storage(address, slot)
                base.add_slots(record, request["key"].reshape(1, 4), _limbs(value))

    def load_account(self, base: BaseState, address: bytes) -> None:
        """Bring one account into the base, once."""
        if address in self._records:
            return
        account = self._state.account(address)
        flags = AccountFlag.EXISTS if account else AccountFlag.STORAGE_COMPLETE
        account = account or Account(0, 0)
        flags |= AccountFlag.STORAGE_COMPLETE if account.storage_root == EMPTY_TRIE_ROOT else AccountFlag.HAS_STORAGE
        if account.code_hash not in self._codes:
            self._codes[account.code_hash] = base.add_codes([self._state.code(account.code_hash)])
        self._records[address] = base.add_account(
            address,
            nonce=account.nonce,
            balance=account.balance,
            code=self._codes[account.code_hash],
            flags=flags,
        )


def _limbs(value: int) -> Array:
    return np.frombuffer(value.to_bytes(32, "little"), "<u8").reshape(1, 4)


class NativeExecutor:
    """Implements core.execution.Executor. Not to be shared between threads."""

    def __init__(self, engine: Engine | None = None) -> None:
        self._engine = engine or Engine(threads=1)
        self.name = self._engine.name

    def execute_transactions(
        self, state: StateReader, context: BlockContext, transactions: TransactionColumns
    ) -> ExecutionOutcome:
        base, resolver = BaseState(accounts_complete=False), StateResolver(state)
        blocks = block_environments([context], base)
        resolver.load_account(base, context.coinbase)
        available = int(blocks["blob_gas_available"][0])
        outcomes = self._engine.run_block(base, Batch.of(transactions, blocks), blocks, resolver)
        included = np.flatnonzero(outcomes.results["status"] != Status.REJECTED).astype("<u4")
        return ExecutionOutcome(
            included=included,
            rejections=rejections_of(outcomes),
            receipts=receipts_of(outcomes, transactions, included),
            difference=difference_of(base),
            gas_used=int(outcomes.results["gas_used"].sum()),
            blob_gas_used=available - int(blocks["blob_gas_available"][0]),
        )


def rejections_of(outcomes: Outcomes) -> tuple[Rejection, ...]:
    """The rejected rows, in order."""
    rejected = np.flatnonzero(outcomes.results["status"] == Status.REJECTED).tolist()
    rejections = []
    for row in rejected:
        reason = REJECTIONS[int(outcomes.results["rejection"][row])]
        assert reason is not None
        rejections.append(Rejection(row, reason, reason.value.replace("_", " ")))
    return tuple(rejections)


def receipts_of(outcomes: Outcomes, transactions: TransactionColumns, included: Array) -> ReceiptColumns:
    """Receipts of the included rows."""
    results = outcomes.results
    return ReceiptColumns.from_rows(
        [
            (
                int(transactions.type[row]),
                int(results["status"][row]) == Status.SUCCESS,
                int(results["gas_used"][row]),
                outcomes.logs(row),
            )
            for row in included.tolist()
        ]
    )


def difference_of(base: BaseState) -> StateDifference:
    """What serial runs on `base` really changed, since the last time."""
    taken = base.take_changes()
    changes: dict[int, tuple[bytes, AccountChange, bool]] = {}
    for row, record in enumerate(taken.records.tolist()):
        before, after = taken.before[row], taken.after[row]
        exists, existed = (bool(one["flags"] & AccountFlag.EXISTS) for one in (after, before))
        cleared = bool(after["flags"] & AccountFlag.CLEARED) and bool(before["flags"] & AccountFlag.HAS_STORAGE)
        same = exists == existed and all(
            np.array_equal(before[name], after[name]) for name in ("nonce", "balance", "code")
        )
        code_hash = taken.code_hashes[row].tobytes()
        account = Account(int(after["nonce"]), int_from_limbs(after["balance"]), code_hash) if exists else None
        code_changed = int(before["code"]) != int(after["code"]) and base.code_hash(int(before["code"])) != code_hash
        code = base.code(int(after["code"])) if exists and code_changed else None
        change = AccountChange(account, storage_cleared=cleared, code=code or None)
        changes[record] = (after["address"].tobytes(), change, same and not cleared)
    for slot, before in zip(taken.slots, taken.slots_before, strict=True):
        if not np.array_equal(slot["value"], before):
            address, change, _ = changes[int(slot["account"])]
            if change.account is None:
                continue
            change.storage[int_from_limbs(slot["key"])] = int_from_limbs(slot["value"])
            changes[int(slot["account"])] = (address, change, False)
    return StateDifference.from_changes({address: change for address, change, same in changes.values() if not same})
