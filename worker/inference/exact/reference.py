"""The specification as code: every operation of docs/exact-inference.md on int64 arrays, readable and slow.

Written from the page, not from an engine, so that agreement with one means something. Owns no weights and no files: it
reads tensors through `Weights`. Operations work on the last axis and broadcast over the others. Arguments named `q` are
quantised, `z` and `x` are not. Nothing here floats except products of small integers whose sums stay below 2^53.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from worker.inference.errors import ContextExceeded, TokenOutOfRange
from worker.inference.exact.specification import (
    ATTENTION_OUTPUT_FRACTION,
    PROJECTION_FRACTION,
    QUANTISED_MAX,
    Header,
    Role,
    exp2_table,
    sigmoid_table,
)

__all__ = [
    "Cache",
    "Forward",
    "Scale",
    "Weights",
    "attention",
    "embedding",
    "forward",
    "gated_unit",
    "head_hadamard",
    "head_norm",
    "linear",
    "norm_scale",
    "plain_scale",
    "quantise",
    "rotary",
    "saturate",
]

Ints = NDArray[np.int64]

INT32_MAX = 2**31 - 1
SCORE_MAX = 2**30


class Weights(Protocol):
    """A model's header and tensors (section 6)."""

    @property
    def header(self) -> Header: ...

    def tensor(self, name: str) -> NDArray[Any]:
        """The tensor, by its name in section 6. Read-only."""
        ...


# Section 1: notation


def shift_right(x: Ints, count: Ints | int) -> Ints:
    """x >> count; a negative count multiplies."""
    count = np.asarray(count, dtype=np.int64)
    down: Ints = x >> np.clip(count, 0, 63)
    return down if count.min() >= 0 else np.where(count >= 0, down, x << np.clip(-count, 0, 63))


def round_shift(x: Ints, count: Ints | int) -> Ints:
    """rsh(x, count) for |x| < 2^62, for which it is 0 from 63 on."""
    count = np.minimum(np.asarray(count, dtype=np.int64), 63)
    half = np.where(count >= 1, np.int64(1) << np.maximum(count - 1, 0), 0)
    return shift_right(x + half, count)


def saturate(x: Ints) -> Ints:
    return np.clip(x, -INT32_MAX, INT32_MAX)


def bit_length(x: Ints) -> Ints:
    """bl(x) for 0 <= x < 2^53, where the conversion to float64 is exact."""
    return np.frexp(x.astype(np.float64))[1].astype(np.int64)


def mantissa(a: Ints) -> tuple[Ints, Ints]:
    """mant(a) = (m, e)."""
    exponent = bit_length(a) - 16
    return shift_right(a, exponent), exponent


def _isqrt(x: Ints) -> Ints:
    return np.array([isqrt(int(value)) for value in x.ravel()], dtype=np.int64).reshape(x.shape)


# Section 3: operations


class Scale(NamedTuple):
    """mantissa * 2^exponent, one for each row; both keep the last axis with length 1."""

    mantissa: Ints
    exponent: Ints


def absmax(z: Ints) -> Ints:
    a: Ints = np.maximum(1, np.abs(z).max(axis=-1, keepdims=True))
    return a


def quantise(z: Ints, bits: int) -> tuple[Ints, Ints]:
    """(q, a): the row on the grid of its largest magnitude a (last axis kept)."""
    a = absmax(z)
    reciprocal = (QUANTISED_MAX[bits] << 40) // a
    return (z * reciprocal + (1 << 39)) >> 40, a


def plain_scale(a: Ints, fraction: int) -> Scale:
    m, e = mantissa(a)
    return Scale(m, e - fraction)


