// Attention of prompts on tensor cores: the same integers as attention.cuh, sixteen queries a warp.
//
// Queries are neighbouring rows of one sequence times the query heads of one key-value head. A warp walks over the keys:
// scores and their two maxima in one kernel; scores again (cheaper than keeping them), weights and sums in another, whose
// sums take so many registers that few warps share a multiprocessor. Products are
// mma.sync m16n8k32: queries times keys; weights (15 bits, as a high and a low byte, unsigned) times values. The cache's
// layout gives every operand word without shared memory: a word of a key is four entries, a word of the values four
// positions. Columns of the first product are permuted so that a lane's scores are the four positions that its word of
// the second product's first operand wants: weights never leave the lane. Sums of high bytes stay below 2^31 for 131,072
// keys, of low bytes for 66,310: launched for at most TENSOR_POSITIONS_MAX.
//
// What binds: latency, not yet the 64-bit arithmetic of scores and weights (about 50 instructions for each query and key;
// the products are an eighth of that), which alone would take a fifth of the time. 4 x 512 rows of a Llama-3-8B shape: 7.8
// ms of 49; one prompt of 4,096: 81 of 158. Maxima and sums in one kernel: 6 % slower, at two blocks a multiprocessor for both.
#pragma once

#include "worker/inference/native/gpu/attention.cuh"

