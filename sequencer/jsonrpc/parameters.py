"""Reading a call's positional parameters: every one of them is decoded here, and refused with -32602."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sequencer.jsonrpc.errors import INVALID_PARAMS, RpcError, invalid_argument
from sequencer.jsonrpc.hexadecimal import HexError, read_data, read_fixed, read_quantity

__all__ = ["LATEST", "BlockReference", "Parameters", "read_block_number", "read_block_reference"]

T = TypeVar("T")

_TAGS = ("latest", "pending", "safe", "finalized", "earliest")
_BLOCK_NUMBER_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class BlockReference:
    """Which block a call is about: one of tag, number, hash."""

    tag: str | None = None
    number: int | None = None
    hash: bytes | None = None


LATEST = BlockReference(tag="latest")


def read_block_number(value: object) -> BlockReference:
    """A tag or a number. Raises HexError."""
    if isinstance(value, str) and value in _TAGS:
        return BlockReference(tag=value)
    if not isinstance(value, str):
        raise HexError("hex string without 0x prefix")
    number = read_quantity(value)
    if number > _BLOCK_NUMBER_MAX:
        raise HexError("block number larger than int64")
    return BlockReference(number=number)


def read_block_reference(value: object) -> BlockReference:
    """A tag, a number, a hash, or EIP-1898's object. Raises HexError."""
    if isinstance(value, Mapping):
        return _read_eip1898(value)
    if isinstance(value, str) and len(value) == 66:
        return BlockReference(hash=read_fixed(value, 32))
    return read_block_number(value)


def _read_eip1898(value: Mapping[str, Any]) -> BlockReference:
    number, block_hash = value.get("blockNumber"), value.get("blockHash")
    if number is not None and block_hash is not None:
        raise HexError("cannot specify both BlockHash and BlockNumber, choose one or the other")
    if block_hash is not None:
        return BlockReference(hash=read_fixed(block_hash, 32))
    if number is not None:
        return read_block_number(number)
    raise HexError("invalid arguments")


class Parameters:
    """The "params" array. Positions count from 0; an absent or null optional parameter is its default."""

    def __init__(self, values: Sequence[Any]) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def at_most(self, count: int) -> None:
        """Refuse more than `count` parameters."""
        if len(self._values) > count:
            raise RpcError(INVALID_PARAMS, f"too many arguments, want at most {count}")

    def read(self, position: int, reader: Callable[[Any], T]) -> T:
        """The required parameter at `position`, decoded by `reader` (which may raise HexError)."""
        if position >= len(self._values) or self._values[position] is None:
            raise RpcError(INVALID_PARAMS, f"missing value for required argument {position}")
        try:
            return reader(self._values[position])
        except HexError as error:
            raise invalid_argument(position, str(error)) from error

    def read_or(self, position: int, reader: Callable[[Any], T], default: T) -> T:
        """The optional parameter at `position`."""
        if position >= len(self._values) or self._values[position] is None:
            return default
        return self.read(position, reader)

    def address(self, position: int) -> bytes:
        """20 bytes."""
        return self.read(position, lambda value: read_fixed(value, 20))

    def hash(self, position: int) -> bytes:
        """32 bytes."""
        return self.read(position, lambda value: read_fixed(value, 32))

    def data(self, position: int) -> bytes:
        """Bytes of any length."""
        return self.read(position, read_data)

    def quantity(self, position: int, bits: int = 64) -> int:
        """An unsigned integer."""
        return self.read(position, lambda value: read_quantity(value, bits))

    def block(self, position: int) -> BlockReference:
        """A block by tag, number, hash or EIP-1898 object; "latest" when absent."""
        return self.read_or(position, read_block_reference, LATEST)

    def required_block(self, position: int) -> BlockReference:
        """As `block`, but not optional."""
        return self.read(position, read_block_reference)

    def required_number(self, position: int) -> BlockReference:
        """A block by tag or number."""
        return self.read(position, read_block_number)

    def boolean(self, position: int, *, default: bool | None = None) -> bool:
        """true or false; required without a default."""
        if default is not None:
            return self.read_or(position, _read_boolean, default)
        return self.read(position, _read_boolean)

    def string(self, position: int) -> str:
        """Any string."""
        return self.read(position, _read_string)

    def mapping(self, position: int) -> Mapping[str, Any]:
        """An object."""
        return self.read(position, _read_mapping)

    def optional_mapping(self, position: int) -> Mapping[str, Any]:
        """An object, empty when absent."""
        return self.read_or(position, _read_mapping, {})


def _read_boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise HexError(f"json: cannot unmarshal {_json_kind(value)} into Go value of type bool")
    return value


def _read_string(value: object) -> str:
    if not isinstance(value, str):
        raise HexError(f"json: cannot unmarshal {_json_kind(value)} into Go value of type string")
    return value


def _read_mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise HexError(f"json: cannot unmarshal {_json_kind(value)} into Go value of an object type")
    return value


def _json_kind(value: object) -> str:
    kinds = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return kinds.get(type(value), "null")
