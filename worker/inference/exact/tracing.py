"""What a forward pass keeps for whoever commits to it: 32 bytes a position, hashed where they are computed, or rows.

Owns the words that engines and their callers share; the hashes are the engines' own (docs/trace.md, section 1).
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["HashedPositions", "PositionRoots", "TracedRows", "Tracing", "leaves_of"]


class Tracing(IntEnum):
    """What a forward pass keeps for a commitment. ROWS includes ROOTS."""

    OFF = 0
    ROOTS = 1  # 32 bytes a position, hashed where they are computed
    ROWS = 2  # the rows themselves too: for whoever opens them


class PositionRoots(Protocol):
    """The root of each position of a pass, over its token, residual and key-value rows (docs/trace.md, section 1)."""

    def wait(self) -> NDArray[np.uint8]:
        """u8[n, 32], once they are hashed. A device may do that beside the next pass."""


@dataclass(frozen=True, slots=True)
class HashedPositions:
    """Roots that are there: u8[n, 32]. Implements `PositionRoots`."""

    digests: NDArray[np.uint8]

    def wait(self) -> NDArray[np.uint8]:
        return self.digests


@dataclass(frozen=True, slots=True)
class TracedRows:
    """Consecutive positions of one sequence, as a pass left them: `part` of all the rows of that pass.

    Residual rows int32[n, layers + 1, width] and canonical key-value rows uint8[n, layers, bytes] are there if the pass
    kept them.
    """

    first_position: int
    part: slice
    pass_roots: PositionRoots
    pass_boundaries: NDArray[np.int32] | None = None
    pass_kv_rows: NDArray[np.uint8] | None = None

    @property
    def boundaries(self) -> NDArray[np.int32]:
        assert self.pass_boundaries is not None, "this pass kept no rows"
        return self.pass_boundaries[self.part]

    @property
    def kv_rows(self) -> NDArray[np.uint8]:
        assert self.pass_kv_rows is not None, "this pass kept no rows"
        return self.pass_kv_rows[self.part]

    def roots(self) -> NDArray[np.uint8]:
        """u8[n, 32]. Waits until they are hashed; may be called later than the hand-over."""
        return self.pass_roots.wait()[self.part]


def leaves_of(layers: int) -> int:
    """Leaves of one position of the trace: the power of two at or above 2 * layers + 2."""
    return 1 << (2 * layers + 1).bit_length()
