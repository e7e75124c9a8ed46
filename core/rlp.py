"""Canonical RLP and the strict readers that every decoder here uses. Knows nothing of transactions or blocks.

The codec itself is `ethereum_rlp`, the Ethereum specification's own; this module turns its errors into ours and adds
the checks that a field's type implies (Yellow Paper, appendix B: integers carry no leading zero).
"""

from collections.abc import Sequence

from ethereum_rlp import rlp as codec
from ethereum_rlp.exceptions import RLPException

from core.errors import RlpError

__all__ = [
    "Item",
    "decode",
    "encode",
    "encode_bytes",
    "encode_int",
    "encode_list",
    "read_bytes",
    "read_fixed",
    "read_int",
    "read_list",
]

Item = bytes | Sequence["Item"]

DEPTH_MAX = 64


def encode(item: Item) -> bytes:
    """RLP of nested sequences of bytes."""
    return codec.encode(item)


def encode_int(value: int) -> bytes:
    """The payload of an integer: big-endian, no leading zero, empty for 0."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def encode_bytes(raw: bytes) -> bytes:
    """RLP of one string. With `encode_list`, for the paths where the general encoder is too slow."""
    if len(raw) == 1 and raw[0] < 0x80:
        return raw
    return _header(0x80, len(raw)) + raw


def encode_list(payload: bytes) -> bytes:
    """RLP of the list whose items, already encoded, are `payload`."""
    return _header(0xC0, len(payload)) + payload


def _header(base: int, size: int) -> bytes:
    if size < 56:
        return bytes((base + size,))
    if size < 256:
        return bytes((base + 56, size))
    length = encode_int(size)
    return bytes((base + 55 + len(length),)) + length


def decode(raw: bytes) -> Item:
    """Decode exactly one item that fills `raw`.

    Raises RlpError for anything not canonical, trailing bytes, or nesting deeper than DEPTH_MAX.
    """
    try:
        return codec.decode(raw)
    except (RLPException, RecursionError, ValueError, OverflowError, IndexError) as error:
        raise RlpError(f"not canonical RLP: {error}") from error


def read_list(item: Item, name: str, lengths: range | None = None) -> Sequence[Item]:
    """`item` as a list, with a permitted number of elements."""
    if isinstance(item, (bytes, bytearray)):
        raise RlpError(f"{name} must be a list, not a string")
    if lengths is not None and len(item) not in lengths:
        raise RlpError(f"{name} has {len(item)} elements, expected {lengths.start} to {lengths.stop - 1}")
    return item


def read_bytes(item: Item, name: str) -> bytes:
    """`item` as a string of any length."""
    if not isinstance(item, (bytes, bytearray)):
        raise RlpError(f"{name} must be a string, not a list")
    return bytes(item)


def read_fixed(item: Item, name: str, size: int) -> bytes:
    """`item` as a string of exactly `size` bytes."""
    raw = read_bytes(item, name)
    if len(raw) != size:
        raise RlpError(f"{name} has {len(raw)} bytes, expected {size}")
    return raw


def read_int(item: Item, name: str, bits: int = 256) -> int:
    """`item` as an unsigned integer below 2^bits without leading zeros."""
    raw = read_bytes(item, name)
    if raw[:1] == b"\0":
        raise RlpError(f"{name} has a leading zero")
    if 8 * len(raw) > bits:
        raise RlpError(f"{name} does not fit into {bits} bits")
    return int.from_bytes(raw, "big")
