"""A local network as it is now: which processes run, blocks made, jobs answered. Asks and draws; decides nothing."""

import contextlib
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from node.client import RpcClient
from node.errors import ServiceError
from node.testnet.layout import Testnet
from node.testnet.processes import running_pid

__all__ = ["dashboard", "members_table", "network_status"]


def network_status(network: Testnet) -> dict[str, Any] | None:
    """The sequencer's warpgrid_status; None while it does not answer."""
    with contextlib.suppress(ServiceError):
        status: dict[str, Any] = RpcClient(network.rpc_url).call("warpgrid_status")
        return status
    return None


def members_table(network: Testnet) -> Table:
    """Every process with its pid and whether it runs."""
    table = Table(box=None, pad_edge=False)
    for title in ("process", "pid", "state", "log"):
        table.add_column(title)
    for member in network.members():
        pid = running_pid(member)
        state = Text("running", "green") if pid else Text("stopped", "red")
        table.add_row(member.name, str(pid or "-"), state, str(member.log_file))
    return table


def dashboard(network: Testnet, status: dict[str, Any] | None) -> RenderableType:
    """One frame of the live view; `status` is `network_status`."""
    if status is None:
        return Panel(members_table(network), title="waiting for the sequencer")
    head, transactions = status["head"], status["transactions"]
    summary = Table.grid(padding=(0, 3))
    summary.add_row(
        f"block [bold]{head['number']}[/]",
        f"{head['hash'][:18]}…",
        f"[bold]{transactions['perSecond']}[/] tx/s",
        f"{transactions['total']} transactions",
    )
    halted = status["sealing"]["halted"]
    return Panel(
        Group(
            summary, Text(halted or "", "bold red"), _workers_table(status["workers"]), "", _jobs_table(status["jobs"])
        ),
        title=f"Warpgrid testnet  {network.rpc_url}",
        subtitle="Ctrl-C stops it",
    )


def _workers_table(workers: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("worker", "duty", "state", "executor", "models", "block", "jobs"):
        table.add_column(title)
    for one in workers:
        table.add_row(
            f"{one['address'][:12]}…",
            one["duty"],
            one["state"],
            one["executor"],
            ", ".join(one["models"]) or "-",
            str(one["block"]),
            str(one["jobsRunning"]),
        )
    return table


def _jobs_table(jobs: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("job", "model", "state", "worker", "tokens", "paid"):
        table.add_column(title)
    for one in jobs:
        worker = f"{one['worker'][:12]}…" if one["worker"] else "-"
        paid = f"{one['paidWei'] / 10**9:.0f} gwei" if one["paidWei"] else "-"
        table.add_row(f"{one['id'][:12]}…", one["model"], one["state"], worker, str(one["tokens"]), paid)
    return table
