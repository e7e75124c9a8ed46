// The trace's hashes (docs/trace.md, section 1) on a GPU: rows into leaves, and the leaves of a position into its root.
//
// One thread a row, for SHA-256 is a chain: 64 rounds of some 22 instructions at half rate, 2,750 clocks a block of 64
// bytes for a warp. A row of 16 KiB takes 0.4 ms, and so do all rows of 256 positions of Llama-3-8B; 2,048 positions,
// 1.1 GB, take 1.8 ms, and their trees 0.2. So the host lets it run beside the next batch (gpu_trace.py), and it must
// not be in its way. Three things were, found with a kernel that only sleeps beside a batch (H200):
// - Registers: one block of four warps a multiprocessor, at most 80 registers a thread, is what fits beside the largest
//   products (matmul.cuh, LARGE_REGISTERS). It is enough to keep the integer pipes busy.
// - Shared memory: unless it asks for the split that large products have, they wait until it has ended.
// - A kernel of its own for the trees started in the midst of the next batch, where the device put 25 of its blocks on
//   each of the few multiprocessors that just had room, and products waited for those (SmolLM2's shape, 4 x 512: 0.4
//   of 6.3 ms).
// What is left is the work itself: the batch's own integer instructions wait for these, and at the shape of Llama-3-8B
// the device is at its power limit (692 W). Tried without gain: a fifth of the integer pipe's instructions given to the
// multiplier (additions by multiply-add, shifts by multiplication: 0.37 to 0.41 ms alone, the same beside a batch), and
// sleeping between blocks of a row (longer beside the batch, dearer: 4 x 512 3.2 to 7.3 %).
#include "core/native/crypto/keccak.hpp"
#include "core/native/crypto/sha256.hpp"

using namespace warpgrid;

namespace {

constexpr u32 DIGEST_BYTES = 32;
constexpr u32 WARP = 32;

// Rows of one kind: row `index` is at data + index * bytes; its digest is leaf first + 2 * (index % each) of position
// index / each.
struct Rows {
    const u8* data;
    u32 bytes;  // a multiple of 4
    u32 each;
    u32 first;
};

// The words of a whole block, little-endian. Rows that are no multiple of 16 bytes are one of 8.
__device__ __forceinline__ void load_block(u32 (&words)[16], const u8* at, bool wide) {
    if (wide) {
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            const uint4 four = reinterpret_cast<const uint4*>(at)[i];
            words[4 * i] = four.x, words[4 * i + 1] = four.y, words[4 * i + 2] = four.z, words[4 * i + 3] = four.w;
        }
    } else {
#pragma unroll
        for (u32 i = 0; i < 8; ++i) {
            const uint2 two = reinterpret_cast<const uint2*>(at)[i];
            words[2 * i] = two.x, words[2 * i + 1] = two.y;
        }
    }
}

__device__ __forceinline__ u32 swap_word(u32 word) { return __byte_perm(word, 0, 0x0123); }

// Words of a block that the message's end is in: its last bytes, a one, zeros, its length.
__device__ __forceinline__ void pad_block(u32 (&w)[16], const u8* row, u32 bytes, u32 block, bool last) {
    const u32* words = reinterpret_cast<const u32*>(row);
    const u32 count = bytes / 4;
#pragma unroll
    for (u32 i = 0; i < 16; ++i) {
        const u32 at = 16 * block + i;
        w[i] = at < count ? swap_word(words[at]) : at == count ? 1u << 31 : last && i == 15 ? 8 * bytes : 0;
    }
}

__device__ __forceinline__ void hash_row(u8* leaves, u32 leaves_each, const Rows& rows, u32 index) {
    const u8* row = rows.data + static_cast<u64>(index) * rows.bytes;
    const u32 whole = rows.bytes / 64, blocks = whole + (rows.bytes % 64 < 56 ? 1 : 2);
    const bool wide = rows.bytes % 16 == 0;
    u32 state[8], next[16];
    sha256_begin(state);
    if (whole > 0) load_block(next, row, wide);
#pragma unroll 1
    for (u32 block = 0; block < blocks; ++block) {
        u32 w[16], s[8];
        if (block < whole) {
#pragma unroll
            for (u32 i = 0; i < 16; ++i) w[i] = swap_word(next[i]);
            if (block + 1 < whole) load_block(next, row + 64 * (block + 1), wide);  // arrives while this one is hashed
        } else {
            pad_block(w, row, rows.bytes, block, block + 1 == blocks);
        }
#pragma unroll
        for (u32 i = 0; i < 8; ++i) s[i] = state[i];
#pragma unroll
        for (u32 first = 0; first < 64; first += 16) sha256_sixteen_rounds(s, w, first);
#pragma unroll
        for (u32 i = 0; i < 8; ++i) state[i] += s[i];
    }
    const u64 leaf = static_cast<u64>(index / rows.each) * leaves_each + rows.first + 2 * (index % rows.each);
    uint4* digest = reinterpret_cast<uint4*>(leaves + leaf * DIGEST_BYTES);
#pragma unroll
    for (u32 i = 0; i < 2; ++i)
        digest[i] = {swap_word(state[4 * i]), swap_word(state[4 * i + 1]), swap_word(state[4 * i + 2]),
                     swap_word(state[4 * i + 3])};
}

