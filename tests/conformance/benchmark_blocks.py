"""Gas-heavy blocks (vectors/benchmark) through any executor: correct first, then timed.

    python -m tests.conformance.benchmark_blocks [PATH...] --executor reference --gas-max 30000000 --match sha256

Each test is a small chain of Osaka; every root and the gas of each of its headers must come out. Printed for each: gas,
seconds spent in the executor alone (the best of `--repeats`), and million gas a second; with `--cpu-time` seconds of
this process's processors, for a machine that does other things as well. `--no-memo` takes the remembered answers of
precompiles away from the executor `cpu`. The last line is `N passed, M failed`.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from core.block import decode_block, header_hash
from core.chain import SealedBlock
from core.errors import WarpgridError
from core.execution import BlockContext, ExecutionOutcome, Executor
from core.fork import ChainConfig
from core.genesis import Genesis
from core.state import StateDifference, StateReader
from core.transaction import TransactionColumns
from node.executors import EXECUTORS
from tests.conformance.chain_file import read_blocks, replay
from tests.conformance.state_tests import read_accounts
from tests.conformance.vectors import VECTORS, read
from worker.evm import Engine
from worker.evm.native_executor import NativeExecutor
from worker.evm.reference import ReferenceExecutor

__all__ = ["BenchmarkTest", "Timing", "read_benchmarks", "run"]

_OSAKA = {
    **dict.fromkeys(("homesteadBlock", "eip150Block", "eip155Block", "eip158Block", "byzantiumBlock"), 0),
    **dict.fromkeys(("constantinopleBlock", "petersburgBlock", "istanbulBlock", "berlinBlock", "londonBlock"), 0),
    **dict.fromkeys(("terminalTotalDifficulty", "shanghaiTime", "cancunTime", "pragueTime", "osakaTime"), 0),
}


@dataclass(frozen=True, slots=True)
class BenchmarkTest:
    """One blockchain test: where it starts, its blocks, and the gas of all of them together."""

    name: str
    genesis: Genesis
    blocks: tuple[SealedBlock, ...]

    @property
    def gas_used(self) -> int:
        return sum(one.block.header.gas_used for one in self.blocks)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the executor alone took for a test's blocks; `failure` names the first commitment that was wrong."""

    gas_used: int
    execution_s: float
    failure: str | None

    @property
    def mgas_per_s(self) -> float:
        return self.gas_used / 1e6 / self.execution_s if self.execution_s else 0.0


def read_benchmarks(path: Path, gas_max: int | None = None, match: str = "") -> Iterator[BenchmarkTest]:
    """The tests of an archive, folder or file whose names contain `match` and whose gas is at most `gas_max`."""
    for file_name, raw in read(path):
        for key, content in orjson.loads(raw).items():
            name = f"{file_name}::{key.rsplit('::', 1)[-1]}"
            gas = sum(int(one["blockHeader"]["gasUsed"], 16) for one in content["blocks"])
            if match in name and (gas_max is None or gas <= gas_max):
                yield _benchmark(name, content)


def _benchmark(name: str, content: dict[str, Any]) -> BenchmarkTest:
    assert content["network"] == "Osaka"
    start = decode_block(bytes.fromhex(content["genesisRLP"][2:]))
    changes = {address: one.as_change() for address, one in read_accounts(content["pre"]).items()}
    config = ChainConfig.from_geth({**_OSAKA, "chainId": int(content["config"]["chainid"], 16)})
    sealed = SealedBlock(header_hash(start.header), start)
    raw = b"".join(bytes.fromhex(one["rlp"][2:]) for one in content["blocks"])
    return BenchmarkTest(name, Genesis(config, sealed, StateDifference.from_changes(changes)), tuple(read_blocks(raw)))


class _Timed:
    """As much of an executor as replaying needs, with the time that it took."""

    def __init__(self, executor: Executor, clock_s: Callable[[], float]) -> None:
        self._executor = executor
        self._clock_s = clock_s
        self.elapsed_s = 0.0

    def execute_block(
        self, state: StateReader, context: BlockContext, transactions: TransactionColumns
    ) -> ExecutionOutcome:
        started_s = self._clock_s()
        outcome = self._executor.execute_block(state, context, transactions)
        self.elapsed_s += self._clock_s() - started_s
        return outcome


def run(test: BenchmarkTest, executor: Executor, clock_s: Callable[[], float] = time.perf_counter) -> Timing:
    """Execute the blocks of a test and compare everything that their headers commit to."""
    timed = _Timed(executor, clock_s)
    try:
        for _ in replay(test.genesis, iter(test.blocks), timed):
            pass
    except WarpgridError as error:
        return Timing(test.gas_used, timed.elapsed_s, str(error))
    return Timing(test.gas_used, timed.elapsed_s, None)


def _without_memo() -> Executor:
    return NativeExecutor(Engine(threads=1, memo_entries=0), ReferenceExecutor())


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.benchmark_blocks", description=__doc__)
    parser.add_argument("paths", nargs="*", type=Path, default=[VECTORS / "benchmark"])
    parser.add_argument("--executor", choices=sorted(EXECUTORS), default="reference")
    parser.add_argument("--gas-max", type=int)
    parser.add_argument("--match", default="")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--no-memo", action="store_true")
    options = parser.parse_args(arguments)
    if options.no_memo and options.executor != "cpu":
        parser.error("only the executor cpu has a memo")
    executor = _without_memo() if options.no_memo else EXECUTORS[options.executor]()
    clock_s = time.process_time if options.cpu_time else time.perf_counter
    passed = failed = 0
    for path in options.paths:
        for test in read_benchmarks(path, options.gas_max, options.match):
            timings = [run(test, executor, clock_s) for _ in range(options.repeats)]
            timing = next((one for one in timings if one.failure), min(timings, key=lambda one: one.execution_s))
            passed, failed = passed + (timing.failure is None), failed + (timing.failure is not None)
            figures = f"{timing.gas_used:>12} gas {timing.execution_s:9.3f} s {timing.mgas_per_s:9.2f} Mgas/s"
            print(f"{figures}  {timing.failure or 'ok'}  {test.name}", flush=True)  # noqa: T201
    print(f"{passed} passed, {failed} failed")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
