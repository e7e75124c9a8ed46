// Attention of prompts on tensor cores: the same integers as attention.cuh, sixteen queries a warp.
//
// Queries are neighbouring rows of one sequence times the query heads of one key-value head. A block walks over the
// keys in chunks of 32 positions, which are copied into shared memory while the ones before are worked on: scores and
// their two maxima in one kernel; scores again (cheaper than keeping them), weights and sums in another, whose sums
// take so many registers that few warps share a multiprocessor. Products are mma.sync m16n8k32: queries times keys;
// weights (15 bits, as a high and a low byte, unsigned) times values. Columns of the first product are permuted so that
// a lane's scores are the four positions that its word of the second product's first operand wants: weights never leave
// the lane. Columns of the second are permuted so that a lane loads four words of values at once. Sums of high bytes
// stay below 2^31 for 131,072 keys, of low bytes for 66,310: launched for at most TENSOR_POSITIONS_MAX.
//
// A score takes two instructions of the float64 unit, exactly (`ChunkQuery`); that unit is idle otherwise, and the
// integer one was the bottleneck.
#pragma once

#include "worker/inference/native/gpu/attention.cuh"
#include "worker/inference/native/gpu/warp_products.cuh"

namespace warpgrid::exact {

constexpr u32 TENSOR_POSITIONS_MAX = 65'536;
constexpr u32 TENSOR_WARPS = 4;
constexpr u32 WARP_QUERIES = 16;
constexpr u32 CHUNK = 32;  // positions
constexpr u32 CHUNK_STAGES = 3;
static_assert(255ll * 127 * TENSOR_POSITIONS_MAX < (1ll << 31));
static_assert(PAGE_POSITIONS == 2 * CHUNK);

// The longest tiles first, so that none of them is left over at the end.
__device__ __forceinline__ u32 tile_number() { return gridDim.x - 1 - blockIdx.x; }

// 32 positions in shared memory. Keys [h / 16][place][16], so that the eight keys of a matrix lie together; values
// [8][h][4] as in the cache, with a gap after each row that spreads rows over the banks.
template <u32 HEAD_WIDTH, bool WITH_VALUES>
struct __align__(16) Chunk {
    static constexpr u32 VALUE_STRIDE = 4 * HEAD_WIDTH + 32;
    i8 keys[CHUNK * HEAD_WIDTH];
    i32 scales[3][CHUNK];  // key mantissa, key exponent, value maximum, as in a page
    i8 values[WITH_VALUES ? CHUNK / 4 * VALUE_STRIDE : 16];

    // Of position `key`: column n of block b of sixteen is position 4 (n / 2) + 2 b + n % 2.
    static __device__ __forceinline__ u32 place(u32 key) { return (key & 17) | (key / 2 % 2 * 8) | (key / 4 % 4 * 2); }
};

// Copies the keys (and values) of one key-value head, chunk after chunk. Each thread of the block has its part: the
// same offsets in every chunk.
template <u32 HEAD_WIDTH, bool WITH_VALUES>
struct ChunkFetcher {
    using Chunk = exact::Chunk<HEAD_WIDTH, WITH_VALUES>;
    static constexpr u32 THREADS = 32 * TENSOR_WARPS, ROUNDS = CHUNK * HEAD_WIDTH / 16 / THREADS,
                         ROW_PARTS = HEAD_WIDTH / 4;
    static_assert(ROUNDS * 16 * THREADS == CHUNK * HEAD_WIDTH && THREADS % CHUNK == 0 && THREADS % ROW_PARTS == 0);
    const u8* base;
    const i32* pages;
    u64 page_stride;
    u32 chunks, key_source, key_target, value_target;
    u64 page;  // where the page of the next chunk is

    __device__ __forceinline__ ChunkFetcher(const Attention& a, u32 layer, u32 tile) {
        const u32 row = static_cast<u32>(a.tile_row[tile]),
                  parts = (a.heads / a.kv_heads + WARP_QUERIES - 1) / WARP_QUERIES;
        const u64 head_bytes = PAGE_POSITIONS * (2ull * HEAD_WIDTH + 12);
        const u32 i = threadIdx.x;
        chunks = static_cast<u32>(a.position[a.tile_row[tile + 1] - 1]) / CHUNK + 1;
        base = a.cache + (layer * a.kv_heads + blockIdx.y / parts) * head_bytes;
        pages = a.page_table + static_cast<u64>(a.sequence[row]) * a.pages_per_sequence;
        page_stride = a.layers * a.kv_heads * head_bytes;
        key_source = (i / CHUNK * PAGE_POSITIONS + i % CHUNK) * 16;
        key_target = (i / CHUNK * CHUNK + Chunk::place(i % CHUNK)) * 16;
        value_target = i / ROW_PARTS * Chunk::VALUE_STRIDE + i % ROW_PARTS * 16;
        page = static_cast<u64>(pages[0]) * page_stride;
    }

