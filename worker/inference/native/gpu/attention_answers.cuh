// Attention of answers in one kernel: the two passes of attention.cuh with what they exchange kept on the chip.
//
// The blocks of a cluster share the query heads (up to four) of one key-value head of one row, and split its keys. Each
// scores its own and keeps the scores; the maxima go to all blocks; weights and sums follow; at the end each block adds
// up its part of the outputs over the sums of all. For at most CLUSTER_MAX * ANSWER_POSITIONS_MAX positions.
//
// What binds where a row is alone: fetching instructions. Weights sweep the L2 cache in every layer, so code comes from
// memory, and a first version for any head width (35 KB, loops unrolled around conditions) took 15 microseconds a layer
// at 512 positions, as long as the three kernels of attention.cuh. So: no conditions for heads that are not there
// (theirs is computed and dropped), int32 wherever a block's sums fit, no atomics on 64 bits.
#pragma once

#include "worker/inference/native/gpu/attention.cuh"

namespace warpgrid::exact {

constexpr u32 CLUSTER_MAX = 8;
constexpr u32 ANSWER_THREADS = 128;
constexpr u32 ANSWER_POSITIONS_MAX = 512;     // of one block
constexpr u32 ANSWER_PREFETCH_BLOCKS = 1024;  // so many blocks keep memory busy by themselves
static_assert(32767ll * 127 * ANSWER_POSITIONS_MAX < (1ll << 31), "a block's weighted values add up in int32");
static_assert((1ll << 20) * ANSWER_POSITIONS_MAX < (1ll << 31), "and so do its probabilities");
static_assert(2 * HEADS_OF_TILE * CLUSTER_MAX <= ANSWER_THREADS &&
              PAGE_POSITIONS * HEADS_OF_TILE == 2 * ANSWER_THREADS);

template <u32 H>
struct AnswerMemory {
    static constexpr u32 PARTS = ANSWER_THREADS / H;  // of a page, whose values are added side by side
    i32 scores[HEADS_OF_TILE][ANSWER_POSITIONS_MAX];
    i8 queries[HEADS_OF_TILE][H];
    i16 weights[HEADS_OF_TILE][PAGE_POSITIONS];
    i32 numerator[PARTS][HEADS_OF_TILE * H];
    Mantissa scale[HEADS_OF_TILE];
    i32 own_maxima[2 * HEADS_OF_TILE];  // scores, then reaches
    i32 own_denominator[HEADS_OF_TILE];
    i32 maxima[CLUSTER_MAX][2 * HEADS_OF_TILE];  // of each block of the cluster, as is the next
    i32 denominator[CLUSTER_MAX][HEADS_OF_TILE];
    i32 score_max[HEADS_OF_TILE], shift[HEADS_OF_TILE];
};

// What one block does, for head width H.
template <u32 H>
struct Answer {
    static_assert(H == 64 || H == 128);
    static constexpr u32 PARTS = AnswerMemory<H>::PARTS;
    const Attention& a;
    AnswerMemory<H>& m;
    u32 layer, row, kv_head, first_head, heads, rank, ranks;
    u32 begin, end;  // positions

    __device__ __forceinline__ Answer(const Attention& a, AnswerMemory<H>& m, u32 layer)
        : a(a), m(m), layer(layer), row(blockIdx.x), rank(blockIdx.z), ranks(gridDim.z) {
        const u32 group_heads = a.heads / a.kv_heads, parts = (group_heads + HEADS_OF_TILE - 1) / HEADS_OF_TILE;
        const u32 part = blockIdx.y % parts * HEADS_OF_TILE, positions = static_cast<u32>(a.position[row]) + 1;
        const u32 own = ((positions + PAGE_POSITIONS - 1) / PAGE_POSITIONS + ranks - 1) / ranks * PAGE_POSITIONS;
        kv_head = blockIdx.y / parts;
        first_head = kv_head * group_heads + part;
        heads = min(HEADS_OF_TILE, group_heads - part);
        begin = min(rank * own, positions);
        end = min(begin + own, positions);
    }

