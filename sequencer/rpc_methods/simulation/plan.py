"""What eth_simulateV1 is asked for, read and put in order: numbers and times ascend, empty blocks fill the gaps."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sequencer.jsonrpc.errors import RpcError, invalid_params
from sequencer.jsonrpc.hexadecimal import HexError
from sequencer.rpc_methods.call_arguments import CallArguments, read_call_arguments
from sequencer.rpc_methods.overrides import (
    BlockOverrides,
    StateOverrides,
    read_block_overrides,
    read_state_overrides,
)

__all__ = ["SimulatedCalls", "SimulationPlan", "in_order", "read_plan"]

_BLOCK_NUMBER_INVALID = -38020
_BLOCK_TIMESTAMP_INVALID = -38021
_CLIENT_LIMIT_EXCEEDED = -38026
_BLOCK_SECONDS = 12


@dataclass(frozen=True, slots=True)
class SimulatedCalls:
    """One entry of blockStateCalls."""

    block: BlockOverrides = field(default_factory=BlockOverrides)
    state: StateOverrides = field(default_factory=StateOverrides)
    calls: tuple[CallArguments, ...] = ()


@dataclass(frozen=True, slots=True)
class SimulationPlan:
    """The whole request."""

    blocks: tuple[SimulatedCalls, ...]
    trace_transfers: bool
    validate: bool
    full_transactions: bool


def read_plan(value: Any) -> SimulationPlan:
    """Decode the request. Raises HexError or RpcError."""
    if not isinstance(value, dict):
        raise HexError("json: cannot unmarshal non-object into Go value of type ethapi.simOpts")
    blocks = value.get("blockStateCalls") or []
    if not isinstance(blocks, list):
        raise HexError("json: cannot unmarshal non-array into blockStateCalls")
    return SimulationPlan(
        blocks=tuple(_read_block(one) for one in blocks),
        trace_transfers=_flag(value, "traceTransfers"),
        validate=_flag(value, "validation"),
        full_transactions=_flag(value, "returnFullTransactions"),
    )


def _read_block(value: Any) -> SimulatedCalls:
    if not isinstance(value, dict):
        raise HexError("json: cannot unmarshal non-object into Go value of type ethapi.simBlock")
    calls = value.get("calls") or []
    if not isinstance(calls, list):
        raise HexError("json: cannot unmarshal non-array into calls")
    return SimulatedCalls(
        block=read_block_overrides(value.get("blockOverrides")),
        state=read_state_overrides(value.get("stateOverrides")),
        calls=tuple(read_call_arguments(one) for one in calls),
    )


def _flag(value: dict[str, Any], name: str) -> bool:
    flag = value.get(name)
    if flag is not None and not isinstance(flag, bool):
        raise HexError(f"json: cannot unmarshal {name} into Go value of type bool")
    return flag is True


def in_order(
    blocks: Sequence[SimulatedCalls], *, base_number: int, base_timestamp: int, blocks_max: int
) -> list[SimulatedCalls]:
    """The blocks to make on the base, each with number and timestamp.

    Raises RpcError when a number or a timestamp does not ascend, or there would be more than `blocks_max`.
    """
    if not blocks:
        raise invalid_params("empty input")
    if len(blocks) > blocks_max:
        raise RpcError(_CLIENT_LIMIT_EXCEEDED, "too many blocks")
    ordered: list[SimulatedCalls] = []
    number, timestamp = base_number, base_timestamp
    for one in blocks:
        wanted = number + 1 if one.block.number is None else one.block.number
        if wanted <= number:
            raise RpcError(_BLOCK_NUMBER_INVALID, f"block numbers must be in order: {wanted} <= {number}")
        if wanted - base_number > blocks_max:
            raise RpcError(_CLIENT_LIMIT_EXCEEDED, "too many blocks")
        for gap in range(number + 1, wanted):
            timestamp += _BLOCK_SECONDS
            ordered.append(SimulatedCalls(BlockOverrides(number=gap, timestamp=timestamp)))
        at = timestamp + _BLOCK_SECONDS if one.block.timestamp is None else one.block.timestamp
        if at <= timestamp:
            message = f"block timestamps must be in order: {at} <= {timestamp}"
            raise RpcError(_BLOCK_TIMESTAMP_INVALID, message)
        number, timestamp = wanted, at
        ordered.append(replace(one, block=replace(one.block, number=wanted, timestamp=at)))
    return ordered