    // The `chunk`-th chunk; to be called for one after the other. Beyond the last one, only commits.
    __device__ __forceinline__ void fetch(Chunk& target, u32 chunk) {
        if (chunk < chunks) {
            const u8* from = base + page;
            const u32 half = chunk % 2, i = threadIdx.x;
#pragma unroll
            for (u32 round = 0; round < ROUNDS; ++round)
                copy_async(target.keys + key_target + round * THREADS * 16,
                           from + key_source + half * CHUNK * 16 + round * THREADS / CHUNK * PAGE_POSITIONS * 16);
            from += PAGE_POSITIONS * HEAD_WIDTH;
            if constexpr (WITH_VALUES) {
#pragma unroll
                for (u32 round = 0; round < ROUNDS; ++round)
                    copy_async(target.values + value_target + round * THREADS / ROW_PARTS * Chunk::VALUE_STRIDE,
                               from + i * 16 + half * CHUNK * HEAD_WIDTH + round * THREADS * 16);
            }
            from += PAGE_POSITIONS * HEAD_WIDTH;
            if (i < 3 * CHUNK / 4)
                copy_async(target.scales[i / 8] + i % 8 * 4,
                           from + (i / 8 * PAGE_POSITIONS + half * CHUNK + i % 8 * 4) * 4);
            if (half == 1 && chunk + 1 < chunks) page = static_cast<u64>(pages[(chunk + 1) / 2]) * page_stride;
        }
        copy_async_commit();
    }
};

// work(chunk, first) for each 32 positions from `first` on, by all threads of the block.
template <u32 HEAD_WIDTH, bool WITH_VALUES, typename Work>
__device__ __forceinline__ void for_chunks(Chunk<HEAD_WIDTH, WITH_VALUES> (&ring)[CHUNK_STAGES], const Attention& a,
                                           u32 layer, const Work& work) {
    ChunkFetcher<HEAD_WIDTH, WITH_VALUES> fetcher(a, layer, tile_number());
#pragma unroll
    for (u32 chunk = 0; chunk + 1 < CHUNK_STAGES; ++chunk) fetcher.fetch(ring[chunk], chunk);
    for (u32 chunk = 0; chunk < fetcher.chunks; ++chunk) {
        copy_async_wait<CHUNK_STAGES - 2>();
        __syncthreads();
        fetcher.fetch(ring[(chunk + CHUNK_STAGES - 1) % CHUNK_STAGES], chunk + CHUNK_STAGES - 1);
        work(ring[chunk % CHUNK_STAGES], static_cast<i32>(chunk * CHUNK));
    }
}

// The two queries of a lane (rows lane / 4 and lane / 4 + 8 of the warp's sixteen) and how they make scores.
//
// With x = dot * mk * mq, a score is rsh(x, s) = (floor(2 x / 2^s) + 1) >> 1, s = 8 - eq - ek (specification, section
// 3; eq with Ce). In float64: dot + 2^31 + 2^52 is a number whose low word is dot + 2^31; times mq * 2^(eq - 7), less
// the offset that this brings, it is dot * mq * 2^(eq - 7): 37 bits, so exact. Times mk * 2^ek and 1.5 * 2^52 added,
// rounded once and downwards, it is the floor, in its low word, wherever the floor has 32 bits: for s >= 23, as x <
// 2^53. That also keeps the score within 2^30. Other shifts take the plain way.
template <u32 STEPS>
struct LaneQueries {
    static_assert(127 * 127 * 32 * STEPS < 1 << 21);
    static constexpr double FLOOR = 6755399441055744.0;  // 1.5 * 2^52
    u32 words[STEPS][4];
    u32 at[2];    // [row][head], where `last` is not negative
    i32 last[2];  // the query's position, or -1 where there is none
    Mantissa scale[2];
    double factor[2], offset[2];
    i32 last_of_warp, first_of_warp, key_exponent_max;

