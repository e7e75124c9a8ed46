"""Verification: an honest job passes, and every forgery is seen by the check that is there for it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from core.contract import Event
from core.jobs.receipt import Receipt, ReceiptDomain, sign_receipt
from core.jobs.request import JobRequest, Message, Role, Tier, output_hash, request_hash
from core.receipts import Log
from market.batches import Batch
from market.contracts import ESCROW_ADDRESS, EscrowStatus
from market.receipt_tree import leaf_of, root_of
from market.verification import (
    ChainRecord,
    ClientSide,
    JobState,
    Recomputed,
    Verdict,
    batch_topics,
    job_topics,
    read_record,
    verify,
)
from protos.job_messages import SignedReceipt
from tests.unit.market.ledger import address_of, key_of
from tests.unit.market.scene import DOMAIN, PARAMETERS, Scene, receipt_for

SALT = b"\x07" * 32
REQUEST = JobRequest("smollm2", (Message(Role.USER, "What is the capital of France?"),))
OUTPUT = "The capital of France is Paris."
CLIENT = ClientSide(SALT, REQUEST, OUTPUT)
SIGNER = address_of("worker signer")
NAMES = ["receipt", "signature", "order", "inclusion", "payment", "request", "output", "execution"]


def changed(event: Event, **arguments: object) -> Event:
    return replace(event, arguments={**event.arguments, **arguments})


@pytest.fixture(scope="module")
def honest() -> ChainRecord:
    """Three jobs settled one by one and paid; the record of the middle one, from the chain's own logs."""
    return record_of(Scene(), lambda scene, jobs, receipts: scene.settle(*receipts))[0]


@pytest.fixture(scope="module")
def batched() -> tuple[ChainRecord, ClientSide]:
    """The same, settled by their root; with what the client was handed."""
    record, receipts = record_of(Scene(), lambda scene, jobs, receipts: scene.settle_batch(*receipts))
    receipt = receipts[1]
    signed = SignedReceipt(receipt, sign_receipt(receipt, DOMAIN, key_of("worker signer")))
    return record, replace(CLIENT, signed=signed, inclusion=Batch.of(DOMAIN, receipts).inclusion(0, receipt.job_id))


def record_of(
    scene: Scene, settle: Callable[[Scene, list[bytes], list[Receipt]], object]
) -> tuple[ChainRecord, list[Receipt]]:
    asked = request_hash(REQUEST, SALT)
    jobs = [scene.open(nonce=nonce, request_hash=asked) for nonce in range(3)]
    hashes = {"request_hash": asked, "output_hash": output_hash(OUTPUT, SALT)}
    receipts = [receipt_for(job, **hashes) for job in jobs]
    settle(scene, jobs, receipts)
    scene.ledger.now += PARAMETERS.challenge_seconds
    scene.escrow("finder", "release", jobs)
    filters = [job_topics(jobs[1]), *batch_topics(0)]
    found = [log for log in scene.ledger.logs if any(_matches(topics, log) for topics in filters)]
    assert 0 < len(found) < len(scene.ledger.logs)
    state = JobState.from_solidity(scene.ledger.read(ESCROW_ADDRESS, "jobOf", jobs[1]))
    record = read_record(DOMAIN, jobs[1], state, found + found)
    assert record is not None
    return record, receipts


def _matches(topics: tuple[bytes | None, ...], log: Log) -> bool:
    return len(log.topics) >= len(topics) and all(a in (None, b) for a, b in zip(topics, log.topics, strict=False))


def verdicts(record: ChainRecord, signer: bytes = SIGNER, client: ClientSide = CLIENT) -> dict[str, Verdict]:
    return {check.name: check.verdict for check in verify(record, signer, client)}


def test_an_honest_job_passes_all_that_can_be_checked(honest: ChainRecord) -> None:
    found = verdicts(honest)
    assert list(found) == NAMES
    assert {name for name, verdict in found.items() if verdict != Verdict.PASSED} == {"execution"}
    assert "receipt 2 of 3" in {check.name: check.detail for check in verify(honest, SIGNER, CLIENT)}["inclusion"]


