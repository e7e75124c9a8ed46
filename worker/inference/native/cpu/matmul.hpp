// Int8 matrix products on the CPU, one instruction set at a time.
//
// A block holds 64 outputs as [K / 4][64 outputs][4 inputs]: a step of the inner loop reads 256 consecutive bytes and
// needs no horizontal sum. Weights are packed so, padded with zero rows; so are a page of keys (64 positions are the
// outputs, the head's width the inputs) and of values (the other way round). The other factor is unsigned, which is
// what dpbusd multiplies: activations are q + 128, and the excess, 128 * sum(W[n]), is a constant of the output that is
// taken off afterwards. maddubs, the AVX2 cousin of dpbusd, saturates its 16-bit sums and is not exact: AVX2 widens to
// 16 bits. Weights are read ahead by the hardware: prefetching them in software cost a tenth.
#pragma once

#include "worker/inference/native/cpu/lanes.hpp"

namespace WG_EXACT_NAMESPACE {

constexpr u32 BLOCK_OUTPUTS = 64;
constexpr u32 STEP_INPUTS = 4;
constexpr u32 CHUNK_OUTPUTS = 16;  // what one register holds
constexpr u32 CHUNKS = BLOCK_OUTPUTS / CHUNK_OUTPUTS;

// Unsigned factors: rows of `columns` bytes, `stride` bytes apart.
struct Activations {
    const u8* values;
    u64 stride;
    u32 columns;
};

// The signed factor: a step of four inputs is `step_bytes` long.
struct Block {
    const i8* values;
    u64 step_bytes;
};

// sums[r][c] (+)= products of C * 16 outputs with activation rows r = 0 .. R-1. Rows of sums are 64 apart.
// Never inlined: it needs every register.
enum class Sums { FRESH, ADDED };

#if defined(__AVX512VNNI__)

constexpr u32 TILE_ROWS = 6;  // 6 x 4 accumulators, 4 weight and 1 activation register: 29 of 32

template <u32 R, u32 C, Sums kind>
WG_NOINLINE void tile(i32* sums, Activations activations, Block block) {
    __m512i acc[R][C];
    WG_UNROLL for (u32 r = 0; r < R; ++r)
        WG_UNROLL for (u32 c = 0; c < C; ++c)
            acc[r][c] = kind == Sums::ADDED ? _mm512_loadu_si512(sums + r * BLOCK_OUTPUTS + CHUNK_OUTPUTS * c)
                                            : _mm512_setzero_si512();
    const i8* step = block.values;
    for (u32 k = 0; k < activations.columns; k += STEP_INPUTS, step += block.step_bytes) {
        __m512i weights[C];
        WG_UNROLL for (u32 c = 0; c < C; ++c) weights[c] = _mm512_loadu_si512(step + 64 * c);
        WG_UNROLL for (u32 r = 0; r < R; ++r) {
            i32 four;
            __builtin_memcpy(&four, activations.values + r * activations.stride + k, 4);
            const __m512i inputs = _mm512_set1_epi32(four);
            WG_UNROLL for (u32 c = 0; c < C; ++c) acc[r][c] = _mm512_dpbusd_epi32(acc[r][c], inputs, weights[c]);
        }
    }
    WG_UNROLL for (u32 r = 0; r < R; ++r)
        WG_UNROLL for (u32 c = 0; c < C; ++c) _mm512_storeu_si512(sums + r * BLOCK_OUTPUTS + CHUNK_OUTPUTS * c, acc[r][c]);
}

#elif defined(__AVX2__)

constexpr u32 TILE_ROWS = 2;  // 2 x 4 accumulators, 4 weight and 1 activation register: 13 of 16

// Each of four accumulators holds two partial sums for each of four outputs.
template <u32 R, Sums kind>
inline void chunk_tile(i32* sums, Activations activations, Block block) {
    __m256i acc[R][4];
    WG_UNROLL for (u32 r = 0; r < R; ++r)
        WG_UNROLL for (u32 c = 0; c < 4; ++c) acc[r][c] = _mm256_setzero_si256();
    const i8* step = block.values;
    for (u32 k = 0; k < activations.columns; k += STEP_INPUTS, step += block.step_bytes) {
        __m256i weights[4];
        WG_UNROLL for (u32 c = 0; c < 4; ++c)
            weights[c] = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(step + 16 * c)));
        WG_UNROLL for (u32 r = 0; r < R; ++r) {
            i32 four;
            __builtin_memcpy(&four, activations.values + r * activations.stride + k, 4);
            const __m256i inputs = _mm256_cvtepu8_epi16(_mm_set1_epi32(four));
            WG_UNROLL for (u32 c = 0; c < 4; ++c)
                acc[r][c] = _mm256_add_epi32(acc[r][c], _mm256_madd_epi16(inputs, weights[c]));
        }
    }
    WG_UNROLL for (u32 r = 0; r < R; ++r) {
        WG_UNROLL for (u32 c = 0; c < 4; c += 2) {
            // hadd pairs up within 128-bit halves; the permutation puts the outputs back in order.
            const __m256i pairs = _mm256_hadd_epi32(acc[r][c], acc[r][c + 1]);
            const __m256i outputs = _mm256_permute4x64_epi64(pairs, 0xD8);
            __m256i* to = reinterpret_cast<__m256i*>(sums + r * BLOCK_OUTPUTS + 4 * c);
            _mm256_storeu_si256(to, kind == Sums::ADDED ? _mm256_add_epi32(outputs, _mm256_loadu_si256(to)) : outputs);
        }
    }
}

template <u32 R, u32 C, Sums kind>
WG_NOINLINE void tile(i32* sums, Activations activations, Block block) {
    WG_UNROLL for (u32 c = 0; c < C; ++c)
        chunk_tile<R, kind>(sums + CHUNK_OUTPUTS * c, activations,
                            {block.values + CHUNK_OUTPUTS * STEP_INPUTS * c, block.step_bytes});
}

#else

constexpr u32 TILE_ROWS = 2;

template <u32 R, u32 C, Sums kind>
WG_NOINLINE void tile(i32* sums, Activations activations, Block block) {
    constexpr u32 outputs = C * CHUNK_OUTPUTS;
    for (u32 r = 0; r < R; ++r) {
        i32 acc[outputs] = {};
        const u8* row = activations.values + r * activations.stride;
        const i8* step = block.values;
        for (u32 k = 0; k < activations.columns; k += STEP_INPUTS, step += block.step_bytes) {
            for (u32 n = 0; n < outputs; ++n) {
                const i8* w = step + STEP_INPUTS * n;
                acc[n] += row[k] * w[0] + row[k + 1] * w[1] + row[k + 2] * w[2] + row[k + 3] * w[3];
            }
        }
        i32* to = sums + r * BLOCK_OUTPUTS;
        for (u32 n = 0; n < outputs; ++n) to[n] = kind == Sums::ADDED ? to[n] + acc[n] : acc[n];
    }
}

#endif

// tile<rows, C, kind> for rows in 1 .. R.
template <u32 R, u32 C, Sums kind>
inline void tile_of(u32 rows, i32* sums, Activations activations, Block block) {
    if constexpr (R > 1) {
        if (rows < R) return tile_of<R - 1, C, kind>(rows, sums, activations, block);
    }
    tile<R, C, kind>(sums, activations, block);
}

}  // namespace WG_EXACT_NAMESPACE
