"""`warpgrid testnet up|status|logs|down`."""

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.progress import Progress

from core.jobs.request import JobRequest, Message, Role, Sampling
from node.client import RpcClient
from node.errors import ConfigError, ServiceError, TestnetError
from node.executors import make_executor
from node.jobs.submit import open_submission, submit_job
from node.models import model_file, model_name, packaged_exact_model
from node.testnet import layout, processes, view
from node.testnet.genesis import testnet_genesis
from protos.messages import JobQuery
from worker.inference.cli_model import MODELS_DIR
from worker.inference.packaged import PACKAGED_MODEL

__all__ = ["app"]

app = typer.Typer(
    help="A local network on this machine: sequencer, workers and watcher, each a real process.", no_args_is_help=True
)
console = Console()

DATA_DIR = Path(".warpgrid/testnet")
START_TIMEOUT_S = 60
_REFRESH_INTERVAL_S = 0.5
_POLL_INTERVAL_S = 0.05

DataDir = Annotated[Path, typer.Option("--data-dir", help="folder of the network")]


@app.command()
def up(
    workers: Annotated[int, typer.Option(help="workers to start", min=1, max=layout.WORKERS_MAX)] = 2,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="return as soon as it runs")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="remove what an earlier run left, and begin anew")] = False,
    base_port: Annotated[
        int, typer.Option(help="JSON-RPC port; the others follow", min=1024, max=layout.BASE_PORT_MAX)
    ] = layout.BASE_PORT,
    model: Annotated[
        str,
        typer.Option(help="what the workers serve: `smollm2` (packaged), an exact model's directory, or a GGUF file"),
    ] = PACKAGED_MODEL,
    tier: Annotated[
        str, typer.Option(help="of the packaged model: exact (anybody can check its answers) or float")
    ] = "exact",
    models_dir: Annotated[Path, typer.Option(help="where exact models are kept")] = MODELS_DIR,
    executor: Annotated[str, typer.Option(help="what executes blocks: cpu or reference")] = "cpu",
    ask: Annotated[str, typer.Option(help="once it runs, ask this question and pay for the answer")] = "",
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Start a local network, or go on with the one in --data-dir. Ctrl-C stops it cleanly.

    Examples:  warpgrid testnet up  ·  warpgrid testnet up --workers 4 --detach  ·  warpgrid testnet up --fresh
    """
    began = time.monotonic()
    make_executor(executor)
    served = _served(model, tier, models_dir)
    wanted = layout.Testnet(data_dir.resolve(), workers, base_port, served, executor)
    network = layout.prepare(wanted, testnet_genesis, fresh=fresh)
    # A closed terminal must not leave processes behind; and a shell starts background jobs with SIGINT ignored.
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.default_int_handler)
    try:
        for member in network.members():
            processes.start(member)
        _wait_for_blocks(network)
        console.print(view.banner(network))
        console.print(f"first block after {time.monotonic() - began:.1f} s")
        _ask(network, ask, began)
        if detach:
            return
        _watch(network)
    except KeyboardInterrupt:
        console.print("stopping")
    except BaseException:
        processes.stop(network.members())
        raise
    killed = processes.stop(network.members())
    if killed:
        raise TestnetError(f"had to be killed: {', '.join(killed)}")


def _served(model: str, tier: str, models_dir: Path) -> str:
    """The workers' `model` setting. The packaged model is made exact once, which takes a quarter of a minute."""
    if tier not in ("exact", "float"):
        raise ConfigError(f"--tier {tier} is not known: it must be exact or float")
    if model == PACKAGED_MODEL and tier == "float":
        return model
    if model == PACKAGED_MODEL:
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("making the packaged model exact (once)", total=None)
            path = packaged_exact_model(
                models_dir, lambda done, total: progress.update(task, completed=done, total=total)
            )
        return str(path.resolve())
    if not model_file(model).exists():
        raise ConfigError(f"--model {model} does not exist: give an exact model, a GGUF file, or `{PACKAGED_MODEL}`")
    return str(Path(model).resolve())  # members start in their own folders


