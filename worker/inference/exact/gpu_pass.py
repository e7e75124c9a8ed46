"""The order of kernels of one batch on the GPU, and how each is cut into blocks.

Owns the correspondence between docs/exact-inference.md section 4 and worker/inference/native/gpu/exact.cu. Allocates
nothing and launches nothing: who takes the launches may run or capture them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.inference.exact.gpu_products import PRODUCTS, Product, padded, product_plan
from worker.inference.exact.gpu_structs import ATTENTION, HEADS, struct_of
from worker.inference.exact.native import PAGE_POSITIONS, Rows
from worker.inference.exact.specification import Header

__all__ = [
    "DeviceModel",
    "Launch",
    "Layer",
    "Matrix",
    "Shape",
    "put_together",
    "shape_of",
    "sums_needed",
]

_SPLIT_PAGES_MAX: Final = 8
_HEADS_OF_TILE: Final = 4
_TILE_ROWS_MAX: Final = 4
_TENSOR_HEAD_WIDTHS: Final = (64, 128)  # attention_tensor.cuh, as are the next three
_TENSOR_PAGES_MAX: Final = 65_536 // PAGE_POSITIONS
_TENSOR_QUERIES: Final = 64
_WARP_QUERIES: Final = 16
_CLUSTER_MAX: Final = 8  # attention_answers.cuh, as are the next two
_ANSWER_THREADS: Final = 128
_ANSWER_PAGES_MAX: Final = 512 // PAGE_POSITIONS
_ATTENDED_FRACTION: Final = 16
_HEADS_OF_BLOCK: Final = 8  # exact.cu
_K_BLOCK: Final = 128  # layout.cuh
_WEIGHT_ROWS: Final = 16
_ALIGNMENT_BYTES: Final = 1024
_PRODUCT_THREADS: Final = 384
_BLOCKS_OF_PROCESSOR: Final = 8
_STREAM_ROWS_MAX: Final = 8  # stream.cuh, as are the next four
_STREAM_THREADS: Final = 352
_STREAM_STAGES_MAX: Final = 5
_STREAM_STAGE_BYTES: Final = 16_384
_STREAM_OWN_BYTES: Final = 14_336  # barriers, sums, alignment
_STREAM_ACTIVATION_BYTES_MAX: Final = 28_672
_STREAM_SHARED_BYTES: Final = 124_928  # so much at most: it and the product after it share a multiprocessor
_OWN_ROW_WIDTH_MAX: Final = 4096
_DEALT_GROUPS: Final = range(8, 128)  # of a block: so many, and some are dealt out
_BLOCK_ROWS: Final = 64  # layout.cuh
_BLOCK_ITEMS: Final = 4 * 256  # exact.cu
_ROW_ITEMS: Final = 16  # rows.cuh
_ROWS_MANY: Final = 128
_ROW_THREADS: Final = 512
_NORM_WIDTH_MAX: Final = 4 * 1024
_WARP_ITEMS: Final = 4 * 32
_BYTE_BITS: Final = 8

Kernel = Callable[..., None]


class Matrix(NamedTuple):
    """A weight matrix on the device, packed (layout.cuh), with `row_shift` as the CPU engine has it."""

    weights: Any
    mantissa: Any
    row_shift: Any
    bias: Any
    outputs: int
    columns: int
    bits: int


class Layer(NamedTuple):
    """A decoder layer on the device."""

    qkv: Matrix
    o: Matrix
    gate_up: Matrix
    down: Matrix
    query_norm: Any
    key_norm: Any


@dataclass(frozen=True)
class DeviceModel:
    """A model's tensors on a device with so many multiprocessors; `put` copies an array there."""

    header: Header
    put: Callable[[NDArray[Any]], Any]
    processors: int
    layers: Sequence[Layer]
    head: Matrix
    embedding: Any
    embedding_mantissa: Any
    embedding_exponent: Any
    cosines: Any
    sines: Any
    exp2: Any
    sigmoid: Any


class Launch(NamedTuple):
    """One kernel, ready to go."""

    kernel: Kernel
    grid: tuple[int, ...]
    block: tuple[int, ...]
    arguments: tuple[Any, ...]
    shared_bytes: int
    cluster: int  # blocks along the grid's last axis that share their memory


