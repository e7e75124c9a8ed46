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
    bool avx512;  // 512-bit vectors, and their instructions on shorter ones: Skylake-X, Zen 4 on
    bool ifma;    // with products of 52-bit integers: Ice Lake and Zen 4 on
};

inline ProcessorX86 look_at_processor() {
    // by leaf 7, for not every compiler's __builtin_cpu_supports knows "sha"
    unsigned a = 0, b = 0, c = 0, d = 0;
    const bool sha = __get_cpuid_count(7, 0, &a, &b, &c, &d) && b >> 29 & 1;
    const bool avx512 = __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
                        __builtin_cpu_supports("avx512vl") != 0;
    return {sha && __builtin_cpu_supports("sse4.1") != 0, avx512, avx512 && __builtin_cpu_supports("avx512ifma") != 0};
}

inline ProcessorX86 PROCESSOR = look_at_processor();

// For tests: as if this processor could only do what the build assumes, or all that it can again.
inline void use_newer_instructions(bool allowed) { PROCESSOR = allowed ? look_at_processor() : ProcessorX86{}; }

}  // namespace warpgrid
