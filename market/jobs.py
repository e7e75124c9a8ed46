"""A job's life off the chain, as a pure function from a job and an event to a job.

    requested -> funded -> assigned -> running -> answered -> checked -> settled
                   ^  \\        |          |           |
                   |   \\       v          v           v
                   +----------- reassigned to another worker, while attempts and time are left
                         \\
                          +-> failed | expired -> refunded

The coordinator keeps jobs, acts on them and feeds back what happened; this module only says what that means. Applying
an event a second time changes nothing, so events may be replayed after a crash. Time comes with each event.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import singledispatch

from market.errors import AnswerConflict, JobEnded, JobLate, TransitionRefused, WrongWorker

__all__ = [
    "ATTEMPTS_MAX",
    "Answered",
    "Assigned",
    "Checked",
    "DeadlinePassed",
    "Event",
    "Funded",
    "GivenUp",
    "Job",
    "JobState",
    "Refunded",
    "Settled",
    "Started",
    "WorkerFailed",
    "advance",
    "due",
]

ATTEMPTS_MAX = 3


class JobState(StrEnum):
    """Where a job stands. The values go into stores and messages."""

    REQUESTED = "requested"
    FUNDED = "funded"
    ASSIGNED = "assigned"
    RUNNING = "running"
    ANSWERED = "answered"
    CHECKED = "checked"
    SETTLED = "settled"
    EXPIRED = "expired"
    FAILED = "failed"
    REFUNDED = "refunded"


_ENDED = frozenset({JobState.SETTLED, JobState.REFUNDED})
_WITH_WORKER = frozenset({JobState.ASSIGNED, JobState.RUNNING})
_OPEN = frozenset({JobState.REQUESTED, JobState.FUNDED, *_WITH_WORKER})
_HAS_ANSWER = frozenset({JobState.ANSWERED, JobState.CHECKED, JobState.SETTLED})


@dataclass(frozen=True, slots=True)
class Job:
    """One job. Ids and digests are 32 bytes, workers 20; times are Unix milliseconds.

    `deadline_ms` is the client's, `answer_by_ms` the present worker's. `attempt` counts assignments from 1. `tried` are
    the workers that had the job and lost it. `answer` is the digest of the receipt that was accepted from `worker`.
    """

    job_id: bytes
    deadline_ms: int
    state: JobState = JobState.REQUESTED
    attempt: int = 0
    worker: bytes | None = None
    answer_by_ms: int | None = None
    tried: tuple[bytes, ...] = ()
    answer: bytes | None = None
    settlement: bytes | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        assert (self.worker is not None) == (self.state in _WITH_WORKER | _HAS_ANSWER), "a worker has it, or nobody"
        assert (self.answer is not None) == (self.state in _HAS_ANSWER), "an answer is there, or it is not"
        assert (self.settlement is not None) == (self.state == JobState.SETTLED)
        assert (self.answer_by_ms is not None) == (self.state in _WITH_WORKER)

    @property
    def has_ended(self) -> bool:
        return self.state in _ENDED


@dataclass(frozen=True, slots=True)
class Funded:
    """The escrow holds the money."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Assigned:
    """A worker has been picked, for one attempt, and has until `answer_by_ms`."""

    at_ms: int
    attempt: int
    worker: bytes
    answer_by_ms: int


@dataclass(frozen=True, slots=True)
class Started:
    """The worker began."""

    at_ms: int
    worker: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """The worker answered, and its receipt, of this digest, fits the order."""

    at_ms: int
    worker: bytes
    answer: bytes


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """The worker died, was late, refused, or its answer was found wrong: somebody else must do it."""

    at_ms: int
    worker: bytes
    detail: str


@dataclass(frozen=True, slots=True)
class Checked:
    """The answer passed its audit, or was not drawn for one."""

    at_ms: int
    answer: bytes


