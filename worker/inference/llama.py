"""The float engine for CPUs: any GGUF model on llama.cpp, through xllamacpp.

Answers are the same for the same request on the same machine and build, and only there: the kernels that llama.cpp
picks by CPU, and the grouping of its sums, change the last bits. So its tier is FLOAT. One request runs at a time:
llama.cpp would batch several together, and then an answer would depend on its neighbours.
"""

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import xllamacpp  # type: ignore[import-untyped]
from blake3 import blake3

from core.jobs.request import JobRequest, Message, Sampling, Tier
from worker.inference.chat_template import ChatTemplate, ConversationRefused
from worker.inference.engine import Completion, FinishReason, ModelDescription, Piece
from worker.inference.errors import (
    ContextExceeded,
    EngineBusy,
    EngineFailed,
    ModelCorrupt,
    ModelTooLarge,
)
from worker.inference.gguf_header import GgufHeader, read_gguf_header

__all__ = ["LlamaEngine", "LlamaSettings", "available_memory_bytes", "load_llama"]

CONTEXT_TOKENS_DEFAULT = 4096
WAITING_MAX_DEFAULT = 8

_CONTEXT_STEP_TOKENS = 256  # llama.cpp rounds the context up to a multiple of this
_CACHE_VALUE_BYTES = 2  # keys and values are kept as f16
_WORKING_MEMORY_BYTES = 256 * 1024 * 1024  # compute buffers, vocabulary, allocator
_SEEDS = 2**32 - 1  # llama.cpp takes 32 bits, of which the highest value means "pick one"
_CONTROL_TOKEN = 3  # of tokenizer.ggml.token_type
_NOTHING = "(?!)"
_MEMORY_INFO = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class LlamaSettings:
    """How to load one model file.

    The context is `context_tokens_max` or the model's own, whichever is less, in steps of 256 tokens. More threads than
    free cores make llama.cpp very slow: its threads wait for each other by spinning. `waiting_max` requests may wait
    for the running one; `memory_bytes_max` is what the model may take.
    """

    path: Path
    model_id: str
    memory_bytes_max: int
    context_tokens_max: int = CONTEXT_TOKENS_DEFAULT
    threads: int = max(1, (os.cpu_count() or 2) // 2)
    waiting_max: int = WAITING_MAX_DEFAULT


def available_memory_bytes() -> int:
    """What this machine can spare without swapping."""
    for line in _MEMORY_INFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    raise EngineFailed(f"{_MEMORY_INFO} names no MemAvailable")


async def load_llama(settings: LlamaSettings) -> "LlamaEngine":
    """Load a model without blocking the event loop.

    Raises ModelNotFound, ModelCorrupt, ModelUnsupported or ModelTooLarge; each says what to change.
    """
    return await asyncio.to_thread(LlamaEngine, settings)


class LlamaEngine:
    """`worker.inference.engine.Engine` on llama.cpp. Construction blocks while the model loads: see `load_llama`."""

    def __init__(self, settings: LlamaSettings) -> None:
        header = read_gguf_header(settings.path)
        architecture = header.text("general.architecture")
        context = min(settings.context_tokens_max, header.integer(f"{architecture}.context_length"))
        context = max(_CONTEXT_STEP_TOKENS, context - context % _CONTEXT_STEP_TOKENS)
        _require_memory(header, context, settings.memory_bytes_max)
        self._template = ChatTemplate(
            header.text("tokenizer.chat_template"),
            bos_token=header.token("tokenizer.ggml.bos_token_id"),
            eos_token=header.token("tokenizer.ggml.eos_token_id"),
        )
        self._control = _control_tokens(header)
        self._model = ModelDescription(
            model_id=settings.model_id,
            model_hash=blake3().update_mmap(settings.path).digest(),
            tier=Tier.FLOAT,
            context_tokens=context,
            weights_bytes=header.file_bytes,
        )
        self._server = _load_server(settings, context)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"llama {settings.model_id}")
        self._places = settings.waiting_max + 1
        self._closed = False

    @property
    def model(self) -> ModelDescription:
        return self._model

    async def generate(
        self, request: JobRequest, salt: bytes | None = None, expected: Sequence[int] = ()
    ) -> AsyncGenerator[Piece | Completion, None]:
        """See `Engine.generate`. A prompt that is being read cannot be interrupted, only what is made from it."""
        if self._closed:
            raise EngineFailed("the engine is closed")
        if self._places == 0:
            raise EngineBusy(f"{self._model.model_id} has as many requests waiting as it lets wait")
        self._require_plain(request.messages)
        completion = _completion_request(self._template.render(request.messages), request.sampling)
        run = _Run(asyncio.get_running_loop(), self._free_place)
        self._places -= 1
        work = self._thread.submit(run.work, self._server, completion)
        work.add_done_callback(run.ended)
        try:
            async for chunk in run.chunks():
                for part in _parts(chunk):
                    yield part
        finally:
            run.stop.set()
            work.cancel()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
        del self._server

    def _require_plain(self, messages: Sequence[Message]) -> None:
        """llama.cpp reads a prompt's special tokens wherever they stand: a message that spells one could end its turn
        and speak in another role."""
        for index, message in enumerate(messages):
            spelled = self._control.search(message.content)
            if spelled is not None:
                raise ConversationRefused(
                    f"messages[{index}] holds {spelled[0]!r}, which this model reads as a control token: spell it "
                    "otherwise, or ask an exact model"
                )

    def _free_place(self) -> None:
        self._places += 1


