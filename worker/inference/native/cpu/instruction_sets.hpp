// Which of the compiled instruction sets this processor has. For code that is compiled for every processor.
#pragma once

#include "worker/inference/native/cpu/isa.hpp"

#if WG_X86
#include "core/native/processor_x86.hpp"
#endif

namespace warpgrid::exact_isa {

struct Compiled {
    const Isa& isa;
    bool available;
};

// Fastest first; the last is always available.
inline const Compiled INSTRUCTION_SETS[] = {
#if WG_X86
    {avx512vnni, PROCESSOR.vnni},
    {avx2, PROCESSOR.avx2},
#endif
    {generic, true},
};

inline const Isa& fastest_isa() {
    const Compiled* one = INSTRUCTION_SETS;
    while (!one->available) ++one;
    return one->isa;
}

}  // namespace warpgrid::exact_isa
