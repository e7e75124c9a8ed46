// Heads after the qkv product, one warp each: head norm, rotary, Hadamard, quantising, and the way into the cache.
//
// A lane holds entries lane + 32 j and those half a head further, so that rotary is a lane's own business.
#pragma once

#include "worker/inference/native/gpu/attention.cuh"

namespace warpgrid::exact {

// What this step reads and writes, beside the values themselves.
struct Heads {
    const i32* query_norm;  // null where there is none
    const i32* key_norm;
    const i16* cosines;
    const i16* sines;
    i8* queries;        // [rows][heads][h]
    i32* query_max;     // [rows][heads]
    u8* cache;
    const i32* page_table;
    const i32* position;
    const i32* sequence;
    u8* kv_rows;        // for the trace, or null
    u64 epsilon_q48;
    u32 layers, heads, kv_heads, head_width, pages_per_sequence, hadamard;
};

// Cosines and sines of a row's position on their way into the L2 cache.
__device__ __forceinline__ void prefetch_angles(const Heads& h, u32 row) {
    const u32 half = h.head_width / 2, i = threadIdx.x * 32;
    const u64 angles = static_cast<u64>(h.position[row]) * half;
    if (i < half) prefetch_line(h.cosines + angles + i), prefetch_line(h.sines + angles + i);
}

// PAIRS is how many pairs of entries a lane holds at most.
template <u32 PAIRS>
struct HeadPairs {
    i32 first[PAIRS], second[PAIRS];

