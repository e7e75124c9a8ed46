"""LMDB: one environment with named databases, short transactions, and a map that grows when it is full.

Knows nothing of what is stored. Values live in versions (`core.store.versions`), so no read transaction outlives a
call: long ones would keep LMDB from reusing pages, and the map can only grow while none is open.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar, cast

import lmdb

from core.errors import StoreError

__all__ = ["MAP_BYTES_INITIAL", "Cursor", "Environment", "Table", "Transaction"]

Transaction = lmdb.Transaction

MAP_BYTES_INITIAL = 64 * 2**20
_GROWTHS_MAX = 20
# How long a read transaction waits before it begins beside a running write. The binding gives up the interpreter's lock
# at every call, and threads that read without a pause take it from each other so fast that a writer may never get it.
_STEP_ASIDE_S = 0.01

_Result = TypeVar("_Result")


class Cursor(Protocol):
    """The part of `lmdb.Cursor` in use here, where transactions hand out bytes. A move answers whether it arrived."""

    def set_range(self, key: bytes) -> bool: ...
    def set_key(self, key: bytes) -> bool: ...
    def next(self) -> bool: ...
    def first(self) -> bool: ...
    def last(self) -> bool: ...
    def key(self) -> bytes: ...
    def value(self) -> bytes: ...
    def item(self) -> tuple[bytes, bytes]: ...
    def delete(self) -> bool: ...


class Table:
    """A named database; every call is inside a transaction of the caller's."""

    def __init__(self, handle: lmdb._Database) -> None:
        self._handle = handle

    def get(self, transaction: Transaction, key: bytes) -> bytes | None:
        return cast(bytes | None, transaction.get(key, db=self._handle))

    def put(self, transaction: Transaction, key: bytes, value: bytes) -> None:
        transaction.put(key, value, db=self._handle)

    def put_sorted(self, transaction: Transaction, items: list[tuple[bytes, bytes]]) -> None:
        """Put many in one call; ascending keys are the quick way."""
        transaction.cursor(self._handle).putmulti(items)

    def pop(self, transaction: Transaction, key: bytes) -> bytes | None:
        return cast(bytes | None, transaction.pop(key, db=self._handle))

    def clear(self, transaction: Transaction) -> None:
        transaction.drop(self._handle, delete=False)

    def cursor(self, transaction: Transaction) -> Cursor:
        return cast(Cursor, transaction.cursor(self._handle))


class Environment:
    """Safe for many reading threads and one writing thread; readers in other processes see each commit."""

    def __init__(self, path: Path, tables: Sequence[str], *, writable: bool, map_bytes: int) -> None:
        """Raises StoreError when the environment cannot be opened."""
        try:
            # Without metasync a power cut may undo the last commit, never more: and the log has that block.
            self._env = lmdb.open(
                str(path),
                map_size=map_bytes,
                max_dbs=len(tables),
                readonly=not writable,
                create=writable,
                metasync=False,
                max_readers=512,
            )
            self._tables = {name: Table(self._env.open_db(name.encode(), create=writable)) for name in tables}
        except lmdb.Error as error:
            raise StoreError(f"cannot open the database in {path}: {error}") from error
        self._path = path
        self._idle = threading.Condition()
        self._readers = 0
        self._writers = 0
        self._growing = False

    def close(self) -> None:
        """No transaction may be open."""
        self._env.close()

    def clear(self) -> None:
        """Empty every table."""

        def action(transaction: Transaction) -> None:
            for table in self._tables.values():
                table.clear(transaction)

        self.write(action)

    def sync(self) -> None:
        """Wait until everything committed so far is on disk."""
        self._env.sync(True)

    def table(self, name: str) -> Table:
        return self._tables[name]

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A read transaction: one consistent version of everything. Keep it short, and never begin one inside another.

        Raises StoreError when too many readers are active.
        """
        transaction = self._begin_reading()
        try:
            with transaction:
                yield transaction
        finally:
            self._leave()

    def _begin_reading(self) -> Transaction:
        while True:
            with self._idle:
                if self._writers:
                    self._idle.wait_for(lambda: not self._writers, _STEP_ASIDE_S)
                while self._growing:
                    self._idle.wait()
                self._readers += 1
            try:
                return self._env.begin()
            except lmdb.MapResizedError:  # another process grew it
                self._leave()
                with self._alone():
                    self._env.set_mapsize(0)
            except lmdb.Error as error:
                self._leave()
                raise StoreError(f"cannot read the database in {self._path}: {error}") from error

    def _leave(self) -> None:
        with self._idle:
            self._readers -= 1
            self._idle.notify_all()

    def write(self, action: Callable[[Transaction], _Result]) -> _Result:
        """Run `action` in a write transaction and commit. When the map is full it grows and `action` runs again.

        Raises StoreError when the commit fails; nothing is changed then.
        """
        with self._writing():
            return self._write(action)

    def _write(self, action: Callable[[Transaction], _Result]) -> _Result:
        for _ in range(_GROWTHS_MAX):
            try:
                with self._env.begin(write=True) as transaction:
                    return action(transaction)
            except lmdb.MapFullError:
                with self._alone():
                    self._env.set_mapsize(2 * self._env.info()["map_size"])
            except lmdb.Error as error:
                raise StoreError(f"cannot write to the database in {self._path}: {error}") from error
        raise StoreError(f"the database in {self._path} is full and did not grow enough in {_GROWTHS_MAX} doublings")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._idle:
            self._writers += 1
        try:
            yield
        finally:
            with self._idle:
                self._writers -= 1
                self._idle.notify_all()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait until no read transaction is open, and hold off new ones."""
        with self._idle:
            while self._growing:
                self._idle.wait()
            self._growing = True
            while self._readers:
                self._idle.wait()
        try:
            yield
        finally:
            with self._idle:
                self._growing = False
                self._idle.notify_all()
