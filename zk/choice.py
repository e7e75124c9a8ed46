"""How the next token follows from the logits (docs/exact-inference.md, section 5), in cells that are each a small step.

Nothing is sorted. What top_k and top_p keep is a prefix of the order "larger logit first, then lower index": everything
above a threshold, and the first few that equal it. The threshold is found bit by bit: one pass over the vocabulary for
each bit counts (top_k) or weighs (top_p) what is not below the candidate. `zk/contracts/TokenSteps.sol` recomputes
each cell; `zk.assembler` says which registers there are.
"""

from functools import cache, cached_property
from typing import Final, NamedTuple

import numpy as np

from zk.arithmetic import Ints
from zk.assembler import BY_COUNT, BY_WEIGHT, SEARCH_PASSES
from zk.instruction import TILE, Instruction, Operation

__all__ = ["Choice"]

LOG2_E_Q22: Final = 6_051_102
TOP_P_OFF: Final = 1 << 16
BIAS: Final = 1 << 31  # a logit plus this is positive


class _Cut(NamedTuple):
    """What is kept: biased logits above `threshold` and the first `equals` that equal it; `total` is their weight."""

    threshold: int
    equals: int
    total: int


class Choice:
    """The choice of `token` from logits [V]. `sampling` is a statement's; `table` is EXP2."""

    def __init__(self, logits: Ints, sampling: tuple[int, int, int, int, int], table: Ints, token: int) -> None:
        self.token = token
        self._logits, self._biased, self._sampling, self._table = logits, logits + BIAS, sampling, table
        self._greedy = sampling[0] == 0
        self._search, self._cut = cache(self._find_threshold), cache(self._find_cut)

    def cells(self, instruction: Instruction) -> Ints:
        """A register's values, a row for each cell."""
        if instruction.operation == Operation.LARGEST:
            return self._largest()
        if self._greedy:
            return np.zeros((instruction.cells, _SCALARS[instruction.operation]), np.int64)
        match instruction.operation:
            case Operation.SEARCH:
                return self._search(instruction.parameters[0])
            case Operation.THRESHOLD:
                return np.array([[self._threshold(instruction.parameters[0])]])
            case Operation.ABOVE:
                return self._above(self._threshold(instruction.parameters[0]))
            case Operation.CUT:
                return np.array([self._cut(instruction.parameters[0])])
            case Operation.DRAW:
                return self._drawn()
            case _:
                assert instruction.operation == Operation.PICK
                return np.array([[self.token]])

    def _largest(self) -> Ints:
        """The largest logit so far and the lowest index that has it."""
        padding = np.full(-len(self._logits) % TILE, -BIAS)
        tiles = np.concatenate([self._logits, padding]).reshape(-1, TILE)
        best = np.maximum.accumulate(tiles.max(axis=1))
        is_new = np.concatenate([[True], best[1:] > best[:-1]])
        where = np.arange(len(tiles)) * TILE + tiles.argmax(axis=1)
        return np.stack([best, np.maximum.accumulate(np.where(is_new, where, 0))], axis=1)

    @cached_property
    def _weights(self) -> Ints:
        """Q40 of 2^-(distance from the largest logit)."""
        return self._weight_of(self._logits)

    def _weight_of(self, logits: Ints) -> Ints:
        factor = (LOG2_E_Q22 << 16) // self._sampling[0]
        distance = ((self._logits.max() - logits) * factor) >> 22
        weights: Ints = (self._table[(distance & 65535) >> 4] << 20) >> np.minimum(distance >> 16, 63)
        return weights

    def _is_off(self, kind: int) -> bool:
        return self._sampling[1] == 0 if kind == BY_COUNT else self._sampling[2] >= TOP_P_OFF

    def _target(self, kind: int) -> int:
        """What the kept ones must count, or weigh, at least."""
        return self._sampling[1] if kind == BY_COUNT else (self._cut(BY_COUNT).total >> 16) * self._sampling[2]

    def _find_threshold(self, kind: int) -> Ints:
        """The threshold before this pass, and the measure, up to this tile, of what is not below the candidate."""
        tiles = -(-len(self._logits) // TILE)
        cells = np.zeros((SEARCH_PASSES * tiles, 2), np.int64)
        if self._is_off(kind):
            return cells
        measure, threshold = self._measure(kind), 0
        for at in range(SEARCH_PASSES):
            candidate = threshold | BIAS >> at
            sums = np.cumsum(_tile_sums(np.where(self._biased >= candidate, measure, 0)))
            if kind == BY_WEIGHT:
                sums += self._at_earlier_threshold(candidate)
            part = cells[at * tiles : (at + 1) * tiles]
            part[:, 0], part[:, 1] = threshold, sums
            if sums[-1] >= self._target(kind):
                threshold = candidate
        return cells

    def _measure(self, kind: int) -> Ints:
        if kind == BY_COUNT:
            return np.ones_like(self._logits)
        return np.where(self._biased > self._cut(BY_COUNT).threshold, self._weights, 0)

    def _at_earlier_threshold(self, candidate: int) -> int:
        """The weight of those that top_k keeps at its threshold, where they are not below the candidate."""
        earlier = self._cut(BY_COUNT)
        return earlier.equals * self._weight_at(earlier.threshold) if candidate <= earlier.threshold else 0

    def _weight_at(self, threshold: int) -> int:
        return int(self._weight_of(np.array([threshold - BIAS]))[0])

    def _threshold(self, kind: int) -> int:
        """The highest that still leaves the target, or 0."""
        if self._is_off(kind):
            return 0
        threshold, reached = (int(one) for one in self._search(kind)[-1])
        return threshold | 1 if reached >= self._target(kind) else threshold

    def _above(self, threshold: int) -> Ints:
        """Number and weight of the logits above a threshold, up to each tile."""
        is_above = self._biased > threshold
        columns = (_tile_sums(is_above.astype(np.int64)), _tile_sums(np.where(is_above, self._weights, 0)))
        return np.cumsum(np.stack(columns, axis=1), axis=0)

    def _find_cut(self, kind: int) -> _Cut:
        if kind == BY_WEIGHT and self._is_off(kind):
            return self._cut(BY_COUNT)
        threshold = self._threshold(kind)
        count, weight = (int(one) for one in self._above(threshold)[-1])
        if threshold == 0:
            return _Cut(0, 0, weight)
        each = self._weight_at(threshold)
        equals = self._target(kind) - count if kind == BY_COUNT else -((weight - self._target(kind)) // each)
        return _Cut(threshold, equals, weight + equals * each)

    def _drawn(self) -> Ints:
        """The weight of what is kept, and the number of logits that equal the threshold, up to each tile."""
        cut = self._cut(BY_WEIGHT)
        is_equal = self._biased == cut.threshold
        is_kept = (self._biased > cut.threshold) | is_equal & (np.cumsum(is_equal) <= cut.equals)
        columns = (_tile_sums(np.where(is_kept, self._weights, 0)), _tile_sums(is_equal.astype(np.int64)))
        return np.cumsum(np.stack(columns, axis=1), axis=0)


_SCALARS: Final = {
    Operation.SEARCH: 2,
    Operation.THRESHOLD: 1,
    Operation.ABOVE: 2,
    Operation.CUT: 3,
    Operation.DRAW: 2,
    Operation.PICK: 1,
}


def _tile_sums(values: Ints) -> Ints:
    padding = np.zeros(-len(values) % TILE, np.int64)
    sums: Ints = np.concatenate([values, padding]).reshape(-1, TILE).sum(axis=1)
    return sums
