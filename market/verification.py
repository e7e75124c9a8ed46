"""Re-checks an answered job from what the chain recorded, and says of each check whether it passed, failed or could not
be made.

Pure: the caller fetches the job's record and logs (`job_topics` and `batch_topics` say which) and the worker's
registered key. Trusts nobody: neither the coordinator nor the worker, and the escrow's own checks are made again. A
receipt that was settled with its batch is not on chain; whoever has it brings it, with the proof that it is in the
batch. Whoever has the model runs an exact answer again and says what came out (`Recomputed`); equal trace roots prove
the whole answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from core.contract import Event
from core.errors import ProofError
from core.jobs.receipt import Receipt, ReceiptDomain, ReceiptInvalid, recover_signer
from core.jobs.request import JobRequest, Tier, output_hash, request_hash
from core.receipts import Log
from market.contracts import ESCROW_ADDRESS, JOB_ESCROW, EscrowStatus
from market.receipt_tree import leaf_of, proof_of, root_from_proof
from protos.job_messages import Inclusion, SignedReceipt

__all__ = [
    "ChainRecord",
    "Check",
    "ClientSide",
    "JobState",
    "Recomputed",
    "Verdict",
    "batch_topics",
    "job_topics",
    "read_record",
    "verify",
]

_SETTLED = (EscrowStatus.SETTLING, EscrowStatus.PAID, EscrowStatus.REJECTED, EscrowStatus.DEMANDED)
_OUTCOMES = ("JobPaid", "JobRefunded", "JobExpired", "JobRejected")


class Verdict(StrEnum):
    """What came of a check."""

    PASSED = "passed"
    FAILED = "failed"
    UNCHECKED = "could not be checked"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, and a sentence about what was seen."""

    name: str
    verdict: Verdict
    detail: str


@dataclass(frozen=True, slots=True)
class JobState:
    """What the escrow keeps of a job (`JobEscrow.jobOf`): of a settled one, its place in a batch and its payment."""

    status: EscrowStatus
    worker: bytes
    batch_id: int
    index: int
    payment_wei: int

    @classmethod
    def from_solidity(cls, values: Sequence[Any]) -> "JobState":
        """For what an ABI decoder returns of `jobOf`."""
        status, worker, batch_id, index, payment_wei = (values[place] for place in (3, 7, 8, 9, 11))
        return cls(EscrowStatus(status), worker, batch_id, index, payment_wei)

    @property
    def is_settled(self) -> bool:
        """Whether a receipt of this job was settled, and not given up for want of being shown."""
        return self.status in _SETTLED


@dataclass(frozen=True, slots=True)
class ChainRecord:
    """What the escrow says about one job. Parts that have not happened are None; `batch` has what is on chain of the
    batch's receipts, by their index."""

    domain: ReceiptDomain
    state: JobState
    opened: Event
    accepted: Event | None
    committed: Event | None
    outcome: Event | None
    batch: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Recomputed:
    """What the ordered model answered to the request when it was run again: the trace root under the order's request
    hash, and the text. None of both where it was not run, and `detail` says why."""

    trace_root: bytes | None = None
    output: str | None = None
    detail: str = "the model was not run again"


@dataclass(frozen=True, slots=True)
class ClientSide:
    """What is not on chain; whoever has less can check less."""

    salt: bytes | None = None
    request: JobRequest | None = None
    output: str | None = None
    recomputed: Recomputed = Recomputed()
    signed: SignedReceipt | None = None
    inclusion: Inclusion | None = None


def job_topics(job_id: bytes) -> tuple[bytes | None, ...]:
    """The topics of every event of the escrow about this job, for eth_getLogs."""
    return (None, job_id)


def batch_topics(batch_id: int) -> tuple[tuple[bytes | None, ...], ...]:
    """The topics of the events about a batch: its commitment, and its receipts."""
    number = batch_id.to_bytes(32, "big")
    accepted, committed = (JOB_ESCROW.event_topic(name) for name in ("ReceiptAccepted", "BatchCommitted"))
    return (committed, number), (accepted, None, number)


