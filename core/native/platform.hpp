// The one file that knows which compiler reads us: g++ or clang++ (CPU), nvcc or NVRTC (GPU).
//
// Everything under native/ is written once and compiled for both. Device code may not allocate, throw, use virtual
// functions or include std headers (NVRTC has none); this file supplies the few names that replace them.
#pragma once

namespace warpgrid {

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i8 = signed char;
using i16 = short;
using i32 = int;
using i64 = long long;

static_assert(sizeof(u16) == 2 && sizeof(u32) == 4 && sizeof(u64) == 8 && sizeof(void*) == 8);

}  // namespace warpgrid

#if defined(__CUDACC__)  // nvcc and NVRTC both define it
#define WG_FN __host__ __device__ __forceinline__
#define WG_NOINLINE __host__ __device__ __noinline__
#define WG_CONSTANT __device__ constexpr
#else
#define WG_FN inline __attribute__((always_inline))
#define WG_NOINLINE __attribute__((noinline))
#define WG_CONSTANT inline constexpr
#endif

#if defined(__CUDA_ARCH__)
#define WG_ON_DEVICE 1
#else
#define WG_ON_DEVICE 0
#endif

// Exported from a shared library with C linkage. Every exported function is listed in a native/host.cpp.
#define WG_EXPORT extern "C" __attribute__((visibility("default")))
