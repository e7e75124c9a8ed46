"""The engine on a GPU gives the CPU engine's bytes. Its CPU twin is test_engine.py."""

import ctypes

import pytest

from core.errors import GpuUnavailable
from core.gpu import Device
from worker.evm import Engine
from worker.evm.comparison import differing_rows
from worker.evm.gpu_engine import COMMON_ARENAS, GpuEngine
from worker.evm.layouts import ARENA_SECTIONS, ArenaSizes
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
