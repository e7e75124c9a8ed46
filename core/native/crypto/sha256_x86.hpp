// SHA-256's compression by the SHA extensions of x86-64 (Intel, "Intel SHA Extensions", 2013): two rounds an instruction.
#pragma once

#include "core/native/crypto/processor_x86.hpp"

namespace warpgrid {

// Compresses `count` blocks into the state, as sha256_compress does each. `constants` are the 64 of FIPS 180-4.
WG_TARGET("sha,sse4.1,ssse3") inline void sha256_compress_x86(u32 (&state)[8], const u8* blocks, u64 count,
                                                              const u32 (&constants)[64]) {
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0bll, 0x0405060700010203ll);
    // The instructions keep the state as (a, b, e, f) and (c, d, g, h), highest word first.
    const __m128i dcba = _mm_loadu_si128(reinterpret_cast<const __m128i*>(state));
    const __m128i hgfe = _mm_loadu_si128(reinterpret_cast<const __m128i*>(state + 4));
    const __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1), efgh = _mm_shuffle_epi32(hgfe, 0x1b);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8), cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
    for (; count > 0; --count, blocks += 64) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4];
        WG_UNROLL
        for (u32 i = 0; i < 4; ++i) {
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(blocks) + i), big_endian);
        }
        WG_UNROLL
        for (u32 group = 0; group < 16; ++group) {  // four rounds each
            const __m128i now = w[group % 4];
            const __m128i k = _mm_loadu_si128(reinterpret_cast<const __m128i*>(constants + 4 * group));
            const __m128i sum = _mm_add_epi32(now, k);
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
            if (group >= 12) continue;
            const __m128i next = w[(group + 1) % 4], after = w[(group + 2) % 4], last = w[(group + 3) % 4];
            const __m128i partial = _mm_add_epi32(_mm_sha256msg1_epu32(now, next), _mm_alignr_epi8(last, after, 4));
            w[group % 4] = _mm_sha256msg2_epu32(partial, last);
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    const __m128i feba = _mm_shuffle_epi32(abef, 0x1b), dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(state), _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

}  // namespace warpgrid
