"""The input of a state transition tool (geth's `evm t8n`): alloc, env and txs, as one JSON object or as three files.

Owns the reading: accounts, the block's context, transactions that are signed or come with a key to sign them. Knows
nothing of executors.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from coincurve import PrivateKey

from core import rlp
from core.errors import InvalidInput, TransactionError
from core.execution import BlockContext
from core.fork import Fork
from core.memory_state import AccountContents
from core.signature import SIGNATURE_RECOVERY_OFFSET, attach_signature, recover_sender
from core.transaction import (
    AccessListEntry,
    Authorization,
    Transaction,
    TransactionType,
    decode_transaction,
    encode_transaction,
    signing_hash,
)
from worker.evm.transition_environment import read_bytes, read_environment, read_int

__all__ = ["SignedTransaction", "Transition", "fork_of_name", "read_transition"]

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """A transaction with the sender that its signature names, or why it is none."""

    transaction: Transaction | None
    sender: bytes
    error: str = ""


@dataclass(frozen=True, slots=True)
class Transition:
    """A block to execute: the accounts before it, its context, its transactions in order."""

    accounts: Mapping[bytes, AccountContents]
    context: BlockContext
    transactions: tuple[SignedTransaction, ...]


def fork_of_name(name: str) -> Fork:
    """The fork that tests and geth call `name`. Raises InvalidInput that lists what there is."""
    known = {one.name.replace("_", "").upper(): one for one in Fork} | {"MERGE": Fork.PARIS}
    fork = known.get(name.replace("_", "").upper())
    if fork is None:
        names = ", ".join(one.name.replace("_", " ").title().replace(" ", "") for one in Fork)
        raise InvalidInput(f"unknown fork {name}; use one of {names}")
    return fork


def read_transition(alloc: bytes, env: bytes, txs: bytes, fork: Fork, chain_id: int) -> Transition:
    """Read the three parts, each a JSON value. Raises InvalidInput naming the part and the field that is wrong."""
    accounts = _part("alloc", alloc, _accounts)
    context = _part("env", env, lambda fields: read_environment(fields, fork, chain_id))
    return Transition(accounts, context, _part("txs", txs, _transactions))


def _part(name: str, raw: bytes, read: Callable[[Any], _Part]) -> _Part:
    try:
        return read(orjson.loads(raw))
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"{name} is not JSON: {error}") from error
    except KeyError as error:
        raise InvalidInput(f"{name} lacks the field {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{name} cannot be read: {error}") from error


# ---- alloc ----


def _accounts(fields: Mapping[str, Any]) -> dict[bytes, AccountContents]:
    return {
        read_bytes(address, 20): AccountContents(
            nonce=read_int(one.get("nonce", 0)),
            balance=read_int(one.get("balance", 0)),
            code=read_bytes(one.get("code", "")),
            storage={read_int(slot): read_int(value) for slot, value in one.get("storage", {}).items()},
        )
        for address, one in fields.items()
    }


# ---- txs ----


def _transactions(value: Any) -> tuple[SignedTransaction, ...]:
    """A list of transaction objects, or the RLP of a list of transactions as a hexadecimal string."""
    if isinstance(value, str):
        items = rlp.decode(read_bytes(value))
        if isinstance(items, bytes):
            raise InvalidInput("txs is a string, but not the RLP of a list of transactions")
        return tuple(_sent(one if isinstance(one, bytes) else rlp.encode(one)) for one in items)
    return tuple(_transaction(index, one) for index, one in enumerate(value))


def _sent(raw: bytes) -> SignedTransaction:
    """A transaction as it travels; one that can never be valid keeps the reason."""
    try:
        tx = decode_transaction(raw)
        return SignedTransaction(tx, recover_sender(tx))
    except TransactionError as error:
        return SignedTransaction(None, bytes(20), str(error))


def _transaction(index: int, fields: Mapping[str, Any]) -> SignedTransaction:
    try:
        tx = _unsigned(fields)
    except KeyError as error:
        raise InvalidInput(f"txs[{index}] lacks the field {error}") from error
    secret = fields.get("secretKey")
    if secret is not None:
        raw = PrivateKey(read_bytes(secret, 32)).sign_recoverable(signing_hash(tx), hasher=None)
        tx = attach_signature(tx, raw[:64] + bytes([raw[64] + SIGNATURE_RECOVERY_OFFSET]))
    return _sent(encode_transaction(tx))


def _unsigned(fields: Mapping[str, Any]) -> Transaction:
    kind = TransactionType(read_int(fields.get("type", 0)))
    one_price = kind <= TransactionType.ACCESS_LIST
    v = read_int(fields.get("v", fields.get("yParity", 0)))
    chain_id: int | None = read_int(fields.get("chainId", 1))
    if kind == TransactionType.LEGACY and fields.get("secretKey") is None:
        chain_id = (v - 35) // 2 if v >= 35 else None
        v = (v - 35) % 2 if v >= 35 else v - 27
    elif kind == TransactionType.LEGACY and not fields.get("protected", True):
        chain_id = None
    return Transaction(
        type=kind,
        chain_id=chain_id,
        nonce=read_int(fields["nonce"]),
        gas_limit=read_int(fields["gas"] if "gas" in fields else fields["gasLimit"]),
        max_fee_per_gas=read_int(fields["gasPrice"] if one_price else fields["maxFeePerGas"]),
        max_priority_fee_per_gas=read_int(fields["gasPrice"] if one_price else fields["maxPriorityFeePerGas"]),
        to=read_bytes(fields["to"], 20) if fields.get("to") else None,
        value=read_int(fields.get("value", 0)),
        data=read_bytes(fields.get("input", fields.get("data", ""))),
        y_parity=v,
        r=read_int(fields.get("r", 0)),
        s=read_int(fields.get("s", 0)),
        access_list=tuple(_access(one) for one in fields.get("accessList") or ()),
        max_fee_per_blob_gas=read_int(fields.get("maxFeePerBlobGas", 0)),
        blob_versioned_hashes=tuple(read_bytes(one, 32) for one in fields.get("blobVersionedHashes") or ()),
        authorizations=tuple(_authorization(one) for one in fields.get("authorizationList") or ()),
    )


def _access(fields: Mapping[str, Any]) -> AccessListEntry:
    return AccessListEntry(
        read_bytes(fields["address"], 20), tuple(read_bytes(key, 32) for key in fields["storageKeys"])
    )


def _authorization(fields: Mapping[str, Any]) -> Authorization:
    numbers = [read_int(fields[name]) for name in ("nonce", "r", "s")]
    parity = read_int(fields["yParity"] if "yParity" in fields else fields["v"])
    return Authorization(
        read_int(fields["chainId"]), read_bytes(fields["address"], 20), numbers[0], parity, numbers[1], numbers[2]
    )
