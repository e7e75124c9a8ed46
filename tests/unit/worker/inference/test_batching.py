"""The batcher: every sequence gets the tokens it would get alone, pages never leak, and waiting is bounded."""

import numpy as np
import pytest

from tests.unit.worker.inference.random_models import BASE_HEADER
from worker.inference.errors import ContextExceeded, EngineBusy, EngineFailed
from worker.inference.exact.batching import Batcher, PageAllocator, Sequence
from worker.inference.exact.native import PAGE_POSITIONS, Forward, Rows
from worker.inference.exact.sampling import GREEDY
from worker.inference.exact.tracing import HashedPositions, TracedRows, Tracing


class FakeExecutor:
    """A model whose next token is a hash of the sequence so far, read back from its cache pages."""

    def __init__(self, pages: int, rows_max: int = 16) -> None:
        self.header, self.pages, self.rows_max = BASE_HEADER, pages, rows_max
        self.cache = np.full((pages, PAGE_POSITIONS), -1, np.int64)
        self.broken = False

    def forward(self, rows: Rows, *, trace: Tracing = Tracing.OFF) -> Forward:
        assert len(rows.tokens) <= self.rows_max
        if self.broken:
            raise EngineFailed("broken on purpose")
        logits = np.zeros((len(rows.logit_rows), self.header.vocabulary), np.int32)
        for row, (token, position) in enumerate(zip(rows.tokens, rows.positions, strict=True)):
            pages = rows.pages[rows.sequences[row]]
            self.cache[pages[position // PAGE_POSITIONS], position % PAGE_POSITIONS] = token
        for index, row in enumerate(rows.logit_rows):
            held = self.cache[rows.pages[rows.sequences[row]]].reshape(-1)[: rows.positions[row] + 1]
            logits[index, next_token(held.tolist())] = 1
        if not trace:
            return Forward(logits, None, None, None)
        digests = np.repeat(rows.tokens.astype(np.uint8)[:, None], 32, axis=1)
        return Forward(logits, HashedPositions(digests), None, None)

    def close(self) -> None:
        """Nothing is held."""


def next_token(held: list[int]) -> int:
    return sum((index + 1) * token for index, token in enumerate(held)) % BASE_HEADER.vocabulary


class Listener:
    def __init__(self, stop_after: int | None = None, tracing: Tracing = Tracing.OFF) -> None:
        self.tokens: list[int] = []
        self.tracing = tracing
        self.trace: list[int] = []
        self.cancelled = False
        self.done = False
        self.error: Exception | None = None
        self._stop_after = stop_after

    def computed(self, rows: TracedRows) -> None:
        assert rows.first_position == len(self.trace)
        self.trace += rows.roots()[:, 0].tolist()

    def take(self, token: int, last: bool) -> bool:
        assert not self.done
        self.tokens.append(token)
        self.done = last or len(self.tokens) == self._stop_after
        return self.done

    def fail(self, error: Exception) -> None:
        self.error = error


def expected(prompt: list[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens))
    return tokens[len(prompt) :]


def test_ragged_sequences_get_what_they_would_get_alone() -> None:
    generator = np.random.default_rng(1)
    batcher = Batcher(FakeExecutor(pages=9), running_max=5, waiting_max=100)
    jobs = []
    for length in (1, 70, 3, 16, 130, 2, 64, 65, 9, 33):
        prompt = generator.integers(0, BASE_HEADER.vocabulary, length).tolist()
        count = int(generator.integers(1, 60))
        listener = Listener(tracing=Tracing.OFF if length % 2 else Tracing.ROOTS)
        batcher.submit(Sequence(list(prompt), length + count, GREEDY, listener))
        jobs.append((prompt, count, listener))
    while batcher.step():
        pass
    for prompt, count, listener in jobs:
        assert listener.done
        assert listener.tokens == expected(prompt, count)
        if listener.tracing:
            assert listener.trace == [token % 256 for token in [*prompt, *listener.tokens[:-1]]]
    assert batcher.free_pages == 9


def test_ten_thousand_requests_leak_nothing() -> None:
    """Early ends, cancellations while waiting, reading and answering: every page comes back, nobody starves."""
    generator = np.random.default_rng(2)
    batcher = Batcher(FakeExecutor(pages=12, rows_max=32), running_max=8, waiting_max=40)
    listeners: list[Listener] = []
    refused = 0
    while len(listeners) < 10_000:
        length, count = int(generator.integers(1, 90)), int(generator.integers(1, 8))
        listener = Listener(stop_after=int(generator.integers(1, 5)))
        try:
            batcher.submit(Sequence([1] * length, length + count, GREEDY, listener))
            listeners.append(listener)
        except EngineBusy:
            refused += 1
            batcher.step()
        if generator.random() < 0.2:
            listeners[int(generator.integers(max(0, len(listeners) - 45), len(listeners)))].cancelled = True
    while batcher.step():
        pass
    assert batcher.free_pages == 12
    assert batcher.idle
    assert refused > 0
    assert all(one.done or one.cancelled for one in listeners)
    assert sum(one.done for one in listeners) > 5_000


def test_a_long_prompt_delays_answers_by_no_step() -> None:
    batcher = Batcher(FakeExecutor(pages=12), running_max=4, waiting_max=4)
    answering, reading = Listener(), Listener()
    batcher.submit(Sequence([5], 40, GREEDY, answering))
    batcher.step()
    batcher.submit(Sequence([7] * 150, 155, GREEDY, reading))
    for step in range(10):
        batcher.step()
        assert len(answering.tokens) == step + 2
    assert len(reading.tokens) == 1  # 150 tokens of prompt at 15 rows a step


def test_what_can_never_run_is_refused() -> None:
    batcher = Batcher(FakeExecutor(pages=2), running_max=4, waiting_max=1)
    with pytest.raises(ContextExceeded):
        batcher.submit(Sequence([1], 2 * PAGE_POSITIONS + 1, GREEDY, Listener()))
    batcher.submit(Sequence([1], 2 * PAGE_POSITIONS, GREEDY, Listener()))
    with pytest.raises(EngineBusy):
        batcher.submit(Sequence([1], 2, GREEDY, Listener()))


def test_a_failure_reaches_everyone_and_frees_the_pages() -> None:
    executor = FakeExecutor(pages=4)
    batcher = Batcher(executor, running_max=2, waiting_max=8)
    listeners = [Listener() for _ in range(3)]
    for listener in listeners:
        batcher.submit(Sequence([1], 20, GREEDY, listener))
    batcher.step()
    executor.broken = True
    with pytest.raises(EngineFailed) as caught:
        batcher.step()
    batcher.fail_all(caught.value)
    assert all(one.error is caught.value for one in listeners)
    assert batcher.free_pages == 4
    assert batcher.idle


def test_pages_are_given_out_once() -> None:
    allocator = PageAllocator(4)
    first = allocator.take(3)
    assert sorted(first + allocator.take(1)) == [0, 1, 2, 3]
    allocator.give_back(first)
    assert allocator.free == 3
    with pytest.raises(KeyError):
        allocator.give_back(first)
