// The pairing curve of the precompiles 0x06, 0x07 and 0x08 (EIP-196, EIP-197), called alt_bn128, bn256 or BN254:
// y^2 = x^3 + 3, of prime order, with parameter x = 4965661367192848881.
#pragma once

#include "core/native/crypto/pairing.hpp"

namespace warpgrid {

struct Bn254Prime {
    static constexpr u32 LIMBS = 4;
    static WG_FN constexpr u64 modulus(u32 i) {
        constexpr u64 p[4] = {0x3c208c16d87cfd47ull, 0x97816a916871ca8dull, 0xb85045b68181585dull,
                              0x30644e72e131a029ull};
        return p[i];
    }
};

struct Bn254 {
    using Fp = Field<Bn254Prime>;
    using F2 = Fp2<Fp>;
    static constexpr bool D_TWIST = true;
    static constexpr u64 X = 4965661367192848881ull;

    // The signed binary form of 6x + 2: 66 digits, the top one 1, the others as two masks.
    static constexpr u32 LOOP_DIGITS = 66;
    static WG_FN i32 loop_digit(u32 i) {
        constexpr u64 POSITIVE = 0x2002004200804028ull, NEGATIVE = 0x82889008420a0480ull;
        return i == 64 ? 0 : static_cast<i32>(POSITIVE >> i & 1) - static_cast<i32>(NEGATIVE >> i & 1);
    }

    // xi = 9 + u.
    static WG_FN F2 times_xi(const F2& a) {
        const F2 nine_a = a.doubled().doubled().doubled() + a;
        return {nine_a.c0 - a.c1, nine_a.c1 + a.c0};
    }

    // xi^((p - 1) / 6).
    static WG_FN F2 frobenius_constant() {
        constexpr Fp C0 = Fp::constant(0xd60b35dadcc9e470ull, 0x5c521e08292f2176ull, 0xe8b99fdd76e68b60ull,
                                       0x1284b71c2865a7dfull);
        constexpr Fp C1 = Fp::constant(0xca5cf05f80f362acull, 0x747992778eeec7e5ull, 0xa6327cfe12150b8eull,
                                       0x246996f3b4fae7e6ull);
        return {C0, C1};
    }

    static WG_FN Fp b() {
        constexpr Fp B = Fp::constant(3ull);
        return B;
    }

    // 3 / xi.
    static WG_FN F2 twist_b() {
        constexpr Fp C0 = Fp::constant(0x3267e6dc24a138e5ull, 0xb5b4c5e559dbefa3ull, 0x81be18991be06ac3ull,
                                       0x2b149d40ceb8aaaeull);
        constexpr Fp C1 = Fp::constant(0xe4a2bd0685c315d2ull, 0xa74fa084e52d1852ull, 0xcd2cafadeed8fdf4ull,
                                       0x009713b03af0fed4ull);
        return {C0, C1};
    }

    // The power p on the curve, seen from the twist.
    static WG_FN Affine<F2> twist_frobenius(const Affine<F2>& q) {
        const F2 g = frobenius_constant(), gg = g.squared();
        return {q.x.conjugate() * gg, q.y.conjugate() * (gg * g)};
    }
    static WG_FN Jacobian<F2> twist_frobenius(const Jacobian<F2>& q) {
        const F2 g = frobenius_constant(), gg = g.squared();
        return {q.x.conjugate() * gg, q.y.conjugate() * (gg * g), q.z.conjugate()};
    }

    // The two lines that end the optimal ate loop of a BN curve.
    static WG_FN Fp12<Bn254> finish_loop(Fp12<Bn254> f, PairingState<Bn254>* states, u64 count) {
        for (u64 k = 0; k < count; ++k) {
            const Affine<F2> once = twist_frobenius(states[k].q);
            add_step<Bn254>(f, states[k], once);
            add_step<Bn254>(f, states[k], -twist_frobenius(once));
        }
        return f;
    }

