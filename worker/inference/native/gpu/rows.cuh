// Everything between two matrix products that concerns one row: rescaling, residual, norm, gates, quantising.
//
// What moves is mostly memory, so a thread handles four neighbouring values at a time (16-byte loads, 4-byte stores of
// quantised values). The arithmetic of a single value is operations.hpp's.
#pragma once

#include "worker/inference/native/gpu/layout.cuh"
#include "worker/inference/native/gpu/pipeline.cuh"
#include "worker/inference/native/gpu/rescale.cuh"

namespace warpgrid::exact {

constexpr u32 SPLITS_MAX = 8;  // of K

struct Quad {
    i32 value[4];
};

__device__ __forceinline__ Quad load_quad(const i32* at) {
    const int4 four = *reinterpret_cast<const int4*>(at);
    return {four.x, four.y, four.z, four.w};
}

// The same past the first-level cache, which may hold what another kernel read there before it changed.
__device__ __forceinline__ Quad load_new_quad(const i32* at) {
    const int4 four = __ldcg(reinterpret_cast<const int4*>(at));
    return {four.x, four.y, four.z, four.w};
}

__device__ __forceinline__ void store_quad(i32* at, const Quad& quad) {
    *reinterpret_cast<int4*>(at) = {quad.value[0], quad.value[1], quad.value[2], quad.value[3]};
}

// The sums of a matrix product with what it takes to make values of them. A 16-bit input has two rows, high limb and
// low limb.
struct Product {
    const i32* sums;       // [splits][rows * limbs][outputs]
    const i32* mantissa;   // [outputs]
    const i32* row_shift;  // [outputs]
    u32 rows;
    u32 outputs;
    u32 bits;
    u32 splits;

    __device__ __forceinline__ i64 sum(u32 row, u32 n) const {
        const u32 limbs = bits / 8;
        const i32* at = sums + static_cast<u64>(row) * limbs * outputs + n;
        const u64 step = static_cast<u64>(rows) * limbs * outputs;
        i32 high = 0, low = 0;
#pragma unroll
        for (u32 split = 0; split < SPLITS_MAX; ++split) high += split < splits ? at[split * step] : 0;
        if (limbs == 1) return high;
#pragma unroll
        for (u32 split = 0; split < SPLITS_MAX; ++split) low += split < splits ? at[split * step + outputs] : 0;
        return 256 * static_cast<i64>(high) + low;
    }

    // Sums n .. n + 3. All loads come before the arithmetic that needs them, several at a time.
    __device__ __forceinline__ void sum_four(i64* out, u32 row, u32 n) const {
        const u32 limbs = bits / 8;
        const i32* at = sums + static_cast<u64>(row) * limbs * outputs + n;
        const u64 step = static_cast<u64>(rows) * limbs * outputs;
        const Quad high = sum_of_splits(at, step), low = limbs == 2 ? sum_of_splits(at + outputs, step) : Quad{};
#pragma unroll
        for (u32 j = 0; j < 4; ++j)
            out[j] = limbs == 2 ? 256 * static_cast<i64>(high.value[j]) + low.value[j] : high.value[j];
    }

    // Four at a time are on their way together.
    __device__ __forceinline__ Quad sum_of_splits(const i32* at, u64 step) const {
        Quad total = {};
#pragma unroll
        for (u32 first = 0; first < SPLITS_MAX; first += 4) {
            if (first >= splits) break;
            Quad part[4];
#pragma unroll
            for (u32 i = 0; i < 4; ++i) part[i] = first + i < splits ? load_quad(at + (first + i) * step) : Quad{};
#pragma unroll
            for (u32 j = 0; j < 4; ++j)
                total.value[j] += part[0].value[j] + part[1].value[j] + part[2].value[j] + part[3].value[j];
        }
        return total;
    }

    // What `output` will read, into the L2 cache: nobody writes it, so there is no need to wait for the sums first.
    __device__ __forceinline__ void prefetch(u32 n) const {
        prefetch_line(mantissa + n);
        prefetch_line(row_shift + n);
    }

