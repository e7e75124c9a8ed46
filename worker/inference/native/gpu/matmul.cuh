// Int8 matrix products on Hopper's tensor cores: raw int32 accumulators, which the kernels that follow rescale.
//
// accumulators[m][n] = sum over k of activations[m][k] * weights[n][k]. The weights are the instruction's first operand
// (64 rows), the activations its second (8 to 128 rows), so that one kernel serves a batch of one and a long prompt.
// Where K is split, each split has accumulators of its own, which the reader adds (atomics on shared ones made the reader
// eight times slower). A 16-bit activation is two rows, one for each limb; nothing here knows of it.
//
// Floor: weights read once at the memory's rate up to about 200 rows, then 2 * M * N * K at the int8 rate (1,979 TOP/s).
// Shared memory holds rows of 128 bytes in the 128-byte swizzle that wgmma reads without bank conflicts.
#pragma once

#include "core/native/platform.hpp"

namespace warpgrid::exact {

constexpr u32 K_STEP = 128;        // bytes of a row in one stage
constexpr u32 GROUP_OUTPUTS = 64;  // weight rows of one warpgroup
constexpr u32 GROUP_THREADS = 128;

#define WG_ACC4(a, i) "+r"((a)[i]), "+r"((a)[(i) + 1]), "+r"((a)[(i) + 2]), "+r"((a)[(i) + 3])
#define WG_ACC16(a, i) WG_ACC4(a, i), WG_ACC4(a, (i) + 4), WG_ACC4(a, (i) + 8), WG_ACC4(a, (i) + 12)
#define WG_WGMMA(columns, registers, first, second, always, ...)                                              \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " always ", 0;\n"                                          \
                 "wgmma.mma_async.sync.aligned.m64n" columns "k32.s32.s8.s8 {" registers "}, " first ", " second ", p;\n}\n" \
                 : __VA_ARGS__                                                                                \
                 : "l"(weights), "l"(activations), "r"(1))

// acc += 64 weight rows times COLUMNS activation rows, over 32 bytes of K. Asynchronous: see wgmma_wait.
template <u32 COLUMNS>
__device__ __forceinline__ void wgmma(i32* acc, u64 weights, u64 activations) {
    if constexpr (COLUMNS == 8) {
        WG_WGMMA("8", "%0, %1, %2, %3", "%4", "%5", "%6", WG_ACC4(acc, 0));
    } else if constexpr (COLUMNS == 16) {
        WG_WGMMA("16", "%0, %1, %2, %3, %4, %5, %6, %7", "%8", "%9", "%10", WG_ACC4(acc, 0), WG_ACC4(acc, 4));
    } else if constexpr (COLUMNS == 32) {
        WG_WGMMA("32", "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15", "%16", "%17", "%18",
                 WG_ACC16(acc, 0));
    } else if constexpr (COLUMNS == 64) {
        WG_WGMMA("64",
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31",
                 "%32", "%33", "%34", WG_ACC16(acc, 0), WG_ACC16(acc, 16));
    } else {
        static_assert(COLUMNS == 128);
        WG_WGMMA("128",
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63",
                 "%64", "%65", "%66", WG_ACC16(acc, 0), WG_ACC16(acc, 16), WG_ACC16(acc, 32), WG_ACC16(acc, 48));
    }
}

#undef WG_WGMMA
#undef WG_ACC16
#undef WG_ACC4

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }

template <u32 PENDING>
__device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(PENDING) : "memory");
}

// Where wgmma finds a K-major tile of 128-byte rows: 8 rows are 1,024 bytes, 128-byte swizzle.
__device__ __forceinline__ u64 tile_descriptor(u32 shared_address) {
    return static_cast<u64>((shared_address & 0x3FFFF) >> 4) | (1ull << 16) | (static_cast<u64>(1024 >> 4) << 32) |
           (1ull << 62);
}

// 16 bytes from global to shared memory, or zeros where `bytes` is 0.
__device__ __forceinline__ void copy_async(u32 shared_address, const void* source, u32 bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address), "l"(source), "r"(bytes)
                 : "memory");
}

