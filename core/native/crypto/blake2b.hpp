// The compression function F of BLAKE2b (RFC 7693, section 3.2), the precompile 0x09 (EIP-152).
#pragma once

#include "core/native/crypto/bytes.hpp"

namespace warpgrid {

WG_CONSTANT u64 BLAKE2B_INITIAL[8] = {
    0x6a09e667f3bcc908ull, 0xbb67ae8584caa73bull, 0x3c6ef372fe94f82bull, 0xa54ff53a5f1d36f1ull,
    0x510e527fade682d1ull, 0x9b05688c2b3e6c1full, 0x1f83d9abfb41bd6bull, 0x5be0cd19137e2179ull,
};

WG_CONSTANT u8 BLAKE2B_SIGMA[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

WG_FN void blake2b_quarter(u64& a, u64& b, u64& c, u64& d, u64 x, u64 y) {
    a += b + x;
    d = rotate_right64(d ^ a, 32);
    c += d;
    b = rotate_right64(b ^ c, 24);
    a += b + y;
    d = rotate_right64(d ^ a, 16);
    c += d;
    b = rotate_right64(b ^ c, 63);
}

template <u32 SCHEDULE>
WG_FN void blake2b_round(u64 (&v)[16], const u64 (&m)[16]) {
    constexpr const u8(&s)[16] = BLAKE2B_SIGMA[SCHEDULE];
    blake2b_quarter(v[0], v[4], v[8], v[12], m[s[0]], m[s[1]]);
    blake2b_quarter(v[1], v[5], v[9], v[13], m[s[2]], m[s[3]]);
    blake2b_quarter(v[2], v[6], v[10], v[14], m[s[4]], m[s[5]]);
    blake2b_quarter(v[3], v[7], v[11], v[15], m[s[6]], m[s[7]]);
    blake2b_quarter(v[0], v[5], v[10], v[15], m[s[8]], m[s[9]]);
    blake2b_quarter(v[1], v[6], v[11], v[12], m[s[10]], m[s[11]]);
    blake2b_quarter(v[2], v[7], v[8], v[13], m[s[12]], m[s[13]]);
    blake2b_quarter(v[3], v[4], v[9], v[14], m[s[14]], m[s[15]]);
}

// Round `index` uses schedule `index` mod 10; ten rounds are written out so that every message index is constant.
WG_FN void blake2b_rounds(u64 (&v)[16], const u64 (&m)[16], u32 rounds) {
    for (; rounds >= 10; rounds -= 10) {
        blake2b_round<0>(v, m);
        blake2b_round<1>(v, m);
        blake2b_round<2>(v, m);
        blake2b_round<3>(v, m);
        blake2b_round<4>(v, m);
        blake2b_round<5>(v, m);
        blake2b_round<6>(v, m);
        blake2b_round<7>(v, m);
        blake2b_round<8>(v, m);
        blake2b_round<9>(v, m);
    }
    if (rounds > 0) blake2b_round<0>(v, m);
    if (rounds > 1) blake2b_round<1>(v, m);
    if (rounds > 2) blake2b_round<2>(v, m);
    if (rounds > 3) blake2b_round<3>(v, m);
    if (rounds > 4) blake2b_round<4>(v, m);
    if (rounds > 5) blake2b_round<5>(v, m);
    if (rounds > 6) blake2b_round<6>(v, m);
    if (rounds > 7) blake2b_round<7>(v, m);
    if (rounds > 8) blake2b_round<8>(v, m);
}

// The EIP-152 format: rounds (4, big-endian), h (64), m (128), t (16), all little-endian, then the final flag 0 or 1.
constexpr u64 BLAKE2F_INPUT_BYTES = 213;

WG_NOINLINE inline void blake2f(u8* output, const u8* input) {
    u64 v[16], m[16];
    WG_UNROLL
    for (u32 i = 0; i < 8; ++i) {
        v[i] = load_little64(input + 4 + 8 * i);
        v[8 + i] = BLAKE2B_INITIAL[i];
    }
    WG_UNROLL
    for (u32 i = 0; i < 16; ++i) m[i] = load_little64(input + 68 + 8 * i);
    v[12] ^= load_little64(input + 196);
    v[13] ^= load_little64(input + 204);
    if (input[212] == 1) v[14] = ~v[14];
    blake2b_rounds(v, m, load_big32(input));
    WG_UNROLL
    for (u32 i = 0; i < 8; ++i) store_little64(output + 8 * i, load_little64(input + 4 + 8 * i) ^ v[i] ^ v[8 + i]);
}

}  // namespace warpgrid
