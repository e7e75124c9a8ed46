// A little of CUDA on threads of the host, for tests: each thread of a block is one of the host's, and blocks run one
// after the other. Shared memory is static; the dynamic part must be named in the kernel, as `dynamic_shared`.
#pragma once

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cstdint>
#include <deque>
#include <thread>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static

using std::min;

struct uint2 {
    uint32_t x, y;
};
struct uint4 {
    uint32_t x, y, z, w;
};
struct Axis {
    uint32_t x;
};

constexpr uint32_t WARP_THREADS = 32;

inline thread_local Axis threadIdx, blockIdx;
inline Axis blockDim, gridDim;
inline std::deque<std::barrier<>> block_barrier, warp_barriers;
inline std::vector<uint32_t> exchanged;  // a word of each thread
inline std::vector<unsigned long long> dynamic_shared;

inline void __syncthreads() { block_barrier.front().arrive_and_wait(); }

inline uint32_t __shfl_sync(uint32_t, uint32_t value, uint32_t lane) {
    std::barrier<>& warp = warp_barriers[threadIdx.x / WARP_THREADS];
    exchanged[threadIdx.x] = value;
    warp.arrive_and_wait();
    const uint32_t found = exchanged[threadIdx.x / WARP_THREADS * WARP_THREADS + lane];
    warp.arrive_and_wait();
    return found;
}

inline uint32_t atomicAdd(uint32_t* at, uint32_t value) { return std::atomic_ref(*at).fetch_add(value); }

// Bytes in reverse, the one selection that is asked for.
inline uint32_t __byte_perm(uint32_t word, uint32_t, uint32_t) { return __builtin_bswap32(word); }

template <typename Kernel>
void launch(uint32_t blocks, uint32_t threads, uint32_t shared_bytes, const Kernel& kernel) {
    blockDim.x = threads, gridDim.x = blocks;
    dynamic_shared.assign((shared_bytes + 7) / 8, ~0ull);
    exchanged.assign(threads, 0);
    block_barrier.clear(), warp_barriers.clear();
    block_barrier.emplace_back(threads);
    for (uint32_t warp = 0; warp < threads / WARP_THREADS; ++warp) warp_barriers.emplace_back(WARP_THREADS);
    std::vector<std::thread> crew;
    for (uint32_t thread = 0; thread < threads; ++thread)
        crew.emplace_back([&kernel, blocks, thread] {
            threadIdx.x = thread;
            for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
                kernel();
                __syncthreads();
            }
        });
    for (std::thread& one : crew) one.join();
}
