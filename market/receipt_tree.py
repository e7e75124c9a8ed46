"""The Merkle tree over a batch of receipts, and proofs that a receipt is in it.

RFC 9162, section 2.1, with keccak-256: leaves and nodes are told apart by a prefix byte, and a proof is bound to the
leaf's index and the batch's size. market/contracts/Receipts.sol checks the same proofs, bit for bit. Knows nothing of
what a receipt says: leaves are EIP-712 digests.
"""

from collections.abc import Sequence

from core.errors import ProofError
from core.hashing import keccak256

__all__ = ["leaf_of", "proof_of", "root_from_proof", "root_of"]

_LEAF = b"\0"
_NODE = b"\1"


def leaf_of(digest: bytes) -> bytes:
    """The leaf of a receipt's 32-byte EIP-712 digest."""
    return keccak256(_LEAF + digest)


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root over at least one leaf, in order."""
    return _levels(leaves)[-1][0]


def proof_of(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The siblings from the leaf at `index` up to the root."""
    assert 0 <= index < len(leaves), "the leaf must be in the tree"
    siblings = []
    for level in _levels(leaves)[:-1]:
        if index ^ 1 < len(level):
            siblings.append(level[index ^ 1])
        index //= 2
    return tuple(siblings)


def root_from_proof(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that `proof` leads to from the leaf at `index` of a batch of `size` (RFC 9162, section 2.1.3.2).

    Raises ProofError when the proof's length does not fit index and size.
    """
    if not 0 <= index < size:
        raise ProofError(f"leaf {index} is not in a batch of {size}")
    node, last = leaf, size - 1
    for sibling in proof:
        if last == 0:
            raise ProofError(f"the proof is too long for leaf {index} of {size}")
        if index % 2 == 1 or index == last:
            node = _node(sibling, node)
            while index % 2 == 0 and index != 0:
                index, last = index // 2, last // 2
        else:
            node = _node(node, sibling)
        index, last = index // 2, last // 2
    if last != 0:
        raise ProofError(f"the proof is too short for a batch of {size}")
    return node


def _node(left: bytes, right: bytes) -> bytes:
    return keccak256(_NODE + left + right)


def _levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """Every level from the leaves to the root; an odd node at a level's end moves up as it is."""
    assert leaves, "a batch is not empty"
    levels = [list(leaves)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        above = [_node(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)]
        levels.append(above + below[len(below) - len(below) % 2 :])
    return levels
