"""Specification 1 once more, one number at a time, in Python's unbounded integers.

The third hand besides the numpy reference and the engines: it cannot overflow, so that agreement with it at extreme
values shows that the others do not either. It made the vectors in `vectors/exact`, from docs/exact-inference.md alone.
"""

from collections.abc import Sequence
from math import isqrt

from worker.inference.exact.specification import exp2_table, sigmoid_table

Row = Sequence[int]

EXP2 = [int(entry) for entry in exp2_table()]
SIGMOID = [int(entry) for entry in sigmoid_table()]


def shr(x: int, s: int) -> int:
    return x >> s if s >= 0 else x << -s


def rsh(x: int, s: int) -> int:
    return (x + (1 << (s - 1))) >> s if s >= 1 else x << -s


def sat(x: int) -> int:
    return max(-(2**31 - 1), min(2**31 - 1, x))


def mant(a: int) -> tuple[int, int]:
    e = a.bit_length() - 16
    return shr(a, e), e


def quantise(z: Row, bits: int) -> tuple[list[int], int]:
    q_max = 127 if bits == 8 else 32639
    a = max(1, *(abs(v) for v in z))
    r = (q_max << 40) // a
    return [(v * r + (1 << 39)) >> 40 for v in z], a


def plain_scale(a: int, fraction: int) -> tuple[int, int]:
    m, e = mant(a)
    return m, e - fraction


def norm_scale(x: Row, fraction: int, epsilon: int) -> tuple[int, int]:
    a = max(1, *(abs(v) for v in x))
    k = max(a.bit_length() - 24, -16)
    total = sum(shr(v, k) ** 2 for v in x) + shr(epsilon * len(x), 48 + 2 * k - 2 * fraction)
    r = max(1, isqrt(total // len(x)))
    ma, ea = mant(a)
    m, e = mant((ma << 32) // r)
    return m, e + ea - 32 - k


def rescale(acc: int, mantissa: int, exponent: int, scale: tuple[int, int], fraction: int) -> int:
    u = rsh(acc * mantissa, 8)
    return rsh(u * scale[0], -(8 + exponent + scale[1] + fraction))


def linear(weight: Sequence[Row], mantissas: Row, exponents: Row, q: Row, scale: tuple[int, int], n: int) -> list[int]:
    accumulated = [sum(w * v for w, v in zip(row, q, strict=True)) for row in weight]
    return [rescale(acc, m, e, scale, n) for acc, m, e in zip(accumulated, mantissas, exponents, strict=True)]


def head_norm(z: Row, weight: Row, epsilon: int) -> list[int]:
    a = max(1, *(abs(v) for v in z))
    k = max(a.bit_length() - 24, -16)
    shifted = [shr(v, k) for v in z]
    total = sum(v * v for v in shifted) + shr(epsilon * len(z), 48 + 2 * k - 24)
    inverse = (1 << 40) // max(1, isqrt(total // len(z)))
    return [sat(rsh(rsh(v * inverse, 24) * g, 20)) for v, g in zip(shifted, weight, strict=True)]


def rotary(z: Row, cos: Row, sin: Row) -> list[int]:
    half = len(z) // 2
    pairs = list(zip(z[:half], z[half:], cos, sin, strict=True))
    return [sat(rsh(a * c - b * s, 14)) for a, b, c, s in pairs] + [sat(rsh(b * c + a * s, 14)) for a, b, c, s in pairs]


def head_hadamard(z: Row) -> list[int]:
    shift = (len(z).bit_length() - 1) // 2
    return [
        sat(rsh(sum(v if (i & j).bit_count() % 2 == 0 else -v for j, v in enumerate(z)), shift)) for i in range(len(z))
    ]


def attention(constant: tuple[int, int], z: Row, k: Sequence[Row], ka: Row, v: Sequence[Row], va: Row) -> list[int]:
    q, a = quantise(z, 8)
    mq, eq = mant(a * constant[0])
    scores = []
    for key, key_absmax in zip(k, ka, strict=True):
        mk, ek = mant(key_absmax)
        dot = sum(x * y for x, y in zip(q, key, strict=True))
        scores.append(max(-(2**30), min(2**30, rsh(dot * mk * mq, -(eq + ek + constant[1] - 8)))))
    m = max(scores)
    loudest = max(s + (absmax.bit_length() << 16) for s, absmax in zip(scores, va, strict=True))
    t = 5 + ((loudest - m + 65535) >> 16)
    p = [EXP2[((m - s) & 65535) >> 4] >> ((m - s) >> 16) for s in scores]
    w = [min(32767, rsh(one * absmax, t)) for one, absmax in zip(p, va, strict=True)]
    d = sum(p)
    b = d.bit_length()
    reciprocal = (1 << (b + 22)) // (127 * d)
    mixed = [sum(weight * row[i] for weight, row in zip(w, v, strict=True)) for i in range(len(z))]
    return [sat(rsh(n * reciprocal, b + 18 - t)) for n in mixed]


def gated_unit(gate: int, up: int, hidden_fraction: int) -> int:
    clamped = max(-65536, min(65535, gate)) + 65536
    i, c = clamped >> 5, clamped & 31
    sigma = SIGMOID[i] + (((SIGMOID[i + 1] - SIGMOID[i]) * c) >> 5)
    return sat(rsh(rsh(gate * sigma, 16) * up, 24 - hidden_fraction))


def embedding(row: Row, mantissa: int, exponent: int, fraction: int) -> list[int]:
    return [sat(rsh(v * mantissa, -(exponent + fraction))) for v in row]


def philox(seed: int, position: int, choice: int) -> int:
    c = [position, choice, 0, 0]
    k = [seed % 2**32, seed >> 32]
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 2**32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c[0] + (c[1] << 32)


def choose(
    logits: Row, *, temperature_q16: int, top_k: int, top_p_q16: int, seed: int, choice: int, position: int
) -> int:
    top = max(logits)
    if temperature_q16 == 0:
        return list(logits).index(top)
    factor = (6051102 << 16) // temperature_q16
    distances = [((top - logit) * factor) >> 22 for logit in logits]
    p = [(EXP2[(d & 65535) >> 4] << 20) >> (d >> 16) for d in distances]
    kept = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    if top_k:
        kept = kept[:top_k]
    if top_p_q16 < 65536:
        target = (sum(p[i] for i in kept) >> 16) * top_p_q16
        total, prefix = 0, []
        for i in kept:
            prefix.append(i)
            total += p[i]
            if total >= target:
                break
        kept = prefix
    drawn = philox(seed, position, choice) * sum(p[i] for i in kept) >> 64
    total = 0
    for i in sorted(kept):
        total += p[i]
        if total > drawn:
            return i
    raise AssertionError("the draw lies below the sum")
