// The forward pass under each instruction set. Structs cross as void*: each set compiles its own, identical, layout.
#pragma once

#include "worker/inference/native/cpu/crew.hpp"

namespace warpgrid::exact_isa {

using Forward = void(exact_crew::Crew crew, const void* model, const void* batch, void* work);

Forward forward_generic, forward_avx2, forward_avx512vnni;

}  // namespace warpgrid::exact_isa
