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
using u128 = unsigned __int128;  // NVRTC needs --device-int128
using i128 = __int128;

static_assert(sizeof(u16) == 2 && sizeof(u32) == 4 && sizeof(u64) == 8 && sizeof(void*) == 8);

}  // namespace warpgrid

#if defined(__CUDACC__)  // nvcc and NVRTC both define it
#define WG_FN __host__ __device__ __forceinline__
#define WG_NOINLINE __host__ __device__ __noinline__
#define WG_CONSTANT __device__ constexpr
#define WG_UNROLL _Pragma("unroll")
#else
#define WG_FN inline __attribute__((always_inline))
#define WG_NOINLINE __attribute__((noinline))
#define WG_CONSTANT inline constexpr
#define WG_UNROLL _Pragma("GCC unroll 128")  // the next loop, completely: its indices are compile-time constants
#endif

#if defined(__CUDA_ARCH__)
#define WG_ON_DEVICE 1
#else
#define WG_ON_DEVICE 0
#endif

// The x86-64 build for processors with BMI2 and ADX; CMakeLists.txt builds both, and the loader picks one.
#if !WG_ON_DEVICE && defined(__x86_64__) && defined(__ADX__) && defined(__BMI2__)
#define WG_X86_ADX 1
#else
#define WG_X86_ADX 0
#endif

// A short function that many others use, such as a field product: called on the GPU, where inlining it overflows the
// instruction cache, with its operands in registers; inlined on the CPU, where the call would double its latency.
#if WG_ON_DEVICE
#define WG_SHARED_FN WG_NOINLINE
#define WG_OPERAND(T) T
#else
#define WG_SHARED_FN WG_FN
#define WG_OPERAND(T) const T&
#endif

namespace warpgrid {

// Of x != 0.
WG_FN u32 count_trailing_zeros(u64 x) {
#if WG_ON_DEVICE
    return static_cast<u32>(__ffsll(static_cast<i64>(x)) - 1);
#else
    return static_cast<u32>(__builtin_ctzll(x));
#endif
}

// Of x != 0.
WG_FN u32 count_leading_zeros(u64 x) {
#if WG_ON_DEVICE
    return static_cast<u32>(__clzll(static_cast<i64>(x)));
#else
    return static_cast<u32>(__builtin_clzll(x));
#endif
}

}  // namespace warpgrid

// Exported from a shared library with C linkage. Every exported function is listed in a native/host.cpp.
#define WG_EXPORT extern "C" __attribute__((visibility("default")))
