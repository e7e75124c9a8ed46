// Everything between two matrix products that concerns one row: rescaling, residual, norm, heads, gates, quantising.
//
// Matrix products leave raw accumulators; the kernel that needs a value adds the splits and rescales. The arithmetic of
// a single value is operations.hpp's.
#pragma once

#include "worker/inference/native/operations.hpp"

namespace warpgrid::exact {

constexpr u32 SPLITS_MAX = 8;  // of K

// The accumulators of a matrix product with what it takes to make values of them. A 16-bit input has two rows, high
// limb and low limb.
struct Product {
    const i32* accumulators;  // [splits][rows * limbs][outputs]
    const i32* mantissa;      // [outputs]
    const i32* row_shift;     // [outputs]
    u32 rows;
    u32 outputs;
    u32 bits;
    u32 splits;

    // The accumulated sum of output n, both limbs. Loads come before the arithmetic of `rescaled`, so that a caller with
    // several values keeps several loads in flight.
    __device__ __forceinline__ i64 sum(u32 row, u32 n) const {
        const u32 limbs = bits / 8;
        const i32* at = accumulators + static_cast<u64>(row) * limbs * outputs + n;
        const u64 step = static_cast<u64>(rows) * limbs * outputs;
        i32 high = at[0], low = limbs == 2 ? at[outputs] : 0;
        if (splits > 1) {
#pragma unroll
            for (u32 split = 1; split < SPLITS_MAX; ++split) {
                if (split >= splits) break;
                high += at[split * step];
                if (limbs == 2) low += at[split * step + outputs];
            }
        }
        return limbs == 2 ? 256 * static_cast<i64>(high) + low : high;
    }

    __device__ __forceinline__ i64 rescaled(i64 sum, u32 n, Scale row_scale) const {
        return linear_value(sum, mantissa[n], row_shift[n], row_scale);
    }
};

// Every thread of the block gets the reduction of all threads' values, for which 0 is neutral. `partial` has 32 words of
// shared memory.
template <typename T, typename Combine>
__device__ __forceinline__ T block_reduce(T value, T* partial, Combine combine) {
#pragma unroll
    for (u32 step = 16; step > 0; step /= 2) value = combine(value, __shfl_xor_sync(~0u, value, step));
    __syncthreads();
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    T all = threadIdx.x % 32 < blockDim.x / 32 ? partial[threadIdx.x % 32] : T(0);
#pragma unroll
    for (u32 step = 16; step > 0; step /= 2) all = combine(all, __shfl_xor_sync(~0u, all, step));
    return all;
}

__device__ __forceinline__ i32 block_max(i32 value, i32* partial) {
    return block_reduce(value, partial, [](i32 a, i32 b) { return a > b ? a : b; });
}

__device__ __forceinline__ u64 block_sum(u64 value, u64* partial) {
    return block_reduce(value, partial, [](u64 a, u64 b) { return a + b; });
}

__device__ __forceinline__ i32 magnitude(i32 x) { return x < 0 ? -x : x; }

// Element i of a row of `columns` values, as the matrix product wants it: [row][limb][columns].
__device__ __forceinline__ void store_quantised(i8* row, u32 columns, u32 bits, u32 i, i32 z, i64 reciprocal) {
    const i32 q = quantise_value(z, reciprocal);
    if (bits == 8) {
        row[i] = static_cast<i8>(q);
    } else {
        row[i] = static_cast<i8>(high_limb(q));
        row[columns + i] = static_cast<i8>(low_limb(q));
    }
}

// Values of a row that one thread holds: i = threadIdx.x + j * blockDim.x.
constexpr u32 ROW_ITEMS = 16;
static_assert(ROW_ITEMS * 1024 >= 16'384, "a row of the widest model fits a block");

// A residual row, held by the block's threads, quantised with the scale of its norm.
__device__ __forceinline__ void norm_row(i8* out, Scale* scale, const i32* x, u32 width, u32 bits, i32 fraction,
                                         u64 epsilon_q48) {
    __shared__ i32 partial_max[32];
    __shared__ u64 partial_sum[32];
    i32 a = 1;
#pragma unroll
    for (u32 j = 0; j < ROW_ITEMS; ++j) a = max(a, magnitude(x[j]));
    a = block_max(a, partial_max);
    const i32 k = norm_shift(static_cast<u64>(a));
    const i64 reciprocal = quantise_reciprocal(bits, a);
    u64 squares = 0;
#pragma unroll
    for (u32 j = 0; j < ROW_ITEMS; ++j) {
        const u32 i = threadIdx.x + j * blockDim.x;
        if (i >= width) break;
        const i64 shifted = norm_shifted(x[j], k);
        squares += static_cast<u64>(shifted * shifted);
        store_quantised(out, width, bits, i, x[j], reciprocal);
    }
    squares = block_sum(squares, partial_sum);
    if (threadIdx.x == 0) *scale = norm_scale(static_cast<u64>(a), squares, epsilon_q48, width, fraction);
}

// Head norm, rotary, Hadamard and quantising of one head by half as many threads as it has entries. Entry i and
// i + half are this thread's `first` and `second`.
struct HeadPair {
    i32 first, second;
};

__device__ __forceinline__ HeadPair head_norm_pair(HeadPair z, bool inside, u32 half, u64 epsilon_q48, const i32* gain,
                                                   i32* partial_max, u64* partial_sum) {
    const u32 h = 2 * half;
    const i32 a = block_max(inside ? max(1, max(magnitude(z.first), magnitude(z.second))) : 1, partial_max);
    const i32 k = norm_shift(static_cast<u64>(a));
    const i64 first = norm_shifted(z.first, k), second = norm_shifted(z.second, k);
    const u64 squares = block_sum(inside ? static_cast<u64>(first * first + second * second) : 0, partial_sum);
    const i64 inverse = static_cast<i64>((1ull << 40) / norm_root(squares, epsilon_q48, h, k, 12));
    if (!inside) return z;
    const i64 n0 = (first * inverse + (1 << 23)) >> 24, n1 = (second * inverse + (1 << 23)) >> 24;
    return {saturate((n0 * gain[threadIdx.x] + (1 << 19)) >> 20),
            saturate((n1 * gain[threadIdx.x + half] + (1 << 19)) >> 20)};
}

__device__ __forceinline__ HeadPair hadamard_pair(HeadPair z, bool inside, u32 half, i64* sums) {
    const u32 h = 2 * half;
    __syncthreads();
    if (inside) {
        sums[threadIdx.x] = z.first;
        sums[threadIdx.x + half] = z.second;
    }
    for (u32 step = 1; step < h; step *= 2) {
        __syncthreads();
        const u32 low = threadIdx.x / step * 2 * step + threadIdx.x % step;
        if (!inside) continue;
        const i64 a = sums[low], b = sums[low + step];
        sums[low] = a + b;
        sums[low + step] = a - b;
    }
    __syncthreads();
    if (!inside) return z;
    const i32 shift = (bit_length(h) - 1) / 2;
    return {saturate(round_shift(sums[threadIdx.x], shift)), saturate(round_shift(sums[threadIdx.x + half], shift))};
}

}  // namespace warpgrid::exact
