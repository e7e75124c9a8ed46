// Int8 matrix products on Hopper's tensor cores, and what is done with their sums while these are in registers.
//
// sum[m][n] = sum over k of activations[m][k] * weights[n][k]. The weights are the instruction's first operand (64 rows
// a warpgroup), the activations its second (8 to 256 rows), so that one kernel serves a batch of one and a long prompt.
// One warp feeds a ring of stages by bulk copies, two warpgroups multiply; blocks stay and take one tile after the
// other, so that the ring is full when a tile begins. Long prompts run in clusters of two blocks that share their
// activations: each fetches half and the copy engine delivers it to both, which is what keeps the L2 cache (about 27
// bytes a clock and multiprocessor) ahead of the tensor cores: 32 bytes a clock at their full rate, 48 without.
//
// Tried: both warpgroups of a block fetching for themselves (cp.async; 1,143 TOP/s); arriving at another block's
// barrier with .release.cluster, which fences the whole GPU (735 TOP/s). Tiles of 128 rows are bound by the L2 cache.
// The end of a tile is not overlapped with the next one's products: a fifth of gate_up's time.
//
// Where K is split, each split has sums of its own, which the reader adds (atomics on shared ones made the reader eight
// times slower).
//
// Floor: weights read once at the memory's rate up to about 200 rows, then 2 * M * N * K at the int8 rate (1,979
// TOP/s).
#pragma once

#include "worker/inference/native/gpu/layout.cuh"
#include "worker/inference/native/gpu/pipeline.cuh"

namespace warpgrid::exact {

constexpr u32 GROUP_OUTPUTS = 64;  // weight rows of one warpgroup
constexpr u32 GROUP_THREADS = 128;
constexpr u32 GROUPS = 2;
constexpr u32 TILE_OUTPUTS = GROUPS * GROUP_OUTPUTS;
constexpr u32 PRODUCT_THREADS = (GROUPS + 1) * GROUP_THREADS;

// Registers of a thread of the largest tile: of the 512 that a quarter of a multiprocessor has for each lane, 80 are
// left for rows of the batch before, which may still be being hashed (trace.cu). Of its three warps' 432 there the
// feeder's keeps 32, and each of the two that multiply takes 200.
constexpr u32 LARGE_REGISTERS = 144;

#define WG_ACC4(a, i) "+r"((a)[i]), "+r"((a)[(i) + 1]), "+r"((a)[(i) + 2]), "+r"((a)[(i) + 3])
#define WG_ACC16(a, i) WG_ACC4(a, i), WG_ACC4(a, (i) + 4), WG_ACC4(a, (i) + 8), WG_ACC4(a, (i) + 12)
#define WG_ACC64(a, i) WG_ACC16(a, i), WG_ACC16(a, (i) + 16), WG_ACC16(a, (i) + 32), WG_ACC16(a, (i) + 48)
#define WG_WGMMA(columns, registers, first, second, always, ...)                           \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " always ", 0;\n"                       \
                 "wgmma.mma_async.sync.aligned.m64n" columns "k32.s32.s8.s8 "              \
                 "{" registers "}, " first ", " second ", p;\n}\n"                         \
                 : __VA_ARGS__                                                             \
                 : "l"(weights), "l"(activations), "r"(1))

// acc += 64 weight rows times COLUMNS activation rows, over 32 bytes of K. Asynchronous: see wgmma_wait. 256 columns
// are two instructions: the one for them needs 154 registers at launch (see LARGE_REGISTERS) and was no faster.
template <u32 COLUMNS>
__device__ __forceinline__ void wgmma(i32* acc, u64 weights, u64 activations) {
    if constexpr (COLUMNS == 8) {
        WG_WGMMA("8",
                 "%0, %1, %2, %3",
                 "%4", "%5", "%6", WG_ACC4(acc, 0));
    } else if constexpr (COLUMNS == 16) {
        WG_WGMMA("16",
                 "%0, %1, %2, %3, %4, %5, %6, %7",
                 "%8", "%9", "%10", WG_ACC4(acc, 0), WG_ACC4(acc, 4));
    } else if constexpr (COLUMNS == 32) {
        WG_WGMMA("32",
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15",
                 "%16", "%17", "%18", WG_ACC16(acc, 0));
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
                 "%64", "%65", "%66", WG_ACC64(acc, 0));
    }
}

