"""What an engine tells whoever commits to an answer: positions in, a root out. The tree over them lives in `zk/`."""

from collections.abc import Callable
from typing import Protocol

from core.jobs.request import JobRequest
from worker.inference.exact.sampling import Sampling
from worker.inference.exact.tracing import TracedRows, Tracing

__all__ = ["TraceFactory", "TraceSink"]


class TraceSink(Protocol):
    """Receives the trace of one answer as it is computed, on the engine's thread."""

    @property
    def tracing(self) -> Tracing:
        """ROOTS or ROWS: what it wants to be told."""

    def computed(self, rows: TracedRows) -> None:
        """Every position of prompt and answer comes once and in order, except the answer's last token, which the model
        never reads.
        """

    def root(self, tokens: list[int], prompt_tokens: int) -> bytes:
        """The 32-byte commitment, once the answer is complete; `tokens` are prompt and answer."""


TraceFactory = Callable[[JobRequest, bytes, Sampling], TraceSink]
"""Makes the sink of an answer, from its request, the request's salt (32 bytes), and its sampling."""