    __device__ __forceinline__ PageView page(u32 position) const {
        const i32 page =
            a.page_table[static_cast<u64>(a.sequence[row]) * a.pages_per_sequence + position / PAGE_POSITIONS];
        return page_view(a.cache, (static_cast<u64>(page) * a.layers + layer) * a.kv_heads + kv_head, H);
    }

    // What does not depend on the kernels ahead: the keys and values of earlier positions.
    __device__ __forceinline__ void prefetch() const {
        const u32 position = begin + threadIdx.x * PAGE_POSITIONS;
        if (position < end) prefetch_bulk(page(position).keys, PAGE_POSITIONS * (2 * H + 12));
    }

    __device__ __forceinline__ void load_queries() {
        const u64 first = static_cast<u64>(row) * a.heads + first_head;
        if (threadIdx.x < heads * H / 4)
            reinterpret_cast<u32*>(m.queries)[threadIdx.x] =
                reinterpret_cast<const u32*>(a.queries + first * H)[threadIdx.x];
        if (threadIdx.x < HEADS_OF_TILE) {
            m.scale[threadIdx.x] = {0, -64};
            if (threadIdx.x < heads) {
                m.scale[threadIdx.x] = mantissa_of(static_cast<u64>(a.query_max[first + threadIdx.x]) *
                                                   static_cast<u64>(a.attention_mantissa));
                m.scale[threadIdx.x].exponent += a.attention_exponent;
            }
            m.own_denominator[threadIdx.x] = 0;
        }
        if (threadIdx.x < 2 * HEADS_OF_TILE) m.own_maxima[threadIdx.x] = -SCORE_MAX;
        __syncthreads();
    }

