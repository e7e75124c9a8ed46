// The trace's hashes (docs/trace.md, section 1) on a GPU: rows into leaves, and the leaves of a position into its root.
//
// trace_leaves: one thread a row, for SHA-256 is a chain. What binds is the integer pipe of a multiprocessor's quarter:
//   64 rounds of some 22 instructions at half rate, about 2,800 clocks a block of 64 bytes for every warp, whether alone
//   or not. A row of 16 KiB takes 0.40 ms (predicted: 0.37), and so do all rows of 256 positions of Llama-3-8B; 2,048
//   positions, 1.25 GB, take 2.2 ms, 560 GB/s. So the host lets it run beside the next batch, which leaves those pipes
//   idle (worker/inference/exact/gpu_trace.py): 0.6 to 3.3 % of a batch's time, where rows that travelled to the host
//   cost 4 to 293 %.
// trace_roots: one block for a few positions; a warp hashes 32 nodes at a time. 0.06 ms, 0.19 for 2,048 positions.
// No difference: asking for the products' split of shared memory.
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
        digest[i] = {swap_word(state[4 * i]), swap_word(state[4 * i + 1]), swap_word(state[4 * i + 2]), swap_word(state[4 * i + 3])};
}

}  // namespace

// Leaves [count][leaves_each][32] of `count` positions: of the residual rows, the key-value rows and the tokens, by the
// first, the middle and the last blocks. Leaves that are no row's stay as they are.
extern "C" __global__ void __launch_bounds__(128)
    trace_leaves(u8* leaves, const i32* boundaries, const u8* kv_rows, const i32* tokens, u32 leaves_each, u32 count, u32 layers,
                 u32 residual_bytes, u32 kv_bytes) {
    Rows rows = {reinterpret_cast<const u8*>(boundaries), residual_bytes, layers + 1, 1};
    u32 block = blockIdx.x;
    u32 blocks = (count * rows.each + blockDim.x - 1) / blockDim.x;
    if (block >= blocks) {
        block -= blocks;
        rows = {kv_rows, kv_bytes, layers, 2};
        blocks = (count * rows.each + blockDim.x - 1) / blockDim.x;
        if (block >= blocks) {
            block -= blocks;
            rows = {reinterpret_cast<const u8*>(tokens), 4, 1, 0};
        }
    }
    const u32 index = block * blockDim.x + threadIdx.x;
    if (index < count * rows.each) hash_row(leaves, leaves_each, rows, index);
}

// roots[count][32]: each block takes positions_each positions. Shared memory: half as many digests as they have leaves.
extern "C" __global__ void __launch_bounds__(WARP)
    trace_roots(u8* roots, const u8* leaves, u32 leaves_each, u32 count, u32 positions_each) {
    extern __shared__ u64 nodes[];
    constexpr u32 WORDS = DIGEST_BYTES / 8;
    const u32 position = blockIdx.x * positions_each;
    const u32 positions = min(positions_each, count - position);
    const u64* below = reinterpret_cast<const u64*>(leaves + static_cast<u64>(position) * leaves_each * DIGEST_BYTES);
    for (u32 level = positions * leaves_each / 2; level >= positions; level /= 2) {
        for (u32 first = 0; first < level; first += WARP) {
            const u32 node = first + threadIdx.x;
            u64 state[25] = {};
            if (node < level) {
#pragma unroll
                for (u32 i = 0; i < 2 * WORDS; ++i) state[i] = below[2 * WORDS * node + i];
                state[2 * WORDS] = 1;
                state[KECCAK256_RATE_BYTES / 8 - 1] = 0x80ull << 56;
                keccak_permute(state);
            }
            __syncwarp();  // a level takes the place of the one below it: no node lies where a later one still reads
            if (node < level) {
#pragma unroll
                for (u32 i = 0; i < WORDS; ++i) nodes[WORDS * node + i] = state[i];
            }
            __syncwarp();
        }
        below = nodes;
    }
    for (u32 word = threadIdx.x; word < positions * WORDS; word += WARP)
        reinterpret_cast<u64*>(roots + static_cast<u64>(position) * DIGEST_BYTES)[word] = nodes[word];
}
