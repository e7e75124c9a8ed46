// 256-bit unsigned integers as the EVM uses them: everything is modulo 2^256, division by zero gives zero.
//
// Four 64-bit limbs, least significant first: the same bytes as a numpy u64[4] row. Division is Knuth's algorithm D
// (TAOCP 4.3.1) on 64-bit digits with the reciprocal of Moller and Granlund, "Improved division by invariant integers"
// (2011), so that neither back end needs a 128-bit division.
#pragma once

#include "core/native/crypto/limbs.hpp"

namespace warpgrid {

struct alignas(16) u256 {
    u64 w[4];
};
static_assert(sizeof(u256) == 32);

WG_FN u256 make_u256(u64 low) { return {{low, 0, 0, 0}}; }
WG_FN bool is_zero(const u256& a) { return (a.w[0] | a.w[1] | a.w[2] | a.w[3]) == 0; }
WG_FN bool fits_u64(const u256& a) { return (a.w[1] | a.w[2] | a.w[3]) == 0; }
WG_FN bool is_negative(const u256& a) { return a.w[3] >> 63; }

// The value, or 2^64 - 1 when it is larger.
WG_FN u64 saturate_u64(const u256& a) { return fits_u64(a) ? a.w[0] : ~0ull; }

WG_FN bool operator==(const u256& a, const u256& b) {
    return ((a.w[0] ^ b.w[0]) | (a.w[1] ^ b.w[1]) | (a.w[2] ^ b.w[2]) | (a.w[3] ^ b.w[3])) == 0;
}
WG_FN bool operator!=(const u256& a, const u256& b) { return !(a == b); }

// a + b modulo 2^256; `carry` becomes 1 when the sum needs more, else 0.
WG_FN u256 add_with_carry(const u256& a, const u256& b, u64& carry) {
    u256 r;
    carry = add_limbs(r.w, a.w, b.w);
    return r;
}

WG_FN u256 operator+(const u256& a, const u256& b) {
    u256 r;
    add_limbs(r.w, a.w, b.w);
    return r;
}

WG_FN u256 operator-(const u256& a, const u256& b) {
    u256 r;
    subtract_limbs(r.w, a.w, b.w);
    return r;
}

WG_FN bool operator<(const u256& a, const u256& b) { return less_than_limbs(a.w, b.w); }

WG_FN bool signed_less(const u256& a, const u256& b) {
    return is_negative(a) != is_negative(b) ? is_negative(a) : a < b;
}

WG_FN u256 operator&(const u256& a, const u256& b) {
    return {{a.w[0] & b.w[0], a.w[1] & b.w[1], a.w[2] & b.w[2], a.w[3] & b.w[3]}};
}
WG_FN u256 operator|(const u256& a, const u256& b) {
    return {{a.w[0] | b.w[0], a.w[1] | b.w[1], a.w[2] | b.w[2], a.w[3] | b.w[3]}};
}
WG_FN u256 operator^(const u256& a, const u256& b) {
    return {{a.w[0] ^ b.w[0], a.w[1] ^ b.w[1], a.w[2] ^ b.w[2], a.w[3] ^ b.w[3]}};
}
WG_FN u256 operator~(const u256& a) { return {{~a.w[0], ~a.w[1], ~a.w[2], ~a.w[3]}}; }

WG_FN u256 operator*(const u256& a, const u256& b) {
    u256 r = {};
    WG_UNROLL
    for (u32 i = 0; i < 4; ++i) {
        u64 carry = 0;
        WG_UNROLL
        for (u32 j = 0; j < 3 - i; ++j) r.w[i + j] = multiply_add(a.w[j], b.w[i], r.w[i + j], carry);
        r.w[3] += a.w[3 - i] * b.w[i] + carry;
    }
    return r;
}

// a * b for a 64-bit b; `overflow` is set (never cleared) when the product needs more than 256 bits.
WG_FN u256 multiply_checked(const u256& a, u64 b, bool& overflow) {
    u256 r;
    u64 carry = 0;
    WG_UNROLL
    for (u32 i = 0; i < 4; ++i) r.w[i] = multiply_add(a.w[i], b, 0, carry);
    overflow |= carry != 0;
    return r;
}

WG_FN u256 shift_left(const u256& a, u32 bits) {  // bits < 256
    const u32 words = bits / 64, rest = bits % 64;
    u256 r;
    WG_UNROLL
    for (i32 i = 3; i >= 0; --i) {
        u64 high = 0, low = 0;
        WG_UNROLL
        for (i32 k = 0; k <= i; ++k) {
            high = i - k == static_cast<i32>(words) ? a.w[k] : high;
            low = i - k - 1 == static_cast<i32>(words) ? a.w[k] : low;
        }
        r.w[i] = rest == 0 ? high : high << rest | low >> (64 - rest);
    }
    return r;
}

WG_FN u256 shift_right(const u256& a, u32 bits) {  // bits < 256
    const u32 words = bits / 64, rest = bits % 64;
    u256 r;
    WG_UNROLL
    for (i32 i = 0; i < 4; ++i) {
        u64 low = 0, high = 0;
        WG_UNROLL
        for (i32 k = i; k < 4; ++k) {
            low = k - i == static_cast<i32>(words) ? a.w[k] : low;
            high = k - i - 1 == static_cast<i32>(words) ? a.w[k] : high;
        }
        r.w[i] = rest == 0 ? low : low >> rest | high << (64 - rest);
    }
    return r;
}

WG_FN u256 shift_right_signed(const u256& a, u32 bits) {  // bits < 256
    return is_negative(a) ? ~shift_right(~a, bits) : shift_right(a, bits);
}

WG_FN u32 count_leading_zeros(const u256& a) {
    return a.w[3]   ? count_leading_zeros(a.w[3])
           : a.w[2] ? 64 + count_leading_zeros(a.w[2])
           : a.w[1] ? 128 + count_leading_zeros(a.w[1])
           : a.w[0] ? 192 + count_leading_zeros(a.w[0])
                    : 256;
}

WG_FN u256 negate(const u256& a) { return u256{} - a; }

// ---- division -------------------------------------------------------------------------------------------------------

// floor((2^128 - 1) / d) - 2^64 for a normalised d (highest bit set).
WG_FN u64 reciprocal_word(u64 d) {
    // Two steps of schoolbook division of (~d, ~0) by d in base 2^32 (Hacker's Delight, divlu).
    const u64 mask = 0xffffffffull, d1 = d >> 32, d0 = d & mask;
    u64 quotient[2], rest = ~d;
    WG_UNROLL
    for (u32 i = 0; i < 2; ++i) {
        u64 q = rest / d1, r = rest - q * d1;
        while (q > mask || q * d0 > (r << 32 | mask)) {
            --q;
            r += d1;
            if (r > mask) break;
        }
        quotient[i] = q;
        rest = (rest << 32 | mask) - q * d;
    }
    return quotient[0] << 32 | quotient[1];
}

// Divides (high, low) by d, given high < d and d's reciprocal; returns the quotient, `rest` is the remainder.
WG_FN u64 divide_two_words(u64 high, u64 low, u64 d, u64 reciprocal, u64& rest) {
    u64 upper = 0;
    const u64 q0 = multiply_add(reciprocal, high, low, upper);  // (upper, q0) = reciprocal * high + low
    u64 q1 = upper + high + 1;
    u64 r = low - q1 * d;
    if (r > q0) {
        --q1;
        r += d;
    }
    if (r >= d) {
        ++q1;
        r -= d;
    }
    rest = r;
    return q1;
}

// One digit of algorithm D: subtracts quotient * divisor from window[0..size]; returns the digit.
WG_FN u64 divide_step(u64* window, const u64* divisor, u32 size, u64 reciprocal) {
    const u64 top = divisor[size - 1];
    u64 digit, rest;
    if (window[size] >= top) {
        digit = ~0ull;
    } else {
        digit = divide_two_words(window[size], window[size - 1], top, reciprocal, rest);
    }
    u64 borrow = 0, carry = 0;
    for (u32 i = 0; i < size; ++i) {
        const u64 low = multiply_add(divisor[i], digit, 0, carry);
        window[i] = subtract_with_borrow(window[i], low, borrow);
    }
    window[size] = subtract_with_borrow(window[size], carry, borrow);
    while (borrow) {  // the estimate was at most two too large
        --digit;
        u64 c = 0;
        for (u32 i = 0; i < size; ++i) window[i] = add_with_carry(window[i], divisor[i], c);
        window[size] = add_with_carry(window[size], 0, c);
        borrow -= c;
    }
    return digit;
}

// quotient[0..words) and remainder of numerator[0..words) / divisor; divisor is not zero; words <= 8.
WG_NOINLINE inline void divide_words(u64* quotient, u256& remainder, const u64* numerator, u32 words,
                                     const u256& divisor) {
    u32 size = 4;
    while (divisor.w[size - 1] == 0) --size;
    const u32 shift = count_leading_zeros(divisor.w[size - 1]);
    u64 d[4], n[9];
    for (u32 i = size; i-- > 0;) {
        d[i] = divisor.w[i] << shift | (shift && i ? divisor.w[i - 1] >> (64 - shift) : 0);
    }
    n[words] = shift ? numerator[words - 1] >> (64 - shift) : 0;
    for (u32 i = words; i-- > 0;) {
        n[i] = numerator[i] << shift | (shift && i ? numerator[i - 1] >> (64 - shift) : 0);
    }
    for (u32 i = 0; i < words; ++i) quotient[i] = 0;
    const u64 reciprocal = reciprocal_word(d[size - 1]);
    u32 digits = words - size + 1;
    while (digits > 0 && n[digits - 1 + size] == 0 && n[digits + size - 2] < d[size - 1]) --digits;  // zero for certain
    while (digits-- > 0) quotient[digits] = divide_step(n + digits, d, size, reciprocal);
    remainder = {};
    for (u32 i = 0; i < size; ++i) {
        remainder.w[i] = n[i] >> shift | (shift ? n[i + 1] << (64 - shift) : 0);
    }
}

struct Division {
    u256 quotient, remainder;
};

WG_NOINLINE inline Division divide(const u256& a, const u256& b) {
    if (is_zero(b)) return {};
    if (fits_u64(a) && fits_u64(b)) return {make_u256(a.w[0] / b.w[0]), make_u256(a.w[0] % b.w[0])};
    if (a < b) return {{}, a};
    Division result;
    divide_words(result.quotient.w, result.remainder, a.w, 4, b);
    return result;
}

// Truncated towards zero; the remainder has the dividend's sign.
WG_FN Division divide_signed(const u256& a, const u256& b) {
    Division result = divide(is_negative(a) ? negate(a) : a, is_negative(b) ? negate(b) : b);
    if (is_negative(a) != is_negative(b)) result.quotient = negate(result.quotient);
    if (is_negative(a)) result.remainder = negate(result.remainder);
    return result;
}

WG_NOINLINE inline u256 add_modulo(const u256& a, const u256& b, const u256& modulus) {
    if (is_zero(modulus)) return {};
    u64 sum[5], quotient[5], carry = 0;
    for (u32 i = 0; i < 4; ++i) sum[i] = add_with_carry(a.w[i], b.w[i], carry);
    sum[4] = carry;
    u256 remainder;
    divide_words(quotient, remainder, sum, 5, modulus);
    return remainder;
}

WG_NOINLINE inline u256 multiply_modulo(const u256& a, const u256& b, const u256& modulus) {
    if (is_zero(modulus)) return {};
    u64 product[8], quotient[8];
    multiply_wide(product, a.w, b.w);
    u256 remainder;
    divide_words(quotient, remainder, product, 8, modulus);
    return remainder;
}

WG_NOINLINE inline u256 power(u256 base, const u256& exponent) {
    u256 result = make_u256(1);
    const u32 bits = 256 - count_leading_zeros(exponent);
    for (u32 i = bits; i-- > 0;) {
        result = result * result;
        if (exponent.w[i / 64] >> (i % 64) & 1) result = result * base;
    }
    return result;
}

// ---- bytes ----------------------------------------------------------------------------------------------------------

// 32 big-endian bytes as four 64-bit words read in memory order, and back.
WG_FN u256 from_big_endian_words(u64 first, u64 second, u64 third, u64 fourth) {
    return {{swap_bytes(fourth), swap_bytes(third), swap_bytes(second), swap_bytes(first)}};
}

WG_FN u256 load_big_endian(const u8* bytes) {
    return from_big_endian_words(load_unaligned64(bytes), load_unaligned64(bytes + 8), load_unaligned64(bytes + 16),
                                 load_unaligned64(bytes + 24));
}

WG_FN void store_big_endian(u8* bytes, const u256& value) {
    for (u32 i = 0; i < 32; ++i) bytes[i] = static_cast<u8>(value.w[3 - i / 8] >> (8 * (7 - i % 8)));
}

}  // namespace warpgrid
