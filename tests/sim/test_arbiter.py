"""Money and disputes: jobs of the exact tier, challenged with a bond, on the real contracts; who loses pays."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from core.jobs.receipt import Receipt, sign_receipt
from core.jobs.request import Tier
from core.memory_state import AccountContents
from market.contracts import (
    ARBITER,
    ARBITER_ADDRESS,
    ESCROW_ADDRESS,
    JOB_ESCROW,
    REGISTRY_ADDRESS,
    WORKER_REGISTRY,
    MarketParameters,
)
from market.contracts import predeploys as market_predeploys
from tests.unit.market.ledger import ETHER, Ledger, Reverted, address_of, key_of
from tests.unit.market.scene import DOMAIN, Order, binding_of, identity_of, receipt_for
from tests.unit.zk.arena import CHALLENGER, MOVE_SECONDS, WORKER, Arena, DisputeScene
from tests.unit.zk.cheats import CHEATS
from tests.unit.zk.scene import Claim
from worker.evm.native_executor import NativeExecutor
from worker.inference.exact.sampling import Sampling
from worker.inference.exact.specification import exp2_table, sigmoid_table
from zk.contracts import DISPUTE, DISPUTE_ADDRESS, STEPS, STEPS_ADDRESS
from zk.contracts import predeploys as dispute_predeploys
from zk.dispute import Seat, Terms, Turn

ANSWER_TOKENS = 4
BOND_WEI = ETHER // 10
PRICE_MAX_WEI = 10**16
STAKE_WEI = 2 * ETHER
PENALTY_WEI = 10 * PRICE_MAX_WEI
CLIENT, COLLUDING, JUDGE = address_of("client"), address_of("colluding"), address_of("judge")
PARAMETERS = MarketParameters(
    judge=JUDGE,
    stake_min_wei=ETHER,
    challenge_seconds=60,
    exact_challenge_seconds=3600,
    settlement_seconds=600,
    unbonding_seconds=7200,
    bond_wei=BOND_WEI,
)
ARTIFACTS = {
    REGISTRY_ADDRESS: WORKER_REGISTRY,
    ESCROW_ADDRESS: JOB_ESCROW,
    ARBITER_ADDRESS: ARBITER,
    DISPUTE_ADDRESS: DISPUTE,
    STEPS_ADDRESS: STEPS,
}


@dataclass(frozen=True)
class Settled:
    """A job whose receipt was accepted."""

    job_id: bytes
    receipt: Receipt
    terms: Terms


class Market:
    """A chain with every contract, a bonded worker, and jobs that it answers as a claim says."""

    def __init__(self, scene: DisputeScene) -> None:
        predeploys = market_predeploys(PARAMETERS)
        predeploys |= dispute_predeploys(exp2_table().tolist(), sigmoid_table().tolist(), MOVE_SECONDS)
        accounts = {at: AccountContents(1, one.balance_wei, one.code, one.storage) for at, one in predeploys.items()}
        accounts |= {one: AccountContents(balance=1000 * ETHER) for one in (CLIENT, WORKER, CHALLENGER, COLLUDING)}
        self.scene = scene
        self.ledger = Ledger(NativeExecutor(), accounts, ARTIFACTS)
        identity = (identity_of("worker"), binding_of("worker", "worker signer"))
        self.ledger.send(WORKER, REGISTRY_ADDRESS, "register", *identity, value=STAKE_WEI)
        self._nonce = 0

    def settle(self, claim: Claim, tier: Tier = Tier.EXACT) -> Settled:
        """Open a job for a claim's order and settle it with the receipt that its worker signs."""
        self._nonce += 1
        terms = self.scene.terms(claim.statement, claim)
        hashes = {"model_hash": terms.model_hash, "request_hash": terms.request_hash}
        times = {"deadline": self.ledger.now + 100, "nonce": self._nonce}
        order = Order(tier=tier, price_max_wei=PRICE_MAX_WEI, **times, **hashes)  # type: ignore[arg-type]
        sent = self.ledger.send(CLIENT, ESCROW_ADDRESS, "open", order.solidity(), value=PRICE_MAX_WEI)
        made = {
            "tier": tier,
            "trace_root": terms.trace_root if tier == Tier.EXACT else bytes(32),
            "input_tokens": terms.prompt_tokens,
            "output_tokens": terms.answer_tokens,
            "total_wei": 3 * terms.prompt_tokens + 7 * terms.answer_tokens,
        }
        milliseconds = {"started_at_ms": 1000 * self.ledger.now, "finished_at_ms": 1000 * self.ledger.now + 5}
        receipt = receipt_for(sent.result, **hashes, **made, **milliseconds)  # type: ignore[arg-type]
        signature = sign_receipt(receipt, DOMAIN, key_of("worker signer"))
        coordinator = address_of("coordinator")
        self.ledger.send(coordinator, ESCROW_ADDRESS, "settle", [receipt.solidity()], [signature])
        return Settled(sent.result, receipt, replace(terms, nonce=int.from_bytes(sent.result, "big")))

    def challenge(self, terms: Terms, receipt: Receipt, bond_wei: int = BOND_WEI, sender: bytes = b"") -> Arena:
        """Put up the bond; the game that it opens."""
        arguments = (terms.solidity(), receipt.solidity())
        sender = sender or terms.challenger
        sent = self.ledger.send(sender, ARBITER_ADDRESS, "challenge", *arguments, value=bond_wei)
        assert sent.event("Challenged").arguments["worker"] == WORKER
        return Arena(terms, self.ledger)

    def resolve(self, terms: Terms) -> None:
        self.ledger.send(address_of("anyone"), ARBITER_ADDRESS, "resolve", terms.solidity())

    def play(self, arena: Arena, claim: Claim, truth: Claim) -> None:
        """To the end; whoever cannot move runs out of time."""
        terms = arena.terms
        seats = [
            Seat(arena, terms, self.scene.worker(claim)),
            Seat(arena, terms, self.scene.challenger(truth, terms)),
        ]
        try:
            while arena.turn() != Turn.OVER:
                for seat in seats:
                    seat.act()
        except Reverted:
            arena.time_out(terms.challenger if arena.turn() != Turn.PICKS else terms.worker)

    def status(self, job_id: bytes) -> str:
        number = self.ledger.read(ESCROW_ADDRESS, "jobOf", job_id)[3]
        return ("unknown", "funded", "settling", "paid", "refunded", "expired", "rejected")[number]

    def credit(self, owner: bytes, contract: bytes = ESCROW_ADDRESS) -> int:
        return self.ledger.variable(contract, "creditWei", owner)

    def stake(self) -> int:
        return int(self.ledger.read(REGISTRY_ADDRESS, "workerOf", WORKER)[0])

    def release(self, job_id: bytes) -> None:
        self.ledger.send(address_of("anyone"), ESCROW_ADDRESS, "release", [job_id])

    def refuses(
        self, error: str, function: str, *arguments: object, sender: bytes = CHALLENGER, value: int = 0
    ) -> None:
        with pytest.raises(Reverted) as caught:
            self.ledger.send(sender, ARBITER_ADDRESS, function, *arguments, value=value)
        if error:
            assert caught.value.name == error


