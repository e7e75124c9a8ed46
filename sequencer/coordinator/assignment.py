"""From a job to the worker that gets it: what the job needs, what each worker offers, and what the chosen one is sent.

`market.matching` chooses; here its arguments are made, from the fleet, the job table and the chain.
"""

from collections.abc import Awaitable, Callable, Mapping

from market.matching import Candidate, JobNeeds
from protos.job_messages import AssignJob
from protos.messages import Model
from sequencer.coordinator.escrow import Standing
from sequencer.coordinator.fleet import Member
from sequencer.coordinator.job_table import Job, Reliability

__all__ = ["Standings", "assignment_of", "candidate_of", "needs_of"]

_RELIABILITY_OF_NEWCOMERS = 500


class Standings:
    """The workers' records on chain, each at most `ttl_ms` old when it is asked for."""

    def __init__(self, read: Callable[[bytes], Awaitable[Standing]], *, ttl_ms: int, now_ms: Callable[[], int]) -> None:
        self._read, self._ttl_ms, self._now_ms = read, ttl_ms, now_ms
        self._known: dict[bytes, tuple[Standing, int]] = {}

    async def of(self, worker: bytes, *, is_stale: bool = False) -> Standing:
        """A worker's record; read anew where what is known is too old, or said to be stale."""
        known = self._known.get(worker)
        if known is None or is_stale or self._now_ms() - known[1] > self._ttl_ms:
            known = (await self._read(worker), self._now_ms())
            self._known[worker] = known
        return known[0]

    def known(self, worker: bytes) -> Standing | None:
        """The record that was read last, however old; None if there was none."""
        known = self._known.get(worker)
        return known[0] if known else None


def needs_of(job: Job, tried: frozenset[bytes]) -> JobNeeds:
    """What a worker must have to be given the job; not those that have tried."""
    terms = job.terms
    deadline_s = -(-terms.deadline_ms // 1000)
    return JobNeeds(terms.request, terms.model_hash, terms.worker, terms.price_max_wei, deadline_s, tried)


def candidate_of(
    member: Member, standings: Standings, reliability: Mapping[bytes, Reliability], jobs_running: int
) -> Candidate:
    """A worker as matching sees it."""
    standing, past = standings.known(member.address), reliability.get(member.address)
    return Candidate(
        address=member.address,
        models=member.capabilities.models,
        job_slots=max(1, member.capabilities.job_slots),
        jobs_running=jobs_running,
        is_ready=member.has_beaten,
        is_draining=member.is_draining,
        bonded_until=standing.bonded_until if standing else None,
        reliability_per_mille=past.per_mille() if past else _RELIABILITY_OF_NEWCOMERS,
    )


def assignment_of(job: Job, attempt: int, model: Model) -> AssignJob:
    """What a worker is sent to run the job at its model's price."""
    terms = job.terms
    return AssignJob(
        job_id=terms.job_id,
        attempt=attempt,
        request=terms.request,
        salt=terms.salt,
        model_hash=terms.model_hash,
        deadline_ms=terms.deadline_ms,
        input_token_wei=model.input_token_wei,
        output_token_wei=model.output_token_wei,
        price_max_wei=terms.price_max_wei,
        audit=False,
    )
