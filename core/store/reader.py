"""A replica as its readers see it: `core.chain.ChainReader` over the block log and LMDB, in any process."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from core.block import Header
from core.chain import LogFilter, LogRecord, SealedBlock, TransactionLocation
from core.chain_rules import BLOCK_HASHES_MAX
from core.errors import StatePruned, StoreCorrupt, StoreError, StoreMismatch
from core.fork import ChainConfig
from core.genesis import Genesis
from core.receipts import ReceiptColumns
from core.state import StateDifference
from core.store.environment import MAP_BYTES_INITIAL, Environment, Transaction
from core.store.identity import ChainIdentity
from core.store.index import INDEX_TABLES, BlockIndex, matches
from core.store.log import FORMAT_VERSION, SEGMENT_BYTES_MAX, BlockLog
from core.store.record import BlockRecord, decode_record
from core.store.state import STATE_TABLES, StateTables, StoredState

__all__ = ["CHUNK_BYTES", "ReplicaReader"]

CHUNK_BYTES = 512 * 1024
"""A state chunk's target; with the account or code that overfills it, it stays below the 1 MiB of a message."""

_TABLES = ("identity", *STATE_TABLES, *INDEX_TABLES)
_IDENTITY_KEY = b"identity"
_RECORDS_CACHED = 64
_CANDIDATES_AT_ONCE = 256


