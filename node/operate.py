"""`warpgrid sequencer start`, `warpgrid worker start|doctor`: one role on this machine, by hand."""

import json
import sys
from typing import Annotated

import typer

from node.config import SequencerConfig, WorkerConfig, with_flags
from node.doctor import examine, show
from node.logs import configure
from node.sequencer import run_sequencer
from node.worker import run_worker
from worker.doctor import report

__all__ = ["sequencer_start", "worker_doctor", "worker_start"]


@with_flags(SequencerConfig)
def sequencer_start(config: SequencerConfig) -> None:
    """Order transactions, coordinate workers and jobs, serve JSON-RPC, until Ctrl-C.

    Example:  warpgrid sequencer start --config sequencer.toml --rpc-port 8545
    """
    configure("sequencer", config.log_level)
    run_sequencer(config)


@with_flags(WorkerConfig)
def worker_start(config: WorkerConfig) -> None:
    """Join a network: keep a replica, execute blocks, run AI jobs, until Ctrl-C.

    Example:  warpgrid worker start --sequencer 10.0.0.5:8550 --genesis genesis.json --model smollm2
    """
    configure("worker", config.log_level)
    run_worker(config)


@with_flags(WorkerConfig)
def worker_doctor(
    config: WorkerConfig, as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False
) -> None:
    """Check keys, disk, GPU, model, connection, clock and chain, and say how to mend what is wrong.

    The exit status is 1 when something keeps the worker from working.
    Example:  warpgrid worker doctor --config worker.toml
    """
    findings = examine(config)
    if as_json:
        sys.stdout.write(json.dumps(report(findings)) + "\n")
    else:
        show(findings)
    if not report(findings)["healthy"]:
        raise typer.Exit(1)