@dataclass(frozen=True, slots=True)
class Shape:
    """What the launches of a batch depend on."""

    rows: int
    logit_rows: int
    tiles: int
    rows_of_tile: int
    sequences: int
    pages_per_sequence: int
    tensor: bool  # whether attention runs on tensor cores
    traced: bool


def shape_of(header: Header, rows: Rows, *, traced: bool) -> tuple[Shape, NDArray[np.int32]]:
    """A batch's shape, and the first row of each attention tile followed by the number of rows.

    A tile is a few neighbouring rows at consecutive positions of one sequence. The page table's width is rounded up to
    a power of two, so that growing answers seldom change the shape.
    """
    count = len(rows.tokens)
    pages = 1 << (rows.pages.shape[1] - 1).bit_length()
    breaks = (np.diff(rows.sequences) != 0) | (np.diff(rows.positions) != 1)
    starts = np.concatenate([[0], np.flatnonzero(breaks) + 1, [count]])
    prompts = len(starts) < count + 1
    tensor = prompts and header.head_width in _TENSOR_HEAD_WIDTHS and pages <= _TENSOR_PAGES_MAX
    rows_of_tile = _TILE_ROWS_MAX if prompts else 1
    if tensor:
        rows_of_tile = _TENSOR_QUERIES // min(_WARP_QUERIES, header.heads // header.key_value_heads)
    tiles = [np.arange(first, last, rows_of_tile) for first, last in pairwise(starts)]
    tile_rows = np.concatenate([*tiles, [count]]).astype(np.int32)
    shape = Shape(count, len(rows.logit_rows), len(tile_rows) - 1, rows_of_tile, len(rows.pages), pages, tensor, traced)
    return shape, tile_rows


def sums_needed(model: DeviceModel, shape: Shape) -> int:
    """Accumulators that the largest product of a batch needs."""
    layer = model.layers[0]
    products = [(matrix, shape.rows) for matrix in (layer.qkv, layer.o, layer.gate_up, layer.down)]
    if shape.logit_rows:
        products.append((model.head, shape.logit_rows))
    needed = []
    for matrix, rows in products:
        activation_rows = rows * matrix.bits // _BYTE_BITS
        splits = product_plan(activation_rows, matrix.outputs, matrix.columns, model.processors)[1]
        needed.append(splits * activation_rows * matrix.outputs)
    return max(needed)