    __device__ __forceinline__ LaneQueries(const Attention& a, u32 tile, u32 group) {
        const u32 heads = a.heads / a.kv_heads, part_heads = min(WARP_QUERIES, heads),
                  parts = (heads + WARP_QUERIES - 1) / WARP_QUERIES;
        const u32 first_row = static_cast<u32>(a.tile_row[tile]),
                  rows = static_cast<u32>(a.tile_row[tile + 1]) - first_row;
        const u32 part = group % parts * WARP_QUERIES, own_heads = min(part_heads, heads - part);
        const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        last_of_warp = -1;
        first_of_warp = 0x7FFFFFFF;
        i32 exponent = -64;
#pragma unroll
        for (u32 e = 0; e < 2; ++e) {
            const u32 query = warp * WARP_QUERIES + lane / 4 + 8 * e;
            const u32 row = first_row + query / own_heads, head = group / parts * heads + part + query % own_heads;
            last[e] = -1;
            at[e] = 0;
            scale[e] = {0, 0};
            if (query / own_heads < rows) {
                at[e] = row * a.heads + head;
                last[e] = a.position[row];
                scale[e] = mantissa_of(static_cast<u64>(a.query_max[at[e]]) * static_cast<u64>(a.attention_mantissa));
                scale[e].exponent += a.attention_exponent;
                exponent = max(exponent, scale[e].exponent);
                first_of_warp = min(first_of_warp, last[e]);
            }
            factor[e] =
                static_cast<double>(scale[e].mantissa) * __hiloint2double((1023 - 7 + scale[e].exponent) << 20, 0);
            offset[e] = -(4503599627370496.0 + 2147483648.0) * factor[e];
            last_of_warp = max(last_of_warp, last[e]);
        }
        last_of_warp = __reduce_max_sync(~0u, last_of_warp);
        first_of_warp = __reduce_min_sync(~0u, first_of_warp);
        key_exponent_max = 8 - 23 - __reduce_max_sync(~0u, exponent);
#pragma unroll
        for (u32 step = 0; step < STEPS; ++step) {
#pragma unroll
            for (u32 i = 0; i < 4; ++i)
                words[step][i] =
                    last[i % 2] < 0
                        ? 0
                        : *reinterpret_cast<const u32*>(a.queries + static_cast<u64>(at[i % 2]) * 32 * STEPS +
                                                        32 * step + i / 2 * 16 + lane % 4 * 4);
        }
    }

    // dots[b][2 e + i]: query e with position 4 c + 2 b + i (c = lane % 4) of sixteen, plus 2^31.
    __device__ __forceinline__ void multiply(u32 (&dots)[2][4], u32 keys) const {
#pragma unroll
        for (u32 b = 0; b < 2; ++b) {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) dots[b][i] = 1u << 31;
        }
#pragma unroll
        for (u32 step = 0; step < STEPS; ++step) {
            u32 b[4];
            load_matrices(b, keys + 2 * step * CHUNK * 16);
            mma_s8(dots[0], words[step], b[0], b[1]);
            mma_s8(dots[1], words[step], b[2], b[3]);
        }
    }

    // floor(2 x / 2^s); `dot` has 2^31 added, `key` is mk * 2^ek.
    __device__ __forceinline__ i32 twice_floor(u32 e, u32 dot, double key) const {
        const double product = __fma_rn(__hiloint2double(0x43300000, static_cast<i32>(dot)), factor[e], offset[e]);
        return __double2loint(__fma_rd(product, key, FLOOR));
    }

};

// The eight scores of a lane where shifts are not those that `twice_floor` serves: [e][i]. Rare, so kept out of the way
// of the straight line that the others are.
__device__ __noinline__ void scores_slow(i32 (&scores)[2][4], const u32 (&dots)[2][4], const i32 (&mantissa)[4],
                                         const i32 (&exponent)[4], const Mantissa (&scale)[2]) {
#pragma unroll 1
    for (u32 e = 0; e < 2; ++e) {
#pragma unroll 1
        for (u32 i = 0; i < 4; ++i)
            scores[e][i] = score_value(static_cast<i32>(dots[i / 2][2 * e + i % 2] ^ (1u << 31)),
                                       {mantissa[i], exponent[i]}, scale[e]);
    }
}

// Where a lane finds the keys of sixteen positions for load_matrices: two parts of sixteen bytes, two blocks of eight.
template <typename Chunk>
__device__ __forceinline__ u32 keys_of_lane(const Chunk& chunk, u32 half) {
    const u32 lane = threadIdx.x % 32;
    return shared_address(chunk.keys) + lane / 8 % 2 * CHUNK * 16 + half * 256 + lane / 16 * 128 + lane % 8 * 16;
}

