// Products of a row or two (an answer alone): weights stream past, as fast as memory gives them.
//
// Sixteen weight rows are a group, contiguous in memory (layout.cuh); a block takes neighbouring groups, so that what it
// reads is one run of bytes. One thread copies it into a ring of stages, eight warps multiply, each its own 128 bytes of K,
// by mma.sync; at the end of a group their sums meet in shared memory, and two more warps in turn make values of them (one
// of the eight doing that held up all the others: 2.7 TB/s). K is never split between blocks, so values are finished here,
// and the next kernel has nothing to add up. A block takes half a
// multiprocessor's memory at most: that of the next product starts fetching its weights beside it, while the kernels in
// between (norms, attention) wait for each other.
//
// Floor: the weights once, at the memory's rate. At a Llama-3-8B shape on an H200 (7.4, 5.2, 31 and 17.7 microseconds for
// qkv, o, gate_up and down, where 4.4 TB/s would take 5.7, 3.8, 26.7 and 13.3) what is missing is the end: from the last
// byte's arrival to the next kernel's start, 3 to 4 microseconds. Tried without gain: fetching more of the next weights into
// the L2 cache while the kernels between products run (3.14 to 3.27 ms a step), which slows those down.
#pragma once

#include "worker/inference/native/gpu/rows.cuh"
#include "worker/inference/native/gpu/warp_products.cuh"

namespace warpgrid::exact {

constexpr u32 STREAM_WARPS = 8;
constexpr u32 STREAM_FINISHERS = 2;
constexpr u32 STREAM_THREADS = 32 * (STREAM_WARPS + STREAM_FINISHERS + 1);  // and a warp that feeds
constexpr u32 STREAM_STAGES_MAX = 6;
constexpr u32 STREAM_ROWS_MAX = 8;
constexpr u32 STAGE_BYTES = STREAM_WARPS * WEIGHT_BLOCK_BYTES;

// `rows` counts limbs as rows, at most STREAM_ROWS_MAX.
struct StreamOperands {
    const i8* weights;
    const i8* activations;
    u32 outputs, rows, columns, stages;
};

// One stage of the ring after the other.
struct StageCursor {
    u32 stage = 0, parity = 0;

    __device__ __forceinline__ void next(u32 stages) {
        if (++stage < stages) return;
        stage = 0;
        parity ^= 1;
    }
};

// What a lane holds at the end of a group: sums[2 e + j] of weight row output + 8 e and activation row `row` + j.
struct GroupSums {
    i32 sums[4];
    u32 output, row;

