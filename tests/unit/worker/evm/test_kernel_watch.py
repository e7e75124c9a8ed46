"""Waiting for kernels with a clock of the test's own."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.evm.errors import KernelStandsStill
from worker.evm.kernel_watch import await_kernel

MS = 1_000_000
STILL_NS = 1_000 * MS


class Clock:
    """Time that passes when it is read or slept through."""

    def __init__(self, step_ns: int = 10_000) -> None:
        self.now, self._step_ns = 0, step_ns
        self.slept_s = 0.0

    def read(self) -> int:
        self.now += self._step_ns
        return self.now

    def pause(self, seconds: float) -> None:
        self.slept_s += seconds
        self.now += int(seconds * 1e9)


def _wait(clock: Clock, done_ns: int, progress: Iterator[int]) -> None:
    await_kernel(lambda: clock.now >= done_ns, lambda: next(progress), STILL_NS, clock_ns=clock.read, pause=clock.pause)


def _constant() -> Iterator[int]:
    while True:
        yield 7


def test_a_short_kernel_is_not_slept_through() -> None:
    clock = Clock()
    _wait(clock, MS, _constant())
    assert clock.slept_s == 0
    assert clock.now < 2 * MS


def test_a_kernel_that_stands_still_is_given_up_after_the_limit() -> None:
    clock = Clock()
    with pytest.raises(KernelStandsStill, match="restart it to use it again"):
        _wait(clock, 1 << 62, _constant())
    assert STILL_NS < clock.now < STILL_NS * 3 // 2


@given(st.integers(1, 50), st.integers(1, 100))
def test_a_kernel_that_gets_on_is_waited_for(steps: int, step_ms: int) -> None:
    """However long it takes, as long as rows are begun more often than the limit."""
    clock = Clock(step_ns=100_000)
    moving = iter(lambda: clock.now // (step_ms * MS * 5), None)
    _wait(clock, steps * STILL_NS, moving)
    assert clock.now >= steps * STILL_NS


def test_what_moved_once_is_given_up_later() -> None:
    clock = Clock()
    with pytest.raises(KernelStandsStill):
        _wait(clock, 1 << 62, iter(lambda: min(clock.now // (400 * MS), 3), None))
    assert clock.now > 1_200 * MS + STILL_NS
