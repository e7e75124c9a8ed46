"""All jobs that the coordinator knows, and how each record of the log changes them.

    queued -> running -> finished -> settled
      └─────────┴───────> failed, cancelled -> refunded

`JobTable.apply` is the only thing that changes a job, both while the network runs and when the log is replayed, so a
restart arrives at the same jobs. Knows nothing of streams, disks or clocks.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from core.jobs.receipt import Receipt
from protos.job_messages import OUTPUT_PIECE_BYTES_MAX, Inclusion, JobEvent, JobRecord, SignedReceipt
from sequencer.coordinator.job_log import (
    Assigned,
    AttemptFailed,
    Audited,
    BatchDone,
    BatchSent,
    Ended,
    Finished,
    JobLogRecord,
    Judged,
    Submitted,
    Unpayable,
)

__all__ = ["Attempt", "Job", "JobTable", "Reliability", "SettledBatch"]

_DETAIL_CHARACTERS_MAX = 256
_EVENTS_MAX = 65_536
_CLOSED_MAX = 10_000
_UNPAID = ("disagreed", "withheld")
_SETTLED = ("none", "agreed", "unavailable", "disputed")
_ENDED = frozenset({"finished", "failed", "cancelled", "settled", "refunded"})


@dataclass(slots=True)
class Attempt:
    """One worker's try at a job. `pieces` counts the pieces of output that came."""

    worker: bytes
    input_token_wei: int
    output_token_wei: int
    assigned_at_ms: int
    pieces: int = 0
    has_failed: bool = False


@dataclass(slots=True)
class Reliability:
    """How a worker did: counts of attempts that ended well, badly, and of audits that it did not pass."""

    finished: int = 0
    failed: int = 0
    contradicted: int = 0

    def per_mille(self) -> int:
        """0 to 1000: the share of attempts that ended well; 500 when unknown. A contradiction is ten failures."""
        bad = self.failed + 10 * self.contradicted
        return 1000 * (self.finished + 1) // (self.finished + bad + 2)


@dataclass(frozen=True, slots=True)
class SettledBatch:
    """Receipts that were settled together, and the escrow's number for them."""

    batch_id: int
    receipts: tuple[Receipt, ...]


@dataclass(slots=True)
class Job:
    """One job. `events` is what a client that follows it is told; `changed` is set, and replaced, at each of them."""

    terms: Submitted
    state: str = "queued"
    detail: str = ""
    attempts: dict[int, Attempt] = field(default_factory=dict)
    output: str | None = None
    answer: bytes = b""
    signed: SignedReceipt | None = None
    worker: bytes = b""
    audit: str = "none"
    finished_at_ms: int = 0
    transaction_hash: bytes = b""
    release_at_ms: int = 0
    batch: SettledBatch | None = None
    is_demanded: bool = False
    is_shown: bool = False
    events: list[JobEvent] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def attempt(self) -> int:
        """The number of the newest attempt; 0 before the first."""
        return max(self.attempts, default=0)

    @property
    def has_ended(self) -> bool:
        return self.state in _ENDED

    def tell(
        self,
        at_ms: int,
        *,
        text: str = "",
        detail: str = "",
        attempt: int | None = None,
        receipt: SignedReceipt | None = None,
    ) -> None:
        """Add an event, of the newest attempt unless another is named, and wake those who follow."""
        number = self.attempt if attempt is None else attempt
        detail = detail[:_DETAIL_CHARACTERS_MAX]
        answer = b"" if receipt is None else self.answer
        self.events.append(JobEvent(len(self.events), self.state, text, number, detail, receipt, at_ms, answer))
        self.changed.set()
        self.changed = asyncio.Event()

    def streamed(self, attempt: int) -> str:
        """What came of an attempt's answer so far."""
        return "".join(one.text for one in self.events if one.attempt == attempt)

    def has_room(self) -> bool:
        """Whether more pieces of output may be kept."""
        return len(self.events) < _EVENTS_MAX

    async def follow(self) -> AsyncIterator[JobEvent]:
        """Every event from the first on; ends with the job."""
        index = 0
        while True:
            changed = self.changed
            while index < len(self.events):
                yield self.events[index]
                index += 1
            if self.has_ended:
                return
            await changed.wait()

    def record(self, *, with_contents: bool, inclusion: Inclusion | None = None) -> JobRecord:
        """What is told about the job; `with_contents` adds what only its client may see."""
        return JobRecord(
            job_id=self.terms.job_id,
            state=self.state,
            attempt=self.attempt,
            worker=self.worker,
            detail=self.detail[:_DETAIL_CHARACTERS_MAX],
            request=self.terms.request if with_contents else None,
            output=self.output if with_contents else None,
            receipt=self.signed,
            settlement=self.transaction_hash,
            audit=self.audit,
            submitted_at_ms=self.terms.at_ms,
            deadline_ms=self.terms.deadline_ms,
            answer=self.answer if with_contents else b"",
            inclusion=inclusion,
        )


