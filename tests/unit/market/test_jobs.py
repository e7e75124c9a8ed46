"""A job's states: the straight way, every detour, and that replays and strangers change nothing."""

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from market.errors import AnswerConflict, JobEnded, JobLate, TransitionRefused, WrongWorker
from market.jobs import (
    ATTEMPTS_MAX,
    Answered,
    Assigned,
    Checked,
    DeadlinePassed,
    Event,
    Funded,
    GivenUp,
    Job,
    JobState,
    Refunded,
    Settled,
    Started,
    WorkerFailed,
    advance,
    due,
)

NEW = Job(b"\x01" * 32, deadline_ms=1000)
A, B, C, D = (bytes([n]) * 20 for n in range(10, 14))
ANSWER, OTHER, TRANSACTION = b"\x21" * 32, b"\x22" * 32, b"\x23" * 32
STRAIGHT: tuple[Event, ...] = (
    Funded(1),
    Assigned(2, 1, A, 500),
    Started(3, A),
    Answered(4, A, ANSWER),
    Checked(5, ANSWER),
    Settled(6, ANSWER, TRANSACTION),
)


def after(*events: Event, job: Job = NEW) -> Job:
    for event in events:
        job = advance(job, event)
    return job


def test_the_straight_way() -> None:
    states = [after(*STRAIGHT[:n]).state.value for n in range(len(STRAIGHT) + 1)]
    assert states == ["requested", "funded", "assigned", "running", "answered", "checked", "settled"]
    assert after(*STRAIGHT).settlement == TRANSACTION
    assert after(*STRAIGHT).has_ended


@pytest.mark.parametrize("length", range(1, len(STRAIGHT) + 1))
def test_replaying_what_has_happened_changes_nothing(length: int) -> None:
    job = after(*STRAIGHT[:length])
    assert after(*STRAIGHT[:length], job=job) == job


def test_a_lost_job_goes_to_another_worker() -> None:
    job = after(*STRAIGHT[:3], WorkerFailed(10, A, "late"))
    assert (job.state, job.worker, job.tried, job.detail) == (JobState.FUNDED, None, (A,), "late")
    with pytest.raises(TransitionRefused, match="has had this job before"):
        advance(job, Assigned(11, 2, A, 500))
    with pytest.raises(WrongWorker, match="nobody has it"):
        advance(job, Answered(11, A, ANSWER))
    job = after(Assigned(11, 2, B, 5000), job=job)
    assert job.answer_by_ms == 1000, "no later than the client's deadline"
    with pytest.raises(WrongWorker):
        advance(job, Answered(12, A, ANSWER))
    assert after(WorkerFailed(10, A, "late"), job=job) == job, "an old failure again"
    assert after(Answered(12, B, ANSWER), job=job).state == JobState.ANSWERED, "`started` may get lost"


def test_attempts_are_counted() -> None:
    job = after(Funded(1))
    for attempt, worker in enumerate((A, B, C), start=1):
        job = after(Assigned(attempt, attempt, worker, 500), WorkerFailed(attempt, worker, "died"), job=job)
    assert ATTEMPTS_MAX == 3
    assert (job.state, job.detail) == (JobState.FAILED, "3 workers failed, the last one: died")
    with pytest.raises(TransitionRefused):
        advance(job, Assigned(9, 4, D, 500))
    with pytest.raises(TransitionRefused, match="cannot follow"):
        advance(after(Funded(1)), Assigned(2, 2, A, 500))


def test_a_wrong_answer_is_a_lost_attempt() -> None:
    answered = after(*STRAIGHT[:4])
    job = after(WorkerFailed(5, A, "another worker answers differently"), job=answered)
    assert (job.state, job.answer) == (JobState.FUNDED, None)
    with pytest.raises(TransitionRefused, match="passed its check"):
        advance(after(*STRAIGHT[:5]), WorkerFailed(6, A, "too late to say so"))