def _mean_square_root(z: Ints, a: Ints, fraction: int, epsilon_q48: int) -> tuple[Ints, Ints, Ints]:
    """(z >> k, r, k): the row brought to 24 bits, and the root of its mean square there, at least 1."""
    width = z.shape[-1]
    k = np.maximum(bit_length(a) - 24, -16)
    shifted = shift_right(z, k)
    epsilon = shift_right(np.full_like(a, epsilon_q48 * width), 48 + 2 * k - 2 * fraction)
    total = np.square(shifted).sum(axis=-1, keepdims=True) + epsilon
    return shifted, np.maximum(1, _isqrt(total // width)), k


def norm_scale(x: Ints, fraction: int, epsilon_q48: int) -> Scale:
    a = absmax(x)
    _, r, k = _mean_square_root(x, a, fraction, epsilon_q48)
    ma, ea = mantissa(a)
    m, e = mantissa((ma << 32) // r)
    return Scale(m, e + ea - 32 - k)


def accumulate(weight: NDArray[np.int8], q: Ints) -> Ints:
    """W q, exactly: the sum of K products is below 2^38 in magnitude, so float64 holds every partial sum."""
    product = q.reshape(-1, q.shape[-1]).astype(np.float64) @ weight.T.astype(np.float64)
    return product.astype(np.int64).reshape(*q.shape[:-1], weight.shape[0])


def rescale(acc: Ints, mantissas: Ints, exponents: Ints, scale: Scale, fraction: int) -> Ints:
    """The value v of `linear`, before bias, residual and saturation."""
    u = round_shift(acc * mantissas, 8)
    return round_shift(u * scale.mantissa, -(8 + exponents + scale.exponent + fraction))


def linear(weights: Weights, name: str, q: Ints, scale: Scale, fraction: int) -> Ints:
    """v for the rows of `name`, unsaturated (a bias or the residual is added before saturation)."""
    acc = accumulate(weights.tensor(f"{name}.weight"), q)
    mantissas = weights.tensor(f"{name}.mantissa").astype(np.int64)
    exponents = weights.tensor(f"{name}.exponent").astype(np.int64)
    return rescale(acc, mantissas, exponents, scale, fraction)


def head_norm(z: Ints, weight: Ints, epsilon_q48: int) -> Ints:
    """RMSNorm of a query or key head (Q12) with its weight (Q16)."""
    shifted, r, _ = _mean_square_root(z, absmax(z), PROJECTION_FRACTION, epsilon_q48)
    normalised = round_shift(shifted * ((1 << 40) // r), 24)
    return saturate(round_shift(normalised * weight, 20))


def rotary(z: Ints, cos: Ints, sin: Ints) -> Ints:
    """Rotate the pairs (i, i + h/2); cos and sin are Q14 and broadcast against half a head."""
    first, second = np.split(z, 2, axis=-1)
    return np.concatenate(
        [
            saturate(round_shift(first * cos - second * sin, 14)),
            saturate(round_shift(second * cos + first * sin, 14)),
        ],
        axis=-1,
    )


def head_hadamard(z: Ints) -> Ints:
    width = z.shape[-1]
    total = z
    stride = 1
    while stride < width:
        pairs = total.reshape(*z.shape[:-1], width // (2 * stride), 2, stride)
        low, high = pairs[..., 0, :], pairs[..., 1, :]
        total = np.stack([low + high, low - high], axis=-2).reshape(z.shape)
        stride *= 2
    return saturate(round_shift(total, (width.bit_length() - 1) // 2))


class KeyValues(NamedTuple):
    """Quantised keys and values of one head: k and v [S, h], ka and va [S]."""

    k: Ints
    ka: Ints
    v: Ints
    va: Ints


def attention(header: Header, z: Ints, positions: Ints, cached: KeyValues) -> Ints:
    """Heads z [..., n, h] (Q12, rotated) at `positions` [n] over the keys 0 .. position. Returns Q16, shaped as z."""
    q, a = quantise(z, 8)
    mq, eq = mantissa(a * header.attention_mantissa)
    mk, ek = mantissa(cached.ka)
    dot = accumulate(cached.k.astype(np.int8), q)
    score = round_shift(dot * mk * mq, -(eq + ek + header.attention_exponent - 8))
    score = np.clip(score, -SCORE_MAX, SCORE_MAX)

    seen = np.arange(len(cached.ka)) <= positions[:, None]
    lowest = np.iinfo(np.int64).min
    top = np.where(seen, score, lowest).max(axis=-1, keepdims=True)
    loudest = np.where(seen, score + (bit_length(cached.va) << 16), lowest).max(axis=-1, keepdims=True)
    t = 5 + ((loudest - top + 65535) >> 16)

    delta = np.where(seen, top - score, 0)
    p = np.where(seen, exp2_table()[(delta & 65535) >> 4] >> np.minimum(delta >> 16, 63), 0)
    w = np.minimum(32767, round_shift(p * cached.va, t))
    total = p.sum(axis=-1, keepdims=True)
    mixed = (w.astype(np.float64) @ cached.v.astype(np.float64)).astype(np.int64)
    b = bit_length(total)
    reciprocal = (np.int64(1) << (b + 22)) // (127 * total)
    return saturate(round_shift(mixed * reciprocal, b + 18 - t))


def gated_unit(gate: Ints, up: Ints, hidden_fraction: int) -> Ints:
    """SiLU(gate) * up, from Q12 into Q`hidden_fraction`."""
    table = sigmoid_table()
    clamped = np.clip(gate, -65536, 65535) + 65536
    i, c = clamped >> 5, clamped & 31
    sigma = table[i] + (((table[i + 1] - table[i]) * c) >> 5)
    silu = round_shift(gate * sigma, 16)
    return saturate(round_shift(silu * up, 24 - hidden_fraction))


def embedding(weights: Weights, tokens: Ints) -> Ints:
    rows = weights.tensor("embedding.weight")[tokens].astype(np.int64)
    mantissas = weights.tensor("embedding.mantissa")[tokens].astype(np.int64)[:, None]
    exponents = weights.tensor("embedding.exponent")[tokens].astype(np.int64)[:, None]
    return saturate(round_shift(rows * mantissas, -(exponents + weights.header.residual_fraction)))


# Section 4: the forward pass


class Cache:
    """Quantised keys and values of one sequence, for all layers; grows as tokens are processed."""

    def __init__(self, header: Header) -> None:
        heads, width = header.key_value_heads, header.head_width
        self.length = 0
        self._k = [np.zeros((heads, 0, width), np.int64) for _ in range(header.layers)]
        self._v = [np.zeros((heads, 0, width), np.int64) for _ in range(header.layers)]
        self._ka = [np.zeros((heads, 0), np.int64) for _ in range(header.layers)]
        self._va = [np.zeros((heads, 0), np.int64) for _ in range(header.layers)]

    def append(self, layer: int, keys: Ints, values: Ints) -> None:
        """Quantise and add keys and values (Q12, [n, G, h]) of the next positions of a layer."""
        for held, held_absmax, new in ((self._k, self._ka, keys), (self._v, self._va, values)):
            q, a = quantise(new, 8)
            held[layer] = np.concatenate([held[layer], q.swapaxes(0, 1)], axis=1)
            held_absmax[layer] = np.concatenate([held_absmax[layer], a[..., 0].T], axis=1)

    def head(self, layer: int, head: int) -> KeyValues:
        return KeyValues(self._k[layer][head], self._ka[layer][head], self._v[layer][head], self._va[layer][head])

    def row_bytes(self, layer: int, position: int) -> bytes:
        """The canonical bytes of a key-value row (section 4)."""
        parts = []
        for head in range(len(self._k[layer])):
            for q, a in ((self._k, self._ka), (self._v, self._va)):
                parts.append(q[layer][head, position].astype(np.int8).tobytes())
                parts.append(a[layer][head, position].astype("<i4").tobytes())
        return b"".join(parts)


@dataclass(frozen=True)
class Forward:
    """What a forward pass of n tokens shows: residual rows [L + 1, n, d] and logits [n, V]."""

    residuals: Ints
    logits: Ints


def forward(weights: Weights, cache: Cache, tokens: Sequence[int]) -> Forward:
    """Process the next tokens of one sequence; the cache grows by their number.

    Raises TokenOutOfRange and ContextExceeded, with the cache unchanged.
    """
    header = weights.header
    ids = np.asarray(tokens, dtype=np.int64)
    _check_tokens(header, ids, cache.length)
    positions = np.arange(cache.length, cache.length + len(ids))

    x = embedding(weights, ids)
    residuals = [x]
    for layer in range(header.layers):
        x = _attend(weights, cache, layer, positions, x)
        x = _feed_forward(weights, layer, x)
        residuals.append(x)
    cache.length += len(ids)
    logits = saturate(_from_residual(weights, "head", "head", x))
    return Forward(np.stack(residuals), logits)


def _check_tokens(header: Header, ids: Ints, length: int) -> None:
    if ids.size and not 0 <= ids.min() <= ids.max() < header.vocabulary:
        wrong = int(ids[(ids < 0) | (ids >= header.vocabulary)][0])
        raise TokenOutOfRange(f"token {wrong} is outside the vocabulary of {header.vocabulary}")
    if length + ids.size > header.context_max:
        raise ContextExceeded(f"{length + ids.size} tokens exceed the model's context of {header.context_max}")


def _from_residual(weights: Weights, role: Role, name: str, x: Ints) -> Ints:
    """A linear layer behind an RMSNorm."""
    header = weights.header
    q, _ = quantise(x, header.bits(role))
    scale = norm_scale(x, header.residual_fraction, header.epsilon_q48)
    return linear(weights, name, q, scale, header.output_fraction(role))


def _to_residual(weights: Weights, role: Role, name: str, z: Ints, fraction: int, x: Ints) -> Ints:
    """A linear layer whose output is added to the residual."""
    header = weights.header
    q, a = quantise(z, header.bits(role))
    return saturate(x + linear(weights, name, q, plain_scale(a, fraction), header.residual_fraction))


def _attend(weights: Weights, cache: Cache, layer: int, positions: Ints, x: Ints) -> Ints:
    header, prefix = weights.header, f"layers.{layer}"
    y = _from_residual(weights, "qkv", f"{prefix}.qkv", x)
    if header.qkv_bias:
        y = y + weights.tensor(f"{prefix}.qkv.bias").astype(np.int64)
    y = saturate(y).reshape(len(x), -1, header.head_width)
    queries, keys, values = np.split(y, [header.heads, header.heads + header.key_value_heads], axis=1)
    queries = _position(weights, f"{prefix}.q_norm", positions, queries)
    cache.append(layer, _position(weights, f"{prefix}.k_norm", positions, keys), values)

    group = header.heads // header.key_value_heads
    heads = np.empty((header.heads, len(x), header.head_width), dtype=np.int64)
    for head in range(header.key_value_heads):
        chosen = slice(head * group, (head + 1) * group)
        heads[chosen] = attention(header, queries[:, chosen].swapaxes(0, 1), positions, cache.head(layer, head))
    joined = heads.swapaxes(0, 1).reshape(len(x), -1)
    return _to_residual(weights, "o", f"{prefix}.o", joined, ATTENTION_OUTPUT_FRACTION, x)


def _position(weights: Weights, norm_name: str, positions: Ints, z: Ints) -> Ints:
    """Head norm, rotary and Hadamard of queries or keys [n, heads, h]."""
    header = weights.header
    if header.qk_norm:
        z = head_norm(z, weights.tensor(norm_name).astype(np.int64), header.epsilon_q48)
    cos, sin = (weights.tensor(f"rope.{name}")[positions].astype(np.int64)[:, None] for name in ("cos", "sin"))
    z = rotary(z, cos, sin)
    return head_hadamard(z) if header.qk_hadamard else z


def _feed_forward(weights: Weights, layer: int, x: Ints) -> Ints:
    header = weights.header
    y = saturate(_from_residual(weights, "gate_up", f"layers.{layer}.gate_up", x))
    gate, up = np.split(y, 2, axis=-1)
    hidden = gated_unit(gate, up, header.hidden_fraction)
    return _to_residual(weights, "down", f"layers.{layer}.down", hidden, header.hidden_fraction, x)
