"""Ethereum's JSON hex strings, read strictly and refused in geth's words; and written.

"Quantities" are 0x-prefixed without leading zeros; "data" is 0x-prefixed with two digits a byte.
"""

import re

from core.errors import InvalidInput
from core.hashing import keccak256

__all__ = [
    "HexError",
    "checksum_address",
    "data",
    "is_hexadecimal",
    "quantity",
    "read_data",
    "read_fixed",
    "read_quantity",
]

_DIGITS = re.compile(r"[0-9a-fA-F]*")


class HexError(InvalidInput):
    """A JSON value is not the hex string that it should be."""

    code = "invalid_hex"


def quantity(value: int) -> str:
    """An unsigned integer as JSON."""
    return hex(value)


def data(raw: bytes) -> str:
    """Bytes as JSON."""
    return "0x" + raw.hex()


def checksum_address(address: bytes) -> str:
    """EIP-55's mixed-case form."""
    digits = address.hex()
    mask = keccak256(digits.encode()).hex()
    return "0x" + "".join(c.upper() if int(m, 16) >= 8 else c for c, m in zip(digits, mask, strict=False))


def is_hexadecimal(digits: str) -> bool:
    """Whether there are only hex digits."""
    return _DIGITS.fullmatch(digits) is not None


def read_quantity(value: object, bits: int = 64) -> int:
    """An unsigned integer below 2^bits from its hex string."""
    if not isinstance(value, str):
        raise HexError("json: cannot unmarshal non-string into Go value of type " + _quantity_type(bits))
    digits = _unprefixed(value)
    if not digits:
        raise HexError('hex string "0x"')
    if len(digits) > 1 and digits[0] == "0":
        raise HexError("hex number with leading zero digits")
    if not is_hexadecimal(digits):
        raise HexError("invalid hex string")
    if 4 * (len(digits) - 1) + int(digits[0], 16).bit_length() > bits:
        raise HexError(f"hex number > {bits} bits")
    return int(digits, 16)


def read_data(value: object) -> bytes:
    """Bytes of any length from their hex string."""
    if not isinstance(value, str):
        raise HexError("json: cannot unmarshal non-string into Go value of type hexutil.Bytes")
    return _bytes_of(value, "hexutil.Bytes")


def read_fixed(value: object, size: int) -> bytes:
    """Exactly `size` bytes from their hex string: an address (20) or a hash (32)."""
    name = {20: "common.Address", 32: "common.Hash"}.get(size, f"[{size}]byte")
    if not isinstance(value, str):
        raise HexError(f"json: cannot unmarshal non-string into Go value of type {name}")
    digits = _wrapped(value, name)
    if len(digits) != 2 * size:
        raise HexError(f"hex string has length {len(digits)}, want {2 * size} for {name}")
    return _bytes_of(value, name)


def _unprefixed(text: str) -> str:
    if not text:
        raise HexError("empty hex string")
    if text[:2] not in ("0x", "0X"):
        raise HexError("hex string without 0x prefix")
    return text[2:]


def _wrapped(text: str, name: str) -> str:
    try:
        digits = _unprefixed(text)
    except HexError as error:
        raise HexError(f"json: cannot unmarshal {error} into Go value of type {name}") from error
    if len(digits) % 2:
        raise HexError(f"json: cannot unmarshal hex string of odd length into Go value of type {name}")
    return digits


def _bytes_of(text: str, name: str) -> bytes:
    digits = _wrapped(text, name)
    if not is_hexadecimal(digits):
        raise HexError(f"json: cannot unmarshal invalid hex string into Go value of type {name}")
    return bytes.fromhex(digits)


def _quantity_type(bits: int) -> str:
    return "hexutil.Uint64" if bits == 64 else "*hexutil.Big"
