// What this x86-64 processor can do beyond what the build assumes, looked up once when the library is loaded.
#pragma once

#include <cpuid.h>
#include <immintrin.h>

#include "core/native/platform.hpp"

namespace warpgrid {

// Where an intrinsic without a mask would do, one with all lanes stands: g++ 12 takes what the others leave out for
// uninitialised.
constexpr u8 ALL_LANES = 0xff;

struct ProcessorX86 {
    bool sha;     // SHA-NI: Zen and Ice Lake on
    bool avx2;    // 256-bit vectors of integers, and BMI2: Haswell and Zen on
    bool avx512;  // 512-bit vectors, and their instructions on shorter ones: Skylake-X and Zen 4 on
    bool ifma;    // with products of 52-bit integers: Ice Lake and Zen 4 on
    bool vnni;    // with sums of products of bytes: Cascade Lake and Zen 4 on
};

// By CPUID (Intel's manual, volume 2): not every compiler's __builtin_cpu_supports knows "sha", and zig's, which builds
// the wheels, always says no.
inline ProcessorX86 look_at_processor() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return {};
    const bool sse41 = c >> 19 & 1, saves_state = c >> 27 & 1;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return {};
    const auto has = [&](u32 bit) { return (b >> bit & 1) != 0; };
    constexpr u32 AVX2 = 5, BMI2 = 8, F = 16, DQ = 17, IFMA = 21, CD = 28, SHA = 29, BW = 30, VL = 31;
    constexpr u32 AVX_STATE = 0x06, AVX512_STATE = 0xe6;
    u32 state = 0, high = 0;  // which registers the system saves
    if (saves_state) asm("xgetbv" : "=a"(state), "=d"(high) : "c"(0));
    const bool avx2 = (state & AVX_STATE) == AVX_STATE && has(AVX2) && has(BMI2);
    const bool avx512 =
        avx2 && (state & AVX512_STATE) == AVX512_STATE && has(F) && has(DQ) && has(CD) && has(BW) && has(VL);
    const bool vnni = avx512 && (c >> 11 & 1) != 0;
    return {sse41 && has(SHA), avx2, avx512, avx512 && has(IFMA), vnni};
}

inline ProcessorX86 PROCESSOR = look_at_processor();

// For tests: as if this processor could only do what the build assumes, or all that it can again.
inline void use_newer_instructions(bool allowed) { PROCESSOR = allowed ? look_at_processor() : ProcessorX86{}; }

}  // namespace warpgrid
