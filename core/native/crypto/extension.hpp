// The tower of extension fields that both pairing curves use: Fp2 = Fp[u] / (u^2 + 1), Fp6 = Fp2[v] / (v^3 - xi),
// Fp12 = Fp6[w] / (w^2 - v). The curve's description C gives Fp and the multiplication by xi.
#pragma once

#include "core/native/crypto/field.hpp"

namespace warpgrid {

template <class F>
struct Fp2 {
    F c0, c1;

    static WG_FN Fp2 zero() { return {F::zero(), F::zero()}; }
    static WG_FN Fp2 one() { return {F::one(), F::zero()}; }
    WG_FN bool is_zero() const { return c0.is_zero() && c1.is_zero(); }
    WG_FN bool operator==(const Fp2& b) const { return c0 == b.c0 && c1 == b.c1; }
    WG_FN Fp2 operator+(const Fp2& b) const { return {c0 + b.c0, c1 + b.c1}; }
    WG_FN Fp2 operator-(const Fp2& b) const { return {c0 - b.c0, c1 - b.c1}; }
    WG_FN Fp2 operator-() const { return {-c0, -c1}; }
    WG_FN Fp2 operator*(const Fp2& b) const { return multiply(*this, b); }
    WG_FN Fp2 operator*(const F& b) const { return {c0 * b, c1 * b}; }
    WG_FN Fp2 doubled() const { return {c0.doubled(), c1.doubled()}; }
    WG_FN Fp2 tripled() const { return doubled() + *this; }
    WG_FN Fp2 halved() const { return {c0.halved(), c1.halved()}; }
    WG_FN Fp2 conjugate() const { return {c0, -c1}; }
    WG_FN Fp2 squared() const { return square(*this); }

    WG_FN Fp2 inverse() const {
        const F norm_inverse = (c0.squared() + c1.squared()).inverse();
        return {c0 * norm_inverse, -(c1 * norm_inverse)};
    }

    // Four products in two sums where those are fused, else Karatsuba's three.
    static WG_NOINLINE Fp2 multiply(const Fp2& a, const Fp2& b) {
        if constexpr (F::FUSED_TERMS >= 2) {
            const F minus_b1 = -b.c1;
            return {F::template sum_of_products<2>({&a.c0, &a.c1}, {&b.c0, &minus_b1}),
                    F::template sum_of_products<2>({&a.c0, &a.c1}, {&b.c1, &b.c0})};
        }
        const F low = a.c0 * b.c0, high = a.c1 * b.c1;
        return {low - high, (a.c0 + a.c1) * (b.c0 + b.c1) - low - high};
    }
    static WG_NOINLINE Fp2 square(const Fp2& a) {
        const F product = a.c0 * a.c1;
        return {(a.c0 + a.c1) * (a.c0 - a.c1), product.doubled()};
    }
};

template <class C>
struct Fp6 {
    using F2 = Fp2<typename C::Fp>;
    F2 c0, c1, c2;

    static WG_FN Fp6 zero() { return {F2::zero(), F2::zero(), F2::zero()}; }
    static WG_FN Fp6 one() { return {F2::one(), F2::zero(), F2::zero()}; }
    WG_FN bool operator==(const Fp6& b) const { return c0 == b.c0 && c1 == b.c1 && c2 == b.c2; }
    WG_FN Fp6 operator+(const Fp6& b) const { return {c0 + b.c0, c1 + b.c1, c2 + b.c2}; }
    WG_FN Fp6 operator-(const Fp6& b) const { return {c0 - b.c0, c1 - b.c1, c2 - b.c2}; }
    WG_FN Fp6 operator-() const { return {-c0, -c1, -c2}; }
    WG_FN Fp6 operator*(const Fp6& b) const { return multiply(*this, b); }
    WG_FN Fp6 operator*(const F2& b) const { return {c0 * b, c1 * b, c2 * b}; }
    WG_FN Fp6 times_v() const { return {C::times_xi(c2), c0, c1}; }

    static WG_NOINLINE Fp6 multiply(const Fp6& a, const Fp6& b) {
        const F2 v0 = a.c0 * b.c0, v1 = a.c1 * b.c1, v2 = a.c2 * b.c2;
        return {C::times_xi((a.c1 + a.c2) * (b.c1 + b.c2) - v1 - v2) + v0,
                (a.c0 + a.c1) * (b.c0 + b.c1) - v0 - v1 + C::times_xi(v2),
                (a.c0 + a.c2) * (b.c0 + b.c2) - v0 - v2 + v1};
    }

    // Times b0 + b1 v.
    WG_NOINLINE Fp6 times_01(const F2& b0, const F2& b1) const {
        const F2 v0 = c0 * b0, v1 = c1 * b1;
        return {C::times_xi(b1 * (c1 + c2) - v1) + v0, (b0 + b1) * (c0 + c1) - v0 - v1, b0 * (c0 + c2) - v0 + v1};
    }