// Of the positions 4c .. 4c + 3 (c = lane % 4) of sixteen.
struct LaneKeys {
    int4 mantissa, exponent, value_max;

    template <typename Chunk>
    __device__ __forceinline__ LaneKeys(const Chunk& chunk, u32 half) {
        const u32 at = 16 * half + threadIdx.x % 4 * 4;
        mantissa = *reinterpret_cast<const int4*>(chunk.scales[0] + at);
        exponent = *reinterpret_cast<const int4*>(chunk.scales[1] + at);
        value_max = *reinterpret_cast<const int4*>(chunk.scales[2] + at);
    }
    __device__ __forceinline__ static i32 of(const int4& four, u32 i) {
        return i == 0 ? four.x : i == 1 ? four.y : i == 2 ? four.z : four.w;
    }
    __device__ __forceinline__ bool within(i32 exponent_max) const {
        return __all_sync(~0u, max(max(exponent.x, exponent.y), max(exponent.z, exponent.w)) <= exponent_max);
    }
    // Scores by the plain way: scores[e][i]. Copies, so that what is given stays in registers elsewhere.
    __device__ __forceinline__ void slow(i32 (&scores)[2][4], const u32 (&dots)[2][4],
                                         const Mantissa (&scale)[2]) const {
        const i32 mantissas[4] = {mantissa.x, mantissa.y, mantissa.z, mantissa.w},
                  exponents[4] = {exponent.x, exponent.y, exponent.z, exponent.w};
        const Mantissa scales[2] = {scale[0], scale[1]};
        u32 copied[2][4];
#pragma unroll
        for (u32 i = 0; i < 8; ++i) copied[i / 4][i % 4] = dots[i / 4][i % 4];
        scores_slow(scores, copied, mantissas, exponents, scales);
    }
    // mk * 2^ek, put together from its bits.
    __device__ __forceinline__ double factor(u32 i) const {
        return __hiloint2double(of(mantissa, i) * 32 + (of(exponent, i) << 20) + (1037 << 20), 0);
    }
};

__device__ __forceinline__ i32 max_of_row(i32 value) {
    value = max(value, __shfl_xor_sync(~0u, value, 1));
    return max(value, __shfl_xor_sync(~0u, value, 2));
}

// Largest score, and largest score plus bit length of the value's maximum, of a lane's two queries.
template <u32 STEPS>
struct LaneMaxima {
    i32 score[2] = {-SCORE_MAX, -SCORE_MAX}, reach[2] = {-SCORE_MAX, -SCORE_MAX};
    i32 twice_score[2] = {-2 * SCORE_MAX, -2 * SCORE_MAX}, twice_reach[2] = {-2 * SCORE_MAX, -2 * SCORE_MAX};

    template <bool MASKED, typename Chunk>
    __device__ __forceinline__ void add(const LaneQueries<STEPS>& q, const Chunk& chunk, i32 first, u32 half) {
        const i32 position = first + static_cast<i32>(16 * half + threadIdx.x % 4 * 4);
        const LaneKeys keys(chunk, half);
        u32 dots[2][4];
        q.multiply(dots, keys_of_lane(chunk, half));
        if (keys.within(q.key_exponent_max)) {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                const double key = keys.factor(i);
                const i32 bits = 32 - __clz(LaneKeys::of(keys.value_max, i));
#pragma unroll
                for (u32 e = 0; e < 2; ++e) {
                    const i32 twice = q.twice_floor(e, dots[i / 2][2 * e + i % 2], key);
                    const bool there = !MASKED || position + static_cast<i32>(i) <= q.last[e];
                    twice_score[e] = max(twice_score[e], there ? twice : -2 * SCORE_MAX);
                    twice_reach[e] =
                        __viaddmax_s32(there ? twice : -2 * SCORE_MAX, there ? bits << 17 : 0, twice_reach[e]);
                }
            }
            return;
        }
        i32 scores[2][4];
        keys.slow(scores, dots, q.scale);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            const i32 bits = 32 - __clz(LaneKeys::of(keys.value_max, i));
#pragma unroll
            for (u32 e = 0; e < 2; ++e) {
                if (MASKED && position + static_cast<i32>(i) > q.last[e]) continue;
                score[e] = max(score[e], scores[e][i]);
                reach[e] = max(reach[e], scores[e][i] + (bits << 16));
            }
        }
    }
};

