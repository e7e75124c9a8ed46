// Attention of answers in one kernel: the two passes of attention.cuh with what they exchange kept on the chip.
//
// The blocks of a cluster share the query heads (up to four) of one key-value head of one row, and split its keys. Each
// scores its own and keeps the scores; the maxima go to all blocks; weights and sums follow; at the end each block adds up
// its part of the outputs over the sums of all. For at most CLUSTER_MAX * ANSWER_POSITIONS_MAX positions. Three kernels
// that met in global memory took 17 microseconds a layer where a row is alone (Llama-3-8B shape, 512 positions).
#pragma once

#include "worker/inference/native/gpu/attention.cuh"

namespace warpgrid::exact {

constexpr u32 CLUSTER_MAX = 8;
constexpr u32 ANSWER_POSITIONS_MAX = 512;  // of one block
constexpr u32 ANSWER_PREFETCH_BLOCKS = 1024;  // so many blocks keep memory busy by themselves

struct AnswerMemory {
    union {  // numerators take the place of scores that nobody needs any more
        i32 scores[HEADS_OF_TILE][ANSWER_POSITIONS_MAX];
        u64 numerator[HEADS_OF_TILE * HEAD_WIDTH_MAX];
    };
    i8 queries[HEADS_OF_TILE * HEAD_WIDTH_MAX];
    i16 weights[HEADS_OF_TILE][PAGE_POSITIONS];
    Mantissa scale[HEADS_OF_TILE];
    u64 denominator[HEADS_OF_TILE];
    i32 own_maxima[2 * HEADS_OF_TILE];                // scores, then reaches
    i32 maxima[CLUSTER_MAX][2 * HEADS_OF_TILE];       // of each block of the cluster
    i32 score_max[HEADS_OF_TILE], shift[HEADS_OF_TILE];
};

// What one block does.
struct Answer {
    const Attention& a;
    AnswerMemory& m;
    u32 layer, row, kv_head, first_head, heads, rank, ranks;
    i32 last;
    u32 begin, end;  // positions

    __device__ __forceinline__ Answer(const Attention& a, AnswerMemory& m, u32 layer)
        : a(a), m(m), layer(layer), row(blockIdx.x), rank(blockIdx.z), ranks(gridDim.z), last(a.position[blockIdx.x]) {
        const u32 group_heads = a.heads / a.kv_heads, parts = (group_heads + HEADS_OF_TILE - 1) / HEADS_OF_TILE;
        const u32 part = blockIdx.y % parts * HEADS_OF_TILE, positions = static_cast<u32>(last) + 1;
        const u32 own = ((positions + PAGE_POSITIONS - 1) / PAGE_POSITIONS + ranks - 1) / ranks * PAGE_POSITIONS;
        kv_head = blockIdx.y / parts;
        first_head = kv_head * group_heads + part;
        heads = min(HEADS_OF_TILE, group_heads - part);
        begin = min(rank * own, positions);
        end = min(begin + own, positions);
    }

    __device__ __forceinline__ PageView page(u32 position) const { return a.page(row, position / PAGE_POSITIONS, layer, kv_head); }

    // What does not depend on the kernels ahead: the keys and values of earlier positions.
    __device__ __forceinline__ void prefetch() const {
        for (u32 position = begin + threadIdx.x * PAGE_POSITIONS; position < end; position += blockDim.x * PAGE_POSITIONS)
            prefetch_bulk(page(position).keys, PAGE_POSITIONS * (2 * a.head_width + 12));
    }

    __device__ __forceinline__ void load_queries() {
        const u64 first = static_cast<u64>(row) * a.heads + first_head;
        const u32* from = reinterpret_cast<const u32*>(a.queries + first * a.head_width);
        for (u32 i = threadIdx.x; i < heads * a.head_width / 4; i += blockDim.x) reinterpret_cast<u32*>(m.queries)[i] = from[i];
        if (threadIdx.x < heads) {
            m.scale[threadIdx.x] = mantissa_of(static_cast<u64>(a.query_max[first + threadIdx.x]) * static_cast<u64>(a.attention_mantissa));
            m.scale[threadIdx.x].exponent += a.attention_exponent;
        }
        if (threadIdx.x < HEADS_OF_TILE) m.denominator[threadIdx.x] = 0;
        if (threadIdx.x < 2 * HEADS_OF_TILE) m.own_maxima[threadIdx.x] = -SCORE_MAX;
        __syncthreads();
    }

