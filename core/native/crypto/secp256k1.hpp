// secp256k1 (SEC 2, version 2): recovery of the signer of a message, singly. The batch form for the GPU is in
// recovery_batch.hpp.
#pragma once

#include "core/native/crypto/curve.hpp"
#include "core/native/crypto/field.hpp"
#include "core/native/crypto/generator_tables.hpp"
#include "core/native/crypto/keccak.hpp"

namespace warpgrid {

// The prime 2^256 - 2^32 - 977. Values are any representative below 2^256; only comparison and output reduce fully.
struct Secp256k1Prime {
    static constexpr u32 LIMBS = 4;
    static constexpr u32 COMPLEMENT_LOW = 977;
    static constexpr u64 COMPLEMENT = 0x1000003d1ull;
    static WG_FN constexpr u64 modulus(u32 i) { return i == 0 ? 0 - COMPLEMENT : ~0ull; }
};

struct Secp256k1Field {
    u64 w[4];

    static WG_FN Secp256k1Field zero() { return {{0, 0, 0, 0}}; }
    static WG_FN Secp256k1Field one() { return {{1, 0, 0, 0}}; }

    WG_FN Secp256k1Field reduced() const {
        constexpr Limbs<4> P = modulus_limbs<Secp256k1Prime>();
        Secp256k1Field r;
        subtract_if_at_least(r.w, w, 0, P.w);
        return r;
    }
    WG_FN bool is_zero() const {
        const u64 high = w[1] & w[2] & w[3];
        return is_zero_limbs(w) || (high == ~0ull && w[0] == Secp256k1Prime::modulus(0));
    }
    WG_FN bool operator==(const Secp256k1Field& b) const { return (*this - b).is_zero(); }
    WG_FN bool is_odd() const { return reduced().w[0] & 1; }

    // 2^256 is the complement: what overflows comes back in, at most twice.
    WG_FN void fold(u64 overflow) {
        u64 high = 0;
        const u64 low = multiply_add(overflow, Secp256k1Prime::COMPLEMENT, 0, high);
        const u64 product[4] = {low, high, 0, 0};
        const u64 again[4] = {Secp256k1Prime::COMPLEMENT & (0 - add_limbs(w, w, product)), 0, 0, 0};
        add_limbs(w, w, again);
    }

    WG_FN Secp256k1Field operator+(const Secp256k1Field& b) const {
        Secp256k1Field r;
        const u64 first[4] = {Secp256k1Prime::COMPLEMENT & (0 - add_limbs(r.w, w, b.w)), 0, 0, 0};
        const u64 second = add_limbs(r.w, r.w, first);
        r.w[0] += Secp256k1Prime::COMPLEMENT & (0 - second);  // after a second carry r is tiny
        return r;
    }
    WG_FN Secp256k1Field operator-(const Secp256k1Field& b) const {
        Secp256k1Field r;
        const u64 first[4] = {Secp256k1Prime::COMPLEMENT & (0 - subtract_limbs(r.w, w, b.w)), 0, 0, 0};
        const u64 second = subtract_limbs(r.w, r.w, first);
        r.w[0] -= Secp256k1Prime::COMPLEMENT & (0 - second);  // after a second borrow r is nearly 2^256
        return r;
    }
    WG_FN Secp256k1Field operator-() const { return zero() - *this; }
    WG_FN Secp256k1Field operator*(const Secp256k1Field& b) const { return multiply(*this, b); }
    WG_FN Secp256k1Field squared() const { return square(*this); }
    WG_FN Secp256k1Field doubled() const { return *this + *this; }

    WG_FN Secp256k1Field halved() const {
        const u64 mask = 0 - (w[0] & 1);
        const u64 addend[4] = {Secp256k1Prime::modulus(0) & mask, mask, mask, mask};
        Secp256k1Field r;
        const u64 carry = add_limbs(r.w, w, addend);
        WG_UNROLL
        for (u32 i = 0; i < 4; ++i) r.w[i] = r.w[i] >> 1 | (i < 3 ? r.w[i + 1] : carry) << 63;
        return r;
    }

