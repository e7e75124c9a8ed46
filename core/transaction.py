"""Ethereum transactions: one object form, its canonical bytes, its hashes, and its columns.

Owns the encodings of types 0 (legacy, EIP-155), 1 (EIP-2930), 2 (EIP-1559), 3 (EIP-4844) and 4 (EIP-7702). Objects are
for edges (a wallet's one transaction, a test); blocks hold `TransactionColumns`. Signatures are checked in
`core.signature`, gas and fee rules in the executors.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

import numpy as np

from core import rlp
from core.columns import Array, Column, Columns, int_from_limbs, limbs_from_ints
from core.errors import RlpError, TransactionError
from core.hashing import keccak256

__all__ = [
    "AccessListEntry",
    "Authorization",
    "Transaction",
    "TransactionColumns",
    "TransactionType",
    "decode_transaction",
    "encode_transaction",
    "signing_hash",
    "transaction_hash",
]


class TransactionType(IntEnum):
    """EIP-2718 type bytes; LEGACY has none on the wire."""

    LEGACY = 0
    ACCESS_LIST = 1
    FEE_MARKET = 2
    BLOB = 3
    SET_CODE = 4


@dataclass(frozen=True, slots=True)
class AccessListEntry:
    """EIP-2930: an address (20 bytes) and the 32-byte slots of it that the transaction announces."""

    address: bytes
    storage_keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Authorization:
    """EIP-7702: `address` is the code to delegate to; chain_id 0 means any chain."""

    chain_id: int
    address: bytes
    nonce: int
    y_parity: int
    r: int
    s: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """A signed transaction of any type. Fees are wei per gas.

    Types 0 and 1 have one gas price: it stands in both fee fields. `chain_id` is None only for a legacy transaction
    signed before EIP-155. `to` is None for contract creation.
    """

    type: TransactionType
    chain_id: int | None
    nonce: int
    gas_limit: int
    max_fee_per_gas: int
    max_priority_fee_per_gas: int
    to: bytes | None
    value: int
    data: bytes
    y_parity: int
    r: int
    s: int
    access_list: tuple[AccessListEntry, ...] = ()
    max_fee_per_blob_gas: int = 0
    blob_versioned_hashes: tuple[bytes, ...] = ()
    authorizations: tuple[Authorization, ...] = ()


_FIELD_COUNTS = {
    TransactionType.LEGACY: 9,
    TransactionType.ACCESS_LIST: 11,
    TransactionType.FEE_MARKET: 12,
    TransactionType.BLOB: 14,
    TransactionType.SET_CODE: 13,
}


def decode_transaction(raw: bytes) -> Transaction:
    """Decode one canonical transaction (EIP-2718 envelope, or a legacy RLP list).

    Raises TransactionError saying which field is wrong. The signature is not checked.
    """
    if not raw:
        raise TransactionError("the transaction is empty")
    try:
        if raw[0] >= 0xC0:
            return _decode_legacy(rlp.decode(raw))
        if raw[0] not in _FIELD_COUNTS or raw[0] == 0:
            raise TransactionError(f"transaction type 0x{raw[0]:02x} is not supported")
        return _decode_typed(TransactionType(raw[0]), rlp.decode(raw[1:]))
    except RlpError as error:
        raise TransactionError(str(error)) from error


def _decode_legacy(item: rlp.Item) -> Transaction:
    fields = rlp.read_list(item, "transaction", range(9, 10))
    gas_price = rlp.read_int(fields[1], "gasPrice")
    v = rlp.read_int(fields[6], "v")
    if v in (27, 28):
        chain_id, y_parity = None, v - 27
    elif v >= 35:
        chain_id, y_parity = (v - 35) // 2, (v - 35) % 2
    else:
        raise TransactionError(f"v = {v} is neither 27, 28 nor 35 + 2 * chain id + parity (EIP-155)")
    if chain_id is not None and chain_id >= 2**64:
        raise TransactionError("the chain id does not fit into 64 bits")
    return Transaction(
        type=TransactionType.LEGACY,
        chain_id=chain_id,
        nonce=rlp.read_int(fields[0], "nonce", 64),
        gas_limit=rlp.read_int(fields[2], "gasLimit", 64),
        max_fee_per_gas=gas_price,
        max_priority_fee_per_gas=gas_price,
        to=_read_to(fields[3]),
        value=rlp.read_int(fields[4], "value"),
        data=rlp.read_bytes(fields[5], "data"),
        y_parity=y_parity,
        r=rlp.read_int(fields[7], "r"),
        s=rlp.read_int(fields[8], "s"),
    )


def _decode_typed(kind: TransactionType, item: rlp.Item) -> Transaction:
    count = _FIELD_COUNTS[kind]
    fields = list(rlp.read_list(item, "transaction", range(count, count + 1)))
    chain_id = rlp.read_int(fields.pop(0), "chainId", 64)
    nonce = rlp.read_int(fields.pop(0), "nonce", 64)
    max_priority_fee = rlp.read_int(fields.pop(0), "maxPriorityFeePerGas")
    max_fee = max_priority_fee if kind == TransactionType.ACCESS_LIST else rlp.read_int(fields.pop(0), "maxFeePerGas")
    gas_limit = rlp.read_int(fields.pop(0), "gasLimit", 64)
    to = _read_to(fields.pop(0))
    if to is None and kind in (TransactionType.BLOB, TransactionType.SET_CODE):
        raise TransactionError(f"a type {int(kind)} transaction cannot create a contract: `to` is empty")
    value = rlp.read_int(fields.pop(0), "value")
    data = rlp.read_bytes(fields.pop(0), "data")
    access_list = _read_access_list(fields.pop(0))
    blob_fee = 0
    blob_hashes: tuple[bytes, ...] = ()
    authorizations: tuple[Authorization, ...] = ()
    if kind == TransactionType.BLOB:
        blob_fee = rlp.read_int(fields.pop(0), "maxFeePerBlobGas")
        hashes = rlp.read_list(fields.pop(0), "blobVersionedHashes")
        blob_hashes = tuple(rlp.read_fixed(one, "blobVersionedHash", 32) for one in hashes)
    if kind == TransactionType.SET_CODE:
        authorizations = _read_authorizations(fields.pop(0))
    y_parity, r, s = fields
    return Transaction(
        type=kind,
        chain_id=chain_id,
        nonce=nonce,
        gas_limit=gas_limit,
        max_fee_per_gas=max_fee,
        max_priority_fee_per_gas=max_priority_fee,
        to=to,
        value=value,
        data=data,
        y_parity=_read_parity(y_parity),
        r=rlp.read_int(r, "r"),
        s=rlp.read_int(s, "s"),
        access_list=access_list,
        max_fee_per_blob_gas=blob_fee,
        blob_versioned_hashes=blob_hashes,
        authorizations=authorizations,
    )


def _read_to(item: rlp.Item) -> bytes | None:
    raw = rlp.read_bytes(item, "to")
    if len(raw) not in (0, 20):
        raise TransactionError(f"`to` has {len(raw)} bytes, expected 20, or none to create a contract")
    return raw or None


def _read_parity(item: rlp.Item) -> int:
    parity = rlp.read_int(item, "yParity", 8)
    if parity > 1:
        raise TransactionError(f"yParity is {parity}, expected 0 or 1")
    return parity


def _read_access_list(item: rlp.Item) -> tuple[AccessListEntry, ...]:
    entries = []
    for entry in rlp.read_list(item, "accessList"):
        address, keys = rlp.read_list(entry, "accessList entry", range(2, 3))
        slots = rlp.read_list(keys, "storageKeys")
        entries.append(
            AccessListEntry(
                rlp.read_fixed(address, "accessList address", 20),
                tuple(rlp.read_fixed(slot, "storageKey", 32) for slot in slots),
            )
        )
    return tuple(entries)


def _read_authorizations(item: rlp.Item) -> tuple[Authorization, ...]:
    authorizations = []
    for entry in rlp.read_list(item, "authorizationList"):
        chain_id, address, nonce, y_parity, r, s = rlp.read_list(entry, "authorization", range(6, 7))
        authorizations.append(
            Authorization(
                rlp.read_int(chain_id, "authorization chainId"),
                rlp.read_fixed(address, "authorization address", 20),
                rlp.read_int(nonce, "authorization nonce", 64),
                rlp.read_int(y_parity, "authorization yParity", 8),
                rlp.read_int(r, "authorization r"),
                rlp.read_int(s, "authorization s"),
            )
        )
    return tuple(authorizations)


def _payload(tx: Transaction) -> list[rlp.Item]:
    """The fields of the envelope up to the signature, in wire order."""
    number = rlp.encode_int
    to = tx.to or b""
    if tx.type == TransactionType.LEGACY:
        return [
            number(tx.nonce),
            number(tx.max_fee_per_gas),
            number(tx.gas_limit),
            to,
            number(tx.value),
            tx.data,
        ]
    assert tx.chain_id is not None, "every typed transaction names its chain"
    fees = [number(tx.max_priority_fee_per_gas), number(tx.max_fee_per_gas)]
    if tx.type == TransactionType.ACCESS_LIST:
        fees.pop()
    fields: list[rlp.Item] = [
        number(tx.chain_id),
        number(tx.nonce),
        *fees,
        number(tx.gas_limit),
        to,
        number(tx.value),
        tx.data,
        [[entry.address, list(entry.storage_keys)] for entry in tx.access_list],
    ]
    if tx.type == TransactionType.BLOB:
        fields += [number(tx.max_fee_per_blob_gas), list(tx.blob_versioned_hashes)]
    if tx.type == TransactionType.SET_CODE:
        fields.append([_encode_authorization(one) for one in tx.authorizations])
    return fields


def _encode_authorization(one: Authorization) -> list[rlp.Item]:
    numbers = (one.nonce, one.y_parity, one.r, one.s)
    return [rlp.encode_int(one.chain_id), one.address, *map(rlp.encode_int, numbers)]


def encode_transaction(tx: Transaction) -> bytes:
    """The canonical bytes: what is hashed, gossiped, and put into the transactions trie."""
    if tx.type == TransactionType.LEGACY:
        v = 27 + tx.y_parity if tx.chain_id is None else 35 + 2 * tx.chain_id + tx.y_parity
        signature = (v, tx.r, tx.s)
    else:
        signature = (tx.y_parity, tx.r, tx.s)
    body = rlp.encode([*_payload(tx), *map(rlp.encode_int, signature)])
    return body if tx.type == TransactionType.LEGACY else bytes([tx.type]) + body


def transaction_hash(tx: Transaction) -> bytes:
    """The transaction's identity: keccak256 of its canonical bytes."""
    return keccak256(encode_transaction(tx))


