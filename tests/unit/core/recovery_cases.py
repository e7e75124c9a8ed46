"""Signatures for the recovery tests: honest ones, and those crafted so that sums of points meet special cases."""

import ctypes
import random
from typing import Any

import coincurve
import numpy as np
import numpy.typing as npt

from core import native
from core.signature import SECP256K1_ORDER

__all__ = ["Case", "crafted_signatures", "recovery_arrays", "recovery_twin", "signed"]

Bytes = npt.NDArray[np.uint8]
Case = tuple[bytes, int, int, int]
"""Hash, r, s, parity of y."""


def signed(count: int, seed: int) -> list[Case]:
    """Honest signatures by keys drawn from the seed."""
    draw = random.Random(seed)
    cases = []
    for _ in range(count):
        digest = draw.randbytes(32)
        raw = coincurve.PrivateKey(draw.randbytes(32)).sign_recoverable(digest, hasher=None)
        cases.append((digest, int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big"), raw[64]))
    return cases


def crafted_signatures() -> list[Case]:
    """R = j G for small j with scalars that make the sum infinity, or a step of it meet its own points; bad ranges."""
    n = SECP256K1_ORDER
    cases = []
    for j in (1, 2, 3, 5, 8):
        point = coincurve.PrivateKey(j.to_bytes(32, "big")).public_key.format(compressed=False)
        r = int.from_bytes(point[1:33], "big") % n
        for parity in (0, 1):
            k = j if point[64] & 1 == parity else n - j
            for s in (1, 2, 3, n - 1, r, 2 * r % n):
                hashes = (0, 1, r, 2 * r % n, n - r, n, n + 1, s * k % n, n - s * k % n, 2**256 - 1)
                cases += [(value.to_bytes(32, "big"), r, s, parity) for value in hashes]
    ranges = ((0, 1), (1, 0), (n, 1), (1, n), (5, 5), (2**256 - 1, 1))
    cases += [(bytes(32), r, s, 0) for r, s in ranges]
    return [*cases, (bytes(32), 1, 1, 2)]


def recovery_arrays(cases: list[Case]) -> tuple[Bytes, Bytes, Bytes]:
    """The columns that core.crypto.recover_batch takes."""
    digests = np.frombuffer(b"".join(digest for digest, _, _, _ in cases), dtype=np.uint8).reshape(-1, 32)
    joined = b"".join(r.to_bytes(32, "big") + s.to_bytes(32, "big") for _, r, s, _ in cases)
    parities = np.array([parity for _, _, _, parity in cases], dtype=np.uint8)
    return digests, np.frombuffer(joined, dtype=np.uint8).reshape(-1, 64), parities


def recovery_twin(hashes: Bytes, signatures: Bytes, y_parities: Bytes) -> tuple[Bytes, Bytes, Bytes]:
    """Addresses, status after the fast passes and final status of the GPU's passes, run on the CPU."""
    library = native.load("warpgrid_core")
    scratch_bytes = library["warpgrid_recovery_twin_scratch_bytes"]
    scratch_bytes.restype = ctypes.c_uint64
    count = len(y_parities)
    size = scratch_bytes(ctypes.c_uint64(count))
    addresses, fast, final = np.zeros((count, 20), np.uint8), np.zeros(count, np.uint8), np.zeros(count, np.uint8)
    arrays: list[Any] = [addresses, fast, final, hashes, signatures, y_parities]
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in arrays]
    scratch = np.zeros(size // 8 + 1, dtype=np.uint64)
    library["warpgrid_recovery_twin"](*pointers, ctypes.c_uint64(count), scratch.ctypes.data_as(ctypes.c_void_p))
    return addresses, fast, final
