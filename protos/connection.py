"""One stream between two nodes, as both ends use it: typed messages over frames, with bounded queues and time limits.

Owns flow control, liveness and orderly ends; knows nothing of gRPC (a `Transport` carries the frames) or of what
messages mean.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from protos.errors import PeerLost
from protos.rpc import FrameReader, FrameWriter

__all__ = ["Connection", "StreamLimits", "Transport"]

_Out = TypeVar("_Out")
_In = TypeVar("_In")


class Transport(Protocol):
    """A pipe of frames to one peer, ordered and lossless until it ends."""

    async def send(self, frame: bytes) -> None:
        """Returns once there is room for the frame. Raises PeerLost when the pipe has ended."""

    async def receive(self) -> bytes | None:
        """The next frame, or None when the peer has ended the pipe. Raises PeerLost when it broke."""

    async def close(self) -> None:
        """End the pipe: what was sent is still delivered where possible."""


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """`queue_bytes_max` is what may wait to be sent before `post` waits; `silence_s` how long a peer may say nothing;
    `stall_s` how long it may refuse to take a frame."""

    queue_bytes_max: int = 32 * 1024 * 1024
    silence_s: float = 15.0
    stall_s: float = 15.0


class Connection(Generic[_Out, _In]):
    """Sends messages of one kind and receives those of the other, from `start` to `finish`.

    One task iterates `messages`. Any frame counts as a sign of life, so a large message does not make its sender look
    dead.
    """

    def __init__(
        self, transport: Transport, writer: FrameWriter[_Out], reader: FrameReader[_In], limits: StreamLimits
    ) -> None:
        self._transport = transport
        self._writer = writer
        self._reader = reader
        self._limits = limits
        self._silence_s = limits.silence_s
        self._frames: deque[bytes] = deque()
        self._queued_bytes = 0
        self._changed = asyncio.Condition()
        self._is_closing = False
        self._sender: asyncio.Task[str] | None = None

    def start(self) -> None:
        """Begin to send what is posted."""
        self._sender = asyncio.create_task(self._send())

    async def finish(self) -> None:
        """Accept no more messages, send what is queued while the peer takes it, and end the pipe."""
        assert self._sender is not None, "the connection was never started"
        await self._close()
        try:
            async with asyncio.timeout(self._limits.stall_s):
                await self._sender
        except TimeoutError:
            self._sender.cancel()
        # A peer that takes nothing does not take the end either.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.stall_s):
                await self._transport.close()

    async def post(self, message: _Out) -> None:
        """Queue a message; waits while too much is queued already. Raises PeerLost once the connection is ending."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_closing or self._queued_bytes < self._limits.queue_bytes_max)
            if self._is_closing:
                raise PeerLost("the connection is closed")
            for frame in self._writer.frames(message):
                self._frames.append(frame)
                self._queued_bytes += len(frame)
            self._changed.notify_all()

    async def messages(self) -> AsyncIterator[_In]:
        """The peer's messages, until it ends the stream. Raises PeerLost or a ProtocolError."""
        while (frame := await self._receive()) is not None:
            message = self._reader.read(frame)
            if message is not None:
                yield message

    def expect_sign_of_life_within(self, silence_s: float) -> None:
        """From the next frame on, the peer may be silent for this long."""
        self._silence_s = silence_s

    async def _receive(self) -> bytes | None:
        assert self._sender is not None, "the connection was never started"
        receiving = asyncio.ensure_future(self._transport.receive())
        try:
            await asyncio.wait((receiving, self._sender), timeout=self._silence_s, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                return receiving.result()
            if self._sender.done():
                raise PeerLost(self._sender.result())
            raise PeerLost(f"the peer was silent for {self._silence_s:g} s")
        finally:
            receiving.cancel()

    async def _send(self) -> str:
        """Send until closed; returns why it ended."""
        try:
            while (frame := await self._next_frame()) is not None:
                async with asyncio.timeout(self._limits.stall_s):
                    await self._transport.send(frame)
        except TimeoutError:
            return f"the peer took nothing for {self._limits.stall_s:g} s"
        except PeerLost as error:
            return str(error)
        finally:
            await self._close()
        return "the connection is closed"

    async def _close(self) -> None:
        async with self._changed:
            self._is_closing = True
            self._changed.notify_all()

    async def _next_frame(self) -> bytes | None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_closing or bool(self._frames))
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._queued_bytes -= len(frame)
            self._changed.notify_all()
            return frame
