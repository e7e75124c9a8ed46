"""State and block overrides of eth_call, debug_traceCall and eth_simulateV1: what is pretended."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from core.chain_rules import BLOCK_HASHES_MAX
from core.execution import BlockContext, Withdrawal
from core.fork import ChainConfig
from core.overlay import AccountOverride, override_accounts
from core.state import StateReader
from sequencer.jsonrpc.errors import SERVER_ERROR, RpcError
from sequencer.jsonrpc.hexadecimal import HexError, checksum_address, read_data, read_fixed, read_quantity

__all__ = [
    "BlockOverrides",
    "StateOverrides",
    "overridden_context",
    "overridden_state",
    "read_block_overrides",
    "read_state_overrides",
    "read_withdrawals",
]

PrecompileMoves = tuple[tuple[bytes, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class StateOverrides:
    """What accounts pretend to hold, and where precompiled contracts pretend to be."""

    accounts: Mapping[bytes, AccountOverride] = field(default_factory=dict)
    moves: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BlockOverrides:
    """What the block pretends to be; None leaves a field as it is."""

    number: int | None = None
    difficulty: int | None = None
    timestamp: int | None = None
    gas_limit: int | None = None
    coinbase: bytes | None = None
    prev_randao: bytes | None = None
    base_fee_per_gas: int | None = None
    blob_base_fee: int | None = None
    parent_beacon_block_root: bytes | None = None
    withdrawals: tuple[Withdrawal, ...] | None = None


def read_state_overrides(value: Any) -> StateOverrides:
    """Decode a mapping of addresses to overrides. Raises HexError, or RpcError for a contradiction."""
    accounts: dict[bytes, AccountOverride] = {}
    moves: dict[bytes, bytes] = {}
    for name, override in _read_object(value).items():
        address = read_fixed(name, 20)
        given = _given(override)
        if "state" in given and "stateDiff" in given:
            raise RpcError(SERVER_ERROR, f"account {checksum_address(address)} has both 'state' and 'stateDiff'")
        accounts[address] = AccountOverride(
            balance=read_quantity(given["balance"], 256) if "balance" in given else None,
            nonce=read_quantity(given["nonce"]) if "nonce" in given else None,
            code=read_data(given["code"]) if "code" in given else None,
            state=_read_slots(given["state"]) if "state" in given else None,
            state_difference=_read_slots(given["stateDiff"]) if "stateDiff" in given else None,
        )
        if "movePrecompileToAddress" in given:
            moves[address] = read_fixed(given["movePrecompileToAddress"], 20)
    return StateOverrides(accounts, moves)


def read_block_overrides(value: Any) -> BlockOverrides:
    """Decode a block override object. Raises HexError."""
    given = _given(value)

    def quantity_of(name: str, bits: int) -> int | None:
        return read_quantity(given[name], bits) if name in given else None

    def fixed_of(name: str, size: int) -> bytes | None:
        return read_fixed(given[name], size) if name in given else None

    return BlockOverrides(
        number=quantity_of("number", 64),
        difficulty=quantity_of("difficulty", 256),
        timestamp=quantity_of("time", 64),
        gas_limit=quantity_of("gasLimit", 64),
        coinbase=fixed_of("feeRecipient", 20),
        prev_randao=fixed_of("prevRandao", 32),
        base_fee_per_gas=quantity_of("baseFeePerGas", 256),
        blob_base_fee=quantity_of("blobBaseFee", 256),
        parent_beacon_block_root=fixed_of("beaconRoot", 32),
        withdrawals=read_withdrawals(given["withdrawals"]) if "withdrawals" in given else None,
    )


def overridden_state(
    state: StateReader, overrides: StateOverrides, precompiles: frozenset[bytes]
) -> tuple[StateReader, PrecompileMoves]:
    """The state that a call sees, and where its precompiled contracts are.

    Overriding the account of a precompiled contract takes the contract away from there. Raises RpcError when something
    is moved that is no precompiled contract, or to an address that is overridden as well.
    """
    moves: list[tuple[bytes, bytes | None]] = []
    for address in overrides.accounts:
        target = overrides.moves.get(address)
        if target is not None and address not in precompiles:
            raise RpcError(SERVER_ERROR, f"account {checksum_address(address)} is not a precompile")
        if target is not None and target in overrides.accounts:
            raise RpcError(SERVER_ERROR, f"account {checksum_address(target)} is already overridden")
        if address in precompiles:
            moves.append((address, target))
    changed = {address: one for address, one in overrides.accounts.items() if not _leaves_nothing(state, address, one)}
    return (override_accounts(state, changed) if changed else state), tuple(moves)


def _leaves_nothing(state: StateReader, address: bytes, override: AccountOverride) -> bool:
    """Whether there is no account at `address`, and would be none worth keeping (EIP-161)."""
    held = (override.balance, override.nonce, override.code, override.state, override.state_difference)
    return not any(held) and state.account(address) is None


def overridden_context(context: BlockContext, overrides: BlockOverrides, config: ChainConfig) -> BlockContext:
    """The block that a call sees. Raises RpcError for what only a simulated block can pretend."""
    if overrides.parent_beacon_block_root is not None:
        raise RpcError(SERVER_ERROR, 'block override "beaconRoot" is not supported for this RPC method')
    if overrides.withdrawals is not None:
        raise RpcError(SERVER_ERROR, 'block override "withdrawals" is not supported for this RPC method')
    number = context.number if overrides.number is None else overrides.number
    timestamp = context.timestamp if overrides.timestamp is None else overrides.timestamp
    return replace(
        context,
        number=number,
        timestamp=timestamp,
        fork=config.fork_at(number, timestamp),
        block_hashes=_hashes_before(number, context),
        difficulty=context.difficulty if overrides.difficulty is None else overrides.difficulty,
        gas_limit=context.gas_limit if overrides.gas_limit is None else overrides.gas_limit,
        coinbase=context.coinbase if overrides.coinbase is None else overrides.coinbase,
        prev_randao=context.prev_randao if overrides.prev_randao is None else overrides.prev_randao,
        base_fee_per_gas=context.base_fee_per_gas if overrides.base_fee_per_gas is None else overrides.base_fee_per_gas,
        blob_base_fee_override=overrides.blob_base_fee,
    )


def _hashes_before(number: int, context: BlockContext) -> tuple[bytes, ...]:
    """The hashes that BLOCKHASH knows in a block that pretends to have another number."""
    ahead = number - context.number
    if ahead <= 0:
        return context.block_hashes[: max(0, len(context.block_hashes) + ahead)]
    unknown = (bytes(32),) * min(ahead, BLOCK_HASHES_MAX)
    return (*context.block_hashes, *unknown)[-BLOCK_HASHES_MAX:]


def _read_object(value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise HexError("json: cannot unmarshal non-object into an override")
    return value


def _given(value: Any) -> dict[str, Any]:
    return {name: one for name, one in _read_object(value).items() if one is not None}


def _read_slots(value: Any) -> dict[int, int]:
    return {
        int.from_bytes(read_fixed(slot, 32), "big"): int.from_bytes(read_fixed(word, 32), "big")
        for slot, word in _read_object(value).items()
    }


def read_withdrawals(value: Any) -> tuple[Withdrawal, ...]:
    """Decode EIP-4895 withdrawals. Raises HexError."""
    if not isinstance(value, list):
        raise HexError("json: cannot unmarshal non-array into Go value of type types.Withdrawals")
    withdrawals: list[Withdrawal] = []
    for one in value:
        given = _given(one)
        withdrawals.append(
            Withdrawal(
                index=read_quantity(given.get("index")),
                validator_index=read_quantity(given.get("validatorIndex")),
                address=read_fixed(given.get("address"), 20),
                amount=read_quantity(given.get("amount")),
            )
        )
    return tuple(withdrawals)
