"""`warpgrid job verify`: fetches what the chain has about a job and has it checked again (`market.verification`).

Logs and the registry come over JSON-RPC; salt, request and answer from the client's own file, where it is here.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from core.jobs.receipt import ReceiptDomain
from core.receipts import Log
from market.contracts import ESCROW_ADDRESS, REGISTRY_ADDRESS, WORKER_REGISTRY
from market.verification import Check, ClientSide, Verdict, batch_topics, job_topics, read_record
from market.verification import verify as check_record
from node.client import RpcClient
from node.errors import ServiceError
from node.jobs.network import AsJson, JobId, JobNetwork, on_network
from node.jobs.records import ClientJob
from node.wallet import read_contract

__all__ = ["verify", "verify_job"]

_MARKS = {Verdict.PASSED: "[green]✓[/]", Verdict.FAILED: "[red]✗[/]", Verdict.UNCHECKED: "[yellow]?[/]"}


@on_network
def verify(network: JobNetwork, job_id: JobId, as_json: AsJson = False) -> None:
    """Check a job again from chain data alone: order, signature, stake, inclusion, payment, and the hashes.

    Says what could not be checked, too. The exit status is 1 when a check fails.
    Example:  warpgrid job verify 0x5f0a... --json
    """
    checks = verify_job(network.rpc, job_id, network.records.load(job_id))
    holds = all(check.verdict != Verdict.FAILED for check in checks)
    if as_json:
        shown = [{"name": one.name, "verdict": one.verdict.value, "detail": one.detail} for one in checks]
        sys.stdout.write(json.dumps({"id": "0x" + job_id.hex(), "holds": holds, "checks": shown}) + "\n")
    else:
        _print_checks(checks)
    if not holds:
        raise typer.Exit(1)


def verify_job(rpc: RpcClient, job_id: bytes, known: ClientJob | None) -> tuple[Check, ...]:
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
        signer = read_contract(rpc, WORKER_REGISTRY, REGISTRY_ADDRESS, "signerOf", worker)
    client = ClientSide() if known is None else ClientSide(known.salt, known.request, known.output)
    return check_record(record, signer, client)


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


def _print_checks(checks: Sequence[Check]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("", "check", "what was seen"):
        table.add_column(title, overflow="fold")
    for check in checks:
        table.add_row(_MARKS[check.verdict], check.name, check.detail)
    Console().print(table)