def signing_hash(tx: Transaction) -> bytes:
    """What the sender signed (EIP-155 for legacy transactions that name a chain)."""
    payload = _payload(tx)
    if tx.type != TransactionType.LEGACY:
        return keccak256(bytes([tx.type]) + rlp.encode(payload))
    if tx.chain_id is not None:
        payload += [rlp.encode_int(tx.chain_id), b"", b""]
    return keccak256(rlp.encode(payload))


@dataclass(frozen=True, slots=True, eq=False)
class TransactionColumns(Columns):
    """A list of signed transactions as columns; row i of group "transaction" is transaction i.

    `chain_id` is 0 for a legacy transaction without one. `to` is zero where `is_creation` is 1. `sender` is the address
    recovered from the signature; whoever takes columns from outside recovers it anew (`core.signature`) and compares.
    `hash` is the transaction hash. For types 0 and 1 both fees are the gas price.
    """

    type: Array
    chain_id: Array
    nonce: Array
    gas_limit: Array
    max_fee_per_gas: Array
    max_priority_fee_per_gas: Array
    to: Array
    is_creation: Array
    value: Array
    data_offsets: Array
    y_parity: Array
    r: Array
    s: Array
    sender: Array
    hash: Array
    access_offsets: Array
    max_fee_per_blob_gas: Array
    blob_hash_offsets: Array
    authorization_offsets: Array
    data: Array
    access_address: Array
    access_key_offsets: Array
    access_key: Array
    blob_hash: Array
    authorization_chain_id: Array
    authorization_address: Array
    authorization_nonce: Array
    authorization_y_parity: Array
    authorization_r: Array
    authorization_s: Array

    LAYOUT: ClassVar[tuple[Column, ...]] = (
        Column("type", "transaction", "u1"),
        Column("chain_id", "transaction"),
        Column("nonce", "transaction"),
        Column("gas_limit", "transaction"),
        Column("max_fee_per_gas", "transaction", width=(4,)),
        Column("max_priority_fee_per_gas", "transaction", width=(4,)),
        Column("to", "transaction", "u1", (20,)),
        Column("is_creation", "transaction", "u1"),
        Column("value", "transaction", width=(4,)),
        Column("data_offsets", "transaction", cuts="data"),
        Column("y_parity", "transaction", "u1"),
        Column("r", "transaction", width=(4,)),
        Column("s", "transaction", width=(4,)),
        Column("sender", "transaction", "u1", (20,)),
        Column("hash", "transaction", "u1", (32,)),
        Column("access_offsets", "transaction", cuts="access"),
        Column("max_fee_per_blob_gas", "transaction", width=(4,)),
        Column("blob_hash_offsets", "transaction", cuts="blob_hash"),
        Column("authorization_offsets", "transaction", cuts="authorization"),
        Column("data", "data", "u1"),
        Column("access_address", "access", "u1", (20,)),
        Column("access_key_offsets", "access", cuts="access_key"),
        Column("access_key", "access_key", "u1", (32,)),
        Column("blob_hash", "blob_hash", "u1", (32,)),
        Column("authorization_chain_id", "authorization", width=(4,)),
        Column("authorization_address", "authorization", "u1", (20,)),
        Column("authorization_nonce", "authorization"),
        Column("authorization_y_parity", "authorization", "u1"),
        Column("authorization_r", "authorization", width=(4,)),
        Column("authorization_s", "authorization", width=(4,)),
    )

    @classmethod
    def from_transactions(cls, transactions: Sequence[Transaction], senders: Sequence[bytes]) -> "TransactionColumns":
        """Columns of these transactions; `senders[i]` is the 20-byte address recovered from transaction i."""
        txs = list(transactions)
        assert len(txs) == len(senders), "one sender for each transaction"
        access = [entry for tx in txs for entry in tx.access_list]
        authorizations = [one for tx in txs for one in tx.authorizations]
        return cls(
            type=_bytes_column(tx.type for tx in txs),
            chain_id=_u64(tx.chain_id or 0 for tx in txs),
            nonce=_u64(tx.nonce for tx in txs),
            gas_limit=_u64(tx.gas_limit for tx in txs),
            max_fee_per_gas=limbs_from_ints(tx.max_fee_per_gas for tx in txs),
            max_priority_fee_per_gas=limbs_from_ints(tx.max_priority_fee_per_gas for tx in txs),
            to=_fixed((tx.to or bytes(20) for tx in txs), 20),
            is_creation=_bytes_column(tx.to is None for tx in txs),
            value=limbs_from_ints(tx.value for tx in txs),
            data_offsets=_offsets(len(tx.data) for tx in txs),
            y_parity=_bytes_column(tx.y_parity for tx in txs),
            r=limbs_from_ints(tx.r for tx in txs),
            s=limbs_from_ints(tx.s for tx in txs),
            sender=_fixed(senders, 20),
            hash=_fixed((transaction_hash(tx) for tx in txs), 32),
            access_offsets=_offsets(len(tx.access_list) for tx in txs),
            max_fee_per_blob_gas=limbs_from_ints(tx.max_fee_per_blob_gas for tx in txs),
            blob_hash_offsets=_offsets(len(tx.blob_versioned_hashes) for tx in txs),
            authorization_offsets=_offsets(len(tx.authorizations) for tx in txs),
            data=np.frombuffer(b"".join(tx.data for tx in txs), "u1"),
            access_address=_fixed((entry.address for entry in access), 20),
            access_key_offsets=_offsets(len(entry.storage_keys) for entry in access),
            access_key=_fixed((key for entry in access for key in entry.storage_keys), 32),
            blob_hash=_fixed((one for tx in txs for one in tx.blob_versioned_hashes), 32),
            authorization_chain_id=limbs_from_ints(one.chain_id for one in authorizations),
            authorization_address=_fixed((one.address for one in authorizations), 20),
            authorization_nonce=_u64(one.nonce for one in authorizations),
            authorization_y_parity=_bytes_column(one.y_parity for one in authorizations),
            authorization_r=limbs_from_ints(one.r for one in authorizations),
            authorization_s=limbs_from_ints(one.s for one in authorizations),
        )

    def transaction(self, row: int) -> Transaction:
        """Row `row` as an object."""
        kind = TransactionType(int(self.type[row]))
        chain_id = int(self.chain_id[row])
        start, stop = self.access_offsets[row : row + 2].tolist()
        blobs = slice(*self.blob_hash_offsets[row : row + 2].tolist())
        authorizations = range(*self.authorization_offsets[row : row + 2].tolist())
        return Transaction(
            type=kind,
            chain_id=None if kind == TransactionType.LEGACY and chain_id == 0 else chain_id,
            nonce=int(self.nonce[row]),
            gas_limit=int(self.gas_limit[row]),
            max_fee_per_gas=int_from_limbs(self.max_fee_per_gas[row]),
            max_priority_fee_per_gas=int_from_limbs(self.max_priority_fee_per_gas[row]),
            to=None if self.is_creation[row] else self.to[row].tobytes(),
            value=int_from_limbs(self.value[row]),
            data=self.data[slice(*self.data_offsets[row : row + 2].tolist())].tobytes(),
            y_parity=int(self.y_parity[row]),
            r=int_from_limbs(self.r[row]),
            s=int_from_limbs(self.s[row]),
            access_list=tuple(self._access_entry(entry) for entry in range(start, stop)),
            max_fee_per_blob_gas=int_from_limbs(self.max_fee_per_blob_gas[row]),
            blob_versioned_hashes=tuple(one.tobytes() for one in self.blob_hash[blobs]),
            authorizations=tuple(self._authorization(one) for one in authorizations),
        )

    def encoded(self) -> list[bytes]:
        """The canonical bytes of every transaction, in order."""
        return [encode_transaction(self.transaction(row)) for row in range(len(self))]

    def _access_entry(self, entry: int) -> AccessListEntry:
        keys = self.access_key[slice(*self.access_key_offsets[entry : entry + 2].tolist())]
        return AccessListEntry(self.access_address[entry].tobytes(), tuple(key.tobytes() for key in keys))

    def _authorization(self, row: int) -> Authorization:
        return Authorization(
            int_from_limbs(self.authorization_chain_id[row]),
            self.authorization_address[row].tobytes(),
            int(self.authorization_nonce[row]),
            int(self.authorization_y_parity[row]),
            int_from_limbs(self.authorization_r[row]),
            int_from_limbs(self.authorization_s[row]),
        )


def _u64(values: Iterable[int]) -> Array:
    return np.fromiter(values, "<u8")


def _bytes_column(values: Iterable[int]) -> Array:
    return np.fromiter(values, "u1")


def _fixed(values: Iterable[bytes], size: int) -> Array:
    return np.frombuffer(b"".join(values), "u1").reshape(-1, size)


def _offsets(lengths: Iterable[int]) -> Array:
    return np.cumsum([0, *lengths], dtype="<u8")