    // The hard part by Fuentes-Castaneda, Knapp, Rodriguez-Henriquez, "Faster hashing to G2" (2011), section 5: a power
    // of the exact one, which is one exactly when that is.
    static WG_NOINLINE Fp12<Bn254> final_exponentiation(const Fp12<Bn254>& miller) {
        using F12 = Fp12<Bn254>;
        const F12 f = easy_exponentiation(miller);
        const F12 a = cyclotomic_power(f, X).conjugate().cyclotomic_squared();  // -2x
        const F12 b = a.cyclotomic_squared() * a;                               // -6x
        const F12 c = cyclotomic_power(b, X).conjugate();                       // 6x^2
        const F12 d = cyclotomic_power(c.cyclotomic_squared(), X);              // 12x^3
        const F12 e = d * c * b.conjugate();                                    // 12x^3 + 6x^2 + 6x
        const F12 g = e * a;                                                    // 12x^3 + 6x^2 + 4x
        const F12 h = e * c * f;                                                // 12x^3 + 12x^2 + 6x + 1
        const F12 g_over_f = f.conjugate() * g;                                 // 12x^3 + 6x^2 + 4x - 1
        return h * g.frobenius() * e.frobenius().frobenius() * g_over_f.frobenius().frobenius().frobenius();
    }
};

using Bn254Field = Bn254::Fp;
using Bn254G1 = Affine<Bn254Field>;
using Bn254G2 = Affine<Fp2<Bn254Field>>;

WG_FN bool bn254_load_field(Bn254Field& r, const u8* bytes) {
    constexpr Limbs<4> P = modulus_limbs<Bn254Prime>();
    u64 a[4];
    load_big_limbs(a, bytes);
    if (!less_than_limbs(a, P.w)) return false;
    r = Bn254Field::from_integer(a);
    return true;
}

// 64 bytes, x and y; (0, 0) is infinity.
WG_NOINLINE inline PointKind bn254_load_g1(Bn254G1& p, const u8* bytes) {
    if (!bn254_load_field(p.x, bytes) || !bn254_load_field(p.y, bytes + 32)) return PointKind::Invalid;
    if (p.x.is_zero() && p.y.is_zero()) return PointKind::Infinity;
    return p.y.squared() == p.x.squared() * p.x + Bn254::b() ? PointKind::Finite : PointKind::Invalid;
}

// Of a point on the twist: is its order that of G1? (El Housni, Guillevic, Piellard, "Co-factor clearing and subgroup
// membership testing on pairing-friendly curves", 2022: (x + 1) Q + psi(x Q) + psi^2(x Q) = psi^3(2x Q).)
WG_NOINLINE inline bool bn254_in_subgroup(const Bn254G2& q) {
    using J = Jacobian<Fp2<Bn254Field>>;
    const J x_times = multiply_point_sparse<CurveA::Zero>(J::from(q), Bn254::X);
    const J psi = Bn254::twist_frobenius(x_times), psi2 = Bn254::twist_frobenius(psi);
    J left = x_times;
    add_affine<CurveA::Zero>(left, q);
    add_jacobian<CurveA::Zero>(left, psi);
    add_jacobian<CurveA::Zero>(left, psi2);
    J right = Bn254::twist_frobenius(psi2);
    double_point<CurveA::Zero>(right);
    add_jacobian<CurveA::Zero>(left, -right);
    return left.is_infinity();
}

// 128 bytes: x and y, each with the coefficient of u first; all zeros is infinity.
WG_NOINLINE inline PointKind bn254_load_g2(Bn254G2& q, const u8* bytes) {
    if (!bn254_load_field(q.x.c1, bytes) || !bn254_load_field(q.x.c0, bytes + 32)) return PointKind::Invalid;
    if (!bn254_load_field(q.y.c1, bytes + 64) || !bn254_load_field(q.y.c0, bytes + 96)) return PointKind::Invalid;
    if (q.x.is_zero() && q.y.is_zero()) return PointKind::Infinity;
    if (!(q.y.squared() == q.x.squared() * q.x + Bn254::twist_b())) return PointKind::Invalid;
    return bn254_in_subgroup(q) ? PointKind::Finite : PointKind::Invalid;
}

WG_FN void bn254_store(u8* output, const Jacobian<Bn254Field>& p) {
    if (p.is_infinity()) {
        zero_bytes(output, 64);
        return;
    }
    const Bn254G1 affine = to_affine(p);
    u64 a[4];
    affine.x.to_integer(a);
    store_big_limbs(output, a);
    affine.y.to_integer(a);
    store_big_limbs(output + 32, a);
}

constexpr u64 BN254_G1_BYTES = 64;
constexpr u64 BN254_PAIR_BYTES = 192;

// output[64] = the sum of the two points in the (zero-padded) input; false when one is not on the curve.
WG_NOINLINE inline bool bn254_add(u8* output, const u8* input, u64 size) {
    u8 padded[2 * BN254_G1_BYTES];
    read_padded(padded, sizeof(padded), input, size, 0);
    Bn254G1 a, b;
    const PointKind kind_a = bn254_load_g1(a, padded), kind_b = bn254_load_g1(b, padded + BN254_G1_BYTES);
    if (kind_a == PointKind::Invalid || kind_b == PointKind::Invalid) return false;
    Jacobian<Bn254Field> sum = Jacobian<Bn254Field>::infinity();
    if (kind_a == PointKind::Finite) sum = Jacobian<Bn254Field>::from(a);
    if (kind_b == PointKind::Finite) add_affine<CurveA::Zero>(sum, b);
    bn254_store(output, sum);
    return true;
}

// output[64] = scalar * point, from the (zero-padded) input of 96 bytes; false when the point is not on the curve.
WG_NOINLINE inline bool bn254_multiply(u8* output, const u8* input, u64 size) {
    u8 padded[96];
    read_padded(padded, sizeof(padded), input, size, 0);
    Bn254G1 p;
    u64 scalar[4];
    load_big_limbs(scalar, padded + 64);
    const PointKind kind = bn254_load_g1(p, padded);
    if (kind == PointKind::Invalid) return false;
    Jacobian<Bn254Field> product = Jacobian<Bn254Field>::infinity();
    if (kind == PointKind::Finite) product = multiply_point<CurveA::Zero, 256>(p, scalar);
    bn254_store(output, product);
    return true;
}

constexpr u64 BN254_PAIR_WORDS = sizeof(PairingState<Bn254>) / 8;

// Sets `is_one` to whether the pairings of all pairs multiply to one; false when a point is invalid. The size is a
// multiple of BN254_PAIR_BYTES, and `words` holds BN254_PAIR_WORDS for each pair.
WG_NOINLINE inline bool bn254_pairing(bool& is_one, const u8* input, u64 size, u64* words) {
    PairingState<Bn254>* states = reinterpret_cast<PairingState<Bn254>*>(words);
    u64 count = 0;
    for (u64 offset = 0; offset < size; offset += BN254_PAIR_BYTES) {
        PairingState<Bn254>& state = states[count];
        const PointKind p = bn254_load_g1(state.p, input + offset);
        const PointKind q = bn254_load_g2(state.q, input + offset + BN254_G1_BYTES);
        if (p == PointKind::Invalid || q == PointKind::Invalid) return false;
        if (p == PointKind::Finite && q == PointKind::Finite) ++count;  // a pair with infinity contributes one
    }
    is_one = pairing_product_is_one<Bn254>(states, count);
    return true;
}

}  // namespace warpgrid
