"""What an exact engine tells of its computation, made into the commitment that a receipt carries (`zk.trace`).

Adapts `worker.inference.exact.trace_sink` to `zk.trace.TraceBuilder`: knows both, and neither knows the other.
"""

import numpy as np
from numpy.typing import NDArray

from core.jobs.exact import prompt_prefix
from core.jobs.request import JobRequest, request_hash
from worker.inference.exact.model import ExactModel
from worker.inference.exact.ordering import sampling_words
from worker.inference.exact.sampling import Sampling
from worker.inference.exact.trace_sink import TraceFactory
from zk.arithmetic import trace_shape
from zk.audit import CommittedRows
from zk.trace import Statement, Trace, TraceBuilder

__all__ = ["RowRecorder", "TraceRecorder", "recording"]


def recording(model: ExactModel) -> TraceFactory:
    """Commitments to this model's answers."""
    return lambda request, salt, sampling: TraceRecorder(model, request, salt, sampling)


class TraceRecorder:
    """The trace of one answer. Implements `worker.inference.exact.trace_sink.TraceSink`; keeps digests, no rows."""

    def __init__(self, model: ExactModel, request: JobRequest, salt: bytes, sampling: Sampling) -> None:
        self._builder = TraceBuilder(trace_shape(model.header))
        self._order = (model.root, request_hash(request, salt), sampling_words(sampling))
        self._prefix = prompt_prefix(salt)

    def rows(self, first_position: int, boundaries: NDArray[np.int32], kv_rows: NDArray[np.uint8]) -> None:
        self._builder.add(first_position, boundaries, kv_rows)

    def root(self, tokens: list[int], prompt_tokens: int) -> bytes:
        return self.trace(tokens, prompt_tokens).root

    def trace(self, tokens: list[int], prompt_tokens: int) -> Trace:
        """The finished trace."""
        answered = (tuple(tokens[:prompt_tokens]), tuple(tokens[prompt_tokens:]))
        return self._builder.finish(Statement(*self._order, *answered, self._prefix))


class RowRecorder(TraceRecorder):
    """Keeps the rows too, and the trace once it is finished: 84 kB a token for SmolLM2."""

    def __init__(self, model: ExactModel, request: JobRequest, salt: bytes, sampling: Sampling) -> None:
        super().__init__(model, request, salt, sampling)
        self._boundaries: list[NDArray[np.int32]] = []
        self._kv_rows: list[NDArray[np.uint8]] = []
        self.finished: Trace | None = None

    def rows(self, first_position: int, boundaries: NDArray[np.int32], kv_rows: NDArray[np.uint8]) -> None:
        super().rows(first_position, boundaries, kv_rows)
        self._boundaries.append(boundaries.copy())
        self._kv_rows.append(kv_rows.copy())

    def root(self, tokens: list[int], prompt_tokens: int) -> bytes:
        self.finished = self.trace(tokens, prompt_tokens)
        return self.finished.root

    @property
    def committed(self) -> CommittedRows:
        """The rows of every position that was computed."""
        return CommittedRows(np.concatenate(self._boundaries), np.concatenate(self._kv_rows))