    // Scores of the block's own keys, one thread a key, and their maxima, which go to every block of the cluster.
    __device__ __forceinline__ void score() {
        i32 score_max[HEADS_OF_TILE], reach_max[HEADS_OF_TILE];
#pragma unroll
        for (u32 q = 0; q < HEADS_OF_TILE; ++q) score_max[q] = reach_max[q] = -SCORE_MAX;
#pragma unroll 1
        for (u32 key = begin + threadIdx.x; key < end; key += ANSWER_THREADS) {
            const u32 slot = key % PAGE_POSITIONS;
            const PageView view = page(key);
            int4 k[H / 16];
#pragma unroll
            for (u32 j = 0; j < H / 16; ++j)
                k[j] = *reinterpret_cast<const int4*>(view.keys + (j * PAGE_POSITIONS + slot) * 16);
            const Mantissa key_scale = {view.key_mantissa[slot], view.key_exponent[slot]};
            const i32 value_reach = (32 - __clz(view.value_max[slot])) << 16;
            i32 dots[HEADS_OF_TILE] = {};
#pragma unroll
            for (u32 j = 0; j < H / 16; ++j) {
#pragma unroll
                for (u32 q = 0; q < HEADS_OF_TILE; ++q) {
                    const int4 word = *reinterpret_cast<const int4*>(&m.queries[q][16 * j]);
                    dots[q] = __dp4a(k[j].w, word.w,
                                     __dp4a(k[j].z, word.z, __dp4a(k[j].y, word.y, __dp4a(k[j].x, word.x, dots[q]))));
                }
            }
#pragma unroll
            for (u32 q = 0; q < HEADS_OF_TILE; ++q) {
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
#pragma unroll 1
            for (u32 i = 0; i < ranks; ++i) {
                score = max(score, m.maxima[i][threadIdx.x]);
                reach = max(reach, m.maxima[i][HEADS_OF_TILE + threadIdx.x]);
            }
            m.score_max[threadIdx.x] = score;
            m.shift[threadIdx.x] = attention_shift(score, reach);
        }
        __syncthreads();
    }

    // Weights of a page's positions; their probabilities are added to a thread's two sums (of head thread / 64, and two
    // on).
    __device__ __forceinline__ void weigh(u32 first, i32 value_max, i32 (&probabilities)[2]) {
        const u32 slot = threadIdx.x % PAGE_POSITIONS;
#pragma unroll
        for (u32 round = 0; round < 2; ++round) {
            const u32 q = threadIdx.x / PAGE_POSITIONS + 2 * round;
            const u32 below = static_cast<u32>(m.score_max[q] - m.scores[q][first + slot - begin]);
            const i32 p = first + slot < end ? exp2_value(below, a.exp2) : 0;
            probabilities[round] += p;
            m.weights[q][slot] = static_cast<i16>(attention_weight(p, value_max, m.shift[q]));
        }
    }

    // Sums of weights times values over the block's own positions, one thread an entry.
    __device__ __forceinline__ void add_values() {
        constexpr u32 WORDS = WORDS_OF_PAGE / PARTS;
        const u32 entry = threadIdx.x % H, part = threadIdx.x / H;
        i32 sums[HEADS_OF_TILE] = {}, probabilities[2] = {};
#pragma unroll 1
        for (u32 first = begin; first < end; first += PAGE_POSITIONS) {
            const PageView view = page(first);
            i32 values[WORDS];
#pragma unroll
            for (u32 j = 0; j < WORDS; ++j)
                values[j] = *reinterpret_cast<const i32*>(view.values + ((part * WORDS + j) * H + entry) * 4);
            const i32 value_max = view.value_max[threadIdx.x % PAGE_POSITIONS];
            __syncthreads();
            weigh(first, value_max, probabilities);
            __syncthreads();
#pragma unroll
            for (u32 j = 0; j < WORDS; j += 2) {
#pragma unroll
                for (u32 q = 0; q < HEADS_OF_TILE; ++q) {
                    const int4 w = *reinterpret_cast<const int4*>(&m.weights[q][4 * (part * WORDS + j)]);
                    sums[q] = __dp2a_hi(w.y, values[j], __dp2a_lo(w.x, values[j], sums[q]));
                    sums[q] = __dp2a_hi(w.w, values[j + 1], __dp2a_lo(w.z, values[j + 1], sums[q]));
                }
            }
        }
#pragma unroll
        for (u32 q = 0; q < HEADS_OF_TILE; ++q) m.numerator[part][q * H + entry] = sums[q];
#pragma unroll
        for (u32 round = 0; round < 2; ++round) {
            const i32 sum = __reduce_add_sync(~0u, probabilities[round]);
            if (threadIdx.x % 32 == 0) atomicAdd(m.own_denominator + threadIdx.x / PAGE_POSITIONS + 2 * round, sum);
        }
        __syncthreads();
        const u32 to = threadIdx.x / HEADS_OF_TILE, q = threadIdx.x % HEADS_OF_TILE;
        if (to < ranks) store_at(shared_address(&m.denominator[rank][q]), to, m.own_denominator[q]);
        cluster_sync();
    }

    // This block's part of the outputs, Q16, and the largest of them.
    __device__ __forceinline__ void finish(i32* attended, i32* attended_max) const {
        i32* out = attended + (static_cast<u64>(row) * a.heads + first_head) * H;
        i32 largest = 0;
#pragma unroll 1
        for (u32 i = rank * ANSWER_THREADS + threadIdx.x; i < heads * H; i += ranks * ANSWER_THREADS) {
            i32 sums[CLUSTER_MAX][PARTS];
#pragma unroll
            for (u32 from = 0; from < CLUSTER_MAX; ++from) {
#pragma unroll
                for (u32 part = 0; part < PARTS; ++part)
                    sums[from][part] = from < ranks ? load_at(shared_address(&m.numerator[part][i]), from) : 0;
            }
            i64 numerator = 0;
            u64 denominator = 0;
#pragma unroll
            for (u32 from = 0; from < CLUSTER_MAX; ++from) {
#pragma unroll
                for (u32 part = 0; part < PARTS; ++part) numerator += sums[from][part];
                if (from < ranks) denominator += static_cast<u32>(m.denominator[from][i / H]);
            }
            out[i] = head_scale(denominator, m.shift[i / H]).output(numerator);
            largest = max(largest, magnitude(out[i]));
        }
        largest = __reduce_max_sync(~0u, largest);
        if (threadIdx.x % 32 == 0) atomicMax(attended_max + row, largest);
        cluster_sync();  // nobody leaves while another may still read its memory
    }
};

}  // namespace warpgrid::exact
