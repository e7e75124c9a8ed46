// trace_roots of trace.cu, as a function. TRACE_SOURCE is that file with its dynamic shared memory named.
#include "tests/unit/worker/inference/native/cuda_on_threads.hpp"

#include TRACE_SOURCE

extern "C" void trace_on_threads(u32 blocks, u32 threads, u32 shared_bytes, u8* roots, u8* leaves,
                                 const i32* boundaries, const u8* kv_rows, const i32* tokens, u32 leaves_each,
                                 u32 count, u32 layers, u32 residual_bytes, u32 kv_bytes, u32 together) {
    launch(blocks, threads, shared_bytes, [=] {
        trace_roots(roots, leaves, boundaries, kv_rows, tokens, leaves_each, count, layers, residual_bytes, kv_bytes,
                    together);
    });
}
