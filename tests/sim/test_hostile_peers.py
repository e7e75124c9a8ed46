"""Peers that do not keep to the rules: each is refused with a reason and counted, and nobody else notices."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.chain_rules import Commitments
from core.hashing import keccak256
from protos.errors import PeerLost
from protos.handshake import enrolment_digest, registration_digest
from protos.messages import (
    PROTOCOL_VERSION,
    BlockAnswer,
    BlockReference,
    Challenge,
    EnrolRequest,
    Failure,
    GetBlocks,
    Heartbeat,
    Hello,
    Register,
    Registered,
)
from protos.rpc import encode, sequencer_reader, worker_writer
from sequencer.coordinator.errors import JoinRefused
from sequencer.coordinator.fleet import FleetConfig
from tests.sim.network.pipes import Pipe, pipe_pair
from tests.sim.network.virtual_time import pass_time, simulate
from tests.sim.network.world import FakeAuthority, World, capabilities, identity, transfers
from tests.unit.protos.strategies import worker_messages
from tests.unit.sequencer.fakes import CHAIN_ID, Wallet


class Peer:
    """A peer that sends what a test says; enrolled as identity `number` unless told otherwise."""

    def __init__(self, world: World, number: int = 66, *, is_enrolled: bool = True) -> None:
        self.world = world
        self.signer = identity(number)
        self.request = b"request of peer %d" % number
        self.pipe, theirs = pipe_pair()
        self.writer, self.reader = worker_writer(), sequencer_reader()
        if is_enrolled:
            digest = enrolment_digest(CHAIN_ID, FakeAuthority.fingerprint, self.request)
            world.membership.enrol(EnrolRequest(self.signer.address, self.request, self.signer.sign(digest)))
        self.serving = asyncio.create_task(world.fleet.serve(theirs, self.fingerprint))

    @property
    def fingerprint(self) -> bytes:
        return keccak256(self.request)

    async def send(self, *messages: Any) -> None:
        for message in messages:
            for frame in self.writer.frames(message):
                await self.pipe.send(frame)

    async def hear(self, kind: type[Any]) -> Any:
        """The next message of this kind; others are skipped."""
        while (frame := await self.pipe.receive()) is not None:
            message = self.reader.read(frame)
            if isinstance(message, kind):
                return message
        raise PeerLost("the stream ended")

    def hello(self) -> Hello:
        return Hello(PROTOCOL_VERSION, CHAIN_ID, self.world.genesis.block.hash, self.signer.address)

    async def join(self, signature: bytes | None = None) -> None:
        await self.send(self.hello())
        challenge = await self.hear(Challenge)
        own = capabilities()
        digest = registration_digest(
            CHAIN_ID, challenge.nonce, FakeAuthority.fingerprint, self.fingerprint, encode(own)
        )
        await self.send(Register(own, signature or self.signer.sign(digest)))
        await self.hear(Registered)

    async def refusal(self) -> Failure:
        failure: Failure = await self.hear(Failure)
        await self.serving
        return failure


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"protocol": 99}, "protocol_version"),
        ({"chain_id": 1}, "wrong_chain"),
        ({"genesis_hash": bytes(32)}, "wrong_chain"),
        ({"address": b"\x01" * 20}, "not_enrolled"),
    ],
)
def test_a_wrong_hello_is_refused(tmp_path: Path, change: dict[str, Any], code: str) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        peer = Peer(world)
        await peer.send(replace(peer.hello(), **change))
        assert (await peer.refusal()).code == code
        assert world.fleet.refusals == {code: 1}

    simulate(scene())


def test_a_certificate_of_another_is_refused(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        owner, thief = Peer(world, 1), Peer(world, 2)
        await thief.send(owner.hello())
        assert (await thief.refusal()).code == "certificate_not_pinned"
        owner.pipe.cut()
        await owner.serving

    simulate(scene())


def test_a_signature_over_another_nonce_is_refused(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        peer = Peer(world)
        digest = registration_digest(
            CHAIN_ID, bytes(32), FakeAuthority.fingerprint, peer.fingerprint, encode(capabilities())
        )
        with pytest.raises(PeerLost):
            await peer.join(peer.signer.sign(digest))
        await peer.serving
        assert world.fleet.refusals == {"signature_invalid": 1}

    simulate(scene())


def test_enrolment_needs_the_owners_signature(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        one, other = identity(1), identity(2)
        digest = enrolment_digest(CHAIN_ID, FakeAuthority.fingerprint, b"request")
        with pytest.raises(JoinRefused, match="not signed"):
            world.membership.enrol(EnrolRequest(one.address, b"request", other.sign(digest)))
        with pytest.raises(JoinRefused, match="enrolment"):
            world.membership.enrol(EnrolRequest(one.address, b"request", bytes(65)))

    simulate(scene())


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (GetBlocks(1, 0, 0), "unexpected_message"),
        (GetBlocks(1, 0, 10_000), "unexpected_message"),
        (Hello(1, 1, bytes(32), bytes(20)), "unexpected_message"),
    ],
)
def test_what_may_not_come_from_an_attached_worker_ends_its_stream(tmp_path: Path, message: Any, code: str) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        peer = Peer(world)
        await peer.join()
        await peer.send(message)
        assert (await peer.refusal()).code == code
        assert not world.fleet.members()

    simulate(scene())


def test_a_replayed_frame_ends_the_stream(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        peer = Peer(world)
        await peer.join()
        await peer.pipe.send(peer.pipe.sent[-1])
        assert (await peer.refusal()).code == "sequence_broken"

    simulate(scene())


def test_a_peer_that_says_nothing_is_dropped_at_every_stage(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path, fleet_config=FleetConfig(heartbeat_interval_ms=500, handshake_timeout_s=3.0))
        mute = Peer(world, 1)
        await mute.serving
        attached = Peer(world, 2)
        await attached.join()
        await attached.serving
        assert not world.fleet.members()
        assert asyncio.get_running_loop().time() < 10

    simulate(scene())


def test_a_peer_that_takes_nothing_is_dropped_and_holds_up_nobody(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        stuck, sound = Peer(world, 1), world.worker(2)
        await stuck.join()

        async def keep_beating() -> None:
            while True:
                await stuck.send(Heartbeat(0, BlockReference(0, world.genesis.block.hash), 0))
                await pass_time(0.2)

        beating = asyncio.create_task(keep_beating())
        async with world.running(sound):
            for nonce in range(3):
                await world.make_block(transfers(Wallet(0), [nonce]))
            await world.until(lambda: sound.replica.head.number == 3)
            await stuck.serving
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        assert asyncio.get_running_loop().time() < 60

    simulate(scene())


def test_an_answer_to_no_question_changes_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        peer, sound = Peer(world), world.worker(2)
        await peer.join()
        async with world.running(sound):
            await world.make_block(transfers(Wallet(0), [0]))
            commitments = _commitments(world)
            await peer.send(BlockAnswer(1, commitments, None, 0), BlockAnswer(77, commitments, None, 0))
            await world.until(lambda: sound.replica.head.number == 1)
        peer.pipe.cut()
        await peer.serving

    simulate(scene())
    assert not list(tmp_path.glob("evidence/*"))


def _commitments(world: World) -> Any:
    header = world.chain.head().block.header
    return Commitments(
        header.state_root,
        header.transactions_root,
        header.receipts_root,
        header.logs_bloom,
        header.gas_used,
        header.withdrawals_root,
        header.blob_gas_used,
        header.requests_hash,
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(worker_messages, st.binary(max_size=64)), max_size=6), st.booleans())
def test_no_sequence_of_messages_harms_the_network(tmp_path: Path, script: list[Any], joins_first: bool) -> None:
    """Whatever a peer sends, valid messages or noise, attached or not: it ends, and a block is sealed by the others."""

    async def scene() -> None:
        world = World(tmp_path)
        sound = world.worker(2)
        async with world.running(sound):
            peer = Peer(world)
            if joins_first:
                await peer.join()
            await _play(peer, script)
            peer.pipe.cut()
            await peer.serving
            await world.make_block(transfers(Wallet(0), [0]))
            await world.until(lambda: sound.replica.head.number == 1)
        assert sound.failure is None

    simulate(scene())


async def _play(peer: Peer, script: list[Any]) -> None:
    async def drain(pipe: Pipe) -> None:
        while await pipe.receive() is not None:
            continue

    draining = asyncio.create_task(drain(peer.pipe))
    for step in script:
        if isinstance(step, bytes):
            await peer.pipe.send(step)
        else:
            await peer.send(step)
    await pass_time(0.01)
    draining.cancel()
    await asyncio.gather(draining, return_exceptions=True)
