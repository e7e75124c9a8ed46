"""The genesis file (geth's genesis.json), block 0 and the state that it begins with.

`Genesis.from_geth` reads a file's object; `dev_genesis` makes one for a local network. Knows nothing of stores.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.block import Block, Header, header_hash
from core.chain import SealedBlock
from core.chain_rules import EXTRA_DATA_BYTES_MAX, INITIAL_BASE_FEE, requests_hash_of
from core.errors import GenesisError
from core.fork import ChainConfig, Fork
from core.hashing import EMPTY_CODE_HASH, EMPTY_LIST_HASH, EMPTY_TRIE_ROOT, keccak256
from core.memory_state import MemoryState
from core.receipts import BLOOM_BYTES
from core.state import Account, AccountChange, StateDifference
from core.system_contracts import SYSTEM_CONTRACTS
from core.transaction import TransactionColumns

__all__ = ["Genesis", "Predeploy", "dev_genesis", "load_genesis"]


@dataclass(frozen=True, slots=True)
class Genesis:
    """Block 0, the state after it as a difference from nothing, and the chain's configuration."""

    config: ChainConfig
    block: SealedBlock
    difference: StateDifference

    @classmethod
    def from_geth(cls, content: Mapping[str, Any]) -> "Genesis":
        """Read a genesis file's object. Raises GenesisError naming the field that is wrong."""
        if not isinstance(content, Mapping) or not isinstance(content.get("config"), Mapping):
            raise GenesisError("a genesis file is an object with the members config and alloc")
        config = ChainConfig.from_geth(content["config"])
        alloc = content.get("alloc")
        if not isinstance(alloc, Mapping):
            raise GenesisError("alloc must be an object from addresses to accounts")
        changes: dict[bytes, AccountChange] = {}
        for key, account in alloc.items():
            address = _bytes(f"alloc key {key!r}", key, 20)
            if address in changes:
                raise GenesisError(f"alloc names 0x{address.hex()} twice")
            changes[address] = _account(f"alloc.{key}", account)
        difference = StateDifference.from_changes(changes)
        header = _header(content, config, MemoryState().root_after(difference))
        withdrawals = () if header.withdrawals_root is not None else None
        block = Block(header, TransactionColumns.empty(), (), withdrawals)
        return cls(config, SealedBlock(header_hash(header), block), difference)


@dataclass(frozen=True, slots=True)
class Predeploy:
    """A contract that exists from the start: runtime code, storage, balance in wei."""

    code: bytes
    storage: Mapping[int, int] = field(default_factory=dict)
    balance_wei: int = 0


