// Mapping field elements to points of BLS12-381, the precompiles 0x10 and 0x11 (EIP-2537): simplified SWU onto an
// isogenous curve, the isogeny, and clearing the cofactor (RFC 9380, sections 6.6.3, 8.8 and appendix G).
#pragma once

#include "core/native/crypto/bls12_381.hpp"
#include "core/native/crypto/bls12_381_isogenies.hpp"

namespace warpgrid {

WG_FN Bls12Field bls_constant(const BlsConstant& c) { return {{c.w[0], c.w[1], c.w[2], c.w[3], c.w[4], c.w[5]}}; }

template <u32 COUNT>
WG_FN Bls12Field coefficient(const BlsConstant (&table)[COUNT], u32 i, Bls12Field) {
    return bls_constant(table[i]);
}
template <u32 COUNT>
WG_FN Fp2<Bls12Field> coefficient(const BlsConstant (&table)[COUNT], u32 i, Fp2<Bls12Field>) {
    return {bls_constant(table[2 * i]), bls_constant(table[2 * i + 1])};
}

// The polynomial with TERMS coefficients, lowest degree first, at x (Horner).
template <u32 TERMS, class F, u32 COUNT>
WG_FN F evaluate(const BlsConstant (&table)[COUNT], const F& x) {
    F r = coefficient(table, TERMS - 1, x);
    for (u32 i = TERMS - 1; i-- > 0;) r = r * x + coefficient(table, i, x);
    return r;
}

// The image of (x, y) under an isogeny (xn / xd, y yn / yd), with z = xd yd: infinity where a denominator vanishes.
template <class F>
WG_FN Jacobian<F> from_fractions(const F& y, const F& xn, const F& xd, const F& yn, const F& yd) {
    const F yd2 = yd.squared();
    return {xn * xd * yd2, y * yn * (xd.squared() * xd) * yd2, xd * yd};
}

// RFC 9380's sgn0.
WG_FN bool is_negative(const Bls12Field& a) {
    u64 integer[6];
    a.to_integer(integer);
    return integer[0] & 1;
}
WG_FN bool is_negative(const Fp2<Bls12Field>& a) { return a.c0.is_zero() ? is_negative(a.c1) : is_negative(a.c0); }

// a^((p + 1) / 4): a root of a where it has one, else of -a.
WG_FN Bls12Field bls_root_candidate(const Bls12Field& a) {
    constexpr u64 EXPONENT[6] = {0xee7fbfffffffeaabull, 0x07aaffffac54ffffull, 0xd9cc34a83dac3d89ull,
                                 0xd91dd2e13ce144afull, 0x92c6e9ed90d2eb35ull, 0x0680447a8e5ff9a6ull};
    return power(a, EXPONENT);
}

WG_FN bool bls_square_root(Bls12Field& root, const Bls12Field& a) {
    root = bls_root_candidate(a);
    return root.squared() == a;
}

// In Fp2, from the root s of the norm: a = (c0 + c1 u)^2 with c0^2 = (a.c0 + s) / 2 for one of the two signs of s.
WG_NOINLINE inline bool bls_square_root(Fp2<Bls12Field>& root, const Fp2<Bls12Field>& a) {
    Bls12Field s;
    if (!bls_square_root(s, a.c0.squared() + a.c1.squared())) return false;
    if (!bls_square_root(root.c0, (a.c0 + s).halved()) && !bls_square_root(root.c0, (a.c0 - s).halved())) {
        root.c0 = Bls12Field::zero();
    }
    if (root.c0.is_zero()) return bls_square_root(root.c1, -a.c0) && (root.squared() == a);
    root.c1 = a.c1 * root.c0.doubled().inverse();
    return root.squared() == a;
}

// x1 = -B / A (1 + 1 / t), or B / (Z A) where t = Z^2 u^4 + Z u^2 is zero.
template <class F>
WG_FN F sswu_first_x(const F& a, const F& b, const F& z, const F& t) {
    if (t.is_zero()) return b * (z * a).inverse();
    return -(b * (t + F::one())) * (a * t).inverse();
}

// The point of E' for u, before the isogeny. The second candidate's value is Z^3 u^6 times the first's, so one root
// serves both: a root of -g times u^3 and a root of -Z^3.
WG_NOINLINE inline Affine<Bls12Field> sswu_g1(const Bls12Field& u) {
    constexpr Bls12Field Z = Bls12Field::constant(11ull);
    const Bls12Field a = bls_constant(BLS_SSWU_G1[0]), b = bls_constant(BLS_SSWU_G1[1]);
    const Bls12Field zuu = u.squared() * Z;
    Affine<Bls12Field> p;
    p.x = sswu_first_x(a, b, Z, zuu.squared() + zuu);
    if (!bls_square_root(p.y, (p.x.squared() + a) * p.x + b)) {
        p.x = p.x * zuu;
        p.y = p.y * u.squared() * u * bls_constant(BLS_SSWU_G1[2]);
    }
    if (is_negative(p.y) != is_negative(u)) p.y = -p.y;
    return p;
}

WG_NOINLINE inline Affine<Fp2<Bls12Field>> sswu_g2(const Fp2<Bls12Field>& u) {
    constexpr Bls12Field ZERO = Bls12Field::constant(0ull), A1 = Bls12Field::constant(240ull);
    constexpr Bls12Field B0 = Bls12Field::constant(1012ull);
    const Bls12Field one = Bls12Field::one();
    const Fp2<Bls12Field> a{ZERO, A1}, b{B0, B0}, z{-one.doubled(), -one};
    const Fp2<Bls12Field> zuu = u.squared() * z;
    Affine<Fp2<Bls12Field>> p;
    p.x = sswu_first_x(a, b, z, zuu.squared() + zuu);
    if (!bls_square_root(p.y, (p.x.squared() + a) * p.x + b)) {
        p.x = p.x * zuu;
        bls_square_root(p.y, (p.x.squared() + a) * p.x + b);  // one of the two always has a root
    }
    if (is_negative(p.y) != is_negative(u)) p.y = -p.y;
    return p;
}

WG_NOINLINE inline Jacobian<Bls12Field> bls_map_to_g1(const Bls12Field& u) {
    const Affine<Bls12Field> p = sswu_g1(u);
    const Jacobian<Bls12Field> q = from_fractions(
        p.y, evaluate<12>(BLS_ISO11_X_NUMERATOR, p.x), evaluate<11>(BLS_ISO11_X_DENOMINATOR, p.x),
        evaluate<16>(BLS_ISO11_Y_NUMERATOR, p.x), evaluate<16>(BLS_ISO11_Y_DENOMINATOR, p.x));
    return multiply_point_sparse<CurveA::Zero>(q, Bls12::X + 1);
}

// (x^2 - x - 1) P + (x - 1) psi(P) + psi^2(2P) for x = -X (Budroni and Pintore, "Efficient hash maps to G2", 2017).
WG_NOINLINE inline Jacobian<Fp2<Bls12Field>> clear_cofactor_g2(const Jacobian<Fp2<Bls12Field>>& p) {
    using J = Jacobian<Fp2<Bls12Field>>;
    const J x_p = -multiply_point_sparse<CurveA::Zero>(p, Bls12::X), psi_p = Bls12::twist_frobenius(p);
    J inner = x_p;
    add_jacobian<CurveA::Zero>(inner, psi_p);
    J sum = -multiply_point_sparse<CurveA::Zero>(inner, Bls12::X);
    J doubled = p;
    double_point<CurveA::Zero>(doubled);
    add_jacobian<CurveA::Zero>(sum, -inner);
    add_jacobian<CurveA::Zero>(sum, -p);
    add_jacobian<CurveA::Zero>(sum, Bls12::twist_frobenius(Bls12::twist_frobenius(doubled)));
    return sum;
}

WG_NOINLINE inline Jacobian<Fp2<Bls12Field>> bls_map_to_g2(const Fp2<Bls12Field>& u) {
    const Affine<Fp2<Bls12Field>> p = sswu_g2(u);
    return clear_cofactor_g2(from_fractions(
        p.y, evaluate<4>(BLS_ISO3_X_NUMERATOR, p.x), evaluate<3>(BLS_ISO3_X_DENOMINATOR, p.x),
        evaluate<4>(BLS_ISO3_Y_NUMERATOR, p.x), evaluate<4>(BLS_ISO3_Y_DENOMINATOR, p.x)));
}

// output = the point for the field element in the input, of BLS_FIELD_BYTES (twice that for G2);
// false when it is not one.
WG_FN bool bls_map_g1(u8* output, const u8* input) {
    Bls12Field u;
    if (!bls_load_field(u, input)) return false;
    bls_store_point<BlsG1>(output, bls_map_to_g1(u));
    return true;
}
WG_FN bool bls_map_g2(u8* output, const u8* input) {
    Fp2<Bls12Field> u;
    if (!bls_load_field(u, input)) return false;
    bls_store_point<BlsG2>(output, bls_map_to_g2(u));
    return true;
}

}  // namespace warpgrid