@pytest.fixture(scope="module")
def scene() -> Iterator[DisputeScene]:
    one = DisputeScene(21)
    yield one
    one.close()


@pytest.fixture
def market(scene: DisputeScene) -> Market:
    return Market(scene)


@pytest.fixture(scope="module")
def truth(scene: DisputeScene) -> Claim:
    return scene.answer(scene.order(scene.prompt(5), Sampling(temperature_q16=60_000, top_k=9, seed=3)), ANSWER_TOKENS)


@pytest.fixture(scope="module")
def lie(scene: DisputeScene, truth: Claim) -> Claim:
    order = replace(truth.statement, answer=(0,))
    return CHEATS["stale_cache"](scene, order, ANSWER_TOKENS, scene.generator)


def test_a_cheat_loses_its_stake_and_the_client_is_refunded(market: Market, truth: Claim, lie: Claim) -> None:
    job = market.settle(lie)
    arena = market.challenge(job.terms, job.receipt)
    assert market.status(job.job_id) == "settling"
    market.play(arena, lie, truth)
    market.resolve(job.terms)
    assert market.status(job.job_id) == "rejected"
    assert market.credit(CLIENT) == PRICE_MAX_WEI
    assert market.credit(WORKER) == 0
    assert market.stake() == STAKE_WEI - PENALTY_WEI
    assert market.credit(CHALLENGER, REGISTRY_ADDRESS) == PENALTY_WEI // 2
    assert market.ledger.variable(REGISTRY_ADDRESS, "burnedWei") == PENALTY_WEI // 2
    assert market.credit(CHALLENGER, ARBITER_ADDRESS) == BOND_WEI
    assert market.ledger.variable(REGISTRY_ADDRESS, "holdsOf", WORKER) == 0
    market.refuses("GameUnknown", "resolve", job.terms.solidity())  # once only


