"""Where blocks, transactions and logs are: the lookups beside the block log.

A block's entry is its hash and the position of its record. Of the blocks just before the first record of a replica
that joined through a snapshot there are only the headers, whose hashes execution needs.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.block import Header, decode_header, encode_header, header_hash
from core.chain import LogFilter, SealedBlock, TransactionLocation
from core.receipts import Log, bloom_of_logs
from core.store.environment import Environment, Transaction
from core.store.log import Position

__all__ = ["INDEX_TABLES", "BlockEntry", "BlockIndex", "matches"]

INDEX_TABLES = ("blocks", "hashes", "transactions", "blooms", "ancestors")

_NUMBER = struct.Struct(">Q")
_ENTRY = struct.Struct(">32sQQ")
_LOCATION = struct.Struct(">QI")


@dataclass(frozen=True, slots=True)
class BlockEntry:
    """`position` is None where only the header is known."""

    hash: bytes
    position: Position | None


class BlockIndex:
    """Reads and writes inside a transaction of the caller's."""

    def __init__(self, environment: Environment) -> None:
        self._blocks, self._hashes, self._transactions, self._blooms, self._ancestors = map(
            environment.table, INDEX_TABLES
        )

    def add(self, transaction: Transaction, sealed: SealedBlock, position: Position) -> None:
        """Enter a block that stands at `position` of the log; it becomes the head."""
        key = _NUMBER.pack(sealed.number)
        self._blocks.put(transaction, key, _ENTRY.pack(sealed.hash, position.segment, position.offset))
        self._hashes.put(transaction, sealed.hash, key)
        self._blooms.put(transaction, key, sealed.block.header.logs_bloom)
        rows = [
            (transaction_hash.tobytes(), _LOCATION.pack(sealed.number, row))
            for row, transaction_hash in enumerate(sealed.block.transactions.hash)
        ]
        self._transactions.put_sorted(transaction, sorted(rows))

    def add_ancestor(self, transaction: Transaction, header: Header) -> None:
        """Enter the header of a block that has no record here."""
        key = _NUMBER.pack(header.number)
        self._blocks.put(transaction, key, _ENTRY.pack(header_hash(header), 0, 0))
        self._ancestors.put(transaction, key, encode_header(header))

    def ancestor(self, transaction: Transaction, number: int) -> Header | None:
        """The header of a block that has no record here."""
        raw = self._ancestors.get(transaction, _NUMBER.pack(number))
        return None if raw is None else decode_header(raw)

    def head(self, transaction: Transaction) -> int | None:
        """The number of the newest block that has a record, or None before there is any."""
        cursor = self._blooms.cursor(transaction)
        return int(_NUMBER.unpack(cursor.key())[0]) if cursor.last() else None

    def first(self, transaction: Transaction) -> int:
        """The number of the oldest block that has a record; there must be one."""
        cursor = self._blooms.cursor(transaction)
        found = cursor.first()
        assert found, "a replica has a block"
        return int(_NUMBER.unpack(cursor.key())[0])

    def entry(self, transaction: Transaction, number: int) -> BlockEntry | None:
        raw = self._blocks.get(transaction, _NUMBER.pack(number))
        if raw is None:
            return None
        block_hash, segment, offset = _ENTRY.unpack(raw)
        return BlockEntry(block_hash, Position(segment, offset) if offset else None)

    def number(self, transaction: Transaction, block_hash: bytes) -> int | None:
        raw = self._hashes.get(transaction, block_hash) if len(block_hash) == 32 else None
        return None if raw is None else int(_NUMBER.unpack(raw)[0])

    def location(self, transaction: Transaction, transaction_hash: bytes) -> TransactionLocation | None:
        raw = self._transactions.get(transaction, transaction_hash) if len(transaction_hash) == 32 else None
        return None if raw is None else TransactionLocation(*_LOCATION.unpack(raw))

    def candidates(self, transaction: Transaction, log_filter: LogFilter) -> Iterator[int]:
        """The numbers of blocks whose bloom does not rule out a match, ascending."""
        tests = _bloom_tests(log_filter)
        cursor = self._blooms.cursor(transaction)
        on = cursor.set_range(_NUMBER.pack(log_filter.first))
        while on:
            key, bloom = cursor.item()
            number = int(_NUMBER.unpack(key)[0])
            if number > log_filter.last:
                return
            bits = int.from_bytes(bloom, "big")
            if bits and all(any(bits & mask == mask for mask in masks) for masks in tests):
                yield number
            on = cursor.next()


def matches(log: Log, log_filter: LogFilter) -> bool:
    """Whether a log is one that the filter asks for."""
    if log_filter.addresses and log.address not in log_filter.addresses:
        return False
    if len(log_filter.topics) > len(log.topics):
        return False
    return all(not wanted or topic in wanted for wanted, topic in zip(log_filter.topics, log.topics, strict=False))


def _bloom_tests(log_filter: LogFilter) -> Sequence[Sequence[int]]:
    """For each part of the filter that is set: the bits of each permitted value."""
    sets = [log_filter.addresses, *log_filter.topics]
    return [[_bloom_bits(value) for value in values] for values in sets if values]


def _bloom_bits(value: bytes) -> int:
    return int.from_bytes(bloom_of_logs((Log(value, (), b""),)), "big")
