"""Cosines and sines of a model's rotary positions, in exact integer arithmetic: the same bytes on every machine.

Each frequency starts from one angle, whose cosine and sine come from their power series on integers of 192 fractional
bits, and turns by complex multiplication. The error after 131,072 turns stays below 2^-170; entries are rounded half
up.
"""

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["rotary_tables"]

WORK_BITS: Final = 192
TABLE_BITS: Final = 14


def rotary_tables(frequencies: list[Decimal], positions: int) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """(cos, sin), each int16[positions, len(frequencies)] in Q14, of frequency * position, in radians."""
    cos = np.empty((positions, len(frequencies)), dtype=np.int16)
    sin = np.empty_like(cos)
    one, half = 1 << WORK_BITS, 1 << (WORK_BITS - TABLE_BITS - 1)
    for column, frequency in enumerate(frequencies):
        step_cos, step_sin = _cos_sin(int((frequency * one).to_integral_value(ROUND_HALF_EVEN)))
        c, s = one, 0
        for position in range(positions):
            cos[position, column] = (c + half) >> (WORK_BITS - TABLE_BITS)
            sin[position, column] = (s + half) >> (WORK_BITS - TABLE_BITS)
            c, s = (c * step_cos - s * step_sin) >> WORK_BITS, (s * step_cos + c * step_sin) >> WORK_BITS
    return cos, sin


def _cos_sin(angle: int) -> tuple[int, int]:
    """Cosine and sine of 0 <= angle <= 1 (fixed point, WORK_BITS) by their power series."""
    sums = [0, 0]
    term, order = 1 << WORK_BITS, 0
    while term:
        sums[order % 2] += term if order % 4 < 2 else -term
        order += 1
        term = (term * angle >> WORK_BITS) // order
    return sums[0], sums[1]