namespace warpgrid::exact {

constexpr u32 TENSOR_POSITIONS_MAX = 65'536;
constexpr u32 TENSOR_WARPS = 4;
constexpr u32 WARP_QUERIES = 16;
static_assert(255ll * 127 * TENSOR_POSITIONS_MAX < (1ll << 31));

__device__ __forceinline__ void mma_s8(i32* d, const u32* a, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void mma_u8(i32* d, const u32* a, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ u32 word_at(const void* at) { return *reinterpret_cast<const u32*>(at); }

// The two queries of a lane: rows lane / 4 and lane / 4 + 8 of the warp's sixteen.
struct LaneQueries {
    u32 at[2];   // [row][head], where `last` is not negative
    i32 last[2];  // the query's position, or -1 where there is none
    Mantissa scale[2];
    i32 last_of_warp;
};

__device__ __forceinline__ LaneQueries lane_queries(const Attention& a, u32 tile, u32 group) {
    const u32 heads = a.heads / a.kv_heads, part_heads = min(WARP_QUERIES, heads), parts = (heads + WARP_QUERIES - 1) / WARP_QUERIES;
    const u32 first_row = static_cast<u32>(a.tile_row[tile]), rows = static_cast<u32>(a.tile_row[tile + 1]) - first_row;
    const u32 part = group % parts * WARP_QUERIES, own_heads = min(part_heads, heads - part);
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    LaneQueries q;
    q.last_of_warp = -1;
#pragma unroll
    for (u32 e = 0; e < 2; ++e) {
        const u32 query = warp * WARP_QUERIES + lane / 4 + 8 * e;
        const u32 row = first_row + query / own_heads, head = group / parts * heads + part + query % own_heads;
        q.last[e] = -1;
        q.at[e] = 0;
        q.scale[e] = {0, 0};
        if (query / own_heads < rows) {
            q.at[e] = row * a.heads + head;
            q.last[e] = a.position[row];
            q.scale[e] = mantissa_of(static_cast<u64>(a.query_max[q.at[e]]) * static_cast<u64>(a.attention_mantissa));
            q.scale[e].exponent += a.attention_exponent;
        }
        q.last_of_warp = max(q.last_of_warp, q.last[e]);
    }
    q.last_of_warp = __reduce_max_sync(~0u, q.last_of_warp);
    return q;
}

// Of four positions 4c .. 4c + 3 (c = lane mod 4) of sixteen from `slot` on.
struct LaneKeys {
    int4 mantissa, exponent, value_max;

    __device__ __forceinline__ LaneKeys(const PageView& view, u32 slot, u32 lane) {
        const u32 at = slot + lane % 4 * 4;
        mantissa = *reinterpret_cast<const int4*>(view.key_mantissa + at);
        exponent = *reinterpret_cast<const int4*>(view.key_exponent + at);
        value_max = *reinterpret_cast<const int4*>(view.value_max + at);
    }
};

__device__ __forceinline__ i32 component(const int4& four, u32 i) {
    return i == 0 ? four.x : i == 1 ? four.y : i == 2 ? four.z : four.w;
}

// scores[e][i]: query e of the lane with position 4c + i of sixteen keys from `slot` of a page on.
template <u32 STEPS>
__device__ __forceinline__ void score_sixteen(i32 (&scores)[2][4], const u32 (&query)[STEPS][4], const PageView& view,
                                              u32 slot, u32 lane, const LaneKeys& keys, const LaneQueries& q) {
    i32 dots[2][4] = {};
#pragma unroll
    for (u32 step = 0; step < STEPS; ++step) {
#pragma unroll
        for (u32 b = 0; b < 2; ++b) {
            const u32 key = slot + lane / 8 * 4 + 2 * b + lane / 4 % 2;  // column lane / 4 of block b
            const i8* at = view.keys + (2 * step * PAGE_POSITIONS + key) * 16 + lane % 4 * 4;
            mma_s8(dots[b], query[step], word_at(at), word_at(at + PAGE_POSITIONS * 16));
        }
    }
#pragma unroll
    for (u32 e = 0; e < 2; ++e) {
#pragma unroll
        for (u32 i = 0; i < 4; ++i)
            scores[e][i] = attention_score(dots[i / 2][2 * e + i % 2],
                                           {component(keys.mantissa, i), component(keys.exponent, i)}, q.scale[e]);
    }
}

__device__ __forceinline__ i32 max_of_row(i32 value) {
    value = max(value, __shfl_xor_sync(~0u, value, 1));
    return max(value, __shfl_xor_sync(~0u, value, 2));
}

// Sixteen weights of a lane's row as the first operand of a product over 32 positions: [0] and [2] of the first query.
struct LaneWeights {
    u32 high[4], low[4];

    __device__ __forceinline__ void set(u32 e, u32 half, const i32 (&w)[4]) {
        const u32 w01 = __byte_perm(static_cast<u32>(w[0]), static_cast<u32>(w[1]), 0x5410);
        const u32 w23 = __byte_perm(static_cast<u32>(w[2]), static_cast<u32>(w[3]), 0x5410);
        low[2 * half + e] = __byte_perm(w01, w23, 0x6420);
        high[2 * half + e] = __byte_perm(w01, w23, 0x7531);
    }
};

template <u32 STEPS>
__device__ __forceinline__ void load_queries(u32 (&query)[STEPS][4], const Attention& a, const LaneQueries& q) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 step = 0; step < STEPS; ++step) {
#pragma unroll
        for (u32 i = 0; i < 4; ++i)
            query[step][i] = q.last[i % 2] < 0 ? 0 : word_at(a.queries + static_cast<u64>(q.at[i % 2]) * 32 * STEPS + 32 * step +
                                                             i / 2 * 16 + lane % 4 * 4);
    }
}

__device__ __forceinline__ u32 tile_kv_head(const Attention& a) {
    return blockIdx.y / ((a.heads / a.kv_heads + WARP_QUERIES - 1) / WARP_QUERIES);
}

// The two maxima of each of the tile's queries.
template <u32 HEAD_WIDTH>
__device__ __forceinline__ void attend_maxima(const Attention& a, u32 layer) {
    constexpr u32 STEPS = HEAD_WIDTH / 32;
    const u32 lane = threadIdx.x % 32, kv_head = tile_kv_head(a), row = static_cast<u32>(a.tile_row[blockIdx.x]);
    const LaneQueries q = lane_queries(a, blockIdx.x, blockIdx.y);
    if (q.last_of_warp < 0) return;
    u32 query[STEPS][4];
    load_queries<STEPS>(query, a, q);
    i32 score_max[2] = {-SCORE_MAX, -SCORE_MAX}, reach_max[2] = {-SCORE_MAX, -SCORE_MAX};
    for (i32 first = 0; first <= q.last_of_warp; first += 16) {
        const PageView view = a.page(row, first / PAGE_POSITIONS, layer, kv_head);
        const u32 slot = first % PAGE_POSITIONS;
        const LaneKeys keys(view, slot, lane);
        i32 scores[2][4];
        score_sixteen<STEPS>(scores, query, view, slot, lane, keys, q);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            const i32 reach = (32 - __clz(component(keys.value_max, i))) << 16;
#pragma unroll
            for (u32 e = 0; e < 2; ++e) {
                if (first + static_cast<i32>(lane % 4 * 4 + i) > q.last[e]) continue;
                score_max[e] = max(score_max[e], scores[e][i]);
                reach_max[e] = max(reach_max[e], scores[e][i] + reach);
            }
        }
    }
#pragma unroll
    for (u32 e = 0; e < 2; ++e) {
        const i32 score = max_of_row(score_max[e]), reach = max_of_row(reach_max[e]);
        if (lane % 4 != 0 || q.last[e] < 0) continue;
        a.score_max[q.at[e]] = score;
        a.reach_max[q.at[e]] = reach;
    }
}

