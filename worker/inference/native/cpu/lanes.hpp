// Vectors of 64-bit integers, written once for every instruction set: what surrounds the matrix products is fixed-point
// arithmetic on rows of int32, which g++ does not vectorise by itself.
//
// The compiler's vector type supplies + - & | << >> and comparison; here is only what it lacks or does badly. Every row
// that is worked on has a multiple of ROW_QUANTUM entries (specification, section 2), so there are no remainders.
#pragma once

#include "worker/inference/native/fixed_point.hpp"

#if defined(__AVX512VNNI__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace WG_EXACT_NAMESPACE {

constexpr u32 ROW_QUANTUM = 16;
#if defined(__AVX512VNNI__)
constexpr u32 LANES = 8;
#elif defined(__AVX2__)
constexpr u32 LANES = 4;
#else
constexpr u32 LANES = 2;
#endif
static_assert(ROW_QUANTUM % LANES == 0);

template <class T>
struct VectorOf {
    typedef T Type __attribute__((vector_size(LANES * sizeof(T))));
};
using Lanes = VectorOf<i64>::Type;

WG_FN Lanes all_lanes(i64 x) { return x - Lanes{}; }

template <class T>
WG_FN Lanes load_lanes(const T* from) {
    typename VectorOf<T>::Type narrow;
    __builtin_memcpy(&narrow, from, sizeof(narrow));
    return __builtin_convertvector(narrow, Lanes);
}

// g++ widens 16 bits to 64 one lane at a time.
#if defined(__AVX512VNNI__)
template <>
WG_FN Lanes load_lanes(const i16* from) {
    return reinterpret_cast<Lanes>(_mm512_cvtepi16_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
template <>
WG_FN Lanes load_lanes(const u16* from) {
    return reinterpret_cast<Lanes>(_mm512_cvtepu16_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
#elif defined(__AVX2__)
template <>
WG_FN Lanes load_lanes(const i16* from) {
    return reinterpret_cast<Lanes>(_mm256_cvtepi16_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
}
template <>
WG_FN Lanes load_lanes(const u16* from) {
    return reinterpret_cast<Lanes>(_mm256_cvtepu16_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
}
#endif

// The low bits of each lane.
template <class T>
WG_FN void store_lanes(T* to, Lanes x) {
    const auto narrow = __builtin_convertvector(x, typename VectorOf<T>::Type);
    __builtin_memcpy(to, &narrow, sizeof(narrow));
}

// Of factors that fit int32.
WG_FN Lanes short_product(Lanes a, Lanes b) {
#if defined(__AVX512VNNI__)
    return reinterpret_cast<Lanes>(_mm512_mul_epi32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif defined(__AVX2__)
    return reinterpret_cast<Lanes>(_mm256_mul_epi32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#else
    return a * b;
#endif
}

// Of any factor and one in 0 .. 2^32 - 1; the product fits int64.
WG_FN Lanes long_product(Lanes a, Lanes b) {
#if defined(__AVX2__) && !defined(__AVX512VNNI__)
    const __m256i x = reinterpret_cast<__m256i>(a), y = reinterpret_cast<__m256i>(b);
    const __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), y);
    return reinterpret_cast<Lanes>(_mm256_add_epi64(_mm256_mul_epu32(x, y), _mm256_slli_epi64(high, 32)));
#else
    return a * b;
#endif
}

WG_FN Lanes smaller(Lanes a, Lanes b) { return a < b ? a : b; }
WG_FN Lanes larger(Lanes a, Lanes b) { return a > b ? a : b; }
WG_FN Lanes saturated(Lanes x) { return larger(smaller(x, all_lanes(SATURATED)), all_lanes(-SATURATED)); }

// rsh of section 1 for one count of at least 1 and at most 63.
WG_FN Lanes rounded(Lanes x, i32 count) { return (x + (1ll << (count - 1))) >> static_cast<i64>(count); }

// rsh for counts of its own in each lane, brought into 1 .. 63: |x| < 2^62, so that 63 and more give 0 alike.
WG_FN Lanes rounded(Lanes x, Lanes counts) {
    counts = larger(smaller(counts, all_lanes(63)), all_lanes(1));
    return (x + (all_lanes(1) << (counts - 1))) >> counts;
}

// table[index] in each lane.
WG_FN Lanes look_up(const i32* table, Lanes index) {
#if defined(__AVX512VNNI__)
    const __m256i found = _mm512_i64gather_epi32(reinterpret_cast<__m512i>(index), table, 4);
    return reinterpret_cast<Lanes>(_mm512_cvtepi32_epi64(found));
#elif defined(__AVX2__)
    const __m128i found = _mm256_i64gather_epi32(table, reinterpret_cast<__m256i>(index), 4);
    return reinterpret_cast<Lanes>(_mm256_cvtepi32_epi64(found));
#else
    Lanes found;
    for (u32 i = 0; i < LANES; ++i) found[i] = table[index[i]];
    return found;
#endif
}

// table[index] in the low and table[index + 1] in the high half of each lane.
WG_FN Lanes look_up_pair(const i32* table, Lanes index) {
#if defined(__AVX512VNNI__)
    return reinterpret_cast<Lanes>(_mm512_i64gather_epi64(reinterpret_cast<__m512i>(index), table, 4));
#elif defined(__AVX2__)
    return reinterpret_cast<Lanes>(
        _mm256_i64gather_epi64(reinterpret_cast<const long long*>(table), reinterpret_cast<__m256i>(index), 4));
#else
    Lanes found;
    for (u32 i = 0; i < LANES; ++i) {
        const i64 low = table[index[i]], high = table[index[i] + 1];
        found[i] = low + high * (1ll << 32);
    }
    return found;
#endif
}

WG_FN i64 sum_of(Lanes x) {
    i64 sum = 0;
    for (u32 i = 0; i < LANES; ++i) sum += x[i];
    return sum;
}

WG_FN i64 largest_of(Lanes x) {
    i64 largest = x[0];
    for (u32 i = 1; i < LANES; ++i) largest = x[i] > largest ? x[i] : largest;
    return largest;
}

}  // namespace WG_EXACT_NAMESPACE