@dataclass(frozen=True, slots=True)
class Settled:
    """The receipt is on chain, in the transaction of this hash."""

    at_ms: int
    answer: bytes
    settlement: bytes


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Nobody can do it, or the client no longer wants it."""

    at_ms: int
    detail: str


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The client's deadline is over and there is no answer."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Refunded:
    """The money is back with the client."""

    at_ms: int


Event = Funded | Assigned | Started | Answered | WorkerFailed | Checked | Settled | GivenUp | DeadlinePassed | Refunded


def advance(job: Job, event: Event) -> Job:
    """The job after the event; the same job if the event had been applied before.

    Raises TransitionRefused, or the branch of it that says why, when the event does not fit the job's state.
    """
    return _apply(event, job)


def due(job: Job, now_ms: int) -> Event | None:
    """What the clock alone makes happen to this job now, if anything."""
    if job.state in _OPEN and now_ms >= job.deadline_ms:
        return DeadlinePassed(now_ms)
    if job.answer_by_ms is not None and now_ms >= job.answer_by_ms:
        assert job.worker is not None
        return WorkerFailed(now_ms, job.worker, "late")
    return None


@singledispatch
def _apply(event: Event, job: Job) -> Job:
    raise AssertionError(f"{type(event).__name__} is no event of a job")


@_apply.register
def _(event: Funded, job: Job) -> Job:
    if job.state != JobState.REQUESTED:
        return job  # the escrow says so once; whatever came after stands
    _require_time(job, event.at_ms)
    return replace(job, state=JobState.FUNDED)


@_apply.register
def _(event: Assigned, job: Job) -> Job:
    if job.worker == event.worker and job.attempt == event.attempt:
        return job
    _require_state(job, JobState.FUNDED)
    _require_time(job, event.at_ms)
    if event.attempt != job.attempt + 1 or event.attempt > ATTEMPTS_MAX:
        raise TransitionRefused(f"attempt {event.attempt} cannot follow attempt {job.attempt} of {ATTEMPTS_MAX}")
    if event.worker in job.tried:
        raise TransitionRefused(f"worker 0x{event.worker.hex()} has had this job before")
    answer_by_ms = min(event.answer_by_ms, job.deadline_ms)
    return replace(
        job, state=JobState.ASSIGNED, attempt=event.attempt, worker=event.worker, answer_by_ms=answer_by_ms, detail=""
    )


@_apply.register
def _(event: Started, job: Job) -> Job:
    _require_worker(job, event.worker)
    return replace(job, state=JobState.RUNNING) if job.state == JobState.ASSIGNED else job


@_apply.register
def _(event: Answered, job: Job) -> Job:
    _require_worker(job, event.worker)
    if job.answer is not None:
        if job.answer != event.answer:
            raise AnswerConflict(f"answer 0x{job.answer.hex()} was accepted, 0x{event.answer.hex()} is another")
        return job
    _require_time(job, event.at_ms)
    return replace(job, state=JobState.ANSWERED, answer=event.answer, answer_by_ms=None)


@_apply.register
def _(event: WorkerFailed, job: Job) -> Job:
    if event.worker in job.tried:
        return job
    _require_worker(job, event.worker)
    if job.state in (JobState.CHECKED, JobState.SETTLED):
        raise TransitionRefused("the answer has passed its check")
    lost = replace(job, state=JobState.FUNDED, worker=None, answer=None, answer_by_ms=None, detail=event.detail)
    lost = replace(lost, tried=(*job.tried, event.worker))
    if job.attempt < ATTEMPTS_MAX:
        return lost
    return replace(lost, state=JobState.FAILED, detail=f"{job.attempt} workers failed, the last one: {event.detail}")


@_apply.register
def _(event: Checked, job: Job) -> Job:
    _require_answer(job, event.answer)
    return replace(job, state=JobState.CHECKED) if job.state == JobState.ANSWERED else job


@_apply.register
def _(event: Settled, job: Job) -> Job:
    _require_answer(job, event.answer)
    if job.state == JobState.SETTLED:
        return job
    _require_state(job, JobState.CHECKED)
    return replace(job, state=JobState.SETTLED, settlement=event.settlement)


@_apply.register
def _(event: GivenUp, job: Job) -> Job:
    return _abandon(job, JobState.FAILED, event.detail)


@_apply.register
def _(event: DeadlinePassed, job: Job) -> Job:
    if job.state in _OPEN and event.at_ms < job.deadline_ms:
        raise TransitionRefused(f"the deadline is {job.deadline_ms - event.at_ms} ms away")
    return _abandon(job, JobState.EXPIRED, "nobody answered in time")


@_apply.register
def _(event: Refunded, job: Job) -> Job:
    if job.state == JobState.REFUNDED:
        return job
    _require_state(job, JobState.FAILED, JobState.EXPIRED)
    return replace(job, state=JobState.REFUNDED)


def _abandon(job: Job, state: JobState, detail: str) -> Job:
    """End a job that has no answer. One that ended this way before stays as it is."""
    if job.state in (JobState.FAILED, JobState.EXPIRED, JobState.REFUNDED):
        return job
    _require_state(job, *_OPEN)
    return replace(job, state=state, worker=None, answer_by_ms=None, detail=detail)


def _require_state(job: Job, *allowed: JobState) -> None:
    if job.state in allowed:
        return
    if job.has_ended:
        raise JobEnded(f"the job is {job.state}")
    raise TransitionRefused(f"the job is {job.state}, expected {' or '.join(sorted(allowed))}")


def _require_time(job: Job, at_ms: int) -> None:
    if at_ms >= job.deadline_ms:
        raise JobLate(f"the deadline was {at_ms - job.deadline_ms} ms ago")


def _require_worker(job: Job, worker: bytes) -> None:
    if job.worker != worker:
        holder = f"worker 0x{job.worker.hex()} has" if job.worker else "nobody has"
        raise WrongWorker(f"the job is {job.state} and {holder} it, not 0x{worker.hex()}")


def _require_answer(job: Job, answer: bytes) -> None:
    if job.answer is None:
        _require_state(job, *_HAS_ANSWER)
    if job.answer != answer:
        raise AnswerConflict(f"the accepted answer is not 0x{answer.hex()}")
