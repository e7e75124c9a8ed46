"""What is signed when a worker joins, so that a signature given to one network or stream is good for no other.

A worker proves two things: to the enrolment, that the owner of an address wants a certificate for a TLS key; on every
stream, that this owner is there now (the nonce), speaks through this certificate, to this sequencer, and has these
capabilities. Digests are keccak-256 over a label and fixed-size fields. Knows nothing of where keys are kept.
"""

from typing import Protocol

from core.errors import TransactionError
from core.hashing import keccak256
from core.signature import recover_address
from protos.errors import MalformedMessage

__all__ = [
    "SEQUENCER_TLS_NAME",
    "Signer",
    "enrolment_digest",
    "finding_digest",
    "recover_signer",
    "registration_digest",
]

SEQUENCER_TLS_NAME = "sequencer.warpgrid"
"""The name in every sequencer's certificate. Who it is, is known by the certificate's fingerprint, not by its name."""

_ENROLMENT_LABEL = b"warpgrid enrolment v1\0"
_REGISTRATION_LABEL = b"warpgrid registration v1\0"
_FINDING_LABEL = b"warpgrid finding v1\0"
_RECOVERY_OFFSET = 27


class Signer(Protocol):
    """A node's identity key (secp256k1)."""

    @property
    def address(self) -> bytes:
        """20 bytes."""

    def sign(self, digest: bytes) -> bytes:
        """r, s and v (27 or 28): 65 bytes over the 32-byte digest, s in the lower half."""


def enrolment_digest(chain_id: int, sequencer_fingerprint: bytes, signing_request: bytes) -> bytes:
    """What `EnrolRequest.signature` signs. The fingerprint is SHA-256 of the sequencer's certificate (DER)."""
    return keccak256(
        _ENROLMENT_LABEL + chain_id.to_bytes(8, "big") + _sized(sequencer_fingerprint) + keccak256(signing_request)
    )


def registration_digest(
    chain_id: int, nonce: bytes, sequencer_fingerprint: bytes, worker_fingerprint: bytes, capabilities: bytes
) -> bytes:
    """What `Register.signature` signs; `capabilities` is the encoded message."""
    return keccak256(
        _REGISTRATION_LABEL
        + chain_id.to_bytes(8, "big")
        + _sized(nonce)
        + _sized(sequencer_fingerprint)
        + _sized(worker_fingerprint)
        + keccak256(capabilities)
    )


def finding_digest(chain_id: int, finding: bytes) -> bytes:
    """What `SignedFinding.signature` signs; `finding` is the encoded message."""
    return keccak256(_FINDING_LABEL + chain_id.to_bytes(8, "big") + keccak256(finding))


def recover_signer(digest: bytes, signature: bytes) -> bytes:
    """The address that signed. Raises MalformedMessage when the signature is none."""
    if len(signature) != 65:
        raise MalformedMessage(f"a signature has 65 bytes, not {len(signature)}")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    try:
        return recover_address(digest, signature[64] - _RECOVERY_OFFSET, r, s)
    except TransactionError as error:
        raise MalformedMessage(f"signature: {error}") from error


def _sized(value: bytes) -> bytes:
    assert len(value) == 32
    return value
