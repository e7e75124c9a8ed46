"""Jobs over the fleet, under virtual time: answered, refused, reassigned, audited, and kept through restarts."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from core.jobs.receipt import recover_signer
from core.jobs.request import output_hash
from core.store.identity import ChainIdentity
from protos.job_messages import JobEvent, JobQuery, ListJobs
from sequencer.coordinator.errors import JobConflict, JobNotFunded, JobUnknown, QueueFull
from sequencer.coordinator.job_log import JobLog, JobLogRecord
from sequencer.coordinator.job_table import JobTable
from sequencer.coordinator.jobs import JobsConfig
from tests.sim.network.jobs import OUTPUT_WEI, FakeMarket, JobWorld, ScriptedEngine
from tests.sim.network.virtual_time import pass_time, simulate
from tests.sim.network.world import SimulatedWorker
from worker.inference.errors import ContextExceeded, EngineFailed

ANSWER = "The answer is 42."


class Running:
    """The coordinator's loop and some workers, for the length of a block."""

    def __init__(self, world: JobWorld, *workers: SimulatedWorker) -> None:
        self._loop = asyncio.create_task(world.coordinator.run())
        self._workers = world.running(*workers)

    async def __aenter__(self) -> None:
        await self._workers.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)
        await self._workers.__aexit__(None, None, None)


def text_of(events: list[JobEvent]) -> str:
    last = events[-1].attempt
    return "".join(event.text for event in events if event.attempt == last)


def test_a_job_is_answered_and_its_receipt_is_sound(tmp_path: Path) -> None:
    async def scene() -> None:
        world = JobWorld(tmp_path)
        worker = world.job_worker(1, ScriptedEngine())
        async with Running(world, worker):
            submit = world.fund(1)
            events = await world.follow(submit)
            await world.until(lambda: not list((tmp_path / "worker-1-jobs").iterdir()))
        assert [event.index for event in events] == list(range(len(events)))
        assert [event.text for event in events if event.text] == ["The ", "answer ", "is ", "42."]
        assert events[0].state == "queued"
        assert events[-1].state == "finished"
        signed = events[-1].receipt
        assert signed is not None
        assert signed.receipt.output_hash == output_hash(ANSWER, submit.salt)
        assert signed.receipt.total_wei == 7 + 4 * OUTPUT_WEI
        assert recover_signer(signed.receipt, world.market.domain, signed.signature) == worker.signer.address
        record = world.coordinator.status(JobQuery(submit.job_id, submit.salt))
        assert (record.state, record.output) == ("finished", ANSWER)
        assert world.coordinator.status(JobQuery(submit.job_id, b"")).output is None
        assert [one.job_id for one in world.coordinator.list_jobs(ListJobs(0, 10)).jobs] == [submit.job_id]

    simulate(scene())


