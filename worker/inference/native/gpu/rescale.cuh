// linear_value and score_value of operations.hpp in fewer instructions, for shifts that leave nothing of the low word.
//
// Both are a rounding shift of a product below 2^62. Shifted by 33 or more, it depends on its high word alone:
// rsh(x, s) = ((x >> (s - 1)) + 1) >> 1. Ordinary models shift by about 30; eight bits are gained where the product has
// them to spare, by multiplying the last factor by 256. Whatever shifts by less takes the plain way.
#pragma once

#include "worker/inference/native/operations.hpp"

namespace warpgrid::exact {

constexpr i32 HIGH_WORD_SHIFT = 33;

// rsh(t * factor, shift) for shift >= 33, 0 <= factor < 2^24.
__device__ __forceinline__ i32 high_word_shift(i64 t, u32 factor, i32 shift) {
    const u32 low = static_cast<u32>(t);
    const i32 high = static_cast<i32>(t >> 32);
    const i32 word = static_cast<i32>(__umulhi(low, factor)) + high * static_cast<i32>(factor);
    return ((word >> min(shift - HIGH_WORD_SHIFT, 31)) + 1) >> 1;
}

// quantise_reciprocal of operations.hpp without a 64-bit division: the float unit guesses, the remainder corrects.
__device__ __noinline__ i64 reciprocal_of(u32 bits, i32 a) {
    const i64 all = static_cast<i64>(quantised_max(static_cast<i32>(bits))) << 40;
    const double inverse = 1.0 / static_cast<double>(a);
    i64 quotient = static_cast<i64>(static_cast<double>(all) * inverse);  // off by 8 at most: all < 2^55
    i64 rest = all - quotient * a;
    quotient += static_cast<i64>(floor(static_cast<double>(rest) * inverse));
    rest = all - quotient * a;
    return rest < 0 ? quotient - 1 : rest >= a ? quotient + 1 : quotient;
}

// Whether `linear_fast` serves an input of `bits` bits.
__device__ __forceinline__ bool shifts_far(i32 row_shift, i32 exponent, u32 bits) {
    return row_shift - exponent + (bits == 8 ? 8 : 0) >= HIGH_WORD_SHIFT;
}

// A linear layer's output that `shifts_far`. It lies within +-2^29.
__device__ __forceinline__ i32 linear_fast(i32 accumulator, i32 row_mantissa, i32 row_shift, Scale scale) {
    const i64 u = (static_cast<i64>(accumulator) * row_mantissa + 128) >> 8;
    return high_word_shift(u, static_cast<u32>(scale.mantissa) << 8, row_shift - scale.exponent + 8);
}

__device__ __forceinline__ i32 linear_fast(i64 accumulator, i32 row_mantissa, i32 row_shift, Scale scale) {
    const i64 u = (accumulator * row_mantissa + 128) >> 8;
    return high_word_shift(u, static_cast<u32>(scale.mantissa), row_shift - scale.exponent);
}

// Any linear layer's output. Out of line, as it is rare: a product's end is one straight line, and fetching
// instructions that nobody runs twice costs more than running them (2.5 times, when this was inlined there).
__device__ __noinline__ i64 linear_slow(i64 accumulator, i32 row_mantissa, i32 row_shift, Scale scale) {
    return linear_value(accumulator, row_mantissa, row_shift, scale);
}

// A linear layer's output before saturation, from an 8-bit input's accumulator (below 2^30) or a 16-bit one's (2^38).
__device__ __forceinline__ i64 linear_output(i32 accumulator, i32 row_mantissa, i32 row_shift, Scale scale) {
    return shifts_far(row_shift, scale.exponent, 8) ? linear_fast(accumulator, row_mantissa, row_shift, scale)
                                                    : linear_slow(accumulator, row_mantissa, row_shift, scale);
}

__device__ __forceinline__ i64 linear_output(i64 accumulator, i32 row_mantissa, i32 row_shift, Scale scale) {
    return shifts_far(row_shift, scale.exponent, 16) ? linear_fast(accumulator, row_mantissa, row_shift, scale)
                                                     : linear_slow(accumulator, row_mantissa, row_shift, scale);
}

__device__ __noinline__ i32 score_slow(i32 dot, Mantissa key, Mantissa query) { return score_value(dot, key, query); }

__device__ __forceinline__ i32 attention_score(i32 dot, Mantissa key, Mantissa query) {
    const i32 shift = 16 - query.exponent - key.exponent;
    if (shift < HIGH_WORD_SHIFT) return score_slow(dot, key, query);
    return high_word_shift(static_cast<i64>(dot) * key.mantissa, static_cast<u32>(query.mantissa) << 8, shift);
}

}  // namespace warpgrid::exact
