"""Fetches what the chain has about a job and has it checked again (`market.verification`).

Logs and the registry come over JSON-RPC; salt, request and answer from the client's own file, where it is here.
"""

from typing import Any

from core.jobs.receipt import ReceiptDomain
from core.receipts import Log
from market.contracts import ESCROW_ADDRESS, REGISTRY_ADDRESS, WORKER_REGISTRY
from market.verification import Check, ClientSide, batch_topics, job_topics, read_record, verify
from node.client import RpcClient
from node.errors import ServiceError
from node.jobs.records import ClientJob
from node.wallet import Wallet

__all__ = ["verify_job"]


def verify_job(rpc: RpcClient, wallet: Wallet, job_id: bytes, known: ClientJob | None) -> tuple[Check, ...]:
    """Every check of this job, in order. Raises ServiceError when no such job was ever opened on this chain."""
    domain = ReceiptDomain(int(rpc.call("eth_chainId"), 16), ESCROW_ADDRESS)
    logs = _logs(rpc, job_topics(job_id))
    record = read_record(domain, job_id, logs)
    if record is None:
        raise ServiceError(f"job 0x{job_id.hex()} was never opened on this chain")
    signer = bytes(20)
    if record.accepted is not None:
        for topics in batch_topics(record.accepted.arguments["batchId"]):
            logs += _logs(rpc, topics)
        record = read_record(domain, job_id, logs) or record
        worker = record.accepted.arguments["worker"] if record.accepted else bytes(20)
        signer = wallet.read(WORKER_REGISTRY, REGISTRY_ADDRESS, "signerOf", worker)
    client = ClientSide() if known is None else ClientSide(known.salt, known.request, known.output)
    return verify(record, signer, client)


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
