"""Transports without a network: two ends of a pipe with room for a few frames, which a test can cut or listen to."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from protos.errors import PeerLost
from worker.client import DialedStream

__all__ = ["Pipe", "PipeDialer", "pipe_pair"]

_FRAMES_MAX = 8


@dataclass(eq=False)
class Pipe:
    """One end. `cut` breaks both ends at once, as when a process is killed."""

    incoming: "asyncio.Queue[bytes | None]"
    outgoing: "asyncio.Queue[bytes | None]"
    is_cut: asyncio.Event
    is_ended: bool = False
    sent: list[bytes] = field(default_factory=list)

    async def send(self, frame: bytes) -> None:
        self.sent.append(frame)
        await self._unless_cut(self.outgoing.put(frame))

    async def receive(self) -> bytes | None:
        if self.is_ended:
            return None
        frame = await self._unless_cut(self.incoming.get())
        self.is_ended = frame is None
        return frame

    async def close(self) -> None:
        if not self.is_cut.is_set():
            await self._unless_cut(self.outgoing.put(None))

    def cut(self) -> None:
        self.is_cut.set()

    async def _unless_cut(self, work: Awaitable[bytes | None]) -> bytes | None:
        doing = asyncio.ensure_future(work)
        cut = asyncio.ensure_future(self.is_cut.wait())
        try:
            await asyncio.wait((doing, cut), return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise PeerLost("the pipe was cut")
            return doing.result()
        finally:
            doing.cancel()
            cut.cancel()


def pipe_pair() -> tuple[Pipe, Pipe]:
    """The two ends."""
    one: asyncio.Queue[bytes | None] = asyncio.Queue(_FRAMES_MAX)
    other: asyncio.Queue[bytes | None] = asyncio.Queue(_FRAMES_MAX)
    is_cut = asyncio.Event()
    return Pipe(one, other, is_cut), Pipe(other, one, is_cut)


class PipeDialer:
    """Implements `worker.client.Dialer`: `accept` is the sequencer's end of each stream."""

    def __init__(
        self,
        accept: Callable[[Pipe], Awaitable[None]],
        enrol: Callable[[], None],
        sequencer_fingerprint: bytes,
        fingerprint: bytes,
    ) -> None:
        self._accept = accept
        self._enrol = enrol
        self._fingerprints = sequencer_fingerprint, fingerprint
        self._is_enrolled = False
        self.streams: list[Pipe] = []
        self.serving: set[asyncio.Task[None]] = set()
        self.is_down = False

    async def dial(self, *, renew_certificate: bool) -> DialedStream:
        if self.is_down:
            raise PeerLost("nobody answers")
        if renew_certificate or not self._is_enrolled:
            self._enrol()
            self._is_enrolled = True
        mine, theirs = pipe_pair()
        self.streams.append(mine)
        task = asyncio.ensure_future(self._accept(theirs))
        self.serving.add(task)  # type: ignore[arg-type]
        task.add_done_callback(self.serving.discard)  # type: ignore[arg-type]
        return DialedStream(mine, *self._fingerprints)
