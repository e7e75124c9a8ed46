"""Verification: an honest job passes, and every forgery is seen by the check that is there for it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from core.contract import Event
from core.jobs.receipt import Receipt, ReceiptDomain, sign_receipt
from core.jobs.request import JobRequest, Message, Role, Tier, output_hash, request_hash
from core.receipts import Log
from market.contracts import ESCROW_ADDRESS
from market.receipt_tree import leaf_of, root_of
from market.verification import (
    ChainRecord,
    ClientSide,
    Recomputed,
    Verdict,
    batch_topics,
    job_topics,
    read_record,
    verify,
)
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
    """Three jobs settled and paid in one batch; the record of the middle one, from the chain's own logs."""
    scene = Scene()
    asked = request_hash(REQUEST, SALT)
    jobs = [scene.open(nonce=nonce, request_hash=asked) for nonce in range(3)]
    hashes = {"request_hash": asked, "output_hash": output_hash(OUTPUT, SALT)}
    scene.settle(*[receipt_for(job, **hashes) for job in jobs])
    scene.ledger.now += PARAMETERS.challenge_seconds
    scene.escrow("finder", "release", jobs)
    filters = [job_topics(jobs[1]), *batch_topics(0)]
    found = [log for log in scene.ledger.logs if any(_matches(topics, log) for topics in filters)]
    assert 0 < len(found) < len(scene.ledger.logs)
    record = read_record(DOMAIN, jobs[1], found + found)
    assert record is not None
    return record


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
    assert verdicts(replace(honest, outcome=None))["payment"] == Verdict.UNCHECKED
    assert verdicts(replace(honest, batch=honest.batch[1:]))["inclusion"] == Verdict.UNCHECKED
    assert [check.verdict for check in verify(replace(honest, accepted=None), SIGNER, CLIENT)] == [Verdict.UNCHECKED]


def test_an_unknown_job_has_no_record() -> None:
    assert read_record(DOMAIN, bytes(32), []) is None


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
