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

namespace warpgrid {

WG_FN u32 count_set_bits(u64 x) {
#if WG_ON_DEVICE
    return static_cast<u32>(__popcll(x));
#else
    return static_cast<u32>(__builtin_popcountll(x));
#endif
}

WG_FN u64 swap_bytes(u64 x) {
#if WG_ON_DEVICE
    const u32 low = static_cast<u32>(x), high = static_cast<u32>(x >> 32);
    return static_cast<u64>(__byte_perm(low, 0, 0x0123)) << 32 | __byte_perm(high, 0, 0x0123);
#else
    return __builtin_bswap64(x);
#endif
}

// The compilers' own block operations. On the device the two regions of a copy never overlap.
WG_FN void copy_memory(u8* to, const u8* from, u64 size) {
#if WG_ON_DEVICE
    memcpy(to, from, size);
#else
    __builtin_memcpy(to, from, size);
#endif
}
WG_FN void move_memory(u8* to, const u8* from, u64 size) {
#if WG_ON_DEVICE
    if (to <= from) {
        for (u64 i = 0; i < size; ++i) to[i] = from[i];
    } else {
        for (u64 i = size; i-- > 0;) to[i] = from[i];
    }
#else
    __builtin_memmove(to, from, size);
#endif
}

// A value in memory that is accessed under other types as well; the address has the value's alignment.
template <class T>
WG_FN T load_as(const u8* from) {
#if WG_ON_DEVICE
    return *reinterpret_cast<const T*>(from);
#else
    T value;
    __builtin_memcpy(&value, from, sizeof(T));
    return value;
#endif
}
template <class T>
WG_FN void store_as(u8* to, const T& value) {
#if WG_ON_DEVICE
    *reinterpret_cast<T*>(to) = value;
#else
    __builtin_memcpy(to, &value, sizeof(T));
#endif
}

// The 8 bytes at any address, little-endian. On a GPU, which has no unaligned loads, this reads the aligned words
// around them: buffers given to it end at least 8 bytes before their allocation does.
WG_FN u64 load_unaligned64(const u8* from) {
#if WG_ON_DEVICE
    const u64 address = reinterpret_cast<u64>(from);
    const u64* words = reinterpret_cast<const u64*>(address & ~7ull);
    const u32 shift = static_cast<u32>(address & 7) * 8;
    return shift == 0 ? words[0] : words[0] >> shift | words[1] << (64 - shift);
#else
    u64 value;
    __builtin_memcpy(&value, from, 8);
    return value;
#endif
}

// Tells a GPU's compiler that an address is one of device memory, not of a thread's stack: such loads are shorter.
WG_FN void assume_device_memory([[maybe_unused]] const void* address) {
#if WG_ON_DEVICE
    __builtin_assume(__isGlobal(address));
#endif
}

WG_FN void clear_memory(u8* to, u64 size) {
#if WG_ON_DEVICE
    memset(to, 0, size);
#else
    __builtin_memset(to, 0, size);
#endif
}

// True in every lane of a warp if it is true in one; on the CPU a warp is one thread. All 32 lanes must take part.
WG_FN bool any_lane(bool value) {
#if WG_ON_DEVICE
    return __any_sync(0xffffffffu, value);
#else
    return value;
#endif
}
// Nanoseconds since some moment, of a GPU's own clock; the CPU build has no use for it.
WG_FN u64 device_time_ns() {
#if WG_ON_DEVICE
    u64 now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
#else
    return 0;
#endif
}

// Brings the lanes of a warp back together.
WG_FN void converge_lanes() {
#if WG_ON_DEVICE
    __syncwarp();
#endif
}

// Brings the lanes of a warp back together after a region with calls, before a vote of all of them. `always` is true in
// every lane, but not so that the compiler could know: ptxas 13.0 leaves out a __syncwarp() where it takes the lanes to
// be together, as it does behind every region that it closed with a convergence barrier. Of these it has few, and where
// calls use them all up it lends the region's to the callee. Lanes that wait at it for those in the callee then go
// ahead as soon as these meet at a barrier of their own that has the same number (seen on an H200), vote among
// themselves, and the warp stands still for ever.
WG_FN void reunite_lanes([[maybe_unused]] bool always) {
#if WG_ON_DEVICE
    if (always) __syncwarp();
    __syncwarp();
#endif
}

// Adds to a counter that other threads add to as well; returns its value before. A whole warp adds once, if it is
// together, since additions to one address go one after the other; amounts are below 2^26 then.
WG_FN u64 fetch_add(u64* counter, u64 amount) {
#if WG_ON_DEVICE
    constexpr u32 WHOLE_WARP = 0xffffffffu;
    if (__activemask() != WHOLE_WARP) return atomicAdd(counter, amount);
    const u32 lane = threadIdx.x % 32;
    u32 sum = static_cast<u32>(amount);  // of the lanes up to this one
    WG_UNROLL
    for (u32 distance = 1; distance < 32; distance *= 2) {
        const u32 before = __shfl_up_sync(WHOLE_WARP, sum, distance);
        if (lane >= distance) sum += before;
    }
    u64 first = 0;
    if (lane == 31) first = atomicAdd(counter, static_cast<u64>(sum));
    return __shfl_sync(WHOLE_WARP, first, 31) + sum - static_cast<u32>(amount);
#else
    return __atomic_fetch_add(counter, amount, __ATOMIC_RELAXED);
#endif
}

}  // namespace warpgrid

// offsetof, which NVRTC does not have.
#if WG_ON_DEVICE
#define WG_OFFSET(type, field) reinterpret_cast<warpgrid::u64>(&reinterpret_cast<type*>(0)->field)
#else
#define WG_OFFSET(type, field) __builtin_offsetof(type, field)
#endif

// The x86-64 build for processors with BMI2 and ADX; CMakeLists.txt builds both, and the loader picks one.
#if !WG_ON_DEVICE && defined(__x86_64__) && defined(__ADX__) && defined(__BMI2__)
#define WG_X86_ADX 1
#else
#define WG_X86_ADX 0
#endif

// x86-64 on the host: a function for newer processors carries its target, and is called after a look at the processor
// (processor_x86.hpp), so that one build serves old and new ones.
#if !defined(__CUDACC__) && defined(__x86_64__)
#define WG_X86 1
#define WG_TARGET(features) __attribute__((target(features)))
#else
#define WG_X86 0
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