    __device__ __forceinline__ i64 output(i64 sum, u32 n, Scale row_scale) const {
        return bits == 8 ? linear_output(static_cast<i32>(sum), mantissa[n], row_shift[n], row_scale)
                         : linear_output(sum, mantissa[n], row_shift[n], row_scale);
    }
};

// The threads that work on something together: a block, or the part of one that is not busy with other things.
struct BlockCrew {
    static __device__ __forceinline__ u32 thread() { return threadIdx.x; }
    static __device__ __forceinline__ u32 threads() { return blockDim.x; }
    static __device__ __forceinline__ void sync() { __syncthreads(); }
};

template <typename T, typename Combine>
__device__ __forceinline__ T warp_reduce(T value, Combine combine) {
#pragma unroll
    for (u32 step = 16; step > 0; step /= 2) value = combine(value, __shfl_xor_sync(~0u, value, step));
    return value;
}

// Every thread of the crew gets the reduction of all threads' values, for which 0 is neutral. `partial` has 32 words of
// shared memory.
template <typename Crew, typename T, typename Combine>
__device__ __forceinline__ T crew_reduce(T value, T* partial, Combine combine) {
    value = warp_reduce(value, combine);
    Crew::sync();
    if (Crew::thread() % 32 == 0) partial[Crew::thread() / 32] = value;
    Crew::sync();
    return warp_reduce(Crew::thread() % 32 < Crew::threads() / 32 ? partial[Crew::thread() % 32] : T(0), combine);
}

struct Larger {
    template <typename T>
    __device__ __forceinline__ T operator()(T a, T b) const {
        return a > b ? a : b;
    }
};

struct Sum {
    template <typename T>
    __device__ __forceinline__ T operator()(T a, T b) const {
        return a + b;
    }
};

__device__ __forceinline__ i32 magnitude(i32 x) { return x < 0 ? -x : x; }

__device__ __forceinline__ i32 magnitude(const Quad& quad) {
    return max(max(magnitude(quad.value[0]), magnitude(quad.value[1])),
               max(magnitude(quad.value[2]), magnitude(quad.value[3])));
}

struct QuantisedQuad {
    u32 high, low;  // four bytes each; 8-bit values are in `high`
};

__device__ __forceinline__ QuantisedQuad quantised_quad(const Quad& quad, u32 bits, i64 reciprocal) {
    QuantisedQuad packed = {0, 0};
#pragma unroll
    for (u32 j = 0; j < 4; ++j) {
        const i32 q = quantise_value(quad.value[j], reciprocal);
        packed.high |= (static_cast<u32>(bits == 8 ? q : high_limb(q)) & 255) << (8 * j);
        packed.low |= (static_cast<u32>(q) & 255) << (8 * j);
    }
    return packed;
}

// Where quantised rows go: `block_bytes` from one block of K to the next (layout.cuh).
struct Quantised {
    i8* out;
    u32 bits, block_bytes;
};

// Values i .. i + 3 of a row, as the matrix product wants them.
__device__ __forceinline__ void store_quantised(const Quantised& to, u32 row, u32 i, u32 columns, const Quad& quad,
                                                i64 reciprocal) {
    const QuantisedQuad packed = quantised_quad(quad, to.bits, reciprocal);
    const u32 blocks = k_blocks(columns);
    const u32 first = row * (to.bits / 8);
    *reinterpret_cast<u32*>(to.out + activation_offset(first, i, blocks, to.block_bytes)) = packed.high;
    if (to.bits == 16)
        *reinterpret_cast<u32*>(to.out + activation_offset(first + 1, i, blocks, to.block_bytes)) = packed.low;
}

__device__ __forceinline__ u64 squares_of(const Quad& quad, i32 k) {
    u64 squares = 0;
#pragma unroll
    for (u32 j = 0; j < 4; ++j) {
        const i64 shifted = norm_shifted(quad.value[j], k);
        squares += static_cast<u64>(shifted * shifted);
    }
    return squares;
}

// Quads of a row that one thread holds: quad thread + j * threads.
constexpr u32 ROW_QUADS = 4;
static_assert(4 * ROW_QUADS * 1024 >= 16'384, "a row of the widest model fits a block");

// A residual row, held by the block's threads, quantised with the scale of its norm.
template <u32 QUADS>
__device__ __forceinline__ void norm_row(const Quantised& to, u32 row, Scale* scale, const Quad (&x)[QUADS], u32 width,
                                         i32 fraction, u64 epsilon_q48) {
    __shared__ i32 partial_max[32];
    __shared__ u64 partial_sum[32];
    i32 a = 1;
#pragma unroll
    for (u32 j = 0; j < QUADS; ++j) a = max(a, magnitude(x[j]));
    a = crew_reduce<BlockCrew>(a, partial_max, Larger());
    const i32 k = norm_shift(static_cast<u64>(a));
    const i64 reciprocal = reciprocal_of(to.bits, a);
    u64 squares = 0;
#pragma unroll
    for (u32 j = 0; j < QUADS; ++j) {
        const u32 i = 4 * (threadIdx.x + j * blockDim.x);
        if (i >= width) break;
        squares += squares_of(x[j], k);
        store_quantised(to, row, i, width, x[j], reciprocal);
    }
    squares = crew_reduce<BlockCrew>(squares, partial_sum, Sum());
    if (threadIdx.x == 0) *scale = norm_scale(static_cast<u64>(a), squares, epsilon_q48, width, fraction);
}

// `sigmoid` has each entry of SIGMOID times 256, plus its distance (at most 128) to the next one.
__device__ __forceinline__ i32 gated_unit(i32 gate, i32 up, const i32* sigmoid, i32 hidden_fraction) {
    const i32 entry = sigmoid[sigmoid_index(gate)], low = entry >> 8;
    return gated_value(gate, up, low, low + (entry & 255), hidden_fraction);
}

}  // namespace warpgrid::exact
