"""Continuous batching: many sequences of different lengths through one model, step by step.

Owns the pages of the key-value cache and the order of work. A step takes the next token of every running sequence and
fills what room is left with pieces of prompts, so that a long prompt delays nobody by more than a step. A sequence gets
every page that it may need before it starts: it can neither run out of pages nor be thrown out half-way. Knows nothing
of text, clocks or threads, except that `submit` may be called from any of them.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worker.inference.errors import ContextExceeded, EngineBusy, TokenOutOfRange
from worker.inference.exact.native import PAGE_POSITIONS, Rows
from worker.inference.exact.sampling import Sampling
from worker.inference.exact.specification import Header
from worker.inference.exact.tracing import PositionRoots, TracedRows, Tracing

__all__ = ["Batcher", "Consumer", "Executor", "Outcome", "PageAllocator", "Sequence", "pages_for"]


class Outcome(Protocol):
    """What a forward pass computed: `worker.inference.exact.native.Forward`, or the GPU's."""

    @property
    def roots(self) -> PositionRoots | None: ...

    @property
    def boundaries(self) -> NDArray[np.int32] | None: ...

    @property
    def kv_rows(self) -> NDArray[np.uint8] | None: ...

    def choose(self, index: int, sampling: Sampling, position: int) -> int:
        """The token at `position`, from the logits of the index-th row whose logits were wanted."""


class Executor(Protocol):
    """A model on a device: `worker.inference.exact.native.NativeEngine`, or the GPU's. All give the same bytes."""

    @property
    def header(self) -> Header: ...

    @property
    def rows_max(self) -> int:
        """The most rows that a batch may have."""

    @property
    def pages(self) -> int:
        """Pages of PAGE_POSITIONS positions in the key-value cache."""

    def forward(self, rows: Rows, *, trace: Tracing = Tracing.OFF) -> Outcome:
        """Run one batch; `trace` says what of it is kept for commitments."""

    def close(self) -> None: ...


class Consumer(Protocol):
    """Who wants a sequence's tokens. Every method is called from the thread that steps."""

    @property
    def cancelled(self) -> bool:
        """Whether the answer is no longer wanted; the sequence is dropped before the next step."""

    @property
    def tracing(self) -> Tracing:
        """What `computed` wants to be told, if anything."""

    def computed(self, rows: TracedRows) -> None:
        """The next positions, in order, each once, before the token that the last of them chooses is taken."""

    def take(self, token: int, last: bool) -> bool:
        """The next token of the answer; `last` when no further one is allowed. True when the answer is complete."""

    def fail(self, error: Exception) -> None:
        """There will be no further token."""


@dataclass(eq=False, slots=True)
class Sequence:
    """A prompt and its answer so far. `length_max` bounds both together; `computed` positions are in the cache.

    `expected` is what somebody says comes next. It is computed like a prompt, many rows at a time, and each of its
    tokens counts only once the model has chosen it; from the first that it does not choose, the rest is forgotten. So
    a known answer is checked at the price of a prompt.
    """

    tokens: list[int]
    length_max: int
    sampling: Sampling
    consumer: Consumer
    expected: deque[int] = field(default_factory=deque)
    pages: list[int] = field(default_factory=list)
    computed: int = 0

    @property
    def pending(self) -> int:
        """Rows that can be computed now."""
        return min(len(self.tokens) + len(self.expected), self.length_max - 1) - self.computed

    def choices(self, rows: int) -> int:
        """How many of the next `rows` rows choose a token: the last known one's, and those of expected tokens."""
        return max(0, self.computed + rows - len(self.tokens) + 1)


