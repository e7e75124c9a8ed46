"""Who is asked first, who is not asked and why, what it costs."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.jobs.request import JobRequest, Message, Role, Sampling, Tier
from market.errors import DirectoryFull, NoWorker
from market.matching import Need, Refusal, explain, match
from market.pricing import cost_max_wei, cost_wei, input_tokens_estimate, next_price_wei
from market.registry import SILENCE_MS_MAX, Reliability, Worker, WorkerDirectory, capabilities_hash
from protos.messages import Capabilities, Model

NOW_MS = 1_800_000_000_000
MODEL = Model("smollm2", b"\x11" * 32, int(Tier.FLOAT), 3, 7, 4096)
REQUEST = JobRequest("smollm2", (Message(Role.USER, "x" * 30),), Sampling(tokens_max=100))
NEED = Need(REQUEST, price_max_wei=10_000, stake_min_wei=1000)


def capabilities(*models: Model, slots: int = 2) -> Capabilities:
    return Capabilities("warpgrid 0", ("replica", "inference"), "reference", "cpu", 2, 2**30, 2**30, (), models, slots)


def worker(number: int, model: Model = MODEL, **changes: object) -> Worker:
    base = Worker(bytes([number]) * 20, capabilities(model), heard_at_ms=NOW_MS, stake_wei=1000)
    return replace(base, **changes)  # type: ignore[arg-type]


def refusal(one: Worker, need: Need = NEED) -> Refusal | None:
    return match([one], need, now_ms=NOW_MS).refusals.get(one.address)


def test_every_refusal_has_its_reason() -> None:
    assert refusal(worker(1)) is None
    assert refusal(worker(1, heard_at_ms=NOW_MS - SILENCE_MS_MAX)) is None
    assert refusal(worker(1, heard_at_ms=NOW_MS - SILENCE_MS_MAX - 1)) == Refusal.SILENT
    assert refusal(worker(1, leaving=True)) == Refusal.SILENT
    assert refusal(worker(1), replace(NEED, tried=frozenset({worker(1).address}))) == Refusal.TRIED
    watcher = replace(capabilities(MODEL), duties=("replica", "watcher"))
    assert refusal(worker(1, capabilities=watcher)) == Refusal.NO_INFERENCE
    assert refusal(worker(1, replace(MODEL, name="other"))) == Refusal.MODEL
    assert refusal(worker(1, replace(MODEL, tier=int(Tier.EXACT)))) == Refusal.TIER
    assert refusal(worker(1, replace(MODEL, context_tokens_max=125))) == Refusal.CONTEXT
    assert refusal(worker(1, replace(MODEL, context_tokens_max=126))) is None
    assert refusal(worker(1, stake_wei=999)) == Refusal.STAKE
    assert refusal(worker(1), replace(NEED, price_max_wei=777)) == Refusal.PRICE
    assert refusal(worker(1), replace(NEED, price_max_wei=778)) is None
    assert refusal(worker(1, jobs_running=2)) == Refusal.BUSY


def test_a_refusal_is_explained_in_a_sentence() -> None:
    other = replace(MODEL, name="other")
    found = match([worker(1, other), worker(2, other), worker(3, jobs_running=2)], NEED, now_ms=NOW_MS)
    assert explain(found) == "0 of 3 workers: 2 model missing, 1 busy"
    with pytest.raises(NoWorker, match="0 of 3 workers: 2 model missing, 1 busy") as nobody:
        found.best()
    assert nobody.value.refusals[worker(3).address] == "busy"
    assert explain(match([], NEED, now_ms=NOW_MS)) == "0 of 0 workers"
    assert explain(match([worker(1)], NEED, now_ms=NOW_MS)) == "1 of 1 worker"


def test_better_workers_are_asked_first() -> None:
    def first(*workers: Worker) -> bytes:
        return match(workers, NEED, now_ms=NOW_MS).best().worker.address

    good, bad = Reliability(9000, 0), Reliability(0, 9000)
    assert first(worker(1, reliability=bad), worker(2, reliability=good)) == worker(2).address
    assert first(worker(1, replace(MODEL, output_token_wei=14)), worker(2)) == worker(2).address
    assert first(worker(1, jobs_running=1), worker(2)) == worker(2).address
    assert first(worker(2), worker(1)) == worker(1).address, "equals in order of address"


def test_a_direct_job_has_one_worker() -> None:
    need = replace(NEED, only=worker(2).address)
    assert match([worker(1), worker(2)], need, now_ms=NOW_MS).best().worker.address == worker(2).address
    assert explain(match([worker(1), worker(2, jobs_running=2)], need, now_ms=NOW_MS)) == "0 of 1 worker: 1 busy"


def test_the_cheapest_of_a_workers_models_counts() -> None:
    dear = replace(MODEL, model_hash=b"\x22" * 32, output_token_wei=70)
    found = match([worker(1, capabilities=capabilities(dear, MODEL))], NEED, now_ms=NOW_MS)
    assert found.best().model == MODEL
    assert found.best().cost_max_wei == 26 * 3 + 100 * 7


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 50), st.integers(0, 3), st.integers(0, 9000))), st.integers()
)
def test_everybody_is_judged_once_and_order_does_not_matter(rows: list[tuple[int, ...]], seed: int) -> None:
    workers = [
        worker(n, replace(MODEL, output_token_wei=price), jobs_running=busy, reliability=Reliability(kept, 100))
        for n, (_, price, busy, kept) in enumerate(rows)
    ]
    found = match(workers, NEED, now_ms=NOW_MS)
    judged = {one.worker.address for one in found.candidates} | found.refusals.keys()
    assert judged == {one.address for one in workers}
    assert len(found.candidates) + len(found.refusals) == len(workers)
    assert all(0 <= one.score <= 1000 for one in found.candidates)
    random.Random(seed).shuffle(workers)
    assert match(workers, NEED, now_ms=NOW_MS) == found


def test_reliability_is_earned_and_fades() -> None:
    newcomer = Reliability()
    assert newcomer.permille == 500
    proven = newcomer
    for _ in range(60):
        proven = proven.after(kept=True)
    assert proven.permille > 950
    assert proven.after(kept=False, weight=10).permille < 800
    assert newcomer.after(kept=False).permille == 333
    for _ in range(10_000):
        proven = proven.after(kept=True)
    assert proven.kept_milli <= 50_000, "a tally cannot grow without bound"


def test_the_directory_remembers_what_it_is_told() -> None:
    directory = WorkerDirectory()
    address = b"\x01" * 20
    directory.heartbeat(address, jobs_running=1, now_ms=NOW_MS)
    assert len(directory) == 0, "a heartbeat makes no worker"
    directory.announce(address, capabilities(MODEL), stake_wei=5, now_ms=NOW_MS)
    directory.assigned(address)
    directory.outcome(address, kept=True)
    directory.stake(address, 7)
    known = directory.worker(address)
    assert known is not None
    assert (known.jobs_running, known.free_slots, known.stake_wei, known.reliability.permille) == (1, 1, 7, 666)
    directory.heartbeat(address, jobs_running=0, now_ms=NOW_MS + 1)
    directory.leave(address)
    assert [one.is_live(NOW_MS) for one in directory] == [False]
    again = directory.announce(address, capabilities(MODEL), stake_wei=5, now_ms=NOW_MS + 2)
    assert again.reliability == known.reliability
    assert again.is_live(NOW_MS)


def test_a_full_directory_gives_up_the_silent_only() -> None:
    directory = WorkerDirectory(workers_max=2)
    for number in (1, 2):
        directory.announce(bytes([number]) * 20, capabilities(MODEL), stake_wei=0, now_ms=NOW_MS + number)
    with pytest.raises(DirectoryFull):
        directory.announce(b"\x03" * 20, capabilities(MODEL), stake_wei=0, now_ms=NOW_MS + 10)
    directory.announce(b"\x03" * 20, capabilities(MODEL), stake_wei=0, now_ms=NOW_MS + SILENCE_MS_MAX + 2)
    assert [one.address[0] for one in directory] == [2, 3]


def test_capabilities_hash_ignores_order_and_nothing_else() -> None:
    dear = replace(MODEL, output_token_wei=8, model_hash=b"\x22" * 32)
    assert capabilities_hash([MODEL, dear]) == capabilities_hash([dear, MODEL])
    assert capabilities_hash([MODEL]) != capabilities_hash([replace(MODEL, input_token_wei=4)])


def test_costs() -> None:
    assert cost_wei(MODEL, 10, 20) == 170
    assert input_tokens_estimate(REQUEST) == 26
    assert cost_max_wei(MODEL, REQUEST) == 778


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
