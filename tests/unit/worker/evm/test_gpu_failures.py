"""A kernel that fails or takes too long costs nothing but time: the CPU runs what is missing, and the rows are named.

The device is a fake: what it answers, or how it fails, is given by the test.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from core.columns import Array
from worker.evm.base_state import BaseState
from worker.evm.batch import Batch, Outcomes
from worker.evm.comparison import differing_rows
from worker.evm.engine import Engine
from worker.evm.errors import EngineLimit, KernelStandsStill
from worker.evm.gpu_engine import COMMON_ARENAS, GpuEngine
from worker.evm.gpu_launch import ArenaClass
from worker.evm.layouts import ARENA_SECTIONS, HALT_LATE, Status
from worker.evm.workloads import WORKLOADS, Workload

ROWS = 40
CPU = Engine(threads=1)


class CudaRuntimeError(Exception):
    pass


class CudaDriverError(Exception):
    pass


class DeviceMemoryError(Exception):
    pass


class FakeDevice:
    """What the engine asks of a device before it launches anything."""

    processors = 1

    def __init__(self) -> None:
        cuda = SimpleNamespace(
            runtime=SimpleNamespace(CUDARuntimeError=CudaRuntimeError),
            driver=SimpleNamespace(CUDADriverError=CudaDriverError),
            memory=SimpleNamespace(OutOfMemoryError=DeviceMemoryError),
        )
        self.cupy = SimpleNamespace(cuda=cuda)


class FakeLaunch:
    """A batch on the fake device: `run` makes its outcomes, or fails."""

    def __init__(self, run: Callable[[], Outcomes]) -> None:
        self._run = run
        self._outcomes: Outcomes | None = None

    def run_rows(self, rows: Array) -> Array:
        self._outcomes = self._run()
        return np.stack([self._outcomes.results["status"], self._outcomes.results["halt"]], axis=1)

    def outcomes(self) -> Outcomes:
        assert self._outcomes is not None
        return self._outcomes

    def begun_rows(self) -> tuple[int, ...]:
        return (3, 7)


class FakeGpu(GpuEngine):
    """A GPU engine whose launches are fakes."""

    def __init__(self, run: Callable[[], Outcomes]) -> None:
        super().__init__(FakeDevice(), CPU)  # type: ignore[arg-type]
        self._fake_run = run
        self.launches = 0

    def prepare(self, base: BaseState, batch: Batch) -> Any:
        self.launches += 1
        return FakeLaunch(self._fake_run)


@pytest.fixture(scope="module")
def workload() -> Workload:
    return WORKLOADS["erc20_transfer"](ROWS)


@pytest.fixture(scope="module")
def expected(workload: Workload) -> Outcomes:
    return CPU.run(workload.base, workload.batch)


@pytest.mark.parametrize(
    "error",
    [
        CudaRuntimeError("illegal address"),
        CudaDriverError("launch timed out"),
        KernelStandsStill("no row was begun for 60 s"),
    ],
)
def test_a_kernel_that_fails_loses_nothing(workload: Workload, expected: Outcomes, error: Exception) -> None:
    def fail() -> Outcomes:
        raise error

    gpu = FakeGpu(fail)
    outcomes = gpu.run(workload.base, workload.batch)
    assert not len(differing_rows(expected, outcomes))
    (incident,) = gpu.incidents
    assert str(error) in incident.reason
    assert incident.rows == (3, 7)
    # The context is lost with the kernel: from now on nothing is launched.
    assert not len(differing_rows(expected, gpu.run(workload.base, workload.batch)))
    assert (gpu.launches, gpu.incidents) == (1, [])


def test_rows_that_take_too_long_are_run_again_and_named(workload: Workload, expected: Outcomes) -> None:
    late = [5, 11]

    def answer() -> Outcomes:
        results = expected.results.copy()
        results[late] = np.zeros(1, results.dtype)
        results["status"][late], results["halt"][late] = Status.OVERFLOW, HALT_LATE
        return Outcomes(results, expected.arena)

    gpu = FakeGpu(answer)
    outcomes = gpu.run(workload.base, workload.batch)
    assert not len(differing_rows(expected, outcomes))
    (incident,) = gpu.incidents
    assert incident.rows == tuple(late)
    assert "20 s" in incident.reason


def test_rows_that_fit_nowhere_on_the_device_are_no_incident(workload: Workload, expected: Outcomes) -> None:
    def answer() -> Outcomes:
        results = expected.results.copy()
        results[9] = np.zeros(1, results.dtype)
        results["status"][9] = Status.OVERFLOW
        return Outcomes(results, expected.arena)

    gpu = FakeGpu(answer)
    assert not len(differing_rows(expected, gpu.run(workload.base, workload.batch)))
    assert gpu.incidents == []


def test_too_little_device_memory_is_told_with_a_way_out(workload: Workload) -> None:
    def fail() -> Outcomes:
        raise DeviceMemoryError("out of memory allocating 9 bytes")

    with pytest.raises(EngineLimit, match="fewer transactions at a time"):
        FakeGpu(fail).run(workload.base, workload.batch)


@pytest.mark.parametrize(
    ("rows", "grid"),
    [(1, (1, 32)), (32, (1, 32)), (33, (2, 32)), (256, (8, 32)), (257, (5, 64)), (2048, (8, 256)), (10**6, (8, 256))],
)
def test_few_rows_are_spread_over_the_multiprocessors(rows: int, grid: tuple[int, int]) -> None:
    kind = ArenaClass(Path(), "", COMMON_ARENAS, np.zeros(ARENA_SECTIONS + 2, "<u8"), 8, 256)
    assert kind.grid_for(rows) == grid
    assert grid[0] * grid[1] <= kind.threads_max