    // Scores of the block's own keys, one thread a key, and their maxima, which go to every block of the cluster.
    __device__ __forceinline__ void score() {
        const u32 parts = a.head_width / 16;
        i32 score_max[HEADS_OF_TILE], reach_max[HEADS_OF_TILE];
#pragma unroll
        for (u32 q = 0; q < HEADS_OF_TILE; ++q) score_max[q] = reach_max[q] = -SCORE_MAX;
        for (u32 key = begin + threadIdx.x; key < end; key += blockDim.x) {
            const u32 slot = key % PAGE_POSITIONS;
            const PageView view = page(key);
            const Mantissa key_scale = {view.key_mantissa[slot], view.key_exponent[slot]};
            const i32 value_reach = (32 - __clz(view.value_max[slot])) << 16;
            i32 dots[HEADS_OF_TILE] = {};
            for (u32 first = 0; first < parts; first += KEY_PARTS) {
                int4 k[KEY_PARTS];
#pragma unroll
                for (u32 j = 0; j < KEY_PARTS; ++j)
                    if (first + j < parts)
                        k[j] = *reinterpret_cast<const int4*>(view.keys + ((first + j) * PAGE_POSITIONS + slot) * 16);
#pragma unroll
                for (u32 j = 0; j < KEY_PARTS; ++j) {
                    if (first + j >= parts) break;
#pragma unroll
                    for (u32 q = 0; q < HEADS_OF_TILE; ++q) {
                        if (q >= heads) break;
                        const int4 word = *reinterpret_cast<const int4*>(m.queries + q * a.head_width + 16 * (first + j));
                        dots[q] = __dp4a(k[j].w, word.w, __dp4a(k[j].z, word.z, __dp4a(k[j].y, word.y, __dp4a(k[j].x, word.x, dots[q]))));
                    }
                }
            }
#pragma unroll
            for (u32 q = 0; q < HEADS_OF_TILE; ++q) {
                if (q >= heads) break;
                const i32 score = attention_score(dots[q], key_scale, m.scale[q]);
                m.scores[q][key - begin] = score;
                score_max[q] = max(score_max[q], score);
                reach_max[q] = max(reach_max[q], score + value_reach);
            }
        }
#pragma unroll
        for (u32 q = 0; q < HEADS_OF_TILE; ++q) {
            const i32 score = __reduce_max_sync(~0u, score_max[q]), reach = __reduce_max_sync(~0u, reach_max[q]);
            if (threadIdx.x % 32 != 0) continue;
            atomicMax(m.own_maxima + q, score);
            atomicMax(m.own_maxima + HEADS_OF_TILE + q, reach);
        }
        __syncthreads();
        const u32 to = threadIdx.x / (2 * HEADS_OF_TILE), which = threadIdx.x % (2 * HEADS_OF_TILE);
        if (to < ranks) store_at(shared_address(&m.maxima[rank][which]), to, m.own_maxima[which]);
        cluster_sync();
        if (threadIdx.x < HEADS_OF_TILE) {
            i32 score = -SCORE_MAX, reach = -SCORE_MAX;
            for (u32 i = 0; i < ranks; ++i) {
                score = max(score, m.maxima[i][threadIdx.x]);
                reach = max(reach, m.maxima[i][HEADS_OF_TILE + threadIdx.x]);
            }
            m.score_max[threadIdx.x] = score;
            m.shift[threadIdx.x] = attention_shift(score, reach);
        }
        __syncthreads();
    }

    // Weights of a page's positions, by 128 threads; their probabilities are added to the two sums of a thread.
    __device__ __forceinline__ void weigh(u32 first, const PageView& view, u64 (&probabilities)[2]) {
        constexpr u32 THREADS = 128;
        if (threadIdx.x >= THREADS) return;
#pragma unroll
        for (u32 round = 0; round < HEADS_OF_TILE * PAGE_POSITIONS / THREADS; ++round) {
            const u32 item = round * THREADS + threadIdx.x, q = item / PAGE_POSITIONS, slot = item % PAGE_POSITIONS;
            i32 weight = 0;
            if (q < heads && first + slot < end) {
                const i32 p = exp2_value(static_cast<u32>(m.score_max[q] - m.scores[q][first + slot - begin]), a.exp2);
                weight = attention_weight(p, view.value_max[slot], m.shift[q]);
                probabilities[round] += static_cast<u64>(p);
            }
            m.weights[q][slot] = static_cast<i16>(weight);
        }
    }

