"""Hashes, signature recovery and the small precompiles of core.crypto, against independent libraries."""

import hashlib
from typing import Any

import coincurve
import numpy as np
import pytest
from Crypto.Hash import RIPEMD160, keccak
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from ethereum.crypto.blake2 import Blake2b
from hypothesis import given
from hypothesis import strategies as st

from core import crypto
from core.errors import InvalidInput
from core.fork import Fork
from core.signature import SECP256K1_ORDER
from tests.unit.core.instructions import newer_instructions
from tests.unit.core.recovery_cases import crafted_signatures, recovery_arrays, recovery_twin, signed

# Around the ends of words, of padding and of one or two blocks.
SIZES = sorted(
    {block * whole + rest for block in (64, 136) for whole in (0, 1, 2) for rest in (0, 1, 7, 8, 55, 56, 63)}
)


def keccak256(data: bytes) -> bytes:
    return keccak.new(digest_bits=256, data=data).digest()


def expected_address(digest: bytes, r: int, s: int, parity: int) -> bytes | None:
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([parity])
    try:
        key = coincurve.PublicKey.from_signature_and_message(signature, digest, hasher=None)
    except Exception:  # noqa: BLE001 - coincurve raises bare Exception for what no key signed
        return None
    return keccak256(key.format(compressed=False)[1:])[12:]


@pytest.mark.parametrize("allowed", [True, False], ids=["this processor", "any processor"])
def test_keccak_matches_the_library_at_every_boundary(allowed: bool) -> None:
    random = np.random.default_rng(1)
    items = [random.bytes(size) for size in SIZES]
    offsets = np.cumsum([0, *map(len, items)], dtype=np.uint64)
    with newer_instructions(allowed):
        digests = crypto.keccak256_batch(np.frombuffer(b"".join(items), dtype=np.uint8), offsets)
    assert [digest.tobytes() for digest in digests] == [keccak256(item) for item in items]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 17])
def test_messages_of_one_size_are_hashed_together_as_alone(count: int) -> None:
    """Runs of equal sizes, which the processor may take several at a time, with another size before and after."""
    random = np.random.default_rng(7)
    for size in SIZES:
        items = [random.bytes(size + 1), *(random.bytes(size) for _ in range(count)), random.bytes(3)]
        offsets = np.cumsum([0, *map(len, items)], dtype=np.uint64)
        joined = np.frombuffer(b"".join(items), dtype=np.uint8)
        keccaks, shas = crypto.keccak256_batch(joined, offsets), crypto.sha256_batch(joined, offsets)
        assert [digest.tobytes() for digest in keccaks] == [keccak256(item) for item in items], size
        assert [digest.tobytes() for digest in shas] == [hashlib.sha256(item).digest() for item in items], size


def test_keccak_over_threads_equals_one_thread() -> None:
    items = np.random.default_rng(2).integers(0, 256, 40_000, dtype=np.uint8)
    offsets = np.arange(2001, dtype=np.uint64) * 20
    assert (
        crypto.keccak256_batch(items, offsets, threads=3) == crypto.keccak256_batch(items, offsets, threads=1)
    ).all()


@pytest.mark.parametrize("offsets", [[], [0, 5], [3, 2]])
def test_keccak_refuses_offsets_outside_the_items(offsets: list[int]) -> None:
    with pytest.raises(InvalidInput, match="ascending"):
        crypto.keccak256_batch(np.zeros(4, dtype=np.uint8), np.array(offsets, dtype=np.uint64))


def test_recovery_matches_libsecp256k1_on_signed_and_crafted_signatures() -> None:
    cases = signed(200, seed=3) + crafted_signatures()
    recovered = crypto.recover_batch(*recovery_arrays(cases), threads=2)
    assert 200 < recovered.valid.sum() < len(cases)
    for one, address, valid in zip(cases, recovered.addresses, recovered.valid, strict=True):
        expected = expected_address(*one) if one[3] <= 1 else None
        assert (address.tobytes() if valid else None) == expected, one
        assert valid or not address.any()


