"""Honest answers on the CPU and on a GPU: equal trace roots, whatever the batch; and what replaying them costs.

    python -m tests.bench.inference_honest compare MODEL-DIRECTORY [PROCESSES [ANSWERS]]
    python -m tests.bench.inference_honest threads MODEL-DIRECTORY [PROCESSES [ANSWERS]]
    python -m tests.bench.inference_honest replay MODEL-DIRECTORY

`compare` draws batches of 1 to 64 requests with ragged prompts and samplings, runs each through the batching of both
devices (other step sizes, so other cuts into prefill and decoding; one or two CPU threads), and compares every answer's
tokens and trace root. `threads` does so for one and two threads of a CPU, where there is no GPU. `replay` times an
answer of 256 tokens, made token by token, against its replay.
"""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np

from tests.bench.inference import device, record
from worker.inference.exact.batching import Batcher, Executor, Sequence, pages_for
from worker.inference.exact.devices import DeviceChoice, open_executor
from worker.inference.exact.model import ExactModel
from worker.inference.exact.ordering import sampling_words
from worker.inference.exact.sampling import Sampling
from worker.inference.exact.tracing import TracedRows, Tracing
from worker.inference.proof_engine import ProofEngine
from zk.arithmetic import trace_shape
from zk.replay import replay
from zk.trace import PositionsBuilder, Statement, TraceShape

__all__ = ["main"]

ANSWERS: Final = 10_000
PROCESSES: Final = 8
BATCH_MAX: Final = 64
PROMPT_MAX: Final = 24
ANSWER_MAX: Final = 6
PAGES: Final = 128
CPU_ROWS: Final = 96
OTHER_CPU_ROWS: Final = 70
GPU_ROWS: Final = (512, 80)
REPLAY_TOKENS: Final = 256
REPLAY_PROMPT_TOKENS: Final = 32


class Recorder:
    """A `batching.Consumer` that keeps what an answer commits to."""

    cancelled = False
    tracing = Tracing.ROOTS

    def __init__(self, shape: TraceShape, prompt: tuple[int, ...]) -> None:
        self.prompt = prompt
        self.tokens: list[int] = []
        self._builder = PositionsBuilder(shape)
        self._pending: TracedRows | None = None

    def computed(self, rows: TracedRows) -> None:
        """Takes the roots a step later, as servers do: a GPU hashes meanwhile."""
        self._take_pending()
        self._pending = rows

    def _take_pending(self) -> None:
        if self._pending is not None:
            self._builder.add(self._pending.first_position, self._pending.roots())
            self._pending = None

    def take(self, token: int, last: bool) -> bool:
        self.tokens.append(token)
        return last

    def fail(self, error: Exception) -> None:
        raise error

    def root(self, model_root: bytes, sampling: Sampling) -> bytes:
        self._take_pending()
        statement = Statement(model_root, bytes(32), sampling_words(sampling), self.prompt, tuple(self.tokens))
        return self._builder.finish(statement)


@dataclass(frozen=True)
class Request:
    prompt: tuple[int, ...]
    length_max: int
    sampling: Sampling


def drawn_batch(generator: np.random.Generator, vocabulary: int) -> list[Request]:
    batch = []
    for _ in range(int(generator.integers(1, BATCH_MAX + 1))):
        prompt = tuple(generator.integers(0, vocabulary, int(generator.integers(1, PROMPT_MAX + 1))).tolist())
        sampling = Sampling(
            int(generator.choice([0, 30_000, 65_536])),
            int(generator.choice([0, 40])),
            int(generator.integers(40_000, 65_537)),
            int(generator.integers(1 << 60)),
        )
        batch.append(Request(prompt, len(prompt) + int(generator.integers(1, ANSWER_MAX + 1)), sampling))
    return batch


def answers(executor: Executor, shape: TraceShape, requests: list[Request]) -> list[Recorder]:
    batcher = Batcher(executor, running_max=BATCH_MAX, waiting_max=BATCH_MAX)
    consumers = [Recorder(shape, request.prompt) for request in requests]
    for request, consumer in zip(requests, consumers, strict=True):
        batcher.submit(Sequence(list(request.prompt), request.length_max, request.sampling, consumer))
    while batcher.step():
        pass
    return consumers


