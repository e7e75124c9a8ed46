"""Compiled contracts and their ABI: call data out; results, events and errors in.

Artifacts are made by `make contracts` and committed beside their sources. Addresses are 20 bytes on this side of the
ABI. Knows nothing of any particular contract, nor of how a call is sent.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError

from core.errors import InvalidInput
from core.hashing import keccak256
from core.receipts import Log

__all__ = ["AbiError", "Artifact", "ContractError", "Event", "load_artifact"]

_REVERT_STRING = keccak256(b"Error(string)")[:4]
_PANIC = keccak256(b"Panic(uint256)")[:4]


class AbiError(InvalidInput):
    """Arguments or bytes that do not fit a contract's interface."""

    code = "abi"


@dataclass(frozen=True, slots=True)
class Event:
    """A decoded log: `arguments` by name, indexed ones included (a dynamic indexed one as its hash)."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ContractError:
    """Why a contract reverted: its own error, or Solidity's "Error" and "Panic"."""

    name: str
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={_show(value)}" for name, value in self.arguments.items())
        return f"{self.name}({arguments})"


@dataclass(frozen=True)
class Artifact:
    """One compiled contract.

    `deployed_code` is what stands at the contract's address (and goes into genesis when it is predeployed);
    `creation_code` is what deploys it. `storage` maps the name of a state variable to (slot, offset in bytes, bytes).
    """

    name: str
    abi: Sequence[Mapping[str, Any]]
    creation_code: bytes
    deployed_code: bytes
    storage: Mapping[str, tuple[int, int, int]] = field(repr=False)

    def encode_call(self, function: str, *arguments: object) -> bytes:
        """Call data. A struct is a tuple of its fields; raises AbiError for an unknown function or wrong arguments."""
        entry = self._functions.get(function)
        if entry is None:
            raise AbiError(f"{self.name} has no function {function!r}")
        try:
            return _selector(entry) + encode(_types(entry["inputs"]), arguments)
        except (EncodingError, TypeError, ValueError) as error:
            raise AbiError(f"{self.name}.{function}: {error}") from error

    def decode_call(self, data: bytes) -> tuple[str, Mapping[str, Any]]:
        """The function that `data` calls, and its arguments by name."""
        for entry in self._functions.values():
            if _selector(entry) == data[:4]:
                return entry["name"], _decode_named(entry["inputs"], data[4:])
        raise AbiError(f"{self.name} has no function with selector 0x{data[:4].hex()}")

    def decode_result(self, function: str, output: bytes) -> Any:
        """What a call returned: nothing, one value, or a tuple of several."""
        values = _decode(self._functions[function]["outputs"], output)
        return values[0] if len(values) == 1 else values or None

    def decode_error(self, output: bytes) -> ContractError | None:
        """Why a call reverted, or None for revert data that neither this contract nor Solidity knows."""
        if output[:4] == _REVERT_STRING:
            return ContractError("Error", {"message": _decode([{"type": "string"}], output[4:])[0]})
        if output[:4] == _PANIC:
            return ContractError("Panic", {"code": _decode([{"type": "uint256"}], output[4:])[0]})
        entry = self._errors.get(output[:4])
        return None if entry is None else ContractError(entry["name"], _decode_named(entry["inputs"], output[4:]))

    def decode_log(self, log: Log) -> Event | None:
        """The event that `log` is, or None if this contract does not declare it. The address is not looked at."""
        entry = self._events.get(log.topics[0]) if log.topics else None
        if entry is None:
            return None
        inputs = entry["inputs"]
        indexed = [one for one in inputs if one["indexed"]]
        if len(indexed) != len(log.topics) - 1:
            raise AbiError(f"{entry['name']} has {len(indexed)} indexed arguments, the log {len(log.topics) - 1}")
        named = _decode_named([one for one in inputs if not one["indexed"]], log.data)
        for one, topic in zip(indexed, log.topics[1:], strict=True):
            named[one["name"]] = topic if _is_dynamic(one) else _decode([one], topic)[0]
        return Event(entry["name"], {one["name"]: named[one["name"]] for one in inputs})

    def event_topic(self, event: str) -> bytes:
        """Topic 0 of an event's logs."""
        return next(topic for topic, entry in self._events.items() if entry["name"] == event)

    def encode_storage(self, values: Mapping[str, int | bytes]) -> dict[int, int]:
        """Genesis storage that gives simple state variables these values: slot to word."""
        words: dict[int, int] = {}
        for name, value in values.items():
            if name not in self.storage:
                raise AbiError(f"{self.name} has no state variable {name!r}")
            slot, offset, size = self.storage[name]
            number = int.from_bytes(value, "big") if isinstance(value, bytes) else value
            if not 0 <= number < 1 << 8 * size:
                raise AbiError(f"{self.name}.{name} does not fit into {size} bytes")
            words[slot] = words.get(slot, 0) | number << 8 * offset
        return {slot: word for slot, word in words.items() if word}

    @cached_property
    def _functions(self) -> dict[str, Mapping[str, Any]]:
        return {entry["name"]: entry for entry in self.abi if entry["type"] == "function"}

    @cached_property
    def _errors(self) -> dict[bytes, Mapping[str, Any]]:
        return {_selector(entry): entry for entry in self.abi if entry["type"] == "error"}

    @cached_property
    def _events(self) -> dict[bytes, Mapping[str, Any]]:
        return {keccak256(_signature(entry)): entry for entry in self.abi if entry["type"] == "event"}


