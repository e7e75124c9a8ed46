// Keccak-256 as Ethereum uses it (the original padding 0x01, not SHA-3's 0x06). Source: the Keccak reference,
// version 3.0, section 1.2; rotation offsets and round constants as there.
#pragma once

#include "core/native/crypto/bytes.hpp"

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

// Rotation of lane (x, y), at index x + 5y.
WG_CONSTANT u8 KECCAK_ROTATIONS[25] = {
    0, 1, 62, 28, 27, 36, 44, 6, 55, 20, 3, 10, 43, 25, 39, 41, 45, 15, 21, 8, 18, 2, 61, 56, 14,
};

}  // namespace warpgrid

#if WG_X86
#include "core/native/crypto/keccak_single_x86.hpp"
#endif

namespace warpgrid {

WG_FN void keccak_parities(u64 (&c)[5], const u64 (&a)[25]) {
    WG_UNROLL
    for (u32 x = 0; x < 5; ++x) c[x] = a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20];
}

// One round from `a` to `e`. Rows are finished one after another, so that five new lanes and the ten words of theta are
// all that lives beside the two states; every index is a compile-time constant on both back ends. `c` holds the
// parities of the columns of `a`, then of `e`: a CPU gathers them while the lanes are in
// registers, a GPU has them to spare.
WG_FN void keccak_round(u64 (&e)[25], const u64 (&a)[25], u64 (&c)[5], u64 round_constant) {
    if constexpr (WG_ON_DEVICE) keccak_parities(c, a);
    u64 d[5];
    WG_UNROLL
    for (u32 x = 0; x < 5; ++x) d[x] = c[(x + 4) % 5] ^ rotate_left64(c[(x + 1) % 5], 1);
    WG_UNROLL
    for (u32 y = 0; y < 5; ++y) {
        // Row y of pi takes lane (x, y) from column (x + 3y) mod 5, row x.
        u64 b[5];
        WG_UNROLL
        for (u32 x = 0; x < 5; ++x) {
            const u32 column = (x + 3 * y) % 5;
            b[x] = rotate_left64(a[5 * x + column] ^ d[column], KECCAK_ROTATIONS[5 * x + column]);
        }
        WG_UNROLL
        for (u32 x = 0; x < 5; ++x) e[5 * y + x] = b[x] ^ (~b[(x + 1) % 5] & b[(x + 2) % 5]);
        if (y == 0) e[0] ^= round_constant;
        if constexpr (!WG_ON_DEVICE) {
            WG_UNROLL
            for (u32 x = 0; x < 5; ++x) c[x] = y == 0 ? e[x] : c[x] ^ e[5 * y + x];
        }
    }
}

WG_FN void keccak_permute(u64 (&state)[25]) {
    u64 next[25], c[5];
    keccak_parities(c, state);
    for (u32 round = 0; round < 24; round += 2) {
        keccak_round(next, state, c, KECCAK_ROUND_CONSTANTS[round]);
        keccak_round(state, next, c, KECCAK_ROUND_CONSTANTS[round + 1]);
    }
}

// Word i of a message. A GPU loads words only where they are aligned; g++ makes one load of the bytes anywhere.
WG_FN u64 keccak_word(const u8* data, u32 i, bool aligned) {
    return aligned ? reinterpret_cast<const u64*>(data)[i] : load_little64(data + 8 * i);
}

// digest[32] = keccak256(data[0..size)). The buffers may overlap.
WG_NOINLINE inline void keccak256(u8* digest, const u8* data, u64 size) {
#if WG_X86
    if (PROCESSOR.avx512) return keccak256_single(digest, data, size);
#endif
    constexpr u32 RATE_WORDS = KECCAK256_RATE_BYTES / 8;
    const bool aligned = WG_ON_DEVICE && reinterpret_cast<u64>(data) % 8 == 0;
    u64 state[25] = {};
    for (; size >= KECCAK256_RATE_BYTES; size -= KECCAK256_RATE_BYTES, data += KECCAK256_RATE_BYTES) {
        WG_UNROLL
        for (u32 i = 0; i < RATE_WORDS; ++i) state[i] ^= keccak_word(data, i, aligned);
        keccak_permute(state);
    }
    const u32 whole_words = static_cast<u32>(size / 8), rest = static_cast<u32>(size % 8);
    u64 last = 1ull << (8 * rest);
    for (u32 i = 0; i < rest; ++i) last |= static_cast<u64>(data[8 * whole_words + i]) << (8 * i);
    WG_UNROLL
    for (u32 i = 0; i < RATE_WORDS; ++i) {  // no index depends on data, so that the state stays in registers
        if (i < whole_words) state[i] ^= keccak_word(data, i, aligned);
        if (i == whole_words) state[i] ^= last;
    }
    state[RATE_WORDS - 1] ^= 0x80ull << 56;
    keccak_permute(state);
    WG_UNROLL
    for (u32 i = 0; i < 4; ++i) store_little64(digest + 8 * i, state[i]);
}

}  // namespace warpgrid
