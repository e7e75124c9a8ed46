"""The exact arithmetic as `zk` asks for it: an adapter over the reference, one model at a time."""

from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from worker.inference.exact import reference, sampling
from worker.inference.exact.specification import Header, exp2_table
from zk.arithmetic import KeyValueRows, Linear

__all__ = ["ProofArithmetic"]

Ints = NDArray[np.int64]


class ProofArithmetic:
    """Implements `zk.arithmetic.ExactArithmetic` for one model. Scales are converted once and kept."""

    def __init__(self, weights: reference.Weights) -> None:
        self._weights = weights
        self._linears = cache(self._linear)
        self._tensor = cache(lambda name: weights.tensor(name).astype(np.int64))

    @property
    def shape(self) -> Header:
        return self._weights.header

    def linear(self, name: str) -> Linear:
        return self._linears(name)

    def accumulate(self, weight: NDArray[np.int8], q: Ints) -> Ints:
        return reference.accumulate(weight, q)

    def embedding(self, tokens: Ints) -> Ints:
        return reference.embedding(self._weights, tokens)

    def quantise(self, z: Ints, bits: int) -> tuple[Ints, Ints]:
        return reference.quantise(z, bits)

    def norm_scale(self, x: Ints) -> reference.Scale:
        return reference.norm_scale(x, self.shape.residual_fraction, self.shape.epsilon_q48)

    def plain_scale(self, a: Ints, fraction: int) -> reference.Scale:
        return reference.plain_scale(a, fraction)

    def rescale(self, acc: Ints, mantissas: Ints, exponents: Ints, scale: Any, fraction: int) -> Ints:
        return reference.rescale(acc, mantissas, exponents, scale, fraction)

    def saturate(self, x: Ints) -> Ints:
        return reference.saturate(x)

    def place(self, layer: int, kind: Literal["q", "k"], positions: Ints, z: Ints) -> Ints:
        header = self.shape
        if header.qk_norm:
            z = self.head_norm(layer, kind, z)
        cos, sin = (self._tensor(f"rope.{name}")[positions][:, None] for name in ("cos", "sin"))
        z = reference.rotary(z, cos, sin)
        return reference.head_hadamard(z) if header.qk_hadamard else z

    def head_norm(self, layer: int, kind: Literal["q", "k"], z: Ints) -> Ints:
        return reference.head_norm(z, self._tensor(f"layers.{layer}.{kind}_norm"), self.shape.epsilon_q48)

    def rotary(self, position: int, z: Ints) -> Ints:
        cos, sin = (self._tensor(f"rope.{name}")[position] for name in ("cos", "sin"))
        return reference.rotary(z, cos, sin)

    def head_hadamard(self, z: Ints) -> Ints:
        return reference.head_hadamard(z)

    def attention(self, z: Ints, position: int, rows: KeyValueRows) -> Ints:
        header = self.shape
        group = header.heads // header.key_value_heads
        where = np.full(group, position)
        return np.concatenate(
            [
                reference.attention(
                    header,
                    z[head * group : (head + 1) * group],
                    where,
                    reference.KeyValues(*(one[head] for one in rows)),
                )
                for head in range(header.key_value_heads)
            ]
        )

    def gated_unit(self, gate: Ints, up: Ints) -> Ints:
        return reference.gated_unit(gate, up, self.shape.hidden_fraction)

    def exp2_table(self) -> Ints:
        return exp2_table()

    def choose(self, logits: Ints, words: tuple[int, int, int, int, int], position: int) -> int:
        return sampling.choose(logits, sampling.Sampling(*words), position)

    def _linear(self, name: str) -> Linear:
        tensor = self._weights.tensor
        bias = name.endswith(".qkv") and self.shape.qkv_bias
        return Linear(
            tensor(f"{name}.weight"),
            tensor(f"{name}.mantissa").astype(np.int64),
            tensor(f"{name}.exponent").astype(np.int64),
            tensor(f"{name}.bias").astype(np.int64) if bias else None,
        )
