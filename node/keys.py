"""A node's keys: made on first start, kept in its data directory, readable by their owner only (mode 0600).

The identity key (secp256k1) is who a node is: its address. The TLS key (P-256) is what its connections are encrypted
with. A sequencer's certificate is self-signed and is also the authority that issues its workers' certificates; a
worker remembers the sequencer's certificate that it first saw, or checks it against a given fingerprint.
"""

import datetime
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coincurve import PrivateKey
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core.errors import InvalidInput
from core.files import write_whole
from core.hashing import keccak256
from node.errors import KeysError
from protos.handshake import SEQUENCER_TLS_NAME

__all__ = ["CertificateAuthority", "IdentityKey", "IssuedCertificate", "SequencerPin", "WorkerTls", "fingerprint_of"]

_CERTIFICATE_DAYS = 3650
_CLOCK_SKEW = datetime.timedelta(hours=1)
_RECOVERY_OFFSET = 27
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class IdentityKey:
    """A node's secp256k1 key. Implements `protos.handshake.Signer`."""

    secret: bytes

    @classmethod
    def load_or_create(cls, path: Path) -> "IdentityKey":
        """The key in `path` (hex), made on first use. Raises KeysError for a file that cannot be used."""
        text = _load_or_create(path, lambda: PrivateKey().secret.hex().encode() + b"\n")
        try:
            secret = bytes.fromhex(text.decode().strip().removeprefix("0x"))
            if len(secret) != _SECRET_BYTES:
                raise ValueError(f"{len(secret)} bytes")
            PrivateKey(secret)
        except ValueError as error:
            raise KeysError(f"{path} holds no secp256k1 key of 32 bytes in hex: {error}") from error
        return cls(secret)

    @property
    def address(self) -> bytes:
        public = PrivateKey(self.secret).public_key.format(compressed=False)
        return keccak256(public[1:])[12:]

    def sign(self, digest: bytes) -> bytes:
        """r, s, v over a 32-byte digest."""
        signature = PrivateKey(self.secret).sign_recoverable(digest, hasher=None)
        return signature[:64] + bytes([signature[64] + _RECOVERY_OFFSET])


