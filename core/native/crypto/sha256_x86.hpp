// SHA-256's compression by the SHA extensions of x86-64 (Intel, "Intel SHA Extensions", 2013): two
// rounds an instruction.
#pragma once

#include "core/native/processor_x86.hpp"

namespace warpgrid {

// Compresses `count` blocks into each of N states, as sha256_compress does each. One round waits for the one before it,
// so that two messages together take little longer than one. `constants` are the 64 of FIPS 180-4.
template <u32 N>
WG_TARGET("sha,sse4.1,ssse3")
inline void sha256_compress_x86(u32 (&states)[N][8], const u8* const (&messages)[N], u64 count,
                                const u32 (&constants)[64]) {
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0bll, 0x0405060700010203ll);
    __m128i abef[N], cdgh[N];  // the instructions keep the state as (a, b, e, f) and (c, d, g, h), highest word first
    WG_UNROLL
    for (u32 n = 0; n < N; ++n) {
        const __m128i dcba = _mm_loadu_si128(reinterpret_cast<const __m128i*>(states[n]));
        const __m128i hgfe = _mm_loadu_si128(reinterpret_cast<const __m128i*>(states[n] + 4));
        const __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1), efgh = _mm_shuffle_epi32(hgfe, 0x1b);
        abef[n] = _mm_alignr_epi8(cdab, efgh, 8);
        cdgh[n] = _mm_blend_epi16(efgh, cdab, 0xf0);
    }
    for (u64 block = 0; block < count; ++block) {
        __m128i abef_before[N], cdgh_before[N], w[N][4];
        WG_UNROLL
        for (u32 n = 0; n < N; ++n) {
            abef_before[n] = abef[n];
            cdgh_before[n] = cdgh[n];
            const __m128i* from = reinterpret_cast<const __m128i*>(messages[n] + 64 * block);
            WG_UNROLL
            for (u32 i = 0; i < 4; ++i) w[n][i] = _mm_shuffle_epi8(_mm_loadu_si128(from + i), big_endian);
        }
        WG_UNROLL
        for (u32 group = 0; group < 16; ++group) {  // four rounds each
            const __m128i k = _mm_loadu_si128(reinterpret_cast<const __m128i*>(constants + 4 * group));
            WG_UNROLL
            for (u32 n = 0; n < N; ++n) {
                const __m128i now = w[n][group % 4], sum = _mm_add_epi32(now, k);
                cdgh[n] = _mm_sha256rnds2_epu32(cdgh[n], abef[n], sum);
                abef[n] = _mm_sha256rnds2_epu32(abef[n], cdgh[n], _mm_shuffle_epi32(sum, 0x0e));
                if (group >= 12) continue;
                const __m128i next = w[n][(group + 1) % 4], after = w[n][(group + 2) % 4], last = w[n][(group + 3) % 4];
                const __m128i partial = _mm_add_epi32(_mm_sha256msg1_epu32(now, next), _mm_alignr_epi8(last, after, 4));
                w[n][group % 4] = _mm_sha256msg2_epu32(partial, last);
            }
        }
        WG_UNROLL
        for (u32 n = 0; n < N; ++n) {
            abef[n] = _mm_add_epi32(abef[n], abef_before[n]);
            cdgh[n] = _mm_add_epi32(cdgh[n], cdgh_before[n]);
        }
    }
    WG_UNROLL
    for (u32 n = 0; n < N; ++n) {
        const __m128i feba = _mm_shuffle_epi32(abef[n], 0x1b), dchg = _mm_shuffle_epi32(cdgh[n], 0xb1);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(states[n]), _mm_blend_epi16(feba, dchg, 0xf0));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(states[n] + 4), _mm_alignr_epi8(dchg, feba, 8));
    }
}

}  // namespace warpgrid
