"""Measuring a workload on an engine, checked: every transaction succeeds, and any engine's outcomes are the CPU's.

The clock is the machine's: this module is for benchmarks only. Knows nothing of where figures go.
"""

import time
from typing import Any, Protocol

import numpy as np

from core.errors import WarpgridError
from worker.evm.base_state import BaseState
from worker.evm.batch import Batch, Outcomes
from worker.evm.comparison import differing_rows
from worker.evm.engine import Engine
from worker.evm.layouts import Status
from worker.evm.workloads import WORKLOADS

__all__ = ["MeasurementWrong", "measure"]

SAMPLE_ROWS = 2_048


class MeasurementWrong(WarpgridError):
    """What was measured did not compute what it should have."""

    code = "measurement_wrong"


class MeasuredEngine(Protocol):
    """`Engine` or `GpuEngine`."""

    name: str

    def run(self, base: BaseState, batch: Batch) -> Outcomes: ...


def measure(workload_name: str, count: int, engine: MeasuredEngine, repeats: int) -> dict[str, Any]:
    """Figures of the best of `repeats` runs, copies to and from the device included.

    Raises MeasurementWrong where a transaction fails, or differs from the CPU's outcome in a sample of rows.
    """
    workload = WORKLOADS[workload_name](count)
    best_s = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        outcomes = engine.run(workload.base, workload.batch)
        best_s = min(best_s, time.perf_counter() - started)
    failed = np.flatnonzero(outcomes.results["status"] != Status.SUCCESS)
    if len(failed):
        raise MeasurementWrong(f"{workload_name}: transaction {failed[0]} of {count} does not succeed")
    rows = np.unique(np.linspace(0, count - 1, min(count, SAMPLE_ROWS)).astype(np.int64))
    expected = Engine(threads=1).run(workload.base, workload.batch.take(rows))
    different = differing_rows(Outcomes(outcomes.results[rows], outcomes.arena), expected)
    if len(different):
        raise MeasurementWrong(f"{workload_name}: transaction {rows[different[0]]} differs from the CPU's outcome")
    gas = int(outcomes.results["gas_used"].sum())
    return {
        "workload": workload_name,
        "executor": engine.name,
        "count": count,
        "seconds": best_s,
        "transactions_per_second": count / best_s,
        "gas_per_second": gas / best_s,
        f"{workload.unit}s_per_second": count * workload.operations / best_s,
    }
