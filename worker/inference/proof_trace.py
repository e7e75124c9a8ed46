"""What an exact engine tells of its computation, made into the commitment that a receipt carries (`zk.trace`).

Adapts `worker.inference.exact.trace_sink` to the builders of `zk.trace`: knows both, and neither knows the other.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.jobs.exact import prompt_prefix
from core.jobs.request import JobRequest, request_hash
from worker.inference.exact.model import ExactModel
from worker.inference.exact.ordering import sampling_of, sampling_words
from worker.inference.exact.sampling import Sampling
from worker.inference.exact.trace_sink import TraceFactory
from worker.inference.exact.tracing import TracedRows, Tracing
from zk.arithmetic import trace_shape
from zk.audit import CommittedRows
from zk.trace import PositionsBuilder, Statement, Trace, TraceBuilder

__all__ = ["RowRecorder", "TraceRecorder", "recording", "statement_of"]


def recording(model: ExactModel) -> TraceFactory:
    """Commitments to this model's answers."""
    return lambda request, salt, sampling: TraceRecorder(model, request, salt, sampling)


def statement_of(
    model: ExactModel, request: JobRequest, salt: bytes, prompt: Sequence[int], answer: Sequence[int]
) -> Statement:
    """What the trace of these tokens, the prompt's and the answer's, to a request is of. Raises InvalidInput when there
    can be no such answer."""
    sampling = sampling_of(request.sampling, model.header.vocabulary)
    return _Order(model, request, salt, sampling).statement([*prompt, *answer], len(prompt))


class _Order:
    """What an answer was asked for, of which its tokens make a statement."""

    def __init__(self, model: ExactModel, request: JobRequest, salt: bytes, sampling: Sampling) -> None:
        self._words = (model.root, request_hash(request, salt), sampling_words(sampling))
        self._prefix = prompt_prefix(salt)

    def statement(self, tokens: list[int], prompt_tokens: int) -> Statement:
        return Statement(*self._words, tuple(tokens[:prompt_tokens]), tuple(tokens[prompt_tokens:]), self._prefix)


class TraceRecorder:
    """The root of one answer's trace, from positions that the engine hashed. Implements `TraceSink`."""

    tracing = Tracing.ROOTS

    def __init__(self, model: ExactModel, request: JobRequest, salt: bytes, sampling: Sampling) -> None:
        self._builder = PositionsBuilder(trace_shape(model.header))
        self._order = _Order(model, request, salt, sampling)
        self._pending: TracedRows | None = None

    def computed(self, rows: TracedRows) -> None:
        """Keeps them until the next ones come: meanwhile a device may still be hashing."""
        self._take_pending()
        self._pending = rows

    def root(self, tokens: list[int], prompt_tokens: int) -> bytes:
        self._take_pending()
        return self._builder.finish(self._order.statement(tokens, prompt_tokens))

    def _take_pending(self) -> None:
        if self._pending is not None:
            self._builder.add(self._pending.first_position, self._pending.roots())
            self._pending = None


class RowRecorder:
    """Keeps the rows too, and the trace once it is finished: 84 kB a token for SmolLM2. Implements `TraceSink`."""

    tracing = Tracing.ROWS

    def __init__(self, model: ExactModel, request: JobRequest, salt: bytes, sampling: Sampling) -> None:
        self._builder = TraceBuilder(trace_shape(model.header))
        self._order = _Order(model, request, salt, sampling)
        self._boundaries: list[NDArray[np.int32]] = []
        self._kv_rows: list[NDArray[np.uint8]] = []
        self.finished: Trace | None = None

    def computed(self, rows: TracedRows) -> None:
        self._builder.add(rows.first_position, rows.boundaries, rows.kv_rows)
        self._boundaries.append(rows.boundaries.copy())
        self._kv_rows.append(rows.kv_rows.copy())

    def root(self, tokens: list[int], prompt_tokens: int) -> bytes:
        self.finished = self._builder.finish(self._order.statement(tokens, prompt_tokens))
        return self.finished.root

    @property
    def committed(self) -> CommittedRows:
        """The rows of every position that was computed."""
        return CommittedRows(np.concatenate(self._boundaries), np.concatenate(self._kv_rows))
