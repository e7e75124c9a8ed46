"""The curves behind the precompiles against py_ecc, and the tables in the sources against the curves' definitions."""

import re
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py_ecc import optimized_bls12_381 as bls
from py_ecc import optimized_bn128 as bn
from py_ecc.bls.g2_primitives import G1_to_pubkey

from core import crypto
from core.fork import Fork
from core.native import SOURCE_ROOT

P256_PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1
P256_GENERATOR = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
SECP256K1_PRIME = 2**256 - 2**32 - 977
SECP256K1_GENERATOR = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)

scalars = st.one_of(st.integers(0, 5), st.integers(0, 2**256 - 1), st.integers(2**256 - 5, 2**256 - 1))
few = settings(max_examples=12)


def call(address: int, data: bytes) -> bytes | None:
    result = crypto.run_precompile(address, data, Fork.OSAKA)
    return result.output if result.success else None


def words(size: int, *values: int) -> bytes:
    return b"".join(value.to_bytes(size, "big") for value in values)


def odd_multiples(prime: int, a: int, generator: tuple[int, int]) -> list[tuple[int, int]]:
    """1, 3, ..., 63 times the generator, by the textbook's formulas."""

    def add(p: tuple[int, int], q: tuple[int, int]) -> tuple[int, int]:
        rise, run = (3 * p[0] * p[0] + a, 2 * p[1]) if p == q else (q[1] - p[1], q[0] - p[0])
        slope = rise * pow(run, -1, prime)
        x = (slope * slope - p[0] - q[0]) % prime
        return x, (slope * (p[0] - x) - p[1]) % prime

    points, twice = [generator], add(generator, generator)
    while len(points) < 32:
        points.append(add(points[-1], twice))
    return points


@pytest.mark.parametrize(
    ("name", "prime", "a", "generator", "scale"),
    [
        ("SECP256K1_GENERATOR", SECP256K1_PRIME, 0, SECP256K1_GENERATOR, 1),
        ("P256_GENERATOR", P256_PRIME, -3, P256_GENERATOR, 2**256),
    ],
)
def test_generator_tables(name: str, prime: int, a: int, generator: tuple[int, int], scale: int) -> None:
    source = (SOURCE_ROOT / "core/native/crypto/generator_tables.hpp").read_text()
    table = source[source.index(f"{name}[32]") :]
    limbs = [int(limb, 16) for limb in re.findall(r"0x([0-9a-f]{16})ull", table[: table.index("};")])]
    values = [sum(limb << (64 * i) for i, limb in enumerate(limbs[at : at + 4])) for at in range(0, len(limbs), 4)]
    expected = [value * scale % prime for point in odd_multiples(prime, a, generator) for value in point]
    assert values == expected


def bn_g1(k: int) -> bytes:
    point = bn.multiply(bn.G1, k % bn.curve_order)
    return bytes(64) if bn.is_inf(point) else words(32, *(int(value) for value in bn.normalize(point)))


def bn_g2(k: int) -> bytes:
    point = bn.multiply(bn.G2, k % bn.curve_order)
    if bn.is_inf(point):
        return bytes(128)
    x, y = bn.normalize(point)
    return words(32, *(int(value) for value in (x.coeffs[1], x.coeffs[0], y.coeffs[1], y.coeffs[0])))


@few
@given(scalars, scalars)
def test_bn254_addition_and_multiplication(a: int, b: int) -> None:
    assert call(0x06, bn_g1(a) + bn_g1(b)) == bn_g1(a + b)
    assert call(0x06, bn_g1(a) + bn_g1(-a)) == bytes(64)
    assert call(0x06, bn_g1(a) + bn_g1(a)) == bn_g1(2 * a)
    assert call(0x07, bn_g1(a) + words(32, b)) == bn_g1(a * b)


@few
@given(scalars, scalars, st.integers(1, 2**200))
def test_bn254_pairing_is_bilinear(a: int, b: int, c: int) -> None:
    balanced = bn_g1(a) + bn_g2(b) + bn_g1(-a * b) + bn_g2(1)
    assert call(0x08, balanced) == words(32, 1)
    assert call(0x08, balanced + bn_g1(c) + bn_g2(1)) == words(32, 0)


