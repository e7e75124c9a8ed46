"""A chain held in memory: what `core.store` does, without files."""

from collections.abc import Iterator

from core.block import Header
from core.chain import LogFilter, LogRecord, SealedBlock, TransactionLocation
from core.fork import ChainConfig
from core.genesis import Genesis
from core.memory_state import MemoryState
from core.receipts import Log, ReceiptColumns
from core.state import StateDifference

__all__ = ["MemoryChain"]


class MemoryChain:
    """A `Chain` that starts with a genesis block and keeps every state."""

    def __init__(self, genesis: Genesis) -> None:
        self._config = genesis.config
        self._blocks = [genesis.block]
        self._receipts = [ReceiptColumns.empty()]
        self._states = [MemoryState().apply(genesis.difference)]
        self._numbers = {genesis.block.hash: 0}
        self._transactions: dict[bytes, TransactionLocation] = {}

    @property
    def config(self) -> ChainConfig:
        return self._config

    def head(self) -> SealedBlock:
        return self._blocks[-1]

    def block(self, number: int) -> SealedBlock | None:
        return self._blocks[number] if number < len(self._blocks) else None

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
                    if _matches(log, log_filter):
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


def _matches(log: Log, wanted: LogFilter) -> bool:
    if wanted.addresses and log.address not in wanted.addresses:
        return False
    if len(wanted.topics) > len(log.topics):
        return False
    return all(not allowed or topic in allowed for allowed, topic in zip(wanted.topics, log.topics, strict=False))
