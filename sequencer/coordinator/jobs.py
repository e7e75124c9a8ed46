"""The coordinator of jobs: takes them from clients, gives them to workers, and sees every one to its end.

A job is checked against its escrow, written to the log, queued, assigned, streamed, and finished by a valid receipt;
when a worker fails, leaves or is late, the next one gets it, until its deadline. A drawn share of the answers is made
again by a second, comparable worker and compared. Money moves in `sequencer.coordinator.settlement`.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Executor as ThreadExecutor
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import structlog

from core.errors import InvalidInput
from core.jobs.request import request_hash
from market.batches import Batch
from market.matching import Candidate, choose
from protos.job_messages import (
    AUDIT_ATTEMPT,
    OPEN_ATTEMPT,
    AnswerOpened,
    CancelJob,
    Inclusion,
    JobEvent,
    JobFailed,
    JobFinished,
    JobList,
    JobOutput,
    JobQuery,
    JobRecord,
    JobStarted,
    ListJobs,
    ReceiptStored,
    SubmitJob,
)
from sequencer.coordinator.assignment import Standings, assignment_of, candidate_of, needs_of
from sequencer.coordinator.audits import Audits, Verdict
from sequencer.coordinator.challenges import Auditor, Challenges, NoAuditor
from sequencer.coordinator.errors import JobConflict, JobNotFunded, JobUnknown, QueueFull
from sequencer.coordinator.escrow import EscrowStatus, JobTerms, MarketChain, Standing
from sequencer.coordinator.fleet import DUTY_INFERENCE, Fleet, Member
from sequencer.coordinator.job_log import (
    Assigned,
    AttemptFailed,
    Audited,
    Ended,
    Finished,
    JobLog,
    JobLogRecord,
    Submitted,
)
from sequencer.coordinator.job_table import Attempt, Job, JobTable
from sequencer.coordinator.receipt_rules import check_receipt

__all__ = ["JobCoordinator", "JobsConfig"]

_LIST_MAX = 256

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")
_P = ParamSpec("_P")


def _uninterrupted(
    method: Callable[Concatenate["JobCoordinator", _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate["JobCoordinator", _P], Coroutine[Any, Any, _T]]:
    """Let a change of jobs run to its end even if the caller is cancelled, as streams are at any instant.

    A record that was written but not applied would part the log from the table.
    """

    @wraps(method)
    async def run(self: "JobCoordinator", /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        task = asyncio.ensure_future(method(self, *args, **kwargs))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    return run


@dataclass(frozen=True, slots=True)
class JobsConfig:
    """`audit_percent` of the finished jobs are made again; an attempt may say nothing for `stall_timeout_ms`."""

    queued_max: int = 256
    attempts_max: int = 5
    stall_timeout_ms: int = 30_000
    audit_timeout_ms: int = 60_000
    audit_percent: int = 25
    retry_after_ms: int = 1_000
    standing_ttl_ms: int = 10_000
    tick_s: float = 0.25


class JobCoordinator:
    """Implements `sequencer.rpc.JobDesk`. `operator` is the account (20 bytes) that orders must name as coordinator.

    `audit_seed` is secret and random: workers cannot foresee which answers are checked. `auditor` checks those of the
    models that it knows; `would_win` says of a wrong answer whether its receipt can be disputed on chain (it blocks).
    `log.replay` is read on construction.
    """

    def __init__(
        self,
        fleet: Fleet,
        market: MarketChain,
        log: JobLog,
        config: JobsConfig,
        threads: ThreadExecutor,
        *,
        operator: bytes,
        audit_seed: bytes,
        now_ms: Callable[[], int],
        auditor: Auditor | None = None,
        would_win: Callable[[Job], bool] = lambda job: False,
    ) -> None:
        self._would_win = would_win
        self._fleet = fleet
        self._market = market
        self._log = log
        self._config = config
        self._threads = threads
        self._operator = operator
        self._now_ms = now_ms
        self._lock = asyncio.Lock()
        self._changes: set[asyncio.Future[Any]] = set()
        self._wake = asyncio.Event()
        self._heard_ms: dict[tuple[bytes, int], int] = {}
        self._deciding: set[bytes] = set()  # jobs whose verdict is being computed, outside the lock
        self._standings = Standings(self._standing, ttl_ms=config.standing_ttl_ms, now_ms=now_ms)
        self._audits = Audits(
            fleet,
            market.domain,
            seed=audit_seed,
            percent=config.audit_percent,
            timeout_ms=config.audit_timeout_ms,
            now_ms=now_ms,
        )
        self._challenges = Challenges(
            auditor or NoAuditor(),
            market.domain,
            seed=audit_seed,
            timeout_ms=config.audit_timeout_ms,
            now_ms=now_ms,
        )
        self.table = JobTable()
        for record in log.replay():
            self.table.apply(record)
        fleet.on(JobStarted, self._on_started)
        fleet.on(JobOutput, self._on_output)
        fleet.on(JobFinished, self._on_finished)
        fleet.on(JobFailed, self._on_failed)
        fleet.on(AnswerOpened, self._on_opened)
        fleet.observe(self)

    # What clients ask.

    async def submit(self, request: SubmitJob) -> AsyncIterator[JobEvent]:
        """Take a job in, or find it again, and tell its events. The job is on disk before the first event comes."""
        job = self.table.jobs.get(request.job_id)
        if job is None:
            job = await self._take_in(request)
        elif job.terms.salt != request.salt:
            raise JobConflict(f"job 0x{request.job_id.hex()} was handed in with another salt")
        async for event in job.follow():
            yield event

    def status(self, query: JobQuery) -> JobRecord:
        job = self._job(query.job_id)
        return job.record(with_contents=query.salt == job.terms.salt, inclusion=self.inclusion(job))

    def inclusion(self, job: Job) -> Inclusion | None:
        """Where the job's receipt was settled, or None."""
        if job.batch is None:
            return None
        return Batch(self._market.domain, job.batch.receipts).inclusion(job.batch.batch_id, job.terms.job_id)

    def list_jobs(self, request: ListJobs) -> JobList:
        count = min(request.count_max or _LIST_MAX, _LIST_MAX)
        newest_first = [*reversed(self.table.jobs.values())]
        chosen = newest_first[request.offset : request.offset + count]
        return JobList(tuple(job.record(with_contents=False) for job in chosen))

    @_uninterrupted
    async def cancel(self, query: JobQuery) -> JobRecord:
        job = self._job(query.job_id)
        if query.salt != job.terms.salt:
            raise JobConflict("only whoever knows the job's salt may cancel it")
        async with self._lock:
            if job.has_ended:
                raise JobConflict(f"the job is {job.state} already")
            await self._end(job, "cancelled", "cancelled by its client")
        return job.record(with_contents=True)

    @_uninterrupted
    async def _take_in(self, request: SubmitJob) -> Job:
        terms = await self._in_thread(self._market.terms, request.job_id)
        self._require_funded(request, terms)
        assert terms is not None
        async with self._lock:
            known = self.table.jobs.get(request.job_id)
            if known is not None:
                return known
            waiting = sum(1 for _ in self.table.queued())
            if waiting >= self._config.queued_max:
                raise QueueFull(f"{waiting} jobs are waiting already; try again later", self._config.retry_after_ms)
            await self._record(
                Submitted(
                    request.job_id,
                    request.request,
                    request.salt,
                    terms.client,
                    terms.worker,
                    terms.model_hash,
                    terms.request_hash,
                    terms.price_max_wei,
                    terms.deadline_ms,
                    self._now_ms(),
                )
            )
        self._wake.set()
        return self.table.jobs[request.job_id]

    def _require_funded(self, request: SubmitJob, terms: JobTerms | None) -> None:
        name = f"job 0x{request.job_id.hex()}"
        if terms is None or terms.status != EscrowStatus.FUNDED:
            raise JobNotFunded(f"{name} holds no money in the escrow: open it there first")
        if terms.coordinator != self._operator:
            raise JobNotFunded(f"{name} was opened for another coordinator, 0x{terms.coordinator.hex()}")
        if terms.request_hash != request_hash(request.request, request.salt):
            raise JobNotFunded(f"{name} was opened for another request or salt")
        if terms.tier != request.request.tier:
            raise JobNotFunded(f"{name} was opened for tier {terms.tier.name}")
        if terms.deadline_ms <= self._now_ms():
            raise JobNotFunded(f"{name} is past its deadline")

    def _job(self, job_id: bytes) -> Job:
        job = self.table.jobs.get(job_id)
        if job is None:
            raise JobUnknown(f"no job 0x{job_id.hex()} was handed in here")
        return job

    # What is done without being asked.

    async def run(self) -> None:
        """Assign, watch deadlines and audits, until cancelled."""
        while True:
            self._wake.clear()
            await self._step()
            try:
                async with asyncio.timeout(self._config.tick_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def finish_changes(self) -> None:
        """Wait for what is being written; before the log is closed."""
        while self._changes:
            await asyncio.wait(self._changes)

    @_uninterrupted
    async def _step(self) -> None:
        async with self._lock:
            await self._expire()
            for job in [*self.table.queued()]:
                await self._assign(job)
            await self._audit()

    async def _expire(self) -> None:
        """End what is past its deadline, and attempts of which nothing was heard for too long."""
        now_ms = self._now_ms()
        for job in [*self.table.open.values()]:
            if job.has_ended:
                continue
            if now_ms > job.terms.deadline_ms:
                await self._end(job, "failed", f"not answered by its deadline; {job.detail}")
            elif job.state == "running":
                attempt = job.attempts[job.attempt]
                heard_ms = self._heard_ms.get((job.terms.job_id, job.attempt), attempt.assigned_at_ms)
                if now_ms - heard_ms > self._config.stall_timeout_ms:
                    await self._fail(job, job.attempt, "late", f"nothing came for {now_ms - heard_ms} ms")

    async def _assign(self, job: Job) -> None:
        if len(job.attempts) >= self._config.attempts_max:
            await self._end(job, "failed", f"{len(job.attempts)} attempts failed; {job.detail}")
            return
        tried = frozenset(one.worker for one in job.attempts.values())
        needs = needs_of(job, tried)
        choice = choose(needs, self._candidates())
        if choice.best is None and tried:
            choice = choose(needs_of(job, frozenset()), self._candidates())
        best = choice.best
        member = None if best is None else self._fleet.member(best.address)
        if member is None or best is None:
            if job.detail != choice.explain():
                job.detail = choice.explain()
                job.tell(self._now_ms(), detail=job.detail)
            return
        number, model = job.attempt + 1, best.model
        await self._record(
            Assigned(
                job.terms.job_id,
                number,
                member.address,
                model.input_token_wei,
                model.output_token_wei,
                self._now_ms(),
            )
        )
        if not await member.post(assignment_of(job, number, model)):
            await self._fail(job, number, "gone", "the worker left")

    def _candidates(self) -> list[Candidate]:
        busy = Counter(job.worker for job in self.table.running()) + Counter(self._audits.workers())
        members = self._fleet.members(DUTY_INFERENCE)
        return [candidate_of(one, self._standings, self.table.reliability, busy[one.address]) for one in members]

    async def _end(self, job: Job, state: str, detail: str) -> None:
        running = job.attempt if job.state == "running" else 0
        await self._record(Ended(job.terms.job_id, state, detail[:512], self._now_ms()))
        if running:
            await self._withdraw(job, running, detail)

    async def _withdraw(self, job: Job, number: int, reason: str) -> None:
        """Tell the worker of an attempt that its answer is not wanted any more."""
        member = self._fleet.member(job.attempts[number].worker)
        if member is not None:
            await member.post(CancelJob(job.terms.job_id, number, reason[:256]))

    async def _fail(self, job: Job, number: int, code: str, detail: str) -> None:
        _log.info("attempt_failed", job=job.terms.job_id.hex(), attempt=number, code=code, detail=detail)
        await self._record(AttemptFailed(job.terms.job_id, number, code, detail[:512], self._now_ms()))
        self._heard_ms.pop((job.terms.job_id, number), None)
        await self._withdraw(job, number, detail)
        self._wake.set()

    async def _record(self, record: JobLogRecord) -> None:
        await self._log.append(record)
        self.table.apply(record)

    @_uninterrupted
    async def record(self, record: JobLogRecord) -> None:
        """Write a record and apply it, in turn with everything else; for the settlement."""
        async with self._lock:
            await self._record(record)

    # What workers say.

    def _attempt(self, member: Member, job_id: bytes, number: int) -> tuple[Job, Attempt] | None:
        """The attempt that this worker was given, or None for anything else."""
        job = self.table.jobs.get(job_id)
        attempt = job.attempts.get(number) if job else None
        if job is None or attempt is None or attempt.worker != member.address:
            return None
        return job, attempt

    async def _on_started(self, member: Member, message: JobStarted) -> None:
        if self._attempt(member, message.job_id, message.attempt):
            self._heard_ms[message.job_id, message.attempt] = self._now_ms()

    async def _on_output(self, member: Member, message: JobOutput) -> None:
        found = self._attempt(member, message.job_id, message.attempt)
        if found is None or found[0].state != "running" or found[0].attempt != message.attempt:
            return
        job, attempt = found
        if message.index != attempt.pieces or not job.has_room():
            return  # the whole answer comes with the receipt
        attempt.pieces += 1
        self._heard_ms[message.job_id, message.attempt] = self._now_ms()
        job.tell(self._now_ms(), text=message.text)

    @_uninterrupted
    async def _on_failed(self, member: Member, message: JobFailed) -> None:
        async with self._lock:
            if message.attempt == AUDIT_ATTEMPT:
                await self._judge(self._audits.failed(member, message))
                return
            if message.attempt == OPEN_ATTEMPT:
                await self._judge(self._challenges.declined(member, message))
                return
            found = self._attempt(member, message.job_id, message.attempt)
            if found is not None and not found[0].has_ended and not found[1].has_failed:
                await self._fail(found[0], message.attempt, message.code, message.detail)

    @_uninterrupted
    async def _on_finished(self, member: Member, message: JobFinished) -> None:
        standing = await self._standings.of(member.address)
        async with self._lock:
            if message.attempt == AUDIT_ATTEMPT:
                job = self.table.jobs.get(message.job_id)
                await self._judge(self._audits.finished(job, member, message, standing.signer))
            else:
                await self._finish(member, message, standing)
        # Whatever it was, the worker needs to keep it no longer: it is on disk here, or it will never count.
        await member.post(ReceiptStored(message.job_id, message.attempt))
        self._wake.set()

    async def _finish(self, member: Member, message: JobFinished, standing: Standing) -> None:
        """Take a receipt, the first valid one of its job."""
        found = self._attempt(member, message.job_id, message.attempt)
        if found is None or found[0].has_ended:
            return
        job, attempt = found
        try:
            check_receipt(job, attempt, message, standing.signer, self._market.domain)
        except InvalidInput as error:
            if not attempt.has_failed:
                await self._fail(job, message.attempt, "receipt_invalid", str(error))
            return
        current = job.attempt if job.state == "running" else 0
        audit = "pending" if self._audits.is_drawn(message.signed.receipt) else "none"
        now_ms = self._now_ms()
        signed, answer = message.signed, message.answer
        await self._record(Finished(message.job_id, message.attempt, message.output, signed, audit, now_ms, answer))
        self._heard_ms.pop((message.job_id, message.attempt), None)
        if current not in (0, message.attempt):
            await self._withdraw(job, current, "answered by another worker")

    async def _audit(self) -> None:
        for verdict in [*self._audits.expired(), *self._challenges.expired()]:
            await self._judge(verdict)
        for job in [*self.table.open.values()]:
            if job.state == "finished" and job.audit == "pending" and not self._is_being_audited(job.terms.job_id):
                await self._begin_audit(job)

    def _is_being_audited(self, job_id: bytes) -> bool:
        asked = self._audits.is_running(job_id) or self._challenges.is_running(job_id)
        return asked or job_id in self._deciding

    async def _begin_audit(self, job: Job) -> None:
        comparable = self._audits.comparable(job, self._candidates())
        anybody = replace(needs_of(job, frozenset({job.worker})), worker=bytes(20))  # whoever was ordered to answer
        choice = choose(anybody, comparable)
        best = choice.best
        member = None if best is None else self._fleet.member(best.address)
        original = self._fleet.member(job.worker)
        has_passed = self._challenges.has_passed(job.terms.job_id)
        if original is not None and self._challenges.knows(job) and not has_passed:
            await self._challenge(job, original)
            return
        if member is None or best is None:
            if not comparable or self._audits.is_too_late(job):
                await self._audit_alone(job, f"nobody comparable: {choice.explain()}")
            return
        deadline_ms = self._audits.begin(job, member.address)
        assignment = assignment_of(job, AUDIT_ATTEMPT, best.model)
        await member.post(replace(assignment, deadline_ms=deadline_ms, audit=True, expected=job.answer))

    async def _audit_alone(self, job: Job, detail: str) -> None:
        """Nobody else can check this answer. Its worker may have left for that reason: then it is run here."""
        if self._challenges.knows(job) and not self._challenges.has_passed(job.terms.job_id):
            await self._judge(Verdict(job.terms.job_id, "contradicted", detail))
            return
        outcome = "agreed" if self._challenges.has_passed(job.terms.job_id) else "unavailable"
        await self._judge(Verdict(job.terms.job_id, outcome, detail))

    async def _challenge(self, job: Job, member: Member) -> None:
        try:
            question = self._challenges.begin(job)
        except InvalidInput as error:
            wrong = Verdict(job.terms.job_id, "disagreed", f"no answer to this request looks so: {error}")
            self._decide_beside(wrong.job_id, lambda: wrong)
        else:
            await member.post(question)

    async def _on_opened(self, member: Member, message: AnswerOpened) -> None:
        challenge = self._challenges.take(member, message.job_id)
        if challenge is not None:
            await self._decide(message.job_id, lambda: self._challenges.judged(message.job_id, challenge, message))

    async def _judge(self, verdict: Verdict | None) -> None:
        if verdict is None:
            return
        if verdict.outcome == "contradicted":
            self._arbitrate(verdict)
            return
        self._challenges.settle(verdict.job_id, passed=verdict.outcome == "opened")
        if verdict.outcome == "opened":  # next, somebody runs the whole answer, if there is anybody
            return
        _log.info("job_audited", job=verdict.job_id.hex(), verdict=verdict.outcome, detail=verdict.detail)
        outcome = (verdict.job_id, verdict.outcome, verdict.detail[:512])
        await self._record(Audited(*outcome, self._now_ms(), verdict.liar))

    def _arbitrate(self, verdict: Verdict) -> None:
        """Two exact workers differ, or nobody else could be asked: what is right is a fact, which takes a while to find
        out."""
        job = self.table.jobs[verdict.job_id]
        self._decide_beside(job.terms.job_id, lambda: self._challenges.arbitrated(job, verdict.detail, verdict.other))

    def _decide_beside(self, job_id: bytes, judge: Callable[[], Verdict]) -> None:
        """Begin to decide, for whoever holds the lock."""
        self._deciding.add(job_id)
        task = asyncio.ensure_future(self._decide(job_id, judge))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)

    async def _decide(self, job_id: bytes, judge: Callable[[], Verdict]) -> None:
        """Compute a verdict beside everything else, then record it in turn with everything else."""
        self._deciding.add(job_id)
        job = self.table.jobs[job_id]

        def decide() -> Verdict:
            verdict = judge()
            if verdict.outcome == "disagreed" and job.terms.request.exact is not None and self._would_win(job):
                return replace(verdict, outcome="disputed")
            return verdict

        try:
            await self._judged(await asyncio.get_running_loop().run_in_executor(self._threads, decide))
        finally:
            self._deciding.discard(job_id)

    @_uninterrupted
    async def _judged(self, verdict: Verdict) -> None:
        async with self._lock:
            if self.table.jobs[verdict.job_id].audit == "pending":
                await self._judge(verdict)
        self._wake.set()

    # Who comes and goes (FleetObserver).

    async def joined(self, member: Member) -> None:
        if member.has_duty(DUTY_INFERENCE):
            await self._standings.of(member.address, is_stale=True)

    async def heard(self, member: Member) -> None:
        if member.has_duty(DUTY_INFERENCE):
            await self._standings.of(member.address)
            self._wake.set()

    @_uninterrupted
    async def left(self, member: Member, reason: str) -> None:
        async with self._lock:
            for job in [*self.table.running()]:
                if job.worker == member.address:
                    await self._fail(job, job.attempt, "gone", f"the worker left: {reason}")
            self._audits.forget(worker=member.address)
            self._challenges.forget(worker=member.address)
        self._wake.set()

    async def _standing(self, worker: bytes) -> Standing:
        return await self._in_thread(self._market.standing, worker)

    async def _in_thread(self, work: Callable[[bytes], _T], argument: bytes) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, argument)
