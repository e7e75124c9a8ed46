// Fixed-point arithmetic of docs/exact-inference.md, section 1, for the CPU and the GPU.
//
// The specification's shifts are mathematical: a count past the width gives 0 (or -1), while C leaves it undefined and
// hardware takes it modulo the width. Every shift with a computed count goes through here.
#pragma once

#include "core/native/platform.hpp"

#ifndef WG_EXACT_NAMESPACE  // one namespace per instruction set, so that no copy of an inline function is shared
#define WG_EXACT_NAMESPACE warpgrid::exact
#endif

namespace WG_EXACT_NAMESPACE {

using namespace warpgrid;

constexpr i32 SATURATED = 0x7FFFFFFF;

// floor((x + 2^(s-1)) / 2^s); x * 2^-s for s <= 0. |x| < 2^62 where s > 0, and the product fits where s <= 0.
WG_FN i64 round_shift(i64 x, i32 s) {
    if (s <= 0) return static_cast<i64>(static_cast<u64>(x) << -s);
    if (s > 62) return 0;
    return (x + (1ll << (s - 1))) >> s;
}

// round_shift for a count that is known to be at least 1. Branch-free, so that a loop over it vectorises.
WG_FN i64 round_shift_positive(i64 x, i32 s) {
    const i32 count = s > 62 ? 62 : s;
    const i64 shifted = (x + (1ll << (count - 1))) >> count;
    return s > 62 ? 0 : shifted;
}

WG_FN i32 saturate(i64 x) {
    return x > SATURATED ? SATURATED : x < -SATURATED ? -SATURATED : static_cast<i32>(x);
}

// The least n with x < 2^n.
WG_FN i32 bit_length(u64 x) {
#if WG_ON_DEVICE
    return 64 - __clzll(static_cast<long long>(x));
#else
    i32 n = 0;
    for (i32 step = 32; step > 0; step /= 2) {
        if (x >> step) {
            x >>= step;
            n += step;
        }
    }
    return n + static_cast<i32>(x);
#endif
}

// floor(sqrt(x)) for x < 2^63. The float unit only guesses: whatever it says, the corrections end at the exact root.
WG_FN u64 integer_sqrt(u64 x) {
#if WG_ON_DEVICE
    u64 root = static_cast<u64>(__dsqrt_rd(static_cast<double>(x)));
#else
    u64 root = static_cast<u64>(__builtin_sqrt(static_cast<double>(x)));
#endif
    while (root * root > x) --root;
    while ((root + 1) * (root + 1) <= x) ++root;
    return root;
}

// floor(a / b) for a < 2^63, b < 2^50: a GPU has no 64-bit division, so the float unit guesses and remainders correct.
WG_FN u64 quotient(u64 a, u64 b) {
#if WG_ON_DEVICE
    const double inverse = 1.0 / static_cast<double>(b);
    u64 guess = static_cast<u64>(static_cast<double>(a) * inverse);  // off by less than 2^12
    i64 rest = static_cast<i64>(a - guess * b);
    guess += static_cast<u64>(static_cast<i64>(floor(static_cast<double>(rest) * inverse)));
    rest = static_cast<i64>(a - guess * b);
    return rest < 0 ? guess - 1 : rest >= static_cast<i64>(b) ? guess + 1 : guess;
#else
    return a / b;
#endif
}

// A positive number as mantissa * 2^exponent with 2^15 <= mantissa < 2^16, truncated.
struct Mantissa {
    i32 mantissa;
    i32 exponent;
};

WG_FN Mantissa mantissa_of(u64 a) {
    const i32 e = bit_length(a) - 16;
    return {static_cast<i32>(e >= 0 ? a >> e : a << -e), e};
}

}  // namespace WG_EXACT_NAMESPACE