#undef WG_WGMMA
#undef WG_ACC64
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

// A matrix product: weights are padded to 256 rows, activations to the tile. `rows` counts limbs as rows.
struct Operands {
    const i8* weights;
    const i8* activations;
    u32 outputs, rows, columns, splits;
};

// What a thread holds when a tile is done: sums acc[ROWS / 2]. acc[4 * b + 2 * e + j] belongs to activation row
// row0 + 8 * b + j and weight row output0 + 8 * e.
struct Place {
    u32 row0, output0, split;
};

// The tiles of a launch. Blocks of a cluster take neighbouring outputs for the same rows; neighbouring clusters the
// same outputs for other rows.
template <u32 ROWS, u32 CLUSTER>
struct Tiles {
    u32 row_tiles, units, splits, blocks;

    __device__ __forceinline__ explicit Tiles(const Operands& o)
        : row_tiles((o.rows + ROWS - 1) / ROWS), splits(o.splits), blocks(k_blocks(o.columns)) {
        const u32 output_tiles = (o.outputs + CLUSTER * TILE_OUTPUTS - 1) / (CLUSTER * TILE_OUTPUTS);
        units = row_tiles * output_tiles * splits;
    }
    __device__ __forceinline__ u32 first_row(u32 unit) const { return unit % row_tiles * ROWS; }
    __device__ __forceinline__ u32 split(u32 unit) const { return unit / row_tiles % splits; }
    __device__ __forceinline__ u32 first_output(u32 unit, u32 rank) const {
        return (unit / row_tiles / splits * CLUSTER + rank) * TILE_OUTPUTS;
    }
    __device__ __forceinline__ u32 begin(u32 unit) const { return blocks * split(unit) / splits; }
    __device__ __forceinline__ u32 end(u32 unit) const { return blocks * (split(unit) + 1) / splits; }
};

template <u32 ROWS, u32 STAGES>
struct Ring {
    static constexpr u32 STAGE_BYTES = (TILE_OUTPUTS + ROWS) * K_BLOCK;
    u32 base, full, empty;

    __device__ __forceinline__ u32 stage(u32 use) const { return base + use % STAGES * STAGE_BYTES; }
    __device__ __forceinline__ u32 full_of(u32 use) const { return full + use % STAGES * 8; }
    __device__ __forceinline__ u32 empty_of(u32 use) const { return empty + use % STAGES * 8; }
    __device__ __forceinline__ static u32 parity(u32 use) { return use / STAGES % 2; }
};

// The blocks of K that one block of threads works on, tile after tile, and where their operands are.
template <u32 ROWS, u32 CLUSTER>
struct Walk {
    const Operands& operands;
    const Tiles<ROWS, CLUSTER>& tiles;
    u32 rank, unit, left;
    const i8* weights;
    const i8* activations;

    __device__ __forceinline__ Walk(const Operands& operands, const Tiles<ROWS, CLUSTER>& tiles, u32 rank)
        : operands(operands), tiles(tiles), rank(rank), unit(blockIdx.x / CLUSTER) {
        enter();
    }
    __device__ __forceinline__ bool more() const { return unit < tiles.units; }
    __device__ __forceinline__ void next() {
        weights += WEIGHT_BLOCK_BYTES;
        activations += ACTIVATION_BLOCK_BYTES;
        if (--left > 0) return;
        unit += gridDim.x / CLUSTER;
        enter();
    }
    __device__ __forceinline__ u64 block_of(u32 panel, u32 block) const {
        return static_cast<u64>(panel) * tiles.blocks + block;
    }
    __device__ __forceinline__ void enter() {
        const u32 row = tiles.first_row(unit), block = tiles.begin(unit);
        left = tiles.end(unit) - block;
        weights = operands.weights + block_of(tiles.first_output(unit, rank) / WEIGHT_ROWS, block) * WEIGHT_BLOCK_BYTES;
        activations = operands.activations + block_of(row / ACTIVATION_ROWS, block) * ACTIVATION_BLOCK_BYTES +
                      row % ACTIVATION_ROWS * K_BLOCK;
    }
};