def read_record(domain: ReceiptDomain, job_id: bytes, state: JobState, logs: Sequence[Log]) -> ChainRecord | None:
    """Read the logs that `job_topics` and `batch_topics` find; None if the job was never opened.

    Logs of other contracts, jobs and batches are left out, as are repetitions.
    """
    decoded = (JOB_ESCROW.decode_log(log) for log in dict.fromkeys(logs) if log.address == ESCROW_ADDRESS)
    events = [event for event in decoded if event is not None]
    own = {event.name: event for event in events if event.arguments.get("jobId") == job_id}
    if "JobOpened" not in own:
        return None
    accepted = own.get("ReceiptAccepted")
    in_batch = [event for event in events if state.is_settled and event.arguments.get("batchId") == state.batch_id]
    batch = [event for event in in_batch if event.name == "ReceiptAccepted"]
    return ChainRecord(
        domain=domain,
        state=state,
        opened=own["JobOpened"],
        accepted=accepted,
        committed=next((event for event in in_batch if event.name == "BatchCommitted"), None),
        outcome=next((own[name] for name in _OUTCOMES if name in own), None),
        batch=tuple(sorted(batch, key=lambda event: int(event.arguments["index"]))),
    )


def verify(record: ChainRecord, signer: bytes, client: ClientSide) -> tuple[Check, ...]:
    """Every check, in order. `signer` is the key that the registry names for the worker, or zero."""
    try:
        signed = _signed_receipt(record, client)
    except ReceiptInvalid as error:
        return (Check("receipt", Verdict.FAILED, f"the receipt contradicts itself: {error}"),)
    if not record.state.is_settled:
        return (Check("receipt", Verdict.UNCHECKED, "no receipt of this job is settled"),)
    if signed is None:
        detail = "the job is settled, but its receipt was not handed over: its client may demand it on chain"
        return (Check("receipt", Verdict.UNCHECKED, detail),)
    receipt = signed.receipt
    return (
        Check("receipt", Verdict.PASSED, "usage times price is its total; trace, tier and times fit together"),
        _check_signature(record, signed, signer),
        _check_order(record, receipt),
        _check_inclusion(record, receipt, client.inclusion),
        _check_payment(record, receipt),
        _check_hash("request", receipt.request_hash, client.salt, client.request, request_hash),
        _check_hash("output", receipt.output_hash, client.salt, client.output, output_hash),
        _check_execution(receipt, client),
    )


def _signed_receipt(record: ChainRecord, client: ClientSide) -> SignedReceipt | None:
    """The receipt that is on chain, or the one that was brought. Raises ReceiptInvalid."""
    if record.accepted is None:
        return client.signed
    arguments = record.accepted.arguments
    return SignedReceipt(Receipt.from_solidity(arguments["receipt"]), arguments["signature"])


def _check(name: str, passed: bool, detail: str) -> Check:
    return Check(name, Verdict.PASSED if passed else Verdict.FAILED, detail)


def _check_signature(record: ChainRecord, signed: SignedReceipt, signer: bytes) -> Check:
    if not any(signer):
        return Check("signature", Verdict.UNCHECKED, "the worker has left the registry, and its key with it")
    try:
        recovered = recover_signer(signed.receipt, record.domain, signed.signature)
    except ReceiptInvalid as error:
        return Check("signature", Verdict.FAILED, str(error))
    if recovered != signer:
        return Check(
            "signature", Verdict.FAILED, f"signed by 0x{recovered.hex()}, not by the worker's 0x{signer.hex()}"
        )
    return Check("signature", Verdict.PASSED, f"signed by the worker's key 0x{signer.hex()}")


def _check_order(record: ChainRecord, receipt: Receipt) -> Check:
    _, worker, tier, deadline, price_max_wei, model_hash, asked_hash, _ = record.opened.arguments["order"]
    wrong = {
        "job": receipt.job_id != record.opened.arguments["jobId"],
        "worker": any(worker) and worker != receipt.worker,
        "tier": tier != receipt.tier,
        "deadline": receipt.finished_at_ms > deadline * 1000,
        "price": receipt.total_wei > price_max_wei,
        "model": model_hash != receipt.model_hash,
        "request": asked_hash != receipt.request_hash,
    }
    named = [name for name, is_wrong in wrong.items() if is_wrong]
    if named:
        return Check("order", Verdict.FAILED, f"the receipt does not fit the order: {', '.join(named)}")
    return Check("order", Verdict.PASSED, f"{receipt.total_wei} of at most {price_max_wei} wei, in time, as ordered")


