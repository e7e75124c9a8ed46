"""The exact engine on the CPU: the native library behind numpy arrays.

Owns the library's structs (compared with its own sizes at load) and the pages of its key-value cache. Knows nothing of
requests or sampling: rows of tokens in, logits and trace rows out. The arithmetic is docs/exact-inference.md; the bytes
are the same for every instruction set, thread count, batch and chunking.
"""

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.native import load
from worker.inference.errors import EngineUnavailable, TokenOutOfRange
from worker.inference.exact.reference import Weights
from worker.inference.exact.sampling import Sampling
from worker.inference.exact.specification import Header, Role, exp2_table, sigmoid_table
from worker.inference.exact.tracing import HashedPositions, Tracing

__all__ = ["PAGE_POSITIONS", "Forward", "NativeEngine", "Rows", "instruction_sets", "native_choose", "sequence_rows"]

PAGE_POSITIONS = 64

_POINTER = ctypes.c_void_p
_U32, _I32, _U64 = ctypes.c_uint32, ctypes.c_int32, ctypes.c_uint64


class _Matrix(ctypes.Structure):
    _fields_ = [
        ("weights", _POINTER),
        ("corrections", _POINTER),
        ("mantissa", _POINTER),
        ("row_shift", _POINTER),
        ("bias", _POINTER),
        ("rows", _U32),
        ("columns", _U32),
        ("bits", _U32),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        *((name, _U32) for name in ("layers", "width", "heads", "kv_heads", "head_width", "feed_forward")),
        ("vocabulary", _U32),
        ("context_max", _U32),
        ("residual_fraction", _I32),
        ("hidden_fraction", _I32),
        ("epsilon_q48", _U64),
        ("attention_mantissa", _I32),
        ("attention_exponent", _I32),
        ("head_hadamard", _U32),
        ("layer", _POINTER),
        ("head", _Matrix),
        *((name, _POINTER) for name in ("embedding", "embedding_mantissa", "embedding_exponent")),
        *((name, _POINTER) for name in ("cosines", "sines", "exp2", "sigmoid")),
    ]


class _MatrixSource(ctypes.Structure):
    _fields_ = [
        *((name, _POINTER) for name in ("weights", "mantissa", "exponent", "bias")),
        *((name, _U32) for name in ("rows", "columns", "bits")),
        ("output_fraction", _I32),
    ]


class _LayerSource(ctypes.Structure):
    _fields_ = [
        *((name, _MatrixSource) for name in ("qkv", "o", "gate_up", "down")),
        ("query_norm", _POINTER),
        ("key_norm", _POINTER),
    ]


class _ModelSource(ctypes.Structure):
    _fields_ = [("model", _Model), ("layers", _POINTER), ("head", _MatrixSource)]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("rows", _U32),
        ("pages_per_sequence", _U32),
        *((name, _POINTER) for name in ("token", "position", "sequence", "page_table", "logit_rows")),
        ("logit_count", _U32),
        *((name, _POINTER) for name in ("logits", "roots", "boundaries", "kv_rows")),
    ]


class _Sampling(ctypes.Structure):
    _fields_ = [
        ("seed", _U64),
        *((name, _U32) for name in ("temperature_q16", "top_k", "top_p_q16", "choice", "position", "unused")),
    ]


@cache
def _library() -> ctypes.CDLL:
    library = load("warpgrid_exact")
    library.warpgrid_exact_isa.restype = ctypes.c_char_p
    library.warpgrid_exact_open.restype = _POINTER
    library.warpgrid_exact_open.argtypes = [_POINTER, ctypes.c_char_p, _U32, _U32, _U64]
    library.warpgrid_exact_close.argtypes = [_POINTER]
    library.warpgrid_exact_close.restype = None
    library.warpgrid_exact_forward.argtypes = [_POINTER, _POINTER]
    library.warpgrid_exact_forward.restype = _U32
    library.warpgrid_exact_choose.argtypes = [_POINTER, _U32, _POINTER, _POINTER]
    library.warpgrid_exact_choose.restype = _U32
    sizes = (_U64 * 4)()
    library.warpgrid_exact_layout(sizes)
    ours = [ctypes.sizeof(one) for one in (_ModelSource, _LayerSource, _MatrixSource, _Batch)]
    assert list(sizes) == ours, f"struct layouts differ: native {list(sizes)}, Python {ours}"
    return library