def test_following_again_tells_the_same_events(tmp_path: Path) -> None:
    async def scene() -> None:
        world = JobWorld(tmp_path)
        async with Running(world, world.job_worker(1, ScriptedEngine())):
            submit = world.fund(1)
            both = await asyncio.gather(world.follow(submit), world.follow(submit))
            assert both[0] == both[1] == await world.follow(submit)
            with pytest.raises(JobConflict, match="another salt"):
                await world.follow(replace(submit, salt=bytes(32)))
        assert len(world.coordinator.table.jobs) == 1

    simulate(scene())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"coordinator": b"\x01" * 20}, "another coordinator"),
        ({"request_hash": bytes(32)}, "another request"),
        ({"deadline_ms": 1}, "past its deadline"),
    ],
)
def test_a_job_that_is_not_funded_as_handed_in_is_refused(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    async def scene() -> None:
        world = JobWorld(tmp_path)
        with pytest.raises(JobNotFunded, match=reason):
            await world.follow(world.fund(1, **change))  # type: ignore[arg-type]
        with pytest.raises(JobNotFunded, match="no money"):
            await world.follow(replace(world.fund(2), job_id=bytes(32)))
        with pytest.raises(JobUnknown):
            world.coordinator.status(JobQuery(bytes(32), b""))

    simulate(scene())


def test_a_killed_workers_job_moves_on(tmp_path: Path) -> None:
    async def scene() -> None:
        world = JobWorld(tmp_path)
        dying = world.job_worker(1, ScriptedEngine(hangs_after=2))
        async with Running(world, dying):
            submit = world.fund(1)
            following = asyncio.create_task(world.follow(submit))
            job = None
            await world.until(lambda: submit.job_id in world.coordinator.table.jobs)
            job = world.coordinator.table.jobs[submit.job_id]
            await world.until(lambda: "answer " in [event.text for event in job.events])
            heir = world.job_worker(2, ScriptedEngine())
            async with world.running(heir):
                dying.dialer.is_down = True
                dying.dialer.streams[-1].cut()
                events = await following
        assert text_of(events) == ANSWER
        assert events[-1].attempt == 2
        assert events[-1].receipt.receipt.worker == heir.signer.address  # type: ignore[union-attr]

    simulate(scene())


def test_a_silent_worker_is_late_and_a_failing_one_is_passed_over(tmp_path: Path) -> None:
    async def scene() -> None:
        world = JobWorld(tmp_path, JobsConfig(audit_percent=0, stall_timeout_ms=5_000))
        silent = world.job_worker(1, ScriptedEngine(hangs_after=0))
        failing = world.job_worker(2, ScriptedEngine(error=EngineFailed("out of memory")))
        sound = world.job_worker(3, ScriptedEngine())
        async with Running(world, silent, failing, sound):
            events = await world.follow(world.fund(1))
        assert text_of(events) == ANSWER
        assert events[-1].receipt.receipt.worker == sound.signer.address  # type: ignore[union-attr]
        assert events[-1].attempt <= 3

    simulate(scene())


def test_a_request_that_no_worker_can_serve_ends_in_words(tmp_path: Path) -> None:
    async def scene() -> None:
        world = JobWorld(tmp_path, JobsConfig(audit_percent=0, attempts_max=2))
        worker = world.job_worker(1, ScriptedEngine(error=ContextExceeded("the prompt has 9999 tokens, 2048 fit")))
        async with Running(world, worker):
            events = await world.follow(world.fund(1))
        assert events[-1].state == "failed"
        assert "9999 tokens" in events[-1].detail

    simulate(scene())


def test_refusals_are_explained_and_the_deadline_ends_the_wait(tmp_path: Path) -> None:
    async def scene() -> None:
        world = JobWorld(tmp_path)
        other_model, unstaked = world.job_worker(1, ScriptedEngine()), world.job_worker(2, ScriptedEngine())
        other_model.models = []
        world.market.unbonded.add(unstaked.signer.address)
        async with Running(world, other_model, unstaked):
            events = await world.follow(world.fund(1, seconds=10))
        details = [event.detail for event in events]
        assert "0 of 2 workers: 1 model missing, 1 not staked" in details
        assert events[-1].state == "failed"
        assert "deadline" in events[-1].detail

    simulate(scene())


def test_a_full_queue_pushes_back(tmp_path: Path) -> None:
    async def scene() -> None:
        world = JobWorld(tmp_path, JobsConfig(queued_max=2, retry_after_ms=777))
        following = [asyncio.create_task(world.follow(world.fund(number))) for number in range(2)]
        await world.until(lambda: len(world.coordinator.table.jobs) == 2)
        with pytest.raises(QueueFull) as refusal:
            await world.follow(world.fund(3))
        assert refusal.value.retry_after_ms == 777
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)

    simulate(scene())


def test_a_cancelled_job_stops_at_the_worker(tmp_path: Path) -> None:
    async def scene() -> None:
        world = JobWorld(tmp_path)
        worker = world.job_worker(1, ScriptedEngine(hangs_after=1))
        async with Running(world, worker):
            submit = world.fund(1)
            following = asyncio.create_task(world.follow(submit))
            await world.until(lambda: worker.jobs.running == 1)  # type: ignore[attr-defined]
            with pytest.raises(JobConflict, match="salt"):
                await world.coordinator.cancel(JobQuery(submit.job_id, b""))
            await world.coordinator.cancel(JobQuery(submit.job_id, submit.salt))
            events = await following
            await world.until(lambda: worker.jobs.running == 0)  # type: ignore[attr-defined]
        assert events[-1].state == "cancelled"
        assert [job.terms.job_id for job in world.coordinator.table.to_refund()] == [submit.job_id]

    simulate(scene())


