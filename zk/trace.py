"""The trace of one exact answer: a Merkle tree over everything from which the rest can be recomputed.

Layout (docs/trace.md). Position p of prompt plus answer has W leaves, W the power of two at or above 2L + 2:

    0            SHA-256 of the token (u32, little-endian)
    1 + 2l       SHA-256 of the residual row at boundary l, 0 <= l <= L
    2 + 2l       SHA-256 of the key-value row of layer l, 0 <= l < L
    the others   32 zero bytes, as are all rows of the last position, whose token the model never reads

The tree is padded with leaves of 32 zero bytes to a power of two of positions. Leaf p * W + i stands in the order in
which a machine computes, so everything before the first wrong leaf is right. Rows are hashed by SHA-256 (fast on CPUs,
and a precompile on chain), nodes by keccak-256. The trace root binds the rows' root to model, request, sampling and
tokens. Owns bytes and hashes; knows no arithmetic.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.crypto import sha256_batch
from core.hashing import keccak256
from zk.errors import TraceInvalid
from zk.merkle import Digests, depth_of, empty_root, levels_of, parents_of, root_from_path, siblings_of

__all__ = [
    "LeafName",
    "Opening",
    "PositionsBuilder",
    "Statement",
    "Trace",
    "TraceBuilder",
    "TraceShape",
    "key_value_leaf",
    "residual_leaf",
    "token_digest",
    "tokens_hash",
    "verify_opening",
]

TAG: Final = keccak256(b"warpgrid trace 1")
TOKEN_LEAF: Final = 0


def residual_leaf(boundary: int) -> int:
    """Which leaf of its position holds the residual row at a layer boundary."""
    return 1 + 2 * boundary


def key_value_leaf(layer: int) -> int:
    """Which leaf of its position holds a layer's key-value row."""
    return 2 + 2 * layer


def tokens_hash(tokens: Sequence[int], prefix: bytes = b"") -> bytes:
    """keccak-256 of a prefix and tokens as u32, little-endian."""
    return keccak256(prefix + np.array(tokens, "<u4").tobytes())


def token_digest(token: int) -> bytes:
    """The leaf of a token."""
    return sha256(token.to_bytes(4, "little")).digest()


@dataclass(frozen=True, slots=True)
class LeafName:
    """What a leaf of the tree commits to, in words: `index` is the boundary or the layer, 0 for a token."""

    position: int
    kind: str
    index: int

    def __str__(self) -> str:
        where = {"token": "", "residual": f" at boundary {self.index}", "key-value": f" of layer {self.index}"}
        return f"{self.kind}{where[self.kind]}, position {self.position}"


