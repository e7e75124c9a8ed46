"""A node's copy of the chain: the block log, and LMDB beside it (design.md D6).

A block is durable once its record is in the log; LMDB holds states and indexes, commits after the log, and is caught up
from it on start by applying the stored differences. What an execution gives and whether a header is right is decided
before a block comes here (`core.chain_rules`); the state root that the store itself arrives at is checked against it.
"""

import fcntl
import os
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from core.block import Header, header_hash
from core.chain import SealedBlock
from core.chain_rules import BLOCK_HASHES_MAX
from core.errors import BlockError, StoreCorrupt, StoreError
from core.genesis import Genesis
from core.receipts import ReceiptColumns
from core.state import StateDifference
from core.state_trie import StateUpdate, update_state
from core.store.environment import MAP_BYTES_INITIAL, Transaction
from core.store.log import SEGMENT_BYTES_MAX, Position
from core.store.reader import ReplicaReader
from core.store.record import BlockRecord, decode_record, encode_record
from core.store.state import StateView, StoredState
from core.trie import ordered_root

__all__ = ["STATES_KEPT_DEFAULT", "Replica"]

STATES_KEPT_DEFAULT = 1_024
_PRUNED_AT_ONCE_MAX = 16
_CAUGHT_UP_AT_ONCE = 64

assert STATES_KEPT_DEFAULT > BLOCK_HASHES_MAX


class Replica(ReplicaReader):
    """`core.chain.Chain` on disk. One process writes; others open it read-only and see each block once it is whole.

    One thread at a time appends. `states_kept` is how many states, the newest ones, stay readable; None keeps all.
    """

    def __init__(
        self, path: Path, genesis: Genesis, *, states_kept: int | None, segment_bytes_max: int, map_bytes: int
    ) -> None:
        """Use `open` or `join`."""
        assert states_kept is None or states_kept > 0, "the head's state is always kept"
        path.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(path / "lock")
        try:
            super().__init__(path, genesis, writable=True, segment_bytes_max=segment_bytes_max, map_bytes=map_bytes)
        except BaseException:
            os.close(self._lock)
            raise
        self._states_kept = states_kept
        self._head_state: StoredState | None = None
        self._broken = False

    @classmethod
    def open(
        cls,
        path: Path,
        genesis: Genesis,
        *,
        states_kept: int | None = STATES_KEPT_DEFAULT,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        map_bytes: int = MAP_BYTES_INITIAL,
    ) -> "Replica":
        """Open the replica in the folder `path` to read and append; a new one begins with the genesis block.

        Cuts a torn tail and catches up from the log. Raises StoreMismatch for another chain's or version's data,
        StoreCorrupt for damaged data, StoreError when another process has it open for writing.
        """
        replica = cls(path, genesis, states_kept=states_kept, segment_bytes_max=segment_bytes_max, map_bytes=map_bytes)
        try:
            if not replica._log.segments():
                replica._forget_unfinished()
            replica._identify()
            if not replica._catch_up():
                first = replica._record(0)
                replica._add(first, replica._checked_update(first))
        except BaseException:
            replica.close()
            raise
        return replica

    @classmethod
    def join(
        cls,
        path: Path,
        genesis: Genesis,
        sealed: SealedBlock,
        receipts: ReceiptColumns,
        ancestors: Sequence[Header],
        chunks: Iterable[StateDifference],
        *,
        states_kept: int | None = STATES_KEPT_DEFAULT,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        map_bytes: int = MAP_BYTES_INITIAL,
    ) -> "Replica":
        """A new replica that begins at block `sealed`, whose hash the caller trusts, with that block's state.

        `ancestors` are the headers before it, its parent's last (`ancestors`), `chunks` its state (`snapshot`): both
        come from a peer. Raises BlockError when they are not what the block commits to; then nothing is left behind.
        """
        _check_base(sealed, receipts, ancestors)
        replica = cls(path, genesis, states_kept=states_kept, segment_bytes_max=segment_bytes_max, map_bytes=map_bytes)
        try:
            if replica._log.segments():
                raise StoreError(f"there is already a replica in {path}")
            replica._forget_unfinished()
            replica._identify()
            replica._import(sealed, ancestors, chunks)
            record = BlockRecord(sealed, receipts, None)
            position = replica._log.append(sealed.number, encode_record(record))
            replica._environment.write(lambda transaction: replica._index.add(transaction, sealed, position))
        except BaseException:
            replica.close()
            raise
        return replica

    def close(self) -> None:
        super().close()
        os.close(self._lock)

    def head(self) -> SealedBlock:
        return self._record(self._head_number()).sealed

    def state(self, number: int) -> StoredState:
        head_state = self._head_state
        if head_state is not None and head_state.number == number:
            return head_state
        state = super().state(number)
        if number == self._head_number():
            self._head_state = state
        return state

    def append(self, sealed: SealedBlock, receipts: ReceiptColumns, difference: StateDifference) -> None:
        """Add the block after the head; when this returns it is on disk.

        Raises BlockError, with nothing changed, when the block does not follow the head or its state root is not that
        of `difference`. Raises StoreError when the disk refuses; the replica must then be opened again.
        """
        if self._broken:
            raise StoreError(f"writing to {self.path} failed before; open the replica again")
        head = self.head()
        if sealed.number != head.number + 1 or sealed.block.header.parent_hash != head.hash:
            raise BlockError(f"block {sealed.number} does not follow the head, block {head.number}")
        update = self.state(head.number).update(difference)
        _check_state_root(sealed, update)
        self._add(BlockRecord(sealed, receipts, difference), update)

    def _add(self, record: BlockRecord, update: StateUpdate) -> None:
        assert record.difference is not None
        self._broken = True
        position = self._log.append(record.sealed.number, encode_record(record))
        self._environment.write(lambda transaction: self._enter(transaction, record, position, update))
        self._remember(record)
        self._broken = False

    def _enter(self, transaction: Transaction, record: BlockRecord, position: Position, update: StateUpdate) -> None:
        """Bring LMDB from the block before to this one, inside one transaction."""
        assert record.difference is not None
        number = record.sealed.number
        self._tables.apply(transaction, number, record.difference, update)
        self._index.add(transaction, record.sealed, position)
        if self._states_kept is not None:
            oldest = self._tables.oldest(transaction)
            wanted = min(number - self._states_kept + 1, oldest + _PRUNED_AT_ONCE_MAX)
            if wanted > oldest:
                self._tables.keep_from(transaction, wanted)

    def _catch_up(self) -> bool:
        """Bring LMDB to the end of the log. False when the log is empty."""
        with self._environment.read() as transaction:
            head = self._index.head(transaction)
            entry = None if head is None else self._index.entry(transaction, head)
        segments = self._log.segments()
        if not segments and head is None:
            return False
        if head is None or entry is None:
            records = self._log.recover(None, segments[0], -1)
        else:
            records = self._log.recover(entry.position, head, head)
            _, _, payload = next(records)
            if decode_record(payload).sealed.hash != entry.hash:
                raise StoreCorrupt(f"the log and the index in {self.path} disagree on the hash of block {head}")
        found = head is not None
        while batch := list(islice(records, _CAUGHT_UP_AT_ONCE)):
            self._environment.write(partial(self._replay, batch))
            found = True
        return found

    def _replay(self, batch: list[tuple[Position, int, bytes]], transaction: Transaction) -> None:
        for position, number, payload in batch:
            record = decode_record(payload)
            if record.difference is None:
                if self._tables.root(transaction, number) == record.sealed.block.header.state_root:
                    self._index.add(transaction, record.sealed, position)  # died at the very end of joining
                    continue
                raise StoreCorrupt(
                    f"the database in {self.path} was lost, and the log begins at block {number} without a state; "
                    "remove the folder and join again"
                )
            update = update_state(StateView(self._tables, transaction, max(number - 1, 0)), record.difference)
            _check_state_root(record.sealed, update)
            self._enter(transaction, record, position, update)

    def _checked_update(self, record: BlockRecord) -> StateUpdate:
        """What the first block does to nothing."""
        assert record.difference is not None
        with self._environment.read() as transaction:
            update = update_state(StateView(self._tables, transaction, 0), record.difference)
        _check_state_root(record.sealed, update)
        return update

    def _import(self, sealed: SealedBlock, ancestors: Sequence[Header], chunks: Iterable[StateDifference]) -> None:
        number, root = sealed.number, None

        def write(chunk: StateDifference, transaction: Transaction) -> bytes:
            update = update_state(StateView(self._tables, transaction, number), chunk)
            self._tables.apply(transaction, number, chunk, update, journal=False)
            return update.root

        def begin(transaction: Transaction) -> None:
            self._tables.set_oldest(transaction, number)
            for header in ancestors:
                self._index.add_ancestor(transaction, header)

        for chunk in chunks:
            root = self._environment.write(partial(write, chunk))
        if root != sealed.block.header.state_root:
            raise BlockError(f"the snapshot does not have the state root of block {number}")
        self._environment.write(begin)
        self._environment.sync()

    def _forget_unfinished(self) -> None:
        """Without a log and without a head, what LMDB holds is a beginning that was never finished."""
        with self._environment.read() as transaction:
            head = self._index.head(transaction)
        if head is not None:
            raise StoreCorrupt(f"the log in {self.path} is missing; the database has blocks up to {head}")
        self._environment.clear()

    def _head_number(self) -> int:
        with self._environment.read() as transaction:
            number = self._index.head(transaction)
        assert number is not None, "an open replica has a head"
        return number


