// The rounds of BLAKE2b for processors with AVX-512: a row of the state in each of four 256-bit registers, so that the
// four quarter rounds of a step are one. The steps on diagonals turn the rows a, c and d, not b, which a quarter round
// finishes last: then no step waits for a turn. One dependent instruction a cycle is what binds.
#pragma once

#include "core/native/crypto/processor_x86.hpp"

namespace warpgrid {

#define WG_BLAKE_FN inline __attribute__((always_inline)) WG_TARGET("avx512f,avx512vl")

// Where the words of a round lie in the message: x of the four columns, y of the columns, x of the diagonals, y of the
// diagonals. Diagonal i is done in place i + 1, where its word of b stands.
struct Blake2bSchedule {
    alignas(64) u64 word[10][16];
};
constexpr Blake2bSchedule BLAKE2B_SCHEDULE = [] {
    Blake2bSchedule schedule{};
    for (u32 round = 0; round < 10; ++round) {
        for (u32 i = 0; i < 4; ++i) {
            for (u32 k = 0; k < 2; ++k) {
                schedule.word[round][4 * k + i] = BLAKE2B_SIGMA[round][2 * i + k];
                schedule.word[round][8 + 4 * k + (i + 1) % 4] = BLAKE2B_SIGMA[round][8 + 2 * i + k];
            }
        }
    }
    return schedule;
}();

template <u32 COUNT>
WG_BLAKE_FN __m256i blake2b_rotated(__m256i a) {
    return _mm256_maskz_ror_epi64(0xff, a, COUNT);
}
// Place i takes what stood in place i + BY.
template <u32 BY>
WG_BLAKE_FN __m256i blake2b_turned(__m256i a) {
    return _mm256_maskz_permutex_epi64(0xff, a, BY | (1 + BY) % 4 << 2 | (2 + BY) % 4 << 4 | (3 + BY) % 4 << 6);
}

// Four quarter rounds with the words x (low half of `words`) and y.
WG_BLAKE_FN void blake2b_quarters(__m256i& a, __m256i& b, __m256i& c, __m256i& d, __m512i words) {
    a = _mm256_add_epi64(_mm256_add_epi64(a, _mm512_maskz_extracti64x4_epi64(0xff, words, 0)), b);
    d = blake2b_rotated<32>(_mm256_xor_si256(d, a));
    c = _mm256_add_epi64(c, d);
    b = blake2b_rotated<24>(_mm256_xor_si256(b, c));
    a = _mm256_add_epi64(_mm256_add_epi64(a, _mm512_maskz_extracti64x4_epi64(0xff, words, 1)), b);
    d = blake2b_rotated<16>(_mm256_xor_si256(d, a));
    c = _mm256_add_epi64(c, d);
    b = blake2b_rotated<63>(_mm256_xor_si256(b, c));
}

// As blake2b_rounds.
WG_NOINLINE WG_TARGET("avx512f,avx512vl") inline void blake2b_rounds_x86(u64 (&v)[16], const u64 (&m)[16], u32 rounds) {
    __m256i row[4];
    for (u32 i = 0; i < 4; ++i) row[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(v + 4 * i));
    auto& [a, b, c, d] = row;
    const __m512i low = _mm512_loadu_si512(m), high = _mm512_loadu_si512(m + 8);
    for (u32 round = 0, index = 0; round < rounds; ++round) {
        const u64* schedule = BLAKE2B_SCHEDULE.word[index];
        index = index == 9 ? 0 : index + 1;
        blake2b_quarters(a, b, c, d, _mm512_permutex2var_epi64(low, _mm512_load_si512(schedule), high));
        a = blake2b_turned<3>(a);
        c = blake2b_turned<1>(c);
        d = blake2b_turned<2>(d);
        blake2b_quarters(a, b, c, d, _mm512_permutex2var_epi64(low, _mm512_load_si512(schedule + 8), high));
        a = blake2b_turned<1>(a);
        c = blake2b_turned<3>(c);
        d = blake2b_turned<2>(d);
    }
    for (u32 i = 0; i < 4; ++i) _mm256_storeu_si256(reinterpret_cast<__m256i*>(v + 4 * i), row[i]);
}

#undef WG_BLAKE_FN

}  // namespace warpgrid