def load_artifact(path: Path) -> Artifact:
    """Read an artifact that `make contracts` wrote."""
    raw = json.loads(path.read_text())
    return Artifact(
        name=raw["contractName"],
        abi=raw["abi"],
        creation_code=bytes.fromhex(raw["bytecode"].removeprefix("0x")),
        deployed_code=bytes.fromhex(raw["deployedBytecode"].removeprefix("0x")),
        storage={one["label"]: (one["slot"], one["offset"], one["bytes"]) for one in raw["storageLayout"]},
    )


def _type(entry: Mapping[str, Any]) -> str:
    kind: str = entry["type"]
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(_types(entry['components']))}){kind.removeprefix('tuple')}"


def _types(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    return [_type(entry) for entry in entries]


def _signature(entry: Mapping[str, Any]) -> bytes:
    return f"{entry['name']}({','.join(_types(entry['inputs']))})".encode()


def _selector(entry: Mapping[str, Any]) -> bytes:
    return keccak256(_signature(entry))[:4]


def _is_dynamic(entry: Mapping[str, Any]) -> bool:
    kind: str = entry["type"]
    return kind in ("string", "bytes") or kind.startswith("tuple") or kind.endswith("]")


def _decode(entries: Sequence[Mapping[str, Any]], data: bytes) -> tuple[Any, ...]:
    try:
        values = decode(_types(entries), data)
    except (DecodingError, OverflowError) as error:
        raise AbiError(f"cannot decode {_types(entries)}: {error}") from error
    return tuple(_plain(entry, value) for entry, value in zip(entries, values, strict=True))


def _decode_named(entries: Sequence[Mapping[str, Any]], data: bytes) -> dict[str, Any]:
    return dict(zip((entry["name"] for entry in entries), _decode(entries, data), strict=True))


def _plain(entry: Mapping[str, Any], value: Any) -> Any:
    """eth_abi gives addresses as hex strings; here they are bytes, wherever they stand."""
    kind: str = entry["type"]
    if kind.endswith("]"):
        inner = {**entry, "type": kind[: kind.rindex("[")]}
        return tuple(_plain(inner, one) for one in value)
    if kind == "tuple":
        return tuple(_plain(part, one) for part, one in zip(entry["components"], value, strict=True))
    return bytes.fromhex(value[2:]) if kind == "address" else value


def _show(value: Any) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)