    __device__ __forceinline__ i32 largest() const {
        i32 a = 1;
#pragma unroll
        for (u32 j = 0; j < PAIRS; ++j) a = max(a, max(magnitude(first[j]), magnitude(second[j])));
        return warp_reduce(a, Larger());
    }
};

template <u32 PAIRS>
__device__ __noinline__ void norm_head(HeadPairs<PAIRS>& z, u32 lane, u32 half, u64 epsilon_q48, const i32* gain) {
    const i32 k = norm_shift(static_cast<u64>(z.largest()));
    u64 squares = 0;
#pragma unroll
    for (u32 j = 0; j < PAIRS; ++j) {
        const i64 first = norm_shifted(z.first[j], k), second = norm_shifted(z.second[j], k);
        squares += static_cast<u64>(first * first + second * second);
    }
    squares = warp_reduce(squares, Sum());
    const i64 inverse = static_cast<i64>((1ull << 40) / norm_root(squares, epsilon_q48, 2 * half, k, 12));
#pragma unroll
    for (u32 j = 0; j < PAIRS; ++j) {
        const u32 i = lane + 32 * j;
        if (i >= half) break;
        const i64 first = (norm_shifted(z.first[j], k) * inverse + (1 << 23)) >> 24;
        const i64 second = (norm_shifted(z.second[j], k) * inverse + (1 << 23)) >> 24;
        z.first[j] = saturate((first * gain[i] + (1 << 19)) >> 20);
        z.second[j] = saturate((second * gain[i + half] + (1 << 19)) >> 20);
    }
}

template <u32 PAIRS>
__device__ __forceinline__ void rotate_head(HeadPairs<PAIRS>& z, u32 lane, u32 half, const i16* cosines,
                                            const i16* sines) {
#pragma unroll
    for (u32 j = 0; j < PAIRS; ++j) {
        const u32 i = lane + 32 * j;
        if (i >= half) break;
        const i64 c = cosines[i], s = sines[i], first = z.first[j], second = z.second[j];
        z.first[j] = saturate((first * c - second * s + (1 << 13)) >> 14);
        z.second[j] = saturate((second * c + first * s + (1 << 13)) >> 14);
    }
}

// Bits of an entry's index: the lane's (as many as half a head has, five at most), then j's, then first or second.
template <u32 PAIRS>
__device__ __noinline__ void hadamard_head(HeadPairs<PAIRS>& z, u32 lane, u32 half) {
    i64 first[PAIRS], second[PAIRS];
#pragma unroll
    for (u32 j = 0; j < PAIRS; ++j) {
        first[j] = static_cast<i64>(z.first[j]) + z.second[j];
        second[j] = static_cast<i64>(z.first[j]) - z.second[j];
    }
#pragma unroll
    for (u32 step = 1; step < 32; step *= 2) {
        if (step >= half) break;
        const bool upper = lane & step;
#pragma unroll
        for (u32 j = 0; j < PAIRS; ++j) {
            const i64 a = __shfl_xor_sync(~0u, first[j], step), b = __shfl_xor_sync(~0u, second[j], step);
            first[j] = upper ? a - first[j] : first[j] + a;
            second[j] = upper ? b - second[j] : second[j] + b;
        }
    }
#pragma unroll
    for (u32 step = 1; step < PAIRS; step *= 2) {
        if (32 * step >= half) break;
#pragma unroll
        for (u32 j = 0; j < PAIRS; ++j) {
            if (j & step) continue;
            const i64 a = first[j], b = second[j];
            first[j] = a + first[j + step], first[j + step] = a - first[j + step];
            second[j] = b + second[j + step], second[j + step] = b - second[j + step];
        }
    }
    const i32 shift = (31 - __clz(2 * half)) / 2;
#pragma unroll
    for (u32 j = 0; j < PAIRS; ++j) {
        z.first[j] = saturate(round_shift(first[j], shift));
        z.second[j] = saturate(round_shift(second[j], shift));
    }
}

// Head `head` of row `row` by one warp: queries first, then keys, then values. `value(n)` is the n-th output of qkv.
template <u32 PAIRS, typename Value>
__device__ __forceinline__ void prepare_head_of(const Heads& h, u32 layer, u32 row, u32 head, const Value& value) {
    const u32 lane = threadIdx.x % 32, width = h.head_width, half = width / 2;
    const bool is_query = head < h.heads, is_value = head >= h.heads + h.kv_heads;
    HeadPairs<PAIRS> z = {};
#pragma unroll
    for (u32 j = 0; j < PAIRS; ++j) {
        const u32 i = lane + 32 * j;
        if (i >= half) break;
        z.first[j] = value(head * width + i);
        z.second[j] = value(head * width + i + half);
    }
    const u32 at = static_cast<u32>(h.position[row]);
    if (!is_value) {
        if (h.query_norm) norm_head(z, lane, half, h.epsilon_q48, is_query ? h.query_norm : h.key_norm);
        const u64 angles = static_cast<u64>(at) * half;
        rotate_head(z, lane, half, h.cosines + angles, h.sines + angles);
        if (h.hadamard) hadamard_head(z, lane, half);
    }
    const i32 a = z.largest();
    const i64 reciprocal = reciprocal_of(8, a);
    const u32 kv_head = is_query ? 0 : (head - h.heads) % h.kv_heads, slot = at % PAGE_POSITIONS;
    const i32 page =
        is_query ? 0 : h.page_table[static_cast<u64>(h.sequence[row]) * h.pages_per_sequence + at / PAGE_POSITIONS];
    const PageView view = page_view(h.cache, (static_cast<u64>(page) * h.layers + layer) * h.kv_heads + kv_head, width);
    u8* kept = h.kv_rows && !is_query
                   ? h.kv_rows + ((static_cast<u64>(row) * h.layers + layer) * h.kv_heads + kv_head) * (2 * width + 8) +
                         (is_value ? width + 4 : 0)
                   : nullptr;
    // Entry e lies at place + (e / 16) * part_stride + (e % 16) * stride.
    i8* place = h.queries + (static_cast<u64>(row) * h.heads + head) * width;
    u32 part_stride = 16, stride = 1;
    if (is_value) place = view.values + slot / 4 * width * 4 + slot % 4, part_stride = 64, stride = 4;
    else if (!is_query) place = view.keys + slot * 16, part_stride = PAGE_POSITIONS * 16;
    auto store = [&](u32 entry, i32 z) {
        const i8 q = static_cast<i8>(quantise_value(z, reciprocal));
        place[entry / 16 * part_stride + entry % 16 * stride] = q;
        if (kept) kept[entry] = static_cast<u8>(q);
    };
#pragma unroll
    for (u32 j = 0; j < PAIRS; ++j) {
        const u32 i = lane + 32 * j;
        if (i >= half) break;
        store(i, z.first[j]);
        store(i + half, z.second[j]);
    }
    if (kept && lane < 4) kept[width + lane] = static_cast<u8>(static_cast<u32>(a) >> (8 * lane));
    if (lane != 0) return;
    if (is_query) {
        h.query_max[row * h.heads + head] = a;
    } else if (is_value) {
        view.value_max[slot] = a;
    } else {
        const Mantissa scale = mantissa_of(static_cast<u64>(a));
        view.key_mantissa[slot] = scale.mantissa;
        view.key_exponent[slot] = scale.exponent;
    }
}

template <typename Value>
__device__ __forceinline__ void prepare_head(const Heads& h, u32 layer, u32 row, u32 head, const Value& value) {
    if (h.head_width <= 64) prepare_head_of<1>(h, layer, row, head, value);
    else if (h.head_width <= 128) prepare_head_of<2>(h, layer, row, head, value);
    else prepare_head_of<HEAD_WIDTH_MAX / 64>(h, layer, row, head, value);
}

}  // namespace warpgrid::exact
