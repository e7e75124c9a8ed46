// Eight residues modulo the prime of BLS12-381 at once, one in each 64-bit lane of 512-bit registers, for processors
// with AVX-512 IFMA (Ice Lake, Zen 4 and later); and the same eight as four elements of Fp2, c0 in the even lanes.
//
// A residue x stands as x * 2^416 modulo p in eight limbs of 52 bits: vpmadd52 adds the low or the high half of a
// product of two such limbs to a 64-bit lane. The 35 bits above p take what sums leave unreduced:
//     Residues   limbs below 2^52, value below 1.01 p: what a product takes
//     Sums       limbs of either sign below 2^59, value between -64 p and 64 p: what products and additions give
// Host code only; call nothing here before a look at PROCESSOR.ifma.
#pragma once

#include "core/native/crypto/bls12_381_curve.hpp"
#include "core/native/processor_x86.hpp"

#if WG_X86

namespace warpgrid {

#define WG_IFMA_TARGET WG_TARGET("avx512f,avx512dq,avx512vl,avx512ifma")
#define WG_IFMA_FN inline __attribute__((always_inline)) WG_IFMA_TARGET
#define WG_IFMA_NOINLINE inline WG_NOINLINE WG_IFMA_TARGET

constexpr u32 LANES = 8, IFMA_LIMBS = 8, IFMA_BITS = 52;
constexpr u64 IFMA_MASK = (1ull << IFMA_BITS) - 1;

// Limbs of 52 bits of a number of 6 words, shifted left by `shift` bits; at compile time.
WG_FN constexpr Limbs<IFMA_LIMBS> to_limbs52(const Limbs<6>& a, u32 shift) {
    Limbs<IFMA_LIMBS> r{};
    for (u32 i = 0; i < 64 * 6; ++i) {
        if (a.w[i / 64] >> (i % 64) & 1) r.w[(i + shift) / IFMA_BITS] |= 1ull << ((i + shift) % IFMA_BITS);
    }
    return r;
}

struct IfmaConstants {
    static constexpr u32 SHIFT_LOG2 = 6;  // 64 p makes every sum positive
    static constexpr Limbs<IFMA_LIMBS> P = to_limbs52(modulus_limbs<Bls12Prime>(), 0);
    static constexpr Limbs<IFMA_LIMBS> P64 = to_limbs52(modulus_limbs<Bls12Prime>(), SHIFT_LOG2);
    static constexpr u64 INVERSE = NEGATED_INVERSE<Bls12Prime> & IFMA_MASK;
    // 2^416 - p: to add it is to subtract p, once what overflows the top limb is dropped.
    static constexpr Limbs<IFMA_LIMBS> MINUS_P = [] {
        Limbs<IFMA_LIMBS> r{};
        u64 carry = 1;
        for (u32 i = 0; i < IFMA_LIMBS; ++i) {
            const u64 x = (~P.w[i] & IFMA_MASK) + carry;
            r.w[i] = x & IFMA_MASK;
            carry = x >> IFMA_BITS;
        }
        return r;
    }();
    // 2^52 / (p / 2^364), less a bit: times a top limb, it counts the multiples of p, or one too few.
    static constexpr u64 QUOTIENT = ((1ull << 63) / (P.w[7] + 1)) >> 11;
    static constexpr u64 TOP_ERROR = 256;  // more than the limbs below can bring into the top limb
    // Factors of a Montgomery product that lead from x * 2^384 to x * 2^416, and back.
    static constexpr Limbs<IFMA_LIMBS> ENTER = to_limbs52(power_of_two<Bls12Prime>(448), 0);
    static constexpr Limbs<IFMA_LIMBS> LEAVE = to_limbs52(power_of_two<Bls12Prime>(384), 0);
    static constexpr Limbs<IFMA_LIMBS> ONE = to_limbs52(power_of_two<Bls12Prime>(416), 0);
};

struct Sums {
    __m512i w[IFMA_LIMBS];
};
struct Residues {
    __m512i w[IFMA_LIMBS];
};

constexpr u8 EVEN_LANES = 0x55, ODD_LANES = 0xaa;

WG_IFMA_FN __m512i all_lanes(u64 x) { return _mm512_set1_epi64(static_cast<i64>(x)); }

WG_IFMA_FN Sums zero_sums() {
    Sums r;
    WG_UNROLL
    for (u32 i = 0; i < IFMA_LIMBS; ++i) r.w[i] = _mm512_setzero_si512();
    return r;
}
WG_IFMA_FN Sums sums_of(const Residues& a) {
    Sums r;
    WG_UNROLL
    for (u32 i = 0; i < IFMA_LIMBS; ++i) r.w[i] = a.w[i];
    return r;
}
WG_IFMA_FN Sums operator+(const Sums& a, const Sums& b) {
    Sums r;
    WG_UNROLL
    for (u32 i = 0; i < IFMA_LIMBS; ++i) r.w[i] = _mm512_add_epi64(a.w[i], b.w[i]);
    return r;
}
WG_IFMA_FN Sums operator-(const Sums& a, const Sums& b) {
    Sums r;
    WG_UNROLL
    for (u32 i = 0; i < IFMA_LIMBS; ++i) r.w[i] = _mm512_sub_epi64(a.w[i], b.w[i]);
    return r;
}
WG_IFMA_FN Sums operator+(const Residues& a, const Residues& b) { return sums_of(a) + sums_of(b); }
WG_IFMA_FN Sums operator-(const Residues& a, const Residues& b) { return sums_of(a) - sums_of(b); }
WG_IFMA_FN Sums doubled(const Sums& a) { return a + a; }

// What a column passes on.
WG_IFMA_FN __m512i carry_of(__m512i column) { return _mm512_maskz_srli_epi64(ALL_LANES, column, IFMA_BITS); }

// a + b in the lanes of `mask`, a in the others; likewise a - b.
WG_IFMA_FN Sums add_in(u8 mask, const Sums& a, const Sums& b) {
    Sums r;
    WG_UNROLL
    for (u32 i = 0; i < IFMA_LIMBS; ++i) r.w[i] = _mm512_mask_add_epi64(a.w[i], mask, a.w[i], b.w[i]);
    return r;
}
WG_IFMA_FN Sums subtract_in(u8 mask, const Sums& a, const Sums& b) {
    Sums r;
    WG_UNROLL
    for (u32 i = 0; i < IFMA_LIMBS; ++i) r.w[i] = _mm512_mask_sub_epi64(a.w[i], mask, a.w[i], b.w[i]);
    return r;
}

// The residues that sums stand for.
WG_IFMA_FN Residues reduced(const Sums& a) {
    using C = IfmaConstants;
    const __m512i top = _mm512_add_epi64(a.w[7], all_lanes(C::P64.w[7] - C::TOP_ERROR));
    const __m512i zero = _mm512_setzero_si512(), mask = all_lanes(IFMA_MASK);
    const __m512i quotient = _mm512_madd52hi_epu64(zero, top, all_lanes(C::QUOTIENT));
    Residues r;
    __m512i carry = zero, high = zero;
    WG_UNROLL
    for (u32 i = 0; i < IFMA_LIMBS; ++i) {
        __m512i t = _mm512_add_epi64(a.w[i], all_lanes(C::P64.w[i]));
        t = _mm512_add_epi64(_mm512_madd52lo_epu64(t, quotient, all_lanes(C::MINUS_P.w[i])), high);
        high = _mm512_madd52hi_epu64(zero, quotient, all_lanes(C::MINUS_P.w[i]));
        t = _mm512_add_epi64(t, carry);
        carry = _mm512_maskz_srai_epi64(ALL_LANES, t, IFMA_BITS);
        r.w[i] = _mm512_and_si512(t, mask);
    }
    return r;
}

// t (16 columns) += a * b.
WG_IFMA_FN void add_product(__m512i (&t)[2 * IFMA_LIMBS], const Residues& a, const Residues& b) {
    WG_UNROLL
    for (u32 i = 0; i < IFMA_LIMBS; ++i) {
        WG_UNROLL
        for (u32 j = 0; j < IFMA_LIMBS; ++j) t[i + j] = _mm512_madd52lo_epu64(t[i + j], a.w[i], b.w[j]);
        WG_UNROLL
        for (u32 j = 0; j < IFMA_LIMBS; ++j) t[i + j + 1] = _mm512_madd52hi_epu64(t[i + j + 1], a.w[i], b.w[j]);
    }
}

// t * 2^-416.
WG_IFMA_FN Sums montgomery_reduced(__m512i (&t)[2 * IFMA_LIMBS]) {
    using C = IfmaConstants;
    const __m512i zero = _mm512_setzero_si512(), mask = all_lanes(IFMA_MASK);
    WG_UNROLL
    for (u32 i = 0; i < IFMA_LIMBS; ++i) {
        const __m512i q = _mm512_madd52lo_epu64(zero, t[i], all_lanes(C::INVERSE));
        WG_UNROLL
        for (u32 j = 0; j < IFMA_LIMBS; ++j) t[i + j] = _mm512_madd52lo_epu64(t[i + j], q, all_lanes(C::P.w[j]));
        WG_UNROLL
        for (u32 j = 0; j < IFMA_LIMBS; ++j)
            t[i + j + 1] = _mm512_madd52hi_epu64(t[i + j + 1], q, all_lanes(C::P.w[j]));
        t[i + 1] = _mm512_add_epi64(t[i + 1], carry_of(t[i]));
    }
    // One step of carries leaves limbs little above 2^52, so that many results may be added.
    Sums r;
    r.w[0] = _mm512_and_si512(t[8], mask);
    WG_UNROLL
    for (u32 i = 1; i < IFMA_LIMBS; ++i) {
        const __m512i low = i == 7 ? t[15] : _mm512_and_si512(t[8 + i], mask);
        r.w[i] = _mm512_add_epi64(low, carry_of(t[7 + i]));
    }
    return r;
}

// The products of the lanes.
WG_IFMA_NOINLINE Sums multiply_lanes(const Residues& a, const Residues& b) {
    __m512i t[2 * IFMA_LIMBS];
    WG_UNROLL
    for (u32 i = 0; i < 2 * IFMA_LIMBS; ++i) t[i] = _mm512_setzero_si512();
    add_product(t, a, b);
    return montgomery_reduced(t);
}

// ---- four elements of Fp2 ------------------------------------------------------------------------------------------

// c0 and c1 change places.
template <class T>
WG_IFMA_FN T exchanged(const T& a) {
    T r;
    WG_UNROLL
    for (u32 i = 0; i < IFMA_LIMBS; ++i) r.w[i] = _mm512_maskz_permutex_epi64(ALL_LANES, a.w[i], 0xb1);
    return r;
}

WG_IFMA_FN Sums times_xi(const Sums& a) {
    const Sums other = exchanged(a);
    return add_in(ODD_LANES, subtract_in(EVEN_LANES, a, other), other);
}

// The elements at places A, B, C, D of `a`.
template <u32 A, u32 B, u32 C, u32 D, class T>
WG_IFMA_FN T places(const T& a) {
    T r;
    WG_UNROLL
    for (u32 i = 0; i < IFMA_LIMBS; ++i) {
        r.w[i] = _mm512_maskz_shuffle_i64x2(ALL_LANES, a.w[i], a.w[i], A | B << 2 | C << 4 | D << 6);
    }
    return r;
}
// Places A and B of `a`, then places C and D of `b`.
template <u32 A, u32 B, u32 C, u32 D, class T>
WG_IFMA_FN T places(const T& a, const T& b) {
    T r;
    WG_UNROLL
    for (u32 i = 0; i < IFMA_LIMBS; ++i) {
        r.w[i] = _mm512_maskz_shuffle_i64x2(ALL_LANES, a.w[i], b.w[i], A | B << 2 | C << 4 | D << 6);
    }
    return r;
}
// The lanes of `mask` from b, the others from a.
template <class T>
WG_IFMA_FN T mixed(u8 mask, const T& a, const T& b) {
    T r;
    WG_UNROLL
    for (u32 i = 0; i < IFMA_LIMBS; ++i) r.w[i] = _mm512_mask_blend_epi64(mask, a.w[i], b.w[i]);
    return r;
}
constexpr u8 place_mask(u32 place) { return static_cast<u8>(3u << (2 * place)); }

// The products of the elements: c0 = a0 b0 + a1 (-b1), c1 = a0 b1 + a1 b0, each with one reduction.
WG_IFMA_NOINLINE Sums multiply_fp2(const Residues& a, const Residues& b) {
    Residues first, second;
    WG_UNROLL
    for (u32 i = 0; i < IFMA_LIMBS; ++i) {
        first.w[i] = _mm512_maskz_permutex_epi64(ALL_LANES, a.w[i], 0xa0);
        second.w[i] = _mm512_maskz_permutex_epi64(ALL_LANES, a.w[i], 0xf5);
    }
    const Residues other = exchanged(b);
    const Residues turned = reduced(mixed(EVEN_LANES, sums_of(other), zero_sums() - sums_of(other)));
    __m512i t[2 * IFMA_LIMBS];
    WG_UNROLL
    for (u32 i = 0; i < 2 * IFMA_LIMBS; ++i) t[i] = _mm512_setzero_si512();
    add_product(t, first, b);
    add_product(t, second, turned);
    return montgomery_reduced(t);
}

// ---- from and to fields --------------------------------------------------------------------------------------------

WG_IFMA_FN Residues broadcast(const Limbs<IFMA_LIMBS>& a) {
    Residues r;
    WG_UNROLL
    for (u32 i = 0; i < IFMA_LIMBS; ++i) r.w[i] = all_lanes(a.w[i]);
    return r;
}

WG_IFMA_NOINLINE Residues load_residues(const Bls12Field* const (&fields)[LANES]) {
    alignas(64) u64 limbs[IFMA_LIMBS][LANES];
    for (u32 lane = 0; lane < LANES; ++lane) {
        for (u32 i = 0; i < IFMA_LIMBS; ++i) {
            const u32 word = IFMA_BITS * i / 64, shift = IFMA_BITS * i % 64;
            u64 x = word < 6 ? fields[lane]->w[word] >> shift : 0;
            if (shift > 64 - IFMA_BITS && word + 1 < 6) x |= fields[lane]->w[word + 1] << (64 - shift);
            limbs[i][lane] = x & IFMA_MASK;
        }
    }
    Residues raw;
    for (u32 i = 0; i < IFMA_LIMBS; ++i) raw.w[i] = _mm512_load_si512(limbs[i]);
    return reduced(multiply_lanes(raw, broadcast(IfmaConstants::ENTER)));
}

WG_IFMA_NOINLINE void store_residues(Bls12Field (&fields)[LANES], const Residues& a) {
    constexpr Limbs<6> P = modulus_limbs<Bls12Prime>();
    const Residues left = reduced(multiply_lanes(a, broadcast(IfmaConstants::LEAVE)));
    alignas(64) u64 limbs[IFMA_LIMBS][LANES];
    for (u32 i = 0; i < IFMA_LIMBS; ++i) _mm512_store_si512(limbs[i], left.w[i]);
    for (u32 lane = 0; lane < LANES; ++lane) {
        u64 words[6] = {};
        for (u32 i = 0; i < IFMA_LIMBS; ++i) {
            const u32 word = IFMA_BITS * i / 64, shift = IFMA_BITS * i % 64;
            if (word < 6) words[word] |= limbs[i][lane] << shift;
            if (shift > 64 - IFMA_BITS && word + 1 < 6) words[word + 1] |= limbs[i][lane] >> (64 - shift);
        }
        subtract_if_at_least(fields[lane].w, words, 0, P.w);
    }
}

}  // namespace warpgrid

#endif  // WG_X86
