// The optimal ate pairing of a curve with a sextic twist over Fp2, as a product over many pairs. The curve's
// description C gives the fields, the twist and its type, the loop length and the final exponentiation.
//
// Line formulas: Costello, Lange, Naehrig, "Faster pairing computations on curves with high-degree twists" (2010), in
// homogeneous coordinates. The squarings of the accumulator are shared by all pairs.
#pragma once

#include "core/native/crypto/curve.hpp"
#include "core/native/crypto/extension.hpp"

namespace warpgrid {

template <class C>
struct PairingState {
    using F = typename C::Fp;
    using F2 = Fp2<F>;
    Affine<F> p;
    Affine<F2> q;
    F2 x, y, z;  // the running multiple of q
};

// A line through points of the twist; at p = (x, y) its value is made of y * a, x * b and c.
template <class C>
struct PairingLine {
    Fp2<typename C::Fp> a, b, c;
};

// f *= the line at p.
template <class C>
WG_FN void multiply_by_line(Fp12<C>& f, const Affine<typename C::Fp>& p, const PairingLine<C>& line) {
    if constexpr (C::D_TWIST) {
        f = f.times_034(line.a * p.y, line.b * p.x, line.c);
    } else {
        f = f.times_014(line.c, line.b * p.x, line.a * p.y);
    }
}

// T = 2T; the tangent at T.
template <class C>
WG_FN PairingLine<C> double_running(PairingState<C>& s) {
    using F2 = Fp2<typename C::Fp>;
    const F2 a = (s.x * s.y).halved();
    const F2 b = s.y.squared(), c = s.z.squared();
    const F2 e = C::twist_b() * c.tripled();
    const F2 e3 = e.tripled();
    const F2 g = (b + e3).halved();
    const F2 h = (s.y + s.z).squared() - (b + c);
    const F2 line_x = s.x.squared().tripled(), line_one = e - b;
    s.x = a * (b - e3);
    s.y = g.squared() - e.squared().tripled();
    s.z = b * h;
    return {-h, line_x, line_one};
}

// T += q; the line through both.
template <class C>
WG_FN PairingLine<C> add_running(PairingState<C>& s, const Affine<Fp2<typename C::Fp>>& q) {
    using F2 = Fp2<typename C::Fp>;
    const F2 theta = s.y - q.y * s.z, lambda = s.x - q.x * s.z;
    const F2 d = lambda.squared(), e = lambda * d;
    const F2 g = s.x * d, h = e + s.z * theta.squared() - g.doubled();
    s.x = lambda * h;
    s.y = theta * (g - h) - e * s.y;
    s.z = s.z * e;
    return {lambda, -theta, theta * q.x - lambda * q.y};
}

template <class C>
WG_NOINLINE inline void double_step(Fp12<C>& f, PairingState<C>& s) {
    multiply_by_line<C>(f, s.p, double_running<C>(s));
}
template <class C>
WG_NOINLINE inline void add_step(Fp12<C>& f, PairingState<C>& s, const Affine<Fp2<typename C::Fp>>& q) {
    multiply_by_line<C>(f, s.p, add_running<C>(s, q));
}

template <class C>
WG_FN void begin_running(PairingState<C>& s) {
    s.x = s.q.x;
    s.y = s.q.y;
    s.z = Fp2<typename C::Fp>::one();
}

// The product of the Miller loops of `count` pairs, none of them infinity, before the final exponentiation.
template <class C>
WG_NOINLINE inline Fp12<C> miller_loop(PairingState<C>* states, u64 count) {
    Fp12<C> f = Fp12<C>::one();
    for (u64 k = 0; k < count; ++k) begin_running<C>(states[k]);
    for (u32 i = C::LOOP_DIGITS - 1; i-- > 0;) {  // the top digit is 1
        f = f.squared();
        const i32 digit = C::loop_digit(i);
        for (u64 k = 0; k < count; ++k) {
            double_step<C>(f, states[k]);
            if (digit > 0) add_step<C>(f, states[k], states[k].q);
            if (digit < 0) add_step<C>(f, states[k], -states[k].q);
        }
    }
    return C::finish_loop(f, states, count);
}

// f^((p^6 - 1) (p^2 + 1)), which lands in the cyclotomic subgroup.
template <class C>
WG_NOINLINE inline Fp12<C> easy_exponentiation(const Fp12<C>& f) {
    const Fp12<C> t = f.conjugate() * f.inverse();
    return t.frobenius().frobenius() * t;
}

// f^exponent in the cyclotomic subgroup, for the sparse parameter of the curve.
template <class C>
WG_NOINLINE inline Fp12<C> cyclotomic_power(const Fp12<C>& f, u64 exponent) {
    Fp12<C> r = f;
    for (u32 i = 63 - count_leading_zeros(exponent); i-- > 0;) {
        r = r.cyclotomic_squared();
        if (exponent >> i & 1) r = r * f;
    }
    return r;
}

// Is the product of the pairings one? `states` hold the points; pairs with infinity have been left out.
template <class C>
WG_NOINLINE inline bool pairing_product_is_one(PairingState<C>* states, u64 count) {
    if (count == 0) return true;
    return C::final_exponentiation(miller_loop<C>(states, count)) == Fp12<C>::one();
}

}  // namespace warpgrid
