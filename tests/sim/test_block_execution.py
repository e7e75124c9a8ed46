"""Blocks over the fleet: agreement, disagreement, death, lateness and catching up, under virtual time."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sequencer.coordinator.block_execution import ExecutionConfig
from sequencer.coordinator.fleet import DUTY_WATCHER
from sequencer.ports import ExecutionUnavailable
from tests.sim.network.memory_chain import LyingExecutor, TransferExecutor
from tests.sim.network.virtual_time import simulate
from tests.sim.network.world import World, transfers
from tests.unit.sequencer.fakes import Wallet


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
