"""Blocks over the fleet: agreement, disagreement, death, lateness and catching up, under virtual time."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from core.block import decode_block, header_hash
from core.chain_rules import commitments_in
from protos.handshake import finding_digest, recover_signer
from protos.messages import BlockFinding, BlockReference, SignedFinding
from protos.rpc import decode, encode
from sequencer.coordinator.block_execution import ExecutionConfig
from sequencer.coordinator.fleet import DUTY_WATCHER, FleetConfig
from sequencer.ports import ExecutionUnavailable
from tests.sim.network.executors import LyingExecutor, TransferExecutor
from tests.sim.network.virtual_time import simulate
from tests.sim.network.world import World, identity, transfers
from tests.unit.sequencer.fakes import CHAIN_ID, Wallet


def test_two_workers_follow_the_chain(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        one, two = world.worker(1), world.worker(2)
        async with world.running(one, two):
            for nonce in range(5):
                await world.make_block(transfers(Wallet(0), [nonce]))
            await world.until(lambda: one.replica.head.number == two.replica.head.number == 5)
        for worker in (one, two):
            assert worker.chain.head().hash == world.chain.head().hash
            assert worker.chain.state(5).root == world.chain.head().block.header.state_root
        assert not world.fleet.refusals

    simulate(scene())


def test_rejected_transactions_are_no_reason_to_fail(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        one, two = world.worker(1), world.worker(2)
        async with world.running(one, two):
            sealed = await world.make_block(transfers(Wallet(0), [0, 7, 1]))
            assert len(sealed.block.transactions) == 2
            await world.until(lambda: two.replica.head.number == one.replica.head.number == 1)

    simulate(scene())


@pytest.mark.parametrize("liar_first", [True, False])
def test_a_liar_is_shut_out_by_the_watcher(tmp_path: Path, liar_first: bool) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        liar, honest = world.worker(1, LyingExecutor(from_block=2)), world.worker(2)
        watcher = world.worker(3, TransferExecutor(), [DUTY_WATCHER])
        workers = (liar, honest, watcher) if liar_first else (honest, liar, watcher)
        async with world.running(*workers):
            await world.make_block(transfers(Wallet(0), [0]))
            await world.make_block(transfers(Wallet(0), [1]))
            await world.make_block(transfers(Wallet(0), [2]))
            await world.until(lambda: liar.failure is not None)
            await world.until(lambda: honest.replica.head.number == watcher.replica.head.number == 3)
        assert liar.failure.code == "banned"  # type: ignore[union-attr]
        assert world.chain.state(3).account(b"\x66" * 20) is None
        (kept,) = (tmp_path / "evidence").iterdir()
        evidence = json.loads((kept / "evidence.json").read_text())
        assert evidence["verdict"]["wrong"] == [liar.signer.address.hex()]
        assert evidence["verdict"]["arbiter"] == f"watcher 0x{watcher.signer.address.hex()}"
        assert (kept / "transactions.columns").exists()

    simulate(scene())


def test_the_nodes_own_arbiter_decides_where_there_is_no_watcher(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path, arbiter=TransferExecutor())
        liar, honest = world.worker(1, LyingExecutor()), world.worker(2)
        async with world.running(liar, honest):
            await world.make_block(transfers(Wallet(0), [0]))
            await world.until(lambda: liar.failure is not None)
        assert world.chain.state(1).account(b"\x66" * 20) is None

    simulate(scene())


def test_without_any_arbiter_a_disputed_block_is_not_sealed(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        liar, honest = world.worker(1, LyingExecutor()), world.worker(2)
        async with world.running(liar, honest):
            with pytest.raises(ExecutionUnavailable, match="no watcher"):
                await world.make_block(transfers(Wallet(0), [0]))
            assert list((tmp_path / "evidence").iterdir())
            watcher = world.worker(3, TransferExecutor(), [DUTY_WATCHER])
            async with world.running(watcher):
                await world.make_block(transfers(Wallet(0), [0]))
        assert world.chain.state(1).account(b"\x66" * 20) is None

    simulate(scene())


def test_one_worker_is_enough_when_there_is_only_one(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        one = world.worker(1)
        async with world.running(one):
            await world.make_block(transfers(Wallet(0), [0]))
            await world.until(lambda: one.replica.head.number == 1)

    simulate(scene())


def test_nobody_there_gives_the_block_back(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path, ExecutionConfig(answer_timeout_s=1.0, round_timeout_s=3.0))
        with pytest.raises(ExecutionUnavailable, match="0 attached workers"):
            await world.make_block(transfers(Wallet(0), [0]))

    simulate(scene())


def test_a_worker_that_comes_late_catches_up_and_is_asked(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        one = world.worker(1)
        async with world.running(one):
            for nonce in range(20):
                await world.make_block(transfers(Wallet(0), [nonce]))
            two = world.worker(2)
            async with world.running(two):
                await world.until(lambda: two.replica.head.number == 20)
                await world.make_block(transfers(Wallet(0), [20]))
                await world.until(lambda: two.replica.head.number == 21)
        assert two.chain.head().hash == world.chain.head().hash

    simulate(scene())


def test_the_primary_dies_between_question_and_answer(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        survivor = world.worker(2)

        class Dying(TransferExecutor):
            def execute_block(self, state, context, transactions):  # type: ignore[no-untyped-def]
                primary.dialer.is_down = True
                primary.dialer.streams[-1].cut()
                return super().execute_block(state, context, transactions)

        primary = world.worker(1, Dying())
        async with world.running(primary, survivor):
            await world.make_block(transfers(Wallet(0), [0]))
            await world.until(lambda: survivor.replica.head.number == 1)
            primary.dialer.is_down = False
            await world.until(lambda: primary.replica.head.number == 1)
        assert primary.chain.head().hash == world.chain.head().hash

    simulate(scene())


def test_a_body_that_does_not_fit_its_roots_convicts_the_primary(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        forger, honest = world.worker(1), world.worker(2)
        truth = forger.replica._answer

        def forged(proposal):  # type: ignore[no-untyped-def]
            answer = truth(proposal)
            other = LyingExecutor().execute_block(forger.chain.state(0), world.context(), proposal.transactions)
            return replace(answer, body=replace(answer.body, difference=other.difference))

        forger.replica._answer = forged  # type: ignore[method-assign]
        async with world.running(forger, honest):
            await world.make_block(transfers(Wallet(0), [0]))
            await world.until(lambda: forger.failure is not None)
        assert world.chain.state(1).account(b"\x66" * 20) is None

    simulate(scene())


def test_a_watchers_finding_halts_sealing_and_is_kept(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        liar = world.worker(1, LyingExecutor(from_block=2))
        watcher = world.worker(3, TransferExecutor(), [DUTY_WATCHER])
        async with world.running(liar, watcher):
            await world.make_block(transfers(Wallet(0), [0]))
            wrong = await world.make_block(transfers(Wallet(0), [1]))
            await world.until(lambda: watcher.failure is not None)
            with pytest.raises(ExecutionUnavailable, match="found block 2 wrong"):
                await world.make_block(transfers(Wallet(0), [2]))
        assert world.chain.head().hash == wrong.hash, "nothing was sealed on it"
        assert watcher.failure.code == "chain_rejected"  # type: ignore[union-attr]
        assert watcher.chain.head().number == 1
        (finding,) = world.evidence.findings
        assert (finding.number, finding.block_hash) == (2, wrong.hash)
        assert (finding.worker, finding.halts) == (watcher.signer.address, True)
        assert finding.vouchers == (liar.signer.address,)
        assert finding.reason.startswith("state_root is 0x")

        folder = tmp_path / "evidence" / finding.name
        assert header_hash(decode_block((folder / "block.rlp").read_bytes()).header) == wrong.hash
        signed = decode(SignedFinding, (folder / "signed_finding.binpb").read_bytes())
        digest = finding_digest(CHAIN_ID, encode(signed.finding))
        assert recover_signer(digest, signed.signature) == watcher.signer.address
        assert signed.finding.commitments.state_root != wrong.block.header.state_root  # type: ignore[union-attr]

        again = World(tmp_path)
        assert again.evidence.findings == [finding], "a restart forgets nothing"
        with pytest.raises(ExecutionUnavailable, match="sealing is halted"):
            await again.make_block(transfers(Wallet(0), [0]))
        folder.rename(tmp_path / "judged")
        assert World(tmp_path).evidence.halt() is None, "an operator has judged it"

    simulate(scene())


def test_a_finding_is_told_on_the_next_stream_when_this_one_breaks(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        liar, watcher = world.worker(1, LyingExecutor()), world.worker(3, TransferExecutor(), [DUTY_WATCHER])
        told = []
        testify = watcher.client.testify

        async def cut_at_first(finding: BlockFinding) -> bool:
            told.append(finding)
            if len(told) == 1:
                watcher.dialer.streams[-1].cut()
                return False
            return await testify(finding)

        watcher.client.testify = cut_at_first  # type: ignore[method-assign]
        async with world.running(liar, watcher):
            await world.make_block(transfers(Wallet(0), [0]))
            await world.until(lambda: watcher.failure is not None)
        assert len(told) == 2
        assert len(world.evidence.findings) == 1

    simulate(scene())


def test_a_workers_finding_is_kept_but_halts_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        honest = world.worker(1)
        async with world.running(honest):
            await world.make_block(transfers(Wallet(0), [0]))
            await world.until(lambda: honest.replica.head.number == 1)
            mistaken = world.worker(2, LyingExecutor())
            async with world.running(mistaken):
                await world.until(lambda: mistaken.failure is not None)
            await world.make_block(transfers(Wallet(0), [1]))
        (finding,) = world.evidence.findings
        assert (finding.worker, finding.halts) == (mistaken.signer.address, False)
        assert world.chain.head().number == 2

    simulate(scene())


@pytest.mark.parametrize(
    ("forged", "code"),
    [("signature", "malformed_message"), ("block", "unexpected_message"), ("nothing wrong", "unexpected_message")],
)
def test_a_forged_finding_is_refused_and_counted(tmp_path: Path, forged: str, code: str) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        worker, watcher = world.worker(1), world.worker(3, TransferExecutor(), [DUTY_WATCHER])
        async with world.running(worker, watcher):
            sealed = await world.make_block(transfers(Wallet(0), [0]))
            commitments = commitments_in(sealed.block.header)
            if forged != "nothing wrong":
                commitments = replace(commitments, gas_used=1)
            block_hash = bytes(32) if forged == "block" else sealed.hash
            finding = BlockFinding(BlockReference(1, block_hash), "wrong", commitments, "transfers")
            signer = worker.signer if forged == "signature" else watcher.signer
            signature = signer.sign(finding_digest(CHAIN_ID, encode(finding)))
            await watcher.client.post(SignedFinding(finding, signature))
            await world.until(lambda: world.fleet.refusals)
        assert world.fleet.refusals == {code: 1}
        assert not world.evidence.findings
        assert world.evidence.halt() is None

    simulate(scene())


def test_only_named_watchers_may_be_watchers(tmp_path: Path) -> None:
    async def scene() -> None:
        watchers = frozenset({identity(3).address})
        world = World(tmp_path, fleet_config=FleetConfig(heartbeat_interval_ms=500, watchers=watchers))
        stranger = world.worker(2, TransferExecutor(), [DUTY_WATCHER])
        named = world.worker(3, TransferExecutor(), [DUTY_WATCHER])
        async with world.running(stranger, named):
            await world.until(lambda: stranger.failure is not None)
            assert [one.address for one in world.fleet.members(DUTY_WATCHER)] == [named.signer.address]
        assert stranger.failure.code == "not_a_watcher"  # type: ignore[union-attr]

    simulate(scene())


def test_a_block_disputed_again_and_again_fills_no_disk(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path)
        liar, honest = world.worker(1, LyingExecutor()), world.worker(2)
        async with world.running(liar, honest):
            for _ in range(12):
                with pytest.raises(ExecutionUnavailable, match="no watcher"):
                    await world.make_block(transfers(Wallet(0), [0]))
        assert len(list((tmp_path / "evidence").iterdir())) == 8

    simulate(scene())
