"""The workers that are attached now: their handshake, their liveness, and the way messages to and from them take.

`Fleet.serve` is the life of one stream. What messages mean is the business of the handlers that other modules
register; a peer that breaks the protocol is told why, counted and dropped, and nobody else notices.
"""

import asyncio
import contextlib
import itertools
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import structlog

from core.chain import ChainReader
from protos.connection import Connection, StreamLimits, Transport
from protos.errors import PeerLost, PeerRefused, ProtocolError, UnexpectedMessage
from protos.handshake import recover_signer, registration_digest
from protos.messages import (
    PROTOCOL_VERSION,
    BlockReference,
    Capabilities,
    Challenge,
    Description,
    Failure,
    Goodbye,
    Heartbeat,
    Hello,
    Register,
    Registered,
    SequencerMessage,
    WorkerMessage,
)
from protos.rpc import MESSAGE_BYTES_MAX, encode, sequencer_writer, worker_reader
from sequencer.coordinator.errors import JoinRefused
from sequencer.coordinator.membership import Membership

__all__ = ["DUTY_INFERENCE", "DUTY_REPLICA", "DUTY_WATCHER", "Fleet", "FleetConfig", "FleetObserver", "Member"]

DUTY_REPLICA = "replica"
DUTY_WATCHER = "watcher"
DUTY_INFERENCE = "inference"

_HANDSHAKE_MESSAGE_BYTES_MAX = 256 * 1024
_SILENT_INTERVALS = 3

_log = structlog.get_logger(__name__)
_M = TypeVar("_M")


@dataclass(frozen=True, slots=True)
class FleetConfig:
    """`members_max` bounds memory: each stream may queue `limits.queue_bytes_max` bytes.

    A watcher's word decides disputes and halts sealing: `watchers` are the addresses that may be one; none lets any.
    """

    members_max: int = 256
    watchers: frozenset[bytes] = frozenset()
    heartbeat_interval_ms: int = 2_000
    handshake_timeout_s: float = 10.0
    queue_bytes_max: int = 128 * 1024 * 1024

    def limits(self) -> StreamLimits:
        silence_s = _SILENT_INTERVALS * self.heartbeat_interval_ms / 1000
        return StreamLimits(self.queue_bytes_max, silence_s=silence_s, stall_s=silence_s)


class Member:
    """One attached worker. `head` and `jobs_running` are what it last said, from its first heartbeat on (`has_beaten`).

    What a worker has to say on arriving, receipts of earlier jobs say, it says before that heartbeat.
    """

    def __init__(
        self,
        session: int,
        address: bytes,
        capabilities: Capabilities,
        connection: Connection[SequencerMessage, WorkerMessage],
        head: BlockReference,
    ) -> None:
        self.session = session
        self.address = address
        self.capabilities = capabilities
        self.head = head
        self.jobs_running = 0
        self.has_beaten = False
        self.is_draining = False
        self._connection = connection
        self._expulsion: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"worker 0x{self.address.hex()}"

    def has_duty(self, duty: str) -> bool:
        return duty in self.capabilities.duties

    async def post(self, message: SequencerMessage) -> bool:
        """Send a message; False when the worker is gone, and will be reported so."""
        try:
            await self._connection.post(message)
        except PeerLost:
            return False
        return True

    def expel(self, code: str, detail: str) -> None:
        """End the stream; the worker is told why."""
        if not self._expulsion.done():
            self._expulsion.set_result(Failure(code, detail[:256]))

    async def expelled(self) -> Failure:
        return await asyncio.shield(self._expulsion)


class FleetObserver(Protocol):
    """Is told who comes and goes, in order."""

    async def joined(self, member: Member) -> None: ...

    async def left(self, member: Member, reason: str) -> None: ...

    async def heard(self, member: Member) -> None:
        """Its heartbeat came: `member.head` and `member.jobs_running` are fresh."""


Handler = Callable[[Member, Any], Awaitable[None]]