// What a batch is hashed from: residual rows [count][layers + 1][residual_bytes], key-value rows
// [count][layers][kv_bytes] and tokens [count]. Lengths of rows are multiples of 4 bytes.
struct Batch {
    const u8* boundaries;
    const u8* kv_rows;
    const u8* tokens;
    u32 layers, residual_bytes, kv_bytes;
};

// Whether `index` lies behind the rows of a kind, `all` of them; then it counts from there on. Kinds take whole warps.
__device__ __forceinline__ bool passed(u32& index, u32 all) {
    const u32 lanes = (all + WARP - 1) / WARP * WARP;
    if (index < lanes) return false;
    index -= lanes;
    return true;
}

// Leaves of positions first .. first + positions - 1, by the whole block: its warps claim 32 rows of a kind at a time,
// the longest kind first. Leaves that are no row's stay as they are.
__device__ __forceinline__ void hash_rows(u8* leaves, u32 leaves_each, const Batch& batch, u32 first, u32 positions) {
    __shared__ u32 claimed;
    if (threadIdx.x == 0) claimed = 0;
    __syncthreads();
#pragma unroll 1
    for (;;) {
        const u32 lane = threadIdx.x % WARP;
        u32 index = lane == 0 ? atomicAdd(&claimed, WARP) : 0;
        index = __shfl_sync(~0u, index, 0) + lane;
        Rows rows = {batch.boundaries, batch.residual_bytes, batch.layers + 1, 1};
        if (passed(index, positions * rows.each)) {
            rows = {batch.kv_rows, batch.kv_bytes, batch.layers, 2};
            if (passed(index, positions * rows.each)) {
                rows = {batch.tokens, 4, 1, 0};
                if (passed(index, positions)) break;
            }
        }
        if (index < positions * rows.each) hash_row(leaves, leaves_each, rows, first * rows.each + index);
    }
    __syncthreads();
}

// Roots of `positions` positions from their leaves, by the whole block. `nodes`, in shared memory, has room for half as
// many digests as they have leaves.
__device__ __forceinline__ void climb(u8* roots, const u8* leaves, u32 leaves_each, u32 positions, u64* nodes) {
    constexpr u32 WORDS = DIGEST_BYTES / 8;
    const u64* below = reinterpret_cast<const u64*>(leaves);
#pragma unroll 1
    for (u32 level = positions * leaves_each / 2; level >= positions; level /= 2) {
#pragma unroll 1
        for (u32 first = 0; first < level; first += blockDim.x) {
            const u32 node = first + threadIdx.x;
            u64 state[25] = {};
            if (node < level) {
#pragma unroll
                for (u32 i = 0; i < 2 * WORDS; ++i) state[i] = below[2 * WORDS * node + i];
                state[2 * WORDS] = 1;
                state[KECCAK256_RATE_BYTES / 8 - 1] = 0x80ull << 56;
                keccak_permute(state);
            }
            __syncthreads();  // a level takes the place of the one below it: no node lies where a later one still reads
            if (node < level) {
#pragma unroll
                for (u32 i = 0; i < WORDS; ++i) nodes[WORDS * node + i] = state[i];
            }
            __syncthreads();
        }
        below = nodes;
    }
    for (u32 word = threadIdx.x; word < positions * WORDS; word += blockDim.x)
        reinterpret_cast<u64*>(roots)[word] = nodes[word];
    __syncthreads();
}

}  // namespace

// roots[count][32] of a batch, by at most one block a multiprocessor: each takes an equal part of the positions and
// climbs `together` of them at a time. leaves[count][leaves_each][32], zero where no row's, are its workspace.
extern "C" __global__ void __launch_bounds__(128, 6)  // at most 80 registers: so many the largest products leave
    trace_roots(u8* roots, u8* leaves, const i32* boundaries, const u8* kv_rows, const i32* tokens, u32 leaves_each,
                u32 count, u32 layers, u32 residual_bytes, u32 kv_bytes, u32 together) {
    extern __shared__ u64 nodes[];
    const Batch batch = {reinterpret_cast<const u8*>(boundaries), kv_rows, reinterpret_cast<const u8*>(tokens),
                         layers, residual_bytes, kv_bytes};
    const u32 begin = count * blockIdx.x / gridDim.x, end = count * (blockIdx.x + 1) / gridDim.x;
    hash_rows(leaves, leaves_each, batch, begin, end - begin);
#pragma unroll 1
    for (u32 first = begin; first < end; first += together) {
        const u64 position = first;
        climb(roots + position * DIGEST_BYTES, leaves + position * leaves_each * DIGEST_BYTES, leaves_each,
              min(together, end - first), nodes);
    }
}
