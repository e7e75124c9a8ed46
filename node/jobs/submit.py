"""A job from a prompt to a receipt: choose the model's hash, fund the escrow, hand it in, follow it.

Money goes first: a job is handed in once its escrow holds the maximum price, and what was not used comes back.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from core.jobs.request import SALT_BYTES, JobRequest, Tier, request_hash
from market.contracts import ESCROW_ADDRESS, JOB_ESCROW
from market.pricing import input_tokens_max
from node.accounts import development_accounts
from node.client import RpcClient
from node.errors import ConfigError, ServiceError
from node.jobs.network import JobNetwork
from node.jobs.records import ClientJob, JobRecords
from node.jobs.rpc import JobsClient
from node.keys import IdentityKey
from node.wallet import Wallet
from protos.job_messages import JobEvent, SubmitJob
from worker.inference.cli_options import MODELS_DIR
from worker.inference.errors import ModelNotFound
from worker.inference.exact.model import ModelStore
from worker.inference.exact.ordering import exact_terms, find_ordered

__all__ = [
    "KeyFile",
    "Submission",
    "development_payer",
    "find_model",
    "follow_job",
    "open_submission",
    "payer_of",
    "submit_job",
]

_ANY_WORKER = bytes(20)

KeyFile = Annotated[
    Path | None,
    typer.Option(help="file with the secret key that pays (hex); on a local network a development account does"),
]


@dataclass(frozen=True, slots=True)
class Submission:
    """Where a job goes: chain, coordinator, and the files that remember it."""

    rpc: RpcClient
    wallet: Wallet
    coordinator: JobsClient
    records: JobRecords


def development_payer() -> IdentityKey:
    """The first development account: who pays on a local network when nobody is named."""
    return IdentityKey(development_accounts()[0].secret_key)


def payer_of(network: JobNetwork, key_file: Path | None) -> IdentityKey:
    """The account that pays. Raises ConfigError when none is named."""
    if key_file is None:
        if not network.is_local:
            raise ConfigError("--key-file is missing: it names the account that pays")
        return development_payer()
    if not key_file.exists():
        raise ConfigError(f"{key_file} does not exist: --key-file names a file with a secret key in hex")
    return IdentityKey.load_or_create(key_file)


@contextmanager
def open_submission(network: JobNetwork, payer: IdentityKey) -> Iterator[Submission]:
    """A network's chain and coordinator, with the account that pays."""
    with network.coordinator() as coordinator:
        yield Submission(network.rpc, Wallet(payer, network.rpc), coordinator, network.records)


def find_model(rpc: RpcClient, name: str) -> dict[str, Any]:
    """The offer of this model. Raises ServiceError naming those that there are."""
    offers: list[dict[str, Any]] = rpc.call("warpgrid_models")
    for offer in offers:
        if offer["name"] == name:
            return offer
    known = ", ".join(sorted({offer["name"] for offer in offers})) or "none: no worker serves a model yet"
    raise ServiceError(f"no worker serves a model called `{name}`; served now: {known}")


def submit_job(
    to: Submission,
    request: JobRequest,
    price_max_wei: int | None,
    deadline_s: int,
    progress: Callable[[str], None],
    models_dir: Path = MODELS_DIR,
) -> Iterator[tuple[ClientJob, JobEvent]]:
    """Fund, hand in and follow one job. The last event has its receipt, or says why there is none.

    An exact request is ordered in tokens where its model is in `models_dir`: only then can its answer be disputed.
    `progress` is told what happens before the coordinator has the job. Raises ServiceError; a job that was funded and
    could not be handed in can be refunded after its deadline, and its file names it.
    """
    offer = find_model(to.rpc, request.model)
    salt = secrets.token_bytes(SALT_BYTES)
    request = _ordered(replace(request, tier=Tier(offer["tier"])), salt, offer, models_dir, progress)
    nonce = int.from_bytes(secrets.token_bytes(16), "big")
    if price_max_wei is None:
        input_wei, output_wei = offer["inputTokenWei"], offer["outputTokenWei"]
        price_wei = input_wei * input_tokens_max(request) + output_wei * request.sampling.tokens_max
    else:
        price_wei = price_max_wei
    operator = bytes.fromhex(to.rpc.call("warpgrid_status")["operator"][2:])
    order = (
        operator,
        _ANY_WORKER,
        int(request.tier),
        int(time.time()) + deadline_s,
        price_wei,
        bytes.fromhex(offer["hash"][2:]),
        request_hash(request, salt),
        nonce,
    )
    job_id = to.wallet.read(JOB_ESCROW, ESCROW_ADDRESS, "jobIdOf", to.wallet.address, nonce)
    progress(f"funding job 0x{job_id.hex()} with at most {price_wei} wei")
    job = ClientJob(job_id, request, salt, price_wei, opened_at_block=0)
    to.records.save(job)  # before the money moves: whoever has paid knows for what
    mined = to.wallet.transact(JOB_ESCROW, ESCROW_ADDRESS, "open", order, value_wei=price_wei)
    job = replace(job, opened_at_block=mined.block_number)
    to.records.save(job)
    progress(f"funded in block {mined.block_number}, handing it in")
    yield from follow_job(to, job)


def _ordered(
    request: JobRequest, salt: bytes, offer: dict[str, Any], models_dir: Path, progress: Callable[[str], None]
) -> JobRequest:
    if request.tier != Tier.EXACT:
        return request
    try:
        model = find_ordered(ModelStore(models_dir), bytes.fromhex(offer["hash"][2:]))
    except ModelNotFound:
        progress(f"the model is not in {models_dir}: the answer can be checked by others, but not disputed on chain")
        return request
    return replace(request, exact=exact_terms(model, request, salt))


def follow_job(to: Submission, job: ClientJob) -> Iterator[tuple[ClientJob, JobEvent]]:
    """Events of a funded job from its beginning; the answer is kept once it is whole."""
    attempt, text = 0, ""
    for event in to.coordinator.submit(SubmitJob(job.job_id, job.request, job.salt)):
        if event.attempt != attempt:
            attempt, text = event.attempt, ""
        text += event.text
        if event.receipt is not None:
            job = replace(job, output=text, answer=event.answer, signed=event.receipt)
            to.records.save(job)
        yield job, event