class Fleet:
    """All attached workers.

    `refusals` counts streams that ended by the other side's fault, by code. A handler runs before the next message of
    the same worker is read, so it must be short: long work goes into a task of its own.
    """

    def __init__(
        self,
        chain: ChainReader,
        membership: Membership,
        config: FleetConfig,
        *,
        now_ms: Callable[[], int],
        make_nonce: Callable[[], bytes] = lambda: secrets.token_bytes(32),
    ) -> None:
        self._chain = chain
        self._membership = membership
        self._config = config
        self._now_ms = now_ms
        self._make_nonce = make_nonce
        self._genesis = _reference(chain, 0)
        self._sessions = itertools.count(1)
        self._members: dict[bytes, Member] = {}
        self._handlers: dict[type, Handler] = {Heartbeat: self._on_heartbeat, Goodbye: self._on_goodbye}
        self._observers: list[FleetObserver] = []
        self._streams = 0
        self.refusals: Counter[str] = Counter()

    def on(self, kind: type[_M], handler: Callable[[Member, _M], Awaitable[None]]) -> None:
        """Let `handler` take every message of this kind."""
        assert kind not in self._handlers, f"{kind.__name__} has a handler already"
        self._handlers[kind] = handler

    def observe(self, observer: FleetObserver) -> None:
        self._observers.append(observer)

    def members(self, duty: str | None = None) -> list[Member]:
        """Those that are attached, in order of arrival; with `duty`, those that have it."""
        return [one for one in self._members.values() if duty is None or one.has_duty(duty)]

    def member(self, address: bytes) -> Member | None:
        return self._members.get(address)

    def ban(self, member: Member, reason: str) -> None:
        """Drop a worker and let it not come back."""
        self._membership.ban(member.address, reason)
        self.refusals["banned"] += 1
        member.expel("banned", reason)

    async def broadcast(self, message: SequencerMessage, to: Iterable[Member] | None = None) -> None:
        """Send to all, one queue at a time; a worker whose queue is full for too long is dropped by its own limits."""
        targets = self.members() if to is None else list(to)
        await asyncio.gather(*(one.post(message) for one in targets))

    async def serve(self, transport: Transport, fingerprint: bytes) -> None:
        """One worker's stream, from its first message to its end; `fingerprint` is its TLS certificate's (SHA-256).

        Returns when the stream has ended, whoever ended it.
        """
        if self._streams >= 2 * self._config.members_max:
            self.refusals["full"] += 1
            await transport.close()
            return
        self._streams += 1
        try:
            await self._serve(transport, fingerprint)
        finally:
            self._streams -= 1

    async def _serve(self, transport: Transport, fingerprint: bytes) -> None:
        limits = self._config.limits()
        reader = worker_reader(_HANDSHAKE_MESSAGE_BYTES_MAX)
        connection = Connection(transport, sequencer_writer(), reader, limits)
        connection.start()
        try:
            messages = connection.messages()
            async with asyncio.timeout(self._config.handshake_timeout_s):
                member = await self._handshake(connection, messages, fingerprint)
            reader.allow(MESSAGE_BYTES_MAX)
            await self._attached(member, connection, messages)
        except TimeoutError:
            await self._refuse(connection, "handshake_timeout", "the handshake took too long")
        except (ProtocolError, JoinRefused) as error:
            await self._refuse(connection, error.code, str(error))
        except PeerLost as error:
            _log.info("stream_lost_in_handshake", reason=str(error))
        finally:
            await connection.finish()

    async def _refuse(self, connection: Connection[SequencerMessage, WorkerMessage], code: str, detail: str) -> None:
        self.refusals[code] += 1
        _log.info("worker_refused", code=code, detail=detail)
        with contextlib.suppress(PeerLost):
            await connection.post(Failure(code, detail[:256]))

    async def _handshake(
        self,
        connection: Connection[SequencerMessage, WorkerMessage],
        messages: AsyncIterator[WorkerMessage],
        fingerprint: bytes,
    ) -> Member:
        hello = await _expect(messages, Hello)
        if hello.protocol != PROTOCOL_VERSION:
            raise JoinRefused(
                "protocol_version", f"this sequencer speaks version {PROTOCOL_VERSION}: update the worker"
            )
        chain_id = self._chain.config.chain_id
        if (hello.chain_id, hello.genesis_hash) != (chain_id, self._genesis.hash):
            raise JoinRefused("wrong_chain", f"this is chain {chain_id} with genesis 0x{self._genesis.hash.hex()}")
        self._membership.check(hello.address, fingerprint)
        nonce = self._make_nonce()
        await connection.post(Challenge(nonce, self.head()))
        register = await _expect(messages, Register)
        digest = registration_digest(
            chain_id, nonce, self._membership.sequencer_fingerprint, fingerprint, encode(register.capabilities)
        )
        if recover_signer(digest, register.signature) != hello.address:
            raise JoinRefused("signature_invalid", "the registration is not signed by the address of the hello")
        watchers = self._config.watchers
        if DUTY_WATCHER in register.capabilities.duties and watchers and hello.address not in watchers:
            raise JoinRefused("not_a_watcher", f"0x{hello.address.hex()} is not one of this sequencer's watchers")
        if len(self._members) >= self._config.members_max and hello.address not in self._members:
            raise JoinRefused("full", f"{self._config.members_max} workers are attached; no more can be")
        session = next(self._sessions)
        member = Member(session, hello.address, register.capabilities, connection, self._genesis)
        await connection.post(Registered(session, self._config.heartbeat_interval_ms, self.head()))
        return member

    async def _attached(
        self,
        member: Member,
        connection: Connection[SequencerMessage, WorkerMessage],
        messages: AsyncIterator[WorkerMessage],
    ) -> None:
        earlier = self._members.pop(member.address, None)
        if earlier is not None:
            earlier.expel("replaced", "the same worker attached again")
            await self._tell_left(earlier, "replaced")
        self._members[member.address] = member
        _log.info("worker_joined", worker=member.address.hex(), duties=member.capabilities.duties)
        for observer in self._observers:
            await observer.joined(member)
        reason = "cancelled"
        try:
            reason = await self._until_it_ends(member, connection, messages)
        finally:
            if self._members.get(member.address) is member:
                del self._members[member.address]
                await self._tell_left(member, reason)

    async def _until_it_ends(
        self,
        member: Member,
        connection: Connection[SequencerMessage, WorkerMessage],
        messages: AsyncIterator[WorkerMessage],
    ) -> str:
        dispatch = asyncio.create_task(self._dispatch(member, messages))
        beat = asyncio.create_task(self._beat(member))
        expulsion = asyncio.create_task(member.expelled())
        try:
            await asyncio.wait((dispatch, expulsion), return_when=asyncio.FIRST_COMPLETED)
            if expulsion.done():
                failure = expulsion.result()
                await self._refuse(connection, failure.code, failure.detail)
                return failure.detail
            await dispatch
            return "ended its stream"
        except ProtocolError as error:
            await self._refuse(connection, error.code, str(error))
            return str(error)
        except (PeerLost, PeerRefused) as error:
            return str(error)
        finally:
            for task in (dispatch, beat, expulsion):
                task.cancel()
            await asyncio.gather(dispatch, beat, expulsion, return_exceptions=True)

    async def _dispatch(self, member: Member, messages: AsyncIterator[WorkerMessage]) -> None:
        async for message in messages:
            if isinstance(message, Failure):
                raise PeerRefused(message.code, message.detail)
            handler = self._handlers.get(type(message))
            if handler is None:
                raise UnexpectedMessage(f"{type(message).__name__} may not come from an attached worker")
            await handler(member, message)

    async def _beat(self, member: Member) -> None:
        is_there = True
        while is_there:
            is_there = await member.post(Heartbeat(self._now_ms(), self.head(), 0))
            await asyncio.sleep(self._config.heartbeat_interval_ms / 1000)

    async def _tell_left(self, member: Member, reason: str) -> None:
        _log.info("worker_left", worker=member.address.hex(), reason=reason)
        for observer in self._observers:
            await observer.left(member, reason)

    async def _on_heartbeat(self, member: Member, message: Heartbeat) -> None:
        member.head = message.head
        member.jobs_running = message.jobs_running
        member.has_beaten = True
        for observer in self._observers:
            await observer.heard(member)

    async def _on_goodbye(self, member: Member, message: Goodbye) -> None:
        member.is_draining = True
        _log.info("worker_draining", worker=member.address.hex(), reason=message.reason)

    def describe(self) -> Description:
        """What anybody may know."""
        return Description(
            chain_id=self._chain.config.chain_id,
            genesis_hash=self._genesis.hash,
            head=self.head(),
            at_ms=self._now_ms(),
            attach_port=self._membership.attach_port,
            workers=len(self._members),
            first_block=self._chain.first(),
        )

    def head(self) -> BlockReference:
        """The chain's head, as messages name it."""
        head = self._chain.head()
        return BlockReference(head.number, head.hash)


async def _expect(messages: AsyncIterator[WorkerMessage], kind: type[_M]) -> _M:
    try:
        message = await anext(messages)
    except StopAsyncIteration:
        raise PeerLost("the worker ended the stream during the handshake") from None
    if not isinstance(message, kind):
        raise UnexpectedMessage(f"{type(message).__name__} came where {kind.__name__} was expected")
    return message


def _reference(chain: ChainReader, number: int) -> BlockReference:
    sealed = chain.block(number)
    assert sealed is not None, "the genesis block is always there"
    return BlockReference(sealed.number, sealed.hash)
