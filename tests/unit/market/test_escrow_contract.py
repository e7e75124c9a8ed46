"""JobEscrow: every way through a job's life, and every way that is barred."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from core.contract import load_artifact
from core.jobs.receipt import ReceiptDomain, sign_receipt
from core.jobs.request import Tier
from core.native import SOURCE_ROOT
from market.contracts import ESCROW_ADDRESS, REGISTRY_ADDRESS, SETTLE_RECEIPTS_MAX
from market.receipt_tree import leaf_of, root_of
from tests.unit.market.ledger import CHAIN_ID, ETHER, GAS_LIMIT, GENESIS_TIME, Reverted, address_of, key_of
from tests.unit.market.scene import (
    ATTACKER_ADDRESS,
    DOMAIN,
    FUNDED_WEI,
    PARAMETERS,
    Order,
    Scene,
    binding_of,
    identity_of,
    receipt_for,
)

DAY = 86_400


@pytest.fixture
def scene() -> Scene:
    return Scene()


def refusal(action: Callable[[], object]) -> str | None:
    with pytest.raises(Reverted) as refused:
        action()
    return refused.value.name


def test_the_receipt_hashes_alike_on_both_sides(scene: Scene) -> None:
    assert scene.ledger.read(ESCROW_ADDRESS, "domainSeparator") == DOMAIN.separator()
    jobs = [scene.open(nonce=nonce) for nonce in range(5)]
    receipts = [receipt_for(job) for job in jobs]
    committed = scene.settle(*receipts).event("BatchCommitted")
    assert committed.arguments["root"] == root_of([leaf_of(receipt.digest(DOMAIN)) for receipt in receipts])
    assert committed.arguments["size"] == 5


def test_a_job_pays_its_usage_and_returns_the_rest(scene: Scene) -> None:
    job = scene.open()
    assert scene.status(job) == "funded"
    assert job == scene.ledger.read(ESCROW_ADDRESS, "jobIdOf", address_of("client"), 1)
    receipt = receipt_for(job)
    accepted = scene.settle(receipt).event("ReceiptAccepted").arguments
    assert (accepted["jobId"], accepted["worker"], accepted["batchId"]) == (job, address_of("worker"), 0)
    assert accepted["receipt"] == receipt.solidity(), "the chain alone is enough to verify"
    assert accepted["signature"] == sign_receipt(receipt, DOMAIN, key_of("worker signer"))
    assert accepted["releaseAt"] == scene.ledger.now + PARAMETERS.challenge_seconds

    scene.ledger.now += PARAMETERS.challenge_seconds - 1
    assert scene.escrow("finder", "release", [job]).result == 0
    assert scene.status(job) == "settling"
    scene.ledger.now += 1
    released = scene.escrow("finder", "release", [job, job])
    assert released.result == 1
    paid = released.event("JobPaid").arguments
    assert (paid["paidWei"], paid["refundedWei"]) == (170, 10_000 - 170)
    assert (scene.credit("worker"), scene.credit("client")) == (170, 9_830)

    scene.escrow("worker", "withdraw", address_of("finder"), 170)
    assert scene.ledger.balance(address_of("finder")) == FUNDED_WEI + 170
    assert scene.ledger.balance(ESCROW_ADDRESS) == 9_830


def test_credit_funds_the_next_job(scene: Scene) -> None:
    job = scene.open()
    scene.escrow("coordinator", "refund", job)
    order = Order(nonce=2, price_max_wei=12_000)
    missing = refusal(lambda: scene.escrow("client", "open", order.solidity(), value=1_999))
    assert missing == "CreditTooSmall"
    scene.escrow("client", "open", order.solidity(), value=2_001)
    assert scene.credit("client") == 1


def test_without_a_challenge_window_payment_is_at_once() -> None:
    scene = Scene(replace(PARAMETERS, challenge_seconds=0))
    job = scene.open()
    assert scene.settle(receipt_for(job)).event("JobPaid").arguments["paidWei"] == 170
    assert scene.status(job) == "paid"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            {"total_wei": 10_001, "input_token_wei": 0, "output_tokens": 1, "output_token_wei": 10_001},
            "PriceAboveMaximum",
        ),
        ({"model_hash": b"\1" * 32}, "WrongModel"),
        ({"request_hash": b"\1" * 32}, "WrongRequest"),
        ({"tier": Tier.EXACT, "trace_root": b"\1" * 32}, "WrongTier"),
        ({"finished_at_ms": (GENESIS_TIME + 100) * 1000 + 1}, "TimesInvalid"),
        ({"job_id": b"\1" * 32}, "JobNotFunded"),
        ({"worker": address_of("second worker")}, "SignatureInvalid"),
        ({"worker": address_of("client")}, "SignatureInvalid"),
    ],
)
def test_a_receipt_that_does_not_fit_its_order_is_refused(scene: Scene, change: dict[str, object], error: str) -> None:
    receipt = replace(receipt_for(scene.open()), **change)  # type: ignore[arg-type]
    assert refusal(lambda: scene.settle(receipt)) == error


def test_the_contract_checks_what_python_would_not_even_build(scene: Scene) -> None:
    job = scene.open()
    exact = scene.open(tier=Tier.EXACT, nonce=2)
    good = list(receipt_for(job).solidity())

    def settle(changes: dict[int, object]) -> object:
        fields = tuple(changes.get(place, value) for place, value in enumerate(good))
        return scene.escrow("coordinator", "settle", [fields], [bytes(65)])

    assert refusal(lambda: settle({13: 169})) == "TotalWrong"
    assert refusal(lambda: settle({7: 2**32 - 1, 8: 2**32 - 1, 11: 2**128 - 1, 12: 2**128 - 1})) == "TotalWrong"
    assert refusal(lambda: settle({6: b"\1" * 32})) == "TraceTierMismatch"
    assert refusal(lambda: settle({0: exact, 2: 1})) == "TraceTierMismatch"
    assert refusal(lambda: settle({9: 2**64 - 1})) == "TimesInvalid"
    assert refusal(lambda: settle({})) == "SignatureInvalid"
    assert refusal(lambda: scene.escrow("coordinator", "settle", [tuple(good)], [])) == "SignatureCountWrong"
    assert refusal(lambda: scene.escrow("coordinator", "settle", [], [])) == "BatchSizeInvalid"
    many = [tuple(good)] * (SETTLE_RECEIPTS_MAX + 1)
    assert refusal(lambda: scene.escrow("coordinator", "settle", many, [b""] * len(many))) == "BatchSizeInvalid"


def test_a_signature_counts_once_here_and_nowhere_else(scene: Scene) -> None:
    job = scene.open()
    receipt = receipt_for(job)
    for domain in (ReceiptDomain(CHAIN_ID + 1, ESCROW_ADDRESS), ReceiptDomain(CHAIN_ID, REGISTRY_ADDRESS)):
        foreign = sign_receipt(receipt, domain, key_of("worker signer"))
        send = lambda signature=foreign: scene.escrow("coordinator", "settle", [receipt.solidity()], [signature])  # noqa: E731
        assert refusal(send) == "SignatureInvalid"
    signature = sign_receipt(receipt, DOMAIN, key_of("worker signer"))
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    upper_half = (order - int.from_bytes(signature[32:64], "big")).to_bytes(32, "big")
    mirrored = signature[:32] + upper_half + bytes([55 - signature[64]])
    assert (
        refusal(lambda: scene.escrow("coordinator", "settle", [receipt.solidity()], [mirrored])) == "SignatureInvalid"
    )
    assert refusal(lambda: scene.settle(receipt, receipt)) == "JobNotFunded", "twice in one batch"
    scene.settle(receipt)
    assert refusal(lambda: scene.settle(receipt)) == "JobNotFunded", "twice in two batches"
    scene.ledger.now += PARAMETERS.challenge_seconds
    scene.escrow("client", "release", [job])
    assert refusal(lambda: scene.settle(receipt)) == "JobNotFunded", "after payment"
    assert scene.escrow("client", "release", [job]).result == 0


def test_a_full_settlement_fits_into_a_transaction(scene: Scene) -> None:
    """Measured on a few: what a receipt costs beyond the first, times the most that there can be."""
    first = scene.settle(receipt_for(scene.open(nonce=1))).gas_used
    five = scene.settle(*[receipt_for(scene.open(nonce=nonce)) for nonce in range(2, 7)]).gas_used
    assert scene.ledger.read(ESCROW_ADDRESS, "SETTLE_RECEIPTS_MAX") == SETTLE_RECEIPTS_MAX
    assert first + (five - first) // 4 * (SETTLE_RECEIPTS_MAX - 1) < GAS_LIMIT


def test_one_bad_receipt_undoes_the_whole_batch(scene: Scene) -> None:
    jobs = [scene.open(nonce=nonce) for nonce in range(3)]
    receipts = [receipt_for(job) for job in jobs[:2]] + [receipt_for(jobs[2], model_hash=b"\1" * 32)]
    with pytest.raises(Reverted) as refused:
        scene.settle(*receipts)
    assert refused.value.error is not None
    assert refused.value.error.arguments["jobId"] == jobs[2], "the error says which to drop"
    assert [scene.status(job) for job in jobs] == ["funded"] * 3
    assert scene.ledger.read(ESCROW_ADDRESS, "batchCount") == 0


def test_only_the_ordered_worker_may_answer(scene: Scene) -> None:
    job = scene.open(worker=address_of("second worker"))
    assert refusal(lambda: scene.settle(receipt_for(job))) == "WrongWorker"
    scene.settle(receipt_for(job, "second worker"), signer="second worker signer")
    assert scene.status(job) == "settling"


def test_only_the_chosen_coordinator_may_settle_or_give_up(scene: Scene) -> None:
    job = scene.open()
    assert refusal(lambda: scene.settle(receipt_for(job), sender="worker")) == "NotCoordinator"
    assert refusal(lambda: scene.escrow("client", "refund", job)) == "NotCoordinator"
    direct = scene.open(coordinator=address_of("client"), nonce=2)
    scene.settle(receipt_for(direct), sender="client")
    scene.escrow("coordinator", "refund", job)
    assert (scene.status(job), scene.credit("client")) == ("refunded", 10_000)
    assert refusal(lambda: scene.escrow("coordinator", "refund", job)) == "JobNotFunded"
    assert refusal(lambda: scene.settle(receipt_for(job))) == "JobNotFunded"


def test_stake_must_stand_behind_a_receipt_until_its_payment(scene: Scene) -> None:
    job = scene.open(deadline=GENESIS_TIME + 2 * DAY)
    receipt = receipt_for(job)
    scene.registry("worker", "beginUnbonding")
    scene.ledger.now += PARAMETERS.unbonding_seconds - PARAMETERS.challenge_seconds + 1
    assert refusal(lambda: scene.settle(receipt)) == "WorkerNotBonded"
    scene.registry("worker", "cancelUnbonding")
    scene.registry("arbiter", "slash", address_of("worker"), 2 * ETHER, address_of("finder"))
    assert refusal(lambda: scene.settle(receipt)) == "WorkerNotBonded"
    scene.registry("worker", "addStake", address_of("worker"), value=ETHER)
    scene.settle(receipt)
    assert scene.status(job) == "settling"


def test_a_former_key_no_longer_signs(scene: Scene) -> None:
    job = scene.open()
    scene.registry("worker", "changeIdentity", identity_of("client"), binding_of("worker", "client signer"))
    assert refusal(lambda: scene.settle(receipt_for(job))) == "SignatureInvalid"
    scene.settle(receipt_for(job), signer="client signer")


def test_a_job_that_nobody_settles_expires(scene: Scene) -> None:
    job = scene.open()
    scene.ledger.now = GENESIS_TIME + 100 + PARAMETERS.settlement_seconds
    assert refusal(lambda: scene.escrow("client", "expire", job)) == "NotYetExpired"
    other = scene.open("other client", deadline=scene.ledger.now + 1)
    scene.ledger.now += 1
    assert refusal(lambda: scene.settle(receipt_for(job))) == "SettlementClosed"
    scene.escrow("finder", "expire", job)
    assert (scene.status(job), scene.credit("client")) == ("expired", 10_000)
    assert refusal(lambda: scene.escrow("finder", "expire", job)) == "JobNotFunded"
    assert scene.status(other) == "funded"


def test_the_last_second_still_settles_and_then_nothing_expires(scene: Scene) -> None:
    job = scene.open()
    scene.ledger.now = GENESIS_TIME + 100 + PARAMETERS.settlement_seconds
    scene.settle(receipt_for(job))
    scene.ledger.now += 1
    assert refusal(lambda: scene.escrow("client", "expire", job)) == "JobNotFunded"


def test_a_rejected_receipt_refunds_the_client_and_costs_the_worker(scene: Scene) -> None:
    job = scene.open(price_max_wei=ETHER // 10)
    evidence, finder = b"\x66" * 32, address_of("finder")
    assert refusal(lambda: scene.escrow("arbiter", "reject", job, evidence, finder)) == "JobNotSettling"
    scene.settle(receipt_for(job))
    assert refusal(lambda: scene.escrow("client", "reject", job, evidence, finder)) == "NotArbiter"
    rejected = scene.escrow("arbiter", "reject", job, evidence, finder).event("JobRejected").arguments
    assert rejected["slashedWei"] == ETHER, "ten times the maximum price"
    assert (scene.status(job), scene.credit("client"), scene.credit("worker")) == ("rejected", ETHER // 10, 0)
    assert scene.credit("finder", REGISTRY_ADDRESS) == ETHER // 2
    scene.ledger.now += PARAMETERS.challenge_seconds
    assert scene.escrow("worker", "release", [job]).result == 0


def test_a_challenge_comes_in_time_or_not_at_all(scene: Scene) -> None:
    job = scene.open()
    scene.settle(receipt_for(job))
    scene.ledger.now += PARAMETERS.challenge_seconds
    late = refusal(lambda: scene.escrow("arbiter", "reject", job, bytes(32), address_of("finder")))
    assert late == "ChallengeClosed"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"coordinator": bytes(20)}, "CoordinatorMissing"),
        ({"tier": 2}, "TierUnknown"),
        ({"deadline": GENESIS_TIME}, "DeadlineInvalid"),
        ({"deadline": GENESIS_TIME + 30 * DAY + 1}, "DeadlineInvalid"),
        ({"deadline": 2**64 - 1}, "DeadlineInvalid"),
    ],
)
def test_an_order_that_cannot_be_served_is_refused(scene: Scene, change: dict[str, object], error: str) -> None:
    assert refusal(lambda: scene.open(**change)) == error


def test_an_id_is_used_once_even_after_its_job_ended(scene: Scene) -> None:
    job = scene.open()
    assert refusal(lambda: scene.open()) == "JobExists"
    scene.escrow("coordinator", "refund", job)
    assert refusal(lambda: scene.open()) == "JobExists"
    assert scene.open("other client") != job


def test_reentering_a_withdrawal_gains_nothing() -> None:
    attacker = ATTACKER_ADDRESS
    folder = SOURCE_ROOT / "tests/unit/market/contracts/artifacts"
    scene = Scene(attacker=load_artifact(folder / "ReentrantPayee.json"))
    order = Order(price_max_wei=5_000)
    scene.open("other client", price_max_wei=7_000)
    scene.ledger.send(address_of("client"), attacker, "deposit", ESCROW_ADDRESS, order.solidity(), value=5_000)
    job = scene.ledger.read(ESCROW_ADDRESS, "jobIdOf", attacker, order.nonce)
    scene.escrow("coordinator", "refund", job)
    scene.ledger.send(address_of("client"), attacker, "attack", 5_000)
    assert scene.ledger.read(attacker, "attempts") == 1
    assert scene.ledger.balance(attacker) == 5_000
    assert scene.ledger.balance(ESCROW_ADDRESS) == 7_000


def test_a_payee_that_refuses_keeps_its_credit(scene: Scene) -> None:
    scene.escrow("coordinator", "refund", scene.open())
    assert refusal(lambda: scene.escrow("client", "withdraw", REGISTRY_ADDRESS, 1)) == "PayoutRefused"
    assert scene.credit("client") == 10_000
