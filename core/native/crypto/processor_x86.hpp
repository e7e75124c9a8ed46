// What this x86-64 processor can do beyond what the build assumes, looked up once when the library is loaded.
#pragma once

#include <cpuid.h>
#include <immintrin.h>

#include "core/native/platform.hpp"

namespace warpgrid {

struct ProcessorX86 {
    bool sha;  // SHA-NI: Zen and Ice Lake on
    bool avx512;
};

inline ProcessorX86 look_at_processor() {
    // by leaf 7, for not every compiler's __builtin_cpu_supports knows "sha"
    unsigned a = 0, b = 0, c = 0, d = 0;
    const bool sha = __get_cpuid_count(7, 0, &a, &b, &c, &d) && b >> 29 & 1;
    return {sha && __builtin_cpu_supports("sse4.1") != 0, __builtin_cpu_supports("avx512f") != 0};
}

inline const ProcessorX86 PROCESSOR = look_at_processor();

}  // namespace warpgrid