def test_bn254_refuses_points_outside_curve_and_subgroup() -> None:
    assert call(0x06, words(32, 1, 3)) is None
    assert call(0x06, words(32, bn.field_modulus, 2)) is None
    # A point of the twist of another order: y for x = 1 by a square root in Fp2, its cofactor not cleared.
    on_twist = twist_point()
    assert bn.is_on_curve((*on_twist, bn.FQ2.one()), bn.b2)
    x, y = on_twist
    encoded = words(32, *(int(value) for value in (x.coeffs[1], x.coeffs[0], y.coeffs[1], y.coeffs[0])))
    assert call(0x08, bn_g1(1) + encoded) is None


def twist_point() -> tuple[bn.FQ2, bn.FQ2]:
    """A point of bn254's twist that is not in G2."""
    prime = bn.field_modulus
    for small in range(1, 50):
        x = bn.FQ2([small, 0])
        square = x * x * x + bn.b2
        c0, c1 = (int(value) for value in square.coeffs)
        norm_root = pow(c0 * c0 + c1 * c1, (prime + 1) // 4, prime)
        for root in (norm_root, -norm_root):
            half = (c0 + root) * pow(2, -1, prime) % prime
            y0 = pow(half, (prime + 1) // 4, prime)
            y = bn.FQ2([y0, c1 * pow(2 * y0, -1, prime) % prime])
            if y * y == square:
                return x, y
    raise AssertionError("no point found")


def bls_g1(k: int) -> bytes:
    point = bls.multiply(bls.G1, k % bls.curve_order)
    return bytes(128) if bls.is_inf(point) else words(64, *(int(value) for value in bls.normalize(point)))


def bls_g2(k: int) -> bytes:
    point = bls.multiply(bls.G2, k % bls.curve_order)
    if bls.is_inf(point):
        return bytes(256)
    x, y = bls.normalize(point)
    return words(64, *(int(value) for value in (*x.coeffs, *y.coeffs)))


@few
@given(scalars, scalars, scalars, scalars)
def test_bls12_381_sums_of_products(a: int, b: int, s: int, t: int) -> None:
    assert call(0x0B, bls_g1(a) + bls_g1(b)) == bls_g1(a + b)
    assert call(0x0D, bls_g2(a) + bls_g2(b)) == bls_g2(a + b)
    assert call(0x0C, bls_g1(a) + words(32, s) + bls_g1(b) + words(32, t)) == bls_g1(a * s + b * t)
    assert call(0x0E, bls_g2(a) + words(32, s) + bls_g2(b) + words(32, t)) == bls_g2(a * s + b * t)


@few
@given(scalars, scalars, st.integers(1, 2**200))
def test_bls12_381_pairing_is_bilinear(a: int, b: int, c: int) -> None:
    balanced = bls_g1(a) + bls_g2(b) + bls_g1(-a * b) + bls_g2(1)
    assert call(0x0F, balanced) == words(32, 1)
    assert call(0x0F, balanced + bls_g1(c) + bls_g2(1)) == words(32, 0)


@few
@given(st.integers(0, bls.field_modulus - 1), st.integers(0, bls.field_modulus - 1))
def test_bls12_381_maps_land_in_the_subgroups(a: int, b: int) -> None:
    """The order times the point is infinity, and the sum checks that it is in the subgroup."""
    g1, g2 = call(0x10, words(64, a)), call(0x11, words(64, a, b))
    assert g1 is not None
    assert g2 is not None
    assert call(0x0C, g1 + words(32, bls.curve_order)) == bytes(128)
    assert call(0x0E, g2 + words(32, bls.curve_order)) == bytes(256)
    assert call(0x10, words(64, a + bls.field_modulus)) is None


def point_evaluation_input(commitment: bytes, z: int, y: int, proof: bytes) -> bytes:
    versioned_hash = b"\x01" + sha256(commitment).digest()[1:]
    return versioned_hash + words(32, z, y) + commitment + proof


@few
@given(st.integers(1, bls.curve_order - 1), st.integers(0, bls.curve_order - 1))
def test_point_evaluation_of_constant_polynomials(value: int, z: int) -> None:
    """A constant's commitment is value * G1, and its proof is infinity everywhere."""
    commitment, infinity = bytes(G1_to_pubkey(bls.multiply(bls.G1, value))), b"\xc0" + bytes(47)
    expected = words(32, 4096, bls.curve_order)
    assert call(0x0A, point_evaluation_input(commitment, z, value, infinity)) == expected
    assert call(0x0A, point_evaluation_input(commitment, z, (value + 1) % bls.curve_order, infinity)) is None
    assert call(0x0A, point_evaluation_input(commitment, z, value + bls.curve_order, infinity)) is None
    assert call(0x0A, point_evaluation_input(commitment, z, value, commitment)) is None
