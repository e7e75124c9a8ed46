"""The worker's end of its stream to the sequencer: dials, proves who it is, beats, and dials again when it is lost.

What messages mean is the business of the handlers that the duties register. Knows nothing of gRPC: a `Dialer` makes
streams.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import structlog

from core.store.identity import ChainIdentity
from protos.connection import Connection, StreamLimits, Transport
from protos.errors import PeerLost, PeerRefused, ProtocolError, UnexpectedMessage
from protos.handshake import Signer, finding_digest, registration_digest
from protos.messages import (
    PROTOCOL_VERSION,
    BlockFinding,
    BlockReference,
    Capabilities,
    Challenge,
    Failure,
    Goodbye,
    Heartbeat,
    Hello,
    Register,
    Registered,
    SequencerMessage,
    SignedFinding,
    WorkerMessage,
)
from protos.rpc import encode, sequencer_reader, worker_writer
from worker.errors import CannotJoin

__all__ = ["ClientConfig", "DialedStream", "Dialer", "SequencerClient", "WorkerStatus"]

_SILENT_INTERVALS = 3
_FATAL_CODES = frozenset(
    {"banned", "wrong_chain", "protocol_version", "signature_invalid", "not_a_watcher", "replaced"}
)
_RENEW_CODES = frozenset({"not_enrolled", "certificate_not_pinned"})

_log = structlog.get_logger(__name__)
_M = TypeVar("_M")


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Waits between attempts double from `backoff_min_s` to `backoff_max_s`, each shortened at random by up to half.

    `drain_timeout_s` is less than the ten seconds that process managers commonly give before they kill.
    """

    backoff_min_s: float = 0.25
    backoff_max_s: float = 30.0
    handshake_timeout_s: float = 10.0
    drain_timeout_s: float = 8.0
    queue_bytes_max: int = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class DialedStream:
    """An open stream and the two TLS certificates' fingerprints (SHA-256) that it runs between."""

    transport: Transport
    sequencer_fingerprint: bytes
    worker_fingerprint: bytes


class Dialer(Protocol):
    """Opens streams to the sequencer."""

    async def dial(self, *, renew_certificate: bool) -> DialedStream:
        """Raises PeerLost when nobody answers, PeerRefused when enrolment is refused."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What heartbeats tell."""

    head: BlockReference
    jobs_running: int


