"""Which worker gets a job, and why each of the others does not. Pure: integers and facts in, a choice out."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.jobs.request import JobRequest
from protos.messages import Model

__all__ = ["Candidate", "Choice", "JobNeeds", "choose", "input_tokens_max"]

_TEMPLATE_TOKENS_MAX = 64
"""What a chat template may add to each message."""


@dataclass(frozen=True, slots=True)
class JobNeeds:
    """What a job demands. `worker` is zero when any may answer; `tried` are workers that failed it already."""

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


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen worker's address and model, or None; `refusals` counts why each of the others was not eligible."""

    address: bytes | None
    model: Model | None
    refusals: Counter[str]
    workers: int

    def explain(self) -> str:
        """For people: "0 of 3 workers: 2 model missing, 1 busy"."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.refusals.most_common())
        eligible = self.workers - self.refusals.total()
        return f"{eligible} of {self.workers} workers" + (f": {reasons}" if reasons else "")


def input_tokens_max(request: JobRequest) -> int:
    """More tokens than any tokenizer makes of the request: one a byte, and the template's own."""
    content = sum(len(message.content.encode()) + _TEMPLATE_TOKENS_MAX for message in request.messages)
    return content + _TEMPLATE_TOKENS_MAX


def choose(needs: JobNeeds, candidates: Iterable[Candidate]) -> Choice:
    """The most reliable eligible worker; among equals the cheapest, then the least loaded, then the lowest address."""
    eligible: list[tuple[tuple[int, int, int, bytes], Candidate, Model]] = []
    refusals: Counter[str] = Counter()
    count = 0
    for one in candidates:
        count += 1
        model = next((m for m in one.models if (m.model_hash, m.tier) == (needs.model_hash, needs.request.tier)), None)
        reason = _refusal(needs, one, model)
        if reason or model is None:
            refusals[reason] += 1
            continue
        load_per_mille = 1000 * one.jobs_running // one.job_slots
        eligible.append(
            ((-one.reliability_per_mille, _cost_wei(needs, model), load_per_mille, one.address), one, model)
        )
    if not eligible:
        return Choice(None, None, refusals, count)
    _, best, model = min(eligible, key=lambda entry: entry[0])
    return Choice(best.address, model, refusals, count)


def _refusal(needs: JobNeeds, one: Candidate, model: Model | None) -> str:
    """Why not this worker; empty when it may have the job."""
    if any(needs.worker) and needs.worker != one.address:
        return "not the ordered worker"
    if model is None:
        return "model missing"
    if _cost_wei(needs, model) > needs.price_max_wei:
        return "too expensive"
    if one.bonded_until is None:
        return "stake not checked yet"
    if one.bonded_until < needs.deadline_s:
        return "not staked"
    if one.address in needs.tried:
        return "failed it before"
    if not one.is_ready:
        return "just arriving"
    if one.is_draining:
        return "leaving"
    if one.jobs_running >= one.job_slots:
        return "busy"
    return ""


def _cost_wei(needs: JobNeeds, model: Model) -> int:
    """The most that this worker's answer can cost."""
    output_tokens = needs.request.sampling.tokens_max
    return input_tokens_max(needs.request) * model.input_token_wei + output_tokens * model.output_token_wei