    // use(e, j, row, accumulator) of each sum that exists; limbs are put together.
    template <typename Use>
    __device__ __forceinline__ void for_each(u32 rows, u32 bits, const Use& use) const {
#pragma unroll
        for (u32 e = 0; e < 2; ++e) {
            if (bits == 16) {
                if (row < rows) use(e, 0, row / 2, 256 * static_cast<i64>(sums[2 * e]) + sums[2 * e + 1]);
            } else {
#pragma unroll
                for (u32 j = 0; j < 2; ++j)
                    if (row + j < rows) use(e, j, row + j, static_cast<i64>(sums[2 * e + j]));
            }
        }
    }
};

struct StreamMemory {
    u64 full[STREAM_STAGES_MAX], empty[STREAM_STAGES_MAX], activations;
    int4 partial[STREAM_FINISHERS][STREAM_WARPS][32];
};

// Between the warps that multiply and the finisher of every second group: partial sums are there, and have been read.
constexpr u32 PARTIAL_THREADS = 32 * (STREAM_WARPS + 1);

template <u32 BARRIER>
__device__ __forceinline__ void named_sync() { asm volatile("bar.sync %0, %1;" ::"n"(BARRIER), "n"(PARTIAL_THREADS) : "memory"); }
template <u32 BARRIER>
__device__ __forceinline__ void named_arrive() { asm volatile("bar.arrive %0, %1;" ::"n"(BARRIER), "n"(PARTIAL_THREADS) : "memory"); }

// By the warps that multiply, and by the finisher.
__device__ __forceinline__ void give_partial(u32 finisher) { finisher == 0 ? named_arrive<1>() : named_arrive<2>(); }
__device__ __forceinline__ void await_partial(u32 finisher) { finisher == 0 ? named_sync<1>() : named_sync<2>(); }
__device__ __forceinline__ void partial_was_read(u32 finisher) { finisher == 0 ? named_arrive<3>() : named_arrive<4>(); }
__device__ __forceinline__ void await_partial_read(u32 finisher) { finisher == 0 ? named_sync<3>() : named_sync<4>(); }

// Sums of this warp's part of a group: 16 weight rows times the activation rows, over 128 bytes of K.
__device__ __forceinline__ void multiply_block(i32 (&acc)[4], u32 weights, const u8* activations, u32 rows) {
    const u32 lane = threadIdx.x % 32, n = lane / 4;
#pragma unroll
    for (u32 step = 0; step < K_BLOCK / 32; ++step) {
        u32 a[4], b[2];
        // Matrices: rows 0-7, rows 8-15 of the first sixteen bytes, then of the second.
        load_matrices(a, weights + swizzled(lane % 16, 32 * step + lane / 16 * 16));
#pragma unroll
        for (u32 half = 0; half < 2; ++half)
            b[half] = n < rows ? *reinterpret_cast<const u32*>(activations + swizzled(n, 32 * step + 16 * half) + lane % 4 * 4) : 0;
        mma_s8(acc, a, b[0], b[1]);
    }
}

// The whole product. `finish.prefetch(first, end)` names the outputs of this block; `finish.begin(output)` comes before and
// `finish(sums)` after the sums of a group are there, each called by a whole warp; `finish.close()` at the end.
template <typename Finish>
__device__ __forceinline__ void stream_product(const StreamOperands& o, Finish finish) {
    extern __shared__ __align__(1024) u8 shared[];
    __shared__ __align__(16) StreamMemory memory;
    const u32 ring = (shared_address(shared) + 1023) & ~1023u;
    u8* const activations = shared + (ring - shared_address(shared)) + o.stages * STAGE_BYTES;
    const u32 groups = (o.outputs + WEIGHT_ROWS - 1) / WEIGHT_ROWS, blocks = k_blocks(o.columns);
    const u32 first = static_cast<u32>(static_cast<u64>(groups) * blockIdx.x / gridDim.x);
    const u32 end = static_cast<u32>(static_cast<u64>(groups) * (blockIdx.x + 1) / gridDim.x);
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const u32 full = shared_address(memory.full), empty = shared_address(memory.empty), ready = shared_address(&memory.activations);
    if (threadIdx.x == 0) {
        for (u32 stage = 0; stage < o.stages; ++stage) {
            barrier_init(full + 8 * stage, 1);
            barrier_init(empty + 8 * stage, STREAM_WARPS);
        }
        barrier_init(ready, 1);
        barrier_init_done();
    }
    __syncthreads();
    if (warp == STREAM_WARPS) {
        if (lane == 0) {
            StageCursor at;
            const i8* source = o.weights + static_cast<u64>(first) * blocks * WEIGHT_BLOCK_BYTES;
            for (u32 group = first; group < end; ++group) {
                for (u32 block = 0; block < blocks; block += STREAM_WARPS, at.next(o.stages)) {
                    const u32 bytes = min(STREAM_WARPS, blocks - block) * WEIGHT_BLOCK_BYTES;
                    barrier_wait(empty + 8 * at.stage, at.parity ^ 1);
                    barrier_expect(full + 8 * at.stage, bytes);
                    copy_bulk(ring + at.stage * STAGE_BYTES, source, bytes, full + 8 * at.stage);
                    source += bytes;
                }
            }
            allow_next();
        }
        await_previous();
        return;
    }
    if (warp > STREAM_WARPS) {
        const u32 finisher = warp - STREAM_WARPS - 1;
        if (finisher == 0) finish.prefetch(first * WEIGHT_ROWS, min(end * WEIGHT_ROWS, o.outputs));
        await_previous();
        if (finisher == 0) {
            async_proxy_follows();
            const u32 bytes = o.rows * K_BLOCK;
            if (lane == 0) barrier_expect(ready, blocks * bytes);
            __syncwarp();
            for (u32 block = lane; block < blocks; block += 32)
                copy_bulk(shared_address(activations) + block * bytes, o.activations + static_cast<u64>(block) * ACTIVATION_BLOCK_BYTES, bytes, ready);
        }
        for (u32 group = first + finisher; group < end; group += STREAM_FINISHERS) {
            GroupSums sums = {{}, group * WEIGHT_ROWS + lane / 4, lane % 4 * 2};
            finish.begin(sums);
            await_partial(finisher);
#pragma unroll
            for (u32 i = 0; i < STREAM_WARPS; ++i) {
                const int4 one = memory.partial[finisher][i][lane];
                sums.sums[0] += one.x, sums.sums[1] += one.y, sums.sums[2] += one.z, sums.sums[3] += one.w;
            }
            if (group + STREAM_FINISHERS < end) partial_was_read(finisher);
            finish(sums);
        }
        finish.close();
        return;
    }
    await_previous();
    barrier_wait(ready, 0);
    StageCursor at;
    for (u32 group = first; group < end; ++group) {
        i32 acc[4] = {};
        for (u32 block = 0; block < blocks; block += STREAM_WARPS, at.next(o.stages)) {
            barrier_wait(full + 8 * at.stage, at.parity);
            if (block + warp < blocks)
                multiply_block(acc, ring + at.stage * STAGE_BYTES + warp * WEIGHT_BLOCK_BYTES, activations + (block + warp) * o.rows * K_BLOCK, o.rows);
            __syncwarp();
            if (lane == 0) barrier_arrive(empty + 8 * at.stage);
        }
        const u32 finisher = (group - first) % STREAM_FINISHERS;
        if (group >= first + STREAM_FINISHERS) await_partial_read(finisher);
        memory.partial[finisher][warp][lane] = {acc[0], acc[1], acc[2], acc[3]};
        give_partial(finisher);
    }
}

// The largest of a warp's values for each of the rows that its lanes share, into `target`[row], once at the end.
struct RowMaxima {
    i32* target;
    i32 largest[2] = {};  // of rows `row` and `row` + 1, or of row / 2 where rows are limbs

