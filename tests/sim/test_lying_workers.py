"""Workers that lie and adapt to the protocol: no wrong answer is paid for, and no honest worker is blamed.

Each case is a network with honest workers beside the liar, over several seeds. What an answer should have been is
computed apart, by the ordered model. Where soundness is statistical (a single wrong row, vouched for by a colluding
checker) the share that gets through is compared with the stated one.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.hashing import keccak256
from core.jobs.request import JobRequest
from protos.job_messages import SubmitJob
from tests.sim.network.exact_jobs import Claim, ExactWorld, GrindingRunner, SimulatedEngine
from tests.sim.network.virtual_time import pass_time, simulate
from tests.sim.network.world import SimulatedWorker
from tests.sim.test_jobs import Running
from tests.unit.worker.inference.exact_models import write_model
from tests.unit.worker.inference.random_models import random_model
from worker.inference.exact.model import ExactModel
from worker.jobs import JobRunner
from zk.audit import (
    AuditKey,
    AuditOpening,
    CommittedRows,
    Unit,
    audit,
    catch_probability,
    open_unit,
    unit_count,
)
from zk.merkle import Digests

SEEDS = range(3)
SEEDS_SOAK = range(3, 33)
JOBS = 4
LIAR, HONEST = 1, (2, 3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ExactModel:
    return write_model(tmp_path_factory.mktemp("models") / "bytes", 5)


def other_weights(model: ExactModel, seed: int) -> object:
    return random_model(100 + seed, vocabulary=model.header.vocabulary)


class OpensTheHonestTrace:
    """Ran something else; when challenged, computes the ordered model's rows for the tokens and opens those."""

    def __init__(self, exact: ExactModel, engine: SimulatedEngine) -> None:
        self._honest, self._engine = SimulatedEngine(exact), engine

    async def open(
        self, request: JobRequest, salt: bytes, answer: Sequence[int], units: Sequence[Unit]
    ) -> tuple[Digests, list[AuditOpening]]:
        true = self._honest.compute(request, salt)
        claimed = self._engine.claims[salt].statement
        rows = true.rows if len(true.statement.tokens) >= len(claimed.tokens) else self._engine.claims[salt].rows
        self._honest.claims[salt] = self._honest.committed(claimed, _first(rows, len(claimed.tokens) - 1))
        return await self._honest.open(request, salt, answer, units)


class NeverOpens:
    async def open(self, *_: object) -> tuple[Digests, list[AuditOpening]]:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


class LeavesWhenChallenged:
    """Cuts its stream at each challenge, and comes back."""

    def __init__(self) -> None:
        self.worker: SimulatedWorker | None = None

    async def open(self, *_: object) -> tuple[Digests, list[AuditOpening]]:
        assert self.worker is not None
        self.worker.dialer.streams[-1].cut()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


def _first(rows: CommittedRows, positions: int) -> CommittedRows:
    return CommittedRows(rows.boundaries[:positions], rows.kv_rows[:positions])


def old_answer(engine: SimulatedEngine, claim: Claim) -> Claim:
    """Whatever is asked, the first answer that was ever given, trace and all."""
    return next(iter(engine.claims.values()), claim) if engine.claims else _spoilt(engine, claim)


def _spoilt(engine: SimulatedEngine, claim: Claim) -> Claim:
    answer = (*claim.statement.answer[:-1], (claim.statement.answer[-1] + 1) % 258)
    return engine.committed(replace(claim.statement, answer=answer), claim.rows)


def cut_short(engine: SimulatedEngine, claim: Claim) -> Claim:
    """One token less than the model would give, with every row right."""
    statement = replace(claim.statement, answer=claim.statement.answer[:-1])
    return engine.committed(statement, _first(claim.rows, len(statement.tokens) - 1))


