"""Two workers contradict each other, and money is at stake: the coordinator runs the answer itself and takes whoever
was wrong to the contracts. The cheat pays with its stake, the client gets all back, the honest one is paid in full.

Every case is a network with its contracts on a ledger, over several seeds; nothing is scripted but the lie.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from protos.job_messages import SubmitJob
from sequencer.coordinator.escrow import EscrowStatus
from tests.sim.network.court import CLIENT, PENALTY_WEI, PRICE_MAX_WEI, STAKE_WEI, CourtWorld
from tests.sim.network.exact_jobs import Claim, SimulatedEngine
from tests.sim.network.virtual_time import simulate
from tests.sim.network.world import SimulatedWorker
from tests.sim.test_jobs import Running
from tests.unit.worker.inference.exact_models import write_model
from tests.unit.worker.inference.random_models import random_model
from worker.inference.exact.model import ExactModel
from zk.audit import CommittedRows

SEEDS = range(2)
SEEDS_SOAK = range(2, 22)
JOBS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ExactModel:
    return write_model(tmp_path_factory.mktemp("models") / "bytes", 5)


def one_wrong_bit(engine: SimulatedEngine, claim: Claim) -> Claim:
    rows = claim.rows.kv_rows.copy()
    rows[len(rows) // 2, 0, 3] ^= 1
    return engine.committed(claim.statement, CommittedRows(claim.rows.boundaries, rows))


@dataclass
class Flaky:
    """Means well; its memory does not hold every bit."""

    generator: np.random.Generator

    def __call__(self, engine: SimulatedEngine, claim: Claim) -> Claim:
        return one_wrong_bit(engine, claim) if self.generator.random() < 0.5 else claim


async def play(world: CourtWorld, workers: Sequence[SimulatedWorker], seed: int, named: Sequence[bytes]) -> None:
    """Jobs for workers by name or for anybody, from their funding to their end; every wei is accounted for."""
    generator = np.random.default_rng([51, seed])
    async with Running(world, *workers):
        jobs = [world.order(100 * seed + number, generator, worker=one) for number, one in enumerate(named)]
        await asyncio.gather(*(world.finished(one) for one in jobs))
        await world.settle_all()
    returned_wei = 0
    earned_wei = dict.fromkeys((one.signer.address for one in workers), 0)
    wrong = dict.fromkeys(earned_wei, 0)
    for submit in jobs:
        job = world.coordinator.table.jobs[submit.job_id]
        assert job.signed is not None
        paid_wei = job.signed.receipt.total_wei
        if is_right(world, submit):
            assert world.status(submit.job_id) == EscrowStatus.PAID, (job.audit, job.detail)
            earned_wei[job.worker] += paid_wei
            returned_wei += PRICE_MAX_WEI - paid_wei
        else:
            assert world.status(submit.job_id) == EscrowStatus.REJECTED, (job.audit, job.detail)
            wrong[job.worker] += 1
            returned_wei += PRICE_MAX_WEI
    for worker, count in wrong.items():
        assert world.stake_wei(worker) == STAKE_WEI - count * PENALTY_WEI
        assert world.credit_wei(worker) == earned_wei[worker]
    assert world.credit_wei(CLIENT) == returned_wei


def is_right(world: CourtWorld, submit: SubmitJob) -> bool:
    honest = SimulatedEngine(world.exact).compute(submit.request, submit.salt)
    job = world.coordinator.table.jobs[submit.job_id]
    assert job.signed is not None
    return job.signed.receipt.trace_root == honest.trace.root


def one_liar(folder: Path, model: ExactModel, seed: int) -> None:
    async def scene() -> None:
        world = CourtWorld(folder, model, units=1)
        liar = world.exact_worker(1, SimulatedEngine(model, forge=one_wrong_bit))
        honest = [world.exact_worker(number, SimulatedEngine(model)) for number in (2, 3)]
        await play(world, [liar, *honest], seed, [liar.signer.address, bytes(20)] * (JOBS // 2))
        assert world.stake_wei(liar.signer.address) < STAKE_WEI, "the liar was given work"
        reliability = world.coordinator.table.reliability
        assert reliability[liar.signer.address].contradicted > 0
        assert all(reliability[one.signer.address].contradicted == 0 for one in honest)

    simulate(scene())


def two_liars(folder: Path, model: ExactModel, seed: int) -> None:
    """Both sign whatever the other did, and say that the honest one is wrong."""

    async def scene() -> None:
        world = CourtWorld(folder, model, units=4)
        weights = random_model(100 + seed, vocabulary=model.header.vocabulary)
        first = SimulatedEngine(model, weights)
        second = SimulatedEngine(model, weights, claims=first.claims)
        liars = [world.exact_worker(1, first), world.exact_worker(2, second)]
        third = world.exact_worker(3, SimulatedEngine(model))
        honest = third.signer.address
        await play(world, [*liars, third], seed, [honest, liars[0].signer.address, honest, liars[1].signer.address])
        assert world.stake_wei(honest) == STAKE_WEI
        assert world.credit_wei(honest) > 0
        assert world.coordinator.table.reliability[honest].contradicted == 0
        assert all(world.credit_wei(one.signer.address) == 0 for one in liars)

    simulate(scene())


def one_flaky(folder: Path, model: ExactModel, seed: int) -> None:
    """What it signed wrong costs it its stake; a wrong opinion of another's answer costs nobody's."""

    async def scene() -> None:
        world = CourtWorld(folder, model, units=1)
        flaky = world.exact_worker(1, SimulatedEngine(model, forge=Flaky(np.random.default_rng([52, seed]))))
        honest = world.exact_worker(2, SimulatedEngine(model))
        address = honest.signer.address
        await play(world, [flaky, honest], seed, [address, flaky.signer.address] * (JOBS // 2))
        assert world.stake_wei(address) == STAKE_WEI
        assert world.credit_wei(address) > 0
        assert world.coordinator.table.reliability[address].contradicted == 0

    simulate(scene())


CASES = {"one liar": one_liar, "two liars": two_liars, "one flaky": one_flaky}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("case", CASES)
def test_a_contradiction_is_decided_by_the_contracts(tmp_path: Path, model: ExactModel, case: str, seed: int) -> None:
    CASES[case](tmp_path, model, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", SEEDS_SOAK)
@pytest.mark.parametrize("case", CASES)
def test_many_contradictions(tmp_path: Path, model: ExactModel, case: str, seed: int) -> None:
    CASES[case](tmp_path, model, seed)