def test_who_knows_less_checks_less(honest: ChainRecord) -> None:
    found = verdicts(honest, client=ClientSide())
    unchecked = {name for name, verdict in found.items() if verdict == Verdict.UNCHECKED}
    assert unchecked == {"request", "output", "execution"}
    assert verdicts(honest, signer=bytes(20))["signature"] == Verdict.UNCHECKED
    unpaid = replace(honest, outcome=None, state=replace(honest.state, status=EscrowStatus.SETTLING))
    assert verdicts(unpaid)["payment"] == Verdict.UNCHECKED
    assert verdicts(replace(honest, batch=honest.batch[1:]))["inclusion"] == Verdict.UNCHECKED
    assert [check.verdict for check in verify(replace(honest, accepted=None), SIGNER, CLIENT)] == [Verdict.UNCHECKED]


def test_an_unknown_job_has_no_record() -> None:
    state = JobState(EscrowStatus.UNKNOWN, bytes(20), 0, 0, 0)
    assert read_record(DOMAIN, bytes(32), state, []) is None


def test_a_batched_job_passes_with_what_its_client_has(batched: tuple[ChainRecord, ClientSide]) -> None:
    record, client = batched
    assert record.accepted is None
    assert record.outcome is None
    found = verdicts(record, client=client)
    assert list(found) == NAMES
    assert {name for name, verdict in found.items() if verdict != Verdict.PASSED} == {"execution"}
    assert verdicts(record) == {"receipt": Verdict.UNCHECKED}, "the chain does not have the receipt"
    assert verdicts(replace(record, state=replace(record.state, status=EscrowStatus.FUNDED)), client=client) == {
        "receipt": Verdict.UNCHECKED
    }


@pytest.mark.parametrize(
    ("change", "seen_by"),
    [
        ({"payment_wei": 171}, "payment"),
        ({"worker": b"\1" * 20}, "payment"),
        ({"index": 0}, "inclusion"),
        ({"index": 3}, "inclusion"),
    ],
)
def test_what_was_settled_must_be_what_the_receipt_says(
    batched: tuple[ChainRecord, ClientSide], change: dict[str, object], seen_by: str
) -> None:
    record, client = batched
    state = replace(record.state, **change)  # type: ignore[arg-type]
    assert verdicts(replace(record, state=state), client=client)[seen_by] == Verdict.FAILED


def test_a_forged_proof_or_receipt_is_seen(batched: tuple[ChainRecord, ClientSide]) -> None:
    record, client = batched
    assert client.inclusion is not None
    assert client.signed is not None
    for proof in (client.inclusion.proof[:1], (bytes(32), *client.inclusion.proof[1:])):
        forged = replace(client, inclusion=replace(client.inclusion, proof=proof))
        assert verdicts(record, client=forged)["inclusion"] == Verdict.FAILED
    other = replace(client.signed, receipt=replace(client.signed.receipt, output_hash=b"\1" * 32))
    found = verdicts(record, client=replace(client, signed=other))
    assert (found["inclusion"], found["signature"], found["output"]) == (Verdict.FAILED,) * 3


def with_receipt(record: ChainRecord, **changes: object) -> ChainRecord:
    """The record with another receipt in this job's place, properly signed."""
    assert record.accepted is not None
    receipt = replace(Receipt.from_solidity(record.accepted.arguments["receipt"]), **changes)  # type: ignore[arg-type]
    signature = sign_receipt(receipt, record.domain, key_of("worker signer"))
    accepted = changed(record.accepted, receipt=receipt.solidity(), signature=signature)
    return replace(record, accepted=accepted)


def with_order(record: ChainRecord, place: int, value: object) -> ChainRecord:
    order = list(record.opened.arguments["order"])
    order[place] = value
    return replace(record, opened=changed(record.opened, order=tuple(order)))


