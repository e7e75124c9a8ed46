// Keccak-256 of one message (keccak_x86.hpp: of eight) with AVX-512 on 128-bit registers, one lane in each of 32: 16
// general registers spill, and here one instruction makes a sum or a step of chi over three lanes. Half of a register
// is idle; what binds is the number of instructions, 90 a round in place of 155. Zen 4: 211 ns a permutation, not 240.
#pragma once

#include "core/native/processor_x86.hpp"

namespace warpgrid {

#define WG_SINGLE_FN inline __attribute__((always_inline)) WG_TARGET("avx512f,avx512vl")

// a ^ b ^ c.
WG_SINGLE_FN __m128i keccak_sum(__m128i a, __m128i b, __m128i c) { return _mm_ternarylogic_epi64(a, b, c, 0x96); }
// a ^ (~b & c).
WG_SINGLE_FN __m128i keccak_chi(__m128i a, __m128i b, __m128i c) { return _mm_ternarylogic_epi64(a, b, c, 0xd2); }
WG_SINGLE_FN __m128i keccak_rotated(__m128i a, u32 count) {
    const __v2du lanes = reinterpret_cast<__v2du>(a);
    return count == 0 ? a : reinterpret_cast<__m128i>(lanes << count | lanes >> (64 - count));  // one vprolq
}

// As keccak_round of keccak.hpp: row after row, so that 25 lanes and the five sums of theta are all that lives.
WG_SINGLE_FN void keccak_single_round(__m128i (&e)[25], const __m128i (&a)[25], u64 round_constant) {
    __m128i c[5], d[5];
    WG_UNROLL
    for (u32 x = 0; x < 5; ++x) c[x] = keccak_sum(keccak_sum(a[x], a[x + 5], a[x + 10]), a[x + 15], a[x + 20]);
    WG_UNROLL
    for (u32 x = 0; x < 5; ++x) d[x] = _mm_xor_si128(c[(x + 4) % 5], keccak_rotated(c[(x + 1) % 5], 1));
    WG_UNROLL
    for (u32 y = 0; y < 5; ++y) {
        __m128i b[5];
        WG_UNROLL
        for (u32 x = 0; x < 5; ++x) {
            const u32 column = (x + 3 * y) % 5;
            b[x] = keccak_rotated(_mm_xor_si128(a[5 * x + column], d[column]), KECCAK_ROTATIONS[5 * x + column]);
        }
        WG_UNROLL
        for (u32 x = 0; x < 5; ++x) e[5 * y + x] = keccak_chi(b[x], b[(x + 1) % 5], b[(x + 2) % 5]);
    }
    e[0] = _mm_xor_si128(e[0], _mm_cvtsi64_si128(static_cast<i64>(round_constant)));
}

// The state takes a block of the rate and is permuted.
WG_SINGLE_FN void keccak_single_absorb(__m128i (&a)[25], const u8* block) {
    WG_UNROLL
    for (u32 i = 0; i < KECCAK256_RATE_BYTES / 8; ++i) {
        a[i] = _mm_xor_si128(a[i], _mm_loadl_epi64(reinterpret_cast<const __m128i*>(block + 8 * i)));
    }
    __m128i e[25];
    for (u32 round = 0; round < 24; round += 2) {
        keccak_single_round(e, a, KECCAK_ROUND_CONSTANTS[round]);
        keccak_single_round(a, e, KECCAK_ROUND_CONSTANTS[round + 1]);
    }
}

// As keccak256.
WG_NOINLINE WG_TARGET("avx512f,avx512vl") inline void keccak256_single(u8* digest, const u8* data, u64 size) {
    __m128i a[25];
    WG_UNROLL
    for (u32 i = 0; i < 25; ++i) a[i] = _mm_setzero_si128();
    u8 padded[KECCAK256_RATE_BYTES];
    for (bool is_last = false; !is_last; size -= KECCAK256_RATE_BYTES, data += KECCAK256_RATE_BYTES) {
        is_last = size < KECCAK256_RATE_BYTES;
        if (is_last) {
            clear_memory(padded, sizeof(padded));
            copy_memory(padded, data, size);
            padded[size] = 0x01;
            padded[KECCAK256_RATE_BYTES - 1] |= 0x80;
        }
        keccak_single_absorb(a, is_last ? padded : data);
    }
    WG_UNROLL
    for (u32 i = 0; i < 4; ++i) _mm_storel_epi64(reinterpret_cast<__m128i*>(digest + 8 * i), a[i]);
}

#undef WG_SINGLE_FN

}  // namespace warpgrid