class ReplicaReader:
    """Every method sees whole blocks only. Any thread may read."""

    def __init__(self, path: Path, genesis: Genesis, *, writable: bool, segment_bytes_max: int, map_bytes: int) -> None:
        """Raises StoreError, or StoreMismatch when another chain's or another version's data are there."""
        self.path = path
        self._genesis = genesis
        self._log = BlockLog.open(
            path, ChainIdentity.of(genesis), writable=writable, segment_bytes_max=segment_bytes_max
        )
        self._environment = Environment(path / "state", _TABLES, writable=writable, map_bytes=map_bytes)
        self._tables = StateTables(self._environment)
        self._index = BlockIndex(self._environment)
        self._identity = self._environment.table("identity")
        self._records: OrderedDict[int, BlockRecord] = OrderedDict()
        self._records_lock = threading.Lock()

    @classmethod
    def open_read_only(cls, path: Path, genesis: Genesis) -> "ReplicaReader":
        """Read a replica that another process writes. A process may open a replica once, in one way.

        Raises StoreError when there is none yet, StoreMismatch when it is another chain's.
        """
        if not (path / "state").is_dir():
            raise StoreError(f"there is no replica in {path}")
        reader = ReplicaReader(
            path, genesis, writable=False, segment_bytes_max=SEGMENT_BYTES_MAX, map_bytes=MAP_BYTES_INITIAL
        )
        try:
            with reader._environment.read() as transaction:
                found = reader._identity.get(transaction, _IDENTITY_KEY)
            reader._check_identity(found)
        except StoreError:
            reader.close()
            raise
        return reader

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether a replica was begun in the folder `path`: what an import that failed left behind is none."""
        return any(path.glob("blocks-*.log"))

    def close(self) -> None:
        """Close the files. Nothing is lost without it."""
        self._log.close()
        self._environment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def config(self) -> ChainConfig:
        return self._genesis.config

    @property
    def identity(self) -> ChainIdentity:
        """Which chain this is: its id and the genesis block's hash."""
        return ChainIdentity.of(self._genesis)

    def head(self) -> SealedBlock:
        with self._environment.read() as transaction:
            number = self._index.head(transaction)
        if number is None:
            raise StoreError(f"the replica in {self.path} is being made")
        return self._record(number).sealed

    def first(self) -> int:
        """The number of the block at which this replica begins: 0, or that of the snapshot."""
        with self._environment.read() as transaction:
            return self._index.first(transaction)

    def block(self, number: int) -> SealedBlock | None:
        record = self._find(number)
        return None if record is None else record.sealed

    def block_by_hash(self, block_hash: bytes) -> SealedBlock | None:
        with self._environment.read() as transaction:
            number = self._index.number(transaction, block_hash)
        return None if number is None else self.block(number)

    def block_hashes(self, number: int) -> tuple[bytes, ...]:
        """The hashes of up to 256 blocks below block `number`, its parent's last, as its `BlockContext` wants them."""
        with self._environment.read() as transaction:
            entries = [self._index.entry(transaction, one) for one in range(max(0, number - BLOCK_HASHES_MAX), number)]
        return tuple(entry.hash for entry in entries if entry is not None)

    def ancestors(self, number: int) -> tuple[Header, ...]:
        """The headers of up to 256 blocks below block `number`, its parent's last."""
        headers: list[Header] = []
        for one in range(number - 1, max(0, number - BLOCK_HASHES_MAX) - 1, -1):
            header = self._header(one)
            if header is None:
                break
            headers.append(header)
        return tuple(reversed(headers))

    def receipts(self, number: int) -> ReceiptColumns:
        return self._record(number).receipts

    def difference(self, number: int) -> StateDifference | None:
        """What a block did to the state; None in the block at which this replica joined through a snapshot."""
        return self._record(number).difference

    def find_transaction(self, transaction_hash: bytes) -> TransactionLocation | None:
        with self._environment.read() as transaction:
            return self._index.location(transaction, transaction_hash)

    def logs(self, log_filter: LogFilter) -> Iterator[LogRecord]:
        first = log_filter.first
        while True:
            wanted = LogFilter(first, log_filter.last, log_filter.addresses, log_filter.topics)
            with self._environment.read() as transaction:
                numbers = list(islice(self._index.candidates(transaction, wanted), _CANDIDATES_AT_ONCE))
            for number in numbers:
                yield from self._matching(number, log_filter)
            if len(numbers) < _CANDIDATES_AT_ONCE:
                return
            first = numbers[-1] + 1

    def state(self, number: int) -> StoredState:
        record = self._find(number)
        if record is None:
            raise StatePruned(f"the state of block {number} is not kept here")
        with self._environment.read() as transaction:
            oldest = self._tables.oldest(transaction)
        if number < oldest:
            raise StatePruned(f"the state of block {number} is no longer kept; the oldest is that of {oldest}")
        return StoredState(self._tables, number, record.sealed.block.header.state_root)

    def snapshot(self, number: int) -> Iterator[StateDifference]:
        """The state of a block in tables below 1 MiB, for `Replica.join`. Raises StatePruned, also on the way."""
        return self.state(number).chunks(CHUNK_BYTES)

    def verify(self) -> int:
        """Read the whole log; return its number of blocks. Raises StoreCorrupt naming file, offset and block."""
        return self._log.verify(self.head().number)

    def _matching(self, number: int, log_filter: LogFilter) -> Iterator[LogRecord]:
        receipts = self.receipts(number)
        log_index = 0
        for row in range(len(receipts)):
            for log in receipts.logs(row):
                if matches(log, log_filter):
                    yield LogRecord(log, number, row, log_index)
                log_index += 1

    def _header(self, number: int) -> Header | None:
        record = self._find(number)
        if record is not None:
            return record.sealed.block.header
        with self._environment.read() as transaction:
            return self._index.ancestor(transaction, number)

    def _record(self, number: int) -> BlockRecord:
        record = self._find(number)
        if record is None:
            raise StoreError(f"there is no block {number} here")
        return record

    def _find(self, number: int) -> BlockRecord | None:
        with self._records_lock:
            if number in self._records:
                self._records.move_to_end(number)
                return self._records[number]
        with self._environment.read() as transaction:
            entry = self._index.entry(transaction, number) if number >= 0 else None
        if entry is None or entry.position is None:
            if number == 0:  # known also to a replica that joined later
                return BlockRecord(self._genesis.block, ReceiptColumns.empty(), self._genesis.difference)
            return None
        record = decode_record(self._log.read(entry.position, number))
        if record.sealed.hash != entry.hash:
            raise StoreCorrupt(f"the log and the index in {self.path} disagree on the hash of block {number}")
        self._remember(record)
        return record

    def _remember(self, record: BlockRecord) -> None:
        with self._records_lock:
            self._records[record.sealed.number] = record
            while len(self._records) > _RECORDS_CACHED:
                self._records.popitem(last=False)

    def _identify(self) -> None:
        """Say whose data this is, unless it has been said."""

        def write(transaction: Transaction) -> bytes:
            found = self._identity.get(transaction, _IDENTITY_KEY) or self._own_identity()
            self._identity.put(transaction, _IDENTITY_KEY, found)
            return found

        self._check_identity(self._environment.write(write))

    def _own_identity(self) -> bytes:
        return FORMAT_VERSION.to_bytes(4, "big") + ChainIdentity.of(self._genesis).to_bytes()

    def _check_identity(self, found: bytes | None) -> None:
        if found is None:
            raise StoreError(f"the replica in {self.path} is being made")
        own = self._own_identity()
        if found[:4] != own[:4]:
            raise StoreMismatch(f"{self.path} has format version {int.from_bytes(found[:4], 'big')}")
        if found != own:
            identities = ChainIdentity.from_bytes(found[4:]), ChainIdentity.from_bytes(own[4:])
            raise StoreMismatch(f"{self.path} belongs to {identities[0]}, not to {identities[1]}")