// The thread that fetches. Weights of the first stages are on their way before the kernels ahead of this one have
// ended.
template <u32 ROWS, u32 STAGES, u32 CLUSTER>
struct Feeder {
    static constexpr u32 PARTS = ROWS > ACTIVATION_ROWS ? ROWS / ACTIVATION_ROWS : 1,
                         PART_BYTES = ROWS / PARTS * K_BLOCK;
    static_assert(PARTS % CLUSTER == 0);
    const Ring<ROWS, STAGES>& ring;
    u32 rank, blocks;

    __device__ __forceinline__ void run(const Operands& operands, const Tiles<ROWS, CLUSTER>& tiles) const {
        Walk<ROWS, CLUSTER> ahead(operands, tiles, rank);
        u32 started = 0;
        for (; started < STAGES && ahead.more(); ++started, ahead.next()) fetch_weights(ahead.weights, started);
        await_previous();
        async_proxy_follows();
        Walk<ROWS, CLUSTER> walk(operands, tiles, rank);
        for (u32 use = 0; use < started; ++use, walk.next()) fetch_activations(walk.activations, use);
        for (u32 use = started; walk.more(); ++use, walk.next()) {
            barrier_wait(ring.empty_of(use), ring.parity(use) ^ 1);
            fetch_weights(walk.weights, use);
            fetch_activations(walk.activations, use);
        }
        allow_next();
    }

    __device__ __forceinline__ void fetch_weights(const i8* weights, u32 use) const {
        const u32 at = ring.stage(use), full = ring.full_of(use);
        barrier_expect(full, ring.STAGE_BYTES);
#pragma unroll
        for (u32 i = 0; i < TILE_OUTPUTS / WEIGHT_ROWS; ++i)
            copy_bulk(at + i * WEIGHT_BLOCK_BYTES, weights + static_cast<u64>(i) * blocks * WEIGHT_BLOCK_BYTES,
                      WEIGHT_BLOCK_BYTES, full);
    }

    __device__ __forceinline__ void fetch_activations(const i8* activations, u32 use) const {
        const u32 at = ring.stage(use) + TILE_OUTPUTS * K_BLOCK, full = ring.full_of(use);
#pragma unroll
        for (u32 i = 0; i < PARTS / CLUSTER; ++i) {
            const u32 part = i * CLUSTER + rank, target = at + part * PART_BYTES;
            const i8* source = activations + static_cast<u64>(part) * blocks * ACTIVATION_BLOCK_BYTES;
            if constexpr (CLUSTER == 1) copy_bulk(target, source, PART_BYTES, full);
            else copy_bulk_to_all(target, source, PART_BYTES, full, (1 << CLUSTER) - 1);
        }
    }
};

template <u32 ROWS, u32 STAGES, u32 CLUSTER>
__device__ __forceinline__ void leave_stage(const Ring<ROWS, STAGES>& ring, u32 use) {
    if (threadIdx.x % 32 != 0) return;
    if constexpr (CLUSTER == 1) {
        barrier_arrive(ring.empty_of(use));
    } else {
#pragma unroll
        for (u32 rank = 0; rank < CLUSTER; ++rank) barrier_arrive_at(ring.empty_of(use), rank);
    }
}

