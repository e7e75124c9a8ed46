"""Which workers can take a job, in which order to ask them, and why each other one cannot.

Pure: the same workers, job and time give the same answer, in integers, so that a choice can be checked afterwards.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from core.jobs.request import JobRequest
from market.errors import NoWorker
from market.pricing import cost_max_wei, input_tokens_estimate
from market.registry import Worker
from protos.messages import Model

__all__ = ["Candidate", "Match", "Need", "Refusal", "explain", "match", "offer_for"]

# What a candidate's score is made of, in permille of the whole.
_RELIABILITY_WEIGHT = 500
_PRICE_WEIGHT = 300
_IDLENESS_WEIGHT = 200

assert _RELIABILITY_WEIGHT + _PRICE_WEIGHT + _IDLENESS_WEIGHT == 1000


class Refusal(StrEnum):
    """Why a worker cannot take a job, in the order in which it is asked; the values are words for people."""

    SILENT = "silent"
    TRIED = "already tried"
    NO_INFERENCE = "no inference duty"
    MODEL = "model missing"
    TIER = "tier missing"
    CONTEXT = "context too short"
    STAKE = "stake"
    PRICE = "price"
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class Need:
    """What a job asks of a worker.

    `tried` are the workers that had it and failed; with `only`, no other worker will do. The stake must cover the
    penalty, so the more a job may cost the more a worker must have to lose.
    """

    request: JobRequest
    price_max_wei: int
    stake_min_wei: int
    tried: frozenset[bytes] = frozenset()
    only: bytes | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that can take the job with this of its models. A higher `score` (0 to 1000) is asked first."""

    worker: Worker
    model: Model
    cost_max_wei: int
    score: int


@dataclass(frozen=True, slots=True)
class Match:
    """Everybody who can take a job, best first, and why everybody else cannot."""

    candidates: tuple[Candidate, ...]
    refusals: Mapping[bytes, Refusal]

    def best(self) -> Candidate:
        """The first to ask. Raises NoWorker when there is none."""
        if not self.candidates:
            raise NoWorker(explain(self), self.refusals)
        return self.candidates[0]


def match(workers: Iterable[Worker], need: Need, *, now_ms: int) -> Match:
    """Judge every worker. The order of `workers` does not matter."""
    fit: list[tuple[Worker, Model]] = []
    refusals: dict[bytes, Refusal] = {}
    for worker in workers:
        if need.only is not None and worker.address != need.only:
            continue
        verdict = _judge(worker, need, now_ms)
        if isinstance(verdict, Refusal):
            refusals[worker.address] = verdict
        else:
            fit.append((worker, verdict))
    return Match(_rank(fit, need.request), refusals)


def explain(found: Match) -> str:
    """One sentence: "0 of 3 workers: 2 model missing, 1 busy"."""
    total = len(found.candidates) + len(found.refusals)
    head = f"{len(found.candidates)} of {total} worker{'' if total == 1 else 's'}"
    counts = Counter(found.refusals.values())
    reasons = sorted(counts, key=lambda reason: (-counts[reason], list(Refusal).index(reason)))
    listed = ", ".join(f"{counts[reason]} {reason.value}" for reason in reasons)
    return f"{head}: {listed}" if listed else head


def offer_for(worker: Worker, request: JobRequest) -> Model | None:
    """The cheapest of a worker's models that a request names, by name and tier."""
    fit = [one for one in worker.capabilities.models if one.name == request.model and one.tier == request.tier]
    return min(fit, key=lambda one: (cost_max_wei(one, request), one.model_hash), default=None)


def _judge(worker: Worker, need: Need, now_ms: int) -> Refusal | Model:
    request = need.request
    if not worker.is_live(now_ms):
        return Refusal.SILENT
    if worker.address in need.tried:
        return Refusal.TRIED
    if "inference" not in worker.capabilities.duties:
        return Refusal.NO_INFERENCE
    if all(one.name != request.model for one in worker.capabilities.models):
        return Refusal.MODEL
    model = offer_for(worker, request)
    if model is None:
        return Refusal.TIER
    if input_tokens_estimate(request) + request.sampling.tokens_max > model.context_tokens_max:
        return Refusal.CONTEXT
    if worker.stake_wei < need.stake_min_wei:
        return Refusal.STAKE
    if cost_max_wei(model, request) > need.price_max_wei:
        return Refusal.PRICE
    return model if worker.free_slots else Refusal.BUSY


def _rank(fit: list[tuple[Worker, Model]], request: JobRequest) -> tuple[Candidate, ...]:
    costs = {worker.address: cost_max_wei(model, request) for worker, model in fit}
    cheapest = min(costs.values(), default=0)
    candidates = [
        Candidate(worker, model, costs[worker.address], _score(worker, costs[worker.address], cheapest))
        for worker, model in fit
    ]
    return tuple(sorted(candidates, key=lambda one: (-one.score, one.cost_max_wei, one.worker.address)))


def _score(worker: Worker, cost: int, cheapest: int) -> int:
    """Weighted permille of reliability, of the cheapest cost over this one's, and of free slots."""
    price = (cheapest + 1) * 1000 // (cost + 1)
    idleness = worker.free_slots * 1000 // worker.capabilities.job_slots
    weighted = worker.reliability.permille * _RELIABILITY_WEIGHT + price * _PRICE_WEIGHT + idleness * _IDLENESS_WEIGHT
    return weighted // 1000
