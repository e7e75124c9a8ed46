// limbs.hpp in portable C++, for any CPU whose compiler knows a 128-bit integer.
#pragma once

#include "core/native/platform.hpp"

namespace warpgrid {

template <u32 N>
WG_FN u64 add_limbs(u64 (&r)[N], const u64 (&a)[N], const u64 (&b)[N]) {
    u64 carry = 0;
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) r[i] = add_with_carry(a[i], b[i], carry);
    return carry;
}

template <u32 N>
WG_FN u64 subtract_limbs(u64 (&r)[N], const u64 (&a)[N], const u64 (&b)[N]) {
    u64 borrow = 0;
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) r[i] = subtract_with_borrow(a[i], b[i], borrow);
    return borrow;
}

template <u32 N>
WG_FN u64 add_multiple(u64 (&t)[N], const u64 (&a)[N], u64 b) {
    u64 carry = 0;
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) t[i] = multiply_add(a[i], b, t[i], carry);
    return carry;
}

template <u32 N>
WG_FN void multiply_wide(u64 (&r)[2 * N], const u64 (&a)[N], const u64 (&b)[N]) {
    WG_UNROLL
    for (u32 i = 0; i < 2 * N; ++i) r[i] = 0;
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) {
        u64 carry = 0;
        WG_UNROLL
        for (u32 j = 0; j < N; ++j) r[i + j] = multiply_add(a[j], b[i], r[i + j], carry);
        r[i + N] = carry;
    }
}

template <u32 N>
WG_FN void square_wide(u64 (&r)[2 * N], const u64 (&a)[N]) {
    WG_UNROLL
    for (u32 i = 0; i < 2 * N; ++i) r[i] = 0;
    WG_UNROLL
    for (u32 i = 0; i + 1 < N; ++i) {
        u64 carry = 0;
        WG_UNROLL
        for (u32 j = i + 1; j < N; ++j) r[i + j] = multiply_add(a[j], a[i], r[i + j], carry);
        r[i + N] = carry;
    }
    WG_UNROLL
    for (u32 i = 2 * N - 1; i > 0; --i) r[i] = r[i] << 1 | r[i - 1] >> 63;
    u64 carry = 0;
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) {
        u64 high = 0;
        const u64 low = multiply_add(a[i], a[i], 0, high);
        r[2 * i] = add_with_carry(r[2 * i], low, carry);
        r[2 * i + 1] = add_with_carry(r[2 * i + 1], high, carry);
    }
}

template <u32 LOW, u32 N>
WG_FN u64 add_multiple_33(u64 (&t)[N], const u64 (&a)[N]) {
    return add_multiple(t, a, 0x100000000ull + LOW);
}

}  // namespace warpgrid
