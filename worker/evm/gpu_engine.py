"""The engine on a GPU: instances mode for whole batches.

Rows are sorted by what they call and run in the common class, what did not fit there in the heavy class, and what
still did not fit on the CPU. Nothing is lost: every row's outcome is the one that the CPU engine gives.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.columns import Array
from core.crypto import run_precompile
from core.fork import Fork
from core.gpu import Device
from worker.evm import library
from worker.evm.base_state import BaseState
from worker.evm.batch import Batch, Outcomes
from worker.evm.engine import Engine, NothingMissing, Resolver
from worker.evm.layouts import (
    ACCOUNT_RECORD,
    ARENA_SECTIONS,
    CODE,
    PRECOMPILE_ANSWER,
    RESULT,
    SLOT_RECORD,
    ArenaSizes,
    LaunchArguments,
    NativeFork,
    RequestKind,
    Status,
    Transactions,
    World,
)

__all__ = ["COMMON_ARENAS", "HEAVY_ARENAS", "GpuEngine"]

_KIB, _MIB = 1 << 10, 1 << 20
_THREADS_PER_BLOCK = 128
_COMMON_BLOCKS_PER_PROCESSOR = 4
_OUTPUT_BYTES_PER_ROW = 4 * _KIB
_OUTPUT_BYTES_MIN = 64 * _MIB
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
class _Class:
    """A class of arenas on the device: entry point, sizes, their layout, and how many blocks may be resident."""

    source: Path
    entry_point: str
    sizes: ArenaSizes
    layout: Array
    blocks_max: int

    @property
    def warp_bytes(self) -> int:
        return 32 * int(self.layout[ARENA_SECTIONS])

    @property
    def region_bytes(self) -> int:
        return int(self.layout[ARENA_SECTIONS + 1])


class GpuEngine:
    """The EVM on one GPU. Not to be shared between threads.

    `heavy_bytes` bounds the device memory of the heavy class. `fallback` runs what fits nowhere on the device.
    `kernel_ms` holds the duration of each kernel of the last `run`.
    """

    name = "gpu"

    def __init__(self, device: Device, fallback: Engine | None = None, heavy_bytes: int = 16 << 30) -> None:
        self._device, self._fallback = device, fallback or Engine()
        self._library = library.load()
        processors = device.cupy.cuda.Device(device.index).attributes["MultiProcessorCount"]
        common = processors * _COMMON_BLOCKS_PER_PROCESSOR
        self._common = self._class("kernel.cu", "warpgrid_evm_run_common", COMMON_ARENAS, common)
        heavy = self._class("kernel_heavy.cu", "warpgrid_evm_run_heavy", HEAVY_ARENAS, processors)
        block_bytes = _THREADS_PER_BLOCK * (heavy.warp_bytes // 32 + heavy.region_bytes)
        self._heavy = self._class(
            "kernel_heavy.cu",
            "warpgrid_evm_run_heavy",
            HEAVY_ARENAS,
            max(1, min(processors, heavy_bytes // block_bytes)),
        )
        self._functions: dict[str, Any] = {}
        self._arenas: dict[str, tuple[Any, Any]] = {}
        self._base_on_device: tuple[BaseState, int, World, list[Any]] | None = None
        self.kernel_ms: list[tuple[str, int, float]] = []

    def run(self, base: BaseState, batch: Batch, resolver: Resolver | None = None) -> Outcomes:
        """See `Engine.run`."""
        resolver = resolver or NothingMissing()
        launch = self.prepare(base, batch)
        rows = np.arange(len(batch), dtype="<u4")
        while len(rows):
            launch.run_rows(rows)
            outcomes = launch.outcomes()
            parked = np.flatnonzero(outcomes.results["status"] == Status.PARKED)
            self._answer(base, batch, outcomes, parked, resolver)
            rows = parked.astype("<u4")
            if len(rows):
                launch.refresh_base(base)
        return self._merge_fallback(base, batch, launch.outcomes(), resolver)

    def prepare(self, base: BaseState, batch: Batch) -> "Launch":
        """Bring a base and a batch to the device, ready to be run (more than once, for measurements)."""
        return Launch(self, base, batch)

    def _class(self, source: str, entry_point: str, sizes: ArenaSizes, blocks_max: int) -> _Class:
        layout = np.zeros(ARENA_SECTIONS + 2, "<u8")
        self._library.warpgrid_evm_lay_out(ctypes.byref(sizes), layout.ctypes.data)
        return _Class(_NATIVE / source, entry_point, sizes, layout, blocks_max)

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

    def _merge_fallback(self, base: BaseState, batch: Batch, outcomes: Outcomes, resolver: Resolver) -> Outcomes:
        """Run the rows that overflowed even the heavy class on the CPU, and put their outcomes in place."""
        rows = np.flatnonzero(outcomes.results["status"] == Status.OVERFLOW)
        if not len(rows):
            return outcomes
        others = self._fallback.run(base, batch.take(rows), resolver)
        results = outcomes.results.copy()
        results[rows] = others.results
        results["output"][rows] += np.uint64(len(outcomes.arena))
        return Outcomes(results, np.concatenate([outcomes.arena, others.arena]))

    def module(self, kind: _Class) -> Any:
        """The loaded source of a class."""
        return self._device.kernels(kind.source).module

    def function(self, kind: _Class, name: str) -> Any:
        """An entry point of a class's source, looked up once."""
        if name not in self._functions:
            self._functions[name] = self.module(kind).get_function(name)
        return self._functions[name]

    def base_on_device(self, base: BaseState) -> World:
        """The base's tables on the device, copied when they changed."""
        known = self._base_on_device
        if known is None or known[0] is not base or known[1] != base.version:
            world, arrays = _upload_world(self._device.cupy, base)
            self._base_on_device = known = (base, base.version, world, arrays)
        return known[2]

    def arenas(self, kind: _Class) -> tuple[Any, Any]:
        """Lanes and regions of a class for all of its resident threads, kept between runs."""
        if kind.entry_point not in self._arenas:
            threads = kind.blocks_max * _THREADS_PER_BLOCK
            lanes = self._device.cupy.empty(threads // 32 * kind.warp_bytes, "u1")
            self._arenas[kind.entry_point] = (lanes, self._device.cupy.empty(threads * kind.region_bytes, "u1"))
        return self._arenas[kind.entry_point]

    @property
    def classes(self) -> tuple[_Class, _Class]:
        """Common and heavy."""
        return self._common, self._heavy

    @property
    def device(self) -> Device:
        """The GPU."""
        return self._device


class Launch:
    """A batch on the device."""

    def __init__(self, engine: GpuEngine, base: BaseState, batch: Batch) -> None:
        self._engine, self._cupy = engine, engine.device.cupy
        self._columns = {name: self._cupy.asarray(_padded(column)) for name, column in batch.columns.items()}
        self._count = len(batch)
        self._results = self._cupy.zeros(self._count * RESULT.itemsize, "u1")
        self._capacity = max(_OUTPUT_BYTES_MIN, self._count * _OUTPUT_BYTES_PER_ROW)
        self._arena = self._cupy.empty(self._capacity, "u1")
        self._used = self._cupy.zeros(1, "u8")
        self._next_row = self._cupy.zeros(1, "u8")
        self._arguments = self._cupy.zeros(ctypes.sizeof(LaunchArguments), "u1")
        self._world = engine.base_on_device(base)

    def refresh_base(self, base: BaseState) -> None:
        """Take over what was added to the base."""
        self._world = self._engine.base_on_device(base)

    def clear(self) -> None:
        """Forget the outputs of earlier runs."""
        self._used.fill(0)

    def run_rows(self, rows: Array) -> None:
        """Run these rows in the common class, and what overflows it in the heavy one."""
        common, heavy = self._engine.classes
        transfers, others = self.split_rows(self._cupy.asarray(rows))
        if len(transfers):
            self.run_transfers(transfers)
        if len(others):
            self.run_class(common, others)
        status = self._cupy.asnumpy(self._results).view(RESULT)["status"]
        overflown = rows[status[rows] == Status.OVERFLOW]
        if len(overflown):
            self._set_arguments(common, self._cupy.asarray(overflown))
            self.run_class(heavy, self.sorted_rows(self._cupy.asarray(overflown)))

    def sorted_rows(self, rows: Any) -> Any:
        """Rows on the device, those that call the same function of the same account side by side."""
        keys = self._keys(rows)
        return rows[self._cupy.argsort(keys)]

    def _keys(self, rows):
        keys = self._cupy.empty(len(rows), "u4")
        self._set_arguments(self._engine.classes[0], rows)
        kernel = self._engine.function(self._engine.classes[0], "warpgrid_evm_sort_keys")
        kernel((-(-len(rows) // _THREADS_PER_BLOCK),), (_THREADS_PER_BLOCK,), (keys,))
        return keys

    def split_rows(self, rows):
        keys = self._keys(rows)
        transfers = int((keys == 0).sum())
        if transfers == len(rows):
            return rows, rows[:0]
        ordered = rows[self._cupy.argsort(keys)]
        return ordered[:transfers], ordered[transfers:]

    def bench(self, blocks, repeats, same, expected, w):
        from dataclasses import replace
        cupy = self._cupy
        arrival = cupy.arange(self._count, dtype="u4")
        out = {}
        for b in blocks:
            kind = replace(self._engine.classes[0], blocks_max=self._engine.classes[0].blocks_max // _COMMON_BLOCKS_PER_PROCESSOR * b)
            best = split = 1e9
            for _ in range(repeats):
                self.clear()
                begin, end = cupy.cuda.Event(), cupy.cuda.Event()
                begin.record()
                t, o = self.split_rows(arrival)
                end.record(); end.synchronize()
                split = min(split, cupy.cuda.get_elapsed_time(begin, end))
                ms = 0
                if len(t): ms += self.run_transfers(t)
                if len(o): ms += self.run_class(kind, o)
                best = min(best, ms)
            n = self._count
            out[b] = (round(best, 4), f"{n/best/1e3:.1f} M/s", f"{n*w.operations/best/1e6:.1f} Gop/s" if w.operations > 1 else "", f"split {split:.3f}", same(self.outcomes(), expected) if expected is not None and b == blocks[0] else "")
        f = self._engine.function(kind, kind.entry_point); g = self._engine.function(kind, "warpgrid_evm_run_transfers")
        return {"b": out, "regs": (f.num_regs, g.num_regs), "local": (f.local_size_bytes, g.local_size_bytes)}

    def run_transfers(self, rows):
        self._set_arguments(self._engine.classes[0], rows)
        kernel = self._engine.function(self._engine.classes[0], "warpgrid_evm_run_transfers")
        begin, end = self._cupy.cuda.Event(), self._cupy.cuda.Event()
        begin.record()
        kernel((-(-len(rows) // _THREADS_PER_BLOCK),), (_THREADS_PER_BLOCK,), ())
        end.record()
        end.synchronize()
        return float(self._cupy.cuda.get_elapsed_time(begin, end))

    def run_class(self, kind: _Class, rows: Any) -> float:
        """Run rows (on the device) in one class; the kernel's duration in ms."""
        self._set_arguments(kind, rows)
        blocks = min(kind.blocks_max, -(-len(rows) // _THREADS_PER_BLOCK))
        kernel = self._engine.function(kind, kind.entry_point)
        begin, end = self._cupy.cuda.Event(), self._cupy.cuda.Event()
        begin.record()
        kernel((blocks,), (_THREADS_PER_BLOCK,), ())
        end.record()
        end.synchronize()
        duration_ms = float(self._cupy.cuda.get_elapsed_time(begin, end))
        self._engine.kernel_ms.append((kind.entry_point, len(rows), duration_ms))
        return duration_ms

    def outcomes(self) -> Outcomes:
        """Results and their sections, on the host."""
        results = self._cupy.asnumpy(self._results).view(RESULT)
        used = min(int(self._used[0]), self._capacity)
        return Outcomes(results, self._cupy.asnumpy(self._arena[:used]))

    def _set_arguments(self, kind: _Class, rows: Any) -> None:
        lanes, regions = self._engine.arenas(kind)
        self._next_row.fill(0)
        batch = Transactions(self._count, *(self._columns[name].data.ptr for name in Transactions.COLUMNS))
        arguments = LaunchArguments(
            self._world,
            batch,
            self._results.data.ptr,
            self._arena.data.ptr,
            self._used.data.ptr,
            self._capacity,
            kind.sizes,
            (ctypes.c_uint64 * ARENA_SECTIONS)(*kind.layout[:ARENA_SECTIONS].tolist()),
            rows.data.ptr,
            len(rows),
            self._next_row.data.ptr,
            lanes.data.ptr,
            regions.data.ptr,
            kind.warp_bytes,
            kind.region_bytes,
        )
        target = self._engine.module(kind).get_global("warpgrid_evm_arguments")
        target.copy_from_host(ctypes.c_void_p(ctypes.addressof(arguments)), ctypes.sizeof(arguments))


def _padded(column: Array) -> Array:
    """A column's bytes, at least 32 of them beyond its end, so that wide loads stay inside."""
    raw = np.ascontiguousarray(column).reshape(-1).view("u1")
    return np.concatenate([raw, np.zeros(32, "u1")])


def _upload_world(cupy: Any, base: BaseState) -> tuple[World, list[Any]]:
    """A World of device pointers, and the arrays that they point into."""
    host, (codes, blob_bytes, answer_bytes, hashes) = base.view()
    sizes = {
        "accounts": host.account_count * ACCOUNT_RECORD.itemsize,
        "account_index": (host.account_index_mask + 1) * 8,
        "slots": host.slot_count * SLOT_RECORD.itemsize,
        "slot_index": (host.slot_index_mask + 1) * 8,
        "codes": codes * CODE.itemsize,
        "code_blob": blob_bytes,
        "block_hashes": hashes * 32,
        "answers": host.answer_count * PRECOMPILE_ANSWER.itemsize,
        "answer_blob": answer_bytes,
    }
    world, arrays = World.from_buffer_copy(host), []
    for name, size in sizes.items():
        raw = (
            np.ctypeslib.as_array(ctypes.cast(getattr(host, name), ctypes.POINTER(ctypes.c_uint8)), (size,))
            if size
            else None
        )
        arrays.append(cupy.asarray(raw) if raw is not None else cupy.zeros(1, "u1"))
        setattr(world, name, arrays[-1].data.ptr)
    return world, arrays
