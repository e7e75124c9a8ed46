// RIPEMD-160 (Dobbertin, Bosselaers, Preneel 1996), the precompile 0x03.
#pragma once

#include "core/native/crypto/bytes.hpp"
#include "core/native/crypto/sha256.hpp"

namespace warpgrid {

// Message word and rotation of each of the 80 steps, left line then right line.
WG_CONSTANT u8 RIPEMD160_WORD[2][80] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 7, 4, 13, 1, 10, 6, 15, 3, 12, 0, 9,
     5, 2, 14, 11, 8, 3, 10, 14, 4, 9, 15, 8, 1, 2, 7, 0, 6, 13, 11, 5, 12, 1, 9, 11, 10, 0, 8,
     12, 4, 13, 3, 7, 15, 14, 5, 6, 2, 4, 0, 5, 9, 7, 12, 2, 10, 14, 1, 3, 8, 11, 6, 15, 13},
    {5, 14, 7, 0, 9, 2, 11, 4, 13, 6, 15, 8, 1, 10, 3, 12, 6, 11, 3, 7, 0, 13, 5, 10, 14, 15, 8,
     12, 4, 9, 1, 2, 15, 5, 1, 3, 7, 14, 6, 9, 11, 8, 12, 2, 10, 0, 4, 13, 8, 6, 4, 1, 3, 11,
     15, 0, 5, 12, 2, 13, 9, 7, 10, 14, 12, 15, 10, 4, 1, 5, 8, 7, 6, 2, 13, 14, 0, 3, 9, 11},
};
WG_CONSTANT u8 RIPEMD160_SHIFT[2][80] = {
    {11, 14, 15, 12, 5, 8, 7, 9, 11, 13, 14, 15, 6, 7, 9, 8, 7, 6, 8, 13, 11, 9, 7, 15, 7, 12, 15,
     9, 11, 7, 13, 12, 11, 13, 6, 7, 14, 9, 13, 15, 14, 8, 13, 6, 5, 12, 7, 5, 11, 12, 14, 15, 14, 15,
     9, 8, 9, 14, 5, 6, 8, 6, 5, 12, 9, 15, 5, 11, 6, 8, 13, 12, 5, 12, 13, 14, 11, 8, 5, 6},
    {8, 9, 9, 11, 13, 15, 15, 5, 7, 7, 8, 11, 14, 14, 12, 6, 9, 13, 15, 7, 12, 8, 9, 11, 7, 7, 12,
     7, 6, 15, 13, 11, 9, 7, 15, 11, 8, 6, 6, 14, 12, 13, 5, 14, 13, 13, 7, 5, 15, 5, 8, 11, 14, 14,
     6, 14, 6, 9, 12, 9, 12, 5, 15, 8, 8, 5, 12, 9, 12, 5, 14, 6, 8, 13, 6, 5, 15, 13, 11, 11},
};

template <u32 FUNCTION>
WG_FN u32 ripemd160_mix(u32 x, u32 y, u32 z) {
    if constexpr (FUNCTION == 0) return x ^ y ^ z;
    if constexpr (FUNCTION == 1) return (x & y) | (~x & z);
    if constexpr (FUNCTION == 2) return (x | ~y) ^ z;
    if constexpr (FUNCTION == 3) return (x & z) | (y & ~z);
    if constexpr (FUNCTION == 4) return x ^ (y | ~z);
}

// Sixteen steps of one line (0 left, 1 right).
template <u32 LINE, u32 ROUND>
WG_FN void ripemd160_round(u32 (&s)[5], const u32 (&w)[16]) {
    constexpr u32 ADDENDS[2][5] = {{0x00000000, 0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xa953fd4e},
                                   {0x50a28be6, 0x5c4dd124, 0x6d703ef3, 0x7a6d76e9, 0x00000000}};
    constexpr u32 FUNCTION = LINE == 0 ? ROUND : 4 - ROUND;
    WG_UNROLL
    for (u32 i = 16 * ROUND; i < 16 * ROUND + 16; ++i) {
        const u32 sum = s[0] + ripemd160_mix<FUNCTION>(s[1], s[2], s[3]) + w[RIPEMD160_WORD[LINE][i]] +
                        ADDENDS[LINE][ROUND];
        const u32 t = rotate_left32(sum, RIPEMD160_SHIFT[LINE][i]) + s[4];
        s[0] = s[4];
        s[4] = s[3];
        s[3] = rotate_left32(s[2], 10);
        s[2] = s[1];
        s[1] = t;
    }
}

template <u32 LINE>
WG_FN void ripemd160_line(u32 (&s)[5], const u32 (&w)[16]) {
    ripemd160_round<LINE, 0>(s, w);
    ripemd160_round<LINE, 1>(s, w);
    ripemd160_round<LINE, 2>(s, w);
    ripemd160_round<LINE, 3>(s, w);
    ripemd160_round<LINE, 4>(s, w);
}

WG_FN void ripemd160_compress(u32 (&state)[5], const u8* block) {
    u32 w[16], left[5], right[5];
    WG_UNROLL
    for (u32 i = 0; i < 16; ++i) w[i] = load_little32(block + 4 * i);
    WG_UNROLL
    for (u32 i = 0; i < 5; ++i) left[i] = right[i] = state[i];
    ripemd160_line<0>(left, w);
    ripemd160_line<1>(right, w);
    const u32 first = state[1] + left[2] + right[3];
    state[1] = state[2] + left[3] + right[4];
    state[2] = state[3] + left[4] + right[0];
    state[3] = state[4] + left[0] + right[1];
    state[4] = state[0] + left[1] + right[2];
    state[0] = first;
}

// digest[20] = RIPEMD-160(data[0..size)).
WG_NOINLINE inline void ripemd160(u8* digest, const u8* data, u64 size) {
    u32 state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    const u64 whole_blocks = size / 64;
    for (u64 i = 0; i < whole_blocks; ++i) ripemd160_compress(state, data + 64 * i);
    u8 last[128];
    const u32 count = merkle_damgard_pad(last, data + 64 * whole_blocks, size);
    store_little64(last + 64 * count - 8, size * 8);
    for (u32 i = 0; i < count; ++i) ripemd160_compress(state, last + 64 * i);
    for (u32 i = 0; i < 5; ++i) store_little32(digest + 4 * i, state[i]);
}

}  // namespace warpgrid
