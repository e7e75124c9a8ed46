"""Real gRPC and TLS on loopback: who may attach, who may not, and blocks executed by what attached."""

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc import aio

from core.chain_rules import next_context, seal_block
from node.errors import KeysError
from node.keys import CertificateAuthority, SequencerPin, WorkerTls
from protos.messages import PROTOCOL_VERSION, Failure, Hello
from protos.rpc import FRAME_BYTES_MAX, sequencer_reader, worker_writer
from sequencer.coordinator.fleet import DUTY_REPLICA, DUTY_WATCHER
from sequencer.ports import ExecutionUnavailable
from tests.integration.network import GrpcWorker, GrpcWorld
from tests.sim.network.executors import LyingExecutor
from tests.sim.network.world import COINBASE, transfers
from tests.unit.sequencer.fakes import CHAIN_ID, Wallet
from worker.errors import CannotJoin


async def make_next_block(world: GrpcWorld, wallet: Wallet, nonce: int) -> None:
    head = world.chain.head()
    hashes = [head.hash]
    context = next_context(
        head.block.header, world.chain.config, hashes, timestamp=head.block.header.timestamp, coinbase=COINBASE
    )
    transactions = transfers(wallet, [nonce])
    executed = await world.execution.execute(context, transactions)
    outcome = executed.outcome
    sealed = seal_block(head, context, transactions, outcome, executed.commitments)
    world.chain.append(sealed, outcome.receipts, outcome.difference)
    await world.execution.announce(sealed)


async def test_two_workers_execute_and_a_third_catches_up(tmp_path: Path) -> None:
    world = GrpcWorld(tmp_path)
    async with world.serving():
        one, two, three = (GrpcWorker(world, number) for number in (1, 2, 3))
        async with one.running(), two.running():
            await world.events.until(lambda: len(world.fleet.members()) == 2)
            for nonce in range(4):
                await make_next_block(world, Wallet(0), nonce)
            async with three.running():
                await world.events.until(lambda: three.replica.head.number == 4)
            await world.events.until(lambda: one.replica.head.number == two.replica.head.number == 4)
    assert three.chain.head().hash == one.chain.head().hash == world.chain.head().hash
    assert not world.fleet.refusals


async def test_a_liar_is_banned_and_may_not_come_back(tmp_path: Path) -> None:
    world = GrpcWorld(tmp_path)
    async with world.serving():
        honest, liar = GrpcWorker(world, 1), GrpcWorker(world, 2, LyingExecutor())
        async with honest.running(), liar.running() as liars_client:
            await world.events.until(lambda: len(world.fleet.members()) == 2)
            await make_next_block(world, Wallet(0), 0)
            async with asyncio.timeout(20):
                with pytest.raises(CannotJoin, match="wrong commitments"):
                    await asyncio.shield(liars_client)
        again = GrpcWorker(world, 2)
        async with again.running() as client, asyncio.timeout(20):
            with pytest.raises(CannotJoin, match="shut out"):
                await asyncio.shield(client)
    assert world.fleet.refusals["banned"] >= 1


async def test_what_a_liar_had_sealed_the_watcher_finds_and_halts(tmp_path: Path) -> None:
    world = GrpcWorld(tmp_path)
    async with world.serving():
        liar, watcher = GrpcWorker(world, 1, LyingExecutor()), GrpcWorker(world, 2, duties=[DUTY_WATCHER])
        async with liar.running():
            await world.events.until(lambda: world.fleet.members(DUTY_REPLICA))
            await make_next_block(world, Wallet(0), 0)
            async with watcher.running():
                await world.events.until(lambda: world.evidence.findings)
            with pytest.raises(ExecutionUnavailable, match="found block 1 wrong"):
                await make_next_block(world, Wallet(0), 1)
    (finding,) = world.evidence.findings
    assert (finding.worker, finding.block_hash) == (watcher.signer.address, world.chain.head().hash)
    assert finding.vouchers == (liar.signer.address,)
    assert (tmp_path / "evidence" / finding.name / "signed_finding.binpb").exists()
    assert watcher.chain.head().number == 0, "it goes no further than what is right"


