"""`warpgrid job verify`: shows what `node.jobs.verify` finds."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from market.verification import Check, Verdict
from node.jobs.network import AsJson, JobId, JobNetwork, on_network
from node.jobs.settled import settled_job
from node.jobs.verify import verify_job
from worker.inference.cli_options import MODELS_DIR

__all__ = ["verify"]

_MARKS = {Verdict.PASSED: "[green]✓[/]", Verdict.FAILED: "[red]✗[/]", Verdict.UNCHECKED: "[yellow]?[/]"}


@on_network
def verify(
    network: JobNetwork,
    job_id: JobId,
    models_dir: Annotated[Path, typer.Option(help="where exact models are kept")] = MODELS_DIR,
    as_json: AsJson = False,
) -> None:
    """Check a job again from chain data alone: order, signature, stake, inclusion, payment, and the hashes.

    An exact answer is run again, if its model is here.
    Says what could not be checked, too. The exit status is 1 when a check fails.
    Example:  warpgrid job verify 0x5f0a... --json
    """
    known, settled = settled_job(network, job_id, Console(stderr=True).print)
    checks = verify_job(network.rpc, job_id, known, settled, models_dir)
    holds = all(check.verdict != Verdict.FAILED for check in checks)
    if as_json:
        shown = [{"name": one.name, "verdict": one.verdict.value, "detail": one.detail} for one in checks]
        sys.stdout.write(json.dumps({"id": "0x" + job_id.hex(), "holds": holds, "checks": shown}) + "\n")
    else:
        _print_checks(checks)
    if not holds:
        raise typer.Exit(1)


def _print_checks(checks: Sequence[Check]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("", "check", "what was seen"):
        table.add_column(title, overflow="fold")
    for check in checks:
        table.add_row(_MARKS[check.verdict], check.name, check.detail)
    Console().print(table)
