// Attention over the paged cache, in two passes (specification, section 3): maxima of scores, then sums of weights.
//
// Here for answers that grow by a token: a tile is up to QUERIES queries that share keys, the query heads of one
// key-value head. Tiles are split over keys; maxima and sums of splits meet in atomics, whose order cannot matter. A
// key is read once a tile: whole, by one thread; values are read four positions a word, one thread an entry. Prompts
// have attention_tensor.cuh.
#pragma once

#include "worker/inference/native/gpu/rows.cuh"

namespace warpgrid::exact {

constexpr u32 PAGE_POSITIONS = 64;
constexpr u32 HEAD_WIDTH_MAX = 256;
constexpr u32 HEADS_OF_TILE = 4;
constexpr u32 KEY_PARTS = 8;  // 16-byte parts of a key that a thread loads together
constexpr u32 WORDS_OF_PAGE = PAGE_POSITIONS / 4;  // four positions of one entry of the values
static_assert(32767ll * 127 * PAGE_POSITIONS < (1ll << 31), "a page's weighted values add up in int32");

// One page of one key-value head, 64 positions:
//   keys [h / 16][64][16] i8 · values [64 / 4][h][4] i8 · i32 [64] each: key mantissa, key exponent, value maximum
struct PageView {
    i8* keys;
    i8* values;
    i32* key_mantissa;
    i32* key_exponent;
    i32* value_max;
};

__device__ __forceinline__ PageView page_view(u8* cache, u64 head_index, u32 head_width) {
    u8* base = cache + head_index * PAGE_POSITIONS * (2ull * head_width + 12);
    const u64 tensor = static_cast<u64>(PAGE_POSITIONS) * head_width;
    i32* scales = reinterpret_cast<i32*>(base + 2 * tensor);
    return {reinterpret_cast<i8*>(base), reinterpret_cast<i8*>(base + tensor), scales, scales + PAGE_POSITIONS,
            scales + 2 * PAGE_POSITIONS};
}

// What both passes work on. Running results of a query head: its two maxima, the sum of its probabilities, and the
// weighted sum of values.
struct Attention {
    u8* cache;
    const i8* queries;       // [rows][heads][h]
    const i32* query_max;    // [rows][heads]
    const i32* page_table;   // [sequences][pages_per_sequence]
    const i32* position;     // [rows]
    const i32* sequence;     // [rows]
    const i32* tile_row;     // [tiles + 1]: the first row of each tile
    i32* scores;             // [rows][heads][score_stride]
    i32* score_max;          // [rows][heads]
    i32* reach_max;          // [rows][heads]
    u64* denominator;        // [rows][heads]
    u64* numerator;          // [rows][heads][h]
    const i32* exp2;
    u32 layers, heads, kv_heads, head_width, pages_per_sequence, score_stride, split_positions, unused;
    i32 attention_mantissa, attention_exponent;

    __device__ __forceinline__ PageView page(u32 row, u32 index, u32 layer, u32 kv_head) const {
        const i32 page = page_table[static_cast<u64>(sequence[row]) * pages_per_sequence + index];
        return page_view(cache, (static_cast<u64>(page) * layers + layer) * kv_heads + kv_head, head_width);
    }
};

// A part of the queries and keys.
struct Tile {
    u32 first_row, rows, first_head, heads, kv_head;
    u32 begin, end;  // positions; those beyond a row's own do not exist for it

