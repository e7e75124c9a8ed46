"""Whatever happens in whatever order, no wei appears or disappears."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from market.batches import Batch
from market.contracts import ESCROW_ADDRESS, REGISTRY_ADDRESS
from tests.unit.market.ledger import ETHER, Reverted, address_of
from tests.unit.market.scene import ACCOUNTS, FUNDED_WEI, PARAMETERS, Scene, receipt_for

WORKERS = ("worker", "second worker")
CLIENTS = ("client", "other client")
STATUSES_HELD = ("funded", "settling", "demanded")
SETTLEMENT_OUTCOMES = (
    "none",
    "JobNotFunded",
    "SettlementClosed",
    "TimesInvalid",
    "PriceAboveMaximum",
    "WorkerNotBonded",
)
SHOWING_OUTCOMES = ("none", "TimesInvalid", "NotInBatch", "ChallengeClosed", "RootMismatch", "ProofInvalid")


class Market(RuleBasedStateMachine):
    """Clients, workers, coordinator, arbiter and clock act at random; most actions are refused, some are not."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene()
        self.jobs: dict[bytes, int] = {}
        self.ended: set[bytes] = set()
        self.batches: list[Batch] = []
        self.withdrawn: dict[str, int] = dict.fromkeys(ACCOUNTS, 0)
        self.deposited_wei = 0

    def attempt(self, sender: str, function: str, *arguments: object) -> bool:
        refusal: str | None = "none"
        try:
            self.scene.escrow(sender, function, *arguments)
        except Reverted as refused:
            refusal = refused.name
        assert refusal is not None, "every refusal has a name"
        return refusal == "none"

    def pick(self, data: st.DataObject) -> bytes:
        return data.draw(st.sampled_from(sorted(self.jobs)))

    @rule(client=st.sampled_from(CLIENTS), price=st.integers(0, ETHER), lifetime=st.integers(1, 900))
    def open_job(self, client: str, price: int, lifetime: int) -> None:
        deadline = self.scene.ledger.now + lifetime
        job = self.scene.open(client, nonce=len(self.jobs), price_max_wei=price, deadline=deadline)
        self.jobs[job] = price
        self.deposited_wei += price

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), worker=st.sampled_from(WORKERS), tokens=st.integers(0, 10_000), price=st.integers(0, 2**45))
    def settle(self, data: st.DataObject, worker: str, tokens: int, price: int) -> None:
        job, now_ms = self.pick(data), self.scene.ledger.now * 1000
        usage = {"output_tokens": tokens, "output_token_wei": price, "input_token_wei": 0, "total_wei": tokens * price}
        times = {"started_at_ms": now_ms, "finished_at_ms": now_ms}
        refusal: str | None = "none"
        try:
            self.scene.settle(receipt_for(job, worker, **usage, **times), signer=worker + " signer")
        except Reverted as refused:
            refusal = refused.name
        assert refusal in SETTLEMENT_OUTCOMES

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), workers=st.lists(st.sampled_from(WORKERS), min_size=1, max_size=4))
    def settle_batch(self, data: st.DataObject, workers: list[str]) -> None:
        now_ms = self.scene.ledger.now * 1000
        times = {"started_at_ms": now_ms, "finished_at_ms": now_ms}
        jobs = dict.fromkeys(self.pick(data) for _ in workers)
        receipts = [receipt_for(job, worker, **times) for job, worker in zip(jobs, workers, strict=False)]
        refusal: str | None = "none"
        try:
            self.batches.append(self.scene.settle_batch(*receipts)[0])
        except Reverted as refused:
            refusal = refused.name
        assert refusal in SETTLEMENT_OUTCOMES

    @precondition(lambda self: self.batches)
    @rule(
        data=st.data(),
        function=st.sampled_from(("show", "demand", "hold", "unhold")),
        sender=st.sampled_from((*CLIENTS, "arbiter")),
    )
    def single_out(self, data: st.DataObject, function: str, sender: str) -> None:
        batch = data.draw(st.sampled_from(self.batches))
        receipt = data.draw(st.sampled_from(batch.receipts))
        if function != "show":
            self.attempt(sender, function, receipt.job_id)
            return
        worker = next(name for name in WORKERS if address_of(name) == receipt.worker)
        refusal: str | None = "none"
        try:
            self.scene.show(batch, receipt, signer=worker + " signer")
        except Reverted as refused:
            refusal = refused.name
        assert refusal in SHOWING_OUTCOMES

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), names=st.lists(st.sampled_from(ACCOUNTS)))
    def collect(self, data: st.DataObject, names: list[str]) -> None:
        number = data.draw(st.integers(0, self.scene.ledger.variable(ESCROW_ADDRESS, "batchCount")))
        self.attempt("finder", "collect", number, [address_of(name) for name in names])

    @precondition(lambda self: self.jobs)
    @rule(
        data=st.data(),
        function=st.sampled_from(("expire", "refund")),
        sender=st.sampled_from(("coordinator", "client")),
    )
    def end(self, data: st.DataObject, function: str, sender: str) -> None:
        self.attempt(sender, function, self.pick(data))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.attempt("finder", "release", [self.pick(data), self.pick(data)])

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        self.attempt("arbiter", "reject", self.pick(data), bytes(32), address_of("finder"))

    @rule(name=st.sampled_from(ACCOUNTS), amount=st.integers(1, ETHER))
    def withdraw(self, name: str, amount: int) -> None:
        wanted = min(amount, self.scene.credit(name)) or amount
        if self.attempt(name, "withdraw", address_of(name), wanted):
            self.withdrawn[name] += wanted

    @rule(seconds=st.integers(1, 700))
    def wait(self, seconds: int) -> None:
        self.scene.ledger.now += seconds

    @invariant()
    def what_went_in_is_held_or_owed_or_gone(self) -> None:
        for job in self.jobs.keys() - self.ended:
            if self.scene.status(job) not in STATUSES_HELD:
                self.ended.add(job)
        held = sum(price for job, price in self.jobs.items() if job not in self.ended)
        owed = sum(self.scene.credit(name) for name in ACCOUNTS) + self.uncollected()
        assert self.deposited_wei == held + owed + sum(self.withdrawn.values())
        assert self.scene.ledger.balance(ESCROW_ADDRESS) == held + owed

    def uncollected(self) -> int:
        """What is to be collected from batches that are due; of the others it belongs to jobs that are held."""
        read, now = self.scene.ledger.read, self.scene.ledger.now
        numbers = range(self.scene.ledger.variable(ESCROW_ADDRESS, "batchCount"))
        due = [number for number in numbers if 0 < read(ESCROW_ADDRESS, "batches", number)[3] <= now]
        return sum(read(ESCROW_ADDRESS, "shares", number, address_of(name))[0] for number in due for name in ACCOUNTS)

    @invariant()
    def stakes_are_bonded_owed_or_burned(self) -> None:
        staked = sum(self.scene.ledger.read(REGISTRY_ADDRESS, "workerOf", address_of(name))[0] for name in WORKERS)
        owed = self.scene.credit("finder", REGISTRY_ADDRESS)
        burned = self.scene.ledger.variable(REGISTRY_ADDRESS, "burnedWei")
        assert self.scene.ledger.balance(REGISTRY_ADDRESS) == staked + owed + burned == 4 * ETHER

    @invariant()
    def nobody_has_more_than_there_is(self) -> None:
        balance = self.scene.ledger.balance
        total = sum(balance(address_of(name)) for name in ACCOUNTS)
        contracts = balance(ESCROW_ADDRESS) + balance(REGISTRY_ADDRESS)
        assert total + contracts == len(ACCOUNTS) * FUNDED_WEI


assert PARAMETERS.challenge_seconds < 700, "the clock's steps must be able to end a challenge"
TestMarket = Market.TestCase
TestMarket.settings = settings(max_examples=4, stateful_step_count=20, deadline=None, derandomize=True)


@pytest.mark.soak
def test_market_for_minutes() -> None:
    long = settings(max_examples=30, stateful_step_count=50, deadline=None, print_blob=True)
    run_state_machine_as_test(Market, settings=long)  # type: ignore[no-untyped-call]
