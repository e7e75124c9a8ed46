// Points of short Weierstrass curves y^2 = x^3 + a x + b over any field (prime or an extension), with a = 0 or a = -3.
//
// Affine points are never infinity; a Jacobian point (x / z^2, y / z^3) is infinity when z is 0. All cases are
// complete: additions notice equal and opposite points. Nothing is constant-time, since nothing here is secret.
#pragma once

#include "core/native/crypto/limbs.hpp"

namespace warpgrid {

enum class CurveA { Zero, MinusThree };

// What an encoded point turned out to be.
enum class PointKind { Infinity, Finite, Invalid };

template <class F>
struct Affine {
    F x, y;
    WG_FN Affine operator-() const { return {x, -y}; }
    WG_FN bool operator==(const Affine& b) const { return x == b.x && y == b.y; }
};

template <class F>
struct Jacobian {
    F x, y, z;

    static WG_FN Jacobian infinity() { return {F::one(), F::one(), F::zero()}; }
    static WG_FN Jacobian from(const Affine<F>& p) { return {p.x, p.y, F::one()}; }
    WG_FN bool is_infinity() const { return z.is_zero(); }
    WG_FN Jacobian operator-() const { return {x, -y, z}; }
};

// p = 2p. 3M + 4S for a = 0 (the formula of libsecp256k1, which halves instead of multiplying by four and eight).
template <CurveA A, class F>
WG_FN void double_point_inline(Jacobian<F>& p) {
    const F yy = p.y.squared();
    F slope;  // half of 3 x^2 + a z^4
    if constexpr (A == CurveA::Zero) {
        const F xx = p.x.squared();
        slope = (xx.doubled() + xx).halved();
    } else {
        const F zz = p.z.squared();
        const F t = (p.x - zz) * (p.x + zz);
        slope = (t.doubled() + t).halved();
    }
    p.z = p.y * p.z;
    const F xyy = p.x * yy;
    p.x = slope.squared() - xyy.doubled();
    p.y = slope * (xyy - p.x) - yy.squared();
}

template <CurveA A, class F>
WG_NOINLINE inline void double_point(Jacobian<F>& p) {
    double_point_inline<A>(p);
}

// q - p on the way to their sum: with these, p += q is finish_addition.
template <class F>
struct Slope {
    F h, r;
};

template <class F>
WG_FN Slope<F> slope_to(const Jacobian<F>& p, const Affine<F>& q) {
    const F zz = p.z.squared();
    return {q.x * zz - p.x, q.y * (zz * p.z) - p.y};
}

template <class F>
WG_FN void finish_addition(Jacobian<F>& p, const Slope<F>& slope) {
    p.z = p.z * slope.h;
    const F hh = slope.h.squared();
    const F hhh = hh * slope.h;
    const F v = p.x * hh;
    p.x = slope.r.squared() - hhh - v.doubled();
    p.y = slope.r * (v - p.x) - hhh * p.y;
}

// p += q, 8M + 3S, for p that is neither infinity nor q nor -q. Where it is one of these, z becomes (or stays) 0 and no
// later doubling or addition changes that, so one look at the end of a chain finds every mishap.
template <class F>
WG_FN void add_affine_distinct(Jacobian<F>& p, const Affine<F>& q) {
    finish_addition(p, slope_to(p, q));
}

// p += q. 8M + 3S.
template <CurveA A, class F>
WG_NOINLINE inline void add_affine(Jacobian<F>& p, const Affine<F>& q) {
    if (p.is_infinity()) {
        p = Jacobian<F>::from(q);
        return;
    }
    const Slope<F> slope = slope_to(p, q);
    if (!slope.h.is_zero()) {
        finish_addition(p, slope);
    } else if (slope.r.is_zero()) {
        double_point<A>(p);
    } else {
        p = Jacobian<F>::infinity();
    }
}

// p += q. 12M + 4S.
template <CurveA A, class F>
WG_NOINLINE inline void add_jacobian(Jacobian<F>& p, const Jacobian<F>& q) {
    if (q.is_infinity()) return;
    if (p.is_infinity()) {
        p = q;
        return;
    }
    const F zz = p.z.squared(), qzz = q.z.squared();
    const F u = p.x * qzz, s = p.y * (qzz * q.z);
    const F h = q.x * zz - u;
    const F r = q.y * (zz * p.z) - s;
    if (h.is_zero()) {
        if (r.is_zero()) {
            double_point<A>(p);
        } else {
            p = Jacobian<F>::infinity();
        }
        return;
    }
    p.z = p.z * q.z * h;
    const F hh = h.squared();
    const F hhh = hh * h;
    const F v = u * hh;
    p.x = r.squared() - hhh - v.doubled();
    p.y = r * (v - p.x) - hhh * s;
}

// Of a point that is not infinity.
template <class F>
WG_FN Affine<F> to_affine(const Jacobian<F>& p) {
    const F inverse = p.z.inverse(), squared = inverse.squared();
    return {p.x * squared, p.y * (squared * inverse)};
}

// Affine forms of COUNT points, none infinity, for one inversion (Montgomery's trick).
template <u32 COUNT, class F>
WG_NOINLINE inline void to_affine_all(Affine<F> (&out)[COUNT], const Jacobian<F> (&points)[COUNT]) {
    F product = F::one();
    for (u32 i = 0; i < COUNT; ++i) {
        out[i].x = product;  // of the z before this one
        product = product * points[i].z;
    }
    F inverse = product.inverse();
    for (u32 i = COUNT; i-- > 0;) {
        const F z_inverse = inverse * out[i].x, squared = z_inverse.squared();
        inverse = inverse * points[i].z;
        out[i] = {points[i].x * squared, points[i].y * (squared * z_inverse)};
    }
}

// P, 3P, 5P, ... of a point whose order is prime and large. (No multiple in between is infinity.)
template <CurveA A, u32 COUNT, class F>
WG_NOINLINE inline void odd_multiples(Affine<F> (&out)[COUNT], const Affine<F>& p) {
    Jacobian<F> multiples[COUNT], twice = Jacobian<F>::from(p);
    multiples[0] = twice;
    double_point<A>(twice);
    for (u32 i = 1; i < COUNT; ++i) {
        multiples[i] = multiples[i - 1];
        add_jacobian<A>(multiples[i], twice);
    }
    to_affine_all(out, multiples);
}

// P, 3P, 5P, ... as odd_multiples gives them, but without its inversion, on a curve with a = 0: as affine points of the
// isomorphic curve where (x, y) stands for (x / z^2, y / z^3), with one z for all. That curve's a is 0 too, so sums of
// these points are made as on any; only their z is to be multiplied by this one at the end.
template <u32 COUNT, class F>
WG_NOINLINE inline void odd_multiples_isomorphic(Affine<F> (&out)[COUNT], F& z, const Affine<F>& p) {
    Jacobian<F> twice = Jacobian<F>::from(p);
    double_point<CurveA::Zero>(twice);
    const F twice_zz = twice.z.squared();
    const Affine<F> step{twice.x, twice.y};  // 2P, on the curve that its z leads to
    Jacobian<F> multiple = Jacobian<F>::from({p.x * twice_zz, p.y * (twice_zz * twice.z)});
    F ratios[COUNT];  // of an entry's z to the one before
    out[0] = {multiple.x, multiple.y};
    for (u32 i = 1; i < COUNT; ++i) {
        const Slope<F> slope = slope_to(multiple, step);
        finish_addition(multiple, slope);
        ratios[i] = slope.h;
        out[i] = {multiple.x, multiple.y};
    }
    z = multiple.z * twice.z;
    F ratio = F::one();  // of the last z to this entry's
    for (u32 i = COUNT - 1; i-- > 0;) {
        ratio = ratio * ratios[i + 1];
        const F squared = ratio.squared();
        out[i] = {out[i].x * squared, out[i].y * (squared * ratio)};
    }
}

// A scalar in signed digits: digit i weighs 2^i, is odd or 0, and lies within +-2^(WIDTH - 1), with at least WIDTH - 1
// zeros after each (Solinas's wNAF). BITS bounds the scalar; a Digit holds the widest digit.
template <u32 BITS, class Digit = i8>
struct SignedDigits {
    Digit digit[BITS + 1];

