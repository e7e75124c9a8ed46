// NIST P-256 (FIPS 186-5): signature verification, the precompile 0x100 (EIP-7951).
#pragma once

#include "core/native/crypto/curve.hpp"
#include "core/native/crypto/field.hpp"
#include "core/native/crypto/generator_tables.hpp"

namespace warpgrid {

struct P256Prime {
    static constexpr u32 LIMBS = 4;
    static WG_FN constexpr u64 modulus(u32 i) {
        constexpr u64 p[4] = {~0ull, 0xffffffffull, 0, 0xffffffff00000001ull};
        return p[i];
    }

    // -1 / p is 1 modulo 2^64, so the multiple that makes t[0] zero is t[0] itself, and the two low limbs of p are
    // 2^96 - 1: one product in place of four.
    static constexpr bool SHORTCUT = true;
    static WG_FN u64 cancel_low_limb(u64 (&t)[4]) {
        const u64 m = t[0];
        const u128 product = static_cast<u128>(m) * modulus(3);
        const u64 multiple[4] = {m << 32, m >> 32, static_cast<u64>(product), static_cast<u64>(product >> 64)};
        u64 sum[4] = {t[1], t[2], t[3], 0};
        add_limbs(sum, sum, multiple);
        t[0] = 0;
        WG_UNROLL
        for (u32 i = 1; i < 4; ++i) t[i] = sum[i - 1];
        return sum[3];
    }
};
struct P256Order {
    static constexpr u32 LIMBS = 4;
    static WG_FN constexpr u64 modulus(u32 i) {
        constexpr u64 n[4] = {0xf3b9cac2fc632551ull, 0xbce6faada7179e84ull, ~0ull, 0xffffffff00000000ull};
        return n[i];
    }
};
using P256Field = Field<P256Prime>;
using P256Scalar = Field<P256Order>;

WG_FN bool p256_is_on_curve(const Affine<P256Field>& p) {
    constexpr u64 B[4] = {0x3bce3c3e27d2604bull, 0x651d06b0cc53b0f6ull, 0xb3ebbd55769886bcull, 0x5ac635d8aa3a93e7ull};
    const P256Field three_x = p.x.doubled() + p.x;
    return p.y.squared() == p.x.squared() * p.x - three_x + P256Field::from_integer(B);
}

// u1 * G + u2 * Q by one chain of doublings.
WG_NOINLINE inline Jacobian<P256Field> p256_double_multiply(const u64 (&u1)[4], const u64 (&u2)[4],
                                                            const Affine<P256Field>& q) {
    using Generator = GeneratorMultiples<P256Field, CurveA::MinusThree>;
    const Generator generator(P256_GENERATOR);
    Affine<P256Field> table[8];
    odd_multiples<CurveA::MinusThree>(table, q);
    SignedDigits<256, Generator::Digit> g_digits;
    SignedDigits<256> q_digits;
    g_digits.recode<Generator::WIDTH>(u1);
    q_digits.recode<5>(u2);
    Jacobian<P256Field> sum = Jacobian<P256Field>::infinity();
    for (u32 i = 257; i-- > 0;) {
        if (!sum.is_infinity()) double_point<CurveA::MinusThree>(sum);
        if (const i32 d = q_digits.digit[i]; d != 0) add_affine<CurveA::MinusThree>(sum, signed_entry(table, d));
        if (const i32 d = g_digits.digit[i]; d != 0) add_affine<CurveA::MinusThree>(sum, generator.at(d));
    }
    return sum;
}

// `input` is hash, r, s, x, y, 32 bytes each, big-endian.
constexpr u64 P256_INPUT_BYTES = 160;

WG_NOINLINE inline bool p256_verify(const u8* input) {
    constexpr Limbs<4> N = modulus_limbs<P256Order>(), P = modulus_limbs<P256Prime>();
    u64 hash[4], r[4], s[4], x[4], y[4];
    load_big_limbs(hash, input);
    load_big_limbs(r, input + 32);
    load_big_limbs(s, input + 64);
    load_big_limbs(x, input + 96);
    load_big_limbs(y, input + 128);
    if (is_zero_limbs(r) || !less_than_limbs(r, N.w) || is_zero_limbs(s) || !less_than_limbs(s, N.w)) return false;
    if (!less_than_limbs(x, P.w) || !less_than_limbs(y, P.w)) return false;
    const Affine<P256Field> q{P256Field::from_integer(x), P256Field::from_integer(y)};
    if (!p256_is_on_curve(q)) return false;  // (0, 0) is not on it either

    subtract_if_at_least(hash, hash, 0, N.w);
    const P256Scalar s_inverse = P256Scalar::from_integer(s).inverse();
    u64 u1[4], u2[4];
    (P256Scalar::from_integer(hash) * s_inverse).to_integer(u1);
    (P256Scalar::from_integer(r) * s_inverse).to_integer(u2);
    const Jacobian<P256Field> sum = p256_double_multiply(u1, u2, q);
    if (sum.is_infinity()) return false;
    // x of the sum, modulo the order, must be r: that is, x = r or (when it fits) x = r + order,
    // compared without division.
    const P256Field zz = sum.z.squared();
    if (P256Field::from_integer(r) * zz == sum.x) return true;
    u64 r_plus_order[4];
    if (add_limbs(r_plus_order, r, N.w) != 0 || !less_than_limbs(r_plus_order, P.w)) return false;
    return P256Field::from_integer(r_plus_order) * zz == sum.x;
}

}  // namespace warpgrid
