"""The environment of a block for a state transition tool (geth's `evm t8n`), and how its JSON writes numbers and bytes.

What the file leaves out is worked out from its parent's fields, as geth does: the base fee, the excess blob gas, and
before Paris the difficulty. Knows nothing of accounts, transactions or executors.
"""

from collections.abc import Mapping
from typing import Any

from ethereum_types.numeric import U256, Uint

from core.block import Header
from core.chain_rules import BLOCK_HASHES_MAX, excess_blob_gas_after, next_base_fee
from core.errors import InvalidInput
from core.execution import BlockContext, Withdrawal
from core.fork import Fork
from worker.evm.reference.rules import rules_of

__all__ = ["read_bytes", "read_environment", "read_int"]

_EMPTY_OMMERS_HASH = bytes.fromhex("1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347")


def read_environment(env: Mapping[str, Any], fork: Fork, chain_id: int) -> BlockContext:
    """The block's context. Raises InvalidInput where neither a field nor what it follows from is there."""
    number = read_int(env["currentNumber"])
    hashes = {read_int(key): read_bytes(value, 32) for key, value in env.get("blockHashes", {}).items()}
    if "parentHash" in env and number:
        hashes[number - 1] = read_bytes(env["parentHash"], 32)
    first = max(0, number - BLOCK_HASHES_MAX)
    return BlockContext(
        fork=fork,
        chain_id=chain_id,
        number=number,
        timestamp=read_int(env["currentTimestamp"]),
        gas_limit=read_int(env["currentGasLimit"]),
        coinbase=read_bytes(env["currentCoinbase"], 20),
        base_fee_per_gas=_base_fee(env, number) if fork >= Fork.LONDON else 0,
        prev_randao=read_int(env["currentRandom"]).to_bytes(32, "big") if fork >= Fork.PARIS else bytes(32),
        difficulty=_difficulty(env, fork, number),
        excess_blob_gas=_excess_blob_gas(env, fork) if fork >= Fork.CANCUN else 0,
        parent_beacon_block_root=read_bytes(env.get("parentBeaconBlockRoot", "00" * 32), 32),
        block_hashes=tuple(hashes.get(one, bytes(32)) for one in range(first, number)),
        withdrawals=tuple(_withdrawal(one) for one in env.get("withdrawals") or ()),
    )


def _base_fee(env: Mapping[str, Any], number: int) -> int:
    if "currentBaseFee" in env:
        return read_int(env["currentBaseFee"])
    if number == 0 or "parentBaseFee" not in env:
        raise InvalidInput("env lacks currentBaseFee, and parentBaseFee that it would follow from")
    parent = _parent(env, {name: env[name] for name in ("parentGasUsed", "parentGasLimit")})
    if parent.gas_limit < 2:
        raise InvalidInput("env has a parentGasLimit below 2: no base fee follows from it")
    return next_base_fee(parent)


def _excess_blob_gas(env: Mapping[str, Any], fork: Fork) -> int:
    if "currentExcessBlobGas" in env:
        return read_int(env["currentExcessBlobGas"])
    if "parentExcessBlobGas" not in env or "parentBlobGasUsed" not in env:
        return 0
    return excess_blob_gas_after(_parent(env, {}), fork)


def _parent(env: Mapping[str, Any], needed: Mapping[str, Any]) -> Header:
    """A header with those fields of the parent from which the block's follow."""
    return Header(
        parent_hash=bytes(32),
        ommers_hash=bytes(32),
        coinbase=bytes(20),
        state_root=bytes(32),
        transactions_root=bytes(32),
        receipts_root=bytes(32),
        logs_bloom=bytes(256),
        difficulty=0,
        number=0,
        gas_limit=read_int(needed.get("parentGasLimit", 0)),
        gas_used=read_int(needed.get("parentGasUsed", 0)),
        timestamp=0,
        extra_data=b"",
        prev_randao=bytes(32),
        nonce=bytes(8),
        base_fee_per_gas=read_int(env.get("parentBaseFee", 0)),
        blob_gas_used=read_int(env.get("parentBlobGasUsed", 0)),
        excess_blob_gas=read_int(env.get("parentExcessBlobGas", 0)),
    )


def _difficulty(env: Mapping[str, Any], fork: Fork, number: int) -> int:
    given = env.get("currentDifficulty")
    if fork >= Fork.PARIS:
        if given is not None and read_int(given) != 0:
            raise InvalidInput("env has a currentDifficulty; from Paris on it is zero or left out")
        return 0
    if given is not None:
        return read_int(given)
    if number == 0 or "parentDifficulty" not in env:
        raise InvalidInput("env lacks currentDifficulty, and parentDifficulty that it would follow from")
    timestamp, parent_timestamp = read_int(env["currentTimestamp"]), read_int(env.get("parentTimestamp", 0))
    if timestamp <= parent_timestamp:
        raise InvalidInput(
            "env lacks currentDifficulty, and none follows: currentTimestamp is no later than its parent's"
        )
    # EELS writes each fork's rule out; from Byzantium on it asks whether the parent had ommers (EIP-100).
    ommers = read_bytes(env["parentUncleHash"], 32) if "parentUncleHash" in env else _EMPTY_OMMERS_HASH
    has_ommers = (ommers not in (_EMPTY_OMMERS_HASH, bytes(32)),) if fork >= Fork.BYZANTIUM else ()
    rule = rules_of(fork).fork.calculate_block_difficulty
    parent_difficulty = Uint(read_int(env["parentDifficulty"]))
    return int(rule(Uint(number), U256(timestamp), U256(parent_timestamp), parent_difficulty, *has_ommers))


def _withdrawal(fields: Mapping[str, Any]) -> Withdrawal:
    return Withdrawal(
        index=read_int(fields["index"]),
        validator_index=read_int(fields["validatorIndex"]),
        address=read_bytes(fields["address"], 20),
        amount=read_int(fields["amount"]),
    )


def read_int(value: Any) -> int:
    """A number as geth writes it: a JSON number, or a string in decimal or with 0x."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a number")
    return int(value, 16) if value.startswith("0x") else int(value or "0")


def read_bytes(value: Any, size: int | None = None) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a hexadecimal string")
    raw = bytes.fromhex(value.removeprefix("0x"))
    if size is not None and len(raw) != size:
        raise ValueError(f"{value} has {len(raw)} bytes, not {size}")
    return raw