    WG_FN Secp256k1Field inverse() const {
        constexpr auto M = modulus62<Secp256k1Prime>();
        Secp256k1Field r = reduced();
        invert_modular(r.w, M);
        return r;
    }

    WG_FN Secp256k1Field squared_times(u32 times) const {
        Secp256k1Field r = *this;
        for (u32 i = 0; i < times; ++i) r = r.squared();
        return r;
    }

    // The power (p + 1) / 4: a square root where there is one. Blocks of ones of length 2, 22 and
    // 223 make up the exponent.
    WG_NOINLINE Secp256k1Field square_root_candidate() const {
        const Secp256k1Field& a = *this;
        const Secp256k1Field x2 = a.squared() * a;
        const Secp256k1Field x3 = x2.squared() * a;
        const Secp256k1Field x6 = x3.squared_times(3) * x3;
        const Secp256k1Field x9 = x6.squared_times(3) * x3;
        const Secp256k1Field x11 = x9.squared_times(2) * x2;
        const Secp256k1Field x22 = x11.squared_times(11) * x11;
        const Secp256k1Field x44 = x22.squared_times(22) * x22;
        const Secp256k1Field x88 = x44.squared_times(44) * x44;
        const Secp256k1Field x176 = x88.squared_times(88) * x88;
        const Secp256k1Field x220 = x176.squared_times(44) * x44;
        const Secp256k1Field x223 = x220.squared_times(3) * x3;
        return (x223.squared_times(23) * x22).squared_times(6).multiply_by(x2).squared_times(2);
    }
    WG_FN Secp256k1Field multiply_by(const Secp256k1Field& b) const { return multiply(*this, b); }