    // Sums of weights times values over the block's own positions, one thread an entry, into m.numerator.
    __device__ __forceinline__ void add_values() {
        const u32 h = a.head_width, parts = blockDim.x / h, entry = threadIdx.x % h, part = threadIdx.x / h;
        i64 totals[HEADS_OF_TILE] = {};
        u64 probabilities[2] = {};
        for (u32 first = begin; first < end; first += PAGE_POSITIONS) {
            const PageView view = page(first);
            i32 values[WORDS_OF_PAGE];
#pragma unroll
            for (u32 j = 0; j < WORDS_OF_PAGE; ++j) {
                const u32 word = part + j * parts;
                if (part < parts && word < WORDS_OF_PAGE) values[j] = *reinterpret_cast<const i32*>(view.values + (word * h + entry) * 4);
            }
            __syncthreads();
            weigh(first, view, probabilities);
            __syncthreads();
            i32 sums[HEADS_OF_TILE] = {};
#pragma unroll
            for (u32 j = 0; j < WORDS_OF_PAGE; ++j) {
                const u32 word = part + j * parts;
                if (part >= parts || word >= WORDS_OF_PAGE) break;
#pragma unroll
                for (u32 q = 0; q < HEADS_OF_TILE; ++q) {
                    const int2 w = *reinterpret_cast<const int2*>(&m.weights[q][4 * word]);
                    sums[q] = __dp2a_hi(w.y, values[j], __dp2a_lo(w.x, values[j], sums[q]));
                }
            }
#pragma unroll
            for (u32 q = 0; q < HEADS_OF_TILE; ++q) totals[q] += sums[q];
        }
        __syncthreads();
        for (u32 i = threadIdx.x; i < HEADS_OF_TILE * h; i += blockDim.x) m.numerator[i] = 0;
        __syncthreads();
#pragma unroll
        for (u32 q = 0; q < HEADS_OF_TILE; ++q)
            if (part < parts) atomicAdd(reinterpret_cast<unsigned long long*>(m.numerator + q * h + entry), static_cast<unsigned long long>(totals[q]));
        // A warp's 32 items of a round belong to one query: rounds are 128 items, queries 64.
#pragma unroll
        for (u32 round = 0; round < 2; ++round) {
            const u64 sum = warp_reduce(probabilities[round], Sum());
            const u32 q = (round * 128 + threadIdx.x) / PAGE_POSITIONS;
            if (threadIdx.x < 128 && threadIdx.x % 32 == 0)
                atomicAdd(reinterpret_cast<unsigned long long*>(m.denominator + q), static_cast<unsigned long long>(sum));
        }
        cluster_sync();
    }

    // The sum over the cluster's blocks of a word of their shared memory.
    __device__ __forceinline__ u64 sum_of_all(const u64* word) const {
        u64 part[CLUSTER_MAX], total = 0;
#pragma unroll
        for (u32 i = 0; i < CLUSTER_MAX; ++i) part[i] = i < ranks ? load_at(shared_address(word), i) : 0;
#pragma unroll
        for (u32 i = 0; i < CLUSTER_MAX; ++i) total += part[i];
        return total;
    }

    // This block's part of the outputs, Q16, and the largest of them.
    __device__ __forceinline__ void finish(i32* attended, i32* attended_max) const {
        const u32 h = a.head_width;
        i32* out = attended + (static_cast<u64>(row) * a.heads + first_head) * h;
        i32 largest = 0;
        for (u32 i = rank * blockDim.x + threadIdx.x; i < heads * h; i += ranks * blockDim.x) {
            const i64 numerator = static_cast<i64>(sum_of_all(m.numerator + i));
            out[i] = head_scale(sum_of_all(m.denominator + i / h), m.shift[i / h]).output(numerator);
            largest = max(largest, magnitude(out[i]));
        }
        largest = __reduce_max_sync(~0u, largest);
        if (threadIdx.x % 32 == 0) atomicMax(attended_max + row, largest);
        cluster_sync();  // nobody leaves while another may still read its memory
    }
};

}  // namespace warpgrid::exact
