// Little-endian multi-precision integers of N 64-bit limbs. The few primitives whose best form depends on the machine
// come from one of three files, with the same contracts:
//
//     u64 add_limbs(r, a, b)                r = a + b; returns the carry. r may be a or b.
//     u64 subtract_limbs(r, a, b)           r = a - b; returns the borrow. r may be a or b.
//     u64 add_multiple(t, a, b)             t += a * b for one limb b; returns the limb above t.
//     u64 add_multiple_33<LOW>(t, a)        t += a * (2^32 + LOW); returns the limb above t.
//     void multiply_wide(r, a, b)           r = a * b, 2N limbs.
//     void square_wide(r, a)                r = a * a, 2N limbs.
//
// All other arithmetic is written once on top of these. No reduction happens here.
#pragma once

#include "core/native/platform.hpp"

namespace warpgrid {

// a * b + c + carry, low limb; the high limb becomes the next carry. Never overflows.
WG_FN u64 multiply_add(u64 a, u64 b, u64 c, u64& carry) {
    const u128 t = static_cast<u128>(a) * b + c + carry;
    carry = static_cast<u64>(t >> 64);
    return static_cast<u64>(t);
}

WG_FN u64 add_with_carry(u64 a, u64 b, u64& carry) {
    const u128 t = static_cast<u128>(a) + b + carry;
    carry = static_cast<u64>(t >> 64);
    return static_cast<u64>(t);
}

WG_FN u64 subtract_with_borrow(u64 a, u64 b, u64& borrow) {
    const u128 t = static_cast<u128>(a) - b - borrow;
    borrow = static_cast<u64>(t >> 64) & 1;
    return static_cast<u64>(t);
}

template <u32 N>
WG_FN bool is_zero_limbs(const u64 (&a)[N]) {
    u64 any = 0;
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) any |= a[i];
    return any == 0;
}

template <u32 N>
WG_FN bool equal_limbs(const u64 (&a)[N], const u64 (&b)[N]) {
    u64 any = 0;
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) any |= a[i] ^ b[i];
    return any == 0;
}

template <u32 N>
WG_FN u32 bit_at(const u64 (&a)[N], u32 i) {
    return static_cast<u32>(a[i / 64] >> (i % 64)) & 1;
}

}  // namespace warpgrid

#if WG_ON_DEVICE
#include "core/native/crypto/limbs_device.hpp"
#elif WG_X86_ADX
#include "core/native/crypto/limbs_x86.hpp"
#else
#include "core/native/crypto/limbs_portable.hpp"
#endif

namespace warpgrid {

// r = a - m where a (with `carry` above it) is at least m, else a.
template <u32 N>
WG_FN void subtract_if_at_least(u64 (&r)[N], const u64 (&a)[N], u64 carry, const u64 (&m)[N]) {
#if WG_X86_ADX
    return subtract_if_at_least_x86(r, a, carry, m);
#endif
    u64 reduced[N];
    const u64 borrow = subtract_limbs(reduced, a, m);
    const u64 keep = carry < borrow ? ~0ull : 0;
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) r[i] = (a[i] & keep) | (reduced[i] & ~keep);
}

template <u32 N>
WG_FN bool less_than_limbs(const u64 (&a)[N], const u64 (&b)[N]) {
    u64 difference[N];
    return subtract_limbs(difference, a, b) != 0;
}

}  // namespace warpgrid
