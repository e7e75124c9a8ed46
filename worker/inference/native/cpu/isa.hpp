// What is compiled once for each instruction set. Structs cross as void*: each set compiles its own, identical, layout.
#pragma once

#include "worker/inference/native/cpu/crew.hpp"

namespace warpgrid::exact_isa {

struct Isa {
    const char* name;
    void (*forward)(exact_crew::Crew crew, const void* model, const void* batch, void* work);
    u32 (*largest_index)(const i32* logits, u32 count);
    void (*token_weights)(u64* weights, const i32* logits, u32 count, i32 largest, i64 factor, const i32* exp2);
};

extern const Isa generic, avx2, avx512vnni;

}  // namespace warpgrid::exact_isa