def instruction_sets() -> list[str]:
    """The instruction sets that the library has and this processor can run, fastest first."""
    found, index = [], 0
    available = _U32()
    while (name := _library().warpgrid_exact_isa(_U32(index), ctypes.byref(available))) is not None:
        if available.value:
            found.append(name.decode())
        index += 1
    return found


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a batch: token, position and sequence of each, all int32[n].

    `pages` is int32[sequences, pages per sequence]: the cache pages that hold positions 0 .. of each sequence. Rows of
    one sequence may share a batch with the rows they attend to. `logit_rows` are the rows whose logits are wanted.
    """

    tokens: NDArray[np.int32]
    positions: NDArray[np.int32]
    sequences: NDArray[np.int32]
    pages: NDArray[np.int32]
    logit_rows: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Forward:
    """Logits int32[wanted, vocabulary]; with tracing, the roots of all positions, or residual rows
    int32[n, layers + 1, width] and canonical key-value rows uint8[n, layers, bytes] (section 4) too."""

    logits: NDArray[np.int32]
    roots: HashedPositions | None
    boundaries: NDArray[np.int32] | None
    kv_rows: NDArray[np.uint8] | None

    def choose(self, index: int, sampling: Sampling, position: int) -> int:
        """The token at `position`, from the logits of the index-th row whose logits were wanted."""
        return native_choose(self.logits[index], sampling, position)


class NativeEngine:
    """One model in memory, packed for one instruction set, with a cache of `pages` pages.

    `rows_max` bounds a batch. Raises EngineUnavailable without the instruction set or enough memory.
    """

    def __init__(
        self, weights: Weights, *, threads: int = 0, rows_max: int = 256, pages: int = 64, isa: str | None = None
    ) -> None:
        self.header: Header = weights.header
        self.rows_max, self.pages = rows_max, pages
        self.isa = isa or instruction_sets()[0]
        self._keep: list[Any] = []  # arrays whose memory the library reads
        source = self._source(weights)
        count = threads or os.cpu_count() or 1
        self._handle = _library().warpgrid_exact_open(ctypes.byref(source), self.isa.encode(), count, rows_max, pages)
        if not self._handle:
            raise EngineUnavailable(
                f"cannot open the exact engine for {self.isa} with {rows_max} rows and {pages} cache pages: "
                "the instruction set is missing or memory does not suffice"
            )

    def close(self) -> None:
        """Free the engine's memory. Safe to call twice."""
        if self._handle:
            _library().warpgrid_exact_close(self._handle)
            self._handle = None

    def forward(self, rows: Rows, *, trace: Tracing = Tracing.OFF) -> Forward:
        """Run one batch; the cache then holds the keys and values of these rows. Raises TokenOutOfRange."""
        header, count = self.header, len(rows.tokens)
        assert 0 < count <= self.rows_max, f"{count} rows; this engine takes {self.rows_max}"
        logits = np.empty((len(rows.logit_rows), header.vocabulary), np.int32)
        kept = trace == Tracing.ROWS
        roots = np.empty((count, 32), np.uint8) if trace else None
        boundaries = np.empty((count, header.layers + 1, header.model_width), np.int32) if kept else None
        row_bytes = header.key_value_heads * (2 * header.head_width + 8)
        kv_rows = np.empty((count, header.layers, row_bytes), np.uint8) if kept else None
        arrays = [
            np.ascontiguousarray(one, np.int32)
            for one in (rows.tokens, rows.positions, rows.sequences, rows.pages, rows.logit_rows)
        ]
        batch = _Batch(count, rows.pages.shape[1], *map(_address, arrays), len(logits))
        batch.logits = _address(logits) if len(logits) else None
        batch.roots, batch.boundaries, batch.kv_rows = _address(roots), _address(boundaries), _address(kv_rows)
        failed = _library().warpgrid_exact_forward(self._handle, ctypes.byref(batch))
        if failed:
            token = int(rows.tokens[failed - 1])
            if not 0 <= token < header.vocabulary:
                raise TokenOutOfRange(f"token {token} is outside the vocabulary of {header.vocabulary}")
            raise AssertionError(f"row {failed - 1} has a position or page out of range")
        return Forward(logits, None if roots is None else HashedPositions(roots), boundaries, kv_rows)

    def _source(self, weights: Weights) -> _ModelSource:
        header = weights.header
        layers = (_LayerSource * header.layers)()
        self._keep.append(layers)
        for index in range(header.layers):
            prefix = f"layers.{index}"
            layer = layers[index]
            for role in ("qkv", "o", "gate_up", "down"):
                setattr(layer, role, self._matrix(weights, f"{prefix}.{role}", role))
            if header.qk_norm:
                layer.query_norm = self._held(weights.tensor(f"{prefix}.q_norm"), np.int32)
                layer.key_norm = self._held(weights.tensor(f"{prefix}.k_norm"), np.int32)
        model = _Model(
            layers=header.layers,
            width=header.model_width,
            heads=header.heads,
            kv_heads=header.key_value_heads,
            head_width=header.head_width,
            feed_forward=header.feed_forward_width,
            vocabulary=header.vocabulary,
            context_max=header.context_max,
            residual_fraction=header.residual_fraction,
            hidden_fraction=header.hidden_fraction,
            epsilon_q48=header.epsilon_q48,
            attention_mantissa=header.attention_mantissa,
            attention_exponent=header.attention_exponent,
            head_hadamard=header.qk_hadamard,
            embedding=self._held(weights.tensor("embedding.weight"), np.int8),
            embedding_mantissa=self._held(weights.tensor("embedding.mantissa"), np.uint16),
            embedding_exponent=self._held(weights.tensor("embedding.exponent"), np.int8),
            cosines=self._held(weights.tensor("rope.cos"), np.int16),
            sines=self._held(weights.tensor("rope.sin"), np.int16),
            exp2=self._held(exp2_table(), np.int32),
            sigmoid=self._held(sigmoid_table(), np.int32),
        )
        return _ModelSource(model, ctypes.addressof(layers), self._matrix(weights, "head", "head"))

    def _matrix(self, weights: Weights, name: str, role: Role) -> _MatrixSource:
        header = weights.header
        weight = weights.tensor(f"{name}.weight")
        bias = weights.tensor(f"{name}.bias") if role == "qkv" and header.qkv_bias else None
        return _MatrixSource(
            self._held(weight, np.int8),
            self._held(weights.tensor(f"{name}.mantissa"), np.uint16),
            self._held(weights.tensor(f"{name}.exponent"), np.int8),
            None if bias is None else self._held(bias, np.int32),
            *weight.shape,
            header.bits(role),
            header.output_fraction(role),
        )

    def _held(self, array: NDArray[Any], dtype: type) -> int | None:
        held: NDArray[Any] = np.ascontiguousarray(array, dtype)
        self._keep.append(held)
        return _address(held)