// `rows` rows from `first` on, columns k .. k + 127, swizzled; what lies outside the matrix is zero.
template <u32 ROWS, u32 THREADS>
__device__ __forceinline__ void load_tile(u32 shared_address, const i8* matrix, u32 first, u32 rows, u32 k, u32 columns) {
    constexpr u32 CHUNKS = ROWS * K_STEP / 16;
#pragma unroll
    for (u32 base = 0; base < CHUNKS; base += THREADS) {
        const u32 chunk = base + threadIdx.x;
        if (CHUNKS % THREADS != 0 && chunk >= CHUNKS) break;
        const u32 row = chunk / 8, part = chunk % 8;
        const u32 column = k + 16 * part;
        const bool inside = first + row < rows && column < columns;
        const i8* source = inside ? matrix + static_cast<u64>(first + row) * columns + column : matrix;
        copy_async(shared_address + row * K_STEP + ((part ^ (row % 8)) << 4), source, inside ? 16 : 0);
    }
}

// One tile of GROUPS * 64 outputs by ROWS activation rows; gridDim.y splits K: accumulators are [splits][rows][outputs].
template <u32 GROUPS, u32 ROWS, u32 STAGES>
__device__ __forceinline__ void product(i32* accumulators, const i8* weights, const i8* activations, u32 outputs,
                                        u32 rows, u32 columns) {
    constexpr u32 THREADS = GROUPS * GROUP_THREADS;
    constexpr u32 TILE_OUTPUTS = GROUPS * GROUP_OUTPUTS;
    constexpr u32 WIDTH = ROWS < 128 ? ROWS : 128;  // activation rows of one instruction
    constexpr u32 STAGE_BYTES = (TILE_OUTPUTS + ROWS) * K_STEP;
    extern __shared__ __align__(1024) u8 shared[];
    const u32 base = (static_cast<u32>(__cvta_generic_to_shared(shared)) + 1023) & ~1023u;
    const u32 row_tiles = (rows + ROWS - 1) / ROWS;
    const u32 first_row = blockIdx.x % row_tiles * ROWS, first_output = blockIdx.x / row_tiles * TILE_OUTPUTS;
    const u32 steps_all = (columns + K_STEP - 1) / K_STEP;
    const u32 step_begin = steps_all * blockIdx.y / gridDim.y, step_end = steps_all * (blockIdx.y + 1) / gridDim.y;
    const u32 steps = step_end - step_begin;
    const u32 group = threadIdx.x / GROUP_THREADS;

    auto load = [&](u32 step) {
        if (step < steps) {
            const u32 at = base + step % STAGES * STAGE_BYTES, k = (step_begin + step) * K_STEP;
            load_tile<TILE_OUTPUTS, THREADS>(at, weights, first_output, outputs, k, columns);
            load_tile<ROWS, THREADS>(at + TILE_OUTPUTS * K_STEP, activations, first_row, rows, k, columns);
        }
        asm volatile("cp.async.commit_group;\n" ::: "memory");
    };

    i32 acc[ROWS / WIDTH][WIDTH / 2] = {};
    for (u32 step = 0; step + 2 < STAGES; ++step) load(step);
    for (u32 step = 0; step < steps; ++step) {
        asm volatile("cp.async.wait_group %0;\n" ::"n"(STAGES - 3) : "memory");
        asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
        __syncthreads();
        load(step + STAGES - 2);  // into the stage whose products every warpgroup has awaited: step - 2
        const u32 at = base + step % STAGES * STAGE_BYTES;
        const u64 weights_at = tile_descriptor(at + group * GROUP_OUTPUTS * K_STEP);
        const u64 activations_at = tile_descriptor(at + TILE_OUTPUTS * K_STEP);
        wgmma_fence();
#pragma unroll
        for (u32 part = 0; part < K_STEP / 32; ++part) {
#pragma unroll
            for (u32 half = 0; half < ROWS / WIDTH; ++half)
                wgmma<WIDTH>(acc[half], weights_at + 2 * part, activations_at + 2 * part + half * (WIDTH * K_STEP >> 4));
        }
        wgmma_commit();
        wgmma_wait<1>();
    }
    wgmma_wait<0>();

    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (u32 i = 0; i < ROWS / 2; ++i) {
        const u32 row = first_row + i / 4 * 8 + lane % 4 * 2 + i % 2;
        const u32 output = first_output + group * GROUP_OUTPUTS + warp * 16 + lane / 4 + i % 4 / 2 * 8;
        if (row >= rows || output >= outputs) continue;
        accumulators[(static_cast<u64>(blockIdx.y) * rows + row) * outputs + output] =
            acc[i / (WIDTH / 2)][i % (WIDTH / 2)];
    }
}

}  // namespace warpgrid::exact
