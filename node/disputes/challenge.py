"""A client disputes an exact answer that it paid for.

Everything that a challenger needs is here already: the request and its salt are in the client's own file, the receipt
is on chain, and the honest trace is computed anew from the model. What the worker knows, the game makes it show.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.jobs.exact import prompt_prefix
from core.jobs.receipt import Receipt, ReceiptDomain
from core.jobs.request import request_hash, request_text_hash
from market.contracts import ARBITER, ARBITER_ADDRESS, ESCROW_ADDRESS
from market.verification import job_topics, read_record
from node.client import RpcClient
from node.disputes.game import RpcGame, logs_of, play_seat
from node.errors import ServiceError
from node.jobs.records import ClientJob
from node.wallet import Wallet
from worker.inference.dispute_parties import DisputeParties
from worker.inference.exact.model import ExactModel, ModelStore
from worker.inference.exact.ordering import find_ordered
from worker.inference.exact.tokenizer import ChatTokenizer
from zk.dispute import Challenger, Terms
from zk.program import Programs
from zk.trace import Statement

__all__ = ["Dispute", "accepted", "accepted_receipt", "challenge_job", "prepare"]


@dataclass(frozen=True)
class Dispute:
    """A receipt that is wrong, and all that is needed to say so."""

    receipt: Receipt
    terms: Terms
    challenger: Challenger


def challenge_job(
    rpc: RpcClient, wallet: Wallet, job: ClientJob, models_dir: Path, tell: Callable[[str], None]
) -> bool:
    """Dispute a job's answer and play to the end; whether the challenger won. Raises ServiceError when there is nothing
    to dispute, or no means to."""
    dispute = prepare(rpc, wallet, job, models_dir)
    bond_wei = wallet.read(ARBITER, ARBITER_ADDRESS, "bondWei")
    terms = dispute.terms
    arguments = (terms.solidity(), dispute.receipt.solidity())
    mined = wallet.transact(ARBITER, ARBITER_ADDRESS, "challenge", *arguments, value_wei=bond_wei)
    tell(f"challenged with a bond of {bond_wei} wei ({mined.gas_used:,} gas)")
    game = RpcGame(rpc, wallet, terms, lambda function, gas: tell(f"  {function:12} {gas:>9,} gas"))
    play_seat(game, terms, dispute.challenger)
    game.resolve()
    return game.winner() == terms.challenger


def prepare(rpc: RpcClient, wallet: Wallet, job: ClientJob, models_dir: Path) -> Dispute:
    """Compute the honest answer and the terms. Raises ServiceError when the receipt is right, or cannot be judged."""
    name = accepted_receipt(rpc, job).model_hash
    model = find_ordered(ModelStore(models_dir), name)
    receipt, terms = accepted(rpc, wallet, job, model)
    parties = DisputeParties(model)
    statement = parties.answer(_order(job, model, terms), receipt.output_tokens)
    challenger = parties.challenger(terms, statement)
    if challenger.agrees():
        raise ServiceError("the receipt is right: this is the answer that the model gives, to the last bit")
    return Dispute(receipt, terms, challenger)


def accepted_receipt(rpc: RpcClient, job: ClientJob) -> Receipt:
    """The receipt of a job that the escrow accepted. Raises ServiceError when there is none."""
    domain = ReceiptDomain(int(rpc.call("eth_chainId"), 16), ESCROW_ADDRESS)
    record = read_record(domain, job.job_id, logs_of(rpc, ESCROW_ADDRESS, job_topics(job.job_id)))
    if record is None or record.accepted is None:
        raise ServiceError("no receipt of this job was accepted on chain, so there is nothing to dispute")
    return Receipt.from_solidity(record.accepted.arguments["receipt"])


def accepted(rpc: RpcClient, wallet: Wallet, job: ClientJob, model: ExactModel) -> tuple[Receipt, Terms]:
    """The accepted receipt, and the terms of a dispute about it by the wallet's account. Raises ServiceError when no
    contract could judge it."""
    if job.request.exact is None:
        raise ServiceError("this job was not ordered in tokens, so no contract can judge its answer")
    receipt = accepted_receipt(rpc, job)
    return receipt, _terms(job, receipt, model, Programs(model.header), wallet.address)


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
