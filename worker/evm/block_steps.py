"""What a block does besides its transactions: system calls, withdrawals, requests (EIP-4788, 2935, 4895, 6110, 7002).

Owns one block's run on the engine. Knows nothing of how the state is stored.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from core.errors import BlockError
from core.execution import BlockContext
from core.fork import Fork
from core.receipts import ReceiptColumns
from core.system_contracts import (
    BEACON_ROOTS,
    CONSOLIDATION_REQUESTS,
    HISTORY,
    WITHDRAWAL_REQUESTS,
    SystemContract,
)
from core.transaction import Transaction, TransactionColumns, TransactionType
from worker.evm.base_state import BaseState
from worker.evm.batch import Batch, Outcomes, block_environments
from worker.evm.engine import Engine
from worker.evm.layouts import MessageKind, Status
from worker.evm.state_resolver import StateResolver
from worker.evm.trace_stream import TraceStream, TraceWish

__all__ = ["BlockRun"]

_SYSTEM_ADDRESS = bytes.fromhex("fffffffffffffffffffffffffffffffffffffffe")
_SYSTEM_GAS = 30_000_000
_WEI_PER_GWEI = 10**9
_DEPOSIT_CONTRACT = bytes.fromhex("00000000219ab540356cbb839cbe05303d7705fa")
_DEPOSIT_EVENT = bytes.fromhex("649bbc62d0e31342afea4e5cd82d4049e7e1ee912fc0889aa790803be39038c5")
_DEPOSIT_DATA_BYTES = 576
# (where a field's length stands, where the field begins, its bytes): pubkey, credentials, amount, signature, index
_DEPOSIT_FIELDS = ((160, 192, 48), (256, 288, 32), (320, 352, 8), (384, 416, 96), (512, 544, 8))
_DEPOSIT_REQUEST, _WITHDRAWAL_REQUEST, _CONSOLIDATION_REQUEST = b"\x00", b"\x01", b"\x02"


class BlockRun:
    """One block on the engine, over a state. Its methods follow the order of a block: begin, transact, finish."""

    def __init__(self, engine: Engine, context: BlockContext, base: BaseState, resolver: StateResolver) -> None:
        """`base` and `resolver` are the state's; for `trace` the base decodes codes so that each step can be told."""
        self._engine = engine
        self._context = context
        self.base = base
        self._resolver = resolver
        self._blocks = block_environments([context], self.base)
        self._blob_gas_available = self._blob_gas_left()
        self._resolver.load_account(self.base, context.coinbase)
        self.requests: tuple[bytes, ...] = ()

    @property
    def blob_gas_used(self) -> int:
        """Blob gas of the transactions so far."""
        return self._blob_gas_available - self._blob_gas_left()

    def begin(self) -> None:
        """The system calls that open a block. Where a contract is not deployed, its call does nothing."""
        self._system_call(BEACON_ROOTS, self._context.parent_beacon_block_root)
        if self._context.fork >= Fork.PRAGUE:
            assert self._context.block_hashes, "a block knows its parent's hash"
            self._system_call(HISTORY, self._context.block_hashes[-1])

    def transact(self, transactions: TransactionColumns, kind: MessageKind = MessageKind.TRANSACTION) -> Outcomes:
        """Run transactions in order, each on what the one before left."""
        batch = Batch.of(transactions, self._blocks, kind=kind)
        return self._engine.run_block(self.base, batch, self._blocks, self._resolver)

    def trace(
        self,
        transactions: TransactionColumns,
        rows: Sequence[int],
        wishes: TraceWish,
        kind: MessageKind = MessageKind.TRANSACTION,
    ) -> Iterator[tuple[int, Outcomes, TraceStream]]:
        """Run transactions in order up to the last of `rows`; (row, outcome as row 0, trace) of each of `rows`."""
        following = 0
        for row in sorted(set(rows)):
            if row > following:
                self.transact(transactions.take(np.arange(following, row)), kind)
            batch = Batch.of(transactions.take(np.array([row])), self._blocks, kind=kind)
            stream = TraceStream(wishes)
            yield row, self._engine.trace_row(self.base, batch, 0, self._blocks, stream, self._resolver), stream
            following = row + 1

    def finish(self, receipts: ReceiptColumns) -> None:
        """Withdrawals, then (from Prague) requests.

        Raises BlockError where a request contract is missing or fails, or a deposit's event is malformed.
        """
        for withdrawal in self._context.withdrawals:
            self._resolver.load_account(self.base, withdrawal.address)
            self.base.credit(withdrawal.address, withdrawal.amount * _WEI_PER_GWEI)
        if self._context.fork < Fork.PRAGUE:
            return
        deposits = b"".join(_deposits_of(receipts))
        parts = (
            (_DEPOSIT_REQUEST, deposits),
            (_WITHDRAWAL_REQUEST, self._demanded_call(WITHDRAWAL_REQUESTS)),
            (_CONSOLIDATION_REQUEST, self._demanded_call(CONSOLIDATION_REQUESTS)),
        )
        self.requests = tuple(kind + data for kind, data in parts if data)

    def _system_call(self, contract: SystemContract, data: bytes) -> Outcomes:
        message = Transaction(
            type=TransactionType.LEGACY,
            chain_id=None,
            nonce=0,
            gas_limit=_SYSTEM_GAS,
            max_fee_per_gas=0,
            max_priority_fee_per_gas=0,
            to=contract.address,
            value=0,
            data=data,
            y_parity=0,
            r=0,
            s=0,
        )
        columns = TransactionColumns.from_transactions([message], [_SYSTEM_ADDRESS])
        return self.transact(columns, MessageKind.SYSTEM)

    def _demanded_call(self, contract: SystemContract) -> bytes:
        """The output of a system call that the block is invalid without."""
        outcomes = self._system_call(contract, b"")
        number, name = self._context.number, contract.address.hex()
        (target,) = [one for one in outcomes.accounts(0) if one["address"].tobytes() == contract.address]
        if not self.base.code(int(target["code"])):
            raise BlockError(f"block {number} cannot be executed: system contract 0x{name} has no code")
        if int(outcomes.results["status"][0]) != Status.SUCCESS:
            raise BlockError(f"block {number} cannot be executed: the call of system contract 0x{name} failed")
        return outcomes.output(0)

    def _blob_gas_left(self) -> int:
        return int(self._blocks["blob_gas_available"][0])


def _deposits_of(receipts: ReceiptColumns) -> Sequence[bytes]:
    """EIP-6110: the deposits that the block's logs tell of, each as its request's bytes."""
    return [
        _deposit(log.data)
        for row in range(len(receipts))
        for log in receipts.logs(row)
        if log.address == _DEPOSIT_CONTRACT and log.topics and log.topics[0] == _DEPOSIT_EVENT
    ]


def _deposit(data: bytes) -> bytes:
    words = [int.from_bytes(data[at : at + 32], "big") for at in range(0, 160, 32)]
    sound = len(data) == _DEPOSIT_DATA_BYTES and words == [length_at for length_at, _, _ in _DEPOSIT_FIELDS]
    for length_at, _, size in _DEPOSIT_FIELDS:
        sound = sound and int.from_bytes(data[length_at : length_at + 32], "big") == size
    if not sound:
        raise BlockError("a deposit event does not have the layout of EIP-6110")
    return b"".join(data[at : at + size] for _, at, size in _DEPOSIT_FIELDS)
