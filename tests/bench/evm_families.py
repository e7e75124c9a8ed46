"""Gas a second of each family of vectors/benchmark on a GPU: one block's transaction, as many copies as are resident.

    python -m tests.bench.evm_families [--match NAME] [--row-seconds 8] [--heavy-gib 16] [--lock FILE]

Of each family the chain with one transaction in its last block is taken. What precedes that block runs on the CPU; the
transaction then runs in the common class, or in the heavy one where it does not fit there. Every copy's outcome must
be, to the byte, the one that the CPU gives, and its gas the header's. A family that a GPU leaves to the host (KZG), or
whose transaction takes longer than `--row-seconds`, is told as such, not measured. Appends to results/evm.jsonl.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from core.chain_rules import context_of
from core.gpu import Device
from core.memory_state import MemoryState
from node.executors import EXECUTORS
from tests.bench.evm import RESULTS, commit, gpu_lock
from tests.conformance.benchmark_blocks import BenchmarkTest, read_benchmarks
from tests.conformance.chain_file import replay
from tests.conformance.vectors import VECTORS
from worker.evm.base_state import BaseState
from worker.evm.batch import Batch, Outcomes, block_environments
from worker.evm.comparison import differing_rows
from worker.evm.engine import Engine
from worker.evm.gpu_engine import GpuEngine
from worker.evm.gpu_launch import ArenaClass
from worker.evm.instance_batch import fill_worlds
from worker.evm.layouts import HALT_LATE, Status

__all__ = ["main"]

GAS_MAX = 17_000_000


def families(match: str) -> Iterator[tuple[str, BenchmarkTest]]:
    """(family, test) for the smallest chain of each family that ends with one transaction."""
    seen = set()
    for test in read_benchmarks(VECTORS / "benchmark", None, match):
        family = "/".join(Path(test.name.split("::")[0]).with_suffix("").parts[-2:])
        if family not in seen and len(test.blocks[-1].block.transactions) == 1 and test.gas_used <= GAS_MAX:
            seen.add(family)
            yield family, test


def last_transaction(test: BenchmarkTest) -> tuple[BaseState, Batch]:
    """The last block's transaction, on the state before that block."""
    state, hashes = MemoryState().apply(test.genesis.difference), [test.genesis.block.hash]
    for executed in replay(test.genesis, iter(test.blocks[:-1]), EXECUTORS["cpu"]()):
        state = executed.state
        hashes.append(executed.sealed.hash)
    block = test.blocks[-1].block
    context = context_of(
        block.header, test.genesis.config, hashes, withdrawals=block.withdrawals or (), ommers=block.ommers
    )
    base = BaseState(accounts_complete=True)
    fill_worlds(base, [state.accounts])
    return base, Batch.of(block.transactions, block_environments([context], base))


def measure(engine: GpuEngine, base: BaseState, one: Batch, expected: Outcomes) -> dict[str, Any]:
    """Run copies in the class that holds them. Asserts that all of them gave the CPU's bytes."""
    for kind in (engine.common, engine.heavy):
        count = kind.threads_max
        results, outcomes, kernel_ms = _run(engine, kind, base, one.take(np.zeros(count, np.int64)))
        statuses, halts = np.unique(results["status"]), np.unique(results["halt"])
        if (statuses == Status.OVERFLOW).any() and HALT_LATE in halts:
            return {"class": kind.entry_point, "count": count, "not_measured": "a copy takes longer than a row may"}
        if (statuses == Status.PARKED).any():
            return {"class": kind.entry_point, "count": count, "not_measured": "the host answers it"}
        if (statuses == Status.OVERFLOW).any():
            continue
        copies = Outcomes(expected.results[np.zeros(count, np.int64)], expected.arena)
        different = differing_rows(outcomes, copies)
        assert not len(different), f"copy {different[0]} is not the CPU's: {results[different[0]]}"
        gas = int(results["gas_used"].sum())
        return {
            "class": kind.entry_point,
            "count": count,
            "kernel_ms": kernel_ms,
            "mgas_per_second": gas / kernel_ms / 1e3,
            "mgas_per_second_of_a_lane": gas / count / kernel_ms / 1e3,
        }
    return {"not_measured": "it fits neither class"}


def _run(engine: GpuEngine, kind: ArenaClass, base: BaseState, batch: Batch) -> tuple[Any, Outcomes, float]:
    launch = engine.prepare(base, batch)
    kernel_ms = launch.run_class(kind, engine.device.cupy.arange(len(batch), dtype="u4"))
    outcomes = launch.outcomes()
    return outcomes.results, outcomes, kernel_ms


def main(arguments: list[str] | None = None) -> int:
    """Print and record a line for each family."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.evm_families", description=__doc__)
    parser.add_argument("--match", default="")
    parser.add_argument("--row-seconds", type=float, default=8.0)
    parser.add_argument("--heavy-gib", type=int, default=16, help="device memory for copies in the heavy class")
    parser.add_argument("--lock", type=Path, help="a file to lock while the GPU is measured")
    options = parser.parse_args(arguments)
    device, heavy_bytes = Device(0, Path("build/kernels")), options.heavy_gib << 30
    engine = GpuEngine(device, heavy_bytes=heavy_bytes, row_seconds_max=options.row_seconds)
    RESULTS.parent.mkdir(exist_ok=True)
    for family, test in families(options.match):
        base, one = last_transaction(test)
        expected = Engine(1).run(base, one)
        assert expected.results["gas_used"][0] == test.blocks[-1].block.header.gas_used, family
        with gpu_lock(options.lock):
            figures = measure(engine, base, one, expected)
        engine.device.cupy.get_default_memory_pool().free_all_blocks()
        line = json.dumps(
            {"benchmark": "evm_family", "family": family, "device": engine.device.name, "commit": commit(), **figures}
        )
        with RESULTS.open("a") as results:
            results.write(line + "\n")
        print(line, flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
