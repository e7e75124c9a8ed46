"""The exact engine on an NVIDIA Hopper GPU: the CPU engine's bytes, at the GPU's speed.

Owns the model's tensors, the key-value cache and every buffer on the device, all sized before the first batch, and the
order of kernels (worker/inference/native/gpu/exact.cu). A batch that only continues answers runs as a CUDA graph, of
which a few are kept. Knows nothing of requests.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.gpu import Device
from core.native import SOURCE_ROOT
from worker.inference.errors import EngineUnavailable
from worker.inference.exact.gpu_launch import DependentLaunch, Launcher
from worker.inference.exact.gpu_pass import (
    DeviceModel,
    Launch,
    Layer,
    Matrix,
    Shape,
    put_together,
    shape_of,
    sums_needed,
)
from worker.inference.exact.gpu_products import packed_shape, quantised_bytes
from worker.inference.exact.gpu_trace import DeviceRoots, TraceHasher, TraceSlot
from worker.inference.exact.native import PAGE_POSITIONS, Rows, native_choose
from worker.inference.exact.reference import Weights
from worker.inference.exact.sampling import Sampling
from worker.inference.exact.specification import Header, Role, exp2_table, sigmoid_table
from worker.inference.exact.tracing import Tracing

__all__ = ["GpuEngine", "GpuForward"]

SOURCE: Final = SOURCE_ROOT / "worker" / "inference" / "native" / "gpu" / "exact.cu"

_SCORE_MAX: Final = 1 << 30
_K_BLOCK: Final = 128  # layout.cuh
_WEIGHT_ROWS: Final = 16
_PACK_THREADS: Final = 128
_LOGIT_ROWS_MAX: Final = 512
_GRAPHS_MAX: Final = 128
_PROMPTS_MAX: Final = 16
_SHARED_BYTES_ALLOWED: Final = 32 * 1024  # to any kernel; more has to be asked for


class _Batch(NamedTuple):
    """What runs a batch of some shape: its kernels, captured in a graph or not. Keeps alive what they are given."""

    kernels: list[DependentLaunch]
    graph: Any


@dataclass(frozen=True, slots=True)
class GpuForward:
    """Like `native.Forward`. Logits stay on the device, int32[wanted, vocabulary], until somebody asks; they are
    overwritten by the next batch. `greedy` holds the index of the largest logit of each row."""

    logits: Any
    greedy: NDArray[np.uint64]
    roots: DeviceRoots | None
    boundaries: NDArray[np.int32] | None
    kv_rows: NDArray[np.uint8] | None

    def choose(self, index: int, sampling: Sampling, position: int) -> int:
        """The token at `position`, from the logits of the index-th row whose logits were wanted."""
        if sampling.temperature_q16 == 0:
            return int(self.greedy[index])
        return native_choose(self.logits[index].get(), sampling, position)


class GpuEngine:
    """One model on one GPU, with a cache of `pages` pages and batches of at most `rows_max` rows.

    Raises EngineUnavailable when the device is no Hopper GPU, its driver is too old or memory too small, GpuUnavailable
    when there is none.
    """

    def __init__(self, weights: Weights, device: Device, *, rows_max: int = 2048, pages: int = 1024) -> None:
        self.header: Header = weights.header
        self.rows_max, self.pages = rows_max, pages
        cupy = self._cupy = device.cupy
        if device.architecture != "sm_90":
            raise EngineUnavailable(f"{device.name} is {device.architecture}; the exact kernels need sm_90 (Hopper)")
        try:
            self._module = device.kernels(SOURCE, library="warpgrid_exact", architecture="sm_90a").module
        except cupy.cuda.driver.CUDADriverError as error:
            raise EngineUnavailable(
                f"the driver of {device.name} cannot load the kernels ({error}): update it"
            ) from error
        self._logit_rows_max = min(rows_max, _LOGIT_ROWS_MAX)
        self._kernels: dict[str, Any] = {}
        self._allowed_bytes: dict[str, int] = {}
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._launcher = Launcher(self._stream.ptr)
        self._graphs: OrderedDict[tuple[Shape, int], _Batch] = OrderedDict()
        self._prompts: OrderedDict[tuple[Shape, int], _Batch] = OrderedDict()
        try:
            self._hasher = TraceHasher(self.header, device, rows_max)
            with self._stream:
                self._model: DeviceModel | None = self._load(weights, device.processors)
                self._buffers = self._allocate()
            self._stream.synchronize()
        except cupy.cuda.memory.OutOfMemoryError as error:
            raise EngineUnavailable(f"the model, {pages} pages and {rows_max} rows exceed {device.name}") from error

    def close(self) -> None:
        """Free the device's memory. Safe to call twice."""
        self._forget()
        self._hasher.close()
        self._buffers = {}
        self._model = None
        self._cupy.get_default_memory_pool().free_all_blocks()

    def forward(self, rows: Rows, *, trace: Tracing = Tracing.OFF) -> GpuForward:
        """Run one batch; the cache then holds the keys and values of these rows."""
        self._check(rows)
        shape, tile_rows = shape_of(self.header, rows, traced=trace > Tracing.OFF)
        slot = self._hasher.take() if shape.traced else self._hasher.slots[0]
        slot.hashed.synchronize()  # here and not on the stream: copies of pageable memory want an idle one
        with self._stream:
            self._upload(rows, shape, tile_rows, slot)
            self._run(shape, slot)
            roots = self._hasher.start(slot, shape.rows, self._stream) if shape.traced else None
            return self._outcome(shape, slot, roots, trace)

    # Memory

    def _load(self, weights: Weights, processors: int) -> DeviceModel:
        header, put = self.header, self._put
        layers = []
        for index in range(header.layers):
            prefix = f"layers.{index}"
            qkv, o, gate_up, down = (
                self._matrix(weights, f"{prefix}.{role}", role) for role in ("qkv", "o", "gate_up", "down")
            )
            query_norm, key_norm = (
                put(weights.tensor(f"{prefix}.{name}_norm"), np.int32) if header.qk_norm else None for name in "qk"
            )
            layers.append(Layer(qkv, o, gate_up, down, query_norm, key_norm))
        return DeviceModel(
            header=header,
            put=self._cupy.asarray,
            processors=processors,
            layers=layers,
            head=self._matrix(weights, "head", "head"),
            embedding=put(weights.tensor("embedding.weight"), np.int8),
            embedding_mantissa=put(weights.tensor("embedding.mantissa"), np.uint16),
            embedding_exponent=put(weights.tensor("embedding.exponent"), np.int8),
            cosines=put(weights.tensor("rope.cos"), np.int16),
            sines=put(weights.tensor("rope.sin"), np.int16),
            exp2=put(exp2_table(), np.int32),
            sigmoid=put(sigmoid_table()[:-1] * 256 + np.diff(sigmoid_table()), np.int32),
        )

    def _put(self, array: Any, dtype: type) -> Any:
        """The array on the device; what is there already (a benchmark's random weights) is not copied."""
        return self._cupy.ascontiguousarray(self._cupy.asarray(array, dtype=dtype))

    def _matrix(self, weights: Weights, name: str, role: Role) -> Matrix:
        weight = self._put(weights.tensor(f"{name}.weight"), np.int8)
        outputs, columns = (int(one) for one in weight.shape)
        exponent = self._put(weights.tensor(f"{name}.exponent"), np.int32)
        bias = weights.tensor(f"{name}.bias") if role == "qkv" and self.header.qkv_bias else None
        return Matrix(
            self._packed(weight, paired=role == "gate_up"),
            self._put(weights.tensor(f"{name}.mantissa"), np.int32),
            -(8 + exponent + self.header.output_fraction(role)),
            None if bias is None else self._put(bias, np.int32),
            outputs,
            columns,
            self.header.bits(role),
        )

    def _packed(self, weight: Any, *, paired: bool) -> Any:
        """The matrix as products read it (layout.cuh); `paired`: its first half are gates, its second their ups."""
        outputs, columns = (int(one) for one in weight.shape)
        rows, width = packed_shape(outputs, columns)
        packed = self._cupy.empty(rows * width, np.int8)
        grid = (width // _K_BLOCK, rows // _WEIGHT_ROWS)
        arguments = (packed, weight, np.uint32(outputs), np.uint32(columns), np.uint32(paired))
        self._kernel("pack_weights", 0)(grid, (_PACK_THREADS,), arguments)
        return packed

    def _allocate(self) -> dict[str, Any]:
        header, rows, empty = self.header, self.rows_max, self._cupy.empty
        width, f, attention = header.model_width, header.feed_forward_width, header.attention_width
        position_bytes = header.layers * header.key_value_heads * (2 * header.head_width + 12)
        heads = (rows, header.heads)
        return {
            "residual": empty((rows, width), np.int32),
            "sums": empty(1, np.int32),
            "quantised": empty(quantised_bytes(2 * rows, max(width, f, attention)), np.int8),
            "scale": empty((rows, 2), np.int32),
            "hidden": empty((rows, f), np.int32),
            "hidden_max": empty(rows, np.int32),
            "attended": empty((rows, attention), np.int32),
            "attended_max": empty(rows, np.int32),
            "queries": empty((rows, attention), np.int8),
            "query_max": empty(heads, np.int32),
            "score_max": self._cupy.full(heads, -_SCORE_MAX, np.int32),
            "reach_max": self._cupy.full(heads, -_SCORE_MAX, np.int32),
            "denominator": self._cupy.zeros(heads, np.uint64),
            "numerator": self._cupy.zeros((rows, attention), np.uint64),
            "scores": empty(1, np.int32),
            "logits": empty((self._logit_rows_max, header.vocabulary), np.int32),
            "best": empty(rows, np.uint64),
            "claimed": empty(header.layers, np.uint32),
            "cache": empty(self.pages * PAGE_POSITIONS * position_bytes, np.uint8),
            "page_table": empty(1, np.int32),
        }

    def _grow(self, name: str, count: int, dtype: type) -> Any:
        """The buffer, at least `count` long. Growing it throws away what was kept, which holds its address."""
        if self._buffers[name].size < count:
            self._forget()
            self._stream.synchronize()
            self._buffers[name] = self._cupy.empty(count, dtype)
        return self._buffers[name]

    # One batch

    def _check(self, rows: Rows) -> None:
        header, count = self.header, len(rows.tokens)
        assert 0 < count <= self.rows_max, f"{count} rows; this engine takes {self.rows_max}"
        assert len(rows.logit_rows) <= self._logit_rows_max
        positions = min(header.context_max, rows.pages.shape[1] * PAGE_POSITIONS)
        assert 0 <= rows.tokens.min() <= rows.tokens.max() < header.vocabulary
        assert 0 <= rows.positions.min() <= rows.positions.max() < positions
        assert 0 <= rows.pages.min() <= rows.pages.max() < self.pages

    def _upload(self, rows: Rows, shape: Shape, tile_rows: NDArray[np.int32], slot: TraceSlot) -> None:
        inputs = np.zeros((5, self.rows_max + 1), np.int32)
        for line, array in zip(
            inputs, (rows.tokens, rows.positions, rows.sequences, rows.logit_rows, tile_rows), strict=True
        ):
            line[: len(array)] = array
        slot.inputs.set(inputs)
        table = np.zeros((shape.sequences, shape.pages_per_sequence), np.int32)
        table[:, : rows.pages.shape[1]] = rows.pages
        self._grow("page_table", table.size, np.int32)[: table.size].set(table.ravel())
        header = self.header
        self._grow("scores", shape.rows * header.heads * shape.pages_per_sequence * PAGE_POSITIONS, np.int32)
        self._grow("sums", sums_needed(self._loaded, shape), np.int32)
        if shape.traced and self._hasher.grow(slot, shape.rows):
            self._forget()

    def _forget(self) -> None:
        self._graphs.clear()
        self._prompts.clear()

    def _run(self, shape: Shape, slot: TraceSlot) -> None:
        """Launch the batch: as a graph where it is one of answers alone, else kernel by kernel. Either is kept for the
        next batch of its shape."""
        key, prompts = (shape, slot.index), shape.rows_of_tile > 1
        kept, most = (self._prompts, _PROMPTS_MAX) if prompts else (self._graphs, _GRAPHS_MAX)
        if key not in kept:
            kept[key] = self._first_run(shape, slot) if prompts else self._captured(shape, slot)
            if len(kept) > most:
                kept.popitem(last=False)
            if prompts:
                return
        kept.move_to_end(key)
        if kept[key].graph is not None:
            kept[key].graph.launch(self._stream)
            return
        for one in kept[key].kernels:
            self._launcher.launch(one)

    def _first_run(self, shape: Shape, slot: TraceSlot) -> _Batch:
        """Launch each kernel as soon as it is put together: the device computes while the host builds the next."""
        kernels: list[DependentLaunch] = []

        def launch(one: Launch) -> None:
            kernels.append(self._launcher.prepare(*one))
            self._launcher.launch(kernels[-1])

        self._put_together(shape, slot, launch)
        return _Batch(kernels, None)

    def _captured(self, shape: Shape, slot: TraceSlot) -> _Batch:
        kernels = [self._launcher.prepare(*one) for one in self._launches(shape, slot)]  # copies are not for the graph
        self._stream.begin_capture()
        for one in kernels:
            self._launcher.launch(one)
        return _Batch(kernels, self._stream.end_capture())

    def _outcome(self, shape: Shape, slot: TraceSlot, roots: DeviceRoots | None, trace: Tracing) -> GpuForward:
        header, wanted = self.header, shape.logit_rows
        best = self._buffers["best"][:wanted].get()
        logits = self._buffers["logits"][:wanted]
        greedy = (best ^ np.uint64(0xFFFFFFFF)) & np.uint64(0xFFFFFFFF)
        if trace < Tracing.ROWS:
            return GpuForward(logits, greedy, roots, None, None)
        boundaries = (shape.rows, header.layers + 1, header.model_width)
        kv_rows = (shape.rows, header.layers, self._hasher.kv_row_bytes)
        return GpuForward(
            logits,
            greedy,
            roots,
            slot.boundaries[: np.prod(boundaries)].get().reshape(boundaries),
            slot.kv_rows[: np.prod(kv_rows)].get().reshape(kv_rows),
        )

    @property
    def _loaded(self) -> DeviceModel:
        assert self._model is not None, "the engine is closed"
        return self._model

    def _launches(self, shape: Shape, slot: TraceSlot) -> list[Launch]:
        launches: list[Launch] = []
        self._put_together(shape, slot, launches.append)
        return launches

    def _put_together(self, shape: Shape, slot: TraceSlot, take: Callable[[Launch], None]) -> None:
        own = {"inputs": slot.inputs, "boundaries": slot.boundaries, "kv_rows": slot.kv_rows}
        put_together(self._loaded, {**self._buffers, **own}, self._kernel, shape, take)

    def _kernel(self, name: str, shared_bytes: int) -> Any:
        """A kernel by name, allowed as much shared memory as it needs."""
        if name not in self._kernels:
            self._kernels[name] = self._module.get_function(name)
        if shared_bytes > self._allowed_bytes.get(name, _SHARED_BYTES_ALLOWED):
            self._kernels[name].max_dynamic_shared_size_bytes = self._allowed_bytes[name] = shared_bytes
        return self._kernels[name]