// The two maxima of each of the tile's queries.
template <u32 HEAD_WIDTH>
__device__ __forceinline__ void attend_maxima(const Attention& a, u32 layer) {
    constexpr u32 STEPS = HEAD_WIDTH / 32;
    __shared__ Chunk<HEAD_WIDTH, false> ring[CHUNK_STAGES];
    const LaneQueries<STEPS> q(a, tile_number(), blockIdx.y);
    LaneMaxima<STEPS> maxima;
    for_chunks(ring, a, layer, [&](const Chunk<HEAD_WIDTH, false>& chunk, i32 first) {
        if (first > q.last_of_warp) return;
        const bool masked = first + static_cast<i32>(CHUNK) > q.first_of_warp;
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            if (masked) maxima.template add<true>(q, chunk, first, half);
            else maxima.template add<false>(q, chunk, first, half);
        }
    });
#pragma unroll
    for (u32 e = 0; e < 2; ++e) {
        const i32 score = max_of_row(max(maxima.score[e], (maxima.twice_score[e] + 1) >> 1));
        const i32 reach = max_of_row(max(maxima.reach[e], (maxima.twice_reach[e] + 1) >> 1));
        if (threadIdx.x % 4 != 0 || q.last[e] < 0) continue;
        a.score_max[q.at[e]] = score;
        a.reach_max[q.at[e]] = reach;
    }
}

// Sixteen weights of a lane's row as the first operand of a product over 32 positions: [0] and [2] of the first query.
struct LaneWeights {
    u32 high[4], low[4];

    __device__ __forceinline__ void set(u32 e, u32 half, const u32 (&w)[4]) {
        const u32 w01 = __byte_perm(w[0], w[1], 0x5410), w23 = __byte_perm(w[2], w[3], 0x5410);
        low[2 * half + e] = __byte_perm(w01, w23, 0x6420);
        high[2 * half + e] = __byte_perm(w01, w23, 0x7531);
    }
};

__device__ __forceinline__ u32 shift_right(u32 x, u32 count) {  // 0 for any count above 31, unlike C's
    u32 shifted;
    asm("shr.u32 %0, %1, %2;" : "=r"(shifted) : "r"(x), "r"(count));
    return shifted;
}

// The sums of a lane's two queries. sums[4 g + j]: entries 32 g + 4 n + j for column n.
template <u32 HEAD_WIDTH>
struct LaneSums {
    static constexpr u32 STEPS = HEAD_WIDTH / 32, BLOCKS = HEAD_WIDTH / 8;
    i32 high[BLOCKS][4] = {}, low[BLOCKS][4] = {};
    u64 denominator[2] = {};
    i32 score_max[2], shift[2];
    u64 half_unit[2];  // 2^(shift - 1)

    __device__ __forceinline__ LaneSums(const Attention& a, const LaneQueries<STEPS>& q) {
#pragma unroll
        for (u32 e = 0; e < 2; ++e) {
            score_max[e] = a.score_max[q.at[e]];
            shift[e] = attention_shift(score_max[e], a.reach_max[q.at[e]]);
            half_unit[e] = 1ull << (shift[e] - 1);
        }
    }

    // The weight of a score, given as 2 (score_max - score), or one more.
    __device__ __forceinline__ u32 weight(u32 e, u32 twice_below, u32 value_max, const i32* exp2, bool there,
                                          u32& probabilities) const {
        const u32 entry =
            *reinterpret_cast<const u32*>(reinterpret_cast<const u8*>(exp2) + (twice_below >> 3 & 0x3FFC));
        const u32 p = there ? shift_right(entry, twice_below >> 17) : 0;
        probabilities += p;
        return min(static_cast<u32>((static_cast<u64>(p) * value_max + half_unit[e]) >> shift[e]), 32767u);
    }

