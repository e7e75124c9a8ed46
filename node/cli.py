"""The `warpgrid` command: puts the rooms' commands together and is the process edge where typed errors become exits."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from core.errors import WarpgridError
from node.config import ROLES, example_toml
from node.errors import ConfigError
from node.lazy import LazyGroup, defer

__all__ = ["app", "main"]

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130
_E = TypeVar("_E", bound=BaseException)

app = typer.Typer(
    cls=LazyGroup,
    name="warpgrid",
    help="A GPU network: an Ethereum L2 executed by CUDA kernels, and an open market for AI compute.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _group(name: str, sentence: str, commands: Mapping[str, tuple[str, str]]) -> typer.Typer:
    """A group of deferred commands: for each its target and its sentence."""
    group = typer.Typer(cls=LazyGroup, help=sentence, no_args_is_help=True)
    for command, (target, what) in commands.items():
        defer(group, command, target, what)
    app.add_typer(group, name=name)
    return group


_group(
    "testnet",
    "A local network on this machine: sequencer, workers and watcher, each a real process.",
    {
        "up": ("node.testnet.up:up", "Start a local network, or go on with the one in --data-dir."),
        "status": ("node.testnet.cli:status", "Which processes run, and what the chain, the workers and the jobs do."),
        "logs": ("node.testnet.cli:logs", "The log of one process, or the end of each."),
        "down": ("node.testnet.cli:down", "Stop every process of the network; its chain stays on disk."),
    },
)
_group(
    "job",
    "Ask a model, pay for the answer, and check it.",
    {
        "submit": (
            "node.jobs.submit_command:submit",
            "Fund a job in escrow, have a worker answer it, and stream the answer as it is made.",
        ),
        "status": (
            "node.jobs.cli:status",
            "What the coordinator knows of a job; with its answer where it was submitted from here.",
        ),
        "list": ("node.jobs.cli:list_jobs", "The newest jobs that the coordinator knows, whoever submitted them."),
        "cancel": ("node.jobs.cli:cancel", "End a job that has no receipt yet; its money goes back."),
        "dispute": (
            "node.jobs.dispute_command:dispute",
            "Compute an exact answer anew and, if the receipt is wrong, prove it on chain.",
        ),
        "demand": (
            "node.jobs.demand_command:demand",
            "Have a settled job's receipt shown on chain, or take the money back.",
        ),
        "verify": (
            "node.jobs.verify_command:verify",
            "Check a job again from chain data alone: order, signature, stake, inclusion, payment, and the hashes.",
        ),
    },
)
_group(
    "sequencer",
    "Operate a sequencer.",
    {
        "start": (
            "node.operate:sequencer_start",
            "Order transactions, coordinate workers and jobs, serve JSON-RPC, until Ctrl-C.",
        ),
    },
)
_group(
    "worker",
    "Operate a worker.",
    {
        "start": (
            "node.operate:worker_start",
            "Join a network: keep a replica, execute blocks, run AI jobs, until Ctrl-C.",
        ),
        "doctor": (
            "node.operate:worker_doctor",
            "Check keys, disk, GPU, model, connection, clock and chain, and say how to mend what is wrong.",
        ),
    },
)
defer(app, "inference", "node.inference.cli:app", "Run a model on this machine, exactly.")
defer(app, "model", "worker.inference.cli_model:app", "Models that every machine runs to the same bytes.")
defer(app, "evm", "worker.evm.cli:app", "The EVM: state tests, blocks, programs, speed.")
config_app = _group("config", "Settings files.", {})


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
    status = 0
    try:
        app()
    except* WarpgridError as errors:  # a role that runs several things at once ends with a group of them
        for error in _each(errors):
            _tell(error.code, str(error))
        status = EXIT_ERROR
    except* OSError as errors:  # a folder that cannot be written, a full disk: the user's to mend, and told as such
        for failure in _each(errors):
            _tell("system", f"{failure.filename}: {failure.strerror}" if failure.filename else str(failure))
        status = EXIT_ERROR
    except* KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    return status


def _each(group: BaseExceptionGroup[_E]) -> Iterator[_E]:
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _each(one)
        else:
            yield one


def _tell(code: str, message: str) -> None:
    if "--json" in sys.argv:
        sys.stdout.write(json.dumps({"error": {"code": code, "message": message}}) + "\n")
        return
    typer.secho("error", fg="red", bold=True, nl=False, err=True)
    typer.echo(f" {code}: {message}", err=True)


if __name__ == "__main__":
    sys.exit(main())