FORGERIES: dict[str, tuple[Callable[[ChainRecord], ChainRecord], str]] = {
    "other output": (lambda one: with_receipt(one, output_hash=b"\1" * 32), "inclusion"),
    "other job": (lambda one: with_receipt(one, job_id=b"\1" * 32), "order"),
    "too dear": (lambda one: with_order(one, 4, 169), "order"),
    "too late": (lambda one: with_order(one, 3, 1), "order"),
    "other model": (lambda one: with_order(one, 5, b"\1" * 32), "order"),
    "other request": (lambda one: with_order(one, 6, b"\1" * 32), "order"),
    "other worker": (lambda one: with_order(one, 1, b"\1" * 20), "order"),
    "other root": (lambda one: replace(one, committed=changed(_some(one.committed), root=b"\1" * 32)), "inclusion"),
    "no commitment": (lambda one: replace(one, committed=None), "inclusion"),
    "other chain": (lambda one: replace(one, domain=ReceiptDomain(1, ESCROW_ADDRESS)), "signature"),
    "no signature": (lambda one: replace(one, accepted=changed(_some(one.accepted), signature=bytes(65))), "signature"),
    "paid more": (lambda one: replace(one, outcome=changed(_some(one.outcome), paidWei=171)), "payment"),
    "paid another": (lambda one: replace(one, outcome=changed(_some(one.outcome), worker=b"\1" * 20)), "payment"),
    "rejected": (lambda one: replace(one, outcome=Event("JobRejected", {})), "payment"),
}


def _some(event: Event | None) -> Event:
    assert event is not None
    return event


@pytest.mark.parametrize("name", FORGERIES)
def test_forgeries_are_seen(honest: ChainRecord, name: str) -> None:
    forge, seen_by = FORGERIES[name]
    assert verdicts(forge(honest))[seen_by] == Verdict.FAILED


def test_a_wrong_answer_or_request_is_seen(honest: ChainRecord) -> None:
    assert verdicts(honest, client=replace(CLIENT, output="Lyon."))["output"] == Verdict.FAILED
    other = JobRequest("smollm2", (Message(Role.USER, "?"),))
    assert verdicts(honest, client=replace(CLIENT, request=other))["request"] == Verdict.FAILED
    assert verdicts(honest, signer=address_of("client"))["signature"] == Verdict.FAILED


def test_an_exact_answer_is_proven_by_running_it_again(honest: ChainRecord) -> None:
    root = b"\5" * 32
    exact = with_order(with_receipt(honest, tier=Tier.EXACT, trace_root=root), 2, int(Tier.EXACT))

    def execution(record: ChainRecord, client: ClientSide) -> Verdict:
        return verdicts(record, client=client)["execution"]

    assert execution(exact, replace(CLIENT, recomputed=Recomputed(root, OUTPUT))) == Verdict.PASSED
    assert execution(exact, replace(CLIENT, recomputed=Recomputed(b"\6" * 32, OUTPUT))) == Verdict.FAILED
    assert execution(exact, replace(CLIENT, recomputed=Recomputed(root, "Lyon."))) == Verdict.FAILED
    assert execution(exact, CLIENT) == Verdict.UNCHECKED
    assert execution(honest, replace(CLIENT, recomputed=Recomputed(root, OUTPUT))) == Verdict.UNCHECKED


def test_a_receipt_that_contradicts_itself_is_seen(honest: ChainRecord) -> None:
    accepted = _some(honest.accepted)
    receipt = list(accepted.arguments["receipt"])
    receipt[13] += 1
    broken = replace(honest, accepted=changed(accepted, receipt=tuple(receipt)))
    assert verdicts(broken) == {"receipt": Verdict.FAILED}


def test_the_root_is_that_of_the_tree(honest: ChainRecord) -> None:
    receipts = [Receipt.from_solidity(event.arguments["receipt"]) for event in honest.batch]
    leaves = [leaf_of(receipt.digest(DOMAIN)) for receipt in receipts]
    assert _some(honest.committed).arguments["root"] == root_of(leaves)
