"""Orthogonal changes of the residual basis, from a seed, applied without ever forming a d x d matrix.

A few channels of a trained residual carry nearly everything, so that eight bits scaled to them leave three levels for
the rest. In a random basis the load is even, and since RMSNorm (without weight) commutes with rotations, folding one
into every matrix that touches the residual changes nothing else (QuaRot, SpinQuant, 2024). The rotation is not part of
a model: its integers are.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rotation"]

Doubles = NDArray[np.float64]


class Rotation:
    """The orthogonal matrix R = diag(signs) (H ⊗ Q): H the normalised Walsh-Hadamard matrix of the largest power of two
    that divides the width, Q a random orthogonal matrix of the odd rest.
    """

    def __init__(self, width: int, seed: int) -> None:
        generator = np.random.Generator(np.random.PCG64(seed))
        self.width = width
        self._power = width & -width
        rest = width // self._power
        self._signs = generator.integers(0, 2, width) * 2.0 - 1.0
        self._rest: Doubles = np.asarray(np.linalg.qr(generator.standard_normal((rest, rest)))[0], dtype=np.float64)

    def apply(self, rows: NDArray[np.floating]) -> Doubles:
        """rows R, for rows [n, width]: vectors of the residual, or of weights that read it."""
        turned = (rows * self._signs).reshape(len(rows), self._power, -1)
        if turned.shape[-1] > 1:
            turned = turned @ self._rest
        return _walsh_hadamard(turned).reshape(len(rows), self.width)

    def apply_transposed(self, columns: NDArray[np.floating]) -> Doubles:
        """R^T columns, for columns [width, n]: weights that write into the residual."""
        return np.ascontiguousarray(self.apply(np.ascontiguousarray(columns.T)).T)


def _walsh_hadamard(values: Doubles) -> Doubles:
    """Multiply axis 1 of [n, power of two, m] by the normalised Walsh-Hadamard matrix, in place."""
    count, power, rest = values.shape
    stride = 1
    while stride < power:
        pairs = values.reshape(count, power // (2 * stride), 2, stride * rest)
        low, high = pairs[:, :, 0], pairs[:, :, 1]
        difference = low - high
        low += high
        high[...] = difference
        stride *= 2
    values /= power**0.5
    return values