    __device__ __forceinline__ u32 row(u32 query) const { return first_row + query / HEADS_OF_TILE; }
    __device__ __forceinline__ u32 head(u32 query) const { return first_head + query % HEADS_OF_TILE; }
    __device__ __forceinline__ bool has(u32 query) const {
        return query / HEADS_OF_TILE < rows && query % HEADS_OF_TILE < heads;
    }
};

// Tile number `tile` of rows, group `group` of heads (query heads of one key-value head), part `split` of the keys.
__device__ __forceinline__ Tile tile_of(const Attention& a, u32 number, u32 group, u32 split) {
    const u32 heads = a.heads / a.kv_heads, parts = (heads + HEADS_OF_TILE - 1) / HEADS_OF_TILE;
    Tile tile;
    tile.first_row = static_cast<u32>(a.tile_row[number]);
    tile.rows = static_cast<u32>(a.tile_row[number + 1]) - tile.first_row;
    tile.kv_head = group / parts;
    const u32 part = group % parts * HEADS_OF_TILE;
    tile.first_head = tile.kv_head * heads + part;
    tile.heads = min(HEADS_OF_TILE, heads - part);
    tile.begin = split * a.split_positions;
    tile.end = min(tile.begin + a.split_positions, static_cast<u32>(a.position[tile.first_row + tile.rows - 1]) + 1);
    return tile;
}

// The tile's part of the cache on its way into L2. What this batch adds to it is written there anyway.
__device__ __forceinline__ void prefetch_pages(const Attention& a, const Tile& tile, u32 layer) {
    const u32 first = tile.begin + threadIdx.x * PAGE_POSITIONS;
    for (u32 key = first; key < tile.end; key += blockDim.x * PAGE_POSITIONS)
        prefetch_bulk(a.page(tile.first_row, key / PAGE_POSITIONS, layer, tile.kv_head).keys,
                      PAGE_POSITIONS * (2 * a.head_width + 12));
}

template <u32 QUERIES, typename Crew>
__device__ __forceinline__ void score_keys(const Attention& a, const Tile& tile, u32 layer) {
    __shared__ __align__(16) i8 queries[QUERIES][HEAD_WIDTH_MAX];
    __shared__ Mantissa scale[QUERIES];
    __shared__ i32 last[QUERIES];
    if (tile.begin >= tile.end) return;
    const u32 thread = Crew::thread(), threads = Crew::threads();
    Crew::sync();  // whatever used this memory before is done
    const u32 h = a.head_width;
    for (u32 i = thread; i < QUERIES * h; i += threads) {
        const u32 query = i / h;
        if (tile.has(query))
            queries[query][i % h] =
                a.queries[(static_cast<u64>(tile.row(query)) * a.heads + tile.head(query)) * h + i % h];
    }
    if (thread < QUERIES) {
        const u32 query = thread;
        last[query] = -1;
        if (tile.has(query)) {
            const u64 largest = static_cast<u64>(a.query_max[tile.row(query) * a.heads + tile.head(query)]);
            scale[query] = mantissa_of(largest * static_cast<u64>(a.attention_mantissa));
            scale[query].exponent += a.attention_exponent;
            last[query] = a.position[tile.row(query)];
        }
    }
    Crew::sync();

    i32 score_max[QUERIES], reach_max[QUERIES];
#pragma unroll
    for (u32 query = 0; query < QUERIES; ++query) score_max[query] = reach_max[query] = -SCORE_MAX;
    for (u32 key = tile.begin + thread; key < tile.end; key += threads) {
        const u32 slot = key % PAGE_POSITIONS;
        const PageView view = a.page(tile.first_row, key / PAGE_POSITIONS, layer, tile.kv_head);
        i32 dots[QUERIES] = {};
        for (u32 first = 0; first < h / 16; first += KEY_PARTS) {
            int4 parts[KEY_PARTS];
#pragma unroll
            for (u32 j = 0; j < KEY_PARTS; ++j)
                if (first + j < h / 16)
                    parts[j] = *reinterpret_cast<const int4*>(view.keys + ((first + j) * PAGE_POSITIONS + slot) * 16);
#pragma unroll
            for (u32 j = 0; j < KEY_PARTS; ++j) {
                if (first + j >= h / 16) break;
                const int4 k = parts[j];
#pragma unroll
                for (u32 query = 0; query < QUERIES; ++query) {
                    const int4 q = *reinterpret_cast<const int4*>(&queries[query][16 * (first + j)]);
                    dots[query] = __dp4a(k.w, q.w, __dp4a(k.z, q.z, __dp4a(k.y, q.y, __dp4a(k.x, q.x, dots[query]))));
                }
            }
        }
        const Mantissa key_scale = {view.key_mantissa[slot], view.key_exponent[slot]};
        const i32 value_reach = bit_length(static_cast<u64>(view.value_max[slot])) << 16;
#pragma unroll
        for (u32 query = 0; query < QUERIES; ++query) {
            if (static_cast<i32>(key) > last[query]) continue;
            const i32 score = attention_score(dots[query], key_scale, scale[query]);
            a.scores[(static_cast<u64>(tile.row(query)) * a.heads + tile.head(query)) * a.score_stride + key] = score;
            score_max[query] = max(score_max[query], score);
            reach_max[query] = max(reach_max[query], score + value_reach);
        }
    }
#pragma unroll
    for (u32 query = 0; query < QUERIES; ++query) {
        const i32 score = __reduce_max_sync(~0u, score_max[query]), reach = __reduce_max_sync(~0u, reach_max[query]);
        if (thread % 32 != 0 || !tile.has(query)) continue;
        const u32 at = tile.row(query) * a.heads + tile.head(query);
        atomicMax(a.score_max + at, score);
        atomicMax(a.reach_max + at, reach);
    }
}

__device__ __forceinline__ i32 attention_shift(i32 score_max, i32 reach_max) {
    return 5 + ((reach_max - score_max + 65535) >> 16);
}

// From a head's sums to its outputs: attention_output of operations.hpp, its division done once a head.
struct HeadScale {
    i32 reciprocal;  // at most 2^23 / 127
    i32 shift;       // 2 .. 50

