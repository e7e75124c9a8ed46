"""The native engine as proofs use it: generate an answer with its trace, or run a known one again in chunks.

One sequence at a time; a server's scheduler batches many and feeds the same `TraceBuilder`.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from worker.inference.errors import ContextExceeded, TokenOutOfRange
from worker.inference.exact.batching import Outcome
from worker.inference.exact.devices import DeviceChoice, open_executor
from worker.inference.exact.native import PAGE_POSITIONS, sequence_rows
from worker.inference.exact.reference import Weights
from worker.inference.exact.sampling import Sampling
from worker.inference.exact.tracing import PositionRoots, Tracing
from zk.arithmetic import trace_shape
from zk.audit import CommittedRows
from zk.replay import PrefillRoots, PrefillRows
from zk.trace import Statement, Trace, TraceBuilder, TraceShape

__all__ = ["ProofEngine"]


Watch = Callable[[int, NDArray[np.int32], NDArray[np.uint8]], None]
"""(first position, residual rows, key-value rows): what `TraceBuilder.add` takes."""


class ProofEngine:
    """One model on the CPU or a GPU. Implements `zk.replay.PrefillEngine`."""

    def __init__(
        self,
        weights: Weights,
        model_root: bytes,
        *,
        tokens_max: int,
        threads: int = 1,
        chunk_rows: int = 128,
        device: DeviceChoice = DeviceChoice.CPU,
    ) -> None:
        self._root, self._chunk_rows = model_root, chunk_rows
        self._header, self._tokens_max = weights.header, tokens_max
        pages = -(-tokens_max // PAGE_POSITIONS)
        self._engine = open_executor(weights, device, threads=threads, rows_max=chunk_rows, pages=pages)
        self._pages = range(pages)
        self.trace_shape: TraceShape = trace_shape(weights.header)

    @property
    def model_root(self) -> bytes:
        return self._root

    def close(self) -> None:
        self._engine.close()

    def prefill(self, statement: Statement) -> Iterator[PrefillRows]:
        """See `PrefillEngine.prefill`. Raises TokenOutOfRange, ContextExceeded or SamplingInvalid for a statement that
        this model has not."""
        for result, chosen in self._chunks(statement, Tracing.ROWS):
            assert result.boundaries is not None
            assert result.kv_rows is not None
            yield PrefillRows(result.boundaries, result.kv_rows, chosen)

    def prefill_roots(self, statement: Statement) -> Iterator[PrefillRoots]:
        """See `PrefillEngine.prefill_roots`; raises as `prefill` does. A chunk is hashed while the next one runs."""
        before: tuple[PositionRoots, list[int]] | None = None
        for result, chosen in self._chunks(statement, Tracing.ROOTS):
            if before is not None:
                yield PrefillRoots(before[0].wait(), before[1])
            assert result.roots is not None
            before = (result.roots, chosen)
        if before is not None:
            yield PrefillRoots(before[0].wait(), before[1])

    def _chunks(self, statement: Statement, trace: Tracing) -> Iterator[tuple[Outcome, list[int]]]:
        """Passes over all tokens but the last, each with what its positions choose."""
        tokens, sampling = statement.tokens[:-1], Sampling(*statement.sampling)
        if any(token >= self._header.vocabulary for token in statement.tokens):
            raise TokenOutOfRange(f"the vocabulary has {self._header.vocabulary} tokens; the statement has others")
        if len(statement.tokens) > min(self._header.context_max, self._tokens_max):
            raise ContextExceeded(f"{len(statement.tokens)} tokens exceed the model's context")
        first = len(statement.prompt) - 1
        for start in range(0, len(tokens), self._chunk_rows):
            chunk = tokens[start : start + self._chunk_rows]
            logits_from = min(max(first - start, 0), len(chunk))
            result = self._engine.forward(sequence_rows(chunk, start, self._pages, logits_from), trace=trace)
            wanted = len(chunk) - logits_from
            chosen = [result.choose(i, sampling, start + logits_from + i + 1) for i in range(wanted)]
            yield result, [-1] * logits_from + chosen

    def generate(
        self,
        prompt: tuple[int, ...],
        sampling: Sampling,
        tokens_max: int,
        end_tokens: tuple[int, ...] = (),
        watch: Watch | None = None,
    ) -> tuple[int, ...]:
        """An answer of at most `tokens_max` tokens. `watch` gets every position's rows."""
        answer: list[int] = []
        pending, start = prompt, 0
        while True:
            for offset in range(0, len(pending), self._chunk_rows):
                chunk = pending[offset : offset + self._chunk_rows]
                wanted = Tracing.OFF if watch is None else Tracing.ROWS
                result = self._engine.forward(sequence_rows(chunk, start, self._pages), trace=wanted)
                if watch is not None:
                    assert result.boundaries is not None
                    assert result.kv_rows is not None
                    watch(start, result.boundaries, result.kv_rows)
                start += len(chunk)
            token = result.choose(0, sampling, start)
            answer.append(token)
            if len(answer) == tokens_max or token in end_tokens:
                return tuple(answer)
            pending = (token,)

    def answer(
        self,
        prompt: tuple[int, ...],
        sampling: Sampling,
        tokens_max: int,
        request_hash: bytes,
        end_tokens: tuple[int, ...] = (),
    ) -> tuple[Statement, Trace]:
        """Generate, and commit to what was computed."""
        builder = TraceBuilder(self.trace_shape)
        answer = self.generate(prompt, sampling, tokens_max, end_tokens, builder.add)
        words = (sampling.temperature_q16, sampling.top_k, sampling.top_p_q16, sampling.seed, sampling.choice)
        statement = Statement(self._root, request_hash, words, prompt, answer)
        return statement, builder.finish(statement)

    def commit(self, statement: Statement, rows: CommittedRows) -> Trace:
        """The trace of rows that are held as a whole."""
        builder = TraceBuilder(self.trace_shape)
        builder.add(0, rows.boundaries, rows.kv_rows)
        return builder.finish(statement)