@pytest.mark.parametrize(("second", "verdict"), [(ScriptedEngine(), "agreed"), (ScriptedEngine(("No.",)), "disagreed")])
def test_a_second_worker_runs_drawn_jobs_again(tmp_path: Path, second: ScriptedEngine, verdict: str) -> None:
    async def scene() -> None:
        world = JobWorld(tmp_path, JobsConfig(audit_percent=100))
        first = world.job_worker(1, ScriptedEngine())
        async with Running(world, first):
            submit = world.fund(1)
            events = await world.follow(submit)
            assert events[-1].state == "finished"
            job = world.coordinator.table.jobs[submit.job_id]
            await world.until(lambda: job.audit == "unavailable")
            auditor = world.job_worker(2, second)
            async with world.running(auditor):
                await world.until(lambda: len(world.fleet.members()) == 2)
                again = world.fund(2, worker=first.signer.address)
                await world.follow(again)
                # An order for one worker only is nobody else's to run, not even for an audit.
                other = world.coordinator.table.jobs[again.job_id]
                await world.until(lambda: other.audit != "pending")
                open_to_all = world.fund(3)
                await world.follow(open_to_all)
                audited = world.coordinator.table.jobs[open_to_all.job_id]
                await world.until(lambda: audited.audit == verdict)
        due = {job.terms.job_id for job in world.coordinator.table.to_settle()}
        assert (open_to_all.job_id in due) == (verdict == "agreed")

    simulate(scene())


def test_a_restarted_coordinator_knows_every_job_once(tmp_path: Path) -> None:
    market = FakeMarket()

    async def before() -> list[JobEvent]:
        world = JobWorld(tmp_path, market=market)
        async with Running(world, world.job_worker(1, ScriptedEngine())):
            await world.follow(world.fund(1))
        hanging = world.job_worker(2, ScriptedEngine(hangs_after=1))
        async with Running(world, hanging):
            following = asyncio.create_task(world.follow(world.fund(2)))
            await world.until(lambda: hanging.jobs.running == 1)  # type: ignore[attr-defined]
            following.cancel()
        world.log.close()
        return []

    async def after() -> None:
        world = JobWorld(tmp_path, JobsConfig(audit_percent=0, stall_timeout_ms=5_000), market)
        assert len(world.coordinator.table.jobs) == 2
        engine = ScriptedEngine()
        async with Running(world, world.job_worker(3, engine)):
            for number in (1, 2):
                submit = world.fund(number)
                events = await world.follow(submit)
                assert text_of(events) == ANSWER
                assert sum(event.state == "finished" for event in events) == 1
        assert engine.served == 1
        assert len(world.coordinator.table.jobs) == 2
        world.log.close()

    simulate(before())
    simulate(after())


def test_a_stream_cut_off_in_the_middle_of_a_record_leaves_log_and_table_agreed(tmp_path: Path) -> None:
    """gRPC cancels a stream's handler at any instant, also while its job's record is being written."""

    async def scene() -> None:
        world = JobWorld(tmp_path)
        append = world.log.append

        async def slowly(record: JobLogRecord) -> None:
            await pass_time(0.5)
            await append(record)
            await pass_time(0.5)

        world.log.append = slowly  # type: ignore[method-assign]
        dying, heir = world.job_worker(1, ScriptedEngine(hangs_after=1)), world.job_worker(2, ScriptedEngine())
        async with Running(world, dying):
            submit = world.fund(1)
            following = asyncio.create_task(world.follow(submit))
            await world.until(lambda: dying.jobs.running == 1)  # type: ignore[attr-defined]
            dying.dialer.is_down = True
            dying.dialer.streams[-1].cut()
            await pass_time(0.7)  # the record is on disk, and not applied yet
            for task in [*dying.dialer.serving]:
                task.cancel()
            async with world.running(heir):
                events = await following
        assert text_of(events) == ANSWER
        assert events[-1].attempt == 2
        await world.coordinator.finish_changes()
        world.log.close()
        again = JobLog(tmp_path / "jobs", ChainIdentity.of(world.genesis), world.threads)
        replayed = JobTable()
        for record in again.replay():
            replayed.apply(record)
        again.close()
        assert replayed.reliability == world.coordinator.table.reliability
        assert [job.record(with_contents=True) for job in replayed.jobs.values()] == [
            job.record(with_contents=True) for job in world.coordinator.table.jobs.values()
        ]

    simulate(scene())


def test_a_receipt_survives_the_loss_of_the_stream(tmp_path: Path) -> None:
    """The worker's last message never arrives; it is sent again when the worker attaches the next time."""

    async def scene() -> None:
        world = JobWorld(tmp_path)
        engine = ScriptedEngine(pace_s=1.0)
        worker = world.job_worker(1, engine)
        async with Running(world, worker):
            submit = world.fund(1)
            following = asyncio.create_task(world.follow(submit))
            await world.until(lambda: engine.served == 1)
            worker.dialer.is_down = True
            worker.dialer.streams[-1].cut()
            await world.until(lambda: list((tmp_path / "worker-1-jobs").glob("*.finished")))
            worker.dialer.is_down = False
            events = await following
        assert text_of(events) == ANSWER
        assert engine.served == 1

    simulate(scene())