    // Times b1 v.
    WG_FN Fp6 times_1(const F2& b1) const { return {C::times_xi(b1 * c2), c0 * b1, c1 * b1}; }

    WG_FN Fp6 inverse() const {
        const F2 t0 = c0.squared() - C::times_xi(c1 * c2);
        const F2 t1 = C::times_xi(c2.squared()) - c0 * c1;
        const F2 t2 = c1.squared() - c0 * c2;
        const F2 norm = C::times_xi(c2 * t1 + c1 * t2) + c0 * t0;
        const F2 norm_inverse = norm.inverse();
        return {t0 * norm_inverse, t1 * norm_inverse, t2 * norm_inverse};
    }
};

template <class C>
struct Fp12 {
    using F2 = Fp2<typename C::Fp>;
    using F6 = Fp6<C>;
    F6 c0, c1;

    static WG_FN Fp12 one() { return {F6::one(), F6::zero()}; }
    WG_FN bool operator==(const Fp12& b) const { return c0 == b.c0 && c1 == b.c1; }
    WG_FN Fp12 operator*(const Fp12& b) const { return multiply(*this, b); }

    // The power p^6; the inverse of an element of the cyclotomic subgroup.
    WG_FN Fp12 conjugate() const { return {c0, -c1}; }

    static WG_NOINLINE Fp12 multiply(const Fp12& a, const Fp12& b) {
        const F6 low = a.c0 * b.c0, high = a.c1 * b.c1;
        return {low + high.times_v(), (a.c0 + a.c1) * (b.c0 + b.c1) - low - high};
    }

    WG_NOINLINE Fp12 squared() const {
        const F6 product = c0 * c1;
        const F6 t = (c0 + c1) * (c0 + c1.times_v()) - product - product.times_v();
        return {t, product + product};
    }

    WG_FN Fp12 inverse() const {
        const F6 norm_inverse = (c0 * c0 - (c1 * c1).times_v()).inverse();
        return {c0 * norm_inverse, -(c1 * norm_inverse)};
    }

    // Times b0 + b3 w + b4 v w: a line of a curve with a D-twist.
    WG_NOINLINE Fp12 times_034(const F2& b0, const F2& b3, const F2& b4) const {
        const F6 low = c0 * b0, high = c1.times_01(b3, b4);
        return {low + high.times_v(), (c0 + c1).times_01(b0 + b3, b4) - low - high};
    }

    // Times b0 + b1 v + b4 v w: a line of a curve with an M-twist.
    WG_NOINLINE Fp12 times_014(const F2& b0, const F2& b1, const F2& b4) const {
        const F6 low = c0.times_01(b0, b1), high = c1.times_1(b4);
        return {low + high.times_v(), (c0 + c1).times_01(b0, b1 + b4) - low - high};
    }

    // Times b0 + b1 v + v w: such a line, scaled.
    WG_NOINLINE Fp12 times_01_unit(const F2& b0, const F2& b1) const {
        const F6 low = c0.times_01(b0, b1), high = c1.times_v();
        return {low + high.times_v(), (c0 + c1).times_01(b0, b1 + F2::one()) - low - high};
    }

    // The power p: coefficient of w^i conjugated and multiplied by xi^(i (p - 1) / 6).
    WG_NOINLINE Fp12 frobenius() const {
        const F2 g1 = C::frobenius_constant(), g2 = g1.squared(), g3 = g2 * g1, g4 = g2.squared(), g5 = g4 * g1;
        return {{c0.c0.conjugate(), c0.c1.conjugate() * g2, c0.c2.conjugate() * g4},
                {c1.c0.conjugate() * g1, c1.c1.conjugate() * g3, c1.c2.conjugate() * g5}};
    }

    // Squaring in the cyclotomic subgroup (Granger and Scott, "Faster squaring in the cyclotomic subgroup", 2010).
    WG_NOINLINE Fp12 cyclotomic_squared() const {
        F2 t0, t1, t2, t3, t4, t5;
        square_pair(t0, t1, c0.c0, c1.c1);
        square_pair(t2, t3, c1.c0, c0.c2);
        square_pair(t4, t5, c0.c1, c1.c2);
        const F2 t5_xi = C::times_xi(t5);
        return {{(t0 - c0.c0).doubled() + t0, (t2 - c0.c1).doubled() + t2, (t4 - c0.c2).doubled() + t4},
                {(t5_xi + c1.c0).doubled() + t5_xi, (t1 + c1.c1).doubled() + t1, (t3 + c1.c2).doubled() + t3}};
    }

    // (a + b s)^2 = low + high s with s^2 = xi.
    static WG_FN void square_pair(F2& low, F2& high, const F2& a, const F2& b) {
        const F2 product = a * b;
        low = (a + b) * (a + C::times_xi(b)) - product - C::times_xi(product);
        high = product.doubled();
    }
};

}  // namespace warpgrid
