"""The exact engine as workers use it: requests in, text out, many at a time, each answer the same on every machine.

Owns the thread that steps the batch, and the way from text to tokens and back. The arithmetic is the executor's, the
order of work `batching`'s, the commitment whoever implements `TraceSink`.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator
from collections.abc import Sequence as Tokens
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread
from typing import Final

import structlog

from core.jobs.request import JobRequest, Tier
from worker.inference.engine import Completion, ModelDescription, Piece
from worker.inference.errors import (
    ContextExceeded,
    EngineFailed,
    InferenceError,
    ModelTooLarge,
    TermsMismatch,
    TokenOutOfRange,
)
from worker.inference.exact.answer import Answer
from worker.inference.exact.batching import Batcher, Executor, Sequence, pages_for
from worker.inference.exact.devices import DeviceChoice, open_executor
from worker.inference.exact.model import ExactModel
from worker.inference.exact.native import PAGE_POSITIONS
from worker.inference.exact.ordering import model_hash, sampling_of, terms_of
from worker.inference.exact.tokenizer import ChatTokenizer
from worker.inference.exact.trace_sink import TraceFactory, TraceSink

__all__ = ["ExactEngine", "ExactSettings", "load_exact"]

_CHARACTERS_PER_TOKEN_MAX: Final = 256  # no vocabulary has longer tokens; bounds the work on a hopeless prompt

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ExactSettings:
    """How to serve one model directory.

    The cache holds `cache_tokens` positions of all requests together; a request reserves its prompt and its longest
    answer. A step computes at most `rows_max` tokens; 0 takes what suits the device. `threads` 0 takes every core of a
    CPU. `memory_bytes_max` is what weights and cache may take of this machine's memory; a GPU's own is asked.
    """

    path: Path
    model_id: str
    memory_bytes_max: int
    context_tokens_max: int = 8_192
    cache_tokens: int = 16_384
    running_max: int = 64
    waiting_max: int = 256
    rows_max: int = 0
    threads: int = 0
    device: DeviceChoice = DeviceChoice.AUTO


async def load_exact(settings: ExactSettings, traces: TraceFactory | None = None) -> "ExactEngine":
    """Open, verify and pack a model without blocking the event loop.

    Raises ModelNotFound, ModelCorrupt, ModelUnsupported, ModelTooLarge or EngineUnavailable.
    """
    return await asyncio.to_thread(_load, settings, traces)


def _load(settings: ExactSettings, traces: TraceFactory | None) -> "ExactEngine":
    model = ExactModel(settings.path)
    pages = pages_for(settings.cache_tokens)
    _require_memory(model, pages, settings.memory_bytes_max)
    model.verify()  # an answer from damaged weights is a wrong answer under this model's name
    threads = settings.threads or os.cpu_count() or 1
    executor = open_executor(model, settings.device, threads=threads, rows_max=settings.rows_max, pages=pages)
    return ExactEngine(model, executor, settings, traces)


class ExactEngine:
    """`worker.inference.engine.Engine` over an executor, which it closes."""

    def __init__(
        self, model: ExactModel, executor: Executor, settings: ExactSettings, traces: TraceFactory | None = None
    ) -> None:
        self._tokenizer = ChatTokenizer(model.tokenizer, model.chat_template)
        cached = executor.pages * PAGE_POSITIONS
        self._model = ModelDescription(
            model_id=settings.model_id,
            model_hash=model_hash(model.root, model.header),
            tier=Tier.EXACT,
            context_tokens=min(model.header.context_max, settings.context_tokens_max, cached),
            weights_bytes=sum(spec.bytes for spec in model.specs),
        )
        self._header = model.header
        self._traces = traces
        self._executor = executor
        self._batcher = Batcher(executor, running_max=settings.running_max, waiting_max=settings.waiting_max)
        self._condition = Condition()
        self._closing = False
        self._thread = Thread(target=self._serve, name=f"exact {settings.model_id}", daemon=True)
        self._thread.start()

    @property
    def model(self) -> ModelDescription:
        return self._model

    @property
    def free_pages(self) -> int:
        """Cache pages that no request holds; all of them when nothing runs."""
        return self._batcher.free_pages

    def generate(
        self, request: JobRequest, salt: bytes | None = None, expected: Tokens[int] = ()
    ) -> AsyncGenerator[Piece | Completion, None]:
        """See `Engine.generate`. Sampling in thousandths becomes the specification's integers by `sampling_of`. Exact
        terms that are not those of the request are refused with TermsMismatch."""
        trace = None
        if salt is not None and self._traces is not None:
            trace = self._traces(request, salt, sampling_of(request.sampling, self._header.vocabulary))
        return self.run(request, salt, trace, expected)

    async def run(
        self, request: JobRequest, salt: bytes | None, trace: TraceSink | None, expected: Tokens[int] = ()
    ) -> AsyncGenerator[Piece | Completion, None]:
        """`generate`, with the trace going to a sink of the caller's."""
        prompt = await asyncio.to_thread(self._encode, request)
        length_max = min(self._header.context_max, len(prompt) + request.sampling.tokens_max)
        if len(prompt) >= length_max or length_max > self._model.context_tokens:  # cut short, it were another answer
            raise ContextExceeded(
                f"the prompt has {len(prompt)} tokens and the answer may have {request.sampling.tokens_max}; both "
                f"together may have {self._model.context_tokens}"
            )
        if any(not 0 <= token < self._header.vocabulary for token in expected):
            raise TokenOutOfRange(f"the expected answer has tokens beyond the vocabulary's {self._header.vocabulary}")
        sampling = sampling_of(request.sampling, self._header.vocabulary)
        if request.exact is not None and (salt is None or request.exact != terms_of(prompt, sampling, salt)):
            raise TermsMismatch("the order's tokens or sampling are not those of its text for this model and salt")
        answer = Answer(
            asyncio.get_running_loop(),
            self._tokenizer,
            request.sampling.stop,
            self._header.end_tokens,
            prompt,
            trace,
        )
        self._submit(Sequence(list(prompt), length_max, sampling, answer, deque(expected)))
        try:
            async for part in answer.parts():
                yield part
        finally:
            answer.cancel()

    async def close(self) -> None:
        with self._condition:
            already, self._closing = self._closing, True
            self._condition.notify()
        if already:
            return
        self._batcher.refuse_waiting(EngineFailed("the engine is closed"))
        await asyncio.to_thread(self._thread.join)
        self._executor.close()

    def _encode(self, request: JobRequest) -> list[int]:
        length = sum(len(one.content) for one in request.messages)
        if length > self._model.context_tokens * _CHARACTERS_PER_TOKEN_MAX:
            raise ContextExceeded(
                f"the prompt has {length} characters; the model's context is {self._model.context_tokens} tokens"
            )
        return self._tokenizer.encode_chat(request.messages)

    def _submit(self, sequence: Sequence) -> None:
        with self._condition:
            if self._closing:
                raise EngineFailed("the engine is closed")
            self._batcher.submit(sequence)
            self._condition.notify()

    def _serve(self) -> None:
        """The engine's thread: steps while there is work."""
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closing or not self._batcher.idle)
            try:
                while self._batcher.step():
                    pass
            except Exception as error:  # noqa: BLE001 - a process edge: the end of this thread; whoever waits hears of it
                _log.exception("engine_step_failed", model=self._model.model_id)
                self._batcher.fail_all(
                    error if isinstance(error, InferenceError) else EngineFailed(f"the engine failed: {error!r}")
                )
            if self._closing and self._batcher.idle:
                return


def _require_memory(model: ExactModel, pages: int, memory_bytes_max: int) -> None:
    header = model.header
    weights = sum(spec.bytes for spec in model.specs)
    position = header.layers * header.key_value_heads * (2 * header.head_width + 20)
    needed = 2 * weights + pages * PAGE_POSITIONS * position  # mapped once, packed once
    if needed > memory_bytes_max:
        raise ModelTooLarge(
            f"{model.name} needs {needed >> 20} MiB with a cache of {pages * PAGE_POSITIONS} tokens, and "
            f"{memory_bytes_max >> 20} MiB are free: take a smaller model or cache"
        )