def test_a_wrong_challenge_costs_the_bond_and_the_worker_is_paid(market: Market, truth: Claim) -> None:
    job = market.settle(truth)
    arena = market.challenge(job.terms, job.receipt)
    market.ledger.now += PARAMETERS.exact_challenge_seconds - 60
    market.refuses("GameNotOver", "resolve", job.terms.solidity())
    market.play(arena, truth, truth)
    market.ledger.now += 120
    market.release(job.job_id)
    assert market.status(job.job_id) == "settling", "nothing is paid while a dispute is open"
    market.resolve(job.terms)
    assert market.status(job.job_id) == "paid"
    assert market.credit(WORKER) == job.receipt.total_wei
    assert market.credit(WORKER, ARBITER_ADDRESS) == BOND_WEI // 2
    assert market.ledger.variable(ARBITER_ADDRESS, "burnedWei") == BOND_WEI // 2
    assert market.credit(CHALLENGER, ARBITER_ADDRESS) == 0
    assert market.stake() == STAKE_WEI


def test_a_silent_worker_loses(market: Market, truth: Claim, lie: Claim) -> None:
    job = market.settle(lie)
    arena = market.challenge(job.terms, job.receipt)
    arena.time_out(CHALLENGER)
    market.resolve(job.terms)
    assert (market.status(job.job_id), market.stake()) == ("rejected", STAKE_WEI - PENALTY_WEI)


def test_a_worker_cannot_leave_a_dispute(market: Market, truth: Claim) -> None:
    job = market.settle(truth)
    arena = market.challenge(job.terms, job.receipt)
    market.ledger.send(WORKER, REGISTRY_ADDRESS, "beginUnbonding")
    market.play(arena, truth, truth)
    market.ledger.now += PARAMETERS.unbonding_seconds
    with pytest.raises(Reverted) as caught:
        market.ledger.send(WORKER, REGISTRY_ADDRESS, "finishUnbonding")
    assert caught.value.name == "StillHeld"
    market.resolve(job.terms)
    market.ledger.send(WORKER, REGISTRY_ADDRESS, "finishUnbonding")
    assert market.credit(WORKER, REGISTRY_ADDRESS) == STAKE_WEI


def test_a_friend_that_loses_on_purpose_protects_nobody(market: Market, truth: Claim, lie: Claim) -> None:
    job = market.settle(lie)
    friendly = replace(job.terms, challenger=COLLUDING)
    friend, honest = market.challenge(friendly, job.receipt), market.challenge(job.terms, job.receipt)
    friend.move(WORKER, "state", friendly.solidity(), *market.scene.worker(lie).statement())
    friend.move(WORKER, "reveal", friendly.solidity(), market.scene.worker(lie).nodes())
    market.play(honest, lie, truth)
    friend.time_out(WORKER)
    market.resolve(friendly)
    assert market.status(job.job_id) == "settling"
    market.resolve(job.terms)
    assert (market.status(job.job_id), market.stake()) == ("rejected", STAKE_WEI - PENALTY_WEI)
    assert market.credit(COLLUDING, ARBITER_ADDRESS) == 0


