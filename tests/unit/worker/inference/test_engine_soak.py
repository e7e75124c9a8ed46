"""10,000 requests of every kind through one engine: the right answers, every cache page back, memory flat."""

import asyncio
import gc
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from core.jobs.request import JobRequest, Message, RequestInvalid, Role, Sampling, Tier
from tests.unit.worker.inference.exact_models import write_model
from worker.inference.engine import Completion, Piece
from worker.inference.errors import ContextExceeded, TokenOutOfRange
from worker.inference.exact.engine import ExactEngine, ExactSettings, load_exact

pytestmark = pytest.mark.soak

REQUESTS = 10_000
WARM_UP = 1_000
TOGETHER = 25
GROWTH_BYTES_MAX = 4 << 20
PAGE_BYTES = 4096
CACHE_PAGES = 32
QUESTIONS = ("short", "a longer question " * 5, "sampled", "\u00e9\u4e16 \U0001f30d", "1", "the last of them " * 3)
KINDS = ("answered", "answered", "answered", "closed", "cancelled", "too long", "not unicode", "out of vocabulary")


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def ask(question: str, index: int = 0, tokens_max: int = 6) -> JobRequest:
    options = Sampling(tokens_max=tokens_max, temperature_milli=900 * (index % 2), seed=index)
    return JobRequest("bytes", (Message(Role.USER, question),), options, Tier.EXACT)


async def read(engine: ExactEngine, request: JobRequest) -> tuple[str, Completion]:
    *pieces, completion = [part async for part in engine.generate(request)]
    assert isinstance(completion, Completion)
    return "".join(piece.text for piece in pieces if isinstance(piece, Piece)), completion


async def closed_early(engine: ExactEngine) -> None:
    stream = engine.generate(ask("to be cut off", tokens_max=120))
    await anext(stream)
    await stream.aclose()


async def cancelled(engine: ExactEngine, turns: int) -> None:
    task = asyncio.create_task(read(engine, ask("to be cancelled", tokens_max=120)))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def serve(engine: ExactEngine, kind: str, number: int, expected: list[tuple[str, Completion]]) -> None:
    if kind == "answered":
        index = number % len(expected)
        assert await read(engine, ask(QUESTIONS[index], index)) == expected[index]
    elif kind == "closed":
        await closed_early(engine)
    elif kind == "cancelled":
        await cancelled(engine, number % 40)
    else:
        question, error = {
            "too long": ("x" * (300 if number % 2 else 100_000), ContextExceeded),
            "not unicode": ("half a pair: \ud83d", RequestInvalid),
            "out of vocabulary": ("zz", TokenOutOfRange),
        }[kind]
        with pytest.raises(error):
            await read(engine, ask(question))


async def test_ten_thousand_requests_leave_nothing_behind(tmp_path: Path) -> None:
    model = write_model(tmp_path / "bytes", 5, merges=[("z", "z")])
    cache_tokens = CACHE_PAGES * 64
    settings = ExactSettings(
        model.directory, "bytes", 1 << 30, cache_tokens=cache_tokens, rows_max=32, running_max=8, threads=1
    )
    engine = await load_exact(settings)
    expected = [await read(engine, ask(question, index)) for index, question in enumerate(QUESTIONS)]
    generator = np.random.default_rng(71)
    served: Counter[str] = Counter()
    resident = 0
    for first in range(0, REQUESTS, TOGETHER):
        if first == WARM_UP:
            resident = resident_bytes()
        kinds = generator.choice(KINDS, TOGETHER).tolist()
        async with asyncio.TaskGroup() as group:
            for number, kind in enumerate(kinds, first):
                group.create_task(serve(engine, kind, number, expected))
        served.update(kinds)
    growth = resident_bytes() - resident
    await engine.close()
    assert engine.free_pages == CACHE_PAGES
    assert served.total() == REQUESTS
    assert set(served) == set(KINDS)
    assert growth < GROWTH_BYTES_MAX, f"{growth} bytes more than after {WARM_UP} requests ({resident})"
    logging.getLogger(__name__).info("%s; resident %d bytes, growth %d", dict(served), resident, growth)
