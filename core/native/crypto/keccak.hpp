// Keccak-256 as Ethereum uses it (the original padding 0x01, not SHA-3's 0x06). Source: the Keccak reference,
// version 3.0, section 1.2; rotation offsets and round constants as there.
#pragma once

#include "core/native/platform.hpp"

namespace warpgrid {

constexpr u32 KECCAK256_RATE_BYTES = 136;

WG_CONSTANT u64 KECCAK_ROUND_CONSTANTS[24] = {
    0x0000000000000001ull, 0x0000000000008082ull, 0x800000000000808aull, 0x8000000080008000ull,
    0x000000000000808bull, 0x0000000080000001ull, 0x8000000080008081ull, 0x8000000000008009ull,
    0x000000000000008aull, 0x0000000000000088ull, 0x0000000080008009ull, 0x000000008000000aull,
    0x000000008000808bull, 0x800000000000008bull, 0x8000000000008089ull, 0x8000000000008003ull,
    0x8000000000008002ull, 0x8000000000000080ull, 0x000000000000800aull, 0x800000008000000aull,
    0x8000000080008081ull, 0x8000000000008080ull, 0x0000000080000001ull, 0x8000000080008008ull,
};

WG_FN u64 rotate_left(u64 x, u32 bits) { return bits == 0 ? x : (x << bits) | (x >> (64 - bits)); }

// One lane of rho and pi: b[Y][2X+3Y] = rotl(a[X][Y]). Written out so that every index is a compile-time constant
// and the state stays in registers on both back ends.
WG_FN void keccak_round(u64 (&a)[25], u64 round_constant) {
    u64 c[5], d[5], b[25];
#pragma GCC unroll 5
    for (u32 x = 0; x < 5; ++x) c[x] = a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20];
#pragma GCC unroll 5
    for (u32 x = 0; x < 5; ++x) d[x] = c[(x + 4) % 5] ^ rotate_left(c[(x + 1) % 5], 1);
#pragma GCC unroll 25
    for (u32 i = 0; i < 25; ++i) a[i] ^= d[i % 5];

    b[0] = a[0];
    b[10] = rotate_left(a[1], 1);   b[20] = rotate_left(a[2], 62);  b[5] = rotate_left(a[3], 28);
    b[15] = rotate_left(a[4], 27);  b[16] = rotate_left(a[5], 36);  b[1] = rotate_left(a[6], 44);
    b[11] = rotate_left(a[7], 6);   b[21] = rotate_left(a[8], 55);  b[6] = rotate_left(a[9], 20);
    b[7] = rotate_left(a[10], 3);   b[17] = rotate_left(a[11], 10); b[2] = rotate_left(a[12], 43);
    b[12] = rotate_left(a[13], 25); b[22] = rotate_left(a[14], 39); b[23] = rotate_left(a[15], 41);
    b[8] = rotate_left(a[16], 45);  b[18] = rotate_left(a[17], 15); b[3] = rotate_left(a[18], 21);
    b[13] = rotate_left(a[19], 8);  b[14] = rotate_left(a[20], 18); b[24] = rotate_left(a[21], 2);
    b[9] = rotate_left(a[22], 61);  b[19] = rotate_left(a[23], 56); b[4] = rotate_left(a[24], 14);

#pragma GCC unroll 5
    for (u32 y = 0; y < 25; y += 5) {
#pragma GCC unroll 5
        for (u32 x = 0; x < 5; ++x) a[y + x] = b[y + x] ^ (~b[y + (x + 1) % 5] & b[y + (x + 2) % 5]);
    }
    a[0] ^= round_constant;
}

WG_FN void keccak_permute(u64 (&state)[25]) {
    for (u32 round = 0; round < 24; ++round) keccak_round(state, KECCAK_ROUND_CONSTANTS[round]);
}

WG_FN void keccak_absorb_byte(u64 (&state)[25], u32 position, u8 value) {
    state[position / 8] ^= static_cast<u64>(value) << (8 * (position % 8));
}

// digest[32] = keccak256(data[0..size)). The buffers may not overlap.
WG_NOINLINE inline void keccak256(u8* digest, const u8* data, u64 size) {
    u64 state[25] = {};
    u32 position = 0;
    for (u64 i = 0; i < size; ++i) {
        keccak_absorb_byte(state, position, data[i]);
        if (++position == KECCAK256_RATE_BYTES) {
            keccak_permute(state);
            position = 0;
        }
    }
    keccak_absorb_byte(state, position, 0x01);
    keccak_absorb_byte(state, KECCAK256_RATE_BYTES - 1, 0x80);
    keccak_permute(state);
    for (u32 i = 0; i < 32; ++i) digest[i] = static_cast<u8>(state[i / 8] >> (8 * (i % 8)));
}

}  // namespace warpgrid
