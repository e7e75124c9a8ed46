"""Which worker gets a job, in which order others would be asked, and why each of the rest cannot have it.

Pure: facts and integers in, a choice out. The same facts give the same choice, whatever their order, so that a choice
can be checked afterwards.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from core.jobs.request import JobRequest
from market.pricing import cost_max_wei
from protos.messages import Model

__all__ = ["Candidate", "Choice", "JobNeeds", "Ranked", "Refusal", "choose"]

# What a score is made of, in permille of the whole. Reliability alone would leave newcomers without work for ever.
_RELIABILITY_WEIGHT = 500
_PRICE_WEIGHT = 300
_IDLENESS_WEIGHT = 200

assert _RELIABILITY_WEIGHT + _PRICE_WEIGHT + _IDLENESS_WEIGHT == 1000


class Refusal(StrEnum):
    """Why a worker cannot have a job, in the order in which it is asked; the values are words for people."""

    NOT_ORDERED = "not the ordered worker"
    MODEL = "model missing"
    PRICE = "too expensive"
    STAKE_UNKNOWN = "stake not checked yet"
    STAKE = "not staked"
    TRIED = "failed it before"
    ARRIVING = "just arriving"
    LEAVING = "leaving"
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class JobNeeds:
    """What a job demands. `worker` is zero when any may answer; `tried` are workers that failed it already.

    A worker's stake must stay at risk until `deadline_s` (Unix seconds) at least.
    """

    request: JobRequest
    model_hash: bytes
    worker: bytes
    price_max_wei: int
    deadline_s: int
    tried: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is known of a worker. `bonded_until` is Unix seconds, None while it is not yet known."""

    address: bytes
    models: Sequence[Model]
    job_slots: int
    jobs_running: int
    is_ready: bool
    is_draining: bool
    bonded_until: int | None
    reliability_per_mille: int

    def __post_init__(self) -> None:
        assert self.job_slots > 0, "a worker without slots is no candidate"


@dataclass(frozen=True, slots=True)
class Ranked:
    """A worker that can have the job, with the model that it would use, the most that this can cost, and its score."""

    address: bytes
    model: Model
    cost_max_wei: int
    score_per_mille: int


@dataclass(frozen=True, slots=True)
class Choice:
    """Everybody who can have the job, best first, and by address why everybody else cannot."""

    ranked: tuple[Ranked, ...]
    refusals: Mapping[bytes, Refusal]

    @property
    def best(self) -> Ranked | None:
        """Who gets the job, if anybody can."""
        return self.ranked[0] if self.ranked else None

    def explain(self) -> str:
        """For people: "0 of 3 workers: 2 model missing, 1 busy"."""
        total = len(self.ranked) + len(self.refusals)
        head = f"{len(self.ranked)} of {total} workers"
        counts = Counter(self.refusals.values())
        order = list(Refusal)
        reasons = sorted(counts, key=lambda reason: (-counts[reason], order.index(reason)))
        return ": ".join(filter(None, (head, ", ".join(f"{counts[reason]} {reason.value}" for reason in reasons))))


def choose(needs: JobNeeds, candidates: Iterable[Candidate]) -> Choice:
    """Judge every candidate. Equal scores go by cost, then by address."""
    fit: list[tuple[Candidate, Model, int]] = []
    refusals: dict[bytes, Refusal] = {}
    for one in candidates:
        verdict = _judge(needs, one)
        if isinstance(verdict, Refusal):
            refusals[one.address] = verdict
        else:
            fit.append((one, verdict, cost_max_wei(verdict, needs.request)))
    cheapest = min((cost for _, _, cost in fit), default=0)
    ranked = [Ranked(one.address, model, cost, _score(one, cost, cheapest)) for one, model, cost in fit]
    return Choice(
        tuple(sorted(ranked, key=lambda one: (-one.score_per_mille, one.cost_max_wei, one.address))), refusals
    )


def _judge(needs: JobNeeds, one: Candidate) -> Refusal | Model:
    if any(needs.worker) and needs.worker != one.address:
        return Refusal.NOT_ORDERED
    model = _offer(needs, one)
    if model is None:
        return Refusal.MODEL
    if cost_max_wei(model, needs.request) > needs.price_max_wei:
        return Refusal.PRICE
    if one.bonded_until is None:
        return Refusal.STAKE_UNKNOWN
    if one.bonded_until < needs.deadline_s:
        return Refusal.STAKE
    if one.address in needs.tried:
        return Refusal.TRIED
    if not one.is_ready:
        return Refusal.ARRIVING
    if one.is_draining:
        return Refusal.LEAVING
    return Refusal.BUSY if one.jobs_running >= one.job_slots else model


def _offer(needs: JobNeeds, one: Candidate) -> Model | None:
    """The cheapest of a worker's offers of the model that is needed, at the tier that is needed."""
    fit = [model for model in one.models if (model.model_hash, model.tier) == (needs.model_hash, needs.request.tier)]
    return min(fit, key=lambda model: cost_max_wei(model, needs.request), default=None)


def _score(one: Candidate, cost: int, cheapest: int) -> int:
    """Weighted reliability, cheapest cost over this one's, and share of free slots."""
    price = (cheapest + 1) * 1000 // (cost + 1)
    idleness = (one.job_slots - one.jobs_running) * 1000 // one.job_slots
    weighted = one.reliability_per_mille * _RELIABILITY_WEIGHT + price * _PRICE_WEIGHT + idleness * _IDLENESS_WEIGHT
    return weighted // 1000