def test_the_passes_for_a_gpu_give_the_same_answers() -> None:
    """Also where a ladder's addition meets an equal or opposite point, which the crafted signatures make happen."""
    arrays = recovery_arrays(signed(50, seed=4) + crafted_signatures())
    addresses, fast_status, status = recovery_twin(*arrays)
    recovered = crypto.recover_batch(*arrays)
    assert (addresses == recovered.addresses).all()
    assert (status == recovered.valid).all()
    assert (fast_status == 2).sum() > 20


def test_recovery_refuses_arrays_of_other_shapes() -> None:
    with pytest.raises(InvalidInput, match="expected hashes"):
        crypto.recover_batch(np.zeros((2, 32), np.uint8), np.zeros((2, 65), np.uint8), np.zeros(2, np.uint8))


@pytest.mark.parametrize("v", [0, 26, 29, 27 + 2**64, 27 + 2**248])
def test_ecrecover_answers_nothing_for_another_v(v: int) -> None:
    digest, r, s, _ = signed(1, seed=5)[0]
    data = digest + b"".join(value.to_bytes(32, "big") for value in (v, r, s))
    assert crypto.run_precompile(0x01, data, Fork.OSAKA) == crypto.PrecompileResult(3000, True, b"")


@given(st.binary(max_size=300))
def test_hash_precompiles(data: bytes) -> None:
    words = (len(data) + 31) // 32
    expected = {
        0x02: (60 + 12 * words, hashlib.sha256(data).digest()),
        0x03: (600 + 120 * words, bytes(12) + RIPEMD160.new(data).digest()),
        0x04: (15 + 3 * words, data),
    }
    for address, (gas, output) in expected.items():
        assert crypto.run_precompile(address, data, Fork.OSAKA) == crypto.PrecompileResult(gas, True, output)


@given(st.integers(0, 60), st.binary(min_size=208, max_size=208), st.booleans())
def test_blake2f_matches_the_specification(rounds: int, state: bytes, final: bool) -> None:
    data = rounds.to_bytes(4, "big") + state + bytes([final])
    reference = Blake2b()
    expected = reference.compress(*reference.get_blake2_parameters(data))
    assert crypto.run_precompile(0x09, data, Fork.OSAKA) == crypto.PrecompileResult(rounds, True, bytes(expected))


@pytest.mark.parametrize("data", [b"", bytes(212), bytes(214), bytes(212) + b"\x02"])
def test_blake2f_fails_on_another_format(data: bytes) -> None:
    assert not crypto.run_precompile(0x09, data, Fork.OSAKA).success


def p256_input(digest: bytes, signature: tuple[int, int], key: ec.EllipticCurvePublicKey) -> bytes:
    numbers = key.public_numbers()
    return digest + b"".join(value.to_bytes(32, "big") for value in (*signature, numbers.x, numbers.y))


@given(st.integers(1, 2**250), st.binary(min_size=32, max_size=32), st.integers(0, 159), st.integers(0, 7))
def test_p256_accepts_what_openssl_signed_and_nothing_next_to_it(
    secret: int, digest: bytes, byte: int, bit: int
) -> None:
    key = ec.derive_private_key(secret, ec.SECP256R1())
    signature = decode_dss_signature(key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))))
    data = p256_input(digest, signature, key.public_key())
    assert crypto.run_precompile(0x100, data, Fork.OSAKA) == crypto.PrecompileResult(6900, True, bytes(31) + b"\x01")
    changed = bytearray(data)
    changed[byte] ^= 1 << bit
    assert crypto.run_precompile(0x100, bytes(changed), Fork.OSAKA).output == b""


def modexp_data(base: bytes, exponent: bytes, modulus: bytes) -> bytes:
    parts = (base, exponent, modulus)
    return b"".join(len(part).to_bytes(32, "big") for part in parts) + b"".join(parts)


numbers = st.one_of(
    st.binary(max_size=80),
    st.integers(0, 80).map(lambda size: b"\xff" * size),
    st.tuples(st.binary(max_size=20), st.integers(0, 60)).map(lambda pair: pair[0] + bytes(pair[1])),
    st.tuples(st.integers(0, 60), st.binary(max_size=20)).map(lambda pair: bytes(pair[0]) + pair[1]),
)


