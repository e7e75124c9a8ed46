// The operations of docs/exact-inference.md, section 3, that work on one row: quantising, norms, the epilogue of a
// linear layer, rotary positions, the head Hadamard, the gated unit. The scalar text is operations.hpp; here it runs in
// lanes.
#pragma once

#include <utility>

#include "worker/inference/native/cpu/model.hpp"

namespace WG_EXACT_NAMESPACE {

inline i32 largest_magnitude(const i32* z, u32 n) {
    i32 a = 1;
    for (u32 i = 0; i < n; ++i) {
        const i32 magnitude = z[i] < 0 ? -z[i] : z[i];
        a = magnitude > a ? magnitude : a;
    }
    return a;
}

// q + 128 of eight bits.
inline void quantise_narrow(u8* __restrict out, const i32* __restrict z, u32 n, i32 a) {
    const Lanes reciprocal = all_lanes(quantise_reciprocal(8, a));
    for (u32 i = 0; i < n; i += LANES) store_lanes(out + i, rounded(load_lanes(z + i) * reciprocal, 40) + 128);
}

// Quantise one row of n values as the matmul wants it: with 16 bits, n bytes of high limbs, then n of low limbs.
inline void quantise_row(u8* __restrict out, const i32* __restrict z, u32 n, u32 bits, i32 a) {
    if (bits == 8) return quantise_narrow(out, z, n, a);
    const Lanes reciprocal = all_lanes(quantise_reciprocal(16, a));
    for (u32 i = 0; i < n; i += LANES) {
        const Lanes q = rounded(load_lanes(z + i) * reciprocal, 40) + 128;
        store_lanes(out + i, (q >> 8) + 128);  // high limb + 128
        store_lanes(out + n + i, q);           // its low byte is the low limb + 128
    }
}

// The sum of squares that norms are made of (k of norm_shift); with `shifted`, the shifted values too.
template <bool KEPT>
inline u64 sum_of_squares(const i32* __restrict z, u32 n, i32 k, i64* __restrict shifted) {
    Lanes sum = all_lanes(0);
    for (u32 i = 0; i < n; i += LANES) {
        const Lanes x = load_lanes(z + i);
        const Lanes y = k >= 0 ? x >> static_cast<i64>(k) : x * (1ll << -k);
        if constexpr (KEPT) store_lanes(shifted + i, y);
        sum += short_product(y, y);
    }
    return static_cast<u64>(sum_of(sum));
}

inline Scale normed_row(const Model& model, u8* out, const i32* x, u32 bits) {
    const i32 a = largest_magnitude(x, model.width);
    const u64 squares = sum_of_squares<false>(x, model.width, norm_shift(static_cast<u64>(a)), nullptr);
    quantise_row(out, x, model.width, bits, a);
    return norm_scale(static_cast<u64>(a), squares, model.epsilon_q48, model.width, model.residual_fraction);
}

inline Scale plain_row(u8* out, const i32* z, u32 n, u32 bits, i32 fraction) {
    const i32 a = largest_magnitude(z, n);
    quantise_row(out, z, n, bits, a);
    return plain_scale(static_cast<u64>(a), fraction);
}

enum class Target { VALUES, BIASED, RESIDUAL, GATED };

// Values of 64 outputs of one row from the matmul's sums. `low` matters with TWO_LIMBS alone.
template <Target target, bool TWO_LIMBS>
inline void finish(i32* __restrict out, const i32* __restrict high, const i32* __restrict low, const Matrix& matrix,
                   u32 first, u32 count, Scale scale) {
    const Lanes exponent = all_lanes(scale.exponent), scale_mantissa = all_lanes(scale.mantissa);
    for (u32 n = 0; n < count; n += LANES) {
        const Lanes correction = load_lanes(matrix.corrections + first + n);
        const Lanes mantissa = load_lanes(matrix.mantissa + first + n);
        Lanes product = short_product(load_lanes(high + n) - correction, mantissa);
        if constexpr (TWO_LIMBS) product = (product << 8) + short_product(load_lanes(low + n) - correction, mantissa);
        const Lanes shift = load_lanes(matrix.row_shift + first + n) - exponent;
        Lanes v = rounded(long_product(rounded(product, 8), scale_mantissa), shift);
        if constexpr (target == Target::RESIDUAL) v += load_lanes(out + n);
        if constexpr (target == Target::BIASED) v += load_lanes(matrix.bias + first + n);
        store_lanes(out + n, saturated(v));
    }
}

// `finish` for a block of which `count` outputs exist. The vocabulary alone may end inside a vector.
template <Target target, bool TWO_LIMBS>
inline void finish_block(i32* out, const i32* sums, const Matrix& matrix, u32 first, u32 count, Scale scale) {
    const i32* low = sums + BLOCK_OUTPUTS;
    if (count % LANES == 0) return finish<target, TWO_LIMBS>(out, sums, low, matrix, first, count, scale);
    i32 whole[BLOCK_OUTPUTS];
    __builtin_memcpy(whole, out, sizeof(i32) * count);
    finish<target, TWO_LIMBS>(whole, sums, low, matrix, first, BLOCK_OUTPUTS, scale);
    __builtin_memcpy(out, whole, sizeof(i32) * count);
}

inline void head_norm(const Model& model, i32* z, const i32* gain) {
    const u32 h = model.head_width;
    const i32 k = norm_shift(static_cast<u64>(largest_magnitude(z, h)));
    i64 shifted[HEAD_WIDTH_MAX];
    const u64 squares = sum_of_squares<true>(z, h, k, shifted);
    const Lanes inverse = all_lanes(static_cast<i64>((1ull << 40) / norm_root(squares, model.epsilon_q48, h, k, 12)));
    for (u32 i = 0; i < h; i += LANES) {
        const Lanes normal = rounded(load_lanes(shifted + i) * inverse, 24);
        store_lanes(z + i, saturated(rounded(short_product(normal, load_lanes(gain + i)), 20)));
    }
}

inline void rotate(i32* z, const i16* cosines, const i16* sines, u32 half) {
    for (u32 i = 0; i < half; i += LANES) {
        const Lanes first = load_lanes(z + i), second = load_lanes(z + half + i);
        const Lanes c = load_lanes(cosines + i), s = load_lanes(sines + i);
        store_lanes(z + i, saturated(rounded(short_product(first, c) - short_product(second, s), 14)));
        store_lanes(z + half + i, saturated(rounded(short_product(second, c) + short_product(first, s), 14)));
    }
}

// One step of the Walsh-Hadamard transform among the lanes of a vector.
template <u32 STEP, u32... LANE>
WG_FN Lanes butterfly(Lanes x, std::integer_sequence<u32, LANE...> /*lanes*/) {
    const Lanes sign = {(LANE & STEP ? -1 : 0)...};
    return __builtin_shufflevector(x, x, (LANE ^ STEP)...) + ((x ^ sign) - sign);
}

// `width` is a power of two.
inline void hadamard(i32* z, u32 width) {
    Lanes sums[HEAD_WIDTH_MAX / LANES];
    const u32 count = width / LANES;
    const std::make_integer_sequence<u32, LANES> lanes{};
    for (u32 i = 0; i < count; ++i) {
        Lanes x = load_lanes(z + LANES * i);
        if constexpr (LANES > 1) x = butterfly<1>(x, lanes);
        if constexpr (LANES > 2) x = butterfly<2>(x, lanes);
        if constexpr (LANES > 4) x = butterfly<4>(x, lanes);
        sums[i] = x;
    }
    for (u32 step = 1; step < count; step *= 2) {
        for (u32 base = 0; base < count; base += 2 * step) {
            for (u32 i = base; i < base + step; ++i) {
                const Lanes a = sums[i], b = sums[i + step];
                sums[i] = a + b;
                sums[i + step] = a - b;
            }
        }
    }
    const i32 shift = (bit_length(width) - 1) / 2;  // at least 2: heads are 16 wide or more
    for (u32 i = 0; i < count; ++i) store_lanes(z + LANES * i, saturated(rounded(sums[i], shift)));
}

// The gated unit of n gates and ups.
inline void gated_values(const Model& model, i32* __restrict out, const i32* __restrict gate,
                         const i32* __restrict up, u32 n) {
    for (u32 i = 0; i < n; i += LANES) {
        const Lanes g = load_lanes(gate + i);
        const Lanes clamped = larger(smaller(g, all_lanes(65535)), all_lanes(-65536)) + 65536;
        const Lanes entries = look_up_pair(model.sigmoid, clamped >> 5);
        const Lanes low = entries & 0xFFFFFFFF, high = entries >> 32;
        const Lanes sigma = low + (short_product(high - low, clamped & 31) >> 5);
        const Lanes silu = rounded(short_product(g, sigma), 16);
        store_lanes(out + i, saturated(rounded(short_product(silu, load_lanes(up + i)), 24 - model.hidden_fraction)));
    }
}

inline void embed(const Model& model, i32* out, u64 token) {
    const i8* weights = model.embedding + token * model.width;
    for (u32 i = 0; i < model.width; ++i) {
        out[i] = embedding_value(weights[i], model.embedding_mantissa[token], model.embedding_exponent[token],
                                 model.residual_fraction);
    }
}

}  // namespace WG_EXACT_NAMESPACE
