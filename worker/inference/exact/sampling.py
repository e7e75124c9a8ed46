"""Which token comes next (section 5): greedy, or drawn in integers from Philox4x32-10. Stateless.

`choose` is what every engine's tokens are compared with; an engine that samples on its device must agree with it.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.inference.errors import SamplingInvalid
from worker.inference.exact.specification import exp2_table

__all__ = [
    "GREEDY",
    "Q16_ONE",
    "TEMPERATURE_Q16_MAX",
    "TEMPERATURE_Q16_MIN",
    "Sampling",
    "choose",
    "philox4x32",
    "uniform",
]

LOG2_E_Q22: Final = 6_051_102
Q16_ONE: Final = 1 << 16
TEMPERATURE_Q16_MIN: Final = 656  # 0.01; with 100 as the other end, every product below fits 64 bits
TEMPERATURE_Q16_MAX: Final = 6_553_600
VOCABULARY_MAX: Final = 262_144

_MASK32: Final = 2**32 - 1
_PHILOX_MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
_PHILOX_INCREMENTS: Final = (0x9E3779B9, 0xBB67AE85)


@dataclass(frozen=True)
class Sampling:
    """A request's sampling parameters, as integers. temperature_q16 = 0 is greedy; top_k = 0, top_p_q16 = 2^16 are off.

    Raises SamplingInvalid for a value outside its range.
    """

    temperature_q16: int = 0
    top_k: int = 0
    top_p_q16: int = Q16_ONE
    seed: int = 0
    choice: int = 0

    def __post_init__(self) -> None:
        if self.temperature_q16 and not TEMPERATURE_Q16_MIN <= self.temperature_q16 <= TEMPERATURE_Q16_MAX:
            raise SamplingInvalid(f"temperature is {self.temperature_q16 / Q16_ONE:g}; it must be 0, or 0.01 to 100")
        for name, low, high in (
            ("top_k", 0, VOCABULARY_MAX),
            ("top_p_q16", 1, Q16_ONE),
            ("seed", 0, 2**64 - 1),
            ("choice", 0, _MASK32),
        ):
            if not low <= getattr(self, name) <= high:
                raise SamplingInvalid(f"{name} is {getattr(self, name)}; it must be {low} to {high}")


GREEDY: Final = Sampling()


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers, as easy as 1, 2, 3; SC 2011)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = _PHILOX_MULTIPLIERS[0] * c0, _PHILOX_MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> 32) ^ c1 ^ k0,
            product1 & _MASK32,
            (product0 >> 32) ^ c3 ^ k1,
            product0 & _MASK32,
        )
        k0, k1 = (k0 + _PHILOX_INCREMENTS[0]) & _MASK32, (k1 + _PHILOX_INCREMENTS[1]) & _MASK32
    return c0, c1, c2, c3


def uniform(seed: int, position: int, choice: int) -> int:
    """The u64 that decides the token at `position` (its index in prompt plus answer)."""
    word0, word1, _, _ = philox4x32((position, choice, 0, 0), (seed & _MASK32, seed >> 32))
    return word0 | word1 << 32


def choose(logits: NDArray[np.int32] | NDArray[np.int64], sampling: Sampling, position: int) -> int:
    """The token at `position`, from the logits (Q16, [V]) of the position before it."""
    logits = np.asarray(logits, dtype=np.int64)
    if sampling.temperature_q16 == 0:
        return int(np.argmax(logits))
    weights = _weights(logits, sampling.temperature_q16)
    if sampling.top_k or sampling.top_p_q16 < Q16_ONE:
        weights = _truncate(logits, weights, sampling)
    cumulative = np.cumsum(weights)
    drawn = uniform(sampling.seed, position, sampling.choice) * int(cumulative[-1]) >> 64
    return int(np.searchsorted(cumulative, drawn, side="right"))


def _weights(logits: NDArray[np.int64], temperature_q16: int) -> NDArray[np.int64]:
    """Q40 of 2^-(distance from the largest logit); the sum of 2^18 of them stays below 2^58."""
    factor = (LOG2_E_Q22 << 16) // temperature_q16
    distance = ((logits.max() - logits) * factor) >> 22
    weights: NDArray[np.int64] = (exp2_table()[(distance & 65535) >> 4] << 20) >> np.minimum(distance >> 16, 63)
    return weights


def _truncate(logits: NDArray[np.int64], weights: NDArray[np.int64], sampling: Sampling) -> NDArray[np.int64]:
    """The weights with those outside top_k and top_p at 0."""
    order = np.argsort(-logits, kind="stable")[: sampling.top_k or None]
    if sampling.top_p_q16 < Q16_ONE:
        cumulative = np.cumsum(weights[order])
        target = (int(cumulative[-1]) >> 16) * sampling.top_p_q16
        order = order[: int(np.searchsorted(cumulative, target, side="left")) + 1]
    kept = np.zeros_like(weights)
    kept[order] = weights[order]
    return kept