def _check_inclusion(record: ChainRecord, receipt: Receipt, inclusion: Inclusion | None) -> Check:
    """By the proof that was brought, or by the batch's tree, where all its receipts are on chain."""
    if record.committed is None:
        return Check("inclusion", Verdict.FAILED, "the batch was never committed")
    size, root = record.committed.arguments["size"], record.committed.arguments["root"]
    index, leaf = record.state.index, leaf_of(receipt.digest(record.domain))
    place = f"receipt {index + 1} of {size} under root 0x{root.hex()}"
    if inclusion is not None:
        try:
            found = root_from_proof(leaf, index, size, inclusion.proof)
        except ProofError as error:
            return Check("inclusion", Verdict.FAILED, str(error))
        return _check("inclusion", found == root, place)
    if [event.arguments["index"] for event in record.batch] != list(range(size)):
        detail = f"{len(record.batch)} of the batch's {size} receipts are on chain; the escrow saw a proof"
        return Check("inclusion", Verdict.UNCHECKED, detail)
    try:
        receipts = [Receipt.from_solidity(event.arguments["receipt"]) for event in record.batch]
        leaves = [leaf_of(one.digest(record.domain)) for one in receipts]
        found = root_from_proof(leaf, index, size, proof_of(leaves, index))
    except (ReceiptInvalid, ProofError) as error:
        return Check("inclusion", Verdict.FAILED, str(error))
    return _check("inclusion", found == root, place)


def _check_payment(record: ChainRecord, receipt: Receipt) -> Check:
    outcome, state = record.outcome, record.state
    if outcome is None and (state.payment_wei, state.worker) != (receipt.total_wei, receipt.worker):
        detail = f"settled at {state.payment_wei} wei for 0x{state.worker.hex()}, which the receipt does not say"
        return Check("payment", Verdict.FAILED, detail)
    if outcome is None and state.status == EscrowStatus.PAID:
        return Check("payment", Verdict.PASSED, f"{state.payment_wei} wei paid with its batch, the rest back")
    if outcome is None:
        return Check("payment", Verdict.UNCHECKED, "not released yet: the challenge window is open, or nobody asked")
    if outcome.name != "JobPaid":
        return Check("payment", Verdict.FAILED, f"the job ended as {outcome.name}")
    paid, refunded = outcome.arguments["paidWei"], outcome.arguments["refundedWei"]
    price_max_wei = record.opened.arguments["order"][4]
    fits = paid == receipt.total_wei and paid + refunded == price_max_wei
    return _check(
        "payment", fits and outcome.arguments["worker"] == receipt.worker, f"{paid} wei paid, {refunded} back"
    )


def _check_hash(
    name: str, expected: bytes, salt: bytes | None, value: Any | None, hash_of: Callable[[Any, bytes], bytes]
) -> Check:
    if salt is None or value is None:
        return Check(name, Verdict.UNCHECKED, f"only who has the salt and the {name} can tell")
    return _check(name, hash_of(value, salt) == expected, f"hash 0x{expected.hex()}")


def _check_execution(receipt: Receipt, client: ClientSide) -> Check:
    if receipt.tier == Tier.FLOAT:
        return Check(
            "execution", Verdict.UNCHECKED, "the float tier cannot be proven: running it again is a comparison"
        )
    again = client.recomputed
    if again.trace_root is None:
        return Check("execution", Verdict.UNCHECKED, again.detail)
    if again.trace_root != receipt.trace_root:
        detail = f"this model's trace is 0x{again.trace_root.hex()}, the receipt's 0x{receipt.trace_root.hex()}"
        return Check("execution", Verdict.FAILED, detail)
    if client.output is not None and again.output != client.output:
        return Check("execution", Verdict.FAILED, "the trace is right, but the answer's text is not what it says")
    return Check("execution", Verdict.PASSED, f"run again, to the last bit: trace 0x{receipt.trace_root.hex()}")
