"""A sequencer that executes its own blocks, as a process of its own.

    python -m tests.integration.local_sequencer DATA_DIR [--port P] [--interval-ms MS] [--executor cpu] [--genesis FILE]

Prints one JSON line with its URL once it serves, runs until SIGTERM or SIGINT, then prints one with what it did. The
development accounts of anvil (mnemonic "test test test test test test test test test test test junk") are funded.
"""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from core.execution import Executor
from core.genesis import Genesis, dev_genesis, load_genesis
from core.store import Replica
from node.executors import EXECUTORS, make_executor
from sequencer.mempool import Journal
from sequencer.ports import LocalExecution, SystemClock
from sequencer.production import ProductionSettings
from sequencer.service import Sequencer, SequencerSettings

__all__ = ["CHAIN_ID", "DEV_ACCOUNTS", "DEV_KEYS", "RunningSequencer", "genesis", "running_sequencer"]

CHAIN_ID = 7_357
DEV_KEYS = (
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
)
DEV_ACCOUNTS = ("0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "0x70997970C51812dc3A010C7d01b50e0d17dc79C8")
_ETHER = 10**18
_GENESIS_TIME = 1_700_000_000
_STARTUP_S = 60


def genesis() -> Genesis:
    """A chain under Osaka's rules with two rich accounts."""
    balances = {bytes.fromhex(address[2:]): 10_000 * _ETHER for address in DEV_ACCOUNTS}
    return Genesis.from_geth(dev_genesis(CHAIN_ID, balances, {}, timestamp=_GENESIS_TIME))


async def serve(data_dir: Path, port: int, interval_s: float, executor: Executor, start: Genesis) -> dict[str, float]:
    """Run until a signal; what the metrics say at the end."""
    chain = Replica.open(data_dir, start)
    registry = CollectorRegistry()
    execution = LocalExecution(chain, executor)
    settings = SequencerSettings(ProductionSettings(coinbase=b"\xc0" * 20, interval_s=interval_s), port=port)
    journal = Journal(data_dir / "mempool.journal")
    calls = make_executor("reference")  # as a real sequencer's: several threads share it
    sequencer = Sequencer(chain, execution, calls, SystemClock(), settings, registry, journal)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, sequencer.stop)
    running = asyncio.create_task(sequencer.run())
    await sequencer.started()
    cpu_began_s = time.process_time()
    _tell({"url": sequencer.url})
    await running
    execution.close()
    journal.close()
    chain.close()
    names = ("warpgrid_execution_seconds_sum", "warpgrid_sealing_seconds_sum", "warpgrid_transactions_total")
    counted = {name: registry.get_sample_value(name) or 0.0 for name in names}
    return counted | {"process_cpu_seconds": time.process_time() - cpu_began_s}


def _tell(fact: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(fact) + "\n")
    sys.stdout.flush()


class RunningSequencer:
    """A sequencer process: its URL, and after `stop` what it did."""

    def __init__(self, data_dir: Path, interval_ms: int, executor: str, genesis_file: Path | None) -> None:
        options = ["--interval-ms", str(interval_ms), "--executor", executor]
        options += [] if genesis_file is None else ["--genesis", str(genesis_file)]
        command = [sys.executable, "-m", __name__, str(data_dir), *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url: str = json.loads(self._process.stdout.readline())["url"]
        self.metrics: dict[str, float] = {}

    @property
    def web_socket_url(self) -> str:
        return self.url.replace("http://", "ws://")

    def stop(self) -> None:
        """End it in good order and read its last line."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            output, _ = self._process.communicate(timeout=_STARTUP_S)
            self.metrics = json.loads(output.splitlines()[-1])


@contextmanager
def running_sequencer(
    data_dir: Path, interval_ms: int = 100, executor: str = "cpu", genesis_file: Path | None = None
) -> Iterator[RunningSequencer]:
    """A sequencer for as long as the block lasts; with a genesis of its own if none is given."""
    running = RunningSequencer(data_dir, interval_ms, executor, genesis_file)
    try:
        yield running
    finally:
        running.stop()


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--interval-ms", type=int, default=250)
    parser.add_argument("--executor", choices=EXECUTORS, default="cpu")
    parser.add_argument("--genesis", type=Path)
    given = parser.parse_args()
    start = load_genesis(given.genesis) if given.genesis else genesis()
    executor = make_executor(given.executor)
    _tell(asyncio.run(serve(given.data_dir, given.port, given.interval_ms / 1000, executor, start)))


if __name__ == "__main__":
    main()
