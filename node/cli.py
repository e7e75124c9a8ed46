"""The `warpgrid` command: puts the rooms' commands together and is the process edge where typed errors become exits."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from core.errors import WarpgridError
from node.config import ROLES, SequencerConfig, WorkerConfig, example_toml, with_flags
from node.doctor import examine, show
from node.errors import ConfigError
from node.inference.cli import app as inference_app
from node.jobs.cli import app as job_app
from node.logs import configure
from node.sequencer import run_sequencer
from node.testnet.cli import app as testnet_app
from node.worker import run_worker
from worker.doctor import report
from worker.evm.cli import app as evm_app
from worker.inference.cli_model import app as model_app
from worker.inference.cli_proofs import app as proofs_app

__all__ = ["app", "main"]

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="warpgrid",
    help="A GPU network: an Ethereum L2 executed by CUDA kernels, and an open market for AI compute.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Settings files.", no_args_is_help=True)
sequencer_app = typer.Typer(help="Operate a sequencer.", no_args_is_help=True)
worker_app = typer.Typer(help="Operate a worker.", no_args_is_help=True)
app.add_typer(testnet_app, name="testnet")
app.add_typer(sequencer_app, name="sequencer")
app.add_typer(worker_app, name="worker")
app.add_typer(job_app, name="job")
inference_app.add_typer(proofs_app)
app.add_typer(inference_app, name="inference")
app.add_typer(model_app, name="model")
app.add_typer(evm_app, name="evm")
app.add_typer(config_app, name="config")


@sequencer_app.callback()
def _sequencer() -> None:
    """Operate a sequencer."""


@sequencer_app.command("start")
@with_flags(SequencerConfig)
def sequencer_start(config: SequencerConfig) -> None:
    """Order transactions, coordinate workers and jobs, serve JSON-RPC, until Ctrl-C.

    Example:  warpgrid sequencer start --config sequencer.toml --rpc-port 8545
    """
    configure("sequencer", config.log_level)
    run_sequencer(config)


@worker_app.command("start")
@with_flags(WorkerConfig)
def worker_start(config: WorkerConfig) -> None:
    """Join a network: keep a replica, execute blocks, run AI jobs, until Ctrl-C.

    Example:  warpgrid worker start --sequencer 10.0.0.5:8550 --genesis genesis.json --model smollm2
    """
    configure("worker", config.log_level)
    run_worker(config)


@worker_app.command("doctor")
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
        raise typer.Exit(EXIT_ERROR)


@config_app.command("init")
def config_init(
    role: Annotated[str, typer.Argument(help=f"one of {', '.join(ROLES)}")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="file to write; standard output if left out")
    ] = None,
) -> None:
    """Write a commented settings file with every setting of a role at its default.

    Example:  warpgrid config init worker -o worker.toml
    """
    if role not in ROLES:
        raise ConfigError(f"there is no role `{role}`; roles are {', '.join(ROLES)}")
    if output is None:
        sys.stdout.write(example_toml(role))
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(example_toml(role))
    except FileExistsError as error:
        raise ConfigError(f"{output} exists; choose another name, so that nothing is overwritten") from error
    except OSError as error:
        raise ConfigError(f"cannot write {output}: {error.strerror}") from error


def main() -> int:
    """Run the command line. A typed error becomes one sentence on standard error and exit status 1."""
    try:
        app()
    except WarpgridError as error:
        _tell(error.code, str(error))
        return EXIT_ERROR
    except OSError as error:  # a folder that cannot be written, a full disk: the user's to mend, and told as such
        _tell("system", f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return EXIT_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


def _tell(code: str, message: str) -> None:
    if "--json" in sys.argv:
        sys.stdout.write(json.dumps({"error": {"code": code, "message": message}}) + "\n")
        return
    notes = Console(stderr=True, soft_wrap=True)
    notes.print(f"[bold red]error[/] {code}: ", end="", highlight=False)
    notes.print(message, markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
