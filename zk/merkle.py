"""Binary keccak-256 trees over 32-byte leaves, padded with zeros to a power of two: the tree of every commitment here.

A node is keccak(left ‖ right). Depths follow from the shape of what is committed, so a node cannot pass for a leaf and
no prefix is needed; docs/exact-inference.md section 6 has the same tree. Knows nothing of what leaves are.
"""

import numpy as np
from numpy.typing import NDArray

from core.crypto import keccak256_batch
from core.hashing import keccak256

__all__ = ["Digests", "depth_of", "levels_of", "padded", "parents_of", "root_from_path", "siblings_of"]

Digests = NDArray[np.uint8]
"""u8[n, 32]."""


def depth_of(leaves: int) -> int:
    """Levels between the leaves and the root of a tree over `leaves` leaves."""
    return (leaves - 1).bit_length()


def padded(leaves: Digests) -> Digests:
    """The leaves, filled up with zeros to the next power of two."""
    missing = (1 << depth_of(len(leaves))) - len(leaves)
    return np.concatenate([leaves, np.zeros((missing, 32), np.uint8)]) if missing else leaves


def levels_of(leaves: Digests) -> list[Digests]:
    """Every level, the padded leaves first, the root (u8[1, 32]) last."""
    level = padded(leaves)
    levels = [level]
    while len(level) > 1:
        level = parents_of(level)
        levels.append(level)
    return levels


def siblings_of(levels: list[Digests], index: int) -> tuple[bytes, ...]:
    """The siblings from the leaf at `index` up to the root."""
    return tuple(level[(index >> depth) ^ 1].tobytes() for depth, level in enumerate(levels[:-1]))


def root_from_path(leaf: bytes, index: int, siblings: tuple[bytes, ...]) -> bytes:
    """The root that a path leads to. The caller knows how long the path must be."""
    node = leaf
    for depth, sibling in enumerate(siblings):
        node = keccak256(sibling + node if index >> depth & 1 else node + sibling)
    return node


def parents_of(level: Digests) -> Digests:
    """The nodes over an even number of nodes."""
    pairs = np.ascontiguousarray(level).reshape(-1)
    return keccak256_batch(pairs, np.arange(0, pairs.size + 1, 64, dtype=np.uint64), threads=1)