class JobTable:
    """The jobs by id, in the order in which they came; and the batches in flight.

    `open` are those of which something is still to be done. Of the others the newest `closed_max` are remembered.
    """

    def __init__(self, closed_max: int = _CLOSED_MAX) -> None:
        self._closed_max = closed_max
        self._closed: deque[bytes] = deque()
        self.jobs: dict[bytes, Job] = {}
        self.open: dict[bytes, Job] = {}
        self.batches: dict[bytes, BatchSent] = {}
        self.reliability: dict[bytes, Reliability] = {}

    def queued(self) -> Iterator[Job]:
        return (job for job in self.open.values() if job.state == "queued")

    def running(self) -> Iterator[Job]:
        return (job for job in self.open.values() if job.state == "running")

    def to_settle(self) -> list[Job]:
        """Finished jobs whose receipt may be paid and is in no batch."""
        waiting = self._in_batches()
        return [
            job
            for job in self.open.values()
            if job.state == "finished" and job.audit in _SETTLED and job.terms.job_id not in waiting
        ]

    def to_collect(self, now_ms: int) -> list[Job]:
        """The jobs of one settled batch whose payments have waited out their challenge window."""
        due = [job for job in self._payable(now_ms) if not job.is_demanded and not job.is_shown]
        return [job for job in due if job.batch is due[0].batch]

    def to_show(self) -> list[Job]:
        """Settled jobs whose client waits for the receipt."""
        waiting = self._in_batches()
        asked = (job for job in self.settled() if job.is_demanded and not job.is_shown)
        return [job for job in asked if job.terms.job_id not in waiting]

    def to_release(self, now_ms: int) -> list[Job]:
        """Jobs whose receipt was shown, and then waited out a challenge window of its own."""
        return [job for job in self._payable(now_ms) if job.is_shown]

    def settled(self) -> Iterator[Job]:
        """Jobs that are settled and not yet paid for good."""
        return (job for job in self.open.values() if job.state == "settled")

    def _payable(self, now_ms: int) -> list[Job]:
        waiting = self._in_batches()
        due = (job for job in self.settled() if job.audit != "disputed" and job.release_at_ms <= now_ms)
        return [job for job in due if job.terms.job_id not in waiting]

    def to_dispute(self) -> list[Job]:
        """Jobs whose receipt was settled to be disputed."""
        return [job for job in self.settled() if job.audit == "disputed"]

    def to_refund(self) -> list[Job]:
        """Jobs whose money is to go back and is in no batch."""
        waiting = self._in_batches()
        return [
            job
            for job in self.open.values()
            if (job.state in ("failed", "cancelled") or (job.state == "finished" and job.audit in _UNPAID))
            and job.terms.job_id not in waiting
        ]

    def apply(self, record: JobLogRecord) -> None:
        """Change the jobs as the record says. The caller has checked that it may happen."""
        match record:
            case Submitted():
                self.jobs[record.job_id] = self.open[record.job_id] = job = Job(record)
                job.tell(record.at_ms)
            case Assigned():
                self._assign(self.jobs[record.job_id], record)
            case AttemptFailed():
                self._fail_attempt(self.jobs[record.job_id], record)
            case Finished():
                self._finish(self.jobs[record.job_id], record)
            case Audited():
                self._audit(self.jobs[record.job_id], record)
            case Judged():
                self._judge(self.jobs[record.job_id], record)
            case Ended():
                job = self.jobs[record.job_id]
                job.state, job.detail = record.state, record.detail
                job.tell(record.at_ms, detail=record.detail)
            case BatchSent():
                self.batches[record.transaction_hash] = record
            case BatchDone():
                self._close_batch(record)
            case Unpayable():
                self._cannot_pay(self.jobs[record.job_id], record.purpose, record.detail)

    def _in_batches(self) -> set[bytes]:
        return {job_id for batch in self.batches.values() for job_id in batch.job_ids}

    def _assign(self, job: Job, record: Assigned) -> None:
        job.attempts[record.attempt] = Attempt(
            record.worker, record.input_token_wei, record.output_token_wei, record.at_ms
        )
        job.state, job.worker = "running", record.worker
        job.detail = f"worker 0x{record.worker.hex()}"
        job.tell(record.at_ms, detail=job.detail)

    def _fail_attempt(self, job: Job, record: AttemptFailed) -> None:
        attempt = job.attempts[record.attempt]
        attempt.has_failed = True
        self._reliability(attempt.worker).failed += 1
        if job.state == "running" and record.attempt == job.attempt:
            job.state, job.worker = "queued", b""
            job.detail = f"attempt {record.attempt} ended: {record.detail} [{record.code}]"
            job.tell(record.at_ms, detail=job.detail)

    def _finish(self, job: Job, record: Finished) -> None:
        rest = record.output.removeprefix(job.streamed(record.attempt))
        step = OUTPUT_PIECE_BYTES_MAX // 4
        for start in range(0, len(rest), step):
            job.tell(record.at_ms, text=rest[start : start + step], attempt=record.attempt)
        job.state, job.output, job.signed = "finished", record.output, record.signed
        job.worker, job.audit, job.answer = record.signed.receipt.worker, record.audit, record.answer
        job.detail, job.finished_at_ms = "", record.at_ms
        self._reliability(job.worker).finished += 1
        job.tell(record.at_ms, attempt=record.attempt, receipt=record.signed)

    def _audit(self, job: Job, record: Audited) -> None:
        job.audit = record.verdict
        if record.verdict in (*_UNPAID, "disputed"):
            job.detail = record.detail
        if record.verdict in ("disagreed", "disputed"):
            self._reliability(job.worker).contradicted += 1
        if record.verdict == "withheld":
            self._reliability(job.worker).failed += 1
        if record.liar:
            self._reliability(record.liar).contradicted += 1

    def _judge(self, job: Job, record: Judged) -> None:
        """A receipt that the contracts rejected has given its client all back; one that they did not is paid."""
        if record.outcome == "won":
            job.audit = "agreed"
            return
        job.audit, job.state = "disagreed", "refunded"
        job.tell(record.at_ms, detail="the contracts found the answer wrong: its worker paid for it")
        self._close(job)

    def _close_batch(self, record: BatchDone) -> None:
        sent = self.batches.pop(record.transaction_hash)
        if record.outcome == "lost":
            return
        jobs = [self.jobs[job_id] for job_id in sent.job_ids]
        if sent.purpose == "show" and record.outcome == "succeeded":
            jobs[0].is_shown, jobs[0].release_at_ms = True, record.release_at_ms
            return
        if sent.purpose in ("collect", "release"):
            for job in jobs if record.outcome == "succeeded" else []:
                self._close(job)
            return
        batch = SettledBatch(record.batch_id, tuple(job.signed.receipt for job in jobs if job.signed is not None))
        for job in jobs:
            job.transaction_hash = record.transaction_hash
            if record.outcome != "succeeded":
                self._cannot_pay(job, sent.purpose, "the transaction reverted")
            elif sent.purpose == "settle":
                job.state, job.release_at_ms, job.batch = "settled", record.release_at_ms, batch
            else:
                job.state = "refunded"
                self._close(job)

    def _cannot_pay(self, job: Job, purpose: str, detail: str) -> None:
        """What cannot be settled is refunded; what cannot be refunded, the escrow's `expire` gives back."""
        job.state, job.detail = "failed", f"{purpose}: {detail}"
        if purpose == "refund":
            self._close(job)

    def _close(self, job: Job) -> None:
        """Nothing is left to do for this job; forget the oldest of such jobs beyond the limit."""
        self.open.pop(job.terms.job_id, None)
        self._closed.append(job.terms.job_id)
        if len(self._closed) > self._closed_max:
            self.jobs.pop(self._closed.popleft(), None)

    def _reliability(self, worker: bytes) -> Reliability:
        return self.reliability.setdefault(worker, Reliability())
