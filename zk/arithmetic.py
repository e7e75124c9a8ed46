"""What proofs need to recompute of the exact arithmetic, and one layer put together from it.

The arithmetic itself (docs/exact-inference.md) lives with the workers, which this room does not know: whoever composes
a program passes an `ExactArithmetic` in. `layer_step` is section 4 for one position and one layer, with the products
W q left to the caller: a worker computes them, an auditor receives and checks them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from zk.trace import TraceShape

__all__ = [
    "Accumulate",
    "ExactArithmetic",
    "Ints",
    "KeyValueRows",
    "LayerOutput",
    "Linear",
    "ModelShape",
    "Role",
    "head_step",
    "layer_step",
    "pack_key_values",
    "trace_shape",
    "unpack_key_values",
]

Ints = NDArray[np.int64]
Role = Literal["qkv", "o", "gate_up", "down", "head"]


class ModelShape(Protocol):
    """The fields of section 2 that proofs read."""

    @property
    def layers(self) -> int: ...

    @property
    def model_width(self) -> int: ...

    @property
    def heads(self) -> int: ...

    @property
    def key_value_heads(self) -> int: ...

    @property
    def head_width(self) -> int: ...

    @property
    def feed_forward_width(self) -> int: ...

    @property
    def vocabulary(self) -> int: ...

    @property
    def residual_fraction(self) -> int: ...

    @property
    def hidden_fraction(self) -> int: ...

    @property
    def epsilon_q48(self) -> int: ...

    @property
    def attention_mantissa(self) -> int: ...

    @property
    def attention_exponent(self) -> int: ...

    @property
    def qkv_bias(self) -> int: ...

    @property
    def qk_norm(self) -> int: ...

    @property
    def qk_hadamard(self) -> int: ...

    def bits(self, role: Role) -> int: ...

    def output_fraction(self, role: Role) -> int: ...


class Linear(NamedTuple):
    """A linear layer: weights int8[N, K], mantissas and exponents [N], bias [N] or None."""

    weight: NDArray[np.int8]
    mantissas: Ints
    exponents: Ints
    bias: Ints | None


class KeyValueRows(NamedTuple):
    """Key-value rows of one layer for positions 0 .. S-1, apart: k and v [G, S, h], ka and va [G, S]."""

    k: Ints
    ka: Ints
    v: Ints
    va: Ints


class ExactArithmetic(Protocol):
    """A model's exact arithmetic, on int64 arrays whose last axis is the vector. Sections 3 to 5."""

    @property
    def shape(self) -> ModelShape: ...

    def linear(self, name: str) -> Linear:
        """The linear layer of this name: `layers.3.qkv`, `head`; `embedding` has the same parts."""
        ...

    def accumulate(self, weight: NDArray[np.int8], q: Ints) -> Ints:
        """W q, exactly."""
        ...

    def embedding(self, tokens: Ints) -> Ints: ...

    def quantise(self, z: Ints, bits: int) -> tuple[Ints, Ints]: ...

    def norm_scale(self, x: Ints) -> Any: ...

    def plain_scale(self, a: Ints, fraction: int) -> Any: ...

    def rescale(self, acc: Ints, mantissas: Ints, exponents: Ints, scale: Any, fraction: int) -> Ints: ...

    def saturate(self, x: Ints) -> Ints: ...

    def place(self, layer: int, kind: Literal["q", "k"], positions: Ints, z: Ints) -> Ints:
        """Head norm, rotary and head Hadamard of queries or keys [n, heads, h]."""
        ...

    def head_norm(self, layer: int, kind: Literal["q", "k"], z: Ints) -> Ints:
        """Head norm of queries or keys [n, h]."""
        ...

    def rotary(self, position: int, z: Ints) -> Ints:
        """Rotated heads [n, h] at one position."""
        ...

    def head_hadamard(self, z: Ints) -> Ints: ...

    def attention(self, z: Ints, position: int, rows: KeyValueRows) -> Ints:
        """All query heads z [H, h] of one position over key-value rows 0 .. position; [H, h] in Q16."""
        ...

    def gated_unit(self, gate: Ints, up: Ints) -> Ints: ...

    def exp2_table(self) -> Ints:
        """EXP2 of section 2."""
        ...

    def choose(self, logits: Ints, sampling: tuple[int, int, int, int, int], position: int) -> int:
        """The token at `position`, from the logits of the position before it."""
        ...


Accumulate = Callable[[str, NDArray[np.int8], Ints], Ints]
"""(name, weight, q) -> W q."""


@dataclass(frozen=True)
class LayerOutput:
    """A layer's key-value row (canonical bytes) and the residual row that follows it (int32[d])."""

    key_value_row: bytes
    residual: NDArray[np.int32]


