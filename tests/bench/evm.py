"""The EVM benchmark: independent transactions on the CPU build, and on a GPU where there is one.

    python -m tests.bench.evm [--engine cpu|gpu|both] [--counts N...] [--workloads NAME...] [--threads N]

Every run is checked: all rows succeed, and on a GPU every byte of every row's outcome equals the CPU build's.
Appends JSON lines with commit and device to tests/bench/results/evm.jsonl. Kernel figures are of one launch, sorting
apart; the best of the repeats is told.
"""

import argparse
import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np

from core.gpu import Device
from worker.evm.batch import Outcomes
from worker.evm.comparison import differing_rows
from worker.evm.engine import Engine
from worker.evm.gpu_engine import GpuEngine
from worker.evm.layouts import Status
from worker.evm.workloads import WORKLOADS, Workload

__all__ = ["RESULTS", "commit", "gpu_lock", "main"]

RESULTS = Path(__file__).parent / "results" / "evm.jsonl"


def _check(workload: Workload, outcomes: Outcomes) -> None:
    failed = np.flatnonzero(outcomes.results["status"] != Status.SUCCESS)
    assert not len(failed), f"row {failed[0]} ended as {outcomes.results[failed[0]]}"


def bench_cpu(name: str, workload: Workload, threads: int, repeats: int) -> dict[str, Any]:
    """Transactions a second of instances mode on CPU cores, outcomes written."""
    engine, best_s = Engine(threads), float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        outcomes = engine.run(workload.base, workload.batch)
        best_s = min(best_s, time.perf_counter() - started)
    _check(workload, outcomes)
    gas = int(outcomes.results["gas_used"].sum())
    return _record(name, "cpu", workload, {"threads": threads, "seconds": best_s, "gas_per_second": gas / best_s})


def bench_gpu(engine: GpuEngine, name: str, workload: Workload, repeats: int, lock: Any) -> dict[str, Any]:
    """The same on a GPU: kernels alone, with sorting, and with all copies. Every byte is compared with the CPU's.

    `lock` is held while the GPU's clock runs, for benchmarks that share it.
    """
    expected, count = Engine().run(workload.base, workload.batch), len(workload.batch)
    arrival = np.arange(count, dtype="u4")
    with lock:
        outcomes, with_copies_s = engine.run(workload.base, workload.batch), float("inf")  # the first loads the kernels
        for _ in range(repeats - 1):
            started = time.perf_counter()
            outcomes = engine.run(workload.base, workload.batch)
            with_copies_s = min(with_copies_s, time.perf_counter() - started)
        figures = _kernel_figures(engine, workload, engine.device.cupy.asarray(arrival), repeats)
    _check(workload, outcomes)
    different = differing_rows(outcomes, expected)
    assert not len(different), f"row {different[0]} differs from the CPU's: {outcomes.results[different[0]]}"
    assert not engine.incidents, engine.incidents
    figures |= {
        "with_copies_s": with_copies_s,
        "output_bytes_per_row": len(outcomes.arena) / count,
        "gas_per_second": int(outcomes.results["gas_used"].sum()) / figures["seconds"],
    }
    return _record(name, engine.device.name, workload, figures)


def _kernel_figures(engine: GpuEngine, workload: Workload, arrival: Any, repeats: int) -> dict[str, float]:
    """Durations on the device, the best of `repeats`."""
    cupy = engine.device.cupy
    launch = engine.prepare(workload.base, workload.batch)
    kernel_ms, sorting_ms = float("inf"), float("inf")
    for _ in range(repeats):
        launch.clear()
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record()
        transfers, others = launch.split_rows(arrival)
        end.record()
        end.synchronize()
        sorting_ms = min(sorting_ms, float(cupy.cuda.get_elapsed_time(begin, end)))
        kernel_ms = min(kernel_ms, launch.run_transfers(transfers) + launch.run_class(engine.common, others))
    launch.clear()
    unsorted_ms = launch.run_class(engine.common, arrival)
    return {
        "seconds": kernel_ms / 1e3,
        "kernel_ms": kernel_ms,
        "sorting_ms": sorting_ms,
        "unsorted_kernel_ms": unsorted_ms,
        "device_bytes": cupy.get_default_memory_pool().used_bytes(),
    }


def _record(name: str, device: str, workload: Workload, figures: dict[str, Any]) -> dict[str, Any]:
    count = len(workload.batch)
    rate = count / figures["seconds"]
    record = {"benchmark": "evm", "workload": name, "count": count, "device": device, "per_second": rate, **figures}
    if workload.operations > 1:
        record[f"{workload.unit}s_per_second"] = rate * workload.operations
    record["commit"] = commit()
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(record) + "\n")
    return record


def commit() -> str:
    """The commit that is checked out, short."""
    run = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return run.stdout.strip() or "unknown"


def _print(record: dict[str, Any]) -> None:
    print(json.dumps(record), flush=True)  # noqa: T201


@contextmanager
def gpu_lock(path: Path | None) -> Iterator[None]:
    """Alone with the GPU among all that lock this file."""
    if path is None:
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for and print a line for each result."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.evm", description=__doc__)
    parser.add_argument("--engine", choices=("cpu", "gpu", "both"), default="cpu")
    parser.add_argument("--counts", nargs="+", type=int, default=[16384])
    parser.add_argument("--workloads", nargs="+", choices=sorted(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, cpu_count() or 1])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--lock", type=Path, help="a file to lock while the GPU is measured")
    options = parser.parse_args(arguments)
    gpu = GpuEngine(Device(0, Path("build/kernels"))) if options.engine != "cpu" else None
    for name in options.workloads:
        for count in options.counts:
            workload = WORKLOADS[name](count)
            if options.engine != "gpu":
                for threads in options.threads:
                    _print(bench_cpu(name, workload, threads, options.repeats))
            if gpu is not None:
                _print(bench_gpu(gpu, name, workload, options.repeats, gpu_lock(options.lock)))
                gpu.device.cupy.get_default_memory_pool().free_all_blocks()
    return 0


if __name__ == "__main__":
    sys.exit(main())
