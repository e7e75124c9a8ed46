"""Canonical RLP and the strict readers that every decoder here uses. Knows nothing of transactions or blocks.

Why not the specification's own package: it bounds no nesting, and blocks are full of short strings, on which this is
several times as fast. The tests hold the two against each other. (Yellow Paper, appendix B.)
"""

from collections.abc import Sequence

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
    if isinstance(item, (bytes, bytearray)):
        return encode_bytes(item)
    return encode_list(b"".join([encode(one) for one in item]))


def encode_int(value: int) -> bytes:
    """The payload of an integer: big-endian, no leading zero, empty for 0."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def encode_bytes(raw: bytes) -> bytes:
    """RLP of one string."""
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
    if not raw:
        raise RlpError("not canonical RLP: no bytes")
    item, end = _decode_at(raw, 0, len(raw), DEPTH_MAX)
    if end != len(raw):
        raise RlpError(f"not canonical RLP: {len(raw) - end} bytes follow the item")
    return item


def _decode_at(raw: bytes, position: int, limit: int, depth: int) -> tuple[Item, int]:
    """The item at `position`, which ends at or before `limit`, and where it ends."""
    lead = raw[position]
    if lead < 0x80:
        return raw[position : position + 1], position + 1
    start, end = _payload(raw, position, limit)
    if lead < 0xC0:
        if end - start == 1 and raw[start] < 0x80:
            raise RlpError(f"not canonical RLP: byte 0x{raw[start]:02x} has a length")
        return raw[start:end], end
    if depth == 0:
        raise RlpError(f"not canonical RLP: lists nest deeper than {DEPTH_MAX}")
    items = []
    while start < end:
        item, start = _decode_at(raw, start, end, depth - 1)
        items.append(item)
    return items, end


def _payload(raw: bytes, position: int, limit: int) -> tuple[int, int]:
    """Where the payload of the string or list at `position` begins and ends."""
    lead = raw[position]
    size = lead - (0x80 if lead < 0xC0 else 0xC0)
    start = position + 1
    if size > 55:
        start += size - 55
        length = raw[position + 1 : start]
        size = int.from_bytes(length, "big")
        if start > limit or length[0] == 0 or size < 56:
            raise RlpError("not canonical RLP: a length is cut off, or longer than need be")
    if size > limit - start:
        raise RlpError("not canonical RLP: an item is longer than what holds it")
    return start, start + size


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