@dataclass(frozen=True, slots=True)
class TraceShape:
    """What the layout depends on: layers, and the bytes of a residual row and of a key-value row."""

    layers: int
    residual_bytes: int
    key_value_bytes: int

    @property
    def leaves(self) -> int:
        """Leaves of one position, W."""
        return 1 << depth_of(2 * self.layers + 2)

    def name(self, leaf: int) -> LeafName:
        """What leaf number `leaf` of the whole tree commits to."""
        position, inner = divmod(leaf, self.leaves)
        if inner == TOKEN_LEAF:
            return LeafName(position, "token", 0)
        return LeafName(position, "residual" if inner % 2 else "key-value", (inner - 1) // 2)


@dataclass(frozen=True, slots=True)
class Statement:
    """What a trace is of: 32-byte model root and request hash, sampling as integers, and the tokens.

    The sampling words are those of section 5: temperature_q16, top_k, top_p_q16, seed, choice. `prompt_prefix` (32
    bytes, `core.jobs.exact.prompt_prefix`) hides the prompt of a job; zeros hide nothing.
    """

    model_root: bytes
    request_hash: bytes
    sampling: tuple[int, int, int, int, int]
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    prompt_prefix: bytes = bytes(32)

    def __post_init__(self) -> None:
        if any(len(one) != 32 for one in (self.model_root, self.request_hash, self.prompt_prefix)):
            raise TraceInvalid("model root, request hash and prompt prefix are 32 bytes each")
        if not self.prompt or not self.answer:
            raise TraceInvalid("a trace has a prompt and an answer of at least one token each")
        if any(not 0 <= token < 2**32 for token in self.tokens) or any(not 0 <= one < 2**64 for one in self.sampling):
            raise TraceInvalid("a token or sampling parameter is out of range")

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.prompt + self.answer

    @property
    def prompt_hash(self) -> bytes:
        """What the trace root, and an order, name the prompt by."""
        return tokens_hash(self.prompt, self.prompt_prefix)

    def root(self, rows_root: bytes) -> bytes:
        """The trace root: what a receipt carries."""
        numbers = (*self.sampling, len(self.prompt), len(self.answer))
        words = b"".join(number.to_bytes(32, "big") for number in numbers)
        tokens = self.prompt_hash + tokens_hash(self.answer)
        return keccak256(TAG + self.model_root + self.request_hash + words + tokens + rows_root)


@dataclass(frozen=True, slots=True)
class Opening:
    """The way from a leaf of the tree to the rows' root."""

    leaf: int
    digest: bytes
    siblings: tuple[bytes, ...]


def verify_opening(shape: TraceShape, positions: int, rows_root: bytes, opening: Opening) -> bool:
    """Whether the opening is that of its leaf in a trace of `positions` positions."""
    depth = depth_of(shape.leaves) + depth_of(positions)
    return (
        0 <= opening.leaf < positions * shape.leaves
        and len(opening.siblings) == depth
        and root_from_path(opening.digest, opening.leaf, opening.siblings) == rows_root
    )


class Trace:
    """A finished trace: statement, leaf digests u8[positions * W, 32], tree and root."""

    def __init__(self, shape: TraceShape, statement: Statement, leaves: Digests) -> None:
        """Raises TraceInvalid when the leaves are not one position's worth for each token."""
        if leaves.shape != (len(statement.tokens) * shape.leaves, 32):
            raise TraceInvalid(f"{len(statement.tokens)} tokens have {shape.leaves} leaves each, not {leaves.shape}")
        self.shape, self.statement, self.leaves = shape, statement, leaves
        self._levels = [leaves]
        for _ in range(depth_of(shape.leaves)):
            self._levels.append(parents_of(self._levels[-1]))
        self._levels += levels_of(self._levels.pop(), empty_root(depth_of(shape.leaves)))
        self.rows_root = self._levels[-1].tobytes()
        self.root = statement.root(self.rows_root)

    @property
    def levels(self) -> list[Digests]:
        """Every level of the tree, leaves first."""
        return self._levels

    @property
    def position_roots(self) -> Digests:
        """u8[positions, 32]: the subtree of each position. With the tokens, all that must be kept for later."""
        return self._levels[depth_of(self.shape.leaves)][: len(self.statement.tokens)]

    def digest(self, position: int, inner: int) -> bytes:
        """The digest of a leaf of a position."""
        digest: bytes = self.leaves[position * self.shape.leaves + inner].tobytes()
        return digest

    def open(self, position: int, inner: int) -> Opening:
        """The way from a leaf of a position to the rows' root."""
        leaf = position * self.shape.leaves + inner
        return Opening(leaf, self.leaves[leaf].tobytes(), siblings_of(self._levels, leaf))

    def first_difference(self, other: "Trace") -> LeafName | None:
        """The first leaf, in the order of computation, in which two traces of one shape differ."""
        common = min(len(self.leaves), len(other.leaves))
        differs = (self.leaves[:common] != other.leaves[:common]).any(axis=1)
        if differs.any():
            return self.shape.name(int(differs.argmax()))
        return None if len(self.leaves) == len(other.leaves) else self.shape.name(common)


class PositionsBuilder:
    """The trace of positions that were hashed where they were computed: keeps their roots, 32 bytes each."""

    def __init__(self, shape: TraceShape) -> None:
        self._shape = shape
        self._parts: list[Digests] = []
        self._positions = 0

    def add(self, first_position: int, roots: Digests) -> None:
        """u8[n, 32]: the subtrees of the next positions, over their token, residual and key-value rows."""
        if first_position != self._positions:
            raise TraceInvalid(f"position {first_position} was added after {self._positions} positions")
        if roots.ndim != 2 or roots.shape[1] != 32 or roots.dtype != np.uint8:
            raise TraceInvalid(f"roots {roots.dtype}{roots.shape} are no digests")
        self._parts.append(roots.copy())
        self._positions += len(roots)

    def finish(self, statement: Statement) -> bytes:
        """The trace root of the statement, whose last token has no rows.

        Raises TraceInvalid when it has another number of tokens.
        """
        tokens = statement.tokens
        if self._positions != len(tokens) - 1:
            raise TraceInvalid(f"{self._positions} positions were added, for {len(tokens)} tokens")
        depth = depth_of(self._shape.leaves)
        last = token_digest(tokens[-1])
        for level in range(depth):
            last = keccak256(last + empty_root(level))
        roots = np.concatenate([*self._parts, np.frombuffer(last, np.uint8).reshape(1, 32)])
        return statement.root(levels_of(roots, empty_root(depth))[-1].tobytes())


class TraceBuilder:
    """Hashes rows as the engine produces them; keeps 32 bytes for each row and no row."""

    def __init__(self, shape: TraceShape) -> None:
        self._shape = shape
        self._parts: list[Digests] = []
        self._positions = 0

    def add(self, first_position: int, boundaries: NDArray[np.int32], kv_rows: NDArray[np.uint8]) -> None:
        """The next positions: int32[n, L + 1, d] residual rows and u8[n, L, bytes] canonical key-value rows."""
        shape, count = self._shape, len(boundaries)
        if first_position != self._positions:
            raise TraceInvalid(f"position {first_position} was added after {self._positions} positions")
        if boundaries.nbytes != count * (shape.layers + 1) * shape.residual_bytes or boundaries.dtype != np.int32:
            raise TraceInvalid(f"residual rows {boundaries.dtype}{boundaries.shape} do not fit the model")
        if kv_rows.nbytes != count * shape.layers * shape.key_value_bytes:
            raise TraceInvalid(f"key-value rows {kv_rows.shape} do not fit the model")
        leaves = np.zeros((count, shape.leaves, 32), np.uint8)
        used = 2 * shape.layers + 2
        leaves[:, 1:used:2] = _hash_rows(boundaries, shape.residual_bytes).reshape(count, -1, 32)
        leaves[:, 2:used:2] = _hash_rows(kv_rows, shape.key_value_bytes).reshape(count, -1, 32)
        self._parts.append(leaves)
        self._positions += count

    def finish(self, statement: Statement) -> Trace:
        """The trace of what was added: the rows of every token of the statement but the last.

        Raises TraceInvalid when it has another number of tokens.
        """
        tokens = statement.tokens
        if self._positions != len(tokens) - 1:
            raise TraceInvalid(f"rows of {self._positions} positions were added, for {len(tokens)} tokens")
        leaves = np.concatenate([*self._parts, np.zeros((1, self._shape.leaves, 32), np.uint8)])
        digests = b"".join(token_digest(token) for token in tokens)
        leaves[:, TOKEN_LEAF] = np.frombuffer(digests, np.uint8).reshape(-1, 32)
        return Trace(self._shape, statement, leaves.reshape(-1, 32))


def _hash_rows(rows: NDArray[np.int32] | NDArray[np.uint8], row_bytes: int) -> Digests:
    raw = np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
    return sha256_batch(raw, np.arange(0, len(raw) + 1, row_bytes, dtype=np.uint64), threads=1)
