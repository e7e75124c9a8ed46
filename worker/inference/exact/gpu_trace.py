"""Hashes what a GPU computes where it lies: of every position 32 bytes travel, not the rows.

Owns the rows of traced batches on the device, twice: while one batch is computed, the rows of the one before are
hashed (worker/inference/native/gpu/trace.cu) on a stream of their own. SHA-256 of a long row is a chain, which a batch
of one token would otherwise wait for; beside the next batch it takes what that leaves of the integer units. A third
batch waits until the first is hashed. Knows nothing of models beyond the sizes of their rows.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from core.gpu import Device
from core.native import SOURCE_ROOT
from worker.inference.exact.gpu_products import PRODUCTS
from worker.inference.exact.specification import Header
from worker.inference.exact.tracing import leaves_of

__all__ = ["SLOTS", "DeviceRoots", "TraceHasher", "TraceSlot"]

SLOTS: Final = 2
_SOURCE: Final = SOURCE_ROOT / "worker" / "inference" / "native" / "gpu" / "trace.cu"
_DIGEST_BYTES: Final = 32
_BLOCK_THREADS: Final = 128  # a warp for each quarter of a multiprocessor
_ALL_SHARED_PERCENT: Final = 100
_SHARED_AS_NEEDED: Final = -1
_ROWS_OF_SMALL_PRODUCTS: Final = max(one.rows for one in PRODUCTS if one.cluster == 1)
_NODE_BYTES: Final = 8192  # of a block: the largest products leave 14 KB of 228 (gpu_products.py, exact.cu)


@dataclass(slots=True)
class TraceSlot:
    """The rows of one batch: `boundaries` int32[n, layers + 1, width], `kv_rows` u8[n, layers, bytes], flat, and the
    `inputs` that they came from. Events: `computed`, after which they are there; `hashed`, after which they may be
    overwritten."""

    index: int
    inputs: Any
    boundaries: Any
    kv_rows: Any
    leaves: Any
    roots: Any
    computed: Any
    hashed: Any
    copied_to: Any = None  # held until `hashed`: the pool would lend it to another copy if nobody kept the roots


@dataclass(slots=True)
class DeviceRoots:
    """Position roots on their way from the device. Implements `tracing.PositionRoots`."""

    _event: Any
    _memory: Any  # pinned, so that the copy waits for nobody
    _digests: NDArray[np.uint8] = field(repr=False)

    def wait(self) -> NDArray[np.uint8]:
        self._event.synchronize()
        return self._digests


class TraceHasher:
    """The slots of one engine, and the stream that hashes them."""

    def __init__(self, header: Header, device: Device, rows_max: int) -> None:
        cupy = self._cupy = device.cupy
        self._header, self._leaves_each = header, leaves_of(header.layers)
        self.kv_row_bytes = header.key_value_heads * (2 * header.head_width + 8)
        self._processors = device.processors
        self._kernel = device.kernels(_SOURCE, library="warpgrid_exact").module.get_function("trace_roots")
        position_bytes = self._leaves_each // 2 * _DIGEST_BYTES
        self._together = max(1, _NODE_BYTES // position_bytes)
        self._node_bytes = self._together * position_bytes
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self.slots = [self._empty_slot(index, rows_max) for index in range(SLOTS)]
        self._next = 0

    def _empty_slot(self, index: int, rows_max: int) -> TraceSlot:
        empty = self._cupy.empty
        rows = (empty(1, np.int32), *(empty(1, np.uint8) for _ in range(3)))
        return TraceSlot(index, empty((5, rows_max + 1), np.int32), *rows, *(self._event() for _ in range(2)))

    def _event(self) -> Any:
        return self._cupy.cuda.Event(disable_timing=True)

    def take(self) -> TraceSlot:
        """The slot for the next traced batch."""
        slot = self.slots[self._next]
        self._next = (self._next + 1) % SLOTS
        return slot

    def grow(self, slot: TraceSlot, rows: int) -> bool:
        """Make room for a batch of so many rows. True where the slot's addresses have changed."""
        header, empty = self._header, self._cupy.empty
        width = (header.layers + 1) * header.model_width
        if slot.boundaries.size >= rows * width:
            return False
        slot.hashed.synchronize()
        slot.boundaries = empty(rows * width, np.int32)
        slot.kv_rows = empty(rows * header.layers * self.kv_row_bytes, np.uint8)
        slot.leaves = self._cupy.zeros(rows * self._leaves_each * _DIGEST_BYTES, np.uint8)
        slot.roots = empty(rows * _DIGEST_BYTES, np.uint8)
        return True

    def start(self, slot: TraceSlot, rows: int, computing: Any) -> DeviceRoots:
        """Hash the slot's rows once the stream `computing` has come this far. What it had before must be hashed."""
        header, count = self._header, rows * _DIGEST_BYTES
        memory = slot.copied_to = self._cupy.cuda.alloc_pinned_memory(count)
        computing.record(slot.computed)
        with self._stream:
            self._stream.wait_event(slot.computed)
            self._kernel.preferred_shared_memory_carveout = self._carveout(rows)
            self._kernel(
                (min(rows, self._processors),),
                (_BLOCK_THREADS,),
                (
                    *(slot.roots, slot.leaves, slot.boundaries, slot.kv_rows, slot.inputs),
                    *map(np.uint32, (self._leaves_each, rows, header.layers)),
                    *map(np.uint32, (4 * header.model_width, self.kv_row_bytes, self._together)),
                ),
                shared_mem=self._node_bytes,
            )
            slot.roots.data.copy_to_host_async(memory.ptr, count)
        slot.hashed.record(self._stream)
        done = self._event()
        done.record(self._stream)
        return DeviceRoots(done, memory, np.frombuffer(memory, np.uint8, count).reshape(rows, _DIGEST_BYTES))

    @staticmethod
    def _carveout(rows: int) -> int:
        """How a multiprocessor is to divide its memory, which it does when it is idle: percent for shared memory.

        Divided for a kernel that needs little, it takes no product until that has ended. Products in clusters, one
        block a multiprocessor, would all wait. Those of few rows find room elsewhere, and are better off so (1, 16 and
        64 rows at the shape of Llama-3-8B: 1 to 3 % instead of 3 to 5), since equal blocks wait for the slowest.
        """
        return _ALL_SHARED_PERCENT if rows > _ROWS_OF_SMALL_PRODUCTS else _SHARED_AS_NEEDED

    def close(self) -> None:
        """Wait for what is being hashed and free the slots. Safe to call twice."""
        self._stream.synchronize()
        self.slots = []
