// Bytes to words and back: the input formats of the precompiles are big-endian and end in implied zeros.
#pragma once

#include "core/native/platform.hpp"

namespace warpgrid {

WG_FN u32 rotate_left32(u32 x, u32 bits) { return (x << bits) | (x >> (32 - bits)); }
WG_FN u32 rotate_right32(u32 x, u32 bits) { return (x >> bits) | (x << (32 - bits)); }
WG_FN u64 rotate_left64(u64 x, u32 bits) { return (x << bits) | (x >> ((64 - bits) & 63)); }
WG_FN u64 rotate_right64(u64 x, u32 bits) { return (x >> bits) | (x << (64 - bits)); }

// Byte loads, since EVM memory has no alignment; g++ fuses each of these into one load.
WG_FN u32 load_big32(const u8* p) {
    return static_cast<u32>(p[0]) << 24 | static_cast<u32>(p[1]) << 16 | static_cast<u32>(p[2]) << 8 | p[3];
}
WG_FN u32 load_little32(const u8* p) {
    return static_cast<u32>(p[3]) << 24 | static_cast<u32>(p[2]) << 16 | static_cast<u32>(p[1]) << 8 | p[0];
}
WG_FN u64 load_big64(const u8* p) { return static_cast<u64>(load_big32(p)) << 32 | load_big32(p + 4); }
WG_FN u64 load_little64(const u8* p) { return static_cast<u64>(load_little32(p + 4)) << 32 | load_little32(p); }

WG_FN void store_big32(u8* p, u32 x) {
    p[0] = static_cast<u8>(x >> 24);
    p[1] = static_cast<u8>(x >> 16);
    p[2] = static_cast<u8>(x >> 8);
    p[3] = static_cast<u8>(x);
}
WG_FN void store_big64(u8* p, u64 x) {
    store_big32(p, static_cast<u32>(x >> 32));
    store_big32(p + 4, static_cast<u32>(x));
}
WG_FN void store_little32(u8* p, u32 x) {
    p[0] = static_cast<u8>(x);
    p[1] = static_cast<u8>(x >> 8);
    p[2] = static_cast<u8>(x >> 16);
    p[3] = static_cast<u8>(x >> 24);
}
WG_FN void store_little64(u8* p, u64 x) {
    store_little32(p, static_cast<u32>(x));
    store_little32(p + 4, static_cast<u32>(x >> 32));
}

WG_FN void copy_bytes(u8* to, const u8* from, u64 size) {
    for (u64 i = 0; i < size; ++i) to[i] = from[i];
}
WG_FN void zero_bytes(u8* to, u64 size) {
    for (u64 i = 0; i < size; ++i) to[i] = 0;
}

// window[0..count) = input[offset..offset + count), zeros beyond the input's end. Offsets may lie far outside.
WG_FN void read_padded(u8* window, u64 count, const u8* input, u64 size, u64 offset) {
    const u64 available = offset < size ? (size - offset < count ? size - offset : count) : 0;
    copy_bytes(window, input + (available ? offset : 0), available);
    zero_bytes(window + available, count - available);
}

}  // namespace warpgrid