def load_genesis(path: Path) -> Genesis:
    """Read a genesis file. Raises GenesisError when it cannot be read or used."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        mend = "name your network's genesis file in the setting `genesis`"
        raise GenesisError(f"cannot read {path}: {error.strerror}; {mend}") from error
    except ValueError as error:
        raise GenesisError(f"{path} is not JSON: {error}") from error
    return Genesis.from_geth(content)


def dev_genesis(
    chain_id: int,
    balances_wei: Mapping[bytes, int],
    predeploys: Mapping[bytes, Predeploy],
    *,
    timestamp: int,
    gas_limit: int = 60_000_000,
    extra_data: bytes = b"warpgrid",
) -> dict[str, Any]:
    """A genesis file's object, in geth's format: every fork up to Osaka from block 0 on, the system contracts deployed.

    `balances_wei` funds accounts; `predeploys` are further contracts. Both map 20-byte addresses.
    """
    contracts = {one.address: Predeploy(one.code) for one in SYSTEM_CONTRACTS}
    if contracts.keys() & predeploys.keys():
        raise GenesisError("a predeploy stands at the address of a system contract")
    contracts.update(predeploys)
    if contracts.keys() & balances_wei.keys():
        raise GenesisError("a funded account stands at the address of a contract; give the predeploy a balance instead")
    alloc: dict[str, Any] = {_hex(address): {"balance": hex(wei)} for address, wei in balances_wei.items()}
    for address, one in contracts.items():
        storage = {_hex(_word(slot)): _hex(_word(value)) for slot, value in one.storage.items()}
        # Nonce 1 as a deployed contract has it (EIP-161): an account with code and nonce 0 could be created over.
        alloc[_hex(address)] = {"nonce": "0x1", "balance": hex(one.balance_wei), "code": _hex(one.code)} | (
            {"storage": storage} if storage else {}
        )
    return {
        "config": _dev_config(chain_id),
        "timestamp": hex(timestamp),
        "gasLimit": hex(gas_limit),
        "difficulty": "0x0",
        "extraData": _hex(extra_data),
        "baseFeePerGas": hex(INITIAL_BASE_FEE),
        "alloc": alloc,
    }


def _dev_config(chain_id: int) -> dict[str, Any]:
    blocks = "homestead eip150 eip155 eip158 byzantium constantinople petersburg istanbul muirGlacier berlin london"
    blocks += " arrowGlacier grayGlacier mergeNetsplit"
    return (
        {"chainId": chain_id, "terminalTotalDifficulty": 0}
        | {f"{name}Block": 0 for name in blocks.split()}
        | {f"{name}Time": 0 for name in ("shanghai", "cancun", "prague", "osaka")}
        | {
            "blobSchedule": {
                "cancun": {"target": 3, "max": 6, "baseFeeUpdateFraction": 3_338_477},
                "prague": {"target": 6, "max": 9, "baseFeeUpdateFraction": 5_007_716},
                "osaka": {"target": 6, "max": 9, "baseFeeUpdateFraction": 5_007_716},
            }
        }
    )


def _header(content: Mapping[str, Any], config: ChainConfig, state_root: bytes) -> Header:
    number = _number("number", content.get("number"), 64)
    if number:
        raise GenesisError(f"number must be 0, not {number}")
    timestamp = _number("timestamp", content.get("timestamp"), 64)
    fork = config.fork_at(0, timestamp)
    extra_data = _bytes("extraData", content.get("extraData", "0x"))
    if len(extra_data) > EXTRA_DATA_BYTES_MAX:
        raise GenesisError(f"extraData has {len(extra_data)} bytes, at most {EXTRA_DATA_BYTES_MAX} are allowed")

    def hash_or_zero(name: str) -> bytes:
        return _bytes(name, content.get(name) or _hex(bytes(32)), 32)

    cancun = fork >= Fork.CANCUN
    return Header(
        parent_hash=hash_or_zero("parentHash"),
        ommers_hash=EMPTY_LIST_HASH,
        coinbase=_bytes("coinbase", content.get("coinbase") or _hex(bytes(20)), 20),
        state_root=state_root,
        transactions_root=EMPTY_TRIE_ROOT,
        receipts_root=EMPTY_TRIE_ROOT,
        logs_bloom=bytes(BLOOM_BYTES),
        difficulty=_number("difficulty", content.get("difficulty")),
        number=0,
        gas_limit=_number("gasLimit", content.get("gasLimit"), 64),
        gas_used=_number("gasUsed", content.get("gasUsed"), 64),
        timestamp=timestamp,
        extra_data=extra_data,
        prev_randao=hash_or_zero("mixHash"),
        nonce=_number("nonce", content.get("nonce"), 64).to_bytes(8, "big"),
        base_fee_per_gas=_number("baseFeePerGas", content.get("baseFeePerGas"), default=INITIAL_BASE_FEE)
        if fork >= Fork.LONDON
        else None,
        withdrawals_root=EMPTY_TRIE_ROOT if fork >= Fork.SHANGHAI else None,
        blob_gas_used=_number("blobGasUsed", content.get("blobGasUsed"), 64) if cancun else None,
        excess_blob_gas=_number("excessBlobGas", content.get("excessBlobGas"), 64) if cancun else None,
        parent_beacon_block_root=hash_or_zero("parentBeaconBlockRoot") if cancun else None,
        requests_hash=requests_hash_of(()) if fork >= Fork.PRAGUE else None,
    )


def _account(name: str, content: Any) -> AccountChange:
    if not isinstance(content, Mapping):
        raise GenesisError(f"{name} must be an object")
    unknown = content.keys() - {"balance", "nonce", "code", "storage", "secretKey"}
    if unknown:
        raise GenesisError(f"{name} has members that mean nothing here: {', '.join(sorted(unknown))}")
    code = _bytes(f"{name}.code", content.get("code") or "0x")
    storage = {} if content.get("storage") is None else content["storage"]
    if not isinstance(storage, Mapping):
        raise GenesisError(f"{name}.storage must be an object from slots to values")
    slots = {_number(f"{name}.storage key", key): _number(f"{name}.storage", value) for key, value in storage.items()}
    account = Account(
        nonce=_number(f"{name}.nonce", content.get("nonce"), 64),
        balance=_number(f"{name}.balance", content.get("balance")),
        code_hash=keccak256(code) if code else EMPTY_CODE_HASH,
    )
    written = {slot: value for slot, value in slots.items() if value}
    return AccountChange(account, written, code=code or None)


def _number(name: str, value: Any, bits: int = 256, *, default: int = 0) -> int:
    """A number as geth's files have it: a JSON integer, or a string in decimal or 0x-hexadecimal."""
    if value is None:
        return default
    try:
        number = value if type(value) is int else int(value, 16 if value[:2] in ("0x", "0X") else 10)
    except (TypeError, ValueError) as error:
        raise GenesisError(f"{name} must be a number, not {value!r}") from error
    if not 0 <= number < 2**bits:
        raise GenesisError(f"{name} must lie in [0, 2^{bits})")
    return number


def _bytes(name: str, value: Any, size: int | None = None) -> bytes:
    try:
        raw = bytes.fromhex(value.removeprefix("0x"))
    except (AttributeError, ValueError) as error:
        raise GenesisError(f"{name} must be hexadecimal bytes, not {value!r}") from error
    if size is not None and len(raw) != size:
        raise GenesisError(f"{name} has {len(raw)} bytes, expected {size}")
    return raw


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _hex(raw: bytes) -> str:
    return "0x" + raw.hex()
