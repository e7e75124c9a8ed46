"""`warpgrid job status|list|cancel`: what needs nothing but the coordinator."""

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from node.errors import ServiceError
from node.jobs.network import AsJson, JobId, JobNetwork, on_network
from protos.job_messages import JobQuery, JobRecord, ListJobs

__all__ = ["cancel", "list_jobs", "status"]

_LIST_MAX = 256


@on_network
def status(network: JobNetwork, job_id: JobId, as_json: AsJson = False) -> None:
    """What the coordinator knows of a job; with its answer where it was submitted from here.

    Example:  warpgrid job status 0x5f0a...  (ids: `warpgrid job list`)
    """
    with network.coordinator() as coordinator:
        known = network.records.load(job_id)
        record = coordinator.status(JobQuery(job_id, known.salt if known else b""))
        _print_records([record], as_json)


@on_network
def list_jobs(network: JobNetwork, as_json: AsJson = False) -> None:
    """The newest jobs that the coordinator knows, whoever submitted them.

    Example:  warpgrid job list --json
    """
    with network.coordinator() as coordinator:
        _print_records(list(coordinator.list(ListJobs(0, _LIST_MAX)).jobs), as_json)


@on_network
def cancel(network: JobNetwork, job_id: JobId, as_json: AsJson = False) -> None:
    """End a job that has no receipt yet; its money goes back.

    Example:  warpgrid job cancel 0x5f0a...
    """
    with network.coordinator() as coordinator:
        known = network.records.load(job_id)
        if known is None:
            raise ServiceError(f"job 0x{job_id.hex()} was not submitted from here, and only its client may cancel it")
        _print_records([coordinator.cancel(JobQuery(job_id, known.salt))], as_json)


def _as_json(record: JobRecord) -> dict[str, Any]:
    receipt = record.receipt.receipt if record.receipt else None
    return {
        "id": "0x" + record.job_id.hex(),
        "state": record.state,
        "attempt": record.attempt,
        "worker": "0x" + record.worker.hex() if record.worker else None,
        "detail": record.detail,
        "output": record.output,
        "output_tokens": receipt.output_tokens if receipt else None,
        "price_wei": receipt.total_wei if receipt else None,
        "settlement": "0x" + record.settlement.hex() if record.settlement else None,
        "audit": record.audit,
        "submitted_at_ms": record.submitted_at_ms,
        "deadline_ms": record.deadline_ms,
    }


def _print_records(records: list[JobRecord], as_json: bool) -> None:
    if as_json:
        for record in records:
            sys.stdout.write(json.dumps(_as_json(record)) + "\n")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("job", "state", "worker", "tokens", "wei", "audit", "detail"):
        table.add_column(title)
    for record in records:
        shown = _as_json(record)
        cells = (shown[name] for name in ("id", "state", "worker", "output_tokens", "price_wei", "audit", "detail"))
        table.add_row(*("-" if cell is None else str(cell) for cell in cells))
    Console().print(table)
    if len(records) == 1 and records[0].output is not None:
        sys.stdout.write(f"\n{records[0].output}\n")
