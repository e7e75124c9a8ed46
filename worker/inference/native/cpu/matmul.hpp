// Int8 matrix products on the CPU, one instruction set at a time.
//
// Weights are packed as [N / 64][K / 4][64 outputs][4 inputs], padded with zero rows: a step of the inner loop reads 256
// consecutive bytes and needs no horizontal sum. Activations are unsigned (q + 128), which is what dpbusd multiplies;
// the product's excess, 128 * sum(W[n]), is a constant of the row (`corrections`) and is taken off afterwards.
// maddubs, the AVX2 cousin of dpbusd, saturates its 16-bit sums and is not exact: AVX2 widens to 16 bits instead.
#pragma once

#include "worker/inference/native/operations.hpp"

#if defined(__AVX512VNNI__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace WG_EXACT_NAMESPACE {

constexpr u32 BLOCK_OUTPUTS = 64;
constexpr u32 STEP_INPUTS = 4;
constexpr u32 STEP_BYTES = BLOCK_OUTPUTS * STEP_INPUTS;

// sums[r][64] = products of `block` with activation rows r = 0 .. R-1, which lie `stride` bytes apart.
#if defined(__AVX512VNNI__)

constexpr u32 TILE_ROWS = 6;  // 6 x 4 accumulators, 4 weight and 1 activation register: 29 of 32

template <u32 R>
inline void tile(i32* sums, const u8* activations, u64 stride, const i8* block, u32 columns) {
    __m512i acc[R][4];
    for (u32 r = 0; r < R; ++r)
        for (u32 c = 0; c < 4; ++c) acc[r][c] = _mm512_setzero_si512();
    for (u32 k = 0; k < columns; k += STEP_INPUTS, block += STEP_BYTES) {
        __m512i weights[4];
        for (u32 c = 0; c < 4; ++c) weights[c] = _mm512_loadu_si512(block + 64 * c);
        for (u32 r = 0; r < R; ++r) {
            i32 four;
            __builtin_memcpy(&four, activations + r * stride + k, 4);
            const __m512i inputs = _mm512_set1_epi32(four);
            for (u32 c = 0; c < 4; ++c) acc[r][c] = _mm512_dpbusd_epi32(acc[r][c], inputs, weights[c]);
        }
    }
    for (u32 r = 0; r < R; ++r)
        for (u32 c = 0; c < 4; ++c) _mm512_storeu_si512(sums + r * BLOCK_OUTPUTS + 16 * c, acc[r][c]);
}

#elif defined(__AVX2__)

constexpr u32 TILE_ROWS = 3;

template <u32 R>
inline void tile(i32* sums, const u8* activations, u64 stride, const i8* block, u32 columns) {
    for (u32 chunk = 0; chunk < BLOCK_OUTPUTS; chunk += 16) {
        __m256i acc[R][4];  // each holds two partial sums for each of four outputs
        for (u32 r = 0; r < R; ++r)
            for (u32 c = 0; c < 4; ++c) acc[r][c] = _mm256_setzero_si256();
        const i8* step = block + STEP_INPUTS * chunk;
        for (u32 k = 0; k < columns; k += STEP_INPUTS, step += STEP_BYTES) {
            __m256i weights[4];
            for (u32 c = 0; c < 4; ++c)
                weights[c] = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(step + 16 * c)));
            for (u32 r = 0; r < R; ++r) {
                i32 four;
                __builtin_memcpy(&four, activations + r * stride + k, 4);
                const __m256i inputs = _mm256_cvtepu8_epi16(_mm_set1_epi32(four));
                for (u32 c = 0; c < 4; ++c)
                    acc[r][c] = _mm256_add_epi32(acc[r][c], _mm256_madd_epi16(inputs, weights[c]));
            }
        }
        for (u32 r = 0; r < R; ++r) {
            i32 partial[32];
            for (u32 c = 0; c < 4; ++c)
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(partial + 8 * c), acc[r][c]);
            for (u32 n = 0; n < 16; ++n) sums[r * BLOCK_OUTPUTS + chunk + n] = partial[2 * n] + partial[2 * n + 1];
        }
    }
}

#else

constexpr u32 TILE_ROWS = 2;

template <u32 R>
inline void tile(i32* sums, const u8* activations, u64 stride, const i8* block, u32 columns) {
    for (u32 r = 0; r < R; ++r) {
        i32 acc[BLOCK_OUTPUTS] = {};
        for (u32 k = 0; k < columns; ++k) {
            const i8* weights = block + (k / STEP_INPUTS) * STEP_BYTES + k % STEP_INPUTS;
            const i32 input = activations[r * stride + k];
            for (u32 n = 0; n < BLOCK_OUTPUTS; ++n) acc[n] += input * weights[STEP_INPUTS * n];
        }
        for (u32 n = 0; n < BLOCK_OUTPUTS; ++n) sums[r * BLOCK_OUTPUTS + n] = acc[n];
    }
}

#endif

template <u32 R>
inline void tile_of(u32 rows, i32* sums, const u8* activations, u64 stride, const i8* block, u32 columns) {
    if constexpr (R > 1) {
        if (rows < R) return tile_of<R - 1>(rows, sums, activations, stride, block, columns);
    }
    tile<R>(sums, activations, stride, block, columns);
}

}  // namespace WG_EXACT_NAMESPACE
