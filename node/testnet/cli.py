"""`warpgrid testnet status|logs|down`."""

import contextlib
import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from node.errors import TestnetError
from node.testnet import layout, processes, view
from node.testnet.layout import DATA_DIR, DataDir

__all__ = ["down", "logs", "status"]

console = Console()


def status(
    data_dir: DataDir = DATA_DIR, as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False
) -> None:
    """Which processes run, and what the chain, the workers and the jobs do.

    Example:  warpgrid testnet status --json
    """
    network = layout.find(data_dir)
    now = view.network_status(network)
    if as_json:
        members = {one.name: processes.running_pid(one) for one in network.members()}
        sys.stdout.write(json.dumps({"rpc": network.rpc_url, "processes": members, "status": now}) + "\n")
        return
    console.print(view.members_table(network))
    console.print(view.dashboard(network, now))


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


def down(data_dir: DataDir = DATA_DIR) -> None:
    """Stop every process of the network; its chain stays on disk.

    Example:  warpgrid testnet down
    """
    network = layout.find(data_dir)
    killed = processes.stop(network.members())
    console.print("stopped" if not killed else f"stopped; had to be killed: {', '.join(killed)}")
