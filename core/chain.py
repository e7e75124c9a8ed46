"""A chain as its readers see it: blocks, receipts, lookups and states, whoever stores them.

The store (`core.store`) implements it over the block log and LMDB; tests use small fakes. Numbers are block numbers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from core.block import Block
from core.fork import ChainConfig
from core.receipts import Log, ReceiptColumns
from core.state import StateDifference
from core.state_trie import ProvableState

__all__ = ["Chain", "ChainReader", "LogFilter", "LogRecord", "SealedBlock", "TransactionLocation"]


@dataclass(frozen=True, slots=True)
class SealedBlock:
    """A block of the chain and its hash (32 bytes)."""

    hash: bytes
    block: Block

    @property
    def number(self) -> int:
        return self.block.header.number


@dataclass(frozen=True, slots=True)
class TransactionLocation:
    """Where a transaction stands: block `number`, row `row` of its columns."""

    number: int
    row: int


@dataclass(frozen=True, slots=True)
class LogFilter:
    """eth_getLogs' filter: blocks `first`..`last` inclusive; no addresses means any.

    `topics[i]` is the set of values permitted at position i; an empty set permits any.
    """

    first: int
    last: int
    addresses: frozenset[bytes] = frozenset()
    topics: Sequence[frozenset[bytes]] = ()


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A log and its place: `log_index` counts within the block, `row` is the transaction's."""

    log: Log
    number: int
    row: int
    log_index: int


class ChainReader(Protocol):
    """Read-only view of the canonical chain. Every method sees whole blocks only."""

    @property
    def config(self) -> ChainConfig:
        """Chain id and fork schedule."""

    def head(self) -> SealedBlock:
        """The newest block; the genesis block on a new chain."""

    def first(self) -> int:
        """The number of the block at which this chain begins here: 0, or that of the snapshot with which it joined."""

    def block(self, number: int) -> SealedBlock | None:
        """The block of this number; None above the head and below `first`. The genesis block is always there."""

    def block_hashes(self, number: int) -> tuple[bytes, ...]:
        """The hashes of up to 256 blocks below block `number`, its parent's last, as its `BlockContext` wants them.

        Also of blocks before the one at which a replica joined through a snapshot.
        """

    def block_by_hash(self, block_hash: bytes) -> SealedBlock | None:
        """The canonical block with this hash."""

    def receipts(self, number: int) -> ReceiptColumns:
        """The receipts of a block that exists."""

    def find_transaction(self, transaction_hash: bytes) -> TransactionLocation | None:
        """Where a transaction was included."""

    def logs(self, log_filter: LogFilter) -> Iterator[LogRecord]:
        """Matching logs in chain order, found through the blooms index."""

    def state(self, number: int) -> ProvableState:
        """The state after this block. Raises StatePruned when it is no longer kept."""


class Chain(ChainReader, Protocol):
    """A chain that can grow."""

    def append(self, sealed: SealedBlock, receipts: ReceiptColumns, difference: StateDifference) -> None:
        """Add the block after the head. When this returns, it is on disk (design.md D6).

        The roots in the header were checked by the caller (`core.chain_rules`); the store checks that the parent is
        the head, and that the state root it arrives at is the header's.
        """