class SequencerClient:
    """Keeps one stream to the sequencer for as long as `run` runs.

    `clock_offset_ms` is how far the sequencer's clock was ahead of ours at its last heartbeat.
    """

    def __init__(
        self,
        identity: ChainIdentity,
        signer: Signer,
        dialer: Dialer,
        config: ClientConfig,
        *,
        capabilities: Callable[[], Capabilities],
        status: Callable[[], WorkerStatus],
        now_ms: Callable[[], int],
        jitter: random.Random,
    ) -> None:
        self._identity = identity
        self._signer = signer
        self._dialer = dialer
        self._config = config
        self._capabilities = capabilities
        self._status = status
        self._now_ms = now_ms
        self._jitter = jitter
        self._handlers: dict[type, Callable[[Any], Awaitable[None]]] = {Heartbeat: self._on_heartbeat}
        self._attach_hooks: list[Callable[[BlockReference], Awaitable[None]]] = []
        self._connection: Connection[WorkerMessage, SequencerMessage] | None = None
        self._failures = 0
        self.clock_offset_ms: int | None = None

    def on(self, kind: type[_M], handler: Callable[[_M], Awaitable[None]]) -> None:
        """Let `handler` take every message of this kind; it must be short."""
        assert kind not in self._handlers, f"{kind.__name__} has a handler already"
        self._handlers[kind] = handler

    def on_attached(self, hook: Callable[[BlockReference], Awaitable[None]]) -> None:
        """Let `hook` run each time the stream stands; it is given the sequencer's head."""
        self._attach_hooks.append(hook)

    @property
    def is_attached(self) -> bool:
        return self._connection is not None

    async def post(self, message: WorkerMessage) -> bool:
        """Send a message; False when there is no stream (then hooks run once there is one again)."""
        connection = self._connection
        if connection is None:
            return False
        try:
            await connection.post(message)
        except PeerLost:
            return False
        return True

    async def testify(self, finding: BlockFinding) -> bool:
        """Sign and send what this replica found wrong with a sealed block; as `post`."""
        digest = finding_digest(self._identity.chain_id, encode(finding))
        return await self.post(SignedFinding(finding, self._signer.sign(digest)))

    async def beat(self) -> bool:
        """Tell the sequencer where this worker stands, now."""
        status = self._status()
        return await self.post(Heartbeat(self._now_ms(), status.head, status.jobs_running))

    async def run(self) -> None:
        """Stay attached until cancelled. Raises CannotJoin when the sequencer will never have this worker."""
        renew = False
        while True:
            try:
                stream = await self._dialer.dial(renew_certificate=renew)
                renew = False
                await self._serve(stream)
            except PeerRefused as error:
                if error.code in _FATAL_CODES:
                    raise CannotJoin(error.code, f"the sequencer refuses this worker: {error.detail}") from error
                renew = error.code in _RENEW_CODES
                _log.warning("refused", code=error.code, detail=error.detail)
            except (PeerLost, ProtocolError, TimeoutError) as error:
                _log.warning("stream_lost", reason=str(error) or "timed out")
            await asyncio.sleep(self._backoff_s())
            self._failures += 1

    def _backoff_s(self) -> float:
        """How long to wait after as many attempts in a row have failed."""
        longest = min(self._config.backoff_max_s, self._config.backoff_min_s * 2.0 ** min(self._failures, 16))
        return longest * (1 - self._jitter.random() / 2)

    async def leave(self, reason: str) -> None:
        """Say goodbye: the sequencer assigns nothing more."""
        await self.post(Goodbye(reason))

    async def _serve(self, stream: DialedStream) -> None:
        limits = StreamLimits(self._config.queue_bytes_max)
        connection = Connection(stream.transport, worker_writer(), sequencer_reader(), limits)
        connection.start()
        beat: asyncio.Task[None] | None = None
        try:
            messages = connection.messages()
            async with asyncio.timeout(self._config.handshake_timeout_s):
                registered = await self._handshake(stream, connection, messages)
            interval_s = registered.heartbeat_interval_ms / 1000
            connection.expect_sign_of_life_within(_SILENT_INTERVALS * interval_s)
            self._connection = connection
            self._failures = 0
            _log.info("attached", session=registered.session, sequencer_head=registered.head.number)
            # Before the first heartbeat: what the sequencer should know before it asks for anything.
            for hook in self._attach_hooks:
                await hook(registered.head)
            beat = asyncio.create_task(self._beats(interval_s))
            await self._dispatch(messages)
            raise PeerLost("the sequencer ended the stream")
        except ProtocolError as error:
            with contextlib.suppress(PeerLost):
                await connection.post(Failure(error.code, str(error)[:256]))
            raise
        finally:
            self._connection = None
            if beat is not None:
                beat.cancel()
            await connection.finish()

    async def _handshake(
        self,
        stream: DialedStream,
        connection: Connection[WorkerMessage, SequencerMessage],
        messages: AsyncIterator[SequencerMessage],
    ) -> Registered:
        chain_id = self._identity.chain_id
        await connection.post(Hello(PROTOCOL_VERSION, chain_id, self._identity.genesis_hash, self._signer.address))
        challenge = await _expect(messages, Challenge)
        capabilities = self._capabilities()
        digest = registration_digest(
            chain_id,
            challenge.nonce,
            stream.sequencer_fingerprint,
            stream.worker_fingerprint,
            encode(capabilities),
        )
        await connection.post(Register(capabilities, self._signer.sign(digest)))
        return await _expect(messages, Registered)

    async def _dispatch(self, messages: AsyncIterator[SequencerMessage]) -> None:
        async for message in messages:
            if isinstance(message, Failure):
                raise PeerRefused(message.code, message.detail)
            handler = self._handlers.get(type(message))
            if handler is None:
                raise UnexpectedMessage(f"{type(message).__name__} may not come to this worker now")
            await handler(message)

    async def _beats(self, interval_s: float) -> None:
        is_there = True
        while is_there:
            is_there = await self.beat()
            await asyncio.sleep(interval_s)

    async def _on_heartbeat(self, message: Heartbeat) -> None:
        self.clock_offset_ms = message.at_ms - self._now_ms()


async def _expect(messages: AsyncIterator[SequencerMessage], kind: type[_M]) -> _M:
    try:
        message = await anext(messages)
    except StopAsyncIteration:
        raise PeerLost("the sequencer ended the stream during the handshake") from None
    if isinstance(message, Failure):
        raise PeerRefused(message.code, message.detail)
    if not isinstance(message, kind):
        raise UnexpectedMessage(f"{type(message).__name__} came where {kind.__name__} was expected")
    return message
