"""More than 10,000 honest comparisons on the CPU under each instruction set and on 1 and 2 threads: batches of 1 to 64
sequences of ragged lengths, prefill and then decoding, against the numpy reference that saw each sequence alone.

One comparison is one token's residual rows and key-value rows, and its logits where they are wanted.
"""

from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.worker.inference.random_models import RandomModel, random_model
from worker.inference.exact import reference
from worker.inference.exact.native import PAGE_POSITIONS, Forward, NativeEngine, Rows, instruction_sets
from worker.inference.exact.tracing import Tracing

pytestmark = pytest.mark.conformance

BATCHES = range(1, 65)
PROMPT_MAX = 80  # some prompts need a second page
DECODED = 4
PAGES_EACH = -(-(PROMPT_MAX + DECODED) // PAGE_POSITIONS)
SHAPE = {"qkv_bias": 1, "qk_norm": 1, "qk_hadamard": 1, "heads": 6, "model_width": 96, "vocabulary": 131}


@dataclass(frozen=True)
class Known:
    """One sequence by the reference: everything by position."""

    tokens: NDArray[np.int32]
    logits: NDArray[np.int64]
    boundaries: NDArray[np.int64]
    kv_rows: list[bytes]

    @property
    def prompt(self) -> int:
        return len(self.tokens) - DECODED


def known_sequence(model: RandomModel, tokens: NDArray[np.int32]) -> Known:
    cache = reference.Cache(model.header)
    outcome = reference.forward(model, cache, tokens.tolist())
    layers = range(model.header.layers)
    rows = [b"".join(cache.row_bytes(layer, position) for layer in layers) for position in range(len(tokens))]
    return Known(tokens, outcome.logits, outcome.residuals.swapaxes(0, 1), rows)


def spans(known: list[Known], starts: list[int], ends: list[int]) -> Rows:
    """The rows start .. end - 1 of each sequence in one batch, each in its own pages; logits for the last of each."""
    lengths = [end - start for start, end in zip(starts, ends, strict=True)]
    return Rows(
        tokens=np.concatenate([one.tokens[a:b] for one, a, b in zip(known, starts, ends, strict=True)]),
        positions=np.concatenate([np.arange(a, b, dtype=np.int32) for a, b in zip(starts, ends, strict=True)]),
        sequences=np.repeat(np.arange(len(known), dtype=np.int32), lengths),
        pages=np.arange(len(known) * PAGES_EACH, dtype=np.int32)[::-1].reshape(len(known), PAGES_EACH),
        logit_rows=(np.cumsum(lengths) - 1).astype(np.int32),
    )


def compare(outcome: Forward, known: list[Known], starts: list[int], ends: list[int]) -> int:
    """Tokens compared; a difference fails."""
    assert outcome.boundaries is not None
    assert outcome.kv_rows is not None
    row = 0
    for index, (one, start, end) in enumerate(zip(known, starts, ends, strict=True)):
        for position in range(start, end):
            assert np.array_equal(outcome.boundaries[row], one.boundaries[position]), (index, position)
            assert outcome.kv_rows[row].tobytes() == one.kv_rows[position], (index, position)
            row += 1
        assert np.array_equal(outcome.logits[index], one.logits[end - 1]), (index, end - 1)
    return row


def run_batch(engine: NativeEngine, known: list[Known]) -> int:
    prompts = [one.prompt for one in known]
    steps = [([0] * len(known), prompts)]
    steps += [([n + step for n in prompts], [n + step + 1 for n in prompts]) for step in range(DECODED)]
    return sum(compare(engine.forward(spans(known, a, b), trace=Tracing.ROWS), known, a, b) for a, b in steps)


def test_every_batch_gives_the_bytes_of_each_sequence_alone() -> None:
    model = random_model(61, **SHAPE)
    generator = np.random.default_rng(62)
    rows_max, pages = max(BATCHES) * PROMPT_MAX, max(BATCHES) * PAGES_EACH
    compared = 0
    with ExitStack() as stack:
        engines = [
            stack.enter_context(closing(NativeEngine(model, threads=threads, isa=isa, rows_max=rows_max, pages=pages)))
            for isa in instruction_sets()
            for threads in (1, 2)
        ]
        for batch in BATCHES:
            lengths = generator.integers(1, PROMPT_MAX if batch % 8 == 0 else 12, batch) + DECODED
            tokens = [generator.integers(0, model.header.vocabulary, length).astype(np.int32) for length in lengths]
            known = [known_sequence(model, one) for one in tokens]
            for engine in engines:
                compared += run_batch(engine, known)
    assert compared >= 10_000 * len(engines), compared