def pages_for(positions: int) -> int:
    return -(-positions // PAGE_POSITIONS)


class PageAllocator:
    """Pages 0 .. count - 1, each held by at most one sequence. Taking and giving back out of turn is a bug."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count - 1, -1, -1))
        self._held: set[int] = set()

    @property
    def free(self) -> int:
        return len(self._free)

    def take(self, count: int) -> list[int]:
        assert 0 < count <= self.free, f"{count} pages wanted, {self.free} free"
        taken = [self._free.pop() for _ in range(count)]
        self._held.update(taken)
        return taken

    def give_back(self, pages: Iterable[int]) -> None:
        for page in pages:
            self._held.remove(page)
            self._free.append(page)


class Batcher:
    """Steps an executor over the sequences submitted to it. At most `running_max` run together, first come first
    served; at most `waiting_max` wait.
    """

    def __init__(self, executor: Executor, *, running_max: int, waiting_max: int) -> None:
        assert 1 <= running_max <= executor.rows_max
        self._executor = executor
        self._running_max, self._waiting_max = running_max, waiting_max
        self._allocator = PageAllocator(executor.pages)
        self._table = np.zeros((running_max, pages_for(executor.header.context_max)), np.int32)
        self._running: list[Sequence] = []
        self._waiting: deque[Sequence] = deque()
        self._lock = Lock()  # guards _waiting, the only thing that other threads touch

    @property
    def free_pages(self) -> int:
        return self._allocator.free

    @property
    def idle(self) -> bool:
        with self._lock:
            return not self._running and not self._waiting

    def submit(self, sequence: Sequence) -> None:
        """Let a sequence wait for its turn.

        Raises EngineBusy, and ContextExceeded or TokenOutOfRange when it could never run.
        """
        needed = pages_for(sequence.length_max)
        if needed > self._allocator.count or sequence.length_max > self._executor.header.context_max:
            raise ContextExceeded(f"{sequence.length_max} tokens exceed the cache or the model's context")
        assert 0 < len(sequence.tokens) < sequence.length_max
        vocabulary = self._executor.header.vocabulary
        if not 0 <= min(sequence.tokens) <= max(sequence.tokens) < vocabulary:
            raise TokenOutOfRange(f"the prompt has a token outside the vocabulary of {vocabulary}")
        with self._lock:
            if len(self._waiting) >= self._waiting_max:
                raise EngineBusy(f"{len(self._waiting)} requests are waiting, as many as may")
            self._waiting.append(sequence)

    def refuse_waiting(self, error: Exception) -> None:
        """Fail every sequence that has not started."""
        with self._lock:
            refused, self._waiting = self._waiting, deque()
        for sequence in refused:
            sequence.consumer.fail(error)

    def fail_all(self, error: Exception) -> None:
        """Fail every sequence, running or waiting."""
        for sequence in list(self._running):
            self._drop(sequence)
            sequence.consumer.fail(error)
        self.refuse_waiting(error)

    def step(self) -> bool:
        """One forward pass; every sequence whose last known token was in it gets its next. False if nothing is left."""
        for sequence in [one for one in self._running if one.consumer.cancelled]:
            self._drop(sequence)
        self._admit()
        if not self._running:
            return False
        plan = self._plan()
        rows = self._rows(plan)
        forward = self._executor.forward(rows, trace=max(sequence.consumer.tracing for sequence, _ in plan))
        first, answered = 0, 0
        for sequence, count in plan:
            choices = sequence.choices(count)
            self._advance(sequence, forward, slice(first, first + count), range(answered, answered + choices))
            first, answered = first + count, answered + choices
        return True

    def _advance(self, sequence: Sequence, outcome: Outcome, rows: slice, choices: range) -> None:
        """Take in a sequence's rows of a step: the last ones choose a token each, by these indices of the logits."""
        first = rows.start
        for index, stop in zip(choices, range(rows.stop - len(choices) + 1, rows.stop + 1), strict=True):
            self._computed(sequence, outcome, slice(first, stop))
            first = stop
            token = outcome.choose(index, sequence.sampling, len(sequence.tokens))
            sequence.tokens.append(token)
            is_as_expected = bool(sequence.expected) and sequence.expected.popleft() == token
            if sequence.consumer.take(token, len(sequence.tokens) == sequence.length_max):
                self._drop(sequence)
                return
            if not is_as_expected:
                sequence.expected.clear()
                return
        if first < rows.stop:
            self._computed(sequence, outcome, slice(first, rows.stop))

    def _computed(self, sequence: Sequence, outcome: Outcome, rows: slice) -> None:
        if sequence.consumer.tracing:
            assert outcome.roots is not None
            kept = (outcome.roots, outcome.boundaries, outcome.kv_rows)
            sequence.consumer.computed(TracedRows(sequence.computed, rows, *kept))
        sequence.computed += rows.stop - rows.start

    def _admit(self) -> None:
        with self._lock:
            self._waiting = deque(one for one in self._waiting if not one.consumer.cancelled)
            while self._waiting and len(self._running) < self._running_max:
                needed = pages_for(self._waiting[0].length_max)
                if needed > self._allocator.free:
                    return
                sequence = self._waiting.popleft()
                sequence.pages = self._allocator.take(needed)
                self._running.append(sequence)

    def _drop(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        self._allocator.give_back(sequence.pages)
        sequence.pages = []

    def _plan(self) -> list[tuple[Sequence, int]]:
        """Which sequences advance, and by how many rows: one row each for answers, the rest of the room for prompts."""
        pending = [one.pending for one in self._running]
        room = self._executor.rows_max - pending.count(1)
        plan = []
        for sequence, count in zip(self._running, pending, strict=True):
            taken = 1 if count == 1 else min(count, room)
            if count > 1:
                room -= taken
            if taken:
                plan.append((sequence, taken))
        return plan

    def _rows(self, plan: list[tuple[Sequence, int]]) -> Rows:
        tokens: list[int] = []
        wanted: list[int] = []
        width = 0
        for index, (sequence, count) in enumerate(plan):
            known = [*sequence.tokens, *sequence.expected] if sequence.expected else sequence.tokens
            tokens += known[sequence.computed : sequence.computed + count]
            wanted += range(len(tokens) - sequence.choices(count), len(tokens))
            self._table[index, : len(sequence.pages)] = sequence.pages
            width = max(width, len(sequence.pages))
        counts = np.array([count for _, count in plan], np.int32)
        starts = np.array([sequence.computed for sequence, _ in plan], np.int32)
        indices = np.repeat(np.arange(len(plan), dtype=np.int32), counts)
        within = np.arange(len(tokens), dtype=np.int32) - (np.cumsum(counts, dtype=np.int32) - counts)[indices]
        return Rows(
            tokens=np.array(tokens, np.int32),
            positions=starts[indices] + within,
            sequences=indices,
            pages=self._table[: len(plan), :width],
            logit_rows=np.array(wanted, np.int32),
        )