    __device__ __forceinline__ explicit RowMaxima(i32* target) : target(target) {}
    __device__ __forceinline__ void add(u32 which, i32 value) { largest[which] = max(largest[which], value); }
    __device__ __forceinline__ void close(u32 rows, u32 bits) {
        const u32 lane = threadIdx.x % 32, row = lane % 4 * 2;
#pragma unroll
        for (u32 j = 0; j < 2; ++j) {
            i32 value = largest[j];
#pragma unroll
            for (u32 step = 4; step < 32; step *= 2) value = max(value, __shfl_xor_sync(~0u, value, step));
            if (lane / 4 != 0 || value == 0) continue;
            if (bits == 16) atomicMax(target + row / 2, value);
            else if (row + j < rows) atomicMax(target + row + j, value);
        }
    }
};

// What it takes to make values of a linear layer's sums: of two outputs at a time, for the two rows that a lane holds.
struct LinearScales {
    const i32* mantissa;
    const i32* row_shift;
    const Scale* scale;
    u32 rows, bits;  // limbs are rows
    i32 own_mantissa[2] = {}, own_shift[2] = {};
    Scale own_scale[2] = {};

    // Outputs n0 and n1 are next, as far as they are below `end`.
    __device__ __forceinline__ void begin(u32 n0, u32 n1, u32 end, u32 row) {
        own_mantissa[0] = n0 < end ? mantissa[n0] : 0, own_shift[0] = n0 < end ? row_shift[n0] : 0;
        own_mantissa[1] = n1 < end ? mantissa[n1] : 0, own_shift[1] = n1 < end ? row_shift[n1] : 0;
#pragma unroll
        for (u32 j = 0; j < 2; ++j)
            if (row + j < rows) own_scale[j] = scale[bits == 8 ? row + j : row / 2];
    }
    // The e-th of them, of a lane's row (the j-th of the two).
    __device__ __forceinline__ i64 value(u32 e, u32 j, i64 sum) const {
        return bits == 8 ? linear_output(static_cast<i32>(sum), own_mantissa[e], own_shift[e], own_scale[j])
                         : linear_output(sum, own_mantissa[e], own_shift[e], own_scale[j]);
    }
    __device__ __forceinline__ void prefetch(u32 first, u32 end) const {
        for (u32 n = first + 32 * (threadIdx.x % 32); n < end; n += 32 * 32) prefetch_line(mantissa + n), prefetch_line(row_shift + n);
    }
};

// values[row][n], finished.
struct StreamValues {
    i32* values;
    const i32* bias;  // or null
    LinearScales scales;
    u32 outputs;

