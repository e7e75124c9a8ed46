"""What the engine tells whoever commits to a computation: rows in, a root out. The trees themselves live in `zk/`."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from core.jobs.request import JobRequest
from worker.inference.exact.sampling import Sampling

__all__ = ["TraceFactory", "TraceSink"]


class TraceSink(Protocol):
    """Receives the trace of one answer as it is computed, on the engine's thread. It must not keep the arrays."""

    def rows(self, first_position: int, boundaries: NDArray[np.int32], kv_rows: NDArray[np.uint8]) -> None:
        """Positions from first_position on: residual rows int32[n, layers + 1, width], key-value rows
        uint8[n, layers, bytes].

        Every position of prompt and answer comes once and in order, except the answer's last token, which the model
        never reads.
        """

    def root(self, tokens: list[int], prompt_tokens: int) -> bytes:
        """The 32-byte commitment, once the answer is complete; `tokens` are prompt and answer."""


TraceFactory = Callable[[JobRequest, bytes, Sampling], TraceSink]
"""Makes the sink of an answer, from its request, the request's salt (32 bytes), and its sampling."""
