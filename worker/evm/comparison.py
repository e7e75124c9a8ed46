"""Are two runs of one batch alike, byte for byte? Places in the arenas mean nothing; everything else does."""

import numpy as np

from core.columns import Array
from worker.evm.batch import Outcomes

__all__ = ["differing_rows"]

_UNIT_BYTES = 16  # every row's sections begin at a multiple of it and are padded to it
_UNITS_A_TURN = 1 << 23


def differing_rows(one: Outcomes, other: Outcomes) -> Array:
    """Rows, ascending, whose outcomes differ in any byte that means something."""
    assert one.results.dtype.names is not None
    same = np.ones(len(one.results), bool)
    for name in one.results.dtype.names:
        if name == "output":
            continue
        equal = one.results[name] == other.results[name]
        same &= equal if equal.ndim == 1 else equal.all(axis=1)
    # Rows with equal results have equally long sections.
    units = np.where(same, one.section_bytes() // np.uint64(_UNIT_BYTES), np.uint64(0)).astype(np.int64)
    ends = np.cumsum(units)
    first = 0
    while first < len(units):
        past = int(np.searchsorted(ends, (ends[first - 1] if first else 0) + _UNITS_A_TURN, "right"))
        rows = slice(first, max(past, first + 1))
        same[rows] &= _equal_sections(one, other, rows, units[rows])
        first = rows.stop
    return np.flatnonzero(~same)


def _equal_sections(one: Outcomes, other: Outcomes, rows: slice, units: Array) -> Array:
    """For each row, whether its units are equal in both arenas."""
    owner = np.repeat(np.arange(len(units)), units)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(units) - units, units)
    gathered = []
    for outcomes in (one, other):
        starts = (outcomes.results["output"][rows] // np.uint64(_UNIT_BYTES)).astype(np.int64)
        arena = outcomes.arena[: len(outcomes.arena) // _UNIT_BYTES * _UNIT_BYTES].view("<u8").reshape(-1, 2)
        gathered.append(arena[starts[owner] + within])
    wrong = owner[(gathered[0] != gathered[1]).any(axis=1)]
    equal = np.ones(len(units), bool)
    equal[wrong] = False
    return equal
