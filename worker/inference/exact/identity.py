"""The identity of a model (section 6): chunk trees over tensors and the tree over everything, keccak-256 throughout.

Knows bytes and shapes; opens no files.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.crypto import keccak256_batch
from core.hashing import keccak256
from worker.inference.exact.specification import Header, TensorSpec

__all__ = [
    "CHUNK_BYTES",
    "TYPE_CODES",
    "Opening",
    "header_leaf",
    "model_root",
    "open_chunk",
    "tensor_leaf",
    "tensor_root",
    "verify_chunk",
]

CHUNK_BYTES: Final = 1024
EMPTY_LEAF: Final = bytes(32)

# Rows are hashed in slices of this size, so that a tensor of gigabytes needs only its leaves in memory.
SLICE_BYTES: Final = 1 << 24

TYPE_CODES: Final = {"i8": 1, "u16": 2, "i16": 3, "i32": 4}

Digests = NDArray[np.uint8]


def header_leaf(header: Header) -> bytes:
    return keccak256(b"".join(word.to_bytes(32, "big") for word in header.words()))


def tensor_leaf(spec: TensorSpec, root: bytes) -> bytes:
    words = [TYPE_CODES[spec.type], spec.rows, spec.columns]
    encoded = b"".join(word.to_bytes(32, "big") for word in words)
    return keccak256(keccak256(spec.name.encode()) + encoded + root)


def model_root(header: Header, tokenizer: bytes, chat_template: bytes, tensor_leaves: list[bytes]) -> bytes:
    """`tokenizer` and `chat_template` are the digests of those files; `tensor_leaves` in canonical order."""
    leaves = [header_leaf(header), tokenizer, chat_template, *tensor_leaves]
    return _levels(np.frombuffer(b"".join(leaves), dtype=np.uint8).reshape(-1, 32))[-1].tobytes()


def tensor_root(spec: TensorSpec, data: NDArray[np.uint8]) -> bytes:
    """The root of a tensor whose canonical bytes are `data` (u8[spec.bytes], which may be a memory map)."""
    return _levels(_chunk_leaves(spec, data))[-1].tobytes()


@dataclass(frozen=True)
class Opening:
    """One chunk of a tensor and the siblings from its leaf to the root."""

    index: int
    chunk: bytes
    siblings: list[bytes]


def open_chunk(spec: TensorSpec, data: NDArray[np.uint8], row: int, chunk: int) -> Opening:
    """Open chunk number `chunk` of a row."""
    per_row = _chunks_per_row(spec)
    assert 0 <= row < spec.rows
    assert 0 <= chunk < per_row
    levels = _levels(_chunk_leaves(spec, data))
    index = row * per_row + chunk
    siblings = []
    for depth, level in enumerate(levels[:-1]):
        sibling = (index >> depth) ^ 1
        siblings.append(level[sibling].tobytes())
    start = row * spec.row_bytes + chunk * CHUNK_BYTES
    end = min(start + CHUNK_BYTES, (row + 1) * spec.row_bytes)
    return Opening(index, data[start:end].tobytes(), siblings)


def verify_chunk(spec: TensorSpec, root: bytes, opening: Opening) -> bool:
    """Whether the opening is that of the tensor's chunk with this index: right length, right depth, right root."""
    per_row = _chunks_per_row(spec)
    if not 0 <= opening.index < spec.rows * per_row:
        return False
    expected_bytes = min(CHUNK_BYTES, spec.row_bytes - opening.index % per_row * CHUNK_BYTES)
    if len(opening.chunk) != expected_bytes or len(opening.siblings) != (spec.rows * per_row - 1).bit_length():
        return False
    node = keccak256(opening.chunk)
    for depth, sibling in enumerate(opening.siblings):
        node = keccak256(sibling + node if opening.index >> depth & 1 else node + sibling)
    return node == root


def _chunks_per_row(spec: TensorSpec) -> int:
    return -(-spec.row_bytes // CHUNK_BYTES)


def _chunk_leaves(spec: TensorSpec, data: NDArray[np.uint8]) -> Digests:
    assert data.dtype == np.uint8
    assert data.shape == (spec.bytes,)
    per_row = _chunks_per_row(spec)
    within_row = np.minimum(np.arange(per_row + 1, dtype=np.uint64) * CHUNK_BYTES, spec.row_bytes)
    rows_per_slice = max(1, SLICE_BYTES // spec.row_bytes)
    leaves = np.empty((spec.rows * per_row, 32), dtype=np.uint8)
    for first in range(0, spec.rows, rows_per_slice):
        count = min(rows_per_slice, spec.rows - first)
        part = np.ascontiguousarray(data[first * spec.row_bytes : (first + count) * spec.row_bytes])
        starts = np.arange(count, dtype=np.uint64)[:, None] * np.uint64(spec.row_bytes) + within_row[:-1]
        offsets = np.append(starts.ravel(), np.uint64(part.size))
        leaves[first * per_row : (first + count) * per_row] = keccak256_batch(part, offsets)
    return leaves


def _levels(leaves: Digests) -> list[Digests]:
    """All levels of the tree, leaves (padded to a power of two) first."""
    width = 1 << (len(leaves) - 1).bit_length()
    level = np.concatenate([leaves, np.zeros((width - len(leaves), 32), dtype=np.uint8)])
    levels = [level]
    while len(level) > 1:
        pairs = np.ascontiguousarray(level).reshape(-1)
        level = keccak256_batch(pairs, np.arange(0, pairs.size + 1, 64, dtype=np.uint64))
        levels.append(level)
    return levels