class CertificateAuthority:
    """A sequencer's TLS key and certificate, and the issuing of its workers' certificates."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate

    @classmethod
    def load_or_create(cls, folder: Path) -> "CertificateAuthority":
        """From `folder`/tls.key and tls.crt, made on first use."""
        key = _load_or_create_key(folder / "tls.key")
        made = _load_or_create(folder / "tls.crt", lambda: _pem(_sequencer_certificate(key)))
        certificate = _read_certificate(made, folder / "tls.crt")
        if _public_bytes(certificate) != _public_bytes(key):
            raise KeysError(
                f"{folder / 'tls.crt'} does not belong to {folder / 'tls.key'}: remove both to make new ones"
            )
        return cls(key, certificate)

    @property
    def certificate_pem(self) -> bytes:
        return _pem(self._certificate)

    @property
    def key_pem(self) -> bytes:
        return _key_pem(self._key)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate (DER)."""
        return self._certificate.fingerprint(hashes.SHA256())

    def issue(self, signing_request: bytes, address: bytes) -> "IssuedCertificate":
        """A client certificate for the key of a PKCS#10 request (DER), in the name of `address`.

        Nothing but the key is taken over from the request. Raises InvalidInput when it is malformed or not signed by
        its own key.
        """
        try:
            request = x509.load_der_x509_csr(signing_request)
            is_signed = request.is_signature_valid
        except ValueError as error:
            raise InvalidInput(f"the signing request is not PKCS#10: {error}") from error
        public_key = request.public_key()
        if not is_signed or not isinstance(public_key, ec.EllipticCurvePublicKey):
            raise InvalidInput("the signing request must be signed by its own elliptic-curve key")
        builder = _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "0x" + address.hex())]))
        certificate = (
            builder.issuer_name(self._certificate.subject)
            .public_key(public_key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return IssuedCertificate(_pem(certificate), certificate.fingerprint(hashes.SHA256()))


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate (PEM) and its fingerprint, SHA-256 of the DER form."""

    pem: bytes
    fingerprint: bytes


class WorkerTls:
    """A worker's TLS key, and the certificate that its sequencer issued for it."""

    def __init__(self, folder: Path, key: ec.EllipticCurvePrivateKey) -> None:
        self._folder = folder
        self._key = key

    @classmethod
    def load_or_create(cls, folder: Path) -> "WorkerTls":
        """The key in `folder`/tls.key, made on first use."""
        return cls(folder, _load_or_create_key(folder / "tls.key"))

    @property
    def key_pem(self) -> bytes:
        return _key_pem(self._key)

    def signing_request(self) -> bytes:
        """A PKCS#10 request (DER) for this key."""
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def certificate(self) -> bytes | None:
        """The issued certificate (PEM), or None before there is one for this key."""
        path = self._folder / "tls.crt"
        if not path.exists():
            return None
        certificate = _read_certificate(path.read_bytes(), path)
        return _pem(certificate) if _public_bytes(certificate) == _public_bytes(self._key) else None

    def store_certificate(self, pem: bytes) -> None:
        """Keep what the sequencer issued. Raises KeysError when it is not for this key."""
        path = self._folder / "tls.crt"
        if _public_bytes(_read_certificate(pem, path)) != _public_bytes(self._key):
            raise KeysError("the sequencer issued a certificate for another key")
        write_whole(path, pem, mode=0o600)


class SequencerPin:
    """The sequencer's certificate as this worker knows it: given by fingerprint, or the first one seen."""

    def __init__(self, path: Path, expected_fingerprint: str = "") -> None:
        """`expected_fingerprint` is SHA-256 in hex, with or without colons; empty trusts on first use."""
        self._path = path
        self._expected = expected_fingerprint.replace(":", "").lower()

    def certificate(self, host: str, port: int) -> bytes:
        """The pinned certificate (PEM); asks host:port for it on first use. Blocks; raises OSError when nobody answers.

        Raises KeysError when the fingerprint is not the expected one.
        """
        if self._path.exists():
            pem = self._path.read_bytes()
        else:
            pem = ssl.get_server_certificate((host, port), timeout=10).encode()
        seen = fingerprint_of(pem).hex()
        if self._expected and seen != self._expected:
            raise KeysError(
                f"the sequencer's certificate has fingerprint {seen}, expected {self._expected}: "
                f"correct the fingerprint, or remove {self._path} if the sequencer has new keys"
            )
        if not self._path.exists():
            write_whole(self._path, pem, mode=0o600)
        return pem


def fingerprint_of(pem: bytes) -> bytes:
    """SHA-256 of a certificate (DER). Raises KeysError when it is none."""
    return _read_certificate(pem, Path("certificate")).fingerprint(hashes.SHA256())


def _sequencer_certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SEQUENCER_TLS_NAME)])
    return (
        _builder(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SEQUENCER_TLS_NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )


def _builder(subject: x509.Name) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=_CERTIFICATE_DAYS))
    )


def _load_or_create_key(path: Path) -> ec.EllipticCurvePrivateKey:
    pem = _load_or_create(path, lambda: _key_pem(ec.generate_private_key(ec.SECP256R1())))
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except ValueError as error:
        raise KeysError(f"{path} holds no private key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeysError(f"{path} holds no elliptic-curve key")
    return key


def _load_or_create(path: Path, make: Callable[[], bytes]) -> bytes:
    if not path.exists():
        write_whole(path, make(), mode=0o600)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise KeysError(f"{path} may be read by others (mode {mode:04o}): run `chmod 600 {path}`")
    return path.read_bytes()


def _read_certificate(pem: bytes, path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise KeysError(f"{path} holds no certificate: {error}") from error


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public_bytes(owner: x509.Certificate | ec.EllipticCurvePrivateKey) -> bytes:
    return owner.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
