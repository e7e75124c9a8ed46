"""Receipts and logs as columns, their canonical encoding, and blooms (Yellow Paper, 4.3.1; EIP-658, EIP-2718).

Knows nothing of how they came to be.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from core import rlp
from core.columns import Array, Column, Columns
from core.hashing import keccak256

__all__ = ["BLOOM_BYTES", "Log", "ReceiptColumns", "bloom_of_logs", "bloom_union", "encode_receipt"]

BLOOM_BYTES = 256


@dataclass(frozen=True, slots=True)
class Log:
    """One event: the emitting address (20 bytes), up to four 32-byte topics, and data."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, slots=True, eq=False)
class ReceiptColumns(Columns):
    """The receipts of a block's transactions, row i for the i-th included transaction.

    `succeeded` is EIP-658's status. `gas_used` is this transaction's own gas, after refunds. Before Byzantium a receipt
    held the state root instead of a status: then `post_state` has one 32-byte root per row, else it has no rows.
    """

    type: Array
    succeeded: Array
    gas_used: Array
    log_offsets: Array
    log_address: Array
    topic_offsets: Array
    log_data_offsets: Array
    topic: Array
    log_data: Array
    post_state: Array

    LAYOUT: ClassVar[tuple[Column, ...]] = (
        Column("type", "receipt", "u1"),
        Column("succeeded", "receipt", "u1"),
        Column("gas_used", "receipt"),
        Column("log_offsets", "receipt", cuts="log"),
        Column("log_address", "log", "u1", (20,)),
        Column("topic_offsets", "log", cuts="topic"),
        Column("log_data_offsets", "log", cuts="log_data"),
        Column("topic", "topic", "u1", (32,)),
        Column("log_data", "log_data", "u1"),
        Column("post_state", "post_state", "u1", (32,)),
    )

    @classmethod
    def from_rows(
        cls, rows: list[tuple[int, bool, int, tuple[Log, ...]]], post_states: list[bytes] | None = None
    ) -> "ReceiptColumns":
        """Columns of (transaction type, succeeded, gas used, logs), one for each receipt."""
        logs = [log for *_, own in rows for log in own]
        return cls(
            type=np.fromiter((kind for kind, *_ in rows), "u1"),
            succeeded=np.fromiter((ok for _, ok, *_ in rows), "u1"),
            gas_used=np.fromiter((gas for _, _, gas, _ in rows), "<u8"),
            log_offsets=np.cumsum([0, *(len(own) for *_, own in rows)], dtype="<u8"),
            log_address=np.frombuffer(b"".join(log.address for log in logs), "u1").reshape(-1, 20),
            topic_offsets=np.cumsum([0, *(len(log.topics) for log in logs)], dtype="<u8"),
            log_data_offsets=np.cumsum([0, *(len(log.data) for log in logs)], dtype="<u8"),
            topic=np.frombuffer(b"".join(topic for log in logs for topic in log.topics), "u1").reshape(-1, 32),
            log_data=np.frombuffer(b"".join(log.data for log in logs), "u1"),
            post_state=np.frombuffer(b"".join(post_states or ()), "u1").reshape(-1, 32),
        )

    def logs(self, row: int) -> tuple[Log, ...]:
        """The logs of one receipt, in order."""
        return tuple(self._log(log) for log in range(*self.log_offsets[row : row + 2].tolist()))

    def cumulative_gas_used(self) -> Array:
        """u64[n]: gas used in the block up to and including each transaction."""
        return np.cumsum(self.gas_used, dtype="<u8")

    def blooms(self) -> Iterator[bytes]:
        """The bloom of each receipt, in order."""
        return (bloom_of_logs(self.logs(row)) for row in range(len(self)))

    def encoded(self) -> list[bytes]:
        """The canonical bytes of every receipt, in order: the values of the receipts trie."""
        cumulative = self.cumulative_gas_used().tolist()
        return [self._encode(row, gas) for row, gas in enumerate(cumulative)]

    def _encode(self, row: int, cumulative_gas_used: int) -> bytes:
        outcome = self.post_state[row].tobytes() if len(self.post_state) else rlp.encode_int(int(self.succeeded[row]))
        return encode_receipt(int(self.type[row]), outcome, cumulative_gas_used, self.logs(row))

    def _log(self, log: int) -> Log:
        topics = self.topic[slice(*self.topic_offsets[log : log + 2].tolist())]
        data = self.log_data[slice(*self.log_data_offsets[log : log + 2].tolist())]
        return Log(self.log_address[log].tobytes(), tuple(topic.tobytes() for topic in topics), data.tobytes())


def encode_receipt(kind: int, outcome: bytes, cumulative_gas_used: int, logs: tuple[Log, ...]) -> bytes:
    """Canonical bytes of one receipt; `outcome` is the encoded status, or the post-state root before Byzantium."""
    body = rlp.encode(
        [
            outcome,
            rlp.encode_int(cumulative_gas_used),
            bloom_of_logs(logs),
            [[log.address, list(log.topics), log.data] for log in logs],
        ]
    )
    return body if kind == 0 else bytes([kind]) + body


def bloom_of_logs(logs: tuple[Log, ...]) -> bytes:
    """The 2048-bit bloom of the logs' addresses and topics (Yellow Paper, equation 29)."""
    bits = 0
    for log in logs:
        for entry in (log.address, *log.topics):
            digest = keccak256(entry)
            for i in (0, 2, 4):
                bits |= 1 << (int.from_bytes(digest[i : i + 2], "big") & 2047)
    return bits.to_bytes(BLOOM_BYTES, "big")


def bloom_union(blooms: Iterator[bytes]) -> bytes:
    """The bloom of everything that is in any of `blooms`."""
    bits = 0
    for bloom in blooms:
        bits |= int.from_bytes(bloom, "big")
    return bits.to_bytes(BLOOM_BYTES, "big")