    static WG_FN Secp256k1Field reduce_wide(const u64 (&t)[8]) {
        Secp256k1Field r{{t[0], t[1], t[2], t[3]}};
        const u64 high[4] = {t[4], t[5], t[6], t[7]};
        r.fold(add_multiple_33<Secp256k1Prime::COMPLEMENT_LOW>(r.w, high));
        return r;
    }
    static WG_SHARED_FN Secp256k1Field multiply(WG_OPERAND(Secp256k1Field) a, WG_OPERAND(Secp256k1Field) b) {
        u64 t[8];
        multiply_wide(t, a.w, b.w);
        return reduce_wide(t);
    }
    static WG_SHARED_FN Secp256k1Field square(WG_OPERAND(Secp256k1Field) a) {
        u64 t[8];
        square_wide(t, a.w);
        return reduce_wide(t);
    }
};

struct Secp256k1Order {
    static constexpr u32 LIMBS = 4;
    static WG_FN constexpr u64 modulus(u32 i) {
        constexpr u64 n[4] = {0xbfd25e8cd0364141ull, 0xbaaedce6af48a03bull, 0xfffffffffffffffeull, ~0ull};
        return n[i];
    }
};
using Secp256k1Scalar = Field<Secp256k1Order>;

// A cube root of one in the field: (x, y) -> (BETA x, y) multiplies a point by LAMBDA (Gallant,
// Lambert, Vanstone 2001).
WG_FN Secp256k1Field secp256k1_beta() {
    return {{0xc1396c28719501eeull, 0x9cf0497512f58995ull, 0x6e64479eac3434e9ull, 0x7ae96a2b657c0710ull}};
}

// k = sign1 k1 + LAMBDA sign2 k2 modulo the order, both halves below 2^128.
struct SplitScalar {
    u64 half[2][2];
    bool negative[2];
};

// The high half of k * factor / 2^384, rounded: the nearest lattice coordinate.
WG_FN void lattice_coordinate(u64 (&c)[4], const u64 (&k)[4], const u64 (&factor)[4]) {
    u64 t[8];
    multiply_wide(t, k, factor);
    u64 carry = t[5] >> 63;
    c[0] = add_with_carry(t[6], 0, carry);
    c[1] = add_with_carry(t[7], 0, carry);
    c[2] = carry;
    c[3] = 0;
}

// a -= c * b modulo 2^256.
WG_FN void subtract_product(u64 (&a)[4], const u64 (&c)[4], const u64 (&b)[4]) {
    u64 t[8];
    multiply_wide(t, c, b);
    const u64 low[4] = {t[0], t[1], t[2], t[3]};
    subtract_limbs(a, a, low);
}

WG_FN bool absolute_value(u64 (&half)[2], const u64 (&a)[4]) {
    const u64 zeros[4] = {0, 0, 0, 0};
    const bool negative = a[3] >> 63;
    u64 magnitude[4];
    subtract_limbs(magnitude, zeros, a);
    half[0] = negative ? magnitude[0] : a[0];
    half[1] = negative ? magnitude[1] : a[1];
    return negative;
}

WG_FN SplitScalar secp256k1_split(const u64 (&k)[4]) {
    // Short lattice vectors (A1, B1) and (A2, B2) with A + LAMBDA B = 0; G1 and G2 are 2^384 B2 / n and -2^384 B1 / n.
    constexpr u64 G1[4] = {0xe893209a45dbb031ull, 0x3daa8a1471e8ca7full, 0xe86c90e49284eb15ull, 0x3086d221a7d46bcdull};
    constexpr u64 G2[4] = {0x1571b4ae8ac47f71ull, 0x221208ac9df506c6ull, 0x6f547fa90abfe4c4ull, 0xe4437ed6010e8828ull};
    constexpr u64 A1[4] = {0xe86c90e49284eb15ull, 0x3086d221a7d46bcdull, 0, 0};
    constexpr u64 MINUS_B1[4] = {0x6f547fa90abfe4c3ull, 0xe4437ed6010e8828ull, 0, 0};
    constexpr u64 A2[4] = {0x57c1108d9d44cfd8ull, 0x14ca50f7a8e2f3f6ull, 1, 0};
    constexpr u64 MINUS_B2[4] = {0 - A1[0], ~A1[1], ~0ull, ~0ull};
    u64 c1[4], c2[4], k1[4] = {k[0], k[1], k[2], k[3]}, k2[4] = {0, 0, 0, 0};
    lattice_coordinate(c1, k, G1);
    lattice_coordinate(c2, k, G2);
    subtract_product(k1, c1, A1);
    subtract_product(k1, c2, A2);
    u64 t[8];
    multiply_wide(t, c1, MINUS_B1);
    const u64 low[4] = {t[0], t[1], t[2], t[3]};
    add_limbs(k2, k2, low);
    multiply_wide(t, c2, MINUS_B2);
    const u64 low2[4] = {t[0], t[1], t[2], t[3]};
    add_limbs(k2, k2, low2);
    SplitScalar split;
    split.negative[0] = absolute_value(split.half[0], k1);
    split.negative[1] = absolute_value(split.half[1], k2);
    return split;
}

// A signature as Ethereum carries it, and what it signs. All integers little-endian limbs.
struct RecoverableSignature {
    u64 hash[4], r[4], s[4];
    u32 y_parity;
};

WG_FN bool is_secp256k1_scalar(const u64 (&a)[4]) {
    constexpr Limbs<4> N = modulus_limbs<Secp256k1Order>();
    return !is_zero_limbs(a) && less_than_limbs(a, N.w);
}

// The point with this x and parity of y; false when x is on no point.
WG_FN bool secp256k1_lift(Affine<Secp256k1Field>& point, const u64 (&x)[4], u32 y_parity) {
    const Secp256k1Field seven{{7, 0, 0, 0}};
    point.x = {{x[0], x[1], x[2], x[3]}};
    const Secp256k1Field yy = point.x.squared() * point.x + seven;
    point.y = yy.square_root_candidate();
    if (!(point.y.squared() == yy)) return false;
    if (static_cast<u32>(point.y.is_odd()) != y_parity) point.y = -point.y;
    return true;
}

// u1 and u2 of a recovery with hash z: -z / r and s / r.
WG_FN void recovery_scalars(u64 (&u1)[4], u64 (&u2)[4], const RecoverableSignature& signature,
                            const Secp256k1Scalar& r_inverse) {
    constexpr Limbs<4> N = modulus_limbs<Secp256k1Order>();
    u64 z[4];
    subtract_if_at_least(z, signature.hash, 0, N.w);
    (-(Secp256k1Scalar::from_integer(z) * r_inverse)).to_integer(u1);
    (Secp256k1Scalar::from_integer(signature.s) * r_inverse).to_integer(u2);
}

// u1 * G + u2 * R by one chain of 128 doublings: both scalars split in two, wNAF of width 5 for R. The chain runs on
// the curve where the multiples of R are affine; those of G are brought there.
WG_NOINLINE inline Jacobian<Secp256k1Field> secp256k1_double_multiply(const u64 (&u1)[4], const u64 (&u2)[4],
                                                                      const Affine<Secp256k1Field>& r_point) {
    using F = Secp256k1Field;
    using Generator = GeneratorMultiples<F, CurveA::Zero>;
    const Generator generator(SECP256K1_GENERATOR);
    const F beta = secp256k1_beta();
    const SplitScalar g = secp256k1_split(u1), r = secp256k1_split(u2);
    Affine<F> table[8];
    F z;
    odd_multiples_isomorphic(table, z, r_point);
    const F zz = z.squared(), zzz = zz * z;
    SignedDigits<128, typename Generator::Digit> g_digits[2];
    SignedDigits<128> r_digits[2];
    for (u32 half = 0; half < 2; ++half) {
        g_digits[half].template recode<Generator::WIDTH>(g.half[half]);
        r_digits[half].template recode<5>(r.half[half]);
    }
    Jacobian<F> sum = Jacobian<F>::infinity();
    const auto add = [&](const Affine<F>& entry, u32 half) {
        add_affine<CurveA::Zero>(sum, half == 1 ? Affine<F>{entry.x * beta, entry.y} : entry);
    };
    for (u32 i = 129; i-- > 0;) {
        if (!sum.is_infinity()) double_point<CurveA::Zero>(sum);
        for (u32 half = 0; half < 2; ++half) {
            if (const i32 d = r_digits[half].digit[i]; d != 0) {
                add(signed_entry(table, r.negative[half] ? -d : d), half);
            }
            if (const i32 d = g_digits[half].digit[i]; d != 0) {
                const Affine<F> entry = generator.at(g.negative[half] ? -d : d);
                add({entry.x * zz, entry.y * zzz}, half);
            }
        }
    }
    sum.z = sum.z * z;
    return sum;
}

// The public key's hash ends in the address.
WG_FN void address_of_point(u8* address, const Affine<Secp256k1Field>& point) {
    u8 public_key[64], digest[32];
    store_big_limbs(public_key, point.x.reduced().w);
    store_big_limbs(public_key + 32, point.y.reduced().w);
    keccak256(digest, public_key, 64);
    copy_bytes(address, digest + 12, 20);
}

// The public key of the signer; false when there is none. The hash is taken modulo the order.
// Accepts s in both halves of its range, as the precompile does; transactions refuse the high half before (EIP-2).
WG_NOINLINE inline bool recover_public_key(Affine<Secp256k1Field>& public_key,
                                           const RecoverableSignature& signature) {
    if (!is_secp256k1_scalar(signature.r) || !is_secp256k1_scalar(signature.s)) return false;
    Affine<Secp256k1Field> r_point;
    if (!secp256k1_lift(r_point, signature.r, signature.y_parity)) return false;
    u64 u1[4], u2[4];
    recovery_scalars(u1, u2, signature, Secp256k1Scalar::from_integer(signature.r).inverse());
    const Jacobian<Secp256k1Field> q = secp256k1_double_multiply(u1, u2, r_point);
    if (q.is_infinity()) return false;
    public_key = to_affine(q);
    return true;
}

// address[20] of the signer; false when there is none.
WG_FN bool recover_address(u8* address, const RecoverableSignature& signature) {
    Affine<Secp256k1Field> public_key;
    if (!recover_public_key(public_key, signature)) return false;
    address_of_point(address, public_key);
    return true;
}

}  // namespace warpgrid