@given(numbers, st.binary(max_size=40), numbers)
def test_modexp_matches_python(base: bytes, exponent: bytes, modulus: bytes) -> None:
    m = int.from_bytes(modulus, "big")
    value = pow(int.from_bytes(base, "big"), int.from_bytes(exponent, "big"), m) if m else 0
    result = crypto.run_precompile(0x05, modexp_data(base, exponent, modulus), Fork.OSAKA)
    assert result.success
    assert result.output == value.to_bytes(len(modulus), "big")


lengths = st.one_of(st.integers(0, 1100), st.sampled_from([2**32, 2**63, 2**64 - 1, 2**64, 2**255]))


@given(lengths, lengths, lengths, st.binary(max_size=200), st.booleans())
def test_modexp_gas_matches_the_specification(base: int, exponent: int, modulus: int, tail: bytes, head: bool) -> None:
    data = b"".join(length.to_bytes(32, "big") for length in (base, exponent, modulus)) + (tail if head else b"")
    assert crypto.precompile_gas(0x05, data, Fork.PRAGUE) == min(reference_gas(data, "prague"), 2**64 - 1)
    if max(base, exponent, modulus) > 1024:
        assert crypto.precompile_gas(0x05, data, Fork.OSAKA) == crypto.PRECOMPILE_GAS_UNPAYABLE
        assert not crypto.run_precompile(0x05, data, Fork.OSAKA).success
    else:
        assert crypto.precompile_gas(0x05, data, Fork.OSAKA) == reference_gas(data, "osaka")


def reference_gas(data: bytes, fork: str) -> int:
    """EIP-2565's or EIP-7883's price by the executable specification."""
    import_name = f"ethereum.forks.{fork}.vm"
    modexp: Any = pytest.importorskip(f"{import_name}.precompiled_contracts.modexp")
    memory: Any = pytest.importorskip(f"{import_name}.memory")
    word = modexp.U256
    base, exponent, modulus = (
        word.from_be_bytes(memory.buffer_read(data, word(start), word(32))) for start in (0, 32, 64)
    )
    start = 96 + int(base)
    head = data[start : start + min(32, int(exponent))] if start < len(data) else b""
    head_value = word.from_be_bytes(head.ljust(min(32, int(exponent)), b"\0"))
    return int(modexp.gas_cost(base, modulus, exponent, head_value))


@pytest.mark.parametrize(
    ("address", "first"), [(0x01, Fork.CANCUN), (0x0A, Fork.CANCUN), (0x0B, Fork.PRAGUE), (0x11, Fork.PRAGUE)]
)
def test_precompiles_begin_with_their_fork(address: int, first: Fork) -> None:
    assert crypto.precompile_gas(address, b"", first) >= 0
    if first > Fork.CANCUN:
        with pytest.raises(InvalidInput, match="no precompile"):
            crypto.precompile_gas(address, b"", Fork.CANCUN)


@pytest.mark.parametrize("address", [0, 0x12, 0xFF, 0x101, 0x0101 << 16, 1 << 159])
def test_no_precompile_elsewhere(address: int) -> None:
    with pytest.raises(InvalidInput, match="no precompile"):
        crypto.run_precompile(address, b"", Fork.BPO2)


def test_p256_begins_with_osaka_and_older_forks_are_refused() -> None:
    assert crypto.precompile_gas(0x100, b"", Fork.OSAKA) == 6900
    with pytest.raises(InvalidInput, match="no precompile"):
        crypto.precompile_gas(0x100, b"", Fork.PRAGUE)
    with pytest.raises(InvalidInput, match="from CANCUN on"):
        crypto.precompile_gas(0x01, b"", Fork.SHANGHAI)


def test_high_s_recovers_as_for_the_precompile() -> None:
    digest, r, s, parity = signed(1, seed=6)[0]
    low = crypto.recover_batch(*recovery_arrays([(digest, r, s, parity)]))
    high = crypto.recover_batch(*recovery_arrays([(digest, r, SECP256K1_ORDER - s, 1 - parity)]))
    assert low.valid.all()
    assert (low.addresses == high.addresses).all()