    template <u32 WIDTH, u32 N>
    WG_FN void recode(const u64 (&scalar)[N]) {
        u32 carry = 0;
        for (u32 i = 0; i <= BITS;) {
            const u32 bit = i < 64 * N ? bit_at(scalar, i) : 0;
            if (bit == carry) {
                digit[i++] = 0;
                continue;
            }
            const u32 width = BITS + 1 - i < WIDTH ? BITS + 1 - i : WIDTH;
            u64 window = i / 64 < N ? scalar[i / 64] >> (i % 64) : 0;
            if (i % 64 != 0 && i / 64 + 1 < N) window |= scalar[i / 64 + 1] << (64 - i % 64);
            i32 value = static_cast<i32>(window & ((1u << width) - 1)) + static_cast<i32>(carry);
            carry = static_cast<u32>(value >> (WIDTH - 1)) & 1;
            value -= static_cast<i32>(carry << WIDTH);
            digit[i++] = static_cast<Digit>(value);
            for (u32 k = 1; k < width; ++k) digit[i++] = 0;
        }
    }
};

// Entry for digit d (not 0) of a table of odd multiples.
template <class F>
WG_FN Affine<F> signed_entry(const Affine<F>* odd_multiples, i32 d) {
    return d > 0 ? odd_multiples[d >> 1] : -odd_multiples[-d >> 1];
}

// scalar * p, for p of large prime order.
template <CurveA A, u32 BITS, class F, u32 N>
WG_NOINLINE inline Jacobian<F> multiply_point(const Affine<F>& p, const u64 (&scalar)[N]) {
    Affine<F> table[8];
    odd_multiples<A>(table, p);
    SignedDigits<BITS> digits;
    digits.template recode<5>(scalar);
    Jacobian<F> sum = Jacobian<F>::infinity();
    for (u32 i = BITS + 1; i-- > 0;) {
        if (!sum.is_infinity()) double_point<A>(sum);
        if (digits.digit[i] != 0) add_affine<A>(sum, signed_entry(table, digits.digit[i]));
    }
    return sum;
}

// scalar * p for any point, by doubling and adding; for the sparse constants of the pairings.
template <CurveA A, class F>
WG_NOINLINE inline Jacobian<F> multiply_point_sparse(const Jacobian<F>& p, u64 scalar) {
    Jacobian<F> sum = Jacobian<F>::infinity();
    for (u32 i = 64; i-- > 0;) {
        if (!sum.is_infinity()) double_point<A>(sum);
        if (scalar >> i & 1) add_jacobian<A>(sum, p);
    }
    return sum;
}

}  // namespace warpgrid
