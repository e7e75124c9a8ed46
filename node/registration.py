"""Makes a worker a member of the market: its stake and keys in WorkerRegistry, once."""

import hashlib

import structlog
from cryptography.hazmat.primitives import serialization

from core.hashing import keccak256
from market.contracts import REGISTRY_ADDRESS, WORKER_REGISTRY
from node.errors import ServiceError, ServiceUnreachable
from node.keys import IdentityKey
from node.wallet import Wallet

__all__ = ["binding_digest", "ensure_registered", "public_key_der"]

_DOMAIN_TYPE = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
_BINDING_TYPE = b"SignerBinding(address worker)"

_log = structlog.get_logger(__name__)


def binding_digest(chain_id: int, worker: bytes) -> bytes:
    """What a receipt-signing key signs (EIP-712) to belong to the account `worker`."""
    words = (keccak256(_DOMAIN_TYPE), keccak256(b"Warpgrid WorkerRegistry"), keccak256(b"1"))
    domain = keccak256(b"".join(words) + chain_id.to_bytes(32, "big") + REGISTRY_ADDRESS.rjust(32, b"\0"))
    return keccak256(b"\x19\x01" + domain + keccak256(keccak256(_BINDING_TYPE) + worker.rjust(32, b"\0")))


def ensure_registered(
    wallet: Wallet, identity: IdentityKey, chain_id: int, tls_public_key: bytes, capabilities_hash: bytes
) -> None:
    """Stake the minimum and name the keys and capabilities, as far as that was not done before. The identity key signs
    receipts too.

    `tls_public_key` is DER (SubjectPublicKeyInfo), `capabilities_hash` keccak-256 of the capabilities that the worker
    signs when it joins. Raises ServiceError when the account cannot pay,
    ServiceUnreachable when the chain cannot be asked now.
    """
    fields = (identity.address, hashlib.sha256(tls_public_key).digest(), capabilities_hash, "")
    binding = identity.sign(binding_digest(chain_id, wallet.address))
    if _is_registered(wallet):
        if _identity(wallet) != fields:
            wallet.transact(WORKER_REGISTRY, REGISTRY_ADDRESS, "changeIdentity", fields, binding)
        return
    stake_wei = wallet.read(WORKER_REGISTRY, REGISTRY_ADDRESS, "stakeMinWei")
    try:
        mined = wallet.transact(WORKER_REGISTRY, REGISTRY_ADDRESS, "register", fields, binding, value_wei=stake_wei)
    except ServiceUnreachable:
        raise
    except ServiceError as error:
        if _is_registered(wallet):  # by a transaction of an earlier try, whose receipt was not seen
            return
        raise ServiceError(
            f"cannot stake {stake_wei} wei from 0x{wallet.address.hex()}: {error}. "
            "Send it that much and some gas, and start again"
        ) from error
    _log.info("registered", worker=wallet.address.hex(), stake_wei=stake_wei, block=mined.block_number)


def _is_registered(wallet: Wallet) -> bool:
    return any(wallet.read(WORKER_REGISTRY, REGISTRY_ADDRESS, "signerOf", wallet.address))


def _identity(wallet: Wallet) -> tuple[object, ...]:
    """Signer, key hash, capabilities' hash and endpoint, as registered."""
    found: tuple[object, ...] = wallet.read(WORKER_REGISTRY, REGISTRY_ADDRESS, "workerOf", wallet.address)[2]
    return found


def public_key_der(key_pem: bytes) -> bytes:
    """The public half of a PEM private key, as SubjectPublicKeyInfo."""
    key = serialization.load_pem_private_key(key_pem, password=None)
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
