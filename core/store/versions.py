"""Keys whose values change from block to block, with old values readable for a while (MVCC over LMDB).

A stored key is the key, then the block number that wrote it, inverted so that newer ones sort first: the value at block
n is the first one at or after (key, inverted n). An empty value says that the key is gone. Each block leaves a journal
of the keys that it wrote; once no state before a block is kept, its journal says which older versions go.
"""

import struct
from collections.abc import Iterator

from core.store.environment import Environment, Transaction

__all__ = ["VersionedTables"]

_NUMBER = struct.Struct(">Q")
_NUMBER_MAX = 2**64 - 1
_ENTRY = struct.Struct(">BH")


class VersionedTables:
    """Several named tables with one journal. Within a table no key may be a prefix of another."""

    def __init__(self, environment: Environment, tables: tuple[str, ...], journal: str) -> None:
        self._tables = [environment.table(name) for name in tables]
        self._index = {name: index for index, name in enumerate(tables)}
        self._journal = environment.table(journal)

    def get(self, transaction: Transaction, table: str, key: bytes, number: int) -> bytes | None:
        """The value of `key` after block `number`, or None."""
        cursor = self._tables[self._index[table]].cursor(transaction)
        if not cursor.set_range(key + _inverted(number)):
            return None
        found, value = cursor.item()
        if len(found) != len(key) + _NUMBER.size or not found.startswith(key):
            return None
        return value or None

    def put(
        self, transaction: Transaction, number: int, writes: dict[str, dict[bytes, bytes]], *, journal: bool = True
    ) -> None:
        """Write all values of block `number`; b"" says that the key is gone."""
        suffix = _inverted(number)
        entries = []
        for table, values in writes.items():
            index = self._index[table]
            ordered = sorted(values.items())
            self._tables[index].put_sorted(transaction, [(key + suffix, value) for key, value in ordered])
            entries += [_ENTRY.pack(index, len(key)) + key for key, _ in ordered]
        if journal:
            self._journal.put(transaction, _NUMBER.pack(number), b"".join(entries))

    def prune(self, transaction: Transaction, number: int) -> None:
        """Drop what only states before block `number` needed: the versions that its journal's keys replaced."""
        journal = self._journal.pop(transaction, _NUMBER.pack(number))
        for index, key in _journal_entries(journal or b""):
            cursor = self._tables[index].cursor(transaction)
            at = key + _inverted(number)
            if not cursor.set_key(at):
                continue
            # A deletion need not be remembered once there is nothing older that it would hide.
            on = cursor.delete() if not cursor.value() else cursor.next()
            while on and _is_version_of(cursor.key(), key):
                on = cursor.delete()

    def keys_from(
        self, transaction: Transaction, table: str, first: bytes, prefix: bytes, number: int
    ) -> Iterator[tuple[bytes, bytes]]:
        """Every key from `first` on that begins with `prefix`, ascending, and its value after block `number`."""
        cursor = self._tables[self._index[table]].cursor(transaction)
        on = cursor.set_range(first)
        while on and cursor.key().startswith(prefix):
            key = cursor.key()[: -_NUMBER.size]
            if cursor.set_range(key + _inverted(number)) and _is_version_of(cursor.key(), key) and cursor.value():
                yield key, cursor.value()
            on = cursor.set_range(key + _inverted(0) + b"\0")


def _inverted(number: int) -> bytes:
    return _NUMBER.pack(_NUMBER_MAX - number)


def _is_version_of(stored: bytes, key: bytes) -> bool:
    return len(stored) == len(key) + _NUMBER.size and stored.startswith(key)


def _journal_entries(raw: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(raw):
        index, size = _ENTRY.unpack_from(raw, position)
        position += _ENTRY.size
        yield index, raw[position : position + size]
        position += size
