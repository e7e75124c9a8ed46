"""An event loop whose clock jumps to the next timer whenever nothing else is to be done.

What takes minutes takes no time at all, and the order of events is the same in every run.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

__all__ = ["InlineExecutor", "VirtualTimeLoop", "pass_time", "simulate"]

_T = TypeVar("_T")
_HOUR_S = 3600.0


class _Selector(selectors.SelectSelector):
    advance: Callable[[float], None]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "every task waits for something that nobody will do"
        self.advance(max(timeout, 0.0))
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at 0 seconds."""

    def __init__(self) -> None:
        self._now_s = 0.0
        selector = _Selector()
        selector.advance = self._advance
        super().__init__(selector)

    def time(self) -> float:
        return self._now_s

    def _advance(self, duration_s: float) -> None:
        self._now_s += duration_s


class InlineExecutor(Executor):
    """Runs everything at once, in the caller's thread: no thread may outrun the virtual clock."""

    def submit(self, function: Callable[..., _T], /, *args: Any, **kwargs: Any) -> "Future[_T]":
        future: Future[_T] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future carries it to whoever waits
            future.set_exception(error)
        return future


async def pass_time(duration_s: float) -> None:
    """Let virtual time go on, and everything with it."""
    await asyncio.sleep(duration_s)


def simulate(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end under virtual time, of which it may take an hour."""

    async def bounded() -> _T:
        async with asyncio.timeout(_HOUR_S):
            return await main

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(bounded())
