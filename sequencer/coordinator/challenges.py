"""Audits of exact answers by opening: a few places of a committed computation, drawn when it can no longer be changed.

The draw is a keyed hash of the signed receipt under the coordinator's secret: a worker cannot foresee it, nor try
receipts until it likes the outcome, since it never sees one before it is challenged, and only the first valid receipt
of a job counts. Checking is an `Auditor`'s, which holds the model. Holds no locks; `sequencer.coordinator.jobs` calls
it in turn.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from core.errors import InvalidInput, WarpgridError
from core.hashing import keccak256
from core.jobs.receipt import ReceiptDomain
from core.jobs.request import JobRequest, Tier, decode_tokens
from protos.job_messages import AnswerOpened, JobFailed, OpenAnswer
from sequencer.coordinator.audits import Verdict
from sequencer.coordinator.fleet import Member
from sequencer.coordinator.job_table import Job

__all__ = ["Answered", "Auditor", "Challenge", "Challenges", "NoAuditor"]

_TAG: Final = b"warpgrid challenge 1"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Answered:
    """An exact answer and its commitment, as its receipt and its worker state them."""

    request: JobRequest
    salt: bytes
    model_hash: bytes
    trace_root: bytes
    answer: tuple[int, ...]
    output: str

    @classmethod
    def of(cls, job: Job) -> "Answered":
        """A finished job's."""
        assert job.signed is not None, "only finished jobs are audited"
        assert job.output is not None, "a finished job has its output"
        terms = job.terms
        root, answer = job.signed.receipt.trace_root, decode_tokens(job.answer)
        return cls(terms.request, terms.salt, terms.model_hash, root, answer, job.output)


class Auditor(Protocol):
    """Whoever holds models to check answers with (`node.auditing`). Methods block; they may run in any thread.

    `check` and `replay` return what is wrong with an answer, in a sentence, or None.
    """

    def knows(self, model_hash: bytes) -> bool:
        """Whether answers of this model can be checked here."""

    def draw(self, answered: Answered, randomness: bytes) -> bytes:
        """The units to open (`OpenAnswer.units`). `randomness`: 32 bytes that were unknown when the root was signed."""

    def check(self, answered: Answered, units: bytes, opened: AnswerOpened) -> str | None:
        """Check openings of these units."""

    def replay(self, answered: Answered) -> str | None:
        """Run the model over the whole answer: slow, and certain."""


class NoAuditor:
    """Knows no model."""

    def knows(self, model_hash: bytes) -> bool:
        return False

    def draw(self, answered: Answered, randomness: bytes) -> bytes:
        raise AssertionError("nothing is drawn for a model that is not known")

    def check(self, answered: Answered, units: bytes, opened: AnswerOpened) -> str | None:
        raise AssertionError("nothing is checked for a model that is not known")

    def replay(self, answered: Answered) -> str | None:
        raise AssertionError("nothing is replayed for a model that is not known")


@dataclass(frozen=True, slots=True)
class Challenge:
    """A worker's openings, due by `until_ms`."""

    worker: bytes
    answered: Answered
    units: bytes
    until_ms: int


class Challenges:
    """The challenges that are waiting for openings."""

    def __init__(
        self, auditor: Auditor, domain: ReceiptDomain, *, seed: bytes, timeout_ms: int, now_ms: Callable[[], int]
    ) -> None:
        self._auditor = auditor
        self._domain = domain
        self._seed = seed
        self._timeout_ms = timeout_ms
        self._now_ms = now_ms
        self._waiting: dict[bytes, Challenge] = {}
        self._passed: set[bytes] = set()

    def knows(self, job: Job) -> bool:
        """Whether this job's answer can be checked here at all."""
        return job.terms.request.tier == Tier.EXACT and self._auditor.knows(job.terms.model_hash)

    def has_passed(self, job_id: bytes) -> bool:
        """Whether a job's openings were right. After a restart of the coordinator they are asked for again."""
        return job_id in self._passed

    def settle(self, job_id: bytes, *, passed: bool) -> None:
        """Remember that openings were right, until the job's last verdict is recorded."""
        (self._passed.add if passed else self._passed.discard)(job_id)

    def is_running(self, job_id: bytes) -> bool:
        return job_id in self._waiting

    def begin(self, job: Job) -> OpenAnswer:
        """What the job's worker is asked. Raises InvalidInput for an answer that no model can have given."""
        answered, until_ms = Answered.of(job), self._now_ms() + self._timeout_ms
        units = self._auditor.draw(answered, self._randomness(job))
        self._waiting[job.terms.job_id] = Challenge(job.worker, answered, units, until_ms)
        terms = job.terms
        asked = (terms.request, terms.salt, terms.model_hash, job.answer)
        return OpenAnswer(_VERSION, terms.job_id, *asked, units, until_ms)

    def take(self, member: Member, job_id: bytes) -> Challenge | None:
        """The challenge that this worker answers now; None when nobody asked it."""
        waiting = self._waiting.get(job_id)
        if waiting is None or waiting.worker != member.address:
            return None
        del self._waiting[job_id]
        return waiting

    def judged(self, job_id: bytes, challenge: Challenge, opened: AnswerOpened) -> Verdict:
        """The verdict on openings. Blocks."""
        try:
            wrong = self._auditor.check(challenge.answered, challenge.units, opened)
        except InvalidInput as error:  # nothing that this worker committed to looks like this
            return Verdict(job_id, "withheld", f"the openings are none: {error}")
        return Verdict(job_id, "opened") if wrong is None else Verdict(job_id, "disagreed", wrong)

    def arbitrated(self, job: Job, detail: str, other: bytes) -> Verdict:
        """The verdict when the worker `other` contradicts an answer, by running it here. Blocks.

        Without the model it is one's word against the other's: nothing is paid, and nobody is to blame.
        """
        if not self.knows(job):
            return Verdict(job.terms.job_id, "withheld", detail)
        try:
            wrong = self._auditor.replay(Answered.of(job))
        except WarpgridError as error:
            return Verdict(job.terms.job_id, "withheld", f"{detail}, and it could not be run here: {error}")
        if wrong is None:
            return Verdict(job.terms.job_id, "agreed", liar=other)
        return Verdict(job.terms.job_id, "disagreed", wrong)

    def declined(self, member: Member, message: JobFailed) -> Verdict | None:
        """The verdict when the worker refuses; None when it was busy, and is asked again."""
        if self.take(member, message.job_id) is None or message.code in ("busy", "draining"):
            return None
        return Verdict(message.job_id, "withheld", f"the worker does not open its answer: {message.detail}")

    def forget(self, *, worker: bytes) -> None:
        """The worker is gone; it is asked again when it comes back, and somebody else meanwhile."""
        self._waiting = {job_id: one for job_id, one in self._waiting.items() if one.worker != worker}

    def expired(self) -> list[Verdict]:
        """Verdicts on openings that did not come."""
        now_ms = self._now_ms()
        late = [job_id for job_id, one in self._waiting.items() if now_ms > one.until_ms]
        for job_id in late:
            del self._waiting[job_id]
        return [Verdict(job_id, "withheld", "the worker did not open its answer in time") for job_id in late]

    def _randomness(self, job: Job) -> bytes:
        assert job.signed is not None, "only finished jobs are audited"
        return keccak256(_TAG + self._seed + job.signed.receipt.digest(self._domain))
