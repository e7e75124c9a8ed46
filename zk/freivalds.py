"""Freivalds' check of y = W q for integers, over the prime 2^61 - 1, with a vector that only the auditor knows.

r·y = (rW)·q for a random r, and for a wrong y only with probability 2^-61 (Freivalds 1977). rW is computed once for
a model; then a product of N x K costs N + K multiplications. Everything is a product of float64 matrices whose partial
sums stay below 2^53, so BLAS computes it exactly.
"""

from dataclasses import dataclass
from hashlib import shake_256
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["PRIME", "FreivaldsKey", "make_key"]

PRIME: Final = 2**61 - 1

_LIMB_BITS: Final = 16  # of r and rW
_LIMBS: Final = 4
_PART_BITS: Final = 19  # of y, whose magnitude is below 2^38
_ROWS_MAX: Final = 1 << 18
_OUTPUT_MAX: Final = 1 << 2 * _PART_BITS
_BLOCK_ROWS: Final = 4096

assert _LIMB_BITS * _LIMBS >= 61
assert _ROWS_MAX << (_LIMB_BITS + _PART_BITS) <= 1 << 53

Limbs = NDArray[np.float64]


@dataclass(frozen=True)
class FreivaldsKey:
    """r and rW modulo the prime, as float64[4, N] and float64[4, K] limbs of 16 bits. Keep it secret."""

    output: Limbs
    input: Limbs

    def accepts(self, y: NDArray[np.int64], q: NDArray[np.int64]) -> bool:
        """Whether y [N] is W q [K]: always true if it is, false but for 2^-61 if not. |q| must be below 2^17."""
        assert len(q) == self.input.shape[1]
        if y.shape != (self.output.shape[1],) or bool((np.abs(y) >= _OUTPUT_MAX).any()):
            return False
        high = y >> _PART_BITS
        parts = np.stack([y - (high << _PART_BITS), high], axis=1).astype(np.float64)
        left = _combine(self.output @ parts, _PART_BITS)
        right = _combine((self.input @ q.astype(np.float64))[:, None], 0)
        return left == right


def make_key(weight: NDArray[np.int8], secret: bytes) -> FreivaldsKey:
    """The key for one matrix int8[N, K], from a secret of the auditor's that is fresh for each matrix."""
    rows = len(weight)
    assert rows <= _ROWS_MAX, "the specification has no larger matrix"
    drawn = np.frombuffer(shake_256(secret).digest(8 * rows), "<u8") >> np.uint64(3)
    drawn = np.where(drawn == PRIME, 0, drawn)
    output = _limbs(drawn)
    product = np.zeros((_LIMBS, weight.shape[1]))
    for start in range(0, rows, _BLOCK_ROWS):
        block = weight[start : start + _BLOCK_ROWS].astype(np.float64)
        product += output[:, start : start + _BLOCK_ROWS] @ block
    columns = [_combine(column[:, None], 0) for column in product.T]
    return FreivaldsKey(output, _limbs(np.array(columns, np.uint64)))


def _limbs(values: NDArray[np.uint64]) -> Limbs:
    shifts = np.arange(_LIMBS, dtype=np.uint64)[:, None] * np.uint64(_LIMB_BITS)
    return ((values >> shifts) & np.uint64((1 << _LIMB_BITS) - 1)).astype(np.float64)


def _combine(sums: NDArray[np.float64], part_bits: int) -> int:
    """sum over i, j of sums[i, j] * 2^(16 i + part_bits j), modulo the prime."""
    total = 0
    for i, row in enumerate(sums.tolist()):
        for j, value in enumerate(row):
            total += int(value) << (_LIMB_BITS * i + part_bits * j)
    return total % PRIME
