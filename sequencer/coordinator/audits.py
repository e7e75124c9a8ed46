"""Second opinions: which answers are made again, by whom, and what follows when the two differ.

A float engine gives the same bytes only on the same kind of machine, so only such a worker is asked. An exact one gives
them everywhere, and its trace root too: the second worker is told the answer's tokens, which makes checking them cheap,
but not the root, which it can only know by computing it. The draw depends on a secret and on the signed receipt:
nobody can tell before signing. Holds no locks; `sequencer.coordinator.jobs` calls it in turn with everything else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.errors import InvalidInput
from core.hashing import keccak256
from core.jobs.receipt import Receipt, ReceiptDomain, recover_signer
from core.jobs.request import Tier, output_hash
from market.matching import Candidate
from protos.job_messages import AUDIT_ATTEMPT, JobFailed, JobFinished
from sequencer.coordinator.fleet import Fleet, Member
from sequencer.coordinator.job_table import Job

__all__ = ["AUDIT_ATTEMPT", "Audits", "Verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an audit found: an `Audited.verdict`, with the `liar` that it found among the checkers; "opened" when
    a worker's openings were right, which is not the last word where somebody can run the whole answer; or
    "contradicted" when two exact workers differ: `other` is the one that was asked, and one of the two is wrong."""

    job_id: bytes
    outcome: str
    detail: str = ""
    other: bytes = b""
    liar: bytes = b""


@dataclass(frozen=True, slots=True)
class _Running:
    worker: bytes
    until_ms: int


class Audits:
    """The audits that are running. `percent` of the receipts are drawn; an audit may take `timeout_ms`."""

    def __init__(
        self,
        fleet: Fleet,
        domain: ReceiptDomain,
        *,
        seed: bytes,
        percent: int,
        timeout_ms: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._fleet = fleet
        self._domain = domain
        self._seed = seed
        self._percent = percent
        self._timeout_ms = timeout_ms
        self._now_ms = now_ms
        self._running: dict[bytes, _Running] = {}

    def is_drawn(self, receipt: Receipt) -> bool:
        """Whether this answer is to be made again."""
        digest = keccak256(self._seed + receipt.digest(self._domain))
        return int.from_bytes(digest[:8], "big") % 100 < self._percent

    def is_running(self, job_id: bytes) -> bool:
        return job_id in self._running

    def workers(self) -> list[bytes]:
        """Who is busy with an audit, once for each."""
        return [one.worker for one in self._running.values()]

    def comparable(self, job: Job, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those whose engine must give the same bytes as the one that answered: on the float tier, same software and
        same processor."""
        original = self._fleet.member(job.worker)
        others = [one for one in candidates if one.address != job.worker]
        if job.terms.request.tier == Tier.EXACT:
            return others
        return [one for one in others if _same_machine_kind(self._fleet.member(one.address), original)]

    def is_too_late(self, job: Job) -> bool:
        """Whether to give up looking for somebody who could audit this job."""
        assert job.signed is not None, "only finished jobs are audited"
        return self._now_ms() > job.signed.receipt.finished_at_ms + self._timeout_ms

    def begin(self, job: Job, worker: bytes) -> int:
        """The worker is asked; returns its deadline (Unix milliseconds)."""
        until_ms = self._now_ms() + self._timeout_ms
        self._running[job.terms.job_id] = _Running(worker, until_ms)
        return until_ms

    def forget(self, *, worker: bytes) -> None:
        """The worker is gone: somebody else may do its audits."""
        self._running = {job_id: one for job_id, one in self._running.items() if one.worker != worker}

    def expired(self) -> list[Verdict]:
        """Verdicts on audits that took too long."""
        now_ms = self._now_ms()
        late = [job_id for job_id, one in self._running.items() if now_ms > one.until_ms]
        for job_id in late:
            del self._running[job_id]
        return [Verdict(job_id, "unavailable", "the second worker did not answer in time") for job_id in late]

    def finished(self, job: Job | None, member: Member, message: JobFinished, signer: bytes) -> Verdict | None:
        """The verdict that a second answer gives; None when nobody asked for it."""
        if job is None or not self._take(member, message.job_id):
            return None
        receipt = message.signed.receipt
        try:
            is_signed = recover_signer(receipt, self._domain, message.signed.signature) == signer
        except InvalidInput:
            is_signed = False
        if not is_signed or receipt.output_hash != output_hash(message.output, job.terms.salt):
            return Verdict(message.job_id, "unavailable", "the second worker's receipt is not valid")
        assert job.signed is not None, "only finished jobs are audited"
        if message.output == job.output and receipt.trace_root == job.signed.receipt.trace_root:
            return Verdict(message.job_id, "agreed")
        detail = f"worker 0x{member.address.hex()} answered the same request otherwise"
        if job.terms.request.tier == Tier.EXACT:
            return Verdict(message.job_id, "contradicted", detail, other=member.address)
        return Verdict(message.job_id, "disagreed", detail)

    def failed(self, member: Member, message: JobFailed) -> Verdict | None:
        """The verdict when the second worker failed; None when somebody else may still be asked."""
        if not self._take(member, message.job_id) or message.code in ("busy", "draining"):
            return None
        detail = f"the second worker failed: {message.detail} [{message.code}]"
        return Verdict(message.job_id, "unavailable", detail)

    def _take(self, member: Member, job_id: bytes) -> bool:
        running = self._running.get(job_id)
        if running is None or running.worker != member.address:
            return False
        del self._running[job_id]
        return True


def _same_machine_kind(one: Member | None, other: Member | None) -> bool:
    if one is None or other is None:
        return False
    mine, theirs = one.capabilities, other.capabilities
    return (mine.software, mine.cpu_model) == (theirs.software, theirs.cpu_model)
