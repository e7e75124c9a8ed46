"""A chain held in memory: what `core.store` does, without files."""

from collections.abc import Iterator

from core.block import Header
from core.chain import LogFilter, LogRecord, SealedBlock, TransactionLocation
from core.chain_rules import BLOCK_HASHES_MAX
from core.fork import ChainConfig
from core.genesis import Genesis
from core.memory_state import MemoryState
from core.receipts import ReceiptColumns
from core.state import StateDifference
from core.store.identity import ChainIdentity
from core.store.index import matches

__all__ = ["MemoryChain"]


class MemoryChain:
    """A `Chain` that starts with a genesis block and keeps every state."""

    def __init__(self, genesis: Genesis) -> None:
        self._genesis = genesis
        self._blocks = [genesis.block]
        self._receipts = [ReceiptColumns.empty()]
        self._states = [MemoryState().apply(genesis.difference)]
        self._numbers = {genesis.block.hash: 0}
        self._transactions: dict[bytes, TransactionLocation] = {}

    @property
    def identity(self) -> ChainIdentity:
        return ChainIdentity.of(self._genesis)

    @property
    def config(self) -> ChainConfig:
        return self._genesis.config

    def head(self) -> SealedBlock:
        return self._blocks[-1]

    def first(self) -> int:
        return 0

    def block(self, number: int) -> SealedBlock | None:
        return self._blocks[number] if number < len(self._blocks) else None

    def block_hashes(self, number: int) -> tuple[bytes, ...]:
        return tuple(one.hash for one in self._blocks[max(0, number - BLOCK_HASHES_MAX) : number])

    def block_by_hash(self, block_hash: bytes) -> SealedBlock | None:
        number = self._numbers.get(block_hash)
        return None if number is None else self._blocks[number]

    def receipts(self, number: int) -> ReceiptColumns:
        return self._receipts[number]

    def find_transaction(self, transaction_hash: bytes) -> TransactionLocation | None:
        return self._transactions.get(transaction_hash)

    def logs(self, log_filter: LogFilter) -> Iterator[LogRecord]:
        for number in range(log_filter.first, log_filter.last + 1):
            log_index = 0
            for row in range(len(self._receipts[number])):
                for log in self._receipts[number].logs(row):
                    if matches(log, log_filter):
                        yield LogRecord(log, number, row, log_index)
                    log_index += 1

    def state(self, number: int) -> MemoryState:
        return self._states[number]

    def append(self, sealed: SealedBlock, receipts: ReceiptColumns, difference: StateDifference) -> None:
        header: Header = sealed.block.header
        state = self._states[-1].apply(difference)
        assert header.parent_hash == self._blocks[-1].hash
        assert header.state_root == state.root
        for row, transaction_hash in enumerate(sealed.block.transactions.hash):
            self._transactions[transaction_hash.tobytes()] = TransactionLocation(header.number, row)
        self._numbers[sealed.hash] = header.number
        self._receipts.append(receipts)
        self._states.append(state)
        self._blocks.append(sealed)