def test_one_answer_is_accepted() -> None:
    job = after(*STRAIGHT[:4])
    with pytest.raises(AnswerConflict):
        advance(job, Answered(5, A, OTHER))
    with pytest.raises(AnswerConflict):
        advance(job, Checked(5, OTHER))
    with pytest.raises(TransitionRefused, match="answered, expected checked"):
        advance(job, Settled(5, ANSWER, TRANSACTION))
    with pytest.raises(TransitionRefused, match="running, expected"):
        advance(after(*STRAIGHT[:3]), Checked(5, ANSWER))


def test_deadlines() -> None:
    running = after(*STRAIGHT[:3])
    assert due(running, 499) is None
    assert due(running, 500) == WorkerFailed(500, A, "late")
    assert due(running, 1000) == DeadlinePassed(1000)
    assert due(after(*STRAIGHT[:4]), 5000) is None, "an answer has no deadline any more"
    with pytest.raises(JobLate):
        advance(running, Answered(1000, A, ANSWER))
    with pytest.raises(JobLate):
        advance(NEW, Funded(1000))
    with pytest.raises(TransitionRefused, match="1 ms away"):
        advance(running, DeadlinePassed(999))
    expired = after(DeadlinePassed(1000), job=running)
    assert (expired.state, expired.worker) == (JobState.EXPIRED, None)
    refunded = after(DeadlinePassed(1001), Refunded(1002), Refunded(1003), job=expired)
    assert (refunded.state, refunded.has_ended) == (JobState.REFUNDED, True)


@pytest.mark.parametrize("length", range(4))
def test_a_job_without_an_answer_can_be_given_up(length: int) -> None:
    job = after(*STRAIGHT[:length], GivenUp(9, "0 of 0 workers"), GivenUp(10, "again"))
    assert (job.state, job.detail) == (JobState.FAILED, "0 of 0 workers")
    assert after(Refunded(11), GivenUp(12, "again"), job=job).state == JobState.REFUNDED


@pytest.mark.parametrize("length", [4, 5, 6])
def test_an_answered_job_cannot_be_given_up(length: int) -> None:
    refused = JobEnded if length == 6 else TransitionRefused
    for event in (GivenUp(9, "too late"), DeadlinePassed(2000), Refunded(9)):
        with pytest.raises(refused):
            advance(after(*STRAIGHT[:length]), event)


class Life(RuleBasedStateMachine):
    """Random events, in and out of place: money goes one way, once, and no attempt is free."""

    def __init__(self) -> None:
        super().__init__()
        self.job = NEW
        self.ends: list[JobState] = []
        self.now_ms = 0

    def feed(self, event: Event) -> None:
        before = self.job
        try:
            self.job = advance(before, event)
        except TransitionRefused:
            return
        if self.job.has_ended and not before.has_ended:
            self.ends.append(self.job.state)
        assert advance(self.job, event) == self.job, "applied twice"

    @rule(worker=st.sampled_from((A, B, C, D)), answer=st.sampled_from((ANSWER, OTHER)), pick=st.integers(0, 9))
    def event(self, worker: bytes, answer: bytes, pick: int) -> None:
        now = self.now_ms
        kinds: tuple[Callable[[], Event], ...] = (
            lambda: Funded(now),
            lambda: Assigned(now, self.job.attempt + 1, worker, now + 100),
            lambda: Started(now, worker),
            lambda: Answered(now, worker, answer),
            lambda: WorkerFailed(now, worker, "died"),
            lambda: Checked(now, answer),
            lambda: Settled(now, answer, TRANSACTION),
            lambda: GivenUp(now, "cancelled"),
            lambda: DeadlinePassed(now),
            lambda: Refunded(now),
        )
        self.feed(kinds[pick]())

    @rule(step_ms=st.integers(1, 150))
    def tick(self, step_ms: int) -> None:
        self.now_ms += step_ms
        while (event := due(self.job, self.now_ms)) is not None:
            before = self.job
            self.job = advance(before, event)
            assert self.job != before, "what is due changes something"

    @invariant()
    def it_ends_once_and_stays_ended(self) -> None:
        assert len(self.ends) == int(self.job.has_ended)
        assert self.job.attempt <= ATTEMPTS_MAX
        assert len(self.job.tried) <= self.job.attempt
        assert len(set(self.job.tried)) == len(self.job.tried)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
