// What this x86-64 processor can do beyond what the build assumes, looked up once when the library is loaded.
#pragma once

#include <immintrin.h>

#include "core/native/platform.hpp"

namespace warpgrid {

struct ProcessorX86 {
    bool sha;  // SHA-NI: Zen and Ice Lake on
};

inline ProcessorX86 look_at_processor() {
    __builtin_cpu_init();
    return {__builtin_cpu_supports("sha") && __builtin_cpu_supports("sse4.1")};
}

inline const ProcessorX86 PROCESSOR = look_at_processor();

}  // namespace warpgrid