def one_wrong_row(engine: SimulatedEngine, claim: Claim) -> Claim:
    """One bit of one key-value row; everything else is what follows from the right one."""
    rows = claim.rows.kv_rows.copy()
    rows[len(rows) // 2, 0, 3] ^= 1
    return engine.committed(claim.statement, CommittedRows(claim.rows.boundaries, rows))


def liar_of(world: ExactWorld, strategy: str, seed: int) -> SimulatedWorker:
    model = world.exact
    other = SimulatedEngine(model, other_weights(model, seed))  # type: ignore[arg-type]
    make = {
        "runs another model": lambda: (other, JobRunner, None),
        "runs another, opens the right one": lambda: (other, JobRunner, OpensTheHonestTrace(model, other)),
        "grinds the commitment": lambda: (SimulatedEngine(model), GrindingRunner, None),
        "never opens": lambda: (other, JobRunner, NeverOpens()),
        "leaves when challenged": lambda: (other, JobRunner, LeavesWhenChallenged()),
        "gives old answers": lambda: (SimulatedEngine(model, forge=old_answer), JobRunner, None),
        "cuts answers short": lambda: (SimulatedEngine(model, forge=cut_short), JobRunner, None),
    }
    engine, runner, opener = make[strategy]()
    worker = world.exact_worker(LIAR, engine, runner=runner, opener=opener)
    if isinstance(opener, LeavesWhenChallenged):
        opener.worker = worker
    return worker


STRATEGIES = (
    "runs another model",
    "runs another, opens the right one",
    "grinds the commitment",
    "never opens",
    "leaves when challenged",
    "gives old answers",
    "cuts answers short",
)


def is_right(world: ExactWorld, submit: SubmitJob) -> bool:
    """Whether the answer that the coordinator holds is what the ordered model says to this request."""
    job = world.coordinator.table.jobs[submit.job_id]
    honest = SimulatedEngine(world.exact)
    true = honest.compute(submit.request, submit.salt)
    assert job.signed is not None
    is_same_text = job.output == honest.text(submit.request, true.statement.answer)
    return is_same_text and job.signed.receipt.trace_root == true.trace.root


def assert_sound(world: ExactWorld, submitted: Sequence[SubmitJob], blameless: Sequence[bytes]) -> None:
    table = world.coordinator.table
    paid = {job.terms.job_id for job in table.to_settle()}
    for submit in submitted:
        if submit.job_id in paid:
            assert is_right(world, submit), submit
    for worker in blameless:
        if worker in table.reliability:
            assert table.reliability[worker].contradicted == 0


def lie(tmp_path: Path, model: ExactModel, strategy: str, seed: int) -> None:
    async def scene() -> None:
        world = ExactWorld(tmp_path, model, units=6)
        generator = np.random.default_rng([41, seed])
        liar = liar_of(world, strategy, seed)
        honest = [world.exact_worker(number, SimulatedEngine(model)) for number in HONEST]
        async with Running(world, liar, *honest):
            # Half of the jobs only the liar may do, so that it cannot hide behind the others.
            named = [liar.signer.address if number % 2 else bytes(20) for number in range(JOBS)]
            submitted = [world.order(10 * seed + number, generator, worker=named[number]) for number in range(JOBS)]
            await asyncio.gather(*(world.finished(one) for one in submitted))
        assert_sound(world, submitted, [one.signer.address for one in honest])
        of_liar = [job for job in world.coordinator.table.jobs.values() if job.worker == liar.signer.address]
        assert of_liar, "the liar was given work"
        assert all(job.audit in ("disagreed", "withheld") for job in of_liar), [job.audit for job in of_liar]
        if strategy not in ("never opens", "leaves when challenged"):
            assert world.coordinator.table.reliability[liar.signer.address].contradicted > 0

    simulate(scene())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_liar_is_not_paid_and_nobody_else_is_blamed(
    tmp_path: Path, model: ExactModel, strategy: str, seed: int
) -> None:
    lie(tmp_path, model, strategy, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", SEEDS_SOAK)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_many_liars_are_not_paid(tmp_path: Path, model: ExactModel, strategy: str, seed: int) -> None:
    lie(tmp_path, model, strategy, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_checker_that_contradicts_honest_workers_is_the_one_to_blame(
    tmp_path: Path, model: ExactModel, seed: int
) -> None:
    async def scene() -> None:
        world = ExactWorld(tmp_path, model, units=2)
        generator = np.random.default_rng([42, seed])
        slanderer = world.exact_worker(LIAR, SimulatedEngine(model, other_weights(model, seed)))  # type: ignore[arg-type]
        honest = world.exact_worker(HONEST[0], SimulatedEngine(model))
        async with Running(world, slanderer, honest):
            address = honest.signer.address
            submitted = [world.order(number, generator, worker=address if number else bytes(20)) for number in range(3)]
            await asyncio.gather(*(world.finished(one) for one in submitted))
            open_to_all = [world.order(100 + number, generator) for number in range(4)]
            await asyncio.gather(*(world.finished(one) for one in open_to_all))
        assert_sound(world, [*submitted, *open_to_all], [honest.signer.address])
        paid = {job.terms.job_id for job in world.coordinator.table.to_settle()}
        for job in world.coordinator.table.jobs.values():
            assert (job.terms.job_id in paid) == (job.worker == honest.signer.address)
        assert world.coordinator.table.reliability[slanderer.signer.address].contradicted > 0

    simulate(scene())


def test_colluders_get_through_as_often_as_stated(tmp_path: Path, model: ExactModel) -> None:
    """The worst case: one wrong row, and every checker a friend who signs whatever the liar did. What is left is the
    audit by openings, which misses with probability (1 - f)^n."""
    units, jobs = 16, 24

    async def scene() -> tuple[int, float, float]:
        world = ExactWorld(tmp_path, model, units=units)
        generator = np.random.default_rng(43)
        shared = SimulatedEngine(model, forge=one_wrong_row)
        friend = SimulatedEngine(model, forge=one_wrong_row, claims=shared.claims)
        passed, expected, variance = 0, 0.0, 0.0
        async with Running(world, world.exact_worker(1, shared), world.exact_worker(2, friend)):
            for number in range(jobs):
                submit = world.order(number, generator)
                passed += await world.finished(submit) == "agreed"
                job = world.coordinator.table.jobs[submit.job_id]
                claim = shared.claims[submit.salt]
                assert job.signed is not None
                total = unit_count(model.header.layers, claim.statement)
                missed = 1 - catch_probability(wrong_units(shared, claim), total, units)
                expected += missed
                variance += missed * (1 - missed)
        return passed, expected, variance

    passed, expected, variance = simulate(scene())
    assert abs(passed - expected) <= 4 * variance**0.5, (passed, expected)


def wrong_units(engine: SimulatedEngine, claim: Claim) -> int:
    """How many units of a claim by `one_wrong_row` are wrong: the row's own, and those of later positions whose
    attention notices the bit."""
    positions = len(claim.statement.tokens) - 1
    suspects = [Unit(position, 0) for position in range(positions // 2, positions)]
    openings = [open_unit(engine.arithmetic, claim.trace, claim.rows, unit) for unit in suspects]
    key, roots = AuditKey(engine.arithmetic, keccak256(b"secret")), claim.trace.position_roots
    verdict = audit(engine.arithmetic, key, claim.statement, claim.trace.root, roots, suspects, openings)
    assert verdict.findings, "the row itself is wrong"
    return len(verdict.findings)


class Watching:
    """Opens honestly, and remembers which units were asked for."""

    def __init__(self, engine: SimulatedEngine) -> None:
        self._engine = engine
        self.asked: list[list[Unit]] = []

    async def open(
        self, request: JobRequest, salt: bytes, answer: Sequence[int], units: Sequence[Unit]
    ) -> tuple[Digests, list[AuditOpening]]:
        self.asked.append(list(units))
        return await self._engine.open(request, salt, answer, units)


def test_the_draw_is_unknown_before_the_receipt_and_fixed_after_it(tmp_path: Path, model: ExactModel) -> None:
    """The same answer under another receipt is challenged elsewhere; under the same one, at the same places."""

    async def scene(folder: Path, delay_s: float) -> list[list[Unit]]:
        world = ExactWorld(folder, model, units=8)
        engine = SimulatedEngine(model)
        watching = Watching(engine)
        await pass_time(delay_s)  # the receipt's times change, and nothing else
        async with Running(world, world.exact_worker(1, engine, opener=watching)):
            assert await world.finished(world.order(1, np.random.default_rng(7))) == "agreed"
        return watching.asked

    delays_s = (0.0, 0.0, 1.0)
    first, again, later = (simulate(scene(tmp_path / str(at), delay)) for at, delay in enumerate(delays_s))
    assert first == again != later
    assert len(first[0]) == 8
