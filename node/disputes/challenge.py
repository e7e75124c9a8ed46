"""A client disputes an exact answer that it paid for.

Everything that a challenger needs is here already: the request and its salt are in the client's own file, the receipt
is on chain, and the honest trace is computed anew from the model. What the worker knows, the game makes it show.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from core.jobs.exact import prompt_prefix
from core.jobs.receipt import Receipt, ReceiptDomain
from core.jobs.request import request_hash, request_text_hash
from market.contracts import ARBITER, ARBITER_ADDRESS, ESCROW_ADDRESS, JOB_ESCROW
from market.verification import JobState, job_topics, read_record
from node.client import RpcClient
from node.disputes.game import RpcGame, logs_of, play_seat
from node.errors import ServiceError
from node.jobs.records import ClientJob
from node.wallet import Wallet, read_contract
from protos.job_messages import SignedReceipt
from worker.inference.dispute_parties import DisputeParties
from worker.inference.exact.model import ExactModel, ModelStore
from worker.inference.exact.ordering import find_ordered
from worker.inference.exact.tokenizer import ChatTokenizer
from zk.dispute import Challenger, Terms, Turn
from zk.program import Programs
from zk.trace import Statement

__all__ = [
    "Dispute",
    "Showing",
    "accepted",
    "challenge_job",
    "dispute_of",
    "open_dispute",
    "prepare",
    "settled_receipt",
    "show_receipt",
]


@dataclass(frozen=True, slots=True)
class Showing:
    """A receipt that was settled with its batch and is not on chain yet: how to put it there."""

    signed: SignedReceipt
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class Dispute:
    """A receipt that is wrong, and all that is needed to say so."""

    receipt: Receipt
    terms: Terms
    challenger: Challenger
    showing: Showing | None = None


def challenge_job(
    rpc: RpcClient, wallet: Wallet, job: ClientJob, models_dir: Path, tell: Callable[[str], None]
) -> bool:
    """Dispute a job's answer and play to the end; whether the challenger won. Raises ServiceError when there is nothing
    to dispute, or no means to."""
    dispute = prepare(rpc, wallet, job, models_dir)
    game = open_dispute(rpc, wallet, dispute, tell)
    play_seat(game, dispute.terms, dispute.challenger)
    game.resolve()
    return game.winner() == dispute.terms.challenger


def open_dispute(rpc: RpcClient, wallet: Wallet, dispute: Dispute, tell: Callable[[str], None]) -> RpcGame:
    """Show the receipt and challenge it, unless that was done before; the game."""
    terms = dispute.terms
    game = RpcGame(rpc, wallet, terms, lambda function, gas: tell(f"  {function:12} {gas:>9,} gas"))
    if game.turn() == Turn.NONE:
        if dispute.showing is not None:
            show_receipt(wallet, dispute.showing, tell)
        bond_wei = wallet.read(ARBITER, ARBITER_ADDRESS, "bondWei")
        arguments = (terms.solidity(), dispute.receipt.solidity())
        mined = wallet.transact(ARBITER, ARBITER_ADDRESS, "challenge", *arguments, value_wei=bond_wei)
        tell(f"challenged with a bond of {bond_wei} wei ({mined.gas_used:,} gas)")
    return game


def prepare(rpc: RpcClient, wallet: Wallet, job: ClientJob, models_dir: Path) -> Dispute:
    """Compute the honest answer and the terms. Raises ServiceError when the receipt is right, or cannot be judged."""
    receipt, showing = settled_receipt(rpc, job)
    model = find_ordered(ModelStore(models_dir), receipt.model_hash)
    return replace(dispute_of(job, receipt, model, wallet.address), showing=showing)


def dispute_of(job: ClientJob, receipt: Receipt, model: ExactModel, challenger: bytes) -> Dispute:
    """What somebody with this account would say of a receipt. Raises ServiceError when the receipt is right, or cannot
    be judged."""
    terms = _judgeable(job, receipt, model, challenger)
    parties = DisputeParties(model)
    statement = parties.answer(_order(job, model, terms), receipt.output_tokens)
    party = parties.challenger(terms, statement)
    if party.agrees():
        raise ServiceError("the receipt is right: this is the answer that the model gives, to the last bit")
    return Dispute(receipt, terms, party)


def show_receipt(wallet: Wallet, showing: Showing, tell: Callable[[str], None]) -> None:
    """Put a settled receipt on chain, where it can be judged."""
    arguments = (showing.signed.receipt.solidity(), showing.signed.signature, list(showing.proof))
    mined = wallet.transact(JOB_ESCROW, ESCROW_ADDRESS, "show", *arguments)
    tell(f"showed the receipt ({mined.gas_used:,} gas)")


def settled_receipt(rpc: RpcClient, job: ClientJob) -> tuple[Receipt, Showing | None]:
    """The receipt that was settled for a job, and how to show it where it is not on chain. Raises ServiceError when
    nothing was settled, or nobody has the receipt."""
    domain = ReceiptDomain(int(rpc.call("eth_chainId"), 16), ESCROW_ADDRESS)
    state = JobState.from_solidity(read_contract(rpc, JOB_ESCROW, ESCROW_ADDRESS, "jobOf", job.job_id))
    record = read_record(domain, job.job_id, state, logs_of(rpc, ESCROW_ADDRESS, job_topics(job.job_id)))
    if record is None or not state.is_settled:
        raise ServiceError("no receipt of this job was settled, so there is nothing to dispute")
    if record.accepted is not None:
        return Receipt.from_solidity(record.accepted.arguments["receipt"]), None
    if job.signed is None or job.inclusion is None:
        raise ServiceError("the coordinator does not say where the receipt was settled: demand it from the escrow")
    return job.signed.receipt, Showing(job.signed, job.inclusion.proof)


def accepted(rpc: RpcClient, wallet: Wallet, job: ClientJob, model: ExactModel) -> tuple[Receipt, Terms]:
    """The settled receipt, and the terms of a dispute about it by the wallet's account. Raises ServiceError when no
    contract could judge it."""
    receipt, _ = settled_receipt(rpc, job)
    return receipt, _judgeable(job, receipt, model, wallet.address)


def _judgeable(job: ClientJob, receipt: Receipt, model: ExactModel, challenger: bytes) -> Terms:
    if job.request.exact is None:
        raise ServiceError("this job was not ordered in tokens, so no contract can judge its answer")
    terms = _terms(job, receipt, model, Programs(model.header), challenger)
    if (terms.model_hash, terms.request_hash) != (receipt.model_hash, receipt.request_hash):
        raise ServiceError("the receipt is of another model or request than the order")
    return terms


def _order(job: ClientJob, model: ExactModel, terms: Terms) -> Statement:
    prompt = tuple(ChatTokenizer(model.tokenizer, model.chat_template).encode_chat(job.request.messages))
    asked, prefix = request_hash(job.request, job.salt), prompt_prefix(job.salt)
    order = Statement(model.root, asked, terms.sampling, prompt, (0,), prefix)
    if order.prompt_hash != terms.prompt_hash:
        raise ServiceError("the order does not name the tokens of its own text: no answer to it can be judged")
    return order


def _terms(job: ClientJob, receipt: Receipt, model: ExactModel, programs: Programs, challenger: bytes) -> Terms:
    exact, sampling = job.request.exact, job.request.sampling
    assert exact is not None, "the caller has looked"
    return Terms(
        trace_root=receipt.trace_root,
        model_root=model.root,
        program_tree=programs.tree_root,
        text_hash=request_text_hash(job.request, job.salt),
        prompt_hash=exact.prompt_hash,
        sampling=exact.sampling,
        prompt_tokens=receipt.input_tokens,
        answer_tokens=receipt.output_tokens,
        answer_tokens_max=sampling.tokens_max,
        ends_by_text=bool(sampling.stop),
        layers=model.header.layers,
        worker=receipt.worker,
        challenger=challenger,
        nonce=int.from_bytes(receipt.job_id, "big"),
    )
