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
        WG_UNROLL for (u32 c = 0; c < C; ++c)
            _mm512_storeu_si512(sums + r * BLOCK_OUTPUTS + CHUNK_OUTPUTS * c, acc[r][c]);
}

#elif defined(__AVX2__)

constexpr u32 TILE_ROWS = 6;
constexpr u32 SLICE_INPUTS = 128;  // widened at once: their weights, 8 KB, stay in the first cache for all rows
constexpr u32 QUAD_OUTPUTS = 4;    // whose inputs, widened, fill a register

WG_FN __m256i widened_weights(const i8* from) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

WG_FN __m256i repeated_inputs(const i16* from) {
    i64 four;
    __builtin_memcpy(&four, from, sizeof(four));
    return _mm256_set1_epi64x(four);
}

// Sums of pairs of 8 outputs, as hadd leaves them (it pairs up within 128-bit halves), are stored or added in order.
WG_FN void store_sums(i32* sums, __m256i unordered, bool added) {
    const __m256i outputs = _mm256_permute4x64_epi64(unordered, 0xD8);
    __m256i* to = reinterpret_cast<__m256i*>(sums);
    _mm256_storeu_si256(to, added ? _mm256_add_epi32(outputs, _mm256_loadu_si256(to)) : outputs);
}

// g++ otherwise copies and spills accumulators.
WG_FN void keep_in_place(__m256i& accumulator) { asm("" : "+x"(accumulator)); }

// R rows and QUADS * 4 outputs, with two partial sums for each output. Six rows and two quads take 12 accumulators, 2
// registers of weights, 1 of inputs and 1 for the product, all of 16.
template <u32 R, u32 QUADS>
inline void quads_tile(i32* sums, const i16* inputs, u32 count, Block block, bool added) {
    __m256i acc[R][QUADS];
    WG_UNROLL for (u32 r = 0; r < R; ++r)
        WG_UNROLL for (u32 c = 0; c < QUADS; ++c) acc[r][c] = _mm256_setzero_si256();
    const i8* step = block.values;
    for (u32 k = 0; k < count; k += STEP_INPUTS, step += block.step_bytes) {
        __m256i weights[QUADS];
        WG_UNROLL for (u32 c = 0; c < QUADS; ++c) weights[c] = widened_weights(step + QUAD_OUTPUTS * STEP_INPUTS * c);
        WG_UNROLL for (u32 r = 0; r < R; ++r) {
            const __m256i repeated = repeated_inputs(inputs + r * SLICE_INPUTS + k);
            WG_UNROLL for (u32 c = 0; c < QUADS; ++c) {
                acc[r][c] = _mm256_add_epi32(acc[r][c], _mm256_madd_epi16(repeated, weights[c]));
                keep_in_place(acc[r][c]);
            }
        }
    }
    WG_UNROLL for (u32 r = 0; r < R; ++r)
        WG_UNROLL for (u32 c = 0; c < QUADS; c += 2)
            store_sums(sums + r * BLOCK_OUTPUTS + QUAD_OUTPUTS * c, _mm256_hadd_epi32(acc[r][c], acc[r][c + 1]), added);
}

// One row and 64 outputs: sums of pairs are added at once, which halves the accumulators, so that weights are read in
// the order in which they lie. (Memory binds: half of the outputs at a time took a third longer.)
inline void row_tile(i32* sums, const i16* inputs, u32 count, Block block, bool added) {
    constexpr u32 PAIRS = BLOCK_OUTPUTS / (2 * QUAD_OUTPUTS), PAIR_BYTES = 2 * QUAD_OUTPUTS * STEP_INPUTS;
    __m256i acc[PAIRS];
    WG_UNROLL for (u32 c = 0; c < PAIRS; ++c) acc[c] = _mm256_setzero_si256();
    const i8* step = block.values;
    for (u32 k = 0; k < count; k += STEP_INPUTS, step += block.step_bytes) {
        const __m256i repeated = repeated_inputs(inputs + k);
        WG_UNROLL for (u32 c = 0; c < PAIRS; ++c) {
            const i8* pair = step + PAIR_BYTES * c;
            const __m256i first = _mm256_madd_epi16(repeated, widened_weights(pair));
            const __m256i second = _mm256_madd_epi16(repeated, widened_weights(pair + PAIR_BYTES / 2));
            acc[c] = _mm256_add_epi32(acc[c], _mm256_hadd_epi32(first, second));
            keep_in_place(acc[c]);
        }
    }
    WG_UNROLL for (u32 c = 0; c < PAIRS; ++c) store_sums(sums + 2 * QUAD_OUTPUTS * c, acc[c], added);
}

// Rows of `count` bytes, as 16 bits.
template <u32 R>
inline void widen(i16* to, const u8* from, u64 stride, u32 count) {
    for (u32 r = 0; r < R; ++r, to += SLICE_INPUTS, from += stride) {
        u32 k = 0;
        for (; k + 16 <= count; k += 16) {
            const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + k)));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + k), wide);
        }
        for (; k < count; ++k) to[k] = from[k];
    }
}

template <u32 R, u32 C, Sums kind>
WG_NOINLINE void tile(i32* sums, Activations activations, Block block) {
    constexpr u32 QUADS_ALL = C * CHUNK_OUTPUTS / QUAD_OUTPUTS, QUADS = R <= 2 ? 4 : 2;
    alignas(32) i16 inputs[R * SLICE_INPUTS];
    for (u32 begin = 0; begin < activations.columns; begin += SLICE_INPUTS) {
        const u32 rest = activations.columns - begin, count = rest < SLICE_INPUTS ? rest : SLICE_INPUTS;
        widen<R>(inputs, activations.values + begin, activations.stride, count);
        const i8* slice = block.values + begin / STEP_INPUTS * block.step_bytes;
        const bool added = kind == Sums::ADDED || begin > 0;
        if constexpr (R <= 2 && C == CHUNKS) {
            for (u32 r = 0; r < R; ++r)
                row_tile(sums + r * BLOCK_OUTPUTS, inputs + r * SLICE_INPUTS, count, {slice, block.step_bytes}, added);
        } else {
            for (u32 c = 0; c < QUADS_ALL; c += QUADS) {
                const Block part = {slice + QUAD_OUTPUTS * STEP_INPUTS * c, block.step_bytes};
                quads_tile<R, QUADS>(sums + QUAD_OUTPUTS * c, inputs, count, part, added);
            }
        }
    }
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
