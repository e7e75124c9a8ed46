"""What a launch does around its kernels: columns in, the classes in their order, endings and outcomes back.

The device is the host's memory: arrays are numpy's under cupy's names, and a kernel is the CPU engine, which finds its
rows, results and arena through the arguments that a kernel gets. Its GPU twin is test_gpu_engine.py.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from core.columns import Array
from tests.unit.worker.host_arrays import PinnedMemory, here
from worker.evm.batch import Batch, Outcomes
from worker.evm.comparison import differing_rows
from worker.evm.engine import Engine
from worker.evm.gpu_engine import GpuEngine
from worker.evm.gpu_launch import ArenaClass
from worker.evm.layouts import HALT_LATE, RESULT, LaunchArguments, Status
from worker.evm.workloads import WORKLOADS, Workload

ROWS = 50
CPU = Engine(threads=1)
TOO_LITTLE_MEMORY, NOT_READY, ILLEGAL_ADDRESS = 2, 600, 700
BEGUN_BYTES = 4 * 512
"""What a launch keeps for the rows that its threads began."""


class RuntimeFailure(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


@dataclass
class HostDevice:
    """cupy's names for the host's memory.

    `pinned_status`: how page-locked memory is refused, 0 if it is not; `event_statuses`: what is said of the kernels'
    ends, one after the other, before they are told to be over.
    """

    pinned_status: int = 0
    event_statuses: list[int] = field(default_factory=list)
    pinned_sizes: list[int] = field(default_factory=list)
    processors: int = 1

    @property
    def cupy(self) -> Any:
        event = SimpleNamespace(record=lambda: None, synchronize=self._synchronize, ptr=0)
        cuda = SimpleNamespace(
            Event=lambda: event,
            alloc_pinned_memory=self._pinned,
            get_elapsed_time=lambda begin, end: 1.0,
            runtime=SimpleNamespace(
                CUDARuntimeError=RuntimeFailure,
                eventQuery=lambda event: self._event_status(),
                memGetInfo=lambda: (1 << 30, 1 << 30),
            ),
            driver=SimpleNamespace(CUDADriverError=ArithmeticError),
            memory=SimpleNamespace(OutOfMemoryError=MemoryError),
        )
        return SimpleNamespace(
            cuda=cuda,
            empty=lambda size, kind: here(np.full(size, 0xA5, kind)),
            zeros=lambda size, kind: here(np.zeros(size, kind)),
            asarray=here,
            asnumpy=lambda array: np.array(array),
            argsort=lambda keys: np.argsort(keys, kind="stable"),
        )

    def _event_status(self) -> int:
        if self.event_statuses and self.event_statuses[0] != ILLEGAL_ADDRESS:
            return self.event_statuses.pop(0)
        return self.event_statuses[0] if self.event_statuses else 0

    def _synchronize(self) -> None:
        assert NOT_READY not in self.event_statuses, "a kernel is waited for by asking"
        if self.event_statuses:
            raise RuntimeFailure(self.event_statuses[0])

    def _pinned(self, size: int) -> PinnedMemory:
        if self.pinned_status and size > BEGUN_BYTES:
            raise RuntimeFailure(self.pinned_status)
        self.pinned_sizes.append(size)
        return PinnedMemory(size)


class HostGpu(GpuEngine):
    """A GPU engine whose kernels are the CPU engine. `endings` says how rows end in a class instead."""

    def __init__(self, device: HostDevice, batch: Batch, workload: Workload) -> None:
        super().__init__(device, CPU)  # type: ignore[arg-type]
        self._batch, self._workload = batch, workload
        self._arguments = LaunchArguments()
        self.endings: dict[tuple[str, int], tuple[Status, int]] = {}
        self.launched: list[tuple[str, list[int]]] = []

    def module(self, kind: ArenaClass) -> Any:
        return SimpleNamespace(get_global=lambda name: SimpleNamespace(copy_from_host=self._take_arguments))

    def function(self, kind: ArenaClass, name: str) -> Any:
        return _HostKernel(lambda arguments: self._launch(name, arguments))

    def arenas(self, kind: ArenaClass) -> tuple[Any, Any]:
        return here(np.zeros(1, "u1")), here(np.zeros(1, "u1"))

    def _take_arguments(self, arguments: ctypes.c_void_p, size: int) -> None:
        assert size == ctypes.sizeof(LaunchArguments)
        ctypes.memmove(ctypes.addressof(self._arguments), arguments, size)

    def _launch(self, name: str, arguments: tuple[Any, ...]) -> None:
        at = self._arguments
        rows = _memory(at.rows, 4 * at.count).view("<u4")
        transfers = self._is_transfer(rows)
        if name == "warpgrid_evm_sort_keys":
            arguments[0][:] = np.where(transfers, 0, 1 + rows % 7)
            return
        assert transfers.all() == (name == "warpgrid_evm_run_transfers")
        self.launched.append((name, sorted(rows.tolist())))
        outcomes = CPU.run(self._workload.base, self._batch.take(rows))
        results = _memory(at.results, at.batch.count * RESULT.itemsize).view(RESULT)
        used = _memory(at.used, 8).view("<u8")
        moved = outcomes.results.copy()
        moved["output"] += used[0]
        for place, row in enumerate(rows.tolist()):
            status, halt = self.endings.get((name, row), (None, 0))
            if status is not None:
                moved[place] = np.zeros(1, RESULT)
                moved["status"][place], moved["halt"][place] = status, halt
        results[rows] = moved
        _memory(at.arena, at.capacity)[int(used[0]) : int(used[0]) + len(outcomes.arena)] = outcomes.arena
        used += np.uint64(len(outcomes.arena))

    def _is_transfer(self, rows: Array) -> Array:
        """As a kernel would, from the column on the device: rows without data."""
        offsets = _memory(self._arguments.batch.data_offsets, 8 * (len(self._batch) + 1)).view("<u8")
        plain: Array = offsets[rows] == offsets[rows + 1]
        return plain


class _HostKernel:
    max_dynamic_shared_size_bytes = 0

    def __init__(self, run: Callable[[tuple[Any, ...]], None]) -> None:
        self._run = run

    def __call__(self, grid: Any, block: Any, arguments: tuple[Any, ...], shared_mem: int = 0) -> None:
        self._run(arguments)


def _memory(address: int, size: int) -> Array:
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


@pytest.fixture(scope="module", params=["plain_transfer", "erc20_transfer", "four_functions"])
def workload(request: pytest.FixtureRequest) -> Workload:
    return WORKLOADS[request.param](ROWS)


@pytest.fixture(scope="module")
def token() -> Workload:
    return WORKLOADS["erc20_transfer"](ROWS)


def _expected(workload: Workload) -> Outcomes:
    return CPU.run(workload.base, workload.batch)


@pytest.mark.parametrize("pinned_status", [0, TOO_LITTLE_MEMORY])
def test_outcomes_come_back_whole(workload: Workload, pinned_status: int) -> None:
    device = HostDevice(pinned_status)
    gpu = HostGpu(device, workload.batch, workload)
    outcomes = gpu.run(workload.base, workload.batch)
    assert not len(differing_rows(outcomes, _expected(workload)))
    assert sum(len(rows) for _, rows in gpu.launched) == ROWS
    assert (ROWS * RESULT.itemsize in device.pinned_sizes) == (len(outcomes.arena) in device.pinned_sizes)
    # What a later run writes is not what an earlier one gave.
    kept = outcomes.results.copy(), outcomes.arena.copy()
    gpu.run(workload.base, workload.batch)
    assert np.array_equal(kept[0], outcomes.results)
    assert np.array_equal(kept[1], outcomes.arena)


def test_only_what_overflows_the_common_class_runs_in_the_heavy_one(token: Workload) -> None:
    gpu = HostGpu(HostDevice(), token.batch, token)
    common, heavy = gpu.common.entry_point, gpu.heavy.entry_point
    gpu.endings = {(common, 7): (Status.OVERFLOW, 0), (common, 31): (Status.OVERFLOW, 0)}
    outcomes = gpu.run(token.base, token.batch)
    assert gpu.launched == [(common, list(range(ROWS))), (heavy, [7, 31])]
    assert not len(differing_rows(outcomes, _expected(token)))
    assert gpu.incidents == []


def test_a_row_that_was_late_is_not_run_in_the_heavy_class(token: Workload) -> None:
    gpu = HostGpu(HostDevice(), token.batch, token)
    gpu.endings = {(gpu.common.entry_point, 3): (Status.OVERFLOW, HALT_LATE)}
    outcomes = gpu.run(token.base, token.batch)
    assert [name for name, _ in gpu.launched] == [gpu.common.entry_point]
    assert [incident.rows for incident in gpu.incidents] == [(3,)]
    assert not len(differing_rows(outcomes, _expected(token)))


def test_a_row_that_fits_nowhere_is_run_on_the_cpu(token: Workload) -> None:
    gpu = HostGpu(HostDevice(), token.batch, token)
    gpu.endings = {(kind.entry_point, 9): (Status.OVERFLOW, 0) for kind in (gpu.common, gpu.heavy)}
    outcomes = gpu.run(token.base, token.batch)
    assert not len(differing_rows(outcomes, _expected(token)))
    assert gpu.incidents == []


def test_no_rows_need_no_kernel(token: Workload) -> None:
    none = token.batch.take(np.zeros(0, "<u4"))
    gpu = HostGpu(HostDevice(), none, token)
    outcomes = gpu.run(token.base, none)
    assert (len(outcomes.results), len(outcomes.arena), gpu.launched) == (0, 0, [])


def test_a_kernel_that_fails_is_not_waited_for(token: Workload) -> None:
    gpu = HostGpu(HostDevice(event_statuses=[NOT_READY, NOT_READY, ILLEGAL_ADDRESS]), token.batch, token)
    outcomes = gpu.run(token.base, token.batch)
    assert not len(differing_rows(outcomes, _expected(token)))
    assert [incident.reason for incident in gpu.incidents] == ["a kernel failed (status 700)"]


def test_a_kernel_that_takes_its_time_is_waited_for(token: Workload) -> None:
    device = HostDevice(event_statuses=[NOT_READY] * 5)
    gpu = HostGpu(device, token.batch, token)
    outcomes = gpu.run(token.base, token.batch)
    assert not len(differing_rows(outcomes, _expected(token)))
    assert (gpu.incidents, device.event_statuses) == ([], [])


def test_a_device_that_fails_when_memory_is_asked_for_is_not_taken_for_full(token: Workload) -> None:
    gpu = HostGpu(HostDevice(pinned_status=ILLEGAL_ADDRESS), token.batch, token)  # told late
    outcomes = gpu.run(token.base, token.batch)
    assert not len(differing_rows(outcomes, _expected(token)))
    assert [incident.reason for incident in gpu.incidents] == ["a kernel failed (status 700)"]
