"""What `warpgrid testnet up` shows: which processes run, blocks made, jobs answered. Draws; decides nothing."""

from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from node.accounts import DEVELOPMENT_BALANCE_WEI, DEVELOPMENT_MNEMONIC, development_accounts
from node.testnet.layout import CHAIN_ID, Testnet
from node.testnet.processes import running_pid

__all__ = ["WEI_PER_ETHER", "banner", "dashboard", "members_table"]

WEI_PER_ETHER = 10**18


def banner(network: Testnet) -> Text:
    """Accounts, keys and addresses, as anvil prints them."""
    lines = ["", "Development accounts (public keys and mnemonic: test money only)", ""]
    accounts = development_accounts()
    balance = DEVELOPMENT_BALANCE_WEI // WEI_PER_ETHER
    lines += [f"  ({i}) 0x{one.address.hex()}  {balance} ETH" for i, one in enumerate(accounts)]
    lines += ["", "Private keys", ""]
    lines += [f"  ({i}) 0x{one.secret_key.hex()}" for i, one in enumerate(accounts)]
    lines += [
        "",
        f"  Mnemonic   {DEVELOPMENT_MNEMONIC}",
        f"  Chain id   {CHAIN_ID}",
        f"  JSON-RPC   {network.rpc_url}   (WebSocket on the same port)",
        f"  Workers    {network.grpc_address}   (gRPC, mutual TLS)",
        f"  Data       {network.data_dir}",
        "",
        f'  Ask it     warpgrid job submit --data-dir {network.data_dir} --model smollm2 --prompt "..."',
        "",
    ]
    return Text("\n".join(lines))


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
    """One frame of the live view; `status` is the sequencer's warpgrid_status, None while it does not answer."""
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