def trace_shape(shape: ModelShape) -> TraceShape:
    """The layout of traces of a model of this shape."""
    return TraceShape(shape.layers, 4 * shape.model_width, shape.key_value_heads * (2 * shape.head_width + 8))


def layer_step(
    arithmetic: ExactArithmetic,
    layer: int,
    position: int,
    x: Ints,
    earlier: KeyValueRows,
    accumulate: Accumulate,
) -> LayerOutput:
    """One layer at one position: residual row x [d] in, `earlier` the layer's key-value rows 0 .. position - 1."""
    shape = arithmetic.shape
    heads, groups, width = shape.heads, shape.key_value_heads, shape.head_width
    prefix = f"layers.{layer}"
    where = np.array([position])

    y = arithmetic.saturate(_from_residual(arithmetic, "qkv", f"{prefix}.qkv", x, accumulate)).reshape(1, -1, width)
    queries = arithmetic.place(layer, "q", where, y[:, :heads])[0]
    keys = arithmetic.place(layer, "k", where, y[:, heads : heads + groups])[0]
    k, ka = arithmetic.quantise(keys, 8)
    v, va = arithmetic.quantise(y[0, heads + groups :], 8)
    own = KeyValueRows(k[:, None], ka, v[:, None], va)
    rows = KeyValueRows(*(np.concatenate(pair, axis=1) for pair in zip(earlier, own, strict=True)))

    mixed = arithmetic.attention(queries, position, rows).reshape(-1)
    x = _to_residual(arithmetic, "o", f"{prefix}.o", mixed, 16, x, accumulate)
    y = arithmetic.saturate(_from_residual(arithmetic, "gate_up", f"{prefix}.gate_up", x, accumulate))
    gate, up = np.split(y, 2)
    hidden = arithmetic.gated_unit(gate, up)
    x = _to_residual(arithmetic, "down", f"{prefix}.down", hidden, shape.hidden_fraction, x, accumulate)
    return LayerOutput(pack_key_values(own), x.astype(np.int32))


def head_step(arithmetic: ExactArithmetic, x: Ints, accumulate: Accumulate) -> Ints:
    """The logits [V] from the last residual row x [d]."""
    return arithmetic.saturate(_from_residual(arithmetic, "head", "head", x, accumulate))


def pack_key_values(rows: KeyValueRows) -> bytes:
    """The canonical bytes of rows of one position (section 4)."""
    parts = []
    for head in range(len(rows.k)):
        parts += [rows.k[head].astype(np.int8).tobytes(), rows.ka[head].astype("<i4").tobytes()]
        parts += [rows.v[head].astype(np.int8).tobytes(), rows.va[head].astype("<i4").tobytes()]
    return b"".join(parts)


def unpack_key_values(shape: ModelShape, raw: NDArray[np.uint8]) -> KeyValueRows:
    """Canonical rows u8[S, bytes] of one layer, taken apart. Any bytes can be taken apart."""
    groups, width = shape.key_value_heads, shape.head_width
    per_head = np.ascontiguousarray(raw).reshape(-1, groups, 2, width + 4).transpose(2, 1, 0, 3)
    values = np.ascontiguousarray(per_head[..., :width]).view(np.int8).astype(np.int64)
    absmax = np.ascontiguousarray(per_head[..., width:]).view("<i4")[..., 0].astype(np.int64)
    return KeyValueRows(values[0], absmax[0], values[1], absmax[1])


def _from_residual(arithmetic: ExactArithmetic, role: Role, name: str, x: Ints, accumulate: Accumulate) -> Ints:
    shape = arithmetic.shape
    linear = arithmetic.linear(name)
    q, _ = arithmetic.quantise(x, shape.bits(role))
    acc = accumulate(name, linear.weight, q)
    y = arithmetic.rescale(
        acc, linear.mantissas, linear.exponents, arithmetic.norm_scale(x), shape.output_fraction(role)
    )
    return y if linear.bias is None else y + linear.bias


def _to_residual(
    arithmetic: ExactArithmetic, role: Role, name: str, z: Ints, fraction: int, x: Ints, accumulate: Accumulate
) -> Ints:
    shape = arithmetic.shape
    linear = arithmetic.linear(name)
    q, a = arithmetic.quantise(z, shape.bits(role))
    acc = accumulate(name, linear.weight, q)
    scale = arithmetic.plain_scale(a, fraction)
    return arithmetic.saturate(
        x + arithmetic.rescale(acc, linear.mantissas, linear.exponents, scale, shape.residual_fraction)
    )
