"""The transaction object of eth_call and its kin, read and turned into what an executor runs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.execution import CallRequest
from core.transaction import AccessListEntry, Authorization, Transaction, TransactionType
from sequencer.jsonrpc.errors import SERVER_ERROR, RpcError
from sequencer.jsonrpc.hexadecimal import HexError, read_data, read_fixed, read_quantity

__all__ = ["CallArguments", "read_call_arguments"]

_NOBODY = bytes(20)


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A transaction object as it was sent; None is what was left out."""

    sender: bytes = _NOBODY
    to: bytes | None = None
    gas: int | None = None
    gas_price: int | None = None
    max_fee_per_gas: int | None = None
    max_priority_fee_per_gas: int | None = None
    value: int = 0
    nonce: int | None = None
    data: bytes = b""
    access_list: tuple[AccessListEntry, ...] | None = None
    chain_id: int | None = None
    max_fee_per_blob_gas: int | None = None
    blob_versioned_hashes: tuple[bytes, ...] | None = None
    authorizations: tuple[Authorization, ...] | None = None

    def check(self, chain_id: int) -> None:
        """Raise RpcError for members that contradict each other or the chain."""
        if self.gas_price is not None and (self.max_fee_per_gas, self.max_priority_fee_per_gas) != (None, None):
            message = "both gasPrice and (maxFeePerGas or maxPriorityFeePerGas) specified"
            raise RpcError(SERVER_ERROR, message)
        if self.chain_id is not None and self.chain_id != chain_id:
            raise RpcError(SERVER_ERROR, f"chainId does not match node's (have={self.chain_id}, want={chain_id})")

    def request(self, gas_max: int, *, validate: bool = False) -> CallRequest:
        """What to run, with at most `gas_max` gas."""
        return CallRequest(
            sender=self.sender,
            to=self.to,
            gas_limit=gas_max if self.gas is None else min(self.gas, gas_max),
            value=self.value,
            data=self.data,
            nonce=self.nonce,
            max_fee_per_gas=self.max_fee,
            max_priority_fee_per_gas=self.max_priority_fee,
            access_list=self.access_list or (),
            max_fee_per_blob_gas=self.max_fee_per_blob_gas or 0,
            blob_versioned_hashes=self.blob_versioned_hashes or (),
            authorizations=self.authorizations or (),
            validate=validate,
        )

    def with_access_list(self, access_list: tuple[AccessListEntry, ...]) -> "CallArguments":
        """The same, announcing these addresses and slots."""
        return replace(self, access_list=access_list)

    @property
    def max_fee(self) -> int:
        """Wei per gas that may be charged."""
        return (self.max_fee_per_gas if self.gas_price is None else self.gas_price) or 0

    @property
    def max_priority_fee(self) -> int:
        """Wei per gas for the block's producer."""
        return (self.max_priority_fee_per_gas if self.gas_price is None else self.gas_price) or 0

    def unsigned_transaction(self, nonce: int, gas_limit: int, chain_id: int) -> Transaction:
        """The transaction that it would be, with an empty signature: type 2 unless its members ask for another."""
        if self.gas_price is not None:
            kind = TransactionType.LEGACY
        elif self.authorizations is not None:
            kind = TransactionType.SET_CODE
        elif self.blob_versioned_hashes is not None:
            kind = TransactionType.BLOB
        else:
            kind = TransactionType.FEE_MARKET
        return Transaction(
            type=kind,
            chain_id=None if kind == TransactionType.LEGACY else chain_id,
            nonce=nonce,
            gas_limit=gas_limit,
            max_fee_per_gas=self.max_fee,
            max_priority_fee_per_gas=self.max_priority_fee,
            to=self.to,
            value=self.value,
            data=self.data,
            y_parity=0,
            r=0,
            s=0,
            access_list=(self.access_list or ()) if kind != TransactionType.LEGACY else (),
            max_fee_per_blob_gas=(self.max_fee_per_blob_gas or 0) if kind == TransactionType.BLOB else 0,
            blob_versioned_hashes=(self.blob_versioned_hashes or ()) if kind == TransactionType.BLOB else (),
            authorizations=(self.authorizations or ()) if kind == TransactionType.SET_CODE else (),
        )


def read_call_arguments(value: Any) -> CallArguments:
    """Decode a transaction object. Raises HexError; unknown members are let pass, as in geth."""
    if not isinstance(value, dict):
        raise HexError("json: cannot unmarshal non-object into Go value of type ethapi.TransactionArgs")
    given = {name: one for name, one in value.items() if one is not None}
    return CallArguments(
        sender=read_fixed(given.get("from", "0x" + _NOBODY.hex()), 20),
        to=_optional(given, "to", lambda one: read_fixed(one, 20)),
        gas=_optional(given, "gas", read_quantity),
        gas_price=_optional(given, "gasPrice", _read_u256),
        max_fee_per_gas=_optional(given, "maxFeePerGas", _read_u256),
        max_priority_fee_per_gas=_optional(given, "maxPriorityFeePerGas", _read_u256),
        value=_read_u256(given.get("value", "0x0")),
        nonce=_optional(given, "nonce", read_quantity),
        data=read_data(given.get("input", given.get("data", "0x"))),
        access_list=_optional(given, "accessList", _read_access_list),
        chain_id=_optional(given, "chainId", _read_u256),
        max_fee_per_blob_gas=_optional(given, "maxFeePerBlobGas", _read_u256),
        blob_versioned_hashes=_optional(given, "blobVersionedHashes", _read_hashes),
        authorizations=_optional(given, "authorizationList", _read_authorizations),
    )


def _optional(given: Mapping[str, Any], name: str, reader: Any) -> Any:
    return reader(given[name]) if name in given else None


def _read_u256(value: Any) -> int:
    return read_quantity(value, 256)


def _read_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise HexError("json: cannot unmarshal non-array into a list")
    return value


def _read_hashes(value: Any) -> tuple[bytes, ...]:
    return tuple(read_fixed(one, 32) for one in _read_list(value))


def _read_access_list(value: Any) -> tuple[AccessListEntry, ...]:
    entries: list[AccessListEntry] = []
    for entry in _read_list(value):
        if not isinstance(entry, dict):
            raise HexError("json: cannot unmarshal non-object into Go value of type types.AccessTuple")
        keys = _read_hashes(entry.get("storageKeys") or [])
        entries.append(AccessListEntry(read_fixed(entry.get("address"), 20), keys))
    return tuple(entries)


def _read_authorizations(value: Any) -> tuple[Authorization, ...]:
    authorizations: list[Authorization] = []
    for one in _read_list(value):
        if not isinstance(one, dict):
            raise HexError("json: cannot unmarshal non-object into Go value of type types.SetCodeAuthorization")
        authorizations.append(
            Authorization(
                chain_id=_read_u256(one.get("chainId")),
                address=read_fixed(one.get("address"), 20),
                nonce=read_quantity(one.get("nonce")),
                y_parity=read_quantity(one.get("yParity"), 8),
                r=_read_u256(one.get("r")),
                s=_read_u256(one.get("s")),
            )
        )
    return tuple(authorizations)