def _ask(network: layout.Testnet, question: str, began: float) -> None:
    """The main job, as a newcomer would run it: a question, its answer, its payment on chain. An error ends nothing."""
    if not question:
        return
    name = model_name(network.model)
    command = ["job", "submit", "--data-dir", str(network.data_dir), "--model", name]
    console.print(f'\n$ warpgrid {" ".join(command)} --prompt "{question}"', highlight=False)
    rpc = RpcClient(network.rpc_url)
    try:
        with console.status("waiting for a worker with a model"):
            _wait_until(lambda: bool(rpc.call("warpgrid_models")))
        with open_submission(network) as to:
            request = JobRequest(name, (Message(Role.USER, question),), Sampling(tokens_max=128))
            events = submit_job(to, request, None, START_TIMEOUT_S, lambda one: console.print(one, style="dim"))
            asked = None
            for job, event in events:
                asked = JobQuery(job.job_id, job.salt)
                console.print(event.text, end="", highlight=False)
                if event.receipt is not None:
                    break
            assert asked is not None, "a coordinator tells at least one event"
            console.print(f"\n\nanswered after {time.monotonic() - began:.1f} s; ", end="")
            with console.status("waiting for the settlement on chain"):
                _wait_until(lambda: to.coordinator.status(asked).state == "settled")
        console.print("paid for on chain; check it:")
        console.print(f"$ warpgrid job verify --data-dir {network.data_dir} 0x{asked.job_id.hex()}\n", highlight=False)
    except ServiceError as error:
        console.print(f"the question was not answered: {error}", style="red", highlight=False)


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not holds():
        if time.monotonic() > deadline:
            raise ServiceError(f"still not so after {START_TIMEOUT_S} s")
        time.sleep(_POLL_INTERVAL_S)


def _wait_for_blocks(network: layout.Testnet) -> None:
    """Until the chain has grown; raises TestnetError when a process ends first, with the end of its log."""
    deadline = time.monotonic() + START_TIMEOUT_S
    first: int | None = None
    with console.status("starting sequencer, workers and watcher"):
        while time.monotonic() < deadline:
            for member in network.members():
                if processes.running_pid(member) is None:
                    tail = "\n".join(list(processes.tail(member, follow=False))[-15:])
                    raise TestnetError(f"{member.name} ended while starting. The end of {member.log_file}:\n{tail}")
            status = _status(network)
            if status is not None:
                first = status["head"]["number"] if first is None else first
                if status["head"]["number"] > first:
                    return
            time.sleep(_POLL_INTERVAL_S)
    raise TestnetError(f"no block within {START_TIMEOUT_S} s: see `warpgrid testnet logs sequencer`")


def _status(network: layout.Testnet) -> dict[str, Any] | None:
    with contextlib.suppress(ServiceError):
        status: dict[str, Any] = RpcClient(network.rpc_url).call("warpgrid_status")
        return status
    return None


def _watch(network: layout.Testnet) -> None:
    if console.is_terminal:
        with Live(view.dashboard(network, None), console=console) as live:
            _each_refresh(network, lambda: live.update(view.dashboard(network, _status(network))))
    else:
        _each_refresh(network, lambda: None)


def _each_refresh(network: layout.Testnet, show: Callable[[], None]) -> None:
    while any(processes.running_pid(member) is not None for member in network.members()):
        show()
        time.sleep(_REFRESH_INTERVAL_S)
    console.print("every process was stopped")


@app.command()
def status(
    data_dir: DataDir = DATA_DIR, as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False
) -> None:
    """Which processes run, and what the chain, the workers and the jobs do.

    Example:  warpgrid testnet status --json
    """
    network = layout.find(data_dir)
    now = _status(network)
    if as_json:
        members = {one.name: processes.running_pid(one) for one in network.members()}
        sys.stdout.write(json.dumps({"rpc": network.rpc_url, "processes": members, "status": now}) + "\n")
        return
    console.print(view.members_table(network))
    console.print(view.dashboard(network, now))


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="process name; every process when left out")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on with new lines until Ctrl-C")] = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """The log of one process, or the end of each.

    Example:  warpgrid testnet logs worker-1 -f
    """
    network = layout.find(data_dir)
    known = {member.name: member for member in network.members()}
    if name and name not in known:
        raise TestnetError(f"there is no process `{name}`; the network has {', '.join(known)}")
    if follow and not name:
        raise TestnetError(f"-f follows one process: name it, one of {', '.join(known)}")
    with contextlib.suppress(KeyboardInterrupt):
        for member in [known[name]] if name else known.values():
            for line in processes.tail(member, follow=follow):
                sys.stdout.write(line + "\n" if name else f"{member.name}: {line}\n")


@app.command()
def down(data_dir: DataDir = DATA_DIR) -> None:
    """Stop every process of the network; its chain stays on disk.

    Example:  warpgrid testnet down
    """
    network = layout.find(data_dir)
    killed = processes.stop(network.members())
    console.print("stopped" if not killed else f"stopped; had to be killed: {', '.join(killed)}")
