// The forward pass under each instruction set. Structs cross as void*: each set compiles its own, identical, layout.
#pragma once

#include "core/native/platform.hpp"

namespace warpgrid::exact_isa {

using Forward = void(u32 index, u32 size, void (*wait)(void*), void* state, const void* model, const void* batch,
                     void* work);

Forward forward_generic, forward_avx2, forward_avx512vnni;

}  // namespace warpgrid::exact_isa