class _Run:
    """One request on its way through the engine's thread: chunks come out on the event loop, in order.

    The queue needs no limit of its own: a request cannot yield more chunks than the tokens that it asks for.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_end: Callable[[], None]) -> None:
        self.stop = Event()
        self._loop = loop
        self._on_end = on_end
        self._chunks: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue()

    def work(self, server: Any, completion: dict[str, Any]) -> None:
        """In the engine's thread: blocks until the answer is complete or stopped."""
        if not self.stop.is_set():
            server.handle_completions(completion, self._on_chunk)

    def ended(self, _: "Future[None]") -> None:
        """In the engine's thread, or on the event loop for work that was cancelled before it began."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_end)
            self._loop.call_soon_threadsafe(self._chunks.put_nowait, None)

    async def chunks(self) -> AsyncGenerator[Mapping[str, Any], None]:
        """On the event loop. Raises EngineFailed when the work ended without a final chunk."""
        finished = False
        while (chunk := await self._chunks.get()) is not None:
            yield chunk
            finished = "error" in chunk or chunk["choices"][0]["finish_reason"] is not None
        if not finished:
            raise EngineFailed("the engine stopped before the answer was complete")

    def _on_chunk(self, chunk: Mapping[str, Any]) -> bool:
        """llama.cpp's callback; it swallows exceptions, and stops on True."""
        if self.stop.is_set() or self._loop.is_closed():
            return True
        self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)
        return False


def _parts(chunk: Mapping[str, Any]) -> list[Piece | Completion]:
    """What one chunk of llama.cpp's stream says; the last one has text, reason and usage together."""
    if "error" in chunk:
        message = str(chunk["error"].get("message"))
        if chunk["error"].get("type") == "exceed_context_size_error":
            raise ContextExceeded(f"the prompt is too long for the model: {message}")
        raise EngineFailed(message)
    choice = chunk["choices"][0]
    parts: list[Piece | Completion] = [Piece(choice["text"])] if choice["text"] else []
    if choice["finish_reason"] is not None:
        usage = chunk["usage"]
        reason = FinishReason(choice["finish_reason"])
        parts.append(Completion(reason, usage["prompt_tokens"], usage["completion_tokens"]))
    return parts


def _completion_request(prompt: str, sampling: Sampling) -> dict[str, Any]:
    """The request as llama.cpp takes it, with every default that could change the answer spelled out."""
    return {
        "prompt": prompt,
        "max_tokens": sampling.tokens_max,
        "temperature": sampling.temperature_milli / 1000,
        "top_p": sampling.top_p_milli / 1000,
        "top_k": sampling.top_k,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "seed": sampling.seed % _SEEDS,
        "stop": list(sampling.stop),
        "samplers": ["top_k", "top_p", "temperature"],
        "cache_prompt": False,  # a prompt read in two parts is summed in another order
        "stream": True,
    }


def _control_tokens(header: GgufHeader) -> re.Pattern[str]:
    """Matches the spelling of any control token."""
    tokens, kinds = (header.metadata.get(f"tokenizer.ggml.{name}") for name in ("tokens", "token_type"))
    if not isinstance(tokens, list) or not isinstance(kinds, list) or len(tokens) != len(kinds):
        raise ModelCorrupt(f"{header.path} does not say which of its tokens are control tokens")
    spellings = [str(token) for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL_TOKEN and token]
    return re.compile("|".join(map(re.escape, spellings)) or _NOTHING)


def _require_memory(header: GgufHeader, context_tokens: int, memory_bytes_max: int) -> None:
    """llama.cpp ends the process, or is ended, when memory runs out: so ask before it does."""
    architecture = header.text("general.architecture")
    layers = header.integer(f"{architecture}.block_count")
    width = header.integer(f"{architecture}.embedding_length")
    heads = header.integer(f"{architecture}.attention.head_count")
    shared = header.metadata.get(f"{architecture}.attention.head_count_kv", heads)
    cached_heads = max(one for one in shared if isinstance(one, int)) if isinstance(shared, list) else shared
    if heads < 1 or not isinstance(cached_heads, int):
        raise ModelCorrupt(f"{header.path}: {heads} attention heads, {cached_heads!r} of them cached")
    cache_bytes = 2 * layers * context_tokens * (width // heads) * cached_heads * _CACHE_VALUE_BYTES
    needed = header.file_bytes + cache_bytes + _WORKING_MEMORY_BYTES
    if needed > memory_bytes_max:
        raise ModelTooLarge(
            f"{header.path} needs about {needed >> 20} MiB with a context of {context_tokens} tokens, and "
            f"{memory_bytes_max >> 20} MiB are free: take a smaller model or a shorter context"
        )


def _load_server(settings: LlamaSettings, context_tokens: int) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(settings.path)
    parameters.n_ctx = context_tokens
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = settings.threads
    parameters.cpuparams_batch.n_threads = settings.threads
    parameters.fit_params = False  # it would shorten the context on its own
    parameters.ctx_shift = False  # it would forget the start of the conversation on its own
    parameters.cache_ram_mib = 0
    parameters.warmup = False
    parameters.verbosity = -1
    # The library insists on an HTTP server: it listens on a socket that nobody else can reach and that is gone at once.
    folder = tempfile.mkdtemp(prefix="warpgrid-llama-")
    parameters.hostnames = [os.path.join(folder, "llama.sock")]  # the ending makes it a Unix socket
    parameters.n_threads_http = 1
    try:
        return xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise ModelCorrupt(f"llama.cpp cannot load {settings.path}: {error}") from error
    finally:
        shutil.rmtree(folder)
