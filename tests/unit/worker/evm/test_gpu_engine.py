"""The engine on a GPU gives the CPU engine's bytes. Its CPU twins are test_engine.py and test_gpu_failures.py."""

import ctypes
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
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


@pytest.mark.gpu
def test_a_row_that_takes_too_long_ends_and_runs_on_the_cpu(gpu: GpuEngine) -> None:
    workload = WORKLOADS["arithmetic_loop"](8)
    columns = workload.batch.transactions
    # as many turns as the gas pays for: far more than lie between two looks at the clock
    endless = replace(columns, gas_limit=np.full(8, 16_000_000, "<u8"), data=np.full(len(columns.data), 0xFF, "u1"))
    batch = replace(workload.batch, transactions=endless)
    engine = GpuEngine(gpu.device, CPU, row_seconds_max=0.001)
    outcomes = engine.run(workload.base, batch)
    assert not len(differing_rows(outcomes, CPU.run(workload.base, batch)))
    (incident,) = engine.incidents
    assert incident.rows == tuple(range(8))


# In a process of its own, which loses its GPU: a column of the batch lies where no memory is.
_FAILING_KERNEL = """
import os, sys
from pathlib import Path
from core.gpu import Device
from worker.evm import Engine
from worker.evm.comparison import differing_rows
from worker.evm.gpu_engine import GpuEngine
from worker.evm.workloads import WORKLOADS

workload, engine = WORKLOADS["erc20_transfer"](1000), GpuEngine(Device(0, Path(sys.argv[1])), Engine(1))
cupy, prepare = engine.device.cupy, engine.prepare

def prepare_wrongly(base, batch):
    launch = prepare(base, batch)
    nowhere = cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(1 << 20, 8, None), 0)
    launch._columns["value"] = cupy.ndarray((8,), "u1", memptr=nowhere)
    return launch

engine.prepare = prepare_wrongly
expected = Engine(1).run(workload.base, workload.batch)
for attempt in range(2):
    outcomes = engine.run(workload.base, workload.batch)
    different = len(differing_rows(outcomes, expected))
    incidents = [(one.reason, len(one.rows)) for one in engine.incidents]
    print(attempt, different, len(outcomes.results), incidents, flush=True)
os._exit(0)  # what the lost context would say at the end is of no interest
"""


# In a process of its own, whose GPU a kernel keeps: eight rows that run for a second.
_ENDLESS_KERNEL = """
import os, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from core.gpu import Device
from worker.evm import Engine
from worker.evm.comparison import differing_rows
from worker.evm.gpu_engine import GpuEngine
from worker.evm.workloads import WORKLOADS

workload = WORKLOADS["arithmetic_loop"](8)
columns = workload.batch.transactions
endless = replace(columns, gas_limit=np.full(8, 16_000_000, "<u8"), data=np.full(len(columns.data), 0xFF, "u1"))
batch = replace(workload.batch, transactions=endless)
engine = GpuEngine(Device(0, Path(sys.argv[1])), Engine(1))
engine.still_ns_max = 50_000_000
engine.run(workload.base, workload.batch)  # loads the kernels
expected = Engine(1).run(workload.base, batch)
for attempt in range(2):
    outcomes = engine.run(workload.base, batch)
    incidents = [(one.reason, one.rows) for one in engine.incidents]
    print(attempt, len(differing_rows(outcomes, expected)), incidents, flush=True)
os._exit(0)
"""


def two_runs_of(script: str, kernels_dir: Path) -> tuple[str, str]:
    """What a script tells of its two runs, in a process of its own. Lines of theirs begin with their number."""
    run = subprocess.run([sys.executable, "-c", script, str(kernels_dir)], capture_output=True, text=True, check=False)
    told = [line for line in run.stdout.splitlines() if line[:2] in ("0 ", "1 ")]
    assert len(told) == 2, run.stdout + run.stderr
    return told[0], told[1]


@pytest.mark.gpu
def test_a_kernel_that_stands_still_is_given_up(gpu: GpuEngine, tmp_path: Path) -> None:
    first, second = two_runs_of(_ENDLESS_KERNEL, tmp_path)
    assert first.startswith("0 0 [('a kernel failed (no row was begun for ")
    assert first.endswith("(0, 1, 2, 3, 4, 5, 6, 7))]")
    assert second == "1 0 []"


@pytest.mark.gpu
def test_a_kernel_that_fails_costs_the_gpu_and_no_row(gpu: GpuEngine, tmp_path: Path) -> None:
    first, second = two_runs_of(_FAILING_KERNEL, tmp_path)
    assert first.startswith("0 0 1000 [('a kernel failed (")
    assert not first.endswith(", 0)]")  # the rows that were in flight are known
    assert second == "1 0 1000 []"
