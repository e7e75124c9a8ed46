from dataclasses import replace

import numpy as np
import pytest

from core.hashing import keccak256
from tests.conformance.exact_vectors import tiny_header
from worker.inference.exact.identity import (
    Opening,
    header_leaf,
    model_root,
    open_chunk,
    tensor_leaf,
    tensor_root,
    verify_chunk,
)
from worker.inference.exact.specification import TensorSpec


def random_tensor(rows: int, columns: int) -> tuple[TensorSpec, "np.ndarray[tuple[int], np.dtype[np.uint8]]"]:
    spec = TensorSpec("layers.0.o.weight", "i8", (rows, columns))
    data = np.random.Generator(np.random.PCG64(rows)).integers(0, 256, spec.bytes, dtype=np.uint8)
    return spec, data


def plain_root(spec: TensorSpec, data: bytes) -> bytes:
    """Section 6 word for word, one hash at a time."""
    leaves = []
    for row in range(spec.rows):
        row_bytes = data[row * spec.row_bytes : (row + 1) * spec.row_bytes]
        leaves += [keccak256(row_bytes[start : start + 1024]) for start in range(0, len(row_bytes), 1024)]
    while len(leaves) & (len(leaves) - 1):
        leaves.append(bytes(32))
    while len(leaves) > 1:
        leaves = [keccak256(leaves[i] + leaves[i + 1]) for i in range(0, len(leaves), 2)]
    return leaves[0]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 1024), (1, 1025), (5, 32), (7, 2500), (64, 1024)])
def test_root_and_openings(rows: int, columns: int) -> None:
    spec, data = random_tensor(rows, columns)
    root = tensor_root(spec, data)
    assert root == plain_root(spec, data.tobytes())
    for row in {0, rows // 2, rows - 1}:
        for chunk in range(-(-columns // 1024)):
            opening = open_chunk(spec, data, row, chunk)
            assert verify_chunk(spec, root, opening)


def test_a_forged_opening_is_refused() -> None:
    spec, data = random_tensor(7, 2500)
    root = tensor_root(spec, data)
    opening = open_chunk(spec, data, 3, 1)
    flipped = bytes([opening.chunk[0] ^ 1]) + opening.chunk[1:]
    inner = Opening(0, opening.siblings[0] + opening.siblings[1], opening.siblings[2:])
    for forged in (
        replace(opening, chunk=flipped),
        replace(opening, index=opening.index + 1),
        replace(opening, index=spec.rows * 3),
        replace(opening, index=-1),
        replace(opening, siblings=opening.siblings[:-1]),
        replace(opening, siblings=[*opening.siblings, bytes(32)]),
        replace(opening, chunk=opening.chunk + b"\0"),
        inner,
    ):
        assert not verify_chunk(spec, root, forged)


def test_identity_covers_everything() -> None:
    header = tiny_header(every=True)
    spec, _ = random_tensor(5, 32)
    leaf = tensor_leaf(spec, bytes(32))
    roots = {
        model_root(header, bytes(32), bytes(32), [leaf, leaf]),
        model_root(replace(header, end_tokens=(0,)), bytes(32), bytes(32), [leaf, leaf]),
        model_root(replace(header, attention_exponent=-33), bytes(32), bytes(32), [leaf, leaf]),
        model_root(header, b"\1" * 32, bytes(32), [leaf, leaf]),
        model_root(header, bytes(32), b"\1" * 32, [leaf, leaf]),
        model_root(header, bytes(32), bytes(32), [leaf]),
        model_root(header, bytes(32), bytes(32), [leaf, tensor_leaf(spec, b"\1" * 32)]),
        model_root(header, bytes(32), bytes(32), [leaf, tensor_leaf(replace(spec, name="head.weight"), bytes(32))]),
        model_root(header, bytes(32), bytes(32), [leaf, tensor_leaf(replace(spec, shape=(32, 5)), bytes(32))]),
    }
    assert len(roots) == 9


def test_header_leaf_is_abi_words() -> None:
    header = tiny_header(every=False)
    words = header.words()
    assert words[0] == 1
    assert words[-2:] == [0, 7]
    assert -header.attention_exponent in words
    assert header_leaf(header) == keccak256(b"".join(word.to_bytes(32, "big") for word in words))