// Attended values of the tile's queries, Q16, into attended[row][head][HEAD_WIDTH]; leaves the maxima as they were at
// first.
template <u32 HEAD_WIDTH>
__device__ __forceinline__ void attend(const Attention& a, u32 layer, const i32* exp2, i32* attended) {
    constexpr u32 STEPS = HEAD_WIDTH / 32, BLOCKS = HEAD_WIDTH / 8;
    const u32 lane = threadIdx.x % 32, kv_head = tile_kv_head(a), row = static_cast<u32>(a.tile_row[blockIdx.x]);
    const LaneQueries q = lane_queries(a, blockIdx.x, blockIdx.y);
    if (q.last_of_warp < 0) return;
    u32 query[STEPS][4];
    load_queries<STEPS>(query, a, q);
    i32 score_max[2], shift[2];
#pragma unroll
    for (u32 e = 0; e < 2; ++e) {
        score_max[e] = a.score_max[q.at[e]];
        shift[e] = attention_shift(score_max[e], a.reach_max[q.at[e]]);
    }
    __syncwarp();
    if (lane % 4 == 0) {
#pragma unroll
        for (u32 e = 0; e < 2; ++e)
            if (q.last[e] >= 0) a.score_max[q.at[e]] = a.reach_max[q.at[e]] = -SCORE_MAX;
    }

    i32 high[BLOCKS][4] = {}, low[BLOCKS][4] = {};
    u64 denominator[2] = {};
    for (i32 first = 0; first <= q.last_of_warp; first += 32) {
        const PageView view = a.page(row, first / PAGE_POSITIONS, layer, kv_head);
        LaneWeights weights;
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            const u32 slot = first % PAGE_POSITIONS + 16 * half;
            const LaneKeys keys(view, slot, lane);
            i32 scores[2][4];
            score_sixteen<STEPS>(scores, query, view, slot, lane, keys, q);
#pragma unroll
            for (u32 e = 0; e < 2; ++e) {
                i32 w[4];
#pragma unroll
                for (u32 i = 0; i < 4; ++i) {
                    const bool there = first + static_cast<i32>(16 * half + lane % 4 * 4 + i) <= q.last[e];
                    const i32 p = there ? exp2_value(static_cast<u32>(score_max[e] - scores[e][i]), exp2) : 0;
                    w[i] = there ? attention_weight(p, component(keys.value_max, i), shift[e]) : 0;
                    denominator[e] += static_cast<u32>(p);
                }
                weights.set(e, half, w);
            }
        }
        const i8* values = view.values + ((first % PAGE_POSITIONS / 4 + lane % 4) * HEAD_WIDTH + lane / 4) * 4;
#pragma unroll
        for (u32 block = 0; block < BLOCKS; ++block) {
            const u32 b0 = word_at(values + block * 32), b1 = word_at(values + block * 32 + 16 * HEAD_WIDTH);
            mma_u8(high[block], weights.high, b0, b1);
            mma_u8(low[block], weights.low, b0, b1);
        }
    }
#pragma unroll
    for (u32 e = 0; e < 2; ++e) {
        denominator[e] += __shfl_xor_sync(~0u, denominator[e], 1);
        denominator[e] += __shfl_xor_sync(~0u, denominator[e], 2);
        if (q.last[e] < 0) continue;
        const HeadScale scale = head_scale(denominator[e], shift[e]);
        i32* out = attended + static_cast<u64>(q.at[e]) * HEAD_WIDTH + lane % 4 * 2;
#pragma unroll
        for (u32 block = 0; block < BLOCKS; ++block) {
            int2 pair;
            pair.x = scale.output(256ll * high[block][2 * e] + low[block][2 * e]);
            pair.y = scale.output(256ll * high[block][2 * e + 1] + low[block][2 * e + 1]);
            *reinterpret_cast<int2*>(out + block * 8) = pair;
        }
    }
}

}  // namespace warpgrid::exact
