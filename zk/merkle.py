"""Binary keccak-256 trees over 32-byte leaves, padded with zeros to a power of two: the tree of every commitment here.

A node is keccak(left ‖ right). Depths follow from the shape of what is committed, so a node cannot pass for a leaf and
no prefix is needed; docs/exact-inference.md section 6 has the same tree. Knows nothing of what leaves are.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.crypto import keccak256_batch
from core.hashing import keccak256

__all__ = [
    "EMPTY_LEAF",
    "Digests",
    "depth_of",
    "empty_root",
    "levels_of",
    "parents_of",
    "root_from_path",
    "siblings_of",
]

EMPTY_LEAF: Final = bytes(32)
Digests = NDArray[np.uint8]
"""u8[n, 32]."""


def depth_of(leaves: int) -> int:
    """Levels between the leaves and the root of a tree over `leaves` leaves."""
    return (leaves - 1).bit_length()


def empty_root(depth: int) -> bytes:
    """The root of a tree over 2^depth leaves of 32 zero bytes."""
    node = EMPTY_LEAF
    for _ in range(depth):
        node = keccak256(node + node)
    return node


def levels_of(leaves: Digests, padding: bytes = EMPTY_LEAF) -> list[Digests]:
    """Every level, the leaves first (filled up with `padding` to a power of two), the root (u8[1, 32]) last."""
    missing = (1 << depth_of(len(leaves))) - len(leaves)
    level = np.concatenate([leaves, np.tile(np.frombuffer(padding, np.uint8), (missing, 1))]) if missing else leaves
    levels = [level]
    while len(level) > 1:
        level = parents_of(level)
        levels.append(level)
    return levels


def siblings_of(levels: list[Digests], index: int, skip: int = 0) -> tuple[bytes, ...]:
    """The siblings from the node `skip` levels above the leaf at `index` up to the root."""
    depths = range(skip, len(levels) - 1)
    return tuple(levels[depth][(index >> depth) ^ 1].tobytes() for depth in depths)


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
