"""`warpgrid worker doctor`: what keeps this worker from working, and how to mend it."""

import asyncio
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from core.genesis import Genesis, load_genesis
from core.store.reader import ReplicaReader
from node.client import parse_address
from node.config import WorkerConfig
from node.keys import IdentityKey, SequencerPin, WorkerTls
from node.models import model_file
from node.paths import chain_dir, identity_file, keys_dir
from protos.messages import BlockReference
from worker.doctor import Doctor, DoctorSettings, Finding, Severity
from worker.rpc import DialerConfig, GrpcDialer

__all__ = ["examine", "show"]

_STYLES = {Severity.OK: "green", Severity.WARN: "yellow", Severity.FAIL: "red"}


def examine(config: WorkerConfig) -> list[Finding]:
    """Every finding about the worker of these settings. Raises GenesisError or ConfigError for unusable settings."""
    genesis = load_genesis(config.genesis)
    host, port = parse_address(config.sequencer)
    config.data_dir.mkdir(parents=True, exist_ok=True)
    keys = keys_dir(config.data_dir)
    probe = GrpcDialer(
        DialerConfig(host, port),
        genesis.config.chain_id,
        IdentityKey.load_or_create(identity_file(config.data_dir)),
        WorkerTls.load_or_create(keys),
        SequencerPin(keys / "sequencer.crt", config.sequencer_fingerprint),
    )
    settings = DoctorSettings(
        config.data_dir,
        config.executor,
        config.sequencer,
        genesis.config.chain_id,
        genesis.block.hash,
        model_file(config.model) if config.model else None,
    )
    doctor = Doctor(
        settings,
        probe,
        load_address=lambda: IdentityKey.load_or_create(identity_file(config.data_dir)).address,
        own_head=lambda: _own_head(config, genesis),
        now_ms=lambda: time.time_ns() // 1_000_000,
    )
    return asyncio.run(doctor.examine())


def _own_head(config: WorkerConfig, genesis: Genesis) -> BlockReference | None:
    path = chain_dir(config.data_dir)
    if not (path / "state").is_dir():
        return None
    head = ReplicaReader.open_read_only(path, genesis).head()
    return BlockReference(head.number, head.hash)


def show(findings: Sequence[Finding]) -> None:
    """Print the findings as a table."""
    table = Table(box=None, pad_edge=False)
    for title in ("", "check", "found", "how to mend it"):
        table.add_column(title, overflow="fold")
    for one in findings:
        table.add_row(f"[{_STYLES[one.severity]}]{one.severity.value}[/]", one.check, one.detail, one.mend)
    Console().print(table)