    __device__ __forceinline__ i32 output(i64 numerator) const {
        return saturate((numerator * reciprocal + (1ll << (shift - 1))) >> shift);
    }
};

__device__ __forceinline__ HeadScale head_scale(u64 denominator, i32 shift) {
    const i32 b = bit_length(denominator);
    return {static_cast<i32>(quotient(1ull << (b + 22), 127 * denominator)), b + 18 - shift};
}

template <u32 QUERIES, typename Crew>
__device__ __forceinline__ void add_values(const Attention& a, const Tile& tile, u32 layer) {
    __shared__ __align__(8) i16 weights[QUERIES][PAGE_POSITIONS];
    __shared__ i32 score_max[QUERIES], shift[QUERIES], last[QUERIES];
    if (tile.begin >= tile.end) return;
    const u32 thread = Crew::thread(), threads = Crew::threads();
    Crew::sync();  // whatever used this memory before is done
    const u32 h = a.head_width, parts = threads / h;  // parts of a page that are added side by side
    const u32 entry = thread % h, part = thread / h;
    if (thread < QUERIES) {
        const u32 query = thread;
        last[query] = -1;
        if (tile.has(query)) {
            const u32 at = tile.row(query) * a.heads + tile.head(query);
            score_max[query] = a.score_max[at];
            shift[query] = attention_shift(a.score_max[at], a.reach_max[at]);
            last[query] = a.position[tile.row(query)];
        }
    }
    Crew::sync();

    i64 totals[QUERIES] = {};
    u64 probabilities[(QUERIES * PAGE_POSITIONS + 127) / 128] = {};
    for (u32 first = tile.begin; first < tile.end; first += PAGE_POSITIONS) {
        const PageView view = a.page(tile.first_row, first / PAGE_POSITIONS, layer, tile.kv_head);
        i32 values[WORDS_OF_PAGE];
#pragma unroll
        for (u32 j = 0; j < WORDS_OF_PAGE; ++j) {
            const u32 word = part + j * parts;
            if (part < parts && word < WORDS_OF_PAGE)
                values[j] = *reinterpret_cast<const i32*>(view.values + (word * h + entry) * 4);
        }
        Crew::sync();
#pragma unroll
        for (u32 round = 0; round < QUERIES * PAGE_POSITIONS / 128; ++round) {
            const u32 item = round * 128 + thread;
            if (thread >= 128) break;
            const u32 query = item / PAGE_POSITIONS, slot = item % PAGE_POSITIONS;
            i32 weight = 0;
            if (static_cast<i32>(first + slot) <= last[query]) {
                const u64 at = static_cast<u64>(tile.row(query)) * a.heads + tile.head(query);
                const i32 score = a.scores[at * a.score_stride + first + slot];
                const i32 p = exp2_value(static_cast<u32>(score_max[query] - score), a.exp2);
                weight = attention_weight(p, view.value_max[slot], shift[query]);
                probabilities[round] += static_cast<u64>(p);
            }
            weights[query][slot] = static_cast<i16>(weight);
        }
        Crew::sync();
        i32 sums[QUERIES] = {};
#pragma unroll
        for (u32 j = 0; j < WORDS_OF_PAGE; ++j) {
            const u32 word = part + j * parts;
            if (part >= parts || word >= WORDS_OF_PAGE) break;
#pragma unroll
            for (u32 query = 0; query < QUERIES; ++query) {
                const int2 w = *reinterpret_cast<const int2*>(&weights[query][4 * word]);
                sums[query] = __dp2a_hi(w.y, values[j], __dp2a_lo(w.x, values[j], sums[query]));
            }
        }
#pragma unroll
        for (u32 query = 0; query < QUERIES; ++query) totals[query] += sums[query];
    }
#pragma unroll
    for (u32 query = 0; query < QUERIES; ++query) {
        if (part >= parts || !tile.has(query)) continue;
        const u64 at = static_cast<u64>(tile.row(query)) * a.heads + tile.head(query);
        atomicAdd(a.numerator + at * h + entry, static_cast<u64>(totals[query]));
    }
    // A warp's 32 items of a round belong to one query: rounds are 128 items, queries 64.
#pragma unroll
    for (u32 round = 0; round < QUERIES * PAGE_POSITIONS / 128; ++round) {
        const u32 query = (round * 128 + thread) / PAGE_POSITIONS;
        u64 sum = probabilities[round];
        for (u32 step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
        if (thread >= 128 || thread % 32 != 0 || !tile.has(query)) continue;
        atomicAdd(a.denominator + tile.row(query) * a.heads + tile.head(query), sum);
    }
}

}  // namespace warpgrid::exact