def test_the_second_finder_gets_its_bond_back(market: Market, truth: Claim, lie: Claim) -> None:
    job = market.settle(lie)
    second = replace(job.terms, challenger=COLLUDING)
    games = [market.challenge(terms, job.receipt) for terms in (job.terms, second)]
    for arena in games:
        arena.time_out(arena.terms.challenger) if arena is games[0] else arena.move(
            COLLUDING, "timeout", second.solidity()
        )
        market.resolve(arena.terms)
    assert market.credit(COLLUDING, ARBITER_ADDRESS) == market.credit(CHALLENGER, ARBITER_ADDRESS) == BOND_WEI
    assert market.stake() == STAKE_WEI - PENALTY_WEI, "a wrong answer is punished once"
    assert market.ledger.variable(REGISTRY_ADDRESS, "holdsOf", WORKER) == 0


def test_only_what_was_ordered_can_be_challenged(market: Market, truth: Claim) -> None:
    job = market.settle(truth)
    receipt = job.receipt.solidity()
    for change in (
        {"trace_root": bytes(32)},
        {"model_root": b"\x01" * 32},
        {"program_tree": b"\x01" * 32},
        {"text_hash": b"\x01" * 32},
        {"prompt_hash": b"\x01" * 32},
        {"sampling": (0, 0, 65_536, 0, 0)},
        {"prompt_tokens": job.terms.prompt_tokens + 1},
        {"answer_tokens": job.terms.answer_tokens + 1},
        {"answer_tokens_max": 1},
        {"ends_by_text": not job.terms.ends_by_text},
        {"layers": job.terms.layers + 1},
        {"worker": CLIENT},
        {"nonce": 1},
    ):
        terms = replace(job.terms, **change).solidity()  # type: ignore[arg-type]
        market.refuses("TermsNotOrdered", "challenge", terms, receipt, value=BOND_WEI)
    terms = job.terms.solidity()
    market.refuses("NotChallenger", "challenge", terms, receipt, value=BOND_WEI, sender=CLIENT)
    market.refuses("CreditTooSmall", "challenge", terms, receipt, value=BOND_WEI - 1)
    other = replace(job.receipt, finished_at_ms=job.receipt.finished_at_ms + 1).solidity()
    market.refuses("ReceiptNotAccepted", "challenge", terms, other, value=BOND_WEI)
    market.challenge(job.terms, job.receipt)
    market.refuses("", "challenge", terms, receipt, value=BOND_WEI)  # the same game again
    late = replace(job.terms, challenger=COLLUDING).solidity()
    market.ledger.now += PARAMETERS.exact_challenge_seconds
    market.refuses("", "challenge", late, receipt, value=BOND_WEI, sender=COLLUDING)
    assert market.credit(COLLUDING, ARBITER_ADDRESS) == 0


def test_a_game_without_a_bond_decides_nothing(market: Market, truth: Claim) -> None:
    job = market.settle(truth)
    arena = Arena(job.terms, market.ledger)
    arena.move(CHALLENGER, "open", job.terms.solidity())
    arena.time_out(CHALLENGER)
    market.refuses("GameUnknown", "resolve", job.terms.solidity())
    market.refuses("", "challenge", job.terms.solidity(), job.receipt.solidity(), value=BOND_WEI)
    market.ledger.now += PARAMETERS.exact_challenge_seconds
    market.release(job.job_id)
    assert market.status(job.job_id) == "paid"


def test_the_judge_rejects_float_answers_only(market: Market, truth: Claim) -> None:
    evidence, finder = b"\x0e" * 32, address_of("finder")
    exact, floating = market.settle(truth), market.settle(truth, Tier.FLOAT)
    market.refuses("NotJudge", "reject", floating.job_id, evidence, finder)
    market.refuses("NotFloatTier", "reject", exact.job_id, evidence, finder, sender=JUDGE)
    market.ledger.send(JUDGE, ARBITER_ADDRESS, "reject", floating.job_id, evidence, finder)
    assert (market.status(floating.job_id), market.status(exact.job_id)) == ("rejected", "settling")
    terms = floating.terms.solidity()
    market.refuses("ReceiptNotAccepted", "challenge", terms, floating.receipt.solidity(), value=BOND_WEI)
