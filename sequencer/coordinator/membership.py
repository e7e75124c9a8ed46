"""Who may be a worker: certificates given out, the fingerprints they are pinned to, and who was shut out.

Owns one JSON file, replaced atomically at every change. Knows nothing of streams; certificates are issued by a
`CertificateAuthority` (`node.keys`).
"""

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from core.errors import StoreCorrupt
from core.files import write_whole
from protos.errors import MalformedMessage
from protos.handshake import enrolment_digest, recover_signer
from protos.messages import Certificate, EnrolRequest
from sequencer.coordinator.errors import JoinRefused

__all__ = ["CertificateAuthority", "IssuedCertificate", "Membership"]

_MEMBERS_MAX = 100_000


class CertificateAuthority(Protocol):
    """The sequencer's TLS identity. `fingerprint` is SHA-256 of its certificate (DER)."""

    @property
    def fingerprint(self) -> bytes: ...

    def issue(self, signing_request: bytes, address: bytes) -> "IssuedCertificate":
        """A client certificate for a PKCS#10 request (DER). Raises InvalidInput when the request is malformed."""


class IssuedCertificate(Protocol):
    """A certificate (PEM) and its fingerprint, SHA-256 of the DER form."""

    @property
    def pem(self) -> bytes: ...

    @property
    def fingerprint(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _Records:
    pins: dict[str, str]
    banned: dict[str, str]


class Membership:
    """The register of workers' certificates. Its methods may be called from any thread.

    `attach_port` is told to those who enrol; whoever listens there sets it.
    """

    def __init__(self, path: Path, chain_id: int, authority: CertificateAuthority) -> None:
        """Raises StoreCorrupt when the file is not what this class wrote."""
        self._path = path
        self._chain_id = chain_id
        self._authority = authority
        self.attach_port = 0
        self._lock = threading.Lock()
        self._records = _read(path)

    @property
    def sequencer_fingerprint(self) -> bytes:
        return self._authority.fingerprint

    def enrol(self, request: EnrolRequest) -> Certificate:
        """Give the owner of an address a certificate for its TLS key; the address's earlier one ends to count.

        Raises JoinRefused, or InvalidInput for a malformed request.
        """
        digest = enrolment_digest(self._chain_id, self._authority.fingerprint, request.signing_request)
        try:
            signer = recover_signer(digest, request.signature)
        except MalformedMessage as error:
            raise JoinRefused("signature_invalid", f"enrolment: {error}") from error
        if signer != request.address:
            raise JoinRefused("signature_invalid", "the enrolment is not signed by the address that it names")
        self._require_not_banned(request.address)
        issued = self._authority.issue(request.signing_request, request.address)
        with self._lock:
            if len(self._records.pins) >= _MEMBERS_MAX:
                raise JoinRefused("full", f"{_MEMBERS_MAX} workers are enrolled; no more can be")
            self._records.pins[request.address.hex()] = issued.fingerprint.hex()
            self._write()
        return Certificate(issued.pem, self.attach_port)

    def check(self, address: bytes, fingerprint: bytes) -> None:
        """Raise JoinRefused unless this is the certificate that was given to this address, and it may still join."""
        self._require_not_banned(address)
        pinned = self._records.pins.get(address.hex())
        if pinned is None:
            raise JoinRefused("not_enrolled", f"0x{address.hex()} has no certificate here: enrol first")
        if pinned != fingerprint.hex():
            raise JoinRefused("certificate_not_pinned", f"0x{address.hex()} was given another certificate: enrol again")

    def ban(self, address: bytes, reason: str) -> None:
        """Shut a worker out until an operator removes its entry from the file."""
        with self._lock:
            self._records.banned[address.hex()] = reason
            self._write()

    def _require_not_banned(self, address: bytes) -> None:
        reason = self._records.banned.get(address.hex())
        if reason is not None:
            raise JoinRefused("banned", f"0x{address.hex()} was shut out: {reason}")

    def _write(self) -> None:
        text = json.dumps({"pins": self._records.pins, "banned": self._records.banned}, indent=1)
        write_whole(self._path, text.encode())


def _read(path: Path) -> _Records:
    if not path.exists():
        return _Records({}, {})
    try:
        content = json.loads(path.read_text())
        return _Records(dict(content["pins"]), dict(content["banned"]))
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorrupt(f"{path} is not a register of workers: {error}") from error
