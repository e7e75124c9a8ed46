"""JobEscrow's batches: receipts that stay off the chain, and what brings one of them there."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from core.jobs.receipt import Receipt, sign_receipt
from core.jobs.request import Tier
from market.batches import BATCH_RECEIPTS_MAX, Batch
from market.contracts import ESCROW_ADDRESS, REGISTRY_ADDRESS
from market.receipt_tree import root_of
from tests.unit.market.ledger import ETHER, GAS_LIMIT, GENESIS_TIME, Reverted, address_of, key_of
from tests.unit.market.scene import DOMAIN, PARAMETERS, Scene, binding_of, identity_of, receipt_for

EXACT = {"tier": Tier.EXACT, "trace_root": b"\5" * 32}
EVIDENCE, FINDER = b"\x66" * 32, address_of("finder")


@pytest.fixture
def scene() -> Scene:
    return Scene()


def refusal(action: Callable[[], object]) -> str | None:
    with pytest.raises(Reverted) as refused:
        action()
    return refused.value.name


def receipts_of(scene: Scene, count: int, **changes: object) -> list[Receipt]:
    tier = {"tier": changes["tier"]} if "tier" in changes else {}
    jobs = [scene.open(nonce=nonce, **tier) for nonce in range(count)]
    return [receipt_for(job, **changes) for job in jobs]


def collect(scene: Scene, batch_id: int, *names: str) -> None:
    scene.escrow("finder", "collect", batch_id, [address_of(name) for name in names])


def test_a_batch_pays_its_usage_and_returns_the_rest(scene: Scene) -> None:
    receipts = receipts_of(scene, 3)
    theirs = receipt_for(scene.open("other client", nonce=9), "second worker", output_tokens=30, total_wei=240)
    batch, number = scene.settle_batch(receipts[0], theirs, *receipts[1:])
    assert [scene.status(one.job_id) for one in batch.receipts] == ["settling"] * 4
    scene.ledger.now += PARAMETERS.challenge_seconds - 1
    assert refusal(lambda: collect(scene, number, "worker")) == "BatchNotDue"
    assert scene.escrow("finder", "release", [receipts[0].job_id]).result == 0
    scene.ledger.now += 1
    assert [scene.status(one.job_id) for one in batch.receipts] == ["paid"] * 4
    collect(scene, number, "worker", "second worker", "client", "other client", "finder")
    paid = [scene.credit(name) for name in ("worker", "second worker", "client", "other client", "finder")]
    assert paid == [3 * 170, 240, 3 * 9_830, 10_000 - 240, 0]
    collect(scene, number, "worker", "client", "worker")
    assert [scene.credit("worker"), scene.credit("client")] == paid[:1] + paid[2:3], "once"
    assert refusal(lambda: collect(scene, number + 1, "worker")) == "BatchNotDue"


def test_the_order_of_payments_is_that_of_the_leaves() -> None:
    one, two = receipt_for(b"\1" * 32), receipt_for(b"\2" * 32)
    other = receipt_for(b"\3" * 32, "second worker")
    batch = Batch.of(DOMAIN, [one, other, two])
    assert batch.receipts in ((one, two, other), (other, one, two))
    assert len(batch.payments) == 2 * 22 + 3 * 48
    workers = [batch.payments[at : at + 20] for at in (0, len(batch.payments) - 68 - 2)]
    assert batch.receipts[0].worker == workers[0]
    assert [batch.inclusion(4, r.job_id).index for r in batch.receipts] == [0, 1, 2]
    assert batch.root == root_of(batch._leaves)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 11])
def test_every_receipt_can_be_shown_from_batches_of(size: int) -> None:
    scene = Scene()
    receipts = receipts_of(scene, size, **EXACT)
    batch, number = scene.settle_batch(*receipts)
    for index, receipt in enumerate(receipts):
        shown = scene.show(batch, receipt).event("ReceiptAccepted").arguments
        assert (shown["batchId"], shown["index"], shown["receipt"]) == (number, index, receipt.solidity())
        assert scene.ledger.read(ESCROW_ADDRESS, "jobOf", receipt.job_id)[-1] == receipt.digest(DOMAIN)
        assert refusal(lambda shown=receipt: scene.show(batch, shown)) == "AlreadyShown"
    scene.ledger.now += PARAMETERS.exact_challenge_seconds
    collect(scene, number, "worker")
    assert scene.credit("worker") == size * 170, "shown or not, it is paid with its batch"


def test_only_what_was_settled_can_be_shown(scene: Scene) -> None:
    receipts = receipts_of(scene, 3, **EXACT)
    batch, _ = scene.settle_batch(*receipts)
    first = receipts[0]

    def show(receipt: Receipt = first, proof: tuple[bytes, ...] | None = None, signer: str = "worker signer") -> None:
        path = batch.inclusion(0, first.job_id).proof if proof is None else proof
        signature = sign_receipt(receipt, DOMAIN, key_of(signer))
        scene.escrow("finder", "show", receipt.solidity(), signature, list(path))

    good = batch.inclusion(0, first.job_id).proof
    assert refusal(lambda: show(proof=good[:1])) == "ProofInvalid"
    assert refusal(lambda: show(proof=(*good, bytes(32)))) == "ProofInvalid"
    assert refusal(lambda: show(proof=(bytes(32), *good[1:]))) == "RootMismatch"
    assert refusal(lambda: show(replace(first, output_hash=bytes(32)))) == "RootMismatch"
    assert refusal(lambda: show(signer="client")) == "SignatureInvalid"
    assert refusal(lambda: show(replace(first, job_id=b"\7" * 32))) == "NotInBatch"
    alone = receipt_for(scene.open(nonce=20))
    scene.settle(alone)
    assert refusal(lambda: show(alone, ())) == "NotInBatch", "it is on chain already"
    scene.ledger.now += PARAMETERS.exact_challenge_seconds + 1
    assert refusal(show) in ("ChallengeClosed", "NotInBatch")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model_hash": b"\1" * 32}, "WrongModel"),
        ({"request_hash": b"\1" * 32}, "WrongRequest"),
        ({"finished_at_ms": (GENESIS_TIME + 100) * 1000 + 1}, "TimesInvalid"),
    ],
)
def test_a_receipt_that_does_not_fit_its_order_cannot_be_shown(
    scene: Scene, change: dict[str, object], error: str
) -> None:
    (receipt,) = receipts_of(scene, 1, **EXACT)
    wrong = replace(receipt, **change)  # type: ignore[arg-type]
    batch, _ = scene.settle_batch(wrong)
    assert refusal(lambda: scene.show(batch, wrong)) == error
    scene.escrow("client", "demand", receipt.job_id)
    scene.ledger.now += PARAMETERS.settlement_seconds + 1
    scene.escrow("client", "expire", receipt.job_id)
    assert scene.credit("client") == 10_000, "and so its client gets all back"


def test_a_payment_is_that_of_its_receipt(scene: Scene) -> None:
    (receipt,) = receipts_of(scene, 1, **EXACT)
    batch = Batch.of(DOMAIN, [receipt])
    dearer = batch.payments[:-16] + (9_000).to_bytes(16, "big")
    scene.escrow("coordinator", "settleBatch", 1, batch.root, dearer)
    assert refusal(lambda: scene.show(batch, receipt)) == "TotalWrong"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"total_wei": 10_001, "input_tokens": 0, "output_tokens": 1, "output_token_wei": 10_001}, "PriceAboveMaximum"),
        ({"tier": Tier.EXACT, "trace_root": b"\1" * 32}, "WrongTier"),
        ({"job_id": b"\1" * 32}, "JobNotFunded"),
        ({"worker": address_of("client")}, "WorkerNotBonded"),
    ],
)
def test_a_payment_that_does_not_fit_its_order_undoes_the_batch(
    scene: Scene, change: dict[str, object], error: str
) -> None:
    good, bad = receipts_of(scene, 2)
    wrong = replace(bad, **change)  # type: ignore[arg-type]
    batches = [[wrong], [good, wrong]] if wrong.tier == good.tier else [[wrong]]
    for receipts in batches:
        assert refusal(lambda one=receipts: scene.settle_batch(*one)) == error
    assert [scene.status(one.job_id) for one in (good, bad)] == ["funded"] * 2
    assert scene.ledger.read(ESCROW_ADDRESS, "batchCount") == 0


def test_bytes_that_are_no_payments_are_refused(scene: Scene) -> None:
    (receipt,) = receipts_of(scene, 1)
    batch = Batch.of(DOMAIN, [receipt])

    def settle(payments: bytes, tier: int = 0) -> None:
        scene.escrow("coordinator", "settleBatch", tier, batch.root, payments)

    whole = batch.payments
    for cut in (1, 21, 22, 40, len(whole) - 1):
        assert refusal(lambda at=cut: settle(whole[:at])) == "PaymentsMalformed"
    assert refusal(lambda: settle(whole + b"\0")) == "PaymentsMalformed"
    assert refusal(lambda: settle(b"")) == "BatchSizeInvalid"
    assert refusal(lambda: settle(whole[:20] + bytes(2))) == "BatchSizeInvalid"
    assert refusal(lambda: settle(whole, 2)) == "TierUnknown"
    assert refusal(lambda: settle(whole * 2)) == "JobNotFunded"
    assert refusal(lambda: scene.settle_batch(receipt, sender="worker")) == "NotCoordinator"
    scene.ledger.now = GENESIS_TIME + 101 + PARAMETERS.settlement_seconds
    assert refusal(lambda: settle(whole)) == "SettlementClosed"


def test_the_ordered_worker_is_paid_and_no_other(scene: Scene) -> None:
    job = scene.open(worker=address_of("second worker"))
    assert refusal(lambda: scene.settle_batch(receipt_for(job))) == "WrongWorker"
    scene.settle_batch(receipt_for(job, "second worker"))


def test_a_demanded_receipt_is_shown_or_its_client_gets_all_back(scene: Scene) -> None:
    shown, silent, other = receipts_of(scene, 3, **EXACT)
    batch, number = scene.settle_batch(shown, silent, other)
    assert refusal(lambda: scene.escrow("other client", "demand", shown.job_id)) == "NotClient"
    for receipt in (shown, silent):
        scene.escrow("client", "demand", receipt.job_id)
        assert scene.status(receipt.job_id) == "demanded"
        assert refusal(lambda one=receipt: scene.escrow("client", "demand", one.job_id)) == "NotInBatch"
    scene.ledger.now += PARAMETERS.settlement_seconds
    assert refusal(lambda: scene.escrow("client", "expire", silent.job_id)) == "NotYetExpired"
    scene.show(batch, shown, sender="worker")  # in the last second; its window begins anew
    assert scene.status(shown.job_id) == "settling"
    assert scene.escrow("worker", "release", [shown.job_id]).result == 0
    scene.ledger.now += 1
    assert refusal(lambda: scene.show(batch, silent)) == "ChallengeClosed"
    scene.escrow("finder", "expire", silent.job_id)
    assert (scene.status(silent.job_id), scene.credit("client")) == ("expired", 10_000)
    scene.ledger.now += PARAMETERS.exact_challenge_seconds
    assert scene.escrow("worker", "release", [shown.job_id, silent.job_id, other.job_id]).result == 1
    assert scene.credit("worker") == 170
    collect(scene, number, "worker", "client")
    assert (scene.credit("worker"), scene.credit("client")) == (340, 10_000 + 2 * 9_830)


def test_nothing_is_demanded_too_late_or_of_what_was_shown(scene: Scene) -> None:
    first, second = receipts_of(scene, 2, **EXACT)
    batch, _ = scene.settle_batch(first, second)
    scene.show(batch, first)
    assert refusal(lambda: scene.escrow("client", "demand", first.job_id)) == "AlreadyShown"
    scene.ledger.now += PARAMETERS.exact_challenge_seconds
    assert refusal(lambda: scene.escrow("client", "demand", second.job_id)) == "ChallengeClosed"


def test_a_worker_cannot_change_the_key_of_what_was_settled(scene: Scene) -> None:
    (receipt,) = receipts_of(scene, 1, **EXACT)
    batch, _ = scene.settle_batch(receipt)
    scene.registry("worker", "changeIdentity", identity_of("client"), binding_of("worker", "client signer"))
    scene.show(batch, receipt)


def test_a_rejected_receipt_of_a_batch_costs_its_worker_and_nobody_else(scene: Scene) -> None:
    jobs = [scene.open(nonce=nonce, price_max_wei=ETHER // 10) for nonce in range(2)]
    wrong, right = (receipt_for(job) for job in jobs)
    _, number = scene.settle_batch(wrong, right)
    rejected = scene.escrow("arbiter", "reject", wrong.job_id, EVIDENCE, FINDER).event("JobRejected").arguments
    assert rejected["slashedWei"] == ETHER
    assert (scene.status(wrong.job_id), scene.credit("client")) == ("rejected", ETHER // 10)
    scene.ledger.now += PARAMETERS.challenge_seconds
    collect(scene, number, "worker", "client")
    assert (scene.credit("worker"), scene.credit("client")) == (170, ETHER // 10 + ETHER // 10 - 170)
    late = refusal(lambda: scene.escrow("arbiter", "reject", right.job_id, EVIDENCE, FINDER))
    assert late == "ChallengeClosed"


def test_what_is_held_leaves_its_batch_and_comes_back(scene: Scene) -> None:
    early, late = receipts_of(scene, 2, **EXACT)
    batch, number = scene.settle_batch(early, late)
    for receipt in (early, late):
        scene.show(batch, receipt)
        scene.escrow("arbiter", "hold", receipt.job_id)
        scene.escrow("arbiter", "hold", receipt.job_id)
    scene.escrow("arbiter", "unhold", early.job_id)
    scene.escrow("arbiter", "unhold", early.job_id)
    scene.ledger.now += PARAMETERS.exact_challenge_seconds
    collect(scene, number, "worker", "client")
    assert (scene.credit("worker"), scene.credit("client")) == (170, 9_830)
    assert (scene.status(early.job_id), scene.status(late.job_id)) == ("paid", "settling")
    scene.escrow("arbiter", "unhold", late.job_id)
    assert scene.status(late.job_id) == "settling"
    scene.escrow("arbiter", "unhold", late.job_id)
    assert (scene.status(late.job_id), scene.credit("worker"), scene.credit("client")) == ("paid", 340, 2 * 9_830)
    assert scene.ledger.variable(REGISTRY_ADDRESS, "holdsOf", address_of("worker")) == 0


def test_a_full_batch_fits_into_a_transaction(scene: Scene) -> None:
    """Measured on a few: what a receipt costs beyond the first, times the most that there can be."""

    def gas_of(receipts: list[Receipt]) -> int:
        batch = Batch.of(DOMAIN, receipts)
        return scene.escrow("coordinator", "settleBatch", int(batch.tier), batch.root, batch.payments).gas_used

    first = gas_of([receipt_for(scene.open(nonce=1))])
    five = gas_of([receipt_for(scene.open(nonce=nonce)) for nonce in range(2, 7)])
    assert scene.ledger.read(ESCROW_ADDRESS, "BATCH_RECEIPTS_MAX") == BATCH_RECEIPTS_MAX
    assert (five - first) // 4 < 45_000
    # at worst every job is another client's: two more writes to cold storage
    assert first + ((five - first) // 4 + 22_100) * (BATCH_RECEIPTS_MAX - 1) < GAS_LIMIT
