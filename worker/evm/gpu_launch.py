"""A batch on a GPU: its columns, results and output arena in device memory, and the launches over its rows.

Owns what one run allocates on the device. Knows nothing of what happens to rows that a kernel could not finish.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from core.columns import Array
from core.gpu import Device
from worker.evm.base_state import BaseState
from worker.evm.batch import Batch, Outcomes
from worker.evm.kernel_watch import await_kernel
from worker.evm.layouts import (
    ACCOUNT_RECORD,
    ARENA_SECTIONS,
    CODE,
    HALT_LATE,
    NEAR_STACK_BYTES,
    NONE,
    PRECOMPILE_ANSWER,
    RESULT,
    SLOT_RECORD,
    ArenaSizes,
    LaunchArguments,
    Status,
    Transactions,
    World,
    offset_of,
)

__all__ = ["ArenaClass", "Launch", "upload_world"]

_THREADS_PER_BLOCK = 128
"""Of kernels with a thread for each row."""

_WARP = 32
_OUTPUT_BYTES_PER_ROW = 4 << 10
_OUTPUT_BYTES_MIN = 64 << 20
_INDEX_PLACE_BYTES = 8
_READ_AHEAD_BYTES = 16
"""A kernel reads the record that follows the one it executes."""
_COLUMN_SLACK_BYTES = 32
"""Beyond a column's end, so that wide loads stay inside; what they hold means nothing."""

_PINNED_BYTES_MAX = 1 << 30
"""Of an array in page-locked memory, which copies from the device reach six times as fast as other memory."""

_TOO_LITTLE_MEMORY, _NOT_READY = 2, 600  # cudaErrorMemoryAllocation, cudaErrorNotReady

_WORD_BYTES = 4
_STATUS_WORD = offset_of(RESULT, "status") // _WORD_BYTES
"""Of a RESULT seen as u32; its halt follows."""

assert offset_of(RESULT, "halt") == (_STATUS_WORD + 1) * _WORD_BYTES


