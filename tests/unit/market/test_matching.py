"""Who is asked first, who is not asked and why, what it costs."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.jobs.request import JobRequest, Message, Role, Sampling, Tier
from market.matching import Candidate, Choice, JobNeeds, Refusal, choose
from market.pricing import cost_max_wei, cost_wei, input_tokens_max, next_price_wei
from protos.messages import Model

DEADLINE_S = 1_800_000_000
MODEL = Model("smollm2", b"\x11" * 32, int(Tier.FLOAT), 3, 7, 4096)
REQUEST = JobRequest("smollm2", (Message(Role.USER, "x" * 30),), Sampling(tokens_max=100))
NEEDS = JobNeeds(REQUEST, MODEL.model_hash, bytes(20), 10_000, DEADLINE_S, frozenset())
COST_MAX_WEI = (30 + 64 + 64) * 3 + 100 * 7


def candidate(number: int, *models: Model, **changes: object) -> Candidate:
    base = Candidate(
        address=bytes([number]) * 20,
        models=models or (MODEL,),
        job_slots=2,
        jobs_running=0,
        is_ready=True,
        is_draining=False,
        bonded_until=DEADLINE_S,
        reliability_per_mille=500,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def refusal(one: Candidate, needs: JobNeeds = NEEDS) -> Refusal | None:
    return choose(needs, [one]).refusals.get(one.address)


def first(*candidates: Candidate) -> int:
    best = choose(NEEDS, candidates).best
    assert best is not None
    return best.address[0]


def test_every_refusal_has_its_reason() -> None:
    one = candidate(1)
    assert refusal(one) is None
    assert refusal(one, replace(NEEDS, worker=one.address)) is None
    assert refusal(one, replace(NEEDS, worker=b"\x02" * 20)) == Refusal.NOT_ORDERED
    assert refusal(candidate(1, replace(MODEL, model_hash=bytes(32)))) == Refusal.MODEL
    assert refusal(candidate(1, replace(MODEL, tier=int(Tier.EXACT)))) == Refusal.MODEL
    assert refusal(one, replace(NEEDS, price_max_wei=COST_MAX_WEI)) is None
    assert refusal(one, replace(NEEDS, price_max_wei=COST_MAX_WEI - 1)) == Refusal.PRICE
    assert refusal(candidate(1, bonded_until=None)) == Refusal.STAKE_UNKNOWN
    assert refusal(candidate(1, bonded_until=DEADLINE_S - 1)) == Refusal.STAKE
    assert refusal(one, replace(NEEDS, tried=frozenset({one.address}))) == Refusal.TRIED
    assert refusal(candidate(1, is_ready=False)) == Refusal.ARRIVING
    assert refusal(candidate(1, is_draining=True)) == Refusal.LEAVING
    assert refusal(candidate(1, jobs_running=1)) is None
    assert refusal(candidate(1, jobs_running=2)) == Refusal.BUSY


def test_a_choice_is_explained_in_a_sentence() -> None:
    other = replace(MODEL, model_hash=bytes(32))
    choice = choose(NEEDS, [candidate(3, jobs_running=2), candidate(1, other), candidate(2, other)])
    assert choice.best is None
    assert choice.explain() == "0 of 3 workers: 2 model missing, 1 busy"
    assert choose(NEEDS, []).explain() == "0 of 0 workers"
    assert choose(NEEDS, [candidate(1)]).explain() == "1 of 1 workers"


@pytest.mark.parametrize(
    "worse",
    [
        candidate(1, reliability_per_mille=300),
        candidate(1, replace(MODEL, output_token_wei=14)),
        candidate(1, jobs_running=1),
    ],
    ids=["reliability", "price", "load"],
)
def test_each_quality_counts(worse: Candidate) -> None:
    assert first(worse, candidate(2)) == 2
    assert first(candidate(2), candidate(1)) == 1, "equals go by address"


def test_a_newcomer_gets_work_when_the_proven_are_busy() -> None:
    proven = candidate(1, reliability_per_mille=900, job_slots=8)
    assert first(proven, candidate(2)) == 1
    assert first(replace(proven, jobs_running=7), candidate(2, replace(MODEL, output_token_wei=5))) == 2


def test_the_cheapest_of_a_workers_offers_counts() -> None:
    best = choose(NEEDS, [candidate(1, replace(MODEL, output_token_wei=70), MODEL)]).best
    assert best is not None
    assert (best.model, best.cost_max_wei) == (MODEL, COST_MAX_WEI)


facts = st.tuples(st.integers(0, 100), st.integers(0, 3), st.integers(0, 1000), st.booleans())


@given(st.lists(facts, max_size=30), st.integers())
def test_everybody_is_judged_once_and_order_does_not_matter(rows: list[tuple[int, int, int, bool]], seed: int) -> None:
    candidates = [
        candidate(
            number,
            replace(MODEL, output_token_wei=price),
            jobs_running=busy,
            reliability_per_mille=reliability,
            is_draining=draining,
        )
        for number, (price, busy, reliability, draining) in enumerate(rows)
    ]
    choice: Choice = choose(NEEDS, candidates)
    assert {one.address for one in choice.ranked} | choice.refusals.keys() == {one.address for one in candidates}
    assert len(choice.ranked) + len(choice.refusals) == len(candidates)
    assert all(0 <= one.score_per_mille <= 1000 for one in choice.ranked)
    random.Random(seed).shuffle(candidates)
    assert choose(NEEDS, candidates) == choice


def test_costs() -> None:
    assert cost_wei(MODEL, 10, 20) == 170
    assert input_tokens_max(REQUEST) == 30 + 64 + 64
    assert cost_max_wei(MODEL, REQUEST) == COST_MAX_WEI


@given(st.integers(1, 10**30), st.integers(1, 1000), st.data())
def test_prices_follow_demand_by_an_eighth_at_most(price: int, slots: int, data: st.DataObject) -> None:
    busy = data.draw(st.integers(0, slots))
    moved = next_price_wei(price, busy_slots=busy, slots=slots, floor_wei=0)
    assert abs(moved - price) <= max(1, price // 8)
    assert (moved > price) == (2 * busy > slots)
    assert moved <= price or 2 * busy > slots
    assert next_price_wei(price, busy_slots=busy, slots=slots, floor_wei=2 * price) == 2 * price


def test_price_changes_are_eip_1559s() -> None:
    price = 8_000_000
    assert next_price_wei(price, busy_slots=10, slots=10, floor_wei=0) == 9_000_000
    assert next_price_wei(price, busy_slots=5, slots=10, floor_wei=0) == price
    assert next_price_wei(price, busy_slots=0, slots=10, floor_wei=0) == 7_000_000
    assert next_price_wei(1, busy_slots=10, slots=10, floor_wei=0) == 2
    assert next_price_wei(price, busy_slots=0, slots=0, floor_wei=5) == price
