// Modular exponentiation of integers of any length, the precompile 0x05 (EIP-198), priced by EIP-2565 or, from Osaka,
// by EIP-7883 within the length limit of EIP-7823.
//
// Odd moduli go through Montgomery products, even ones through schoolbook products and long division (Knuth, TAOCP 2,
// 4.3.1, algorithm D). Numbers are little-endian limbs in the caller's scratch.
#pragma once

#include "core/native/crypto/bytes.hpp"
#include "core/native/crypto/field.hpp"
#include "core/native/crypto/limbs.hpp"

namespace warpgrid {

constexpr u64 MODEXP_HEADER_BYTES = 96;
constexpr u64 MODEXP_LENGTH_MAX_OSAKA = 1024;
constexpr u64 MODEXP_WINDOW_BITS = 4;
constexpr u64 MODEXP_WINDOW_EXPONENT_BITS_MIN = 24;  // shorter exponents do not repay a table

// The three lengths that open the input, each cut to 2^64 - 1, and where the numbers start (likewise cut).
struct ModexpLayout {
    u64 base_bytes, exponent_bytes, modulus_bytes;
    u64 exponent_offset, modulus_offset;
};

WG_FN u64 add_saturating(u64 a, u64 b) { return a + b < a ? ~0ull : a + b; }

WG_FN ModexpLayout modexp_layout(const u8* input, u64 size) {
    u64 lengths[3];
    for (u32 i = 0; i < 3; ++i) {
        u8 word[32];
        read_padded(word, 32, input, size, 32 * i);
        const u64 high = load_big64(word) | load_big64(word + 8) | load_big64(word + 16);
        lengths[i] = high != 0 ? ~0ull : load_big64(word + 24);
    }
    ModexpLayout layout{lengths[0], lengths[1], lengths[2], 0, 0};
    layout.exponent_offset = add_saturating(MODEXP_HEADER_BYTES, layout.base_bytes);
    layout.modulus_offset = add_saturating(layout.exponent_offset, layout.exponent_bytes);
    return layout;
}

// The bit length of the exponent's first 32 bytes (or all of it), less one; 0 for zero.
WG_FN u64 modexp_head_bits(const ModexpLayout& layout, const u8* input, u64 size) {
    const u64 count = layout.exponent_bytes < 32 ? layout.exponent_bytes : 32;
    for (u64 i = 0; i < count; ++i) {
        const u64 offset = add_saturating(layout.exponent_offset, i);
        const u8 byte = offset < size ? input[offset] : 0;
        if (byte != 0) return 8 * (count - i) - (count_leading_zeros(byte) - 56) - 1;
    }
    return 0;
}

// Saturates at 2^64 - 1, which no gas limit reaches. Exponents beyond 32 bytes count `bits_weight` a byte.
WG_FN u64 modexp_iterations(const ModexpLayout& layout, u64 head_bits, u64 byte_weight) {
    u128 count = head_bits;
    if (layout.exponent_bytes > 32) count += static_cast<u128>(layout.exponent_bytes - 32) * byte_weight;
    return count >> 64 != 0 ? ~0ull : (count == 0 ? 1 : static_cast<u64>(count));
}

WG_FN u64 multiply_saturating(u64 a, u64 b) {
    const u128 product = static_cast<u128>(a) * b;
    return product >> 64 != 0 ? ~0ull : static_cast<u64>(product);
}

WG_FN u64 modexp_gas_berlin(const u8* input, u64 size) {
    const ModexpLayout layout = modexp_layout(input, size);
    const u64 longest = layout.base_bytes > layout.modulus_bytes ? layout.base_bytes : layout.modulus_bytes;
    const u64 words = longest / 8 + (longest % 8 != 0);
    const u64 iterations = modexp_iterations(layout, modexp_head_bits(layout, input, size), 8);
    const u64 product = multiply_saturating(multiply_saturating(words, words), iterations);
    if (product == ~0ull) return product;
    return product / 3 < 200 ? 200 : product / 3;
}

WG_FN u64 modexp_gas_osaka(const u8* input, u64 size) {
    const ModexpLayout layout = modexp_layout(input, size);
    const u64 longest = layout.base_bytes > layout.modulus_bytes ? layout.base_bytes : layout.modulus_bytes;
    if (longest > MODEXP_LENGTH_MAX_OSAKA || layout.exponent_bytes > MODEXP_LENGTH_MAX_OSAKA) return ~0ull;
    const u64 words = longest / 8 + (longest % 8 != 0);
    const u64 complexity = longest > 32 ? 2 * words * words : 16;
    const u64 product = complexity * modexp_iterations(layout, modexp_head_bits(layout, input, size), 16);
    return product < 500 ? 500 : product;
}

// The working memory of one call, carved out of the scratch.
struct ModexpNumbers {
    u64 limbs;             // of the modulus, without leading zeros
    u32 shift;             // that brings the modulus' top bit to the top
    u64 reciprocal;        // of the shifted modulus' top limb (Moller and Granlund 2011)
    u64 negated_inverse;   // -1 / modulus modulo 2^64, for an odd modulus
    u64* modulus;          // limbs
    u64* shifted_modulus;  // limbs
    u64* table;            // 16 powers of the base, limbs each
    u64* accumulator;      // limbs
    u64* product;          // 2 limbs + 3, at least the base's words + 2
};

WG_FN u64 modexp_scratch_words(const u8* input, u64 size) {
    const ModexpLayout layout = modexp_layout(input, size);
    if (layout.modulus_bytes == 0) return 0;
    constexpr u64 LENGTH_MAX = 1ull << 40;  // nobody pays for more, and the sum below cannot overflow
    if (layout.modulus_bytes > LENGTH_MAX || layout.base_bytes > LENGTH_MAX) return ~0ull;
    const u64 limbs = (layout.modulus_bytes + 7) / 8, base_words = (layout.base_bytes + 7) / 8;
    const u64 product = base_words > 2 * limbs ? base_words : 2 * limbs;
    return (3 + (1 << MODEXP_WINDOW_BITS)) * limbs + product + 3;
}

// words[0..count) = the big-endian bytes at `offset`, zeros beyond the input's end.
WG_FN void modexp_load(u64* words, u64 count, const u8* input, u64 size, u64 offset, u64 bytes) {
    for (u64 i = 0; i < count; ++i) words[i] = 0;
    for (u64 i = 0; i < bytes; ++i) {
        const u64 at = add_saturating(offset, i);
        if (at >= size) break;
        const u64 place = bytes - 1 - i;
        words[place / 8] |= static_cast<u64>(input[at]) << (8 * (place % 8));
    }
}

WG_FN u64 reciprocal_of(u64 d) { return static_cast<u64>((~static_cast<u128>(0)) / d - (static_cast<u128>(1) << 64)); }

// (high, low) / d for a normalised d > high.
WG_FN u64 divide_two_by_one(u64 high, u64 low, u64 d, u64 reciprocal, u64& remainder) {
    const u128 q = static_cast<u128>(reciprocal) * high + (static_cast<u128>(high) << 64 | low);
    u64 quotient = static_cast<u64>(q >> 64) + 1;
    u64 r = low - quotient * d;
    if (r > static_cast<u64>(q)) {
        --quotient;
        r += d;
    }
    if (r >= d) {
        ++quotient;
        r -= d;
    }
    remainder = r;
    return quotient;
}

// One quotient digit: the n + 1 limbs at `u` lose as many multiples of d as fit.
WG_FN void reduce_one_limb(u64* u, const u64* d, u64 n, u64 reciprocal) {
    const u64 top = d[n - 1];
    u64 estimate = ~0ull;
    if (u[n] < top) {
        u64 remainder;
        estimate = divide_two_by_one(u[n], u[n - 1], top, reciprocal, remainder);
        // The second limb of d corrects all but about one estimate in 2^63.
        while (n > 1 && static_cast<u128>(estimate) * d[n - 2] > (static_cast<u128>(remainder) << 64 | u[n - 2])) {
            --estimate;
            remainder += top;
            if (remainder < top) break;
        }
    }
    u64 carry = 0, borrow = 0;
    for (u64 j = 0; j < n; ++j) {
        const u64 low = multiply_add(estimate, d[j], 0, carry);
        u[j] = subtract_with_borrow(u[j], low, borrow);
    }
    u[n] = subtract_with_borrow(u[n], carry, borrow);
    while (borrow != 0) {
        u64 back = 0;
        for (u64 j = 0; j < n; ++j) u[j] = add_with_carry(u[j], d[j], back);
        u[n] = add_with_carry(u[n], 0, back);
        borrow -= back;
    }
}

// r = product[0..count) modulo the modulus. The product buffer has room for one limb more and is destroyed.
WG_FN void modexp_divide(const ModexpNumbers& m, u64* r, u64 count) {
    const u64 n = m.limbs;
    u64* u = m.product;
    for (u64 i = count; i <= n; ++i) u[i] = 0;  // at least n + 1 limbs
    if (count < n) count = n;
    u[count] = m.shift == 0 ? 0 : u[count - 1] >> (64 - m.shift);
    if (m.shift != 0) {
        for (u64 i = count - 1; i > 0; --i) u[i] = u[i] << m.shift | u[i - 1] >> (64 - m.shift);
        u[0] <<= m.shift;
    }
    for (u64 i = count - n + 1; i-- > 0;) reduce_one_limb(u + i, m.shifted_modulus, n, m.reciprocal);
    for (u64 i = 0; i < n; ++i) {
        r[i] = m.shift == 0 ? u[i] : u[i] >> m.shift | (i + 1 < n ? u[i + 1] << (64 - m.shift) : 0);
    }
}

// r = a * b / 2^64n modulo an odd modulus (Montgomery, operand scanning). r may be a or b.
WG_FN void modexp_multiply_odd(const ModexpNumbers& m, u64* r, const u64* a, const u64* b) {
    const u64 n = m.limbs;
    u64* t = m.product;
    for (u64 i = 0; i <= n; ++i) t[i] = 0;
    for (u64 i = 0; i < n; ++i) {
        const u64 bi = b[i];
        u64 carry = 0, carry2 = 0, top = 0;
        const u64 first = multiply_add(a[0], bi, t[0], carry);
        const u64 k = first * m.negated_inverse;
        multiply_add(k, m.modulus[0], first, carry2);
        for (u64 j = 1; j < n; ++j) {
            const u64 sum = multiply_add(a[j], bi, t[j], carry);
            t[j - 1] = multiply_add(k, m.modulus[j], sum, carry2);
        }
        const u64 sum = add_with_carry(t[n], carry, top);
        u64 top2 = 0;
        t[n - 1] = add_with_carry(sum, carry2, top2);
        t[n] = top + top2;
    }
    u64 borrow = 0;
    for (u64 i = 0; i < n; ++i) subtract_with_borrow(t[i], m.modulus[i], borrow);
    const bool reduce = t[n] >= borrow;
    borrow = 0;
    for (u64 i = 0; i < n; ++i) r[i] = reduce ? subtract_with_borrow(t[i], m.modulus[i], borrow) : t[i];
}

// r = a * b modulo an even modulus. r may be a or b.
WG_FN void modexp_multiply_even(const ModexpNumbers& m, u64* r, const u64* a, const u64* b) {
    const u64 n = m.limbs;
    for (u64 i = 0; i < 2 * n; ++i) m.product[i] = 0;
    for (u64 i = 0; i < n; ++i) {
        u64 carry = 0;
        for (u64 j = 0; j < n; ++j) m.product[i + j] = multiply_add(a[j], b[i], m.product[i + j], carry);
        m.product[i + n] = carry;
    }
    modexp_divide(m, r, 2 * n);
}

WG_NOINLINE inline void modexp_multiply(const ModexpNumbers& m, u64* r, const u64* a, const u64* b) {
    if (m.modulus[0] & 1) {
        modexp_multiply_odd(m, r, a, b);
    } else {
        modexp_multiply_even(m, r, a, b);
    }
}

// Loads the modulus and derives its constants; false when it is zero.
WG_FN bool modexp_load_modulus(ModexpNumbers& m, u64* memory, const ModexpLayout& layout, const u8* input, u64 size) {
    u64 limbs = (layout.modulus_bytes + 7) / 8;
    m.modulus = memory;
    modexp_load(m.modulus, limbs, input, size, layout.modulus_offset, layout.modulus_bytes);
    m.shifted_modulus = memory + limbs;
    m.accumulator = memory + 2 * limbs;
    m.table = memory + 3 * limbs;
    m.product = m.table + (limbs << MODEXP_WINDOW_BITS);
    while (limbs > 0 && m.modulus[limbs - 1] == 0) --limbs;
    m.limbs = limbs;
    if (limbs == 0) return false;
    m.shift = count_leading_zeros(m.modulus[limbs - 1]);
    for (u64 i = 0; i < limbs; ++i) {
        const u64 low = i > 0 && m.shift != 0 ? m.modulus[i - 1] >> (64 - m.shift) : 0;
        m.shifted_modulus[i] = m.modulus[i] << m.shift | low;
    }
    m.reciprocal = reciprocal_of(m.shifted_modulus[limbs - 1]);
    m.negated_inverse = 0 - inverse_power_of_two(m.modulus[0]);
    return true;
}

// power[0] = 1 and power[1] = base, in the form that modexp_multiply keeps (for an odd modulus, times 2^64n).
WG_FN void modexp_load_base(const ModexpNumbers& m, const ModexpLayout& layout, const u8* input, u64 size) {
    const u64 n = m.limbs, base_words = (layout.base_bytes + 7) / 8;
    u64 *one = m.table, *base = m.table + n;
    modexp_load(m.product, base_words, input, size, MODEXP_HEADER_BYTES, layout.base_bytes);
    modexp_divide(m, base, base_words);
    const bool montgomery = m.modulus[0] & 1;
    const u64 one_at = montgomery ? n : 0;
    for (u64 i = 0; i <= one_at; ++i) m.product[i] = i == one_at;
    modexp_divide(m, one, one_at + 1);
    if (!montgomery) return;
    u64* square_of_r = m.accumulator;
    for (u64 i = 0; i <= 2 * n; ++i) m.product[i] = i == 2 * n;
    modexp_divide(m, square_of_r, 2 * n + 1);
    modexp_multiply(m, base, base, square_of_r);
}

// Bits [bit, bit + count) of the exponent, for count up to 4 and bit a multiple of it.
WG_FN u32 modexp_digit(const ModexpLayout& layout, const u8* input, u64 size, u64 bit, u64 count) {
    const u64 at = add_saturating(layout.exponent_offset, layout.exponent_bytes - 1 - bit / 8);
    const u32 byte = at < size ? input[at] : 0;
    return byte >> (bit % 8) & ((1u << count) - 1);
}

WG_FN void modexp_power(const ModexpNumbers& m, const ModexpLayout& layout, const u8* input, u64 size) {
    const u64 n = m.limbs;
    u64 bits = 8 * layout.exponent_bytes;
    while (bits > 0 && modexp_digit(layout, input, size, bits - 8, 4) == 0 &&
           modexp_digit(layout, input, size, bits - 4, 4) == 0) {
        bits -= 8;
    }
    const u64 window = bits > MODEXP_WINDOW_EXPONENT_BITS_MIN ? MODEXP_WINDOW_BITS : 1;
    for (u64 i = 2; i < 1u << window; ++i) modexp_multiply(m, m.table + i * n, m.table + (i - 1) * n, m.table + n);
    for (u64 i = 0; i < n; ++i) m.accumulator[i] = m.table[i];
    bool started = false;  // squaring one is idle
    for (u64 bit = bits; bit > 0;) {
        bit -= window;
        for (u64 k = 0; started && k < window; ++k) modexp_multiply(m, m.accumulator, m.accumulator, m.accumulator);
        const u32 digit = modexp_digit(layout, input, size, bit, window);
        if (digit == 0) continue;
        modexp_multiply(m, m.accumulator, m.accumulator, m.table + digit * n);
        started = true;
    }
}

// output[0..modulus length) = base^exponent mod modulus, big-endian; zeros for modulus 0. `words` is scratch of
// modexp_scratch_words.
WG_NOINLINE inline void modexp(u8* output, const u8* input, u64 size, u64* words) {
    const ModexpLayout layout = modexp_layout(input, size);
    zero_bytes(output, layout.modulus_bytes);
    if (layout.modulus_bytes == 0) return;
    ModexpNumbers m;
    if (!modexp_load_modulus(m, words, layout, input, size)) return;
    modexp_load_base(m, layout, input, size);
    modexp_power(m, layout, input, size);
    if (m.modulus[0] & 1) {  // leave Montgomery form: times 1
        u64* one = m.table;
        for (u64 i = 0; i < m.limbs; ++i) one[i] = i == 0;
        modexp_multiply(m, m.accumulator, m.accumulator, one);
    }
    for (u64 i = 0; i < 8 * m.limbs && i < layout.modulus_bytes; ++i) {
        output[layout.modulus_bytes - 1 - i] = static_cast<u8>(m.accumulator[i / 8] >> (8 * (i % 8)));
    }
}

}  // namespace warpgrid
