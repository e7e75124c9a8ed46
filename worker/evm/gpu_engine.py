"""The engine on a GPU: instances mode for whole batches.

Transfers to accounts without code run in a kernel of their own; other rows are sorted by what they call and run in the
common class, what did not fit there in the heavy class, and what still did not fit, or took too long, on the CPU.
Nothing is lost: every row's outcome is the one that the CPU engine gives, also when a kernel fails.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from core.columns import Array
from core.crypto import run_precompile
from core.fork import Fork
from core.gpu import Device
from worker.evm import library
from worker.evm.base_state import BaseState
from worker.evm.batch import Batch, Outcomes
from worker.evm.engine import Engine, NothingMissing, Resolver
from worker.evm.errors import EngineLimit, KernelStandsStill
from worker.evm.gpu_launch import ArenaClass, Launch, upload_world
from worker.evm.layouts import ARENA_SECTIONS, HALT_LATE, ArenaSizes, NativeFork, RequestKind, Status, World

__all__ = ["COMMON_ARENAS", "HEAVY_ARENAS", "GpuEngine", "Incident"]

_log = structlog.get_logger(__name__)

_KIB, _MIB = 1 << 10, 1 << 20
_COMMON_BLOCKS_PER_PROCESSOR = 2
_COMMON_THREADS, _HEAVY_THREADS = 256, 128
"""Of a block, as kernel.cu and kernel_heavy.cu bound them."""

_NATIVE = Path(__file__).parent / "native"

COMMON_ARENAS = ArenaSizes(
    stack_words=96,
    memory_bytes=2304,
    return_bytes=512,
    accounts=8,
    slots=24,
    index_entries=0,
    journal_entries=36,
    log_bytes=_KIB,
    frames=6,
    region_bytes=_KIB,
    codes=2,
)
"""At most 16 KiB for each resident thread (design.md, budgets)."""

HEAVY_ARENAS = ArenaSizes(
    stack_words=8 * _KIB,
    memory_bytes=_MIB,
    return_bytes=128 * _KIB,
    accounts=1024,
    slots=4096,
    index_entries=16 * _KIB,
    journal_entries=8 * _KIB,
    log_bytes=128 * _KIB,
    frames=1026,
    region_bytes=3 * _MIB,
    codes=64,
)

_FORKS = {NativeFork.CANCUN: Fork.CANCUN, NativeFork.PRAGUE: Fork.PRAGUE, NativeFork.OSAKA: Fork.OSAKA}


@dataclass(frozen=True, slots=True)
class Incident:
    """Why rows of a batch were run again on the CPU.

    `rows` are those that took too long or, after a kernel failed, those that its threads had begun last: one of them
    made it fail.
    """

    reason: str
    rows: tuple[int, ...]


class GpuEngine:
    """The EVM on one GPU. Not to be shared between threads.

    `heavy_bytes` bounds the device memory of the heavy class, `row_seconds_max` the time that a kernel gives to a row.
    A kernel in which no row is begun for that time and `still_seconds_max`, for one long instruction, has failed.
    `fallback` runs what fits nowhere on the device; after a kernel has failed, which a process cannot mend, it runs
    everything. `kernel_ms` holds the duration of each kernel of the last `run`, `incidents` what went wrong in it.
    """

    name = "gpu"

    def __init__(
        self,
        device: Device,
        fallback: Engine | None = None,
        *,
        heavy_bytes: int = 16 << 30,
        row_seconds_max: float = 20.0,
        still_seconds_max: float = 40.0,
    ) -> None:
        self._device, self._fallback = device, fallback or Engine()
        self._library = library.load()
        self.row_ns_max = int(row_seconds_max * 1e9)
        self.still_ns_max = self.row_ns_max + int(still_seconds_max * 1e9)
        processors = device.processors
        blocks = processors * _COMMON_BLOCKS_PER_PROCESSOR
        self.common = self._class("kernel.cu", "warpgrid_evm_run_common", COMMON_ARENAS, blocks, _COMMON_THREADS)
        heavy = self._class("kernel_heavy.cu", "warpgrid_evm_run_heavy", HEAVY_ARENAS, processors, _HEAVY_THREADS)
        block_bytes = _HEAVY_THREADS * (heavy.warp_bytes // 32 + heavy.region_bytes)
        blocks = max(1, min(processors, heavy_bytes // block_bytes))
        self.heavy = self._class("kernel_heavy.cu", "warpgrid_evm_run_heavy", HEAVY_ARENAS, blocks, _HEAVY_THREADS)
        self._assert_common_arenas()
        self._modules: dict[Path, Any] = {}
        self._functions: dict[str, Any] = {}
        self._arenas: dict[str, tuple[Any, Any]] = {}
        self._base_on_device: tuple[BaseState, int, World, list[Any]] | None = None
        self._broken = False
        self._failed_launch: Launch | None = None
        self.kernel_ms: list[tuple[str, int, float]] = []
        self.incidents: list[Incident] = []

    def run(self, base: BaseState, batch: Batch, resolver: Resolver | None = None) -> Outcomes:
        """See `Engine.run`. Raises EngineLimit where the device's memory does not hold the batch."""
        resolver = resolver or NothingMissing()
        self.kernel_ms, self.incidents = [], []
        if self._broken:
            return self._fallback.run(base, batch, resolver)
        launch: Launch | None = None
        cuda = self._device.cupy.cuda
        try:
            launch = self.prepare(base, batch)
            outcomes, endings = self._run_prepared(launch, base, batch, resolver)
        except (KernelStandsStill, cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError) as error:
            return self._run_after_failure(error, launch, base, batch, resolver)
        except cuda.memory.OutOfMemoryError as error:
            raise EngineLimit(
                f"the GPU has too little memory for {len(batch)} transactions ({error}): run fewer transactions at a "
                "time, give the engine fewer `heavy_bytes`, or end what else uses the GPU (`nvidia-smi` shows it)"
            ) from error
        return self._merge_fallback(base, batch, outcomes, endings, resolver)

    def prepare(self, base: BaseState, batch: Batch) -> Launch:
        """Bring a base and a batch to the device, ready to be run (more than once, for measurements)."""
        return Launch(self, base, batch)

    def _run_prepared(
        self, launch: Launch, base: BaseState, batch: Batch, resolver: Resolver
    ) -> tuple[Outcomes, Array]:
        """What came out, and u32[n, 2]: the Status and Halt of each row."""
        rows = np.arange(len(batch), dtype="<u4")
        while True:
            endings = launch.run_rows(rows)
            rows = np.flatnonzero(endings[:, 0] == Status.PARKED).astype("<u4")
            if not len(rows):
                return launch.outcomes(), endings
            self._answer(base, batch, launch.outcomes(), rows, resolver)
            launch.refresh_base(base)

    def _run_after_failure(
        self, error: Exception, launch: Launch | None, base: BaseState, batch: Batch, resolver: Resolver
    ) -> Outcomes:
        """The whole batch on the CPU. A CUDA context that has seen an error serves no more in this process.

        The launch is kept: to free what a kernel that stands still may use would mean to wait for it.
        """
        self._broken, self._failed_launch = True, launch
        self._report(f"a kernel failed ({error})", launch.begun_rows() if launch else ())
        return self._fallback.run(base, batch, resolver)

    def _report(self, reason: str, rows: tuple[int, ...]) -> None:
        self.incidents.append(Incident(reason, rows))
        _log.warning("rows run again on the CPU", reason=reason, rows=rows[:8], count=len(rows))

    def _class(self, source: str, entry_point: str, sizes: ArenaSizes, blocks_max: int, threads: int) -> ArenaClass:
        layout = np.zeros(ARENA_SECTIONS + 2, "<u8")
        self._library.warpgrid_evm_lay_out(ctypes.byref(sizes), layout.ctypes.data)
        return ArenaClass(_NATIVE / source, entry_point, sizes, layout, blocks_max, threads)

    def _assert_common_arenas(self) -> None:
        built = ArenaSizes()
        self._library.warpgrid_evm_common_arenas(ctypes.byref(built))
        assert bytes(built) == bytes(COMMON_ARENAS), "kernels are built for other arenas: run `make native`"

    def _answer(self, base: BaseState, batch: Batch, outcomes: Outcomes, parked: Array, resolver: Resolver) -> None:
        """Precompiles that the device leaves to the host are computed here; the rest is the resolver's."""
        others = []
        for row in parked.tolist():
            request = outcomes.results["request"][row]
            if int(request["kind"]) != RequestKind.PRECOMPILE:
                others.append(row)
                continue
            fork = _FORKS[NativeFork(int(batch.blocks["fork"][batch.block_numbers[row]]))]
            result = run_precompile(int(request["precompile"]), outcomes.output(row), fork)
            base.add_answer(request["key"], result.output if result.success else b"", 0 if result.success else 1)
        if others:
            resolver.resolve(base, batch, outcomes, others)

    def _merge_fallback(
        self, base: BaseState, batch: Batch, outcomes: Outcomes, endings: Array, resolver: Resolver
    ) -> Outcomes:
        """Run the rows that overflowed even the heavy class on the CPU, and put their outcomes in place."""
        rows = np.flatnonzero(endings[:, 0] == Status.OVERFLOW)
        if not len(rows):
            return outcomes
        late = rows[endings[rows, 1] == HALT_LATE]
        if len(late):
            self._report(f"more than {self.row_ns_max / 1e9:g} s in a kernel", tuple(late.tolist()))
        others = self._fallback.run(base, batch.take(rows), resolver)
        results = outcomes.results.copy()
        results[rows] = others.results
        results["output"][rows] += np.uint64(len(outcomes.arena))
        return Outcomes(results, np.concatenate([outcomes.arena, others.arena]))

    def module(self, kind: ArenaClass) -> Any:
        """The loaded source of a class, looked up once: finding it means hashing every file of it."""
        if kind.source not in self._modules:
            self._modules[kind.source] = self._device.kernels(kind.source, library="warpgrid_evm").module
        return self._modules[kind.source]

    def function(self, kind: ArenaClass, name: str) -> Any:
        """An entry point of a class's source, looked up once."""
        if name not in self._functions:
            self._functions[name] = self.module(kind).get_function(name)
        return self._functions[name]

    def base_on_device(self, base: BaseState) -> World:
        """The base's tables on the device, copied when they changed."""
        known = self._base_on_device
        if known is None or known[0] is not base or known[1] != base.version:
            world, arrays = upload_world(self._device.cupy, base)
            self._base_on_device = known = (base, base.version, world, arrays)
        return known[2]

    def arenas(self, kind: ArenaClass) -> tuple[Any, Any]:
        """Lanes and regions of a class for all of its resident threads, kept between runs."""
        if kind.entry_point not in self._arenas:
            threads = kind.threads_max
            lanes = self._device.cupy.empty(threads // 32 * kind.warp_bytes, "u1")
            self._arenas[kind.entry_point] = (lanes, self._device.cupy.empty(threads * kind.region_bytes, "u1"))
        return self._arenas[kind.entry_point]

    @property
    def device(self) -> Device:
        """The GPU."""
        return self._device
