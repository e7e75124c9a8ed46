"""The exact engine end to end on small random models: the reference's tokens, whatever else runs beside them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from core.jobs.request import JobRequest, Message, Role, Sampling, Tier
from tests.unit.worker.inference.exact_models import END_TOKEN, write_model
from worker.inference.engine import Completion, Engine, FinishReason, Piece
from worker.inference.errors import (
    ContextExceeded,
    EngineBusy,
    EngineFailed,
    ModelCorrupt,
    ModelTooLarge,
    TermsMismatch,
    TokenOutOfRange,
)
from worker.inference.exact import reference
from worker.inference.exact.engine import ExactEngine, ExactSettings, load_exact
from worker.inference.exact.model import ExactModel
from worker.inference.exact.ordering import exact_terms, model_hash, sampling_of
from worker.inference.exact.sampling import GREEDY, choose
from worker.inference.exact.sampling import Sampling as ExactSampling
from worker.inference.exact.tokenizer import ChatTokenizer
from worker.inference.exact.trace_sink import TraceSink
from worker.inference.exact.tracing import TracedRows, Tracing
from worker.inference.proof_trace import recording

GIB = 2**30
SALT = b"\x07" * 32


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ExactModel:
    return write_model(tmp_path_factory.mktemp("models") / "bytes", 5)


def settings(model: ExactModel, **changes: int) -> ExactSettings:
    defaults = {"memory_bytes_max": GIB, "cache_tokens": 1024, "rows_max": 32, "running_max": 8, "threads": 1}
    return ExactSettings(model.directory, "bytes", **{**defaults, **changes})


@pytest_asyncio.fixture
async def engine(model: ExactModel) -> AsyncIterator[ExactEngine]:
    loaded = await load_exact(settings(model))
    yield loaded
    await loaded.close()


def ask(question: str, **sampling: object) -> JobRequest:
    options = Sampling(**{"tokens_max": 24, **sampling})  # type: ignore[arg-type]
    return JobRequest("bytes", (Message(Role.USER, question),), options, Tier.EXACT)


async def answer(
    engine: Engine, request: JobRequest, salt: bytes | None = None, tokens: Sequence[int] = ()
) -> tuple[str, Completion]:
    *pieces, completion = [part async for part in engine.generate(request, salt, tokens)]
    assert isinstance(completion, Completion)
    return "".join(piece.text for piece in pieces if isinstance(piece, Piece)), completion


def expected(model: ExactModel, request: JobRequest) -> tuple[list[int], list[int]]:
    """Prompt and answer by the reference, one token after the other."""
    prompt = ChatTokenizer(model.tokenizer, model.chat_template).encode_chat(request.messages)
    sampling = sampling_of(request.sampling, model.header.vocabulary)
    cache = reference.Cache(model.header)
    tokens = list(prompt)
    logits = reference.forward(model, cache, tokens).logits[-1]
    while len(tokens) - len(prompt) < request.sampling.tokens_max:
        tokens.append(choose(logits, sampling, len(tokens)))
        if tokens[-1] == END_TOKEN:
            break
        logits = reference.forward(model, cache, tokens[-1:]).logits[-1]
    return prompt, tokens[len(prompt) :]


REQUESTS = [
    ask("short"),
    ask("a longer question " * 6, tokens_max=40),
    ask("sampled", temperature_milli=900, seed=7),
    ask("truncated", temperature_milli=1500, top_p_milli=700, seed=8),
    ask("the best few", temperature_milli=1200, top_k=9, seed=2**63 - 1, tokens_max=60),
    ask("\u00e9\u4e16 \U0001f30d", tokens_max=1),
]


async def test_answers_are_the_references(model: ExactModel, engine: ExactEngine) -> None:
    tokenizer = ChatTokenizer(model.tokenizer, model.chat_template)
    together = await asyncio.gather(*(answer(engine, request) for request in REQUESTS * 3))
    for request, (text, completion) in zip(REQUESTS * 3, together, strict=True):
        prompt, tokens = expected(model, request)
        assert text == tokenizer.decode(tokens)
        reason = FinishReason.STOP if tokens[-1] == END_TOKEN else FinishReason.LENGTH
        assert completion == Completion(reason, len(prompt), len(tokens))
    await engine.close()
    assert engine.free_pages == 16


async def test_describes_itself(model: ExactModel, engine: ExactEngine) -> None:
    assert engine.model.tier == Tier.EXACT
    assert engine.model.model_hash == model_hash(model.root, model.header) != model.root


async def test_an_order_in_tokens_must_be_that_of_its_text(model: ExactModel, engine: ExactEngine) -> None:
    request = ask("short", temperature_milli=900, seed=7)
    terms = exact_terms(model, request, SALT)
    assert await answer(engine, replace(request, exact=terms), SALT) == await answer(engine, request)
    for salt in (None, b"\x06" * 32):
        with pytest.raises(TermsMismatch):
            await answer(engine, replace(request, exact=terms), salt)
    for wrong in (
        replace(terms, prompt_hash=bytes(32)),
        replace(terms, prompt_tokens=terms.prompt_tokens + 1),
        replace(terms, sampling=(0, 0, 65_536, 7, 0)),
    ):
        with pytest.raises(TermsMismatch):
            await answer(engine, replace(request, exact=wrong), SALT)


async def test_context(engine: ExactEngine) -> None:
    assert engine.model.context_tokens == 256


async def test_a_stop_string_ends_the_answer_before_itself(engine: ExactEngine) -> None:
    whole, _ = await answer(engine, ask("short"))
    stop = whole[5:8]
    text, completion = await answer(engine, ask("short", stop=(stop, "never to be found")))
    assert text == whole[: whole.find(stop)]
    assert completion.finish_reason == FinishReason.STOP
    assert completion.output_tokens < 24


async def test_a_closed_generator_frees_its_place(engine: ExactEngine) -> None:
    for _ in range(40):
        generator = engine.generate(ask("to be cut off", tokens_max=150))
        first = await anext(generator)
        assert isinstance(first, Piece)
        await generator.aclose()
    text, _ = await answer(engine, ask("short"))
    assert text == (await answer(engine, ask("short")))[0]
    await engine.close()
    assert engine.free_pages == 16


async def test_too_long_is_refused_before_it_starts(engine: ExactEngine) -> None:
    for length in (300, 200_000):
        with pytest.raises(ContextExceeded):
            await answer(engine, ask("x" * length))


async def test_an_answer_ends_where_the_context_does(engine: ExactEngine) -> None:
    request = ask("y" * 200, tokens_max=1000)
    _, completion = await answer(engine, request)
    assert completion.input_tokens + completion.output_tokens <= 256
    if completion.finish_reason == FinishReason.LENGTH:
        assert completion.input_tokens + completion.output_tokens == 256


async def test_waiting_is_bounded_and_closing_refuses(model: ExactModel) -> None:
    engine = await load_exact(settings(model, running_max=1, waiting_max=2))
    tasks = [asyncio.create_task(answer(engine, ask("busy", tokens_max=200))) for _ in range(8)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert any(isinstance(one, EngineBusy) for one in results)
    assert any(isinstance(one, tuple) for one in results)
    await engine.close()
    await engine.close()
    assert engine.free_pages == 16
    with pytest.raises(EngineFailed):
        await answer(engine, ask("too late"))


class KeptTrace(TraceSink):
    tracing = Tracing.ROWS

    def __init__(self) -> None:
        self.boundaries: list[NDArray[np.int32]] = []
        self.kv_rows: list[bytes] = []
        self.tokens: list[int] = []

    def computed(self, rows: TracedRows) -> None:
        assert rows.first_position == len(self.boundaries)
        self.boundaries += list(rows.boundaries)
        self.kv_rows += [row.tobytes() for row in rows.kv_rows]

    def root(self, tokens: list[int], prompt_tokens: int) -> bytes:
        self.tokens = tokens
        return bytes([prompt_tokens]) * 32


async def test_the_trace_is_complete_and_the_references(model: ExactModel) -> None:
    kept: list[KeptTrace] = []
    asked = ask("traced " * 12)

    def make(request: JobRequest, salt: bytes, sampling: ExactSampling) -> TraceSink:
        assert (request, salt, sampling) == (asked, SALT, GREEDY)
        kept.append(KeptTrace())
        return kept[-1]

    engine = await load_exact(settings(model), make)
    _, completion = await answer(engine, asked, SALT)
    await engine.close()
    (trace,) = kept
    assert completion.trace_root == bytes([completion.input_tokens]) * 32
    assert len(trace.tokens) == completion.input_tokens + completion.output_tokens
    assert completion.tokens == tuple(trace.tokens[completion.input_tokens :])
    cache = reference.Cache(model.header)
    whole = reference.forward(model, cache, trace.tokens[:-1])
    assert np.array_equal(np.stack(trace.boundaries).swapaxes(0, 1), whole.residuals)
    for position, row in enumerate(trace.kv_rows):
        assert row == b"".join(cache.row_bytes(layer, position) for layer in range(model.header.layers))


async def test_a_known_answer_is_checked_like_a_prompt(model: ExactModel) -> None:
    """Whatever is expected, text, tokens and trace are those of an engine that expects nothing."""
    engine = await load_exact(settings(model, rows_max=11), recording(model))
    for request in REQUESTS:
        plain = await answer(engine, request, b"\x09" * 32)
        tokens = plain[1].tokens
        wrong = [
            tuple(token if at != spoilt else (token + 1) % 258 for at, token in enumerate(tokens))
            for spoilt in {0, len(tokens) // 2, len(tokens) - 1}
        ]
        for guess in (tokens, tokens[:-1], tokens[:1], (*tokens, 7, 8), (5,) * 80, *wrong):
            assert await answer(engine, request, b"\x09" * 32, guess) == plain
        assert (await answer(engine, request, b"\x0a" * 32))[1].trace_root != plain[1].trace_root
    with pytest.raises(TokenOutOfRange):
        await answer(engine, REQUESTS[0], None, (258,))
    await engine.close()
    assert engine.free_pages == 16


async def test_an_engine_with_a_small_cache_refuses_what_it_would_cut_short(model: ExactModel) -> None:
    """The context is the model's: a worker with less memory must not give another answer."""
    engine = await load_exact(settings(model, cache_tokens=64))
    with pytest.raises(ContextExceeded):
        await answer(engine, ask("short", tokens_max=64))
    assert (await answer(engine, ask("short", tokens_max=24)))[1].output_tokens
    await engine.close()


async def test_a_damaged_or_too_large_model_is_not_served(model: ExactModel, tmp_path: Path) -> None:
    with pytest.raises(ModelTooLarge):
        await load_exact(settings(model, memory_bytes_max=1000))
    damaged = write_model(tmp_path / "damaged", 6)
    weights = tmp_path / "damaged" / "weights.bin"
    content = bytearray(weights.read_bytes())
    content[40] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelCorrupt, match=r"embedding\.weight"):
        await load_exact(settings(damaged))