@dataclass(frozen=True, slots=True)
class ArenaClass:
    """A class of arenas on the device: entry point, sizes, their layout, and what may be resident."""

    source: Path
    entry_point: str
    sizes: ArenaSizes
    layout: Array
    blocks_max: int
    threads_per_block_max: int

    @property
    def warp_bytes(self) -> int:
        return 32 * int(self.layout[ARENA_SECTIONS])

    @property
    def region_bytes(self) -> int:
        return int(self.layout[ARENA_SECTIONS + 1])

    @property
    def threads_max(self) -> int:
        return self.blocks_max * self.threads_per_block_max

    def grid_for(self, rows: int) -> tuple[int, int]:
        """Blocks and threads of each, whole warps: no more than are resident, and few rows on many multiprocessors."""
        warps = -(-rows // (_WARP * self.blocks_max))
        threads = min(self.threads_per_block_max, _WARP * max(1, warps))
        return min(self.blocks_max, -(-rows // threads)), threads


class LaunchingEngine(Protocol):
    """What a launch needs of `GpuEngine`."""

    common: ArenaClass
    heavy: ArenaClass
    row_ns_max: int
    still_ns_max: int
    kernel_ms: list[tuple[str, int, float]]

    @property
    def device(self) -> Device: ...
    def module(self, kind: ArenaClass) -> Any: ...
    def function(self, kind: ArenaClass, name: str) -> Any: ...
    def base_on_device(self, base: BaseState) -> World: ...
    def arenas(self, kind: ArenaClass) -> tuple[Any, Any]: ...


class Launch:
    """A batch on the device."""

    def __init__(self, engine: LaunchingEngine, base: BaseState, batch: Batch) -> None:
        self._engine, self._cupy = engine, engine.device.cupy
        self._columns = {name: self._column_on_device(column) for name, column in batch.columns.items()}
        self._count = len(batch)
        self._results = self._cupy.zeros(self._count * RESULT.itemsize, "u1")
        self._world = engine.base_on_device(base)
        self._capacity = self._output_bytes()
        self._arena = self._cupy.empty(self._capacity, "u1")
        self._used = self._cupy.zeros(1, "u8")
        self._next_row = self._cupy.zeros(1, "u8")
        threads = max(engine.common.threads_max, engine.heavy.threads_max)
        self._begun_memory = self._cupy.cuda.alloc_pinned_memory(4 * threads)
        self._begun = np.frombuffer(self._begun_memory, "<u4", threads)
        self._begun[:] = NONE

    def refresh_base(self, base: BaseState) -> None:
        """Take over what was added to the base."""
        self._world = self._engine.base_on_device(base)

    def clear(self) -> None:
        """Forget the outputs of earlier runs."""
        self._used.fill(0)

    def run_rows(self, rows: Array) -> Array:
        """Run these rows: transfers, then the others in the common class, and what overflows it in the heavy one.

        u32[n, 2], for each row of the batch, whenever it ran: its Status and its Halt.
        """
        transfers, others = self.split_rows(self._cupy.asarray(rows))
        self.run_transfers(transfers)
        self.run_class(self._engine.common, others)
        endings = self._endings()
        statuses, halts = endings[rows].T
        overflown = rows[(statuses == Status.OVERFLOW) & (halts != HALT_LATE)]
        if not len(overflown):
            return endings
        self.run_class(self._engine.heavy, self.split_rows(self._cupy.asarray(overflown))[1])
        return self._endings()

    def split_rows(self, rows: Any) -> tuple[Any, Any]:
        """Rows on the device: the transfers, and the others with those that call the same function side by side."""
        if not len(rows):
            return rows, rows
        keys = self._cupy.empty(len(rows), "u2")
        self._set_arguments(self._engine.common, rows)
        self._queue(self._engine.common, "warpgrid_evm_sort_keys", len(rows), keys)
        transfers = int((keys == 0).sum())
        if transfers == len(rows):
            return rows, rows[:0]
        ordered = rows[self._cupy.argsort(keys)]
        return ordered[:transfers], ordered[transfers:]

    def run_transfers(self, rows: Any) -> float:
        """Run rows that `split_rows` found to be transfers; the kernel's duration in ms."""
        return self._run(self._engine.common, "warpgrid_evm_run_transfers", rows)

    def run_class(self, kind: ArenaClass, rows: Any) -> float:
        """Run rows in one class; the kernel's duration in ms."""
        return self._run(kind, kind.entry_point, rows)

    def outcomes(self) -> Outcomes:
        """Results and their sections, on the host."""
        used = min(int(self._used[0]), self._capacity)
        return Outcomes(self._on_host(self._results).view(RESULT), self._on_host(self._arena[:used]))

    def begun_rows(self) -> tuple[int, ...]:
        """The rows that the kernels' threads began last; readable when nothing on the device is any more."""
        return tuple(np.unique(self._begun[self._begun != NONE]).tolist())

    def _endings(self) -> Array:
        words = self._results.view("<u4").reshape(self._count, RESULT.itemsize // _WORD_BYTES)
        endings: Array = self._cupy.asnumpy(words[:, _STATUS_WORD : _STATUS_WORD + 2])
        return endings

    def _column_on_device(self, column: Array) -> Any:
        raw = np.ascontiguousarray(column).reshape(-1).view("u1")
        array = self._cupy.empty(len(raw) + _COLUMN_SLACK_BYTES, "u1")
        if len(raw):
            array[: len(raw)].set(raw)
        return array

    def _on_host(self, array: Any) -> Array:
        """Bytes of the device, in memory of their own: page-locked where they are few enough and the system has it."""
        memory = self._pinned(array.nbytes) if 0 < array.nbytes <= _PINNED_BYTES_MAX else None
        if memory is None:
            copied: Array = self._cupy.asnumpy(array)
            return copied
        host = np.frombuffer(memory, "u1", array.nbytes)
        array.data.copy_to_host(ctypes.c_void_p(host.ctypes.data), array.nbytes)
        return host

    def _pinned(self, size: int) -> Any | None:
        """Page-locked memory, which goes back to cupy's pool with the last array on it, or None: too little is left."""
        try:
            return self._cupy.cuda.alloc_pinned_memory(size)
        except self._cupy.cuda.runtime.CUDARuntimeError as error:
            if error.status != _TOO_LITTLE_MEMORY:
                raise
            return None

    def _output_bytes(self) -> int:
        """What most batches need, as far as the device has it; rows that find the arena full run elsewhere."""
        free, _ = self._cupy.cuda.runtime.memGetInfo()
        wanted = max(_OUTPUT_BYTES_MIN, self._count * _OUTPUT_BYTES_PER_ROW)
        return int(min(wanted, max(_OUTPUT_BYTES_MIN, free // 2)))

    def _run(self, kind: ArenaClass, name: str, rows: Any) -> float:
        if not len(rows):
            return 0.0
        self._set_arguments(kind, rows)
        begin, end = self._cupy.cuda.Event(), self._cupy.cuda.Event()
        begin.record()
        self._queue(kind, name, len(rows))
        end.record()
        await_kernel(
            lambda: self._is_over(end), lambda: int(self._begun.sum(dtype=np.uint64)), self._engine.still_ns_max
        )
        duration_ms = float(self._cupy.cuda.get_elapsed_time(begin, end))
        self._engine.kernel_ms.append((name, len(rows), duration_ms))
        return duration_ms

    def _is_over(self, event: Any) -> bool:
        """Has all work up to the event ended? Raises what CUDA says of a kernel that failed; cupy's `done` does not."""
        if self._cupy.cuda.runtime.eventQuery(event.ptr) == _NOT_READY:
            return False
        event.synchronize()
        return True

    def _queue(self, kind: ArenaClass, name: str, rows: int, *arguments: Any) -> None:
        """Queue a kernel: a class's own with a grid that takes rows by and by, others with a thread for each row."""
        kernel = self._engine.function(kind, name)
        if name != kind.entry_point:
            kernel((-(-rows // _THREADS_PER_BLOCK),), (_THREADS_PER_BLOCK,), arguments)
            return
        blocks, threads = kind.grid_for(rows)
        kernel.max_dynamic_shared_size_bytes = NEAR_STACK_BYTES * kind.threads_per_block_max
        kernel((blocks,), (threads,), arguments, shared_mem=NEAR_STACK_BYTES * threads)

    def _set_arguments(self, kind: ArenaClass, rows: Any) -> None:
        self._next_row.fill(0)
        lanes, regions = self._engine.arenas(kind)
        arguments = LaunchArguments(
            self._world,
            Transactions(self._count, *(self._columns[column].data.ptr for column in Transactions.COLUMNS)),
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
            self._engine.row_ns_max,
            self._begun_memory.ptr,
        )
        place = self._engine.module(kind).get_global("warpgrid_evm_arguments")
        place.copy_from_host(ctypes.c_void_p(ctypes.addressof(arguments)), ctypes.sizeof(arguments))


def upload_world(cupy: Any, base: BaseState) -> tuple[World, list[Any]]:
    """A World of device pointers, and the arrays that they point into."""
    host, (codes, blob_bytes, answer_bytes, hashes) = base.view()
    sizes = {
        "accounts": host.account_count * ACCOUNT_RECORD.itemsize,
        "account_index": (host.account_index_mask + 1) * _INDEX_PLACE_BYTES,
        "slots": host.slot_count * SLOT_RECORD.itemsize,
        "slot_index": (host.slot_index_mask + 1) * _INDEX_PLACE_BYTES,
        "codes": codes * CODE.itemsize,
        "code_blob": blob_bytes,
        "block_hashes": hashes * 32,
        "answers": host.answer_count * PRECOMPILE_ANSWER.itemsize,
        "answer_blob": answer_bytes,
    }
    world, arrays = World.from_buffer_copy(host), []
    for name, size in sizes.items():
        array = cupy.zeros(size + _READ_AHEAD_BYTES, "u1")
        if size:
            pointer = ctypes.cast(getattr(host, name), ctypes.POINTER(ctypes.c_uint8))
            array[:size].set(np.ctypeslib.as_array(pointer, (size,)))
        arrays.append(array)
        setattr(world, name, array.data.ptr)
    return world, arrays
