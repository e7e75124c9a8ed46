"""Fetches what the chain has about a job and has it checked again (`market.verification`).

State and logs come over JSON-RPC; salt, request, answer and receipt from the client's own file, where it is here; where
the receipt was settled, from the coordinator, whose word is checked against the chain.
"""

import asyncio
from pathlib import Path
from typing import Any

from core.jobs.receipt import ReceiptDomain
from core.jobs.request import Tier, decode_tokens
from core.receipts import Log
from market.contracts import ESCROW_ADDRESS, JOB_ESCROW, REGISTRY_ADDRESS, WORKER_REGISTRY
from market.verification import Check, ClientSide, JobState, Recomputed, batch_topics, job_topics, read_record, verify
from node.client import RpcClient
from node.errors import ServiceError
from node.jobs.records import ClientJob
from node.models import load_model
from node.wallet import read_contract
from protos.job_messages import JobRecord
from worker.inference.engine import Completion, Piece
from worker.inference.errors import ModelNotFound
from worker.inference.exact.model import ModelStore
from worker.inference.exact.ordering import find_ordered

__all__ = ["verify_job"]


def verify_job(
    rpc: RpcClient, job_id: bytes, known: ClientJob | None, settled: JobRecord | None, models_dir: Path
) -> tuple[Check, ...]:
    """Every check of this job, in order. An exact one is run again with the model in `models_dir`, if it is there.

    `settled` is what the coordinator says of it, for a receipt that is in no file here. Raises ServiceError when no
    such job was ever opened on this chain.
    """
    domain = ReceiptDomain(int(rpc.call("eth_chainId"), 16), ESCROW_ADDRESS)
    state = JobState.from_solidity(read_contract(rpc, JOB_ESCROW, ESCROW_ADDRESS, "jobOf", job_id))
    logs = _logs(rpc, job_topics(job_id))
    if state.is_settled:
        for topics in batch_topics(state.batch_id):
            logs += _logs(rpc, topics)
    record = read_record(domain, job_id, state, logs)
    if record is None:
        raise ServiceError(f"job 0x{job_id.hex()} was never opened on this chain")
    signer = bytes(20)
    if state.is_settled:
        signer = read_contract(rpc, WORKER_REGISTRY, REGISTRY_ADDRESS, "signerOf", state.worker)
    signed = (known.signed if known else None) or (settled.receipt if settled else None)
    inclusion = (settled.inclusion if settled else None) or (known.inclusion if known else None)
    if known is None:
        again = Recomputed(detail="only who has the request can tell")
        return verify(record, signer, ClientSide(recomputed=again, signed=signed, inclusion=inclusion))
    again = recompute(known, record.opened.arguments["order"][5], models_dir)
    return verify(record, signer, ClientSide(known.salt, known.request, known.output, again, signed, inclusion))


def recompute(known: ClientJob, model_hash: bytes, models_dir: Path) -> Recomputed:
    """Run an exact job again, if this machine has its model. The tokens that the worker disclosed make it quick where
    they are right, and change nothing where they are not."""
    if known.request.tier != Tier.EXACT:
        return Recomputed()
    try:
        path = find_ordered(ModelStore(models_dir), model_hash).directory
    except ModelNotFound:
        return Recomputed(detail=f"whoever has the model can tell: 0x{model_hash.hex()} is not in {models_dir}")
    return asyncio.run(_run_again(known, path))


async def _run_again(known: ClientJob, path: Path) -> Recomputed:
    loaded = await load_model(str(path), 0)
    try:
        expected = decode_tokens(known.answer)
        parts = [part async for part in loaded.engine.generate(known.request, known.salt, expected)]
    finally:
        await loaded.engine.close()
    completion = parts[-1]
    assert isinstance(completion, Completion), "an answer ends with its completion"
    return Recomputed(completion.trace_root, "".join(part.text for part in parts if isinstance(part, Piece)))


def _logs(rpc: RpcClient, topics: tuple[bytes | None, ...]) -> list[Log]:
    wanted = {
        "fromBlock": "earliest",
        "toBlock": "latest",
        "address": "0x" + ESCROW_ADDRESS.hex(),
        "topics": [None if topic is None else "0x" + topic.hex() for topic in topics],
    }
    return [_log(one) for one in rpc.call("eth_getLogs", wanted)]


def _log(one: dict[str, Any]) -> Log:
    topics = tuple(bytes.fromhex(topic[2:]) for topic in one["topics"])
    return Log(bytes.fromhex(one["address"][2:]), topics, bytes.fromhex(one["data"][2:]))