def _lock(path: Path) -> int:
    """Hold the writer's lock until the descriptor is closed or the process dies. Raises StoreError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreError(f"another process writes to the replica in {path.parent}") from error
    return descriptor


def _check_state_root(sealed: SealedBlock, update: StateUpdate) -> None:
    expected = sealed.block.header.state_root
    if update.root != expected:
        raise BlockError(
            f"block {sealed.number} commits to state root 0x{expected.hex()}, "
            f"its difference gives 0x{update.root.hex()}"
        )


def _check_base(sealed: SealedBlock, receipts: ReceiptColumns, ancestors: Sequence[Header]) -> None:
    header = sealed.block.header
    if header_hash(header) != sealed.hash:
        raise BlockError(f"the header of block {sealed.number} does not have the hash that it came with")
    if ordered_root(sealed.block.transactions.encoded()) != header.transactions_root:
        raise BlockError(f"the transactions of block {sealed.number} are not those of its header")
    if ordered_root(receipts.encoded()) != header.receipts_root:
        raise BlockError(f"the receipts of block {sealed.number} are not those of its header")
    if len(ancestors) < min(sealed.number, BLOCK_HASHES_MAX):
        raise BlockError(f"{len(ancestors)} ancestors are too few for block {sealed.number}")
    expected = header.parent_hash
    for ancestor in reversed(ancestors):
        if header_hash(ancestor) != expected:
            raise BlockError(f"the ancestors of block {sealed.number} are not a chain")
        expected = ancestor.parent_hash
