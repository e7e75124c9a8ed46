"""The native engine gives the reference's bytes: every instruction set, crew, chunking, batch and shape."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import pytest

from tests.unit.worker.inference.random_models import RandomModel, random_model
from worker.inference.exact import reference
from worker.inference.exact.native import NativeEngine, Rows, instruction_sets, sequence_rows
from worker.inference.exact.tracing import Tracing
from zk.arithmetic import trace_shape
from zk.trace import PositionsBuilder, Statement, TraceBuilder

SHAPES: dict[str, dict[str, int]] = {
    "plain": {},
    "bias": {"qkv_bias": 1},
    "head_norm": {"qk_norm": 1},
    "hadamard": {"qk_hadamard": 1},
    "two_limbs_everywhere": {"qkv_bits": 16, "gate_up_bits": 16, "head_bits": 16, "o_bits": 16},
    "one_limb_everywhere": {"down_bits": 8},
    "ragged_rows": {"heads": 6, "model_width": 96, "vocabulary": 131},
    "wide_heads": {"head_width": 64, "qk_norm": 1, "qkv_bias": 1},
}
TOKEN_COUNT = 150


@contextmanager
def opened(model: RandomModel, isa: str, threads: int) -> Iterator[NativeEngine]:
    with closing(NativeEngine(model, threads=threads, isa=isa, rows_max=TOKEN_COUNT, pages=16)) as engine:
        yield engine


@pytest.mark.parametrize("name", SHAPES)
def test_equals_the_reference(name: str) -> None:
    model = random_model(1, **SHAPES[name])
    header = model.header
    tokens = np.random.default_rng(2).integers(0, header.vocabulary, TOKEN_COUNT).tolist()
    cache = reference.Cache(header)
    expected = reference.forward(model, cache, tokens)
    for isa in instruction_sets():
        for threads in (1, 2, 5):
            with opened(model, isa, threads) as engine:
                whole = engine.forward(sequence_rows(tokens, 0, [3, 7, 1], 0), trace=Tracing.ROWS)
                assert np.array_equal(whole.logits, expected.logits), (isa, threads)
                assert whole.boundaries is not None
                assert whole.kv_rows is not None
                assert np.array_equal(whole.boundaries.swapaxes(0, 1), expected.residuals)
                for layer in range(header.layers):
                    rows = b"".join(cache.row_bytes(layer, position) for position in range(TOKEN_COUNT))
                    assert whole.kv_rows[:, layer].tobytes() == rows
                parts, start = [], 0
                for chunk in (1, 2, 60, 1, 86):
                    parts.append(
                        engine.forward(sequence_rows(tokens[start : start + chunk], start, [9, 0, 2], 0)).logits
                    )
                    start += chunk
                assert np.array_equal(np.concatenate(parts), expected.logits), (isa, threads)


@pytest.mark.parametrize("name", SHAPES)
def test_positions_are_hashed_as_the_trace_wants(name: str) -> None:
    """Position roots of batches of any size, for every instruction set and thread count, against zk's own hashing."""
    model = random_model(1, **SHAPES[name])
    shape = trace_shape(model.header)
    tokens = np.random.default_rng(2).integers(0, model.header.vocabulary, TOKEN_COUNT + 1).tolist()
    statement = Statement(bytes(32), bytes(32), (0, 0, 65_536, 0, 0), tuple(tokens[:-1]), tuple(tokens[-1:]))
    for isa in instruction_sets():
        for threads in (1, 2):
            with opened(model, isa, threads) as engine:
                whole = engine.forward(sequence_rows(tokens[:-1], 0, [3, 7, 1]), trace=Tracing.ROWS)
                assert whole.boundaries is not None
                assert whole.kv_rows is not None
                builder, positions, start = TraceBuilder(shape), PositionsBuilder(shape), 0
                builder.add(0, whole.boundaries, whole.kv_rows)
                for chunk in (1, 2, 60, 1, 86):
                    rows = sequence_rows(tokens[start : start + chunk], start, [9, 0, 2])
                    roots = engine.forward(rows, trace=Tracing.ROOTS).roots
                    assert roots is not None
                    positions.add(start, roots.wait())
                    start += chunk
                assert whole.roots is not None
                trace = builder.finish(statement)
                assert np.array_equal(whole.roots.wait(), trace.position_roots[:-1]), (isa, threads)
                assert positions.finish(statement) == trace.root, (isa, threads)


def test_sequences_in_one_batch_do_not_touch_each_other() -> None:
    model = random_model(3)
    generator = np.random.default_rng(4)
    lengths = (1, 17, 64, 5)
    sequences = [generator.integers(0, model.header.vocabulary, length).tolist() for length in lengths]
    pages = np.array([[4], [0], [9], [2]], np.int32)
    rows = Rows(
        tokens=np.concatenate([np.array(one, np.int32) for one in sequences]),
        positions=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        sequences=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        pages=pages,
        logit_rows=(np.cumsum(lengths) - 1).astype(np.int32),
    )
    with opened(model, instruction_sets()[0], 2) as engine:
        together = engine.forward(rows).logits
    for index, tokens in enumerate(sequences):
        alone = reference.forward(model, reference.Cache(model.header), tokens)
        assert np.array_equal(together[index], alone.logits[-1])