def native_choose(logits: NDArray[np.int32], sampling: Sampling, position: int) -> int:
    """`worker.inference.exact.sampling.choose` in native code: a tenth of its time or less."""
    logits = np.ascontiguousarray(logits, np.int32)
    parameters = _Sampling(
        sampling.seed, sampling.temperature_q16, sampling.top_k, sampling.top_p_q16, sampling.choice, position
    )
    return int(
        _library().warpgrid_exact_choose(
            _address(logits), len(logits), ctypes.byref(parameters), _address(_exp2_int32())
        )
    )


@cache
def _exp2_int32() -> NDArray[np.int32]:
    return exp2_table().astype(np.int32)


def _address(array: NDArray[Any] | None) -> int | None:
    return None if array is None else array.ctypes.data


def sequence_rows(tokens: Sequence[int], start: int, pages: Sequence[int], logits_from: int | None = None) -> Rows:
    """Rows for one sequence's next tokens from position `start` on; logits for rows from `logits_from` on (the
    last row alone when it is None)."""
    count = len(tokens)
    first = count - 1 if logits_from is None else logits_from
    return Rows(
        np.asarray(tokens, np.int32),
        np.arange(start, start + count, dtype=np.int32),
        np.zeros(count, np.int32),
        np.asarray(pages, np.int32).reshape(1, -1),
        np.arange(first, count, dtype=np.int32),
    )
