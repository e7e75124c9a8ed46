"""When a receipt counts: it answers the order, at the agreed price, in time, and its worker signed it. Pure."""

from core.errors import InvalidInput
from core.jobs.receipt import ReceiptDomain, recover_signer
from core.jobs.request import Tier, output_hash
from protos.job_messages import JobFinished
from sequencer.coordinator.job_table import Attempt, Job

__all__ = ["CLOCK_TOLERANCE_MS", "check_receipt"]

CLOCK_TOLERANCE_MS = 60_000
"""How far a worker's clock may be behind the coordinator's."""


def check_receipt(job: Job, attempt: Attempt, message: JobFinished, signer: bytes, domain: ReceiptDomain) -> None:
    """Raise InvalidInput unless the receipt is what this attempt may be paid for. `signer` is the registered key."""
    receipt, terms = message.signed.receipt, job.terms
    expected = {
        "job_id": terms.job_id,
        "worker": attempt.worker,
        "tier": terms.request.tier,
        "model_hash": terms.model_hash,
        "request_hash": terms.request_hash,
        "output_hash": output_hash(message.output, terms.salt),
        "input_token_wei": attempt.input_token_wei,
        "output_token_wei": attempt.output_token_wei,
    }
    for name, value in expected.items():
        if getattr(receipt, name) != value:
            raise InvalidInput(f"the receipt's {name} is not what it must be")
    tokens = max(1, receipt.output_tokens) if receipt.tier == Tier.EXACT else 0
    if len(message.answer) != 4 * tokens:
        raise InvalidInput(f"the answer's tokens are {len(message.answer)} bytes, expected {4 * tokens}")
    if receipt.total_wei > terms.price_max_wei:
        raise InvalidInput(f"the receipt asks {receipt.total_wei} wei, the job pays {terms.price_max_wei}")
    if receipt.output_tokens > terms.request.sampling.tokens_max:
        raise InvalidInput(f"{receipt.output_tokens} output tokens, {terms.request.sampling.tokens_max} were asked")
    if receipt.started_at_ms < attempt.assigned_at_ms - CLOCK_TOLERANCE_MS:
        raise InvalidInput("the receipt says that the job was begun before it was assigned")
    if receipt.finished_at_ms > terms.deadline_ms:
        raise InvalidInput("the receipt says that the job was finished after its deadline")
    if recover_signer(receipt, domain, message.signed.signature) != signer:
        raise InvalidInput("the receipt is not signed by the worker's registered key")
    if not message.output.startswith(job.streamed(message.attempt)):
        raise InvalidInput("the answer is not the one that was streamed")
