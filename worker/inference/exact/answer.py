"""One answer on its way from the engine's thread to the event loop that asked for it.

Owns everything that happens to a token after it is chosen: text, stop strings, the end, usage. It decides the end in
the engine's thread, so that an answer, its token count and its trace end at the same token however busy the loop is.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from worker.inference.engine import Completion, FinishReason, Piece
from worker.inference.exact.tokenizer import ChatTokenizer, TokenStream
from worker.inference.exact.trace_sink import TraceSink
from worker.inference.exact.tracing import TracedRows, Tracing
from worker.inference.stop_strings import StopStrings

__all__ = ["Answer", "AnswerText", "whole_text"]


class AnswerText:
    """From tokens to an answer's text, and where it ends: after an end token, before a stop string, or at the last
    token that is allowed."""

    def __init__(self, tokenizer: ChatTokenizer, stop: Sequence[str], end_tokens: Sequence[int]) -> None:
        self._text = TokenStream(tokenizer)
        self._stop = StopStrings(stop)
        self._end_tokens = frozenset(end_tokens)

    def take(self, token: int, last: bool) -> tuple[str, FinishReason | None]:
        """The text that has become certain with this token, and why the answer ends with it, if it does."""
        ended = token in self._end_tokens
        text = self._stop.feed(self._text.feed(token))
        if not self._stop.found and (ended or last):
            text += self._stop.feed(self._text.finish())
        stopped = ended or self._stop.found
        if not self._stop.found and (ended or last):
            text += self._stop.finish()
        return text, FinishReason.STOP if stopped else FinishReason.LENGTH if last else None


def whole_text(text: AnswerText, tokens: Sequence[int], tokens_max: int) -> str | None:
    """The text of a whole answer; None when an answer does not end with the last of these tokens, or ends before."""
    parts = []
    for number, token in enumerate(tokens, 1):
        part, reason = text.take(token, number == tokens_max)
        parts.append(part)
        if reason is not None:
            return "".join(parts) if number == len(tokens) else None
    return None


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
        self._text = AnswerText(tokenizer, stop, end_tokens)
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
    def tracing(self) -> Tracing:
        return Tracing.OFF if self._trace is None else self._trace.tracing

    def computed(self, rows: TracedRows) -> None:
        assert self._trace is not None
        self._trace.computed(rows)

    def take(self, token: int, last: bool) -> bool:
        self._tokens.append(token)
        text, reason = self._text.take(token, last)
        if text:
            self._put(Piece(text))
        if reason is not None:
            self._put(self._completion(reason))
        return reason is not None

    def fail(self, error: Exception) -> None:
        self._put(error)

    def _completion(self, reason: FinishReason) -> Completion:
        used = (reason, len(self._prompt), len(self._tokens))
        if self._trace is None:
            return Completion(*used)
        root = self._trace.root([*self._prompt, *self._tokens], len(self._prompt))
        return Completion(*used, root, tuple(self._tokens))

    def _put(self, part: Piece | Completion | Exception) -> None:
        try:
            self._loop.call_soon_threadsafe(self._parts.put_nowait, part)
        except RuntimeError:  # the loop was closed meanwhile: nobody waits for this answer
            self._cancelled = True
