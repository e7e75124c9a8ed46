"""Specification 1 as data: constants, limits, tables, the header of a model and the list of its tensors.

Owns what docs/exact-inference.md sections 2 and 6 state. Knows nothing of files, engines or checkpoints.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from worker.inference.errors import ModelUnsupported

__all__ = [
    "ATTENTION_OUTPUT_FRACTION",
    "EXPONENT_OF_ZERO_ROW",
    "LOGIT_FRACTION",
    "PROJECTION_FRACTION",
    "QUANTISED_MAX",
    "ROLES",
    "SPECIFICATION",
    "Header",
    "Role",
    "TensorSpec",
    "exp2_table",
    "sigmoid_table",
    "tensor_specs",
]

SPECIFICATION: Final = 1

PROJECTION_FRACTION: Final = 12  # queries, keys, values, gates, ups
ATTENTION_OUTPUT_FRACTION: Final = 16
LOGIT_FRACTION: Final = 16
QUANTISED_MAX: Final = {8: 127, 16: 127 * 257}  # 16 bits: two int8 limbs, neither of which is ever -128

EXPONENT_OF_ZERO_ROW: Final = -60
NORM_SCALE_EXPONENT_MAX: Final = -8
ABSMAX_BITS: Final = 31

Role = Literal["qkv", "o", "gate_up", "down", "head"]
ROLES: Final[tuple[Role, ...]] = ("qkv", "o", "gate_up", "down", "head")

_TABLES: Final = {
    "exp2": "47713c8c5c97361f50fb353c8e04704a15c8c8b45e5504d66d5539abb977f24f",
    "sigmoid": "23f5cc54078b3659008d706efb60eaa786d3fc678d7790a6b457ad9acba4cc49",
}


@cache
def _table(name: str) -> NDArray[np.int64]:
    raw = files("worker.inference.exact.tables").joinpath(f"{name}.bin").read_bytes()
    assert hashlib.sha256(raw).hexdigest() == _TABLES[name], f"the installed table {name}.bin is damaged"
    entries = np.frombuffer(raw, dtype="<i4").astype(np.int64)
    entries.flags.writeable = False
    return entries


def exp2_table() -> NDArray[np.int64]:
    """EXP2: int64[4096], read-only."""
    return _table("exp2")


def sigmoid_table() -> NDArray[np.int64]:
    """SIGMOID: int64[4097], read-only."""
    return _table("sigmoid")


@dataclass(frozen=True)
class Header:
    """Everything about a model that its arithmetic depends on, besides its tensors. Fields are hashed in this order.

    Raises ModelUnsupported when a value is beyond the specification's limits.
    """

    layers: int
    model_width: int
    heads: int
    key_value_heads: int
    head_width: int
    feed_forward_width: int
    vocabulary: int
    context_max: int
    residual_fraction: int
    hidden_fraction: int
    epsilon_q48: int
    attention_mantissa: int
    attention_exponent: int
    qkv_bias: int
    qk_norm: int
    qk_hadamard: int
    qkv_bits: int
    o_bits: int
    gate_up_bits: int
    down_bits: int
    head_bits: int
    end_tokens: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, low, high, multiple in _LIMITS:
            value = getattr(self, name)
            if not low <= value <= high or value % multiple:
                step = f" in steps of {multiple}" if multiple > 1 else ""
                raise ModelUnsupported(f"{name} is {value}; specification {SPECIFICATION} has {low} to {high}{step}")
        for role in ROLES:
            if self.bits(role) not in QUANTISED_MAX:
                raise ModelUnsupported(f"{role}_bits is {self.bits(role)}; it must be 8 or 16")
        if self.heads % self.key_value_heads:
            raise ModelUnsupported(f"{self.heads} heads cannot share {self.key_value_heads} key-value heads evenly")
        if self.attention_width % 32 or self.attention_width > 65_536:
            raise ModelUnsupported(
                f"heads * head_width is {self.attention_width}; it must be a multiple of 32 to 65536"
            )
        if self.qk_hadamard and self.head_width & (self.head_width - 1):
            raise ModelUnsupported(f"qk_hadamard needs a head width that is a power of two, not {self.head_width}")
        ordered = tuple(sorted(set(self.end_tokens)))
        if ordered != self.end_tokens or any(not 0 <= t < self.vocabulary for t in ordered):
            raise ModelUnsupported("end_tokens must be ascending, without repetition, and inside the vocabulary")

    @property
    def attention_width(self) -> int:
        return self.heads * self.head_width

    @property
    def qkv_width(self) -> int:
        return (self.heads + 2 * self.key_value_heads) * self.head_width

    def bits(self, role: Role) -> int:
        """Width of the input of a linear layer: 8, or 16 in two limbs."""
        return int(getattr(self, f"{role}_bits"))

    def output_fraction(self, role: Role) -> int:
        return {
            "qkv": PROJECTION_FRACTION,
            "gate_up": PROJECTION_FRACTION,
            "head": LOGIT_FRACTION,
            "o": self.residual_fraction,
            "down": self.residual_fraction,
        }[role]

    def exponent_max(self, role: Role | Literal["embedding"]) -> int:
        """The largest row exponent with which a rescaling shift can never fall below 1 (section 8)."""
        if role == "embedding":
            return -1 - self.residual_fraction
        scale_exponent_max = {
            "o": ABSMAX_BITS - 16 - ATTENTION_OUTPUT_FRACTION,
            "down": ABSMAX_BITS - 16 - self.hidden_fraction,
        }.get(role, NORM_SCALE_EXPONENT_MAX)
        return -9 - self.output_fraction(role) - scale_exponent_max

    def words(self) -> list[int]:
        """The integers that the header leaf hashes, all non-negative."""
        values = [getattr(self, field.name) for field in fields(self) if field.name != "end_tokens"]
        values[_EXPONENT_INDEX] = -values[_EXPONENT_INDEX]
        return [SPECIFICATION, *values, *self.end_tokens]


_EXPONENT_INDEX: Final = [field.name for field in fields(Header)].index("attention_exponent")

# field, least, most, must be a multiple of
_LIMITS: Final = (
    ("layers", 1, 256, 1),
    ("model_width", 32, 16_384, 32),
    ("heads", 1, 256, 1),
    ("key_value_heads", 1, 256, 1),
    ("head_width", 16, 256, 16),
    ("feed_forward_width", 32, 65_536, 32),
    ("vocabulary", 1, 262_144, 1),
    ("context_max", 1, 131_072, 1),
    ("residual_fraction", 8, 16, 1),
    ("hidden_fraction", 8, 16, 1),
    ("epsilon_q48", 0, 2**32, 1),
    ("attention_mantissa", 2**15, 2**16 - 1, 1),
    ("attention_exponent", -36, -31, 1),
    ("qkv_bias", 0, 1, 1),
    ("qk_norm", 0, 1, 1),
    ("qk_hadamard", 0, 1, 1),
)

TensorType = Literal["i8", "u16", "i16", "i32"]
_NUMPY_TYPES: Final[dict[TensorType, str]] = {"i8": "|i1", "u16": "<u2", "i16": "<i2", "i32": "<i4"}


@dataclass(frozen=True)
class TensorSpec:
    """Name, element type and shape (one or two dimensions) of a tensor of a model."""

    name: str
    type: TensorType
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype(_NUMPY_TYPES[self.type])

    @property
    def rows(self) -> int:
        return self.shape[0] if len(self.shape) == 2 else 1

    @property
    def columns(self) -> int:
        return self.shape[-1]

    @property
    def row_bytes(self) -> int:
        return self.columns * self.dtype.itemsize

    @property
    def bytes(self) -> int:
        return self.rows * self.row_bytes


def _matrix(name: str, rows: int, columns: int) -> Iterator[TensorSpec]:
    yield TensorSpec(f"{name}.weight", "i8", (rows, columns))
    yield TensorSpec(f"{name}.mantissa", "u16", (rows,))
    yield TensorSpec(f"{name}.exponent", "i8", (rows,))


def tensor_specs(header: Header) -> list[TensorSpec]:
    """Every tensor of a model with this header, in canonical order."""
    width, hidden = header.model_width, header.feed_forward_width
    specs = list(_matrix("embedding", header.vocabulary, width))
    for layer in range(header.layers):
        prefix = f"layers.{layer}"
        specs += _matrix(f"{prefix}.qkv", header.qkv_width, width)
        if header.qkv_bias:
            specs.append(TensorSpec(f"{prefix}.qkv.bias", "i32", (header.qkv_width,)))
        if header.qk_norm:
            specs += [TensorSpec(f"{prefix}.{name}_norm", "i32", (header.head_width,)) for name in ("q", "k")]
        specs += _matrix(f"{prefix}.o", width, header.attention_width)
        specs += _matrix(f"{prefix}.gate_up", 2 * hidden, width)
        specs += _matrix(f"{prefix}.down", width, hidden)
    specs += _matrix("head", header.vocabulary, width)
    specs += [
        TensorSpec(f"rope.{name}", "i16", (header.context_max, header.head_width // 2)) for name in ("cos", "sin")
    ]
    return specs