async def test_a_worker_comes_back_after_the_sequencer_restarts(tmp_path: Path) -> None:
    world = GrpcWorld(tmp_path)
    await world.server.start()
    worker = GrpcWorker(world, 1)
    async with worker.running():
        await world.events.until(lambda: world.fleet.members())
        await world.server.stop()
        again = GrpcWorld(tmp_path)
        again.server._config = type(again.server._config)(
            attach_port=world.server.attach_port, service_port=world.server.service_port, stop_grace_s=0.5
        )
        async with again.serving():
            await again.events.until(lambda: again.fleet.members())
            assert again.fleet.members()[0].address == worker.signer.address


async def test_no_certificate_no_stream(tmp_path: Path) -> None:
    world = GrpcWorld(tmp_path)
    async with world.serving():
        for certificate in (None, _self_made(tmp_path)):
            credentials = grpc.ssl_channel_credentials(world.authority.certificate_pem, *(certificate or (None, None)))
            with pytest.raises(aio.AioRpcError) as refusal:
                await _first_frame(world, credentials, b"")
            assert refusal.value.code() == grpc.StatusCode.UNAVAILABLE
    assert not world.fleet.members()


def _self_made(folder: Path) -> tuple[bytes, bytes]:
    """A key and a certificate that another authority issued."""
    tls = WorkerTls.load_or_create(folder / "stranger")
    issued = CertificateAuthority.load_or_create(folder / "other").issue(tls.signing_request(), bytes(20))
    return tls.key_pem, issued.pem


async def _first_frame(world: GrpcWorld, credentials: grpc.ChannelCredentials, *frames: bytes) -> bytes:
    """Send frames on a new stream and return the first frame of the answer."""
    options = [("grpc.ssl_target_name_override", "sequencer.warpgrid"), ("grpc.use_local_subchannel_pool", 1)]
    target = f"127.0.0.1:{world.server.attach_port}"
    async with asyncio.timeout(20), aio.secure_channel(target, credentials, options=options) as channel:
        call = channel.stream_stream("/warpgrid.v1.Network/Attach")()
        for frame in frames:
            await call.write(frame)
        answer = await call.read()
        assert isinstance(answer, bytes), f"no frame came: {answer}"
        return answer


def _enrolled(world: GrpcWorld, folder: Path) -> grpc.ChannelCredentials:
    """Credentials that the authority issued, for an address that never enrolled."""
    tls = WorkerTls.load_or_create(folder)
    issued = world.authority.issue(tls.signing_request(), b"\x01" * 20)
    return grpc.ssl_channel_credentials(world.authority.certificate_pem, tls.key_pem, issued.pem)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([b"\xff\xff\xff"], "malformed_message"),
        ([b""], "sequence_broken"),
        (list(worker_writer().frames(Failure("x", "y"))), "unexpected_message"),
        (list(worker_writer().frames(Hello(9, CHAIN_ID, bytes(32), bytes(20)))), "protocol_version"),
        (list(worker_writer().frames(Hello(PROTOCOL_VERSION, CHAIN_ID, bytes(32), bytes(20)))), "wrong_chain"),
    ],
)
async def test_strangers_are_refused_with_a_reason_and_counted(tmp_path: Path, frames: list[bytes], code: str) -> None:
    world = GrpcWorld(tmp_path)
    async with world.serving():
        raw = await _first_frame(world, _enrolled(world, tmp_path / "stranger"), *frames)
        answer = sequencer_reader().read(raw)
    assert isinstance(answer, Failure)
    assert answer.code == code
    assert world.fleet.refusals == {code: 1}


async def test_an_oversized_frame_ends_the_stream(tmp_path: Path) -> None:
    world = GrpcWorld(tmp_path)
    async with world.serving():
        with pytest.raises(aio.AioRpcError) as refusal:
            await _first_frame(world, _enrolled(world, tmp_path / "stranger"), bytes(FRAME_BYTES_MAX + 4096))
        assert refusal.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNKNOWN)


async def test_a_worker_does_not_speak_to_another_sequencer(tmp_path: Path) -> None:
    world = GrpcWorld(tmp_path)
    async with world.serving():
        pin = SequencerPin(tmp_path / "pin.crt", "ab" * 32)
        with pytest.raises(KeysError, match="expected abab"):
            await asyncio.to_thread(pin.certificate, "127.0.0.1", world.server.service_port)
        first_use = SequencerPin(tmp_path / "pin.crt")
        pem = await asyncio.to_thread(first_use.certificate, "127.0.0.1", world.server.service_port)
        assert pem.strip() == world.authority.certificate_pem.strip()
