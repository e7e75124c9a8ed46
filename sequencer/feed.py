"""Telling many listeners of new things without waiting for any of them.

A listener that does not keep up is cut off: its queue is bounded, and it learns that it has missed something.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

from core.errors import WarpgridError

__all__ = ["Feed", "ListenerTooSlow", "Listening"]

T = TypeVar("T")

LISTENERS_MAX = 4_096


class ListenerTooSlow(WarpgridError):
    """This listener's queue ran over; what follows was not kept for it."""

    code = "listener_too_slow"


class Listening(Generic[T]):
    """One listener's queue. Iterate to receive; `close` when done."""

    def __init__(self, feed: "Feed[T]", capacity: int) -> None:
        self._feed = feed
        self._queue: asyncio.Queue[T | None] = asyncio.Queue(capacity + 1)
        self._capacity = capacity
        self.has_lagged = False

    def offer(self, item: T) -> None:
        """Hand over an item, or cut the listener off when its queue is full."""
        if self._queue.qsize() >= self._capacity:
            self.has_lagged = True
            self.close()
        else:
            self._queue.put_nowait(item)

    def close(self) -> None:
        """Receive no more; what is queued can still be taken."""
        if self._feed.forget(self):
            self._queue.put_nowait(None)

    def taken(self) -> list[T]:
        """All that waits, without waiting for more."""
        items: list[T] = []
        while not self._queue.empty():
            item = self._queue.get_nowait()
            if item is not None:
                items.append(item)
        return items

    async def __aiter__(self) -> AsyncIterator[T]:
        while (item := await self._queue.get()) is not None:
            yield item
        if self.has_lagged:
            raise ListenerTooSlow(f"more than {self._capacity} messages were waiting")


class Feed(Generic[T]):
    """Publishes items to everyone who listens at that moment."""

    def __init__(self) -> None:
        self._listeners: dict[Listening[T], None] = {}

    def __len__(self) -> int:
        return len(self._listeners)

    def listen(self, capacity: int = 1_024) -> Listening[T]:
        """Start to listen; at most `capacity` items wait."""
        if len(self._listeners) >= LISTENERS_MAX:
            raise ListenerTooSlow(f"there are {LISTENERS_MAX} listeners already")
        listening = Listening(self, capacity)
        self._listeners[listening] = None
        return listening

    def publish(self, item: T) -> None:
        """Offer `item` to every listener, in the order in which they came."""
        for listening in list(self._listeners):
            listening.offer(item)

    def forget(self, listening: Listening[T]) -> bool:
        """Stop offering to this listener; whether it was still one."""
        return self._listeners.pop(listening, self) is not self