    __device__ __forceinline__ void prefetch(u32 first, u32 end) const { scales.prefetch(first, end); }
    __device__ __forceinline__ void begin(const GroupSums& sums) { scales.begin(sums.output, sums.output + 8, outputs, sums.row); }
    __device__ __forceinline__ void operator()(const GroupSums& sums) const {
        sums.for_each(scales.rows, scales.bits, [&](u32 e, u32 j, u32 row, i64 sum) {
            const u32 n = sums.output + 8 * e;
            if (n < outputs) values[static_cast<u64>(row) * outputs + n] = saturate(scales.value(e, j, sum) + (bias ? bias[n] : 0));
        });
    }
    __device__ __forceinline__ void close() const {}
};

// residual += values.
struct StreamResidual {
    i32* residual;
    LinearScales scales;
    u32 width;
    i32 before[2][2] = {};

    __device__ __forceinline__ void prefetch(u32 first, u32 end) const { scales.prefetch(first, end); }
    __device__ __forceinline__ void begin(const GroupSums& sums) {
        scales.begin(sums.output, sums.output + 8, width, sums.row);
        sums.for_each(scales.rows, scales.bits, [&](u32 e, u32 j, u32 row, i64) {
            const u32 n = sums.output + 8 * e;
            if (n < width) before[e][j] = residual[static_cast<u64>(row) * width + n];
        });
    }
    __device__ __forceinline__ void operator()(const GroupSums& sums) const {
        sums.for_each(scales.rows, scales.bits, [&](u32 e, u32 j, u32 row, i64 sum) {
            const u32 n = sums.output + 8 * e;
            if (n < width) residual[static_cast<u64>(row) * width + n] = saturate(before[e][j] + scales.value(e, j, sum));
        });
    }
    __device__ __forceinline__ void close() const {}
};

// hidden = gated units, and their largest magnitude of each row. A group is eight gates and their ups.
struct StreamGated {
    i32* hidden;
    RowMaxima maxima;
    LinearScales scales;
    const i32* sigmoid;
    u32 f;
    i32 hidden_fraction;

    __device__ __forceinline__ void prefetch(u32 first, u32 end) const {
        scales.prefetch(first / 2, end / 2);
        scales.prefetch(f + first / 2, f + end / 2);
        for (u32 i = 32 * (threadIdx.x % 32); i < 4096; i += 32 * 32) prefetch_line(sigmoid + i);
    }
    static __device__ __forceinline__ u32 unit(const GroupSums& sums) { return sums.output / 16 * 8 + sums.output % 8; }
    __device__ __forceinline__ void begin(const GroupSums& sums) { scales.begin(unit(sums), f + unit(sums), 2 * f, sums.row); }
    __device__ __forceinline__ void operator()(const GroupSums& sums) {
        const u32 i = unit(sums);
        i32 gates[2];
        sums.for_each(scales.rows, scales.bits, [&](u32 e, u32 j, u32 row, i64 sum) {
            const i32 value = saturate(scales.value(e, j, sum));
            if (e == 0) {
                gates[j] = value;
            } else if (i < f) {
                const i32 z = gated_unit(gates[j], value, sigmoid, hidden_fraction);
                hidden[static_cast<u64>(row) * f + i] = z;
                maxima.add(j, magnitude(z));
            }
        });
    }
    __device__ __forceinline__ void close() { maxima.close(scales.rows, scales.bits); }
};

}  // namespace warpgrid::exact
