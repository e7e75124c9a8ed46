// SHA-256 (FIPS 180-4), the precompile 0x02.
#pragma once

#include "core/native/crypto/bytes.hpp"

#if WG_X86
#include "core/native/crypto/sha256_x86.hpp"
#endif

namespace warpgrid {

WG_CONSTANT u32 SHA256_ROUND_CONSTANTS[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

WG_FN void sha256_round(u32 (&s)[8], u32 word_plus_constant) {
    const u32 choose = (s[4] & s[5]) ^ (~s[4] & s[6]);
    const u32 majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
    const u32 sum1 = rotate_right32(s[4], 6) ^ rotate_right32(s[4], 11) ^ rotate_right32(s[4], 25);
    const u32 sum0 = rotate_right32(s[0], 2) ^ rotate_right32(s[0], 13) ^ rotate_right32(s[0], 22);
    const u32 t = s[7] + sum1 + choose + word_plus_constant;
    s[7] = s[6];
    s[6] = s[5];
    s[5] = s[4];
    s[4] = s[3] + t;
    s[3] = s[2];
    s[2] = s[1];
    s[1] = s[0];
    s[0] = t + sum0 + majority;
}

WG_FN void sha256_begin(u32 (&state)[8]) {
    constexpr u32 INITIAL[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    WG_UNROLL
    for (u32 i = 0; i < 8; ++i) state[i] = INITIAL[i];
}

// Rounds first .. first + 15 with the words w of the schedule, which become the next sixteen.
WG_FN void sha256_sixteen_rounds(u32 (&s)[8], u32 (&w)[16], u32 first) {
    WG_UNROLL
    for (u32 i = 0; i < 16; ++i) {
        sha256_round(s, w[i] + SHA256_ROUND_CONSTANTS[first + i]);
        const u32 w1 = w[(i + 1) % 16], w14 = w[(i + 14) % 16];
        w[i] += (rotate_right32(w1, 7) ^ rotate_right32(w1, 18) ^ (w1 >> 3)) + w[(i + 9) % 16] +
                (rotate_right32(w14, 17) ^ rotate_right32(w14, 19) ^ (w14 >> 10));
    }
}

WG_FN void sha256_compress(u32 (&state)[8], const u8* block) {
    u32 w[16], s[8];
    WG_UNROLL
    for (u32 i = 0; i < 16; ++i) w[i] = load_big32(block + 4 * i);
    WG_UNROLL
    for (u32 i = 0; i < 8; ++i) s[i] = state[i];
    for (u32 first = 0; first < 64; first += 16) sha256_sixteen_rounds(s, w, first);
    WG_UNROLL
    for (u32 i = 0; i < 8; ++i) state[i] += s[i];
}

// The next `count` blocks of N messages.
template <u32 N>
WG_FN void sha256_compress_all(u32 (&states)[N][8], const u8* const (&messages)[N], u64 count) {
#if WG_X86
    if (PROCESSOR.sha) return sha256_compress_x86<N>(states, messages, count, SHA256_ROUND_CONSTANTS);
#endif
    for (u32 n = 0; n < N; ++n)
        for (u64 i = 0; i < count; ++i) sha256_compress(states[n], messages[n] + 64 * i);
}

// Pads `tail` (fewer than 64 bytes) after `size` bytes in total into one or two blocks; returns how many. Shared by
// the hashes of the MD family, which differ only in the byte order of the length.
WG_FN u32 merkle_damgard_pad(u8 (&blocks)[128], const u8* tail, u64 size) {
    const u64 tail_bytes = size % 64;
    const u32 count = tail_bytes < 56 ? 1 : 2;
    copy_bytes(blocks, tail, tail_bytes);
    zero_bytes(blocks + tail_bytes, 64 * count - tail_bytes);
    blocks[tail_bytes] = 0x80;
    return count;
}

// Digests of N messages of one size: digests[n][32] = SHA-256(messages[n][0..size)).
template <u32 N>
WG_NOINLINE inline void sha256_together(u8* const (&digests)[N], const u8* const (&messages)[N], u64 size) {
    u32 states[N][8];
    for (u32 n = 0; n < N; ++n) sha256_begin(states[n]);
    const u64 whole_blocks = size / 64;
    sha256_compress_all<N>(states, messages, whole_blocks);
    u8 last[N][128];
    const u8* ends[N];
    u32 count = 0;
    for (u32 n = 0; n < N; ++n) {
        count = merkle_damgard_pad(last[n], messages[n] + 64 * whole_blocks, size);
        store_big64(last[n] + 64 * count - 8, size * 8);
        ends[n] = last[n];
    }
    sha256_compress_all<N>(states, ends, count);
    for (u32 n = 0; n < N; ++n)
        for (u32 i = 0; i < 8; ++i) store_big32(digests[n] + 4 * i, states[n][i]);
}

// digest[32] = SHA-256(data[0..size)).
WG_FN void sha256(u8* digest, const u8* data, u64 size) { sha256_together<1>({digest}, {data}, size); }

}  // namespace warpgrid
