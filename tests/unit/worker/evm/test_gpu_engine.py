"""The engine on a GPU gives the CPU engine's bytes. Its CPU twin is test_engine.py."""

import ctypes
from types import SimpleNamespace
from typing import cast

import pytest

from core.columns import Array
from core.errors import GpuUnavailable
from core.gpu import Device
from worker.evm import Engine
from worker.evm.base_state import BaseState
from worker.evm.batch import Batch, Outcomes
from worker.evm.comparison import differing_rows
from worker.evm.gpu_engine import COMMON_ARENAS, GpuEngine
from worker.evm.gpu_launch import Launch
from worker.evm.layouts import ARENA_SECTIONS, HALT_LATE, ArenaSizes, Status
from worker.evm.library import load
from worker.evm.workloads import WORKLOADS

CPU = Engine(threads=1)


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> GpuEngine:
    device = Device(0, tmp_path_factory.mktemp("kernels"))
    try:
        return GpuEngine(device, CPU)
    except GpuUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.gpu
@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_equals_the_cpu(gpu: GpuEngine, name: str) -> None:
    workload = WORKLOADS[name](500)
    outcomes = gpu.run(workload.base, workload.batch)
    assert not len(differing_rows(outcomes, CPU.run(workload.base, workload.batch)))


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_succeeds_on_the_cpu(name: str) -> None:
    workload = WORKLOADS[name](20)
    outcomes = CPU.run(workload.base, workload.batch)
    assert set(outcomes.results["status"].tolist()) == {1}


def test_the_common_class_fits_its_budget() -> None:
    words = (ctypes.c_uint64 * (ARENA_SECTIONS + 2))()
    load().warpgrid_evm_lay_out(ctypes.byref(COMMON_ARENAS), words)
    assert words[ARENA_SECTIONS] + words[ARENA_SECTIONS + 1] <= 16 << 10


def test_the_common_class_is_the_one_that_kernels_are_built_for() -> None:
    built = ArenaSizes()
    load().warpgrid_evm_common_arenas(ctypes.byref(built))
    assert bytes(built) == bytes(COMMON_ARENAS)


class KernelFailed(Exception):
    """Stands for what cupy raises."""


class DeviceWithoutKernels:
    """As much of a device as an engine asks before it launches anything."""

    index = 0
    cupy = SimpleNamespace(
        cuda=SimpleNamespace(
            Device=lambda index: SimpleNamespace(attributes={"MultiProcessorCount": 1}),
            runtime=SimpleNamespace(CUDARuntimeError=KernelFailed),
            driver=SimpleNamespace(CUDADriverError=KernelFailed),
        )
    )


class ScriptedLaunch:
    """A launch whose kernels fail, or end with these outcomes."""

    def __init__(self, outcomes: Outcomes | None) -> None:
        self._outcomes = outcomes

    def run_rows(self, rows: Array) -> None:
        if self._outcomes is None:
            raise KernelFailed("an illegal memory access was encountered")

    def outcomes(self) -> Outcomes:
        assert self._outcomes is not None
        return self._outcomes

    def begun_rows(self) -> tuple[int, ...]:
        return (4, 7)


class ScriptedEngine(GpuEngine):
    """An engine with one scripted launch; a second one is an error."""

    def __init__(self, outcomes: Outcomes | None) -> None:
        super().__init__(cast(Device, DeviceWithoutKernels()), CPU)
        self._launches = [ScriptedLaunch(outcomes)]

    def prepare(self, base: BaseState, batch: Batch) -> Launch:
        return cast(Launch, self._launches.pop())


def test_a_failed_kernel_is_reported_and_the_batch_runs_on_the_cpu() -> None:
    workload = WORKLOADS["erc20_transfer"](20)
    expected, engine = CPU.run(workload.base, workload.batch), ScriptedEngine(None)
    assert not len(differing_rows(engine.run(workload.base, workload.batch), expected))
    (incident,) = engine.incidents
    assert "illegal memory access" in incident.reason
    assert incident.rows == (4, 7)
    # the context is lost: what follows runs on the CPU without another launch
    assert not len(differing_rows(engine.run(workload.base, workload.batch), expected))
    assert engine.incidents == []


def test_a_row_that_takes_too_long_is_reported_and_runs_on_the_cpu() -> None:
    workload = WORKLOADS["erc20_transfer"](20)
    expected = CPU.run(workload.base, workload.batch)
    results = expected.results.copy()
    results["status"][3], results["halt"][3] = Status.OVERFLOW, HALT_LATE
    results["status"][5], results["halt"][5] = Status.OVERFLOW, 0  # merely too large
    results["gas_used"][[3, 5]] = 0
    engine = ScriptedEngine(Outcomes(results, expected.arena))
    assert not len(differing_rows(engine.run(workload.base, workload.batch), expected))
    assert [incident.rows for incident in engine.incidents] == [(3,)]
