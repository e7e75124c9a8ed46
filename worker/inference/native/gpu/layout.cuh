// Where the operands of matrix products lie in memory: in blocks that the copy engine moves whole, as wgmma reads them.
//
// A row's K is cut into blocks of 128 bytes, the last one padded. Weights are [row / 16][K / 128][16][128], activations
// [row / 64][K / 128][64][128]; within a block the sixteen-byte parts of row r are exchanged by r mod 8, the 128-byte
// swizzle that tensor cores and ldmatrix read without bank conflicts. A 16-bit activation is two rows, one for each
// limb (2r high, 2r + 1 low). Where stream.cuh multiplies a few rows, a block has these alone. Padded weights are zero;
// padded activations are whatever they are.
#pragma once

#include "core/native/platform.hpp"

namespace warpgrid::exact {

constexpr u32 K_BLOCK = 128;
constexpr u32 WEIGHT_ROWS = 16;
constexpr u32 WEIGHT_BLOCK_BYTES = WEIGHT_ROWS * K_BLOCK;
constexpr u32 ACTIVATION_ROWS = 64;
constexpr u32 ACTIVATION_BLOCK_BYTES = ACTIVATION_ROWS * K_BLOCK;

__device__ __forceinline__ u32 k_blocks(u32 columns) { return (columns + K_BLOCK - 1) / K_BLOCK; }

// Of byte `k` (< 128) of row `row` of a block.
__device__ __forceinline__ u32 swizzled(u32 row, u32 k) {
    return row * K_BLOCK + (((k / 16) ^ (row % 8)) * 16) + k % 16;
}

// `block_bytes` are ACTIVATION_BLOCK_BYTES, or less where there are fewer rows than a block has.
__device__ __forceinline__ u64 activation_offset(u32 row, u32 k, u32 blocks, u32 block_bytes) {
    return static_cast<u64>(row / ACTIVATION_ROWS) * blocks * ACTIVATION_BLOCK_BYTES + k / K_BLOCK * block_bytes +
           swizzled(row % ACTIVATION_ROWS, k % K_BLOCK);
}

// Row of the matrix that stands at `place` of the packed one. Where `paired` (gate_up), eight gates and the eight ups
// that belong to them share a block, so that one thread of a product holds both.
__device__ __forceinline__ u32 packed_source(u32 place, u32 outputs, bool paired) {
    if (!paired) return place;
    const u32 i = place / 16 * 8 + place % 8, f = outputs / 2;
    return i >= f ? outputs : place % 16 < 8 ? i : f + i;
}

// Place of gate i; its up is eight places on.
__device__ __forceinline__ u32 gate_place(u32 i) { return i / 8 * 16 + i % 8; }

}  // namespace warpgrid::exact