    template <bool MASKED, typename Chunk>
    __device__ __forceinline__ void weigh(LaneWeights& weights, const LaneQueries<STEPS>& q, const Chunk& chunk,
                                          i32 first, u32 half, const i32* exp2) {
        const i32 position = first + static_cast<i32>(16 * half + threadIdx.x % 4 * 4);
        const LaneKeys keys(chunk, half);
        u32 dots[2][4], w[2][4], probabilities[2] = {};
        q.multiply(dots, keys_of_lane(chunk, half));
        if (keys.within(q.key_exponent_max)) {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                const double key = keys.factor(i);
#pragma unroll
                for (u32 e = 0; e < 2; ++e) {
                    const u32 twice = static_cast<u32>(q.twice_floor(e, dots[i / 2][2 * e + i % 2], key));
                    w[e][i] = weight(e, 2 * static_cast<u32>(score_max[e]) - twice,
                                     static_cast<u32>(LaneKeys::of(keys.value_max, i)), exp2,
                                     !MASKED || position + static_cast<i32>(i) <= q.last[e], probabilities[e]);
                }
            }
        } else {
            i32 scores[2][4];
            keys.slow(scores, dots, q.scale);
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
#pragma unroll
                for (u32 e = 0; e < 2; ++e) {
                    const bool there = !MASKED || position + static_cast<i32>(i) <= q.last[e];
                    const i32 p = there ? exp2_value(static_cast<u32>(score_max[e] - scores[e][i]), exp2) : 0;
                    probabilities[e] += static_cast<u32>(p);
                    w[e][i] =
                        there ? static_cast<u32>(attention_weight(p, LaneKeys::of(keys.value_max, i), shift[e])) : 0;
                }
            }
        }
#pragma unroll
        for (u32 e = 0; e < 2; ++e) {
            weights.set(e, half, w[e]);
            denominator[e] += probabilities[e];
        }
    }

    template <typename Chunk>
    __device__ __forceinline__ void add(const LaneWeights& weights, const Chunk& chunk) {
        const u32 lane = threadIdx.x % 32;
        const i8* values = chunk.values + lane % 4 * Chunk::VALUE_STRIDE + lane / 4 * 16;
#pragma unroll
        for (u32 g = 0; g < BLOCKS / 4; ++g) {
            const int4 b0 = *reinterpret_cast<const int4*>(values + g * 128);
            const int4 b1 = *reinterpret_cast<const int4*>(values + g * 128 + 4 * Chunk::VALUE_STRIDE);
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                const u32 first = static_cast<u32>(LaneKeys::of(b0, j)), second = static_cast<u32>(LaneKeys::of(b1, j));
                mma_u8(high[4 * g + j], weights.high, first, second);
                mma_u8(low[4 * g + j], weights.low, first, second);
            }
        }
    }

    __device__ __forceinline__ void finish(const LaneQueries<STEPS>& q, i32* attended) {
#pragma unroll
        for (u32 e = 0; e < 2; ++e) {
            denominator[e] += __shfl_xor_sync(~0u, denominator[e], 1);
            denominator[e] += __shfl_xor_sync(~0u, denominator[e], 2);
            if (q.last[e] < 0) continue;
            const HeadScale scale = head_scale(denominator[e], shift[e]);
            i32* out = attended + static_cast<u64>(q.at[e]) * HEAD_WIDTH + threadIdx.x % 4 * 8;
#pragma unroll
            for (u32 g = 0; g < BLOCKS / 4; ++g) {
#pragma unroll
                for (u32 column = 0; column < 2; ++column) {
                    Quad four;
#pragma unroll
                    for (u32 j = 0; j < 4; ++j)
                        four.value[j] =
                            scale.output(256ll * high[4 * g + j][2 * e + column] + low[4 * g + j][2 * e + column]);
                    store_quad(out + 32 * g + 4 * column, four);
                }
            }
        }
    }
};

// Attended values of the tile's queries, Q16, into attended[row][head][HEAD_WIDTH]; leaves the maxima as they were at
// first.
template <u32 HEAD_WIDTH>
__device__ __forceinline__ void attend(const Attention& a, u32 layer, const i32* exp2, i32* attended) {
    __shared__ Chunk<HEAD_WIDTH, true> ring[CHUNK_STAGES];
    const LaneQueries<HEAD_WIDTH / 32> q(a, tile_number(), blockIdx.y);
    LaneSums<HEAD_WIDTH> sums(a, q);
    __syncwarp();
    if (threadIdx.x % 4 == 0) {
#pragma unroll
        for (u32 e = 0; e < 2; ++e)
            if (q.last[e] >= 0) a.score_max[q.at[e]] = a.reach_max[q.at[e]] = -SCORE_MAX;
    }
    for_chunks(ring, a, layer, [&](const Chunk<HEAD_WIDTH, true>& chunk, i32 first) {
        if (first > q.last_of_warp) return;
        const bool masked = first + static_cast<i32>(CHUNK) > q.first_of_warp;
        LaneWeights weights;
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            if (masked) sums.template weigh<true>(weights, q, chunk, first, half, exp2);
            else sums.template weigh<false>(weights, q, chunk, first, half, exp2);
        }
        sums.add(weights, chunk);
    });
    sums.finish(q, attended);
}

}  // namespace warpgrid::exact
