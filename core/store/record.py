"""What one record of the block log holds: a block, its receipts, and what it did to the state."""

import struct
from dataclasses import dataclass

from core.block import decode_envelope, encode_envelope
from core.chain import SealedBlock
from core.errors import StoreMismatch
from core.receipts import ReceiptColumns
from core.state import StateDifference
from core.transaction import TransactionColumns

__all__ = ["BlockRecord", "decode_record", "encode_record"]

_RECORD_VERSION = 1
_HEAD = struct.Struct("<II32s4Q")
_HAS_DIFFERENCE = 1


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """`difference` is None only in the first record of a replica that joined through a snapshot."""

    sealed: SealedBlock
    receipts: ReceiptColumns
    difference: StateDifference | None


def encode_record(record: BlockRecord) -> bytes:
    """Version, flags, block hash, and the lengths of four parts; then the parts."""
    parts = (
        encode_envelope(record.sealed.block),
        record.sealed.block.transactions.to_bytes(),
        record.receipts.to_bytes(),
        b"" if record.difference is None else record.difference.to_bytes(),
    )
    flags = 0 if record.difference is None else _HAS_DIFFERENCE
    return _HEAD.pack(_RECORD_VERSION, flags, record.sealed.hash, *map(len, parts)) + b"".join(parts)


def decode_record(raw: bytes) -> BlockRecord:
    """The inverse of `encode_record`. Raises StoreMismatch for a version that this program does not know.

    `raw` came through the log's checksum: whatever else is wrong with it is a bug of the writer.
    """
    version, flags, block_hash, *lengths = _HEAD.unpack_from(raw)
    if version != _RECORD_VERSION:
        raise StoreMismatch(f"a block record has version {version}; this program reads {_RECORD_VERSION}")
    assert len(raw) == _HEAD.size + sum(lengths), "a record's parts fill it"
    parts, position = [], _HEAD.size
    for length in lengths:
        parts.append(raw[position : position + length])
        position += length
    block = decode_envelope(parts[0], TransactionColumns.from_bytes(parts[1]))
    difference = StateDifference.from_bytes(parts[3]) if flags & _HAS_DIFFERENCE else None
    return BlockRecord(SealedBlock(block_hash, block), ReceiptColumns.from_bytes(parts[2]), difference)
