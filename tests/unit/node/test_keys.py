"""Keys and certificates: made once, private, and refused when they are not what they should be."""

from pathlib import Path

import pytest
from cryptography import x509

from core.errors import InvalidInput
from core.hashing import keccak256
from node.errors import KeysError
from node.keys import CertificateAuthority, IdentityKey, SequencerPin, WorkerTls, fingerprint_of
from protos.handshake import recover_signer

DIGEST = keccak256(b"something to sign")


def test_an_identity_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "identity.key"
    made = IdentityKey.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert IdentityKey.load_or_create(path) == made
    assert recover_signer(DIGEST, made.sign(DIGEST)) == made.address
    path.chmod(0o640)
    with pytest.raises(KeysError, match="chmod 600"):
        IdentityKey.load_or_create(path)


@pytest.mark.parametrize("content", ["", "zz", "00" * 32, "ff" * 32, "11" * 31])
def test_a_file_that_is_no_key_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "identity.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(KeysError, match=r"identity\.key"):
        IdentityKey.load_or_create(path)


def test_known_address() -> None:
    secret = bytes.fromhex("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
    assert IdentityKey(secret).address.hex() == "f39fd6e51aad88f6f4ce6ab8827279cfffb92266"


def test_the_authority_issues_for_the_key_and_nothing_else(tmp_path: Path) -> None:
    authority = CertificateAuthority.load_or_create(tmp_path / "sequencer")
    tls = WorkerTls.load_or_create(tmp_path / "worker")
    assert tls.certificate() is None
    issued = authority.issue(tls.signing_request(), b"\xab" * 20)
    tls.store_certificate(issued.pem)
    assert WorkerTls.load_or_create(tmp_path / "worker").certificate() == issued.pem
    assert fingerprint_of(issued.pem) == issued.fingerprint
    certificate = x509.load_pem_x509_certificate(issued.pem)
    root = x509.load_pem_x509_certificate(authority.certificate_pem)
    certificate.verify_directly_issued_by(root)
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert "ab" * 20 in certificate.subject.rfc4514_string()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("tls.*")} == {0o600}
    other = WorkerTls.load_or_create(tmp_path / "other")
    with pytest.raises(KeysError, match="another key"):
        other.store_certificate(issued.pem)


@pytest.mark.parametrize("cut", [0, 10, 100])
def test_a_damaged_request_gets_no_certificate(tmp_path: Path, cut: int) -> None:
    authority = CertificateAuthority.load_or_create(tmp_path)
    request = WorkerTls.load_or_create(tmp_path / "worker").signing_request()
    with pytest.raises(InvalidInput):
        authority.issue(request[:cut], bytes(20))
    broken = bytearray(request)
    broken[-3] ^= 1
    with pytest.raises(InvalidInput):
        authority.issue(bytes(broken), bytes(20))


def test_the_authority_is_the_same_after_a_restart(tmp_path: Path) -> None:
    first = CertificateAuthority.load_or_create(tmp_path)
    again = CertificateAuthority.load_or_create(tmp_path)
    assert (first.fingerprint, first.key_pem) == (again.fingerprint, again.key_pem)
    (tmp_path / "tls.key").unlink()
    with pytest.raises(KeysError, match="does not belong"):
        CertificateAuthority.load_or_create(tmp_path)


def test_a_pin_holds_what_it_first_saw(tmp_path: Path) -> None:
    authority = CertificateAuthority.load_or_create(tmp_path / "sequencer")
    path = tmp_path / "pin.crt"
    path.write_bytes(authority.certificate_pem)
    colons = ":".join(f"{byte:02X}" for byte in authority.fingerprint)
    assert SequencerPin(path, colons).certificate("nowhere.invalid", 1) == authority.certificate_pem
    with pytest.raises(KeysError, match="expected 00"):
        SequencerPin(path, "00" * 32).certificate("nowhere.invalid", 1)
