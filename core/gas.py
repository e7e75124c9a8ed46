"""What a transaction costs before it runs, and what makes it invalid whatever the state (per fork).

Owns intrinsic gas (EIP-2, 2028, 2930, 3860, 7702), the calldata floor (EIP-7623), and the static rules. Whether the
sender can pay and what nonce it has is the executors' and the mempool's business; gas of instructions, the executors'.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from core.execution import RejectionReason
from core.fork import BLOB_PARAMETERS, Fork
from core.transaction import Transaction, TransactionType

__all__ = [
    "INITCODE_BYTES_MAX",
    "TRANSACTION_GAS_MAX",
    "Violation",
    "floor_gas",
    "intrinsic_gas",
    "static_violation",
]

INITCODE_BYTES_MAX = 2 * 24_576
"""EIP-3860, from Shanghai on."""
TRANSACTION_GAS_MAX = 2**24
"""EIP-7825, from Osaka on."""

_TRANSACTION = 21_000
_CREATION = 32_000
_ZERO_BYTE = 4
_NONZERO_BYTE = 16
_NONZERO_BYTE_BEFORE_ISTANBUL = 68
_INITCODE_WORD = 2
_ACCESS_ADDRESS = 2_400
_ACCESS_KEY = 1_900
_AUTHORIZATION = 25_000
_FLOOR_TOKEN = 10
_NONZERO_BYTE_TOKENS = 4
_TRANSACTION_BLOBS_MAX = 6  # EIP-7594, from Osaka on
_BLOB_HASH_VERSION = 1

_TYPE_FORKS: Mapping[TransactionType, Fork] = {
    TransactionType.LEGACY: Fork.FRONTIER,
    TransactionType.ACCESS_LIST: Fork.BERLIN,
    TransactionType.FEE_MARKET: Fork.LONDON,
    TransactionType.BLOB: Fork.CANCUN,
    TransactionType.SET_CODE: Fork.PRAGUE,
}


def intrinsic_gas(tx: Transaction, fork: Fork) -> int:
    """Gas charged before the first instruction."""
    zeros = tx.data.count(0)
    nonzero_byte = _NONZERO_BYTE if fork >= Fork.ISTANBUL else _NONZERO_BYTE_BEFORE_ISTANBUL
    gas = _TRANSACTION + zeros * _ZERO_BYTE + (len(tx.data) - zeros) * nonzero_byte
    if tx.to is None and fork >= Fork.HOMESTEAD:
        gas += _CREATION
    if tx.to is None and fork >= Fork.SHANGHAI:
        gas += (len(tx.data) + 31) // 32 * _INITCODE_WORD
    gas += sum(_ACCESS_ADDRESS + _ACCESS_KEY * len(entry.storage_keys) for entry in tx.access_list)
    return gas + _AUTHORIZATION * len(tx.authorizations)


def floor_gas(tx: Transaction, fork: Fork) -> int:
    """EIP-7623: what a transaction pays at least, for its calldata; 0 before Prague."""
    if fork < Fork.PRAGUE:
        return 0
    zeros = tx.data.count(0)
    return _TRANSACTION + _FLOOR_TOKEN * (zeros + (len(tx.data) - zeros) * _NONZERO_BYTE_TOKENS)


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a transaction breaks, and a sentence with the figures."""

    reason: RejectionReason
    detail: str


def static_violation(tx: Transaction, fork: Fork, chain_id: int) -> Violation | None:
    """The first rule of `fork` that `tx` breaks on chain `chain_id` whatever the state is, or None."""
    return _type_violation(tx, fork, chain_id) or _gas_violation(tx, fork) or _payload_violation(tx, fork)


def _type_violation(tx: Transaction, fork: Fork, chain_id: int) -> Violation | None:
    if fork < _TYPE_FORKS[tx.type]:
        return Violation(RejectionReason.TYPE_NOT_SUPPORTED, f"type {int(tx.type)} is not supported under {fork.name}")
    if tx.chain_id is None:
        return None
    if fork < Fork.SPURIOUS_DRAGON:
        return Violation(RejectionReason.SIGNATURE_INVALID, f"v names a chain, which {fork.name} does not know")
    if tx.chain_id != chain_id:
        return Violation(RejectionReason.CHAIN_ID_MISMATCH, f"signed for chain {tx.chain_id}, this is {chain_id}")
    return None


def _gas_violation(tx: Transaction, fork: Fork) -> Violation | None:
    if fork >= Fork.OSAKA and tx.gas_limit > TRANSACTION_GAS_MAX:
        detail = f"gas limit {tx.gas_limit} is above {TRANSACTION_GAS_MAX} (EIP-7825)"
        return Violation(RejectionReason.TRANSACTION_GAS_LIMIT, detail)
    if tx.max_priority_fee_per_gas > tx.max_fee_per_gas:
        detail = f"priority fee {tx.max_priority_fee_per_gas} is above the maximum fee {tx.max_fee_per_gas}"
        return Violation(RejectionReason.PRIORITY_FEE_ABOVE_MAX_FEE, detail)
    if tx.gas_limit * tx.max_fee_per_gas >= 2**256:
        return Violation(RejectionReason.FEE_OVERFLOW, "gas limit times fee does not fit into 256 bits")
    intrinsic = intrinsic_gas(tx, fork)
    if tx.gas_limit < intrinsic:
        detail = f"gas limit {tx.gas_limit} is below the intrinsic gas {intrinsic}"
        return Violation(RejectionReason.INTRINSIC_GAS, detail)
    floor = floor_gas(tx, fork)
    if tx.gas_limit < floor:
        detail = f"gas limit {tx.gas_limit} is below the calldata floor {floor} (EIP-7623)"
        return Violation(RejectionReason.FLOOR_GAS, detail)
    return None


def _payload_violation(tx: Transaction, fork: Fork) -> Violation | None:
    if tx.nonce == 2**64 - 1:
        return Violation(RejectionReason.NONCE_OVERFLOW, "the nonce is 2^64 - 1 (EIP-2681)")
    if tx.to is None and fork >= Fork.SHANGHAI and len(tx.data) > INITCODE_BYTES_MAX:
        detail = f"init code has {len(tx.data)} bytes, at most {INITCODE_BYTES_MAX} are allowed (EIP-3860)"
        return Violation(RejectionReason.INITCODE_TOO_LARGE, detail)
    if tx.type == TransactionType.SET_CODE and not tx.authorizations:
        return Violation(RejectionReason.AUTHORIZATION_LIST_EMPTY, "a type 4 transaction needs an authorization")
    if tx.type == TransactionType.BLOB:
        return _blob_violation(tx, fork)
    return None


def _blob_violation(tx: Transaction, fork: Fork) -> Violation | None:
    allowed = BLOB_PARAMETERS[fork].max_blobs
    if fork >= Fork.OSAKA:
        allowed = min(allowed, _TRANSACTION_BLOBS_MAX)
    count = len(tx.blob_versioned_hashes)
    if not 0 < count <= allowed:
        return Violation(RejectionReason.BLOB_COUNT, f"{count} blobs, expected 1 to {allowed}")
    if any(one[0] != _BLOB_HASH_VERSION for one in tx.blob_versioned_hashes):
        return Violation(RejectionReason.BLOB_HASH_VERSION, "a blob's versioned hash does not begin with 0x01")
    return None
