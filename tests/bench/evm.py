"""The EVM benchmark: independent transactions on the CPU build, and on a GPU where there is one.

    python -m tests.bench.evm [--engine cpu|gpu|both] [--counts N...] [--workloads NAME...] [--threads N]

Every run is checked: all rows succeed, and on a GPU every byte of every row's outcome equals the CPU build's.
Appends JSON lines with commit and device to tests/bench/results/evm.jsonl. Kernel figures are of one launch, sorting
apart; the best of the repeats is told.
"""

import argparse
import json
import subprocess
import sys
import time
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

__all__ = ["main"]

RESULTS = Path(__file__).parent / "results" / "evm.jsonl"


def _check(workload: Workload, outcomes: Outcomes) -> None:
    failed = np.flatnonzero(outcomes.results["status"] != Status.SUCCESS)
    assert not len(failed), f"row {failed[0]} ended as {outcomes.results[failed[0]]}"


def bench_cpu(name: str, count: int, threads: int, repeats: int) -> dict[str, Any]:
    """Transactions a second of instances mode on CPU cores, outcomes written."""
    workload, engine = WORKLOADS[name](count), Engine(threads)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        outcomes = engine.run(workload.base, workload.batch)
        best = min(best, time.perf_counter() - started)
    _check(workload, outcomes)
    gas = int(outcomes.results["gas_used"].sum())
    return _record(name, count, "cpu", workload, {"threads": threads, "seconds": best, "gas_per_second": gas / best})


def bench_gpu(engine: GpuEngine, name: str, count: int, repeats: int) -> dict[str, Any]:
    """The same on a GPU: kernels alone, with sorting, and with all copies. Every byte is compared with the CPU's."""
    workload = WORKLOADS[name](count)
    engine.run(workload.base, workload.batch)  # loads the kernels
    started = time.perf_counter()
    outcomes = engine.run(workload.base, workload.batch)
    with_copies = time.perf_counter() - started
    _check(workload, outcomes)
    different = differing_rows(outcomes, Engine().run(workload.base, workload.batch))
    assert not len(different), f"row {different[0]} differs from the CPU's: {outcomes.results[different[0]]}"
    launch, cupy = engine.prepare(workload.base, workload.batch), engine.device.cupy
    arrival = cupy.arange(count, dtype="u4")
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
    figures = {
        "seconds": kernel_ms / 1e3,
        "kernel_ms": kernel_ms,
        "sorting_ms": sorting_ms,
        "unsorted_kernel_ms": launch.run_class(engine.common, arrival),
        "with_copies_s": with_copies,
        "output_bytes_per_row": len(outcomes.arena) / count,
        "gas_per_second": int(outcomes.results["gas_used"].sum()) / kernel_ms * 1e3,
    }
    return _record(name, count, engine.device.name, workload, figures)


def _record(name: str, count: int, device: str, workload: Workload, figures: dict[str, Any]) -> dict[str, Any]:
    rate = count / figures["seconds"]
    record = {"benchmark": "evm", "workload": name, "count": count, "device": device, "per_second": rate, **figures}
    if workload.operations > 1:
        record[f"{workload.unit}s_per_second"] = rate * workload.operations
    record["commit"] = _commit()
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(record) + "\n")
    return record


def _commit() -> str:
    run = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return run.stdout.strip() or "unknown"


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for and print a line for each result."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.evm", description=__doc__)
    parser.add_argument("--engine", choices=("cpu", "gpu", "both"), default="cpu")
    parser.add_argument("--counts", nargs="+", type=int, default=[16384])
    parser.add_argument("--workloads", nargs="+", choices=sorted(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, cpu_count() or 1])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    gpu = GpuEngine(Device(0, Path("build/kernels"))) if options.engine != "cpu" else None
    for name in options.workloads:
        for count in options.counts:
            records = []
            if options.engine != "gpu":
                records += [bench_cpu(name, count, threads, options.repeats) for threads in options.threads]
            if gpu is not None:
                records.append(bench_gpu(gpu, name, count, options.repeats))
            for record in records:
                print(json.dumps(record), flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