class _BatchStructs:
    """What the kernels of attention are told about a batch: `attention` and `heads`, as struct arrays of one."""

    def __init__(self, model: DeviceModel, buffers: Mapping[str, Any], shape: Shape) -> None:
        header = model.header
        self.token, self.position, self.sequence, self.wanted, self.tiles = buffers["inputs"]
        self.split_pages = _split_pages(model, shape)
        self.splits = -(-shape.pages_per_sequence // self.split_pages)
        rows = {"position": self.position, "sequence": self.sequence, "tile_row": self.tiles}
        sizes = {
            **{"layers": header.layers, "heads": header.heads, "kv_heads": header.key_value_heads},
            **{"head_width": header.head_width, "pages_per_sequence": shape.pages_per_sequence},
        }
        self.attention = struct_of(
            ATTENTION,
            {**buffers, **rows, "exp2": model.exp2},
            {
                **sizes,
                "score_stride": shape.pages_per_sequence * PAGE_POSITIONS,
                "split_positions": self.split_pages * PAGE_POSITIONS,
                "attention_mantissa": header.attention_mantissa,
                "attention_exponent": header.attention_exponent,
            },
        )
        given = {name: array for name, array in buffers.items() if name != "kv_rows"}  # which is for a trace alone
        self.heads = struct_of(
            HEADS,
            {**given, **rows, "cosines": model.cosines, "sines": model.sines},
            {**sizes, "epsilon_q48": header.epsilon_q48, "hadamard": header.qk_hadamard},
        )


def _split_pages(model: DeviceModel, shape: Shape) -> int:
    """Pages of keys that one block of attention works on: few where there would be too few blocks."""
    blocks = shape.tiles * model.header.key_value_heads
    split = _SPLIT_PAGES_MAX
    while split > 1 and blocks * -(-shape.pages_per_sequence // split) < _BLOCKS_OF_PROCESSOR * model.processors:
        split //= 2
    return split


def _cluster_blocks(tiles: int, pages: int, processors: int) -> int:
    """Blocks of a cluster that attends for one answer's head: as few as keep all multiprocessors busy and have room."""
    ranks = 1
    while ranks < _CLUSTER_MAX and (ranks * _ANSWER_PAGES_MAX < pages or tiles * ranks < 2 * processors):
        ranks *= 2
    return ranks


def put_together(
    model: DeviceModel,
    buffers: Mapping[str, Any],
    kernel: Callable[[str, int], Kernel],
    shape: Shape,
    take: Callable[[Launch], None],
) -> None:
    """Give every kernel of a batch of this shape to `take`, in order. Launches keep all that they read alive."""
    _Pass(model, buffers, kernel, shape, take).run()


class _OwnRow(NamedTuple):
    """A row that a product's blocks quantise for themselves: struct OwnRow of stream.cuh."""

    values: Any
    largest: Any
    boundary: Any
    hidden_max: Any
    attended_max: Any
    fraction: int


class _Pass:
    """One batch being put together."""

    def __init__(
        self,
        model: DeviceModel,
        buffers: Mapping[str, Any],
        kernel: Callable[[str, int], Kernel],
        shape: Shape,
        take: Callable[[Launch], None],
    ) -> None:
        self._model, self._buffers, self._kernel, self._shape, self._take = model, buffers, kernel, shape, take
        self._structs = _BatchStructs(model, buffers, shape)
        self._attention = model.put(self._structs.attention.view(np.uint8))
        self._heads = model.put(self._structs.heads.view(np.uint8))

    def run(self) -> None:
        model, header, rows = self._model, self._model.header, self._shape.rows
        self._add(
            "embed",
            (rows,),
            _threads(header.model_width, rows),
            *(self._buffers["residual"], model.embedding, model.embedding_mantissa, model.embedding_exponent),
            *(self._structs.token, _u32(header.model_width), _i32(header.residual_fraction), self._buffers["best"]),
            *(self._buffers["claimed"], _u32(header.layers)),
        )
        self._norm(model.layers[0].qkv, 0)
        for index, layer in enumerate(model.layers):
            self._attend(index, layer)
            self._feed_forward(index, layer)
        if self._shape.logit_rows:
            self._logits()

    def _attend(self, index: int, layer: Layer) -> None:
        header, shape, buffers = self._model.header, self._shape, self._buffers
        if self._streams(layer.qkv):
            splits = 0  # finished
            self._stream("stream_values", layer.qkv, self._normed(layer.qkv, index), buffers["sums"], layer.qkv.bias)
        else:
            splits = self._product(layer.qkv, shape.rows)
        self._add(
            "prepare_heads",
            (shape.rows, -(-(header.heads + 2 * header.key_value_heads) // _HEADS_OF_BLOCK)),
            32 * _HEADS_OF_BLOCK,
            *(self._buffers["sums"], layer.qkv.mantissa, layer.qkv.row_shift, buffers["scale"], _u32(layer.qkv.bits)),
            *(_u32(splits), layer.qkv.bias, self._heads, layer.query_norm, layer.key_norm),
            *(buffers["kv_rows"] if shape.traced else None, _u32(index)),
        )
        if shape.tensor:
            self._attend_prompts(index, layer)
            attended = None
        else:
            attended = self._attend_answers(index, layer)
        self._into_residual(layer.o, attended, layer.gate_up, None)

    def _attend_prompts(self, index: int, layer: Layer) -> None:
        header, shape, buffers = self._model.header, self._shape, self._buffers
        parts = -(-(header.heads // header.key_value_heads) // _WARP_QUERIES)
        grid, threads = (shape.tiles, header.key_value_heads * parts), 2 * _TENSOR_QUERIES
        self._add(f"attend_maxima_{header.head_width}", grid, threads, self._attention, _u32(index))
        self._add(f"attend_{header.head_width}", grid, threads, self._attention, _u32(index), buffers["attended"])
        self._add(
            "quantise_attended",
            (shape.rows,),
            _threads(header.attention_width, shape.rows),
            *(buffers["attended"], *self._quantised(layer.o), _u32(header.attention_width)),
        )

    def _attend_answers(self, index: int, layer: Layer) -> _OwnRow | None:
        """What `o` is to quantise for itself, if it is."""
        header, shape, buffers = self._model.header, self._shape, self._buffers
        h, heads, kv_heads = header.head_width, header.heads, header.key_value_heads
        parts = -(-(heads // kv_heads) // _HEADS_OF_TILE)
        if h in _TENSOR_HEAD_WIDTHS and shape.pages_per_sequence <= _CLUSTER_MAX * _ANSWER_PAGES_MAX:
            blocks = (shape.rows, kv_heads * parts)
            ranks = _cluster_blocks(math.prod(blocks), shape.pages_per_sequence, self._model.processors)
            self._add(
                f"attend_answers_{h}",
                (*blocks, ranks),
                _ANSWER_THREADS,
                *(self._attention, _u32(index), buffers["attended"], buffers["attended_max"]),
                cluster=ranks,
            )
            if self._quantises_itself(layer.o):
                return _OwnRow(buffers["attended"], buffers["attended_max"], None, None, None, _ATTENDED_FRACTION)
            self._add(
                "quantise_rows",
                (-(-heads * h // _BLOCK_ITEMS), shape.rows),
                256,
                *(buffers["attended"], buffers["attended_max"], *self._quantised(layer.o)),
                *(_u32(heads * h), _i32(_ATTENDED_FRACTION)),
            )
            return None
        grid = (shape.tiles, kv_heads * parts, self._structs.splits)
        self._add(f"score_keys_{shape.rows_of_tile}", grid, 128, self._attention, _u32(index))
        self._add(f"add_values_{shape.rows_of_tile}", grid, -(-max(128, h) // 32) * 32, self._attention, _u32(index))
        self._add(
            "finish_heads",
            (shape.rows,),
            _threads(header.attention_width, shape.rows),
            *(buffers[name] for name in ("score_max", "reach_max", "denominator", "numerator", "attended")),
            *(*self._quantised(layer.o), _u32(heads), _u32(h)),
        )
        return None

    def _feed_forward(self, index: int, layer: Layer) -> None:
        header, shape, buffers = self._model.header, self._shape, self._buffers
        f, fraction, matrix = header.feed_forward_width, _i32(header.hidden_fraction), layer.gate_up
        grid = (-(-f // _BLOCK_ITEMS), shape.rows)
        if self._streams(matrix):
            more = (buffers["hidden_max"], self._model.sigmoid, fraction)
            claimed = buffers["claimed"][index:]
            self._stream("stream_gated", matrix, self._normed(matrix, None), buffers["hidden"], *more, claimed=claimed)
        elif matrix.bits == _BYTE_BITS and self._ends_in_registers(matrix, shape.rows):
            self._whole_product(
                "product_gated",
                *(matrix, buffers["hidden"]),
                *(
                    matrix.mantissa,
                    matrix.row_shift,
                    buffers["scale"],
                    buffers["hidden_max"],
                    self._model.sigmoid,
                    fraction,
                ),
            )
        else:
            splits = self._product(matrix, shape.rows)
            self._add(
                "gated",
                *(grid, 256, buffers["sums"], matrix.mantissa, matrix.row_shift, buffers["scale"]),
                *(_u32(matrix.bits), _u32(splits), buffers["hidden"], buffers["hidden_max"], self._model.sigmoid),
                *(_u32(f), fraction),
            )
        self._add(
            "quantise_rows",
            grid,
            256,
            *(buffers["hidden"], buffers["hidden_max"], *self._quantised(layer.down), _u32(f), fraction),
        )
        following = self._model.layers[index + 1].qkv if index + 1 < header.layers else None
        self._into_residual(layer.down, None, following, index + 1)

    def _into_residual(
        self, matrix: Matrix, row: _OwnRow | None, following: Matrix | None, boundary: int | None
    ) -> None:
        """residual += what is quantised, or the row, times the matrix; then as `_residual_norm`."""
        rows = self._shape.rows
        if self._streams(matrix):
            self._stream("stream_residual", matrix, row, self._buffers["residual"])
            self._norm(following, boundary)
        elif self._ends_in_registers(matrix, rows):
            scales = (matrix.mantissa, matrix.row_shift, self._buffers["scale"])
            self._whole_product(f"product_residual_{matrix.bits}", matrix, self._buffers["residual"], *scales)
            self._norm(following, boundary)
        else:
            self._residual_norm(matrix, self._product(matrix, rows), following, boundary)

    def _logits(self) -> None:
        head, buffers, vocabulary = self._model.head, self._buffers, self._model.header.vocabulary
        rows = self._shape.logit_rows
        self._residual_norm(None, 0, head, None, wanted=True)
        splits = self._product(head, rows)
        self._add(
            "finish_logits",
            (-(-vocabulary // _BLOCK_ITEMS), rows),
            256,
            *(self._buffers["sums"], head.mantissa, head.row_shift, buffers["scale"], _u32(head.bits), _u32(splits)),
            *(buffers["logits"], buffers["best"], _u32(vocabulary)),
        )

    def _quantises_itself(self, matrix: Matrix) -> bool:
        """Whether the blocks of a product quantise their row for themselves."""
        fits = matrix.bits == _BYTE_BITS and matrix.columns <= _OWN_ROW_WIDTH_MAX
        return self._shape.rows == 1 and fits and self._streams(matrix)

    def _streams(self, matrix: Matrix) -> bool:
        """Whether a product has so few activation rows that stream.cuh serves it, which finishes values itself."""
        activation_rows = self._shape.rows * matrix.bits // _BYTE_BITS
        activation_bytes = activation_rows * padded(matrix.columns, _K_BLOCK)
        few = activation_rows <= _STREAM_ROWS_MAX and activation_bytes <= _STREAM_ACTIVATION_BYTES_MAX
        return few and matrix is not self._model.head

    def _normed(self, matrix: Matrix, boundary: int | None) -> _OwnRow | None:
        """The residual row for a product that norms it for itself, if it does. The first of a layer notes it as the
        boundary; the layer's maxima begin anew there."""
        if not self._quantises_itself(matrix):
            return None
        buffers, begins, fraction = self._buffers, boundary is not None, self._model.header.residual_fraction
        hidden_max, attended_max = (buffers[name] if begins else None for name in ("hidden_max", "attended_max"))
        return _OwnRow(buffers["residual"], None, self._boundary(boundary), hidden_max, attended_max, fraction)

    def _norm(self, following: Matrix | None, boundary: int | None) -> None:
        """`_residual_norm` without a product to add, unless the one that follows does it for itself."""
        if following is None or not self._quantises_itself(following):
            self._residual_norm(None, 0, following, boundary)

    def _boundary(self, index: int | None) -> Any:
        """Where the first row of a boundary is noted, or None."""
        if index is None or not self._shape.traced:
            return None
        return self._buffers["boundaries"][index * self._model.header.model_width :]

    def _quantised(self, matrix: Matrix) -> tuple[Any, ...]:
        """Arguments for whoever quantises what a matrix is multiplied with: place, bits, bytes of a block, scales."""
        rows = self._shape.rows
        block_rows = rows * matrix.bits // _BYTE_BITS if self._streams(matrix) else _BLOCK_ROWS
        buffers = self._buffers
        return buffers["quantised"], _u32(matrix.bits), _u32(block_rows * _K_BLOCK), buffers["scale"]

    def _residual_norm(
        self,
        product: Matrix | None,
        splits: int,
        following: Matrix | None,
        boundary: int | None,
        *,
        wanted: bool = False,
    ) -> None:
        """Add a product to the residual, note the boundary, quantise for the product that follows: each if given."""
        header, buffers, shape = self._model.header, self._buffers, self._shape
        width = header.model_width
        outcome = self._quantised(following) if following else (None, _u32(0), _u32(0), None)
        stride = np.uint64((header.layers + 1) * width)
        noted = (self._boundary(boundary), stride, self._structs.wanted if wanted else None)
        norm = (_u32(width), _i32(header.residual_fraction), np.uint64(header.epsilon_q48), *noted)
        rest = (*outcome, *norm, buffers["hidden_max"], buffers["attended_max"])
        blocks = (shape.logit_rows if wanted else shape.rows,)
        if product is None and width <= _NORM_WIDTH_MAX and shape.rows < _ROWS_MANY:
            self._add("norm_rows", blocks, -(-width // _WARP_ITEMS) * 32, buffers["residual"], *rest)
            return
        sums = (buffers["sums"], product.mantissa, product.row_shift) if product else (None, None, None)
        given = (buffers["scale"], _u32(product.bits if product else 8), _u32(splits))
        self._add("residual_norm", blocks, _threads(width, shape.rows), buffers["residual"], *sums, *given, *rest)

    def _plan(self, matrix: Matrix, rows: int) -> tuple[Product, int]:
        return product_plan(rows * matrix.bits // _BYTE_BITS, matrix.outputs, matrix.columns, self._model.processors)

    def _ends_in_registers(self, matrix: Matrix, rows: int) -> bool:
        """Whether the largest tile takes K whole, so that whoever multiplies may finish the values too."""
        return self._plan(matrix, rows) == (PRODUCTS[-1], 1)

    def _product(self, matrix: Matrix, rows: int) -> int:
        """Multiply what is quantised, into `sums`. Returns into how many parts K was split."""
        product, splits = self._plan(matrix, rows)
        self._launch_product(product.name, product, splits, matrix, rows, self._buffers["sums"], _u32(splits))
        return splits

    def _stream(self, name: str, matrix: Matrix, row: _OwnRow | None, *target: Any, claimed: Any = None) -> None:
        """Multiply what is quantised, or the row, by a kernel of stream.cuh. `claimed` counts what is dealt out."""
        buffers, epsilon = self._buffers, np.uint64(self._model.header.epsilon_q48)
        activation_rows = self._shape.rows * matrix.bits // _BYTE_BITS
        activation_bytes = activation_rows * padded(matrix.columns, _K_BLOCK)
        room = _STREAM_SHARED_BYTES - _STREAM_OWN_BYTES - activation_bytes
        stages = min(_STREAM_STAGES_MAX, room // _STREAM_STAGE_BYTES)
        groups = -(-matrix.outputs // _WEIGHT_ROWS)
        blocks = min(self._model.processors, groups)
        if row is None:
            given: tuple[Any, ...] = (buffers["quantised"], buffers["scale"])
        else:
            name += "_own"
            given = (*row[:-1], epsilon, _i32(row.fraction))
        self._add(
            name,
            (blocks,),
            _STREAM_THREADS,
            *(matrix.weights, _u32(matrix.outputs), _u32(activation_rows), _u32(matrix.columns), _u32(stages)),
            *(_u32(matrix.bits), claimed if groups // blocks in _DEALT_GROUPS else None),
            *(matrix.mantissa, matrix.row_shift, *given, *target),
            shared_bytes=stages * _STREAM_STAGE_BYTES + activation_bytes + _ALIGNMENT_BYTES,
        )

    def _whole_product(self, name: str, matrix: Matrix, target: Any, *more: Any) -> None:
        """A product of the largest tile that ends in registers."""
        self._launch_product(name, PRODUCTS[-1], 1, matrix, self._shape.rows, target, *more)

    def _launch_product(
        self, name: str, product: Product, splits: int, matrix: Matrix, rows: int, target: Any, *more: Any
    ) -> None:
        activation_rows = rows * matrix.bits // _BYTE_BITS
        units = product.tiles(activation_rows, matrix.outputs) * splits
        self._add(
            name,
            (min(units, self._model.processors // product.cluster) * product.cluster,),
            _PRODUCT_THREADS,
            *(target, matrix.weights, self._buffers["quantised"]),
            *(_u32(matrix.outputs), _u32(activation_rows), _u32(matrix.columns), *more),
            shared_bytes=product.shared_bytes,
        )

    def _add(
        self,
        name: str,
        grid: tuple[int, ...],
        threads: int,
        *arguments: Any,
        shared_bytes: int = 0,
        cluster: int = 1,
    ) -> None:
        given = tuple(np.uint64(0) if one is None else one for one in arguments)
        kernel = self._kernel(name, shared_bytes)
        self._take(Launch(kernel, grid, (threads,), given, shared_bytes, cluster))


def _u32(value: int | bool) -> np.uint32:
    return np.uint32(value)


def _i32(value: int) -> np.int32:
    return np.int32(value)


def _threads(width: int, rows: int) -> int:
    """Threads for a block that works on a row of `width` values: in whole warps, with four values each where rows are
    few and time is latency, up to 16 where many rows keep the multiprocessors busy. Few enough, where they can be, that
    the block fits beside the product before it.
    """
    values = 4 if rows < _ROWS_MANY else _ROW_ITEMS
    threads = min(_ROW_THREADS, max(64, -(-width // (32 * values)) * 32))
    return threads if width <= _ROW_ITEMS * threads else 1024
