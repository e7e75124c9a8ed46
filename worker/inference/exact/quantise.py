"""Float weights to int8 rows with integer scales. Pure functions over arrays; nothing here is needed to run a model."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.inference.errors import CheckpointError
from worker.inference.exact.specification import EXPONENT_OF_ZERO_ROW

__all__ = ["QuantisedRows", "quantise_rows"]

WEIGHT_MAX: Final = 127
# Scales are tried as these shares of the row's largest magnitude. Clipping a little of a row's tail costs less than
# widening every step for it.
SCALE_SHARES: Final = (1.0, 0.975, 0.95, 0.925, 0.9, 0.875, 0.85)


class QuantisedRows(NamedTuple):
    """int8[n, K] in -127..127, and the scale of each row as u16 mantissa and i8 exponent (docs, section 6)."""

    weight: NDArray[np.int8]
    mantissa: NDArray[np.uint16]
    exponent: NDArray[np.int8]


def quantise_rows(rows: NDArray[np.float64], input_max: int, exponent_max: int, name: str) -> QuantisedRows:
    """Round each row to eight bits at the scale, of SCALE_SHARES, with the least squared error.

    `input_max` is the Q of the layer's input (1 for the embedding), which the scale is divided by. Raises
    CheckpointError, naming the tensor, for values too large for a scale with an exponent of at most `exponent_max`.
    """
    assert np.isfinite(rows).all()
    absmax = np.abs(rows).max(axis=1)
    best = _round_to(rows, absmax, input_max, exponent_max, name)
    best_error = _squared_error(rows, best, input_max)
    for share in SCALE_SHARES[1:]:
        candidate = _round_to(rows, absmax * share, input_max, exponent_max, name)
        error = _squared_error(rows, candidate, input_max)
        better = error < best_error
        best_error = np.minimum(error, best_error)
        best = QuantisedRows(
            np.where(better[:, None], candidate.weight, best.weight),
            np.where(better, candidate.mantissa, best.mantissa),
            np.where(better, candidate.exponent, best.exponent),
        )
    return best


def row_scales(quantised: QuantisedRows, input_max: int) -> NDArray[np.float64]:
    """What one step of each row stands for in the float weights."""
    scales: NDArray[np.float64] = (
        quantised.mantissa.astype(np.float64) * np.exp2(quantised.exponent.astype(np.float64)) * input_max
    )
    return scales


def _round_to(
    rows: NDArray[np.float64], extent: NDArray[np.float64], input_max: int, exponent_max: int, name: str
) -> QuantisedRows:
    """Round rows to the grid whose step is extent / 127, that step being first rounded to 16 bits itself."""
    fraction, power = np.frexp(extent / WEIGHT_MAX / input_max)
    mantissa = np.rint(fraction * 2**16)
    carried = mantissa == 2**16
    mantissa, exponent = np.where(carried, 2**15, mantissa), power - 16 + carried
    # A row of zeros, or one so small that it makes no difference, gets the smallest scale there is.
    vanishing = (extent == 0) | (exponent < EXPONENT_OF_ZERO_ROW)
    mantissa = np.where(vanishing, 2**15, mantissa)
    exponent = np.where(vanishing, EXPONENT_OF_ZERO_ROW, exponent)
    if exponent.max() > exponent_max:
        raise CheckpointError(f"tensor {name} holds weights up to {extent.max():g}, more than the arithmetic can carry")
    step = mantissa * np.exp2(exponent.astype(np.float64)) * input_max
    weight = np.clip(np.rint(rows / step[:, None]), -WEIGHT_MAX, WEIGHT_MAX)
    return QuantisedRows(weight.astype(np.int8), mantissa.astype(np.uint16), exponent.astype(np.int8))


def _squared_error(rows: NDArray[np.float64], quantised: QuantisedRows, input_max: int) -> NDArray[np.float64]:
    step = row_scales(quantised, input_max)
    error: NDArray[np.float64] = np.square(rows - quantised.weight * step[:, None]).sum(axis=1)
    return error
