"""One answer on its way from the engine's thread to the event loop that asked for it.

Owns everything that happens to a token after it is chosen: text, stop strings, the end, usage. It decides the end in
the engine's thread, so that an answer, its token count and its trace end at the same token however busy the loop is.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import numpy as np
from numpy.typing import NDArray

from worker.inference.engine import Completion, FinishReason, Piece
from worker.inference.exact.tokenizer import ChatTokenizer, TokenStream
from worker.inference.exact.trace_sink import TraceSink
from worker.inference.stop_strings import StopStrings

__all__ = ["Answer"]


class Answer:
    """Implements `batching.Consumer`. The queue needs no limit: an answer has at most as many pieces as tokens."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tokenizer: ChatTokenizer,
        stop: Sequence[str],
        end_tokens: Sequence[int],
        prompt: Sequence[int],
        trace: TraceSink | None,
    ) -> None:
        self._loop = loop
        self._text = TokenStream(tokenizer)
        self._stop = StopStrings(stop)
        self._end_tokens = frozenset(end_tokens)
        self._prompt = list(prompt)
        self._tokens: list[int] = []
        self._trace = trace
        self._cancelled = False
        self._parts: asyncio.Queue[Piece | Completion | Exception] = asyncio.Queue()

    # On the event loop

    async def parts(self) -> AsyncGenerator[Piece | Completion, None]:
        """Pieces, then the completion. Raises what the engine failed with."""
        while True:
            part = await self._parts.get()
            if isinstance(part, Exception):
                raise part
            yield part
            if isinstance(part, Completion):
                return

    def cancel(self) -> None:
        self._cancelled = True

    # In the engine's thread

    @property
    def cancelled(self) -> bool:
        return self._cancelled or self._loop.is_closed()

    @property
    def traced(self) -> bool:
        return self._trace is not None

    def computed(self, first_position: int, boundaries: NDArray[np.int32], kv_rows: NDArray[np.uint8]) -> None:
        assert self._trace is not None
        self._trace.rows(first_position, boundaries, kv_rows)

    def take(self, token: int, last: bool) -> bool:
        self._tokens.append(token)
        ended = token in self._end_tokens
        text = self._stop.feed(self._text.feed(token))
        if not self._stop.found and (ended or last):
            text += self._stop.feed(self._text.finish())
        stopped = ended or self._stop.found
        if not self._stop.found and (ended or last):
            text += self._stop.finish()
        if text:
            self._put(Piece(text))
        if stopped or last:
            self._put(self._completion(FinishReason.STOP if stopped else FinishReason.LENGTH))
        return stopped or last

    def fail(self, error: Exception) -> None:
        self._put(error)

    def _completion(self, reason: FinishReason) -> Completion:
        root = self._trace.root([*self._prompt, *self._tokens], len(self._prompt)) if self._trace else bytes(32)
        return Completion(reason, len(self._prompt), len(self._tokens), root)

    def _put(self, part: Piece | Completion | Exception) -> None:
        try:
            self._loop.call_soon_threadsafe(self._parts.put_nowait, part)
        except RuntimeError:  # the loop was closed meanwhile: nobody waits for this answer
            self._cancelled = True
