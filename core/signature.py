"""Who signed a transaction: ECDSA recovery on secp256k1, in batches (EIP-2, EIP-155, EIP-7702).

Batches go to the native core (`core.crypto`), on all cores; a single signature to libsecp256k1 through coincurve, which
also is what the tests hold the native one to. Knows nothing of nonces or balances.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from coincurve import PublicKey

from core.crypto import recover_batch
from core.errors import TransactionError
from core.hashing import keccak256
from core.rlp import encode, encode_int
from core.transaction import Authorization, Transaction, signing_hash

__all__ = [
    "SECP256K1_ORDER",
    "SIGNATURE_RECOVERY_OFFSET",
    "S_MAX",
    "S_MAX_FRONTIER",
    "attach_signature",
    "authorization_hash",
    "recover_address",
    "recover_authority",
    "recover_sender",
    "recover_senders",
]

SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

S_MAX = SECP256K1_ORDER // 2
"""EIP-2, from Homestead on: of the two signatures that say the same, only the one with the lower s is valid."""
S_MAX_FRONTIER = SECP256K1_ORDER - 1

SIGNATURE_RECOVERY_OFFSET = 27
"""What the last byte of a 65-byte signature (r, s, v) adds to the parity."""

_AUTHORIZATION_MAGIC = b"\x05"


def recover_address(digest: bytes, y_parity: int, r: int, s: int, *, s_max: int = S_MAX) -> bytes:
    """The 20-byte address whose key signed the 32-byte `digest`.

    Raises TransactionError when r or s is out of range, s is above `s_max`, or no point fits.
    """
    _check_ranges(y_parity, r, s, s_max)
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([y_parity])
    try:
        key = PublicKey.from_signature_and_message(signature, digest, hasher=None)
    except Exception as error:  # coincurve raises bare Exception for a point that is not on the curve
        raise TransactionError("the signature matches no public key") from error
    return keccak256(key.format(compressed=False)[1:])[12:]


def _check_ranges(y_parity: int, r: int, s: int, s_max: int) -> None:
    if not 0 < r < SECP256K1_ORDER:
        raise TransactionError("signature r is out of range")
    if not 0 < s <= s_max:
        raise TransactionError("signature s is out of range or in the upper half of the curve order (EIP-2)")
    if y_parity not in (0, 1):
        raise TransactionError("signature parity is neither 0 nor 1")


def attach_signature(tx: Transaction, signature: bytes) -> Transaction:
    """`tx` signed: `signature` is r, s, v (65 bytes) over its `signing_hash`."""
    assert len(signature) == 65
    return replace(
        tx,
        r=int.from_bytes(signature[:32], "big"),
        s=int.from_bytes(signature[32:64], "big"),
        y_parity=signature[64] - SIGNATURE_RECOVERY_OFFSET,
    )


def recover_sender(tx: Transaction, *, s_max: int = S_MAX) -> bytes:
    """The address that signed `tx`; `s_max` is S_MAX_FRONTIER only for blocks before Homestead."""
    return recover_address(signing_hash(tx), tx.y_parity, tx.r, tx.s, s_max=s_max)


def recover_senders(transactions: Sequence[Transaction]) -> list[bytes]:
    """`recover_sender` of each, all at once; raises TransactionError naming the index of the first bad one."""
    count = len(transactions)
    digests, signatures, parities = bytearray(), bytearray(), bytearray()
    for index, tx in enumerate(transactions):
        try:
            _check_ranges(tx.y_parity, tx.r, tx.s, S_MAX)
        except TransactionError as error:
            recover_senders(transactions[:index])  # an earlier one may match no key
            raise TransactionError(f"transaction {index}: {error}") from error
        digests += signing_hash(tx)
        signatures += tx.r.to_bytes(32, "big") + tx.s.to_bytes(32, "big")
        parities.append(tx.y_parity)
    recovered = recover_batch(
        np.frombuffer(digests, "u1").reshape(count, 32),
        np.frombuffer(signatures, "u1").reshape(count, 64),
        np.frombuffer(parities, "u1"),
    )
    unmatched = np.flatnonzero(~recovered.valid)
    if len(unmatched):
        raise TransactionError(f"transaction {unmatched[0]}: the signature matches no public key")
    raw = recovered.addresses.tobytes()
    return [raw[20 * row : 20 * row + 20] for row in range(count)]


def authorization_hash(one: Authorization) -> bytes:
    """What the authority of an EIP-7702 authorization signed."""
    fields = [encode_int(one.chain_id), one.address, encode_int(one.nonce)]
    return keccak256(_AUTHORIZATION_MAGIC + encode(fields))


def recover_authority(one: Authorization) -> bytes:
    """The address that signed an authorization; raises TransactionError when the signature is not valid."""
    return recover_address(authorization_hash(one), one.y_parity, one.r, one.s)