def opened_pair(mode: str, model: ExactModel, seed: int) -> tuple[Executor, Executor]:
    """Two executors whose answers must be equal."""
    if mode == "threads":
        one = open_executor(model, DeviceChoice.CPU, threads=1, rows_max=CPU_ROWS, pages=PAGES)
        return one, open_executor(model, DeviceChoice.CPU, threads=2, rows_max=OTHER_CPU_ROWS, pages=PAGES)
    cpu = open_executor(model, DeviceChoice.CPU, threads=1 + seed % 2, rows_max=CPU_ROWS, pages=PAGES)
    rows_max = GPU_ROWS[seed // 2 % 2]
    return cpu, open_executor(model, DeviceChoice.GPU, rows_max=rows_max, pages=PAGES, device=device())


def compare_some(mode: str, directory: Path, seed: int, count: int) -> dict[str, int]:
    """At least `count` answers. Raises AssertionError at the first that differs."""
    model = ExactModel(directory)
    shape = trace_shape(model.header)
    done = {"answers": 0, "positions": 0, "batches": 0}
    first, second = opened_pair(mode, model, seed)
    with closing(first), closing(second):
        generator = np.random.default_rng([61, seed])
        while done["answers"] < count:
            requests = drawn_batch(generator, model.header.vocabulary)
            pairs = zip(requests, answers(first, shape, requests), answers(second, shape, requests), strict=True)
            for number, (request, ours, theirs) in enumerate(pairs):
                where = f"seed {seed}, batch {done['batches']}, request {number}"
                assert ours.tokens == theirs.tokens, where
                assert ours.root(model.root, request.sampling) == theirs.root(model.root, request.sampling), where
                done["answers"] += 1
                done["positions"] += len(ours.prompt) + len(ours.tokens) - 1
            done["batches"] += 1
    return done


def compare(mode: str, directory: Path, processes: int, count: int) -> Iterator[dict[str, Any]]:
    started = time.perf_counter()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        each = -(-count // processes)
        arguments = [mode] * processes, [directory] * processes, range(processes), [each] * processes
        parts = list(pool.map(compare_some, *arguments))
    totals = {name: sum(part[name] for part in parts) for name in parts[0]}
    where = {"device": "CPU"} if mode == "threads" else {}
    yield {
        **where,
        "mode": f"honest {mode}",
        **totals,
        "differences": 0,
        "seconds": round(time.perf_counter() - started, 1),
    }


def replay_cost(directory: Path) -> Iterator[dict[str, Any]]:
    model = ExactModel(directory)
    generator = np.random.default_rng(8)
    prompt = tuple(generator.integers(0, model.header.vocabulary, REPLAY_PROMPT_TOKENS).tolist())
    tokens = REPLAY_PROMPT_TOKENS + REPLAY_TOKENS
    shape, pages = trace_shape(model.header), pages_for(tokens)
    executor = open_executor(model, DeviceChoice.GPU, rows_max=512, pages=pages, device=device())
    engine = ProofEngine(model, model.root, tokens_max=tokens, chunk_rows=512, device=DeviceChoice.GPU)
    seconds: dict[str, list[float]] = {"generate": [], "generate_traced": [], "replay": []}
    for _ in range(3):
        started = time.perf_counter()
        engine.generate(prompt, Sampling(), REPLAY_TOKENS)
        seconds["generate"].append(time.perf_counter() - started)
        started = time.perf_counter()
        (answered,) = answers(executor, shape, [Request(prompt, tokens, Sampling())])
        root = answered.root(model.root, Sampling())
        seconds["generate_traced"].append(time.perf_counter() - started)
        words, answer = sampling_words(Sampling()), tuple(answered.tokens)
        statement = Statement(model.root, bytes(32), words, prompt, answer)
        started = time.perf_counter()
        verdict = replay(engine, statement, root, answer)
        seconds["replay"].append(time.perf_counter() - started)
        assert verdict.accepted, verdict.reason
    engine.close()
    executor.close()
    best = {f"{name}_ms": round(1000 * min(times), 2) for name, times in seconds.items()}
    ratio = best["generate_traced_ms"] / best["replay_ms"]
    yield {"mode": "replay", **best, "cheaper": round(ratio, 2)}


def main() -> None:
    mode, directory, *numbers = sys.argv[1:]
    processes, count = (*map(int, numbers), *(PROCESSES, ANSWERS)[len(numbers) :])
    folder = Path(directory)
    for result in replay_cost(folder) if mode == "replay" else compare(mode, folder, processes, count):
        record({"model": ExactModel(folder).name, **result})


if __name__ == "__main__":
    main()
