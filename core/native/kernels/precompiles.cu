// One precompiled contract over a batch of inputs on a GPU, one thread a call: an entry point only, for research, for
// fuzzing the GPU build against the CPU build, and for the interpreter's parked calls.
//
// Floor: the slowest call of a warp. The pairing's frame (about 15 KB) sets the stack of every thread here.
#include "core/native/crypto/precompiles.hpp"

using namespace warpgrid;

// outputs[offsets] like inputs; scratch is scratch_words for each call.
extern "C" __global__ void __launch_bounds__(128)
    run_precompile_batch(u64 precompile, u64 fork, const u8* inputs, const u64* input_offsets, u8* outputs,
                         const u64* output_offsets, u64* output_sizes, u32* status, u64* scratch, u64 scratch_words,
                         u64 count) {
    const u64 i = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= count) return;
    status[i] = static_cast<u32>(run_precompile(static_cast<Precompile>(precompile), inputs + input_offsets[i],
                                                input_offsets[i + 1] - input_offsets[i], static_cast<Fork>(fork),
                                                outputs + output_offsets[i], output_sizes[i],
                                                {scratch + i * scratch_words, scratch_words}));
}
