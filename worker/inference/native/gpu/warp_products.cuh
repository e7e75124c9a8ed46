// The tensor cores as a warp uses them: products of 16 x 32 and 32 x 8 bytes (mma.sync), and how their operands come
// from shared memory.
//
// Of the first operand a lane has words (row lane / 4, bytes 4 c ..; c = lane % 4), (row + 8, the same), (row, bytes 16
// + 4 c ..), (row + 8, the same); of the second (column lane / 4, bytes 4 c ..) and (the same column, bytes 16 + 4 c
// ..); of the sums rows lane / 4 ([0], [1]) and lane / 4 + 8 ([2], [3]), columns 2 c and 2 c + 1.
#pragma once

#include "core/native/platform.hpp"

namespace warpgrid::exact {

template <typename Word>
__device__ __forceinline__ void mma_s8(Word (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void mma_u8(i32 (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four matrices of 8 rows x 16 bytes; each lane names a row (matrix lane / 8), and gets word lane % 4 of row lane / 4
// of each.
__device__ __forceinline__ void load_matrices(u32 (&words)[4], u32 row_address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(row_address)
                 : "memory");
}

}  // namespace warpgrid::exact
