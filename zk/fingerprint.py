"""Fingerprints of float activations: suspicion for receipts of the float tier, never proof.

After TOPLOC (Ong et al. 2025): of each block of tokens keep the largest activations of the last hidden state, their
places and their float bits, and compare with those of a prefill. Honest engines differ in the last bits, so there is a
threshold; int8 weights and small fine-tunes pass it. A verdict here may choose what is audited and may not punish.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK_TOKENS", "TOP", "Comparison", "Fingerprint", "compare", "fingerprint"]

BLOCK_TOKENS: Final = 32
TOP: Final = 128
EQUAL_EXPONENTS_MIN: Final = 90
MANTISSA_ERROR_MAX: Final = 10.0

_MANTISSA_BITS: Final = 7  # bfloat16's


@dataclass(frozen=True)
class Fingerprint:
    """For each block the flat places u32[blocks, TOP] and bfloat16 bits u16[blocks, TOP] of its largest activations."""

    places: NDArray[np.uint32]
    values: NDArray[np.uint16]

    @property
    def bytes(self) -> int:
        """Size as it travels."""
        return self.places.nbytes + self.values.nbytes


@dataclass(frozen=True, slots=True)
class Comparison:
    """The worst block: places with equal sign and exponent, of TOP, and the mean distance of their mantissas."""

    equal_exponents: int
    mantissa_error: float

    @property
    def suspicious(self) -> bool:
        """By TOPLOC's published rule."""
        return self.equal_exponents < EQUAL_EXPONENTS_MIN or self.mantissa_error >= MANTISSA_ERROR_MAX


def fingerprint(activations: NDArray[np.float32]) -> Fingerprint:
    """Of the last hidden states float32[tokens, width] of an answer. Blocks need at least TOP entries."""
    blocks = [activations[at : at + BLOCK_TOKENS].reshape(-1) for at in range(0, len(activations), BLOCK_TOKENS)]
    assert all(len(block) >= TOP for block in blocks), f"a block has fewer than {TOP} activations"
    places = np.stack([np.argsort(-np.abs(block), kind="stable")[:TOP] for block in blocks])
    values = np.stack([_bfloat16(block[place]) for block, place in zip(blocks, places, strict=True)])
    return Fingerprint(places.astype(np.uint32), values)


def compare(claimed: Fingerprint, activations: NDArray[np.float32]) -> Comparison:
    """A worker's fingerprint against another machine's activations of the same tokens."""
    count = -(-len(activations) // BLOCK_TOKENS)
    if claimed.places.shape != (count, TOP) or claimed.values.shape != (count, TOP):
        return Comparison(0, float("inf"))
    worst = Comparison(TOP, 0.0)
    for index in range(count):
        block = activations[index * BLOCK_TOKENS : (index + 1) * BLOCK_TOKENS].reshape(-1)
        if int(claimed.places[index].max()) >= len(block):
            return Comparison(0, float("inf"))
        own = _bfloat16(block[claimed.places[index]])
        one = _compare_block(claimed.values[index], own)
        if (one.equal_exponents, -one.mantissa_error) < (worst.equal_exponents, -worst.mantissa_error):
            worst = one
    return worst


def _compare_block(claimed: NDArray[np.uint16], own: NDArray[np.uint16]) -> Comparison:
    equal = (claimed >> _MANTISSA_BITS) == (own >> _MANTISSA_BITS)
    if not equal.any():
        return Comparison(0, float("inf"))
    mask = (1 << _MANTISSA_BITS) - 1
    distance = np.abs((claimed[equal] & mask).astype(np.int64) - (own[equal] & mask))
    return Comparison(int(equal.sum()), float(distance.mean()))


def _bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Rounded half to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