template <u32 ROWS, u32 STAGES, u32 CLUSTER, typename Finish>
__device__ __forceinline__ void multiply(const Tiles<ROWS, CLUSTER>& tiles, const Ring<ROWS, STAGES>& ring, u32 rank,
                                         const Finish& finish) {
    constexpr u32 COLUMNS = ROWS < 128 ? ROWS : 128;
    const u32 group = threadIdx.x / GROUP_THREADS, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    u32 use = 0;
    for (u32 unit = blockIdx.x / CLUSTER; unit < tiles.units; unit += gridDim.x / CLUSTER) {
        i32 acc[ROWS / 2] = {};
        const u32 last = use + tiles.end(unit) - tiles.begin(unit);
        for (const u32 first = use; use < last; ++use) {
            barrier_wait(ring.full_of(use), ring.parity(use));
            const u32 stage = ring.stage(use);
            const u64 weights = tile_descriptor(stage + group * GROUP_OUTPUTS * K_BLOCK);
            const u64 activations = tile_descriptor(stage + TILE_OUTPUTS * K_BLOCK);
            wgmma_fence();
#pragma unroll
            for (u32 part = 0; part < K_BLOCK / 32; ++part) {
#pragma unroll
                for (u32 row = 0; row < ROWS; row += COLUMNS) {
                    const u32 at = row * K_BLOCK + 32 * part;
                    wgmma<COLUMNS>(acc + row / 2, weights + 32 * part / 16, activations + at / 16);
                }
            }
            wgmma_commit();
            if (use == first) continue;
            wgmma_wait<1>();
            leave_stage<ROWS, STAGES, CLUSTER>(ring, use - 1);
        }
        wgmma_wait<0>();
        leave_stage<ROWS, STAGES, CLUSTER>(ring, use - 1);
#pragma unroll
        for (u32 i = 0; i < ROWS / 2; ++i) asm volatile("" : "+r"(acc[i])::"memory");  // not to be read before the wait
        finish(acc, Place{tiles.first_row(unit) + lane % 4 * 2,
                          tiles.first_output(unit, rank) + group * GROUP_OUTPUTS + warp * 16 + lane / 4,
                          tiles.split(unit)});
    }
}

// The whole product by this block and those beside it. `finish(acc, place)` is called by 256 threads for each tile.
template <u32 ROWS, u32 STAGES, u32 CLUSTER, typename Finish>
__device__ __forceinline__ void product(const Operands& operands, const Finish& finish) {
    extern __shared__ __align__(1024) u8 shared[];
    __shared__ __align__(8) u64 barriers[2][STAGES];
    const Tiles<ROWS, CLUSTER> tiles(operands);
    const Ring<ROWS, STAGES> ring = {(shared_address(shared) + 1023) & ~1023u, shared_address(barriers[0]),
                                     shared_address(barriers[1])};
    const u32 rank = CLUSTER == 1 ? 0 : cluster_rank();
    if (threadIdx.x == 0) {
        for (u32 stage = 0; stage < STAGES; ++stage) {
            barrier_init(ring.full_of(stage), 1);
            barrier_init(ring.empty_of(stage), CLUSTER * GROUPS * 4);
        }
        barrier_init_done();
    }
    __syncthreads();
    if constexpr (CLUSTER > 1) cluster_sync();
    if (threadIdx.x >= GROUPS * GROUP_THREADS) {
        if constexpr (ROWS > 128) asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
        if (threadIdx.x == GROUPS * GROUP_THREADS)
            Feeder<ROWS, STAGES, CLUSTER>{ring, rank, tiles.blocks}.run(operands, tiles);
    } else {
        if constexpr (ROWS > 128) asm volatile("setmaxnreg.inc.sync.aligned.u32 200;");
        await_previous();
        multiply<ROWS, STAGES, CLUSTER>(tiles, ring, rank, finish);
    }
    if constexpr (CLUSTER > 1) cluster_sync();  // nobody leaves while another may still write into its memory
}

}  // namespace warpgrid::exact
