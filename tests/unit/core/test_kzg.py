"""The precompile 0x0a on proofs made from one valid vector, at every edge, with and without newer instructions.

If pi proves p(z) = y for C, then tau pi = C - y G + z pi is known, and with it any number of valid proofs: k pi proves
the value b at a for k tau pi - a k pi + b G.
"""

import hashlib
import random
from collections.abc import Iterator

import pytest

from core import crypto
from core.fork import Fork
from tests.unit.core.instructions import newer_instructions

P = 0x1A0111EA397FE69A4B1BA7B6434BACD764774B84F38512BF6730D2A0F6B0F6241EABFFFEB153FFFFB9FEFFFFFFFFAAAB
R = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
G = (
    0x17F1D3A73197D7942695638C4FA9AC0FC3688C4F9774B905A14E3A3F171BAC586C55E83FF97A1AEFFB3AF00ADB22C6BB,
    0x08B3F481E3AAA0F1A09E30ED741D8AE4FCF5E095D5D00AF600DB18CB2C04B3EDD03CC744A2888AE40CAA232946C5E7E1,
)
# The vector of go-ethereum's pointEvaluation.json.
Z = 0x564C0A11A0F704F4FC3E8ACFE0F8245F0AD1347B378FBF96E206DA11A5D36306
Y = 0x24D25032E67A7E6A4910DF5834B8FE70E6BCFEEAC0352434196BDF4B2485D5A1
C_BYTES = bytes.fromhex(
    "8f59a8d2a1a625a17f3fea0fe5eb8c896db3764f3185481bc22f91b4aaffcca25f26936857bc3a7c2539ea8ec3a952b7"
)
PI_BYTES = bytes.fromhex(
    "873033e038326e87ed3e1276fd140253fa08e9fc25fb2d9a98527fc22a2c9612fbeafdad446cbc7bcdbdcd780af2c16a"
)
INFINITY = b"\xc0" + bytes(47)
Point = tuple[int, int] | None


@pytest.fixture(autouse=True, params=[True, False], ids=["this processor", "any processor"])
def instructions(request: pytest.FixtureRequest) -> Iterator[None]:
    with newer_instructions(request.param):
        yield


def decompressed(data: bytes) -> Point:
    x = int.from_bytes(data, "big") & (1 << 381) - 1
    y = pow(x**3 + 4, (P + 1) // 4, P)
    return x, y if (y > P - y) == bool(data[0] & 0x20) else P - y


def compressed(point: Point) -> bytes:
    if point is None:
        return INFINITY
    x, y = point
    return (x | 1 << 383 | (1 << 381 if y > P - y else 0)).to_bytes(48, "big")


def combination(*terms: tuple[int, Point]) -> Point:
    """By the precompile 0x0c, which vectors of its own check."""
    data = b"".join(
        point[0].to_bytes(64, "big") + point[1].to_bytes(64, "big") + (scalar % R).to_bytes(32, "big")
        for scalar, point in terms
        if point is not None
    )
    output = crypto.run_precompile(0x0C, data, Fork.OSAKA).output
    x, y = int.from_bytes(output[:64], "big"), int.from_bytes(output[64:], "big")
    return (x, y) if x or y else None


def verifies(commitment: bytes, z: int, y: int, proof: bytes) -> bool:
    versioned = b"\x01" + hashlib.sha256(commitment).digest()[1:]
    data = versioned + z.to_bytes(32, "big") + y.to_bytes(32, "big") + commitment + proof
    return crypto.run_precompile(0x0A, data, Fork.OSAKA).success


PI = decompressed(PI_BYTES)
TAU_PI = combination((1, decompressed(C_BYTES)), (-Y, G), (Z, PI))
EDGES = (0, 1, 2, R - 1, R - 2, 0xD201000000010000, 0xD201000000010000**2, 2**128 - 1, 2**128, R >> 1)


def proof_of(k: int, z: int, y: int) -> tuple[bytes, bytes]:
    """A commitment and a proof that its polynomial is y at z."""
    return compressed(combination((k, TAU_PI), (-z * k, PI), (y, G))), compressed(combination((k, PI)))


def test_the_vector_itself() -> None:
    assert verifies(C_BYTES, Z, Y, PI_BYTES)
    assert not verifies(C_BYTES, Z, (Y + 1) % R, PI_BYTES)


@pytest.mark.parametrize("z", EDGES)
def test_valid_proofs_at_the_edges_verify_and_their_neighbours_do_not(z: int) -> None:
    for k, y in zip((1, R - 1, 5, *EDGES[3:]), EDGES, strict=True):
        commitment, proof = proof_of(k, z, y)
        assert verifies(commitment, z, y, proof), (k, z, y)
        assert not verifies(commitment, z, (y + 1) % R, proof)
        assert not verifies(commitment, (z + 1) % R, y, proof)


def test_random_proofs() -> None:
    choices = random.Random(4844)
    for _ in range(100):
        k, z, y = (choices.randrange(R) for _ in range(3))
        commitment, proof = proof_of(k, z, y)
        assert verifies(commitment, z, y, proof), (k, z, y)
        other, _ = proof_of(choices.randrange(R), z, y)
        assert not verifies(other, z, y, proof)


def test_infinity() -> None:
    constant = compressed(combination((7, G)))
    assert verifies(constant, 5, 7, INFINITY)
    assert verifies(INFINITY, 5, 0, INFINITY)
    assert not verifies(constant, 5, 8, INFINITY)
    assert not verifies(INFINITY, 5, 1, INFINITY)
    assert not verifies(INFINITY, 5, 0, PI_BYTES)
    # C - y G + z pi is infinity, and pi is not
    assert not verifies(compressed(combination((7, G), (-5, PI))), 5, 7, PI_BYTES)


def test_points_outside_the_subgroup_and_off_the_curve_are_refused() -> None:
    outside, off = (next(x for x in range(1, 99) if pow(x**3 + 4, (P - 1) // 2, P) == symbol) for symbol in (1, P - 1))
    for x in (outside, off):
        bad = (x | 1 << 383).to_bytes(48, "big")
        assert not verifies(bad, Z, Y, PI_BYTES)
        assert not verifies(C_BYTES, Z, Y, bad)
        assert not verifies(bad, Z, 0, INFINITY)


@pytest.mark.parametrize(("z", "y"), [(R, 0), (0, R), (2**256 - 1, 0)])
def test_scalars_beyond_the_order_are_refused(z: int, y: int) -> None:
    assert not verifies(INFINITY, z, y, INFINITY)
