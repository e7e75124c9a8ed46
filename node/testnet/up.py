"""`warpgrid testnet up`: makes a local network or goes on with one, starts its processes, and watches them.

With --ask it also does what a newcomer would: asks a question, and waits until the answer is paid for on chain.
"""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.progress import Progress
from rich.text import Text

from core.jobs.request import JobRequest, Message, Role, Sampling
from node.accounts import DEVELOPMENT_BALANCE_WEI, DEVELOPMENT_MNEMONIC, development_accounts
from node.client import RpcClient
from node.errors import ConfigError, ServiceError, TestnetError
from node.executors import make_executor
from node.jobs.network import JobNetwork
from node.jobs.submit import development_payer, open_submission, submit_job
from node.models import model_file, model_name, packaged_exact_model
from node.testnet import layout, processes, view
from node.testnet.genesis import testnet_genesis
from node.testnet.view import network_status
from protos.job_messages import JobQuery
from worker.inference.cli_options import MODELS_DIR
from worker.inference.packaged import PACKAGED_MODEL

__all__ = ["up"]

console = Console()

START_TIMEOUT_S = 60
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_REFRESH_INTERVAL_S = 0.5
_POLL_INTERVAL_S = 0.05
_WEI_PER_ETHER = 10**18


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
    data_dir: layout.DataDir = layout.DATA_DIR,
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
    for one in _INTERRUPTS:
        signal.signal(one, _interrupt_once)
    try:
        for member in network.members():
            processes.start(member)
        _wait_for_blocks(network)
        console.print(_banner(network))
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


def _interrupt_once(_number: int, _frame: FrameType | None) -> None:
    """The first signal stops the network; one more (`make` passes on what it got with its group) must not stop that."""
    for one in _INTERRUPTS:
        signal.signal(one, signal.SIG_IGN)
    raise KeyboardInterrupt


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
        with open_submission(JobNetwork.local(network), development_payer()) as to:
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
            status = network_status(network)
            if status is not None:
                first = status["head"]["number"] if first is None else first
                if status["head"]["number"] > first:
                    return
            time.sleep(_POLL_INTERVAL_S)
    raise TestnetError(f"no block within {START_TIMEOUT_S} s: see `warpgrid testnet logs sequencer`")


def _watch(network: layout.Testnet) -> None:
    if console.is_terminal:
        with Live(view.dashboard(network, None), console=console) as live:
            _each_refresh(network, lambda: live.update(view.dashboard(network, network_status(network))))
    else:
        _each_refresh(network, lambda: None)


def _each_refresh(network: layout.Testnet, show: Callable[[], None]) -> None:
    while any(processes.running_pid(member) is not None for member in network.members()):
        show()
        time.sleep(_REFRESH_INTERVAL_S)
    console.print("every process was stopped")


def _banner(network: layout.Testnet) -> Text:
    """Accounts, keys and addresses, as anvil prints them."""
    lines = ["", "Development accounts (public keys and mnemonic: test money only)", ""]
    accounts = development_accounts()
    balance = DEVELOPMENT_BALANCE_WEI // _WEI_PER_ETHER
    lines += [f"  ({i}) 0x{one.address.hex()}  {balance} ETH" for i, one in enumerate(accounts)]
    lines += ["", "Private keys", ""]
    lines += [f"  ({i}) 0x{one.secret_key.hex()}" for i, one in enumerate(accounts)]
    lines += [
        "",
        f"  Mnemonic   {DEVELOPMENT_MNEMONIC}",
        f"  Chain id   {layout.CHAIN_ID}",
        f"  JSON-RPC   {network.rpc_url}   (WebSocket on the same port)",
        f"  Workers    {network.grpc_address}   (gRPC, mutual TLS)",
        f"  Data       {network.data_dir}",
        "",
        f'  Ask it     warpgrid job submit --data-dir {network.data_dir} --model smollm2 --prompt "..."',
        "",
    ]
    return Text("\n".join(lines))
