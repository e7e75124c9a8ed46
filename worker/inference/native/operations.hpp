// The scalar cores of docs/exact-inference.md, section 3: one value in, one value out.
//
// The GPU kernels call them one thread a value; the CPU engine has those that it applies to whole rows in vectors
// (cpu/rows.hpp, cpu/attention.hpp). Sums and maxima, whose order is free, belong to the callers.
#pragma once

#include "worker/inference/native/fixed_point.hpp"

namespace WG_EXACT_NAMESPACE {

constexpr i32 Q8_MAX = 127;
constexpr i32 Q16_MAX = 32639;  // 127 * 257, so that the high limb stays within -127 .. 127

WG_FN i32 quantised_max(i32 bits) { return bits == 8 ? Q8_MAX : Q16_MAX; }

// R of the quantiser, for the largest magnitude a >= 1.
WG_FN i64 quantise_reciprocal(i32 bits, i64 a) { return (static_cast<i64>(quantised_max(bits)) << 40) / a; }

WG_FN i32 quantise_value(i32 z, i64 reciprocal) {
    return static_cast<i32>((z * reciprocal + (1ll << 39)) >> 40);
}

WG_FN i32 high_limb(i32 q) { return (q + 128) >> 8; }
WG_FN i32 low_limb(i32 q) { return q - 256 * high_limb(q); }

// The scale (A, eA) of a quantised vector: A * 2^eA.
struct Scale {
    i32 mantissa;
    i32 exponent;
};

// Of a vector in Q`fraction` whose largest magnitude is a.
WG_FN Scale plain_scale(u64 a, i32 fraction) {
    const Mantissa m = mantissa_of(a);
    return {m.mantissa, m.exponent - fraction};
}

// k of the norm: values are shifted right by it (left where negative) before they are squared.
WG_FN i32 norm_shift(u64 a) {
    const i32 k = bit_length(a) - 24;
    return k < -16 ? -16 : k;
}

WG_FN i64 norm_shifted(i32 x, i32 k) { return k >= 0 ? x >> k : static_cast<i64>(x) * (1 << -k); }

// floor(square root of the mean square), at least 1; `squares` is the sum of shifted squares, values are Q`fraction`.
WG_FN u64 norm_root(u64 squares, u64 epsilon_q48, u32 width, i32 k, i32 fraction) {
    const i32 shift = 48 + 2 * k - 2 * fraction;
    const u64 scaled = epsilon_q48 * width;
    const u64 epsilon = shift >= 64 ? 0 : shift >= 0 ? scaled >> shift : scaled << -shift;
    const u64 root = integer_sqrt(quotient(squares + epsilon, width));
    return root == 0 ? 1 : root;
}

WG_FN Scale norm_scale(u64 a, u64 squares, u64 epsilon_q48, u32 width, i32 fraction) {
    const i32 k = norm_shift(a);
    const u64 root = norm_root(squares, epsilon_q48, width, k, fraction);
    const Mantissa largest = mantissa_of(a);
    const Mantissa ratio = mantissa_of(quotient(static_cast<u64>(largest.mantissa) << 32, root));
    return {ratio.mantissa, ratio.exponent + largest.exponent - 32 - k};
}

// One output of a linear layer, before saturation: `row_shift` is -(8 + e_n + n') of the weight row.
WG_FN i64 linear_value(i64 accumulator, i32 row_mantissa, i32 row_shift, Scale scale) {
    const i64 u = (accumulator * row_mantissa + 128) >> 8;
    return round_shift_positive(u * scale.mantissa, row_shift - scale.exponent);
}

WG_FN i32 clamped_gate(i32 gate) { return (gate < -65536 ? -65536 : gate > 65535 ? 65535 : gate) + 65536; }

// Where SIGMOID has the entry below a gate; the one above it follows.
WG_FN i32 sigmoid_index(i32 gate) { return clamped_gate(gate) >> 5; }

// `low` and `high` are SIGMOID's entries below and above the gate.
WG_FN i32 gated_value(i32 gate, i32 up, i32 low, i32 high, i32 hidden_fraction) {
    const i32 sigma = low + (((high - low) * (clamped_gate(gate) & 31)) >> 5);
    const i64 silu = (static_cast<i64>(gate) * sigma + 32768) >> 16;
    return saturate(round_shift_positive(silu * up, 24 - hidden_fraction));
}

constexpr i32 SCORE_MAX = 1 << 30;

// `scale_mantissa` and `scale_exponent` are mant(a_q * Cm) with Ce added to the exponent.
WG_FN i32 score_value(i32 dot, Mantissa key, Mantissa query) {
    // The shift is at least -8 and the product below 2^54: shifted left by 8 first, it only ever shifts right.
    const i64 product = (static_cast<i64>(dot) * key.mantissa * query.mantissa) * 256;
    const i32 shift = 16 - query.exponent - key.exponent;
    const i32 count = shift > 62 ? 62 : shift;
    const i64 score = shift > 62 ? 0 : (product + ((1ll << count) >> 1)) >> count;
    return static_cast<i32>(score > SCORE_MAX ? SCORE_MAX : score < -SCORE_MAX ? -SCORE_MAX : score);
}

// exp2 of a non-positive Q16 number, as Q20; `difference` is its magnitude.
WG_FN i32 exp2_value(u32 difference, const i32* exp2) {
    const u32 shift = difference >> 16;
    return shift > 31 ? 0 : exp2[(difference & 65535) >> 4] >> shift;
}

WG_FN i32 attention_weight(i32 probability, i32 value_max, i32 shift) {
    const i64 w = (static_cast<i64>(probability) * value_max + (1ll << (shift - 1))) >> shift;
    return w > 32767 ? 32767 : static_cast<i32>(w);
}

WG_FN i32 attention_output(i64 numerator, u64 denominator, i32 shift) {
    const i32 b = bit_length(denominator);
    const i64 reciprocal = static_cast<i64>((1ull << (b + 22)) / (127 * denominator));
    return saturate(round_shift_positive(numerator * reciprocal, b + 18 - shift));
}

WG_FN i32 embedding_value(i32 weight, i32 mantissa, i32 exponent, i32 residual_fraction) {
    return saturate(round_shift(static_cast<i64>(weight) * mantissa, -(exponent + residual_fraction)));
}

}  // namespace WG_EXACT_NAMESPACE
