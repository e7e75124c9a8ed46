// Prime fields in Montgomery form (Montgomery 1985), written once for every modulus of 64 N bits or less.
//
// A field is named by a struct with LIMBS and modulus(i); all constants follow from it at compile time. Values are
// always reduced, so equality is equality of limbs. Products are calls on both machines: inlined, the pairings take
// minutes to compile and gain a twentieth.
#pragma once

#include "core/native/crypto/bytes.hpp"
#include "core/native/crypto/inverse.hpp"
#include "core/native/crypto/limbs.hpp"

namespace warpgrid {

template <u32 N>
struct Limbs {
    u64 w[N];
};

template <class P>
WG_FN constexpr Limbs<P::LIMBS> modulus_limbs() {
    Limbs<P::LIMBS> m{};
    for (u32 i = 0; i < P::LIMBS; ++i) m.w[i] = P::modulus(i);
    return m;
}

// x * 2^exponent modulo the modulus for x below it, by doubling; for compile time.
template <class P>
WG_FN constexpr Limbs<P::LIMBS> times_power_of_two(Limbs<P::LIMBS> r, u32 exponent) {
    constexpr u32 N = P::LIMBS;
    Limbs<N> reduced{};
    for (u32 k = 0; k < exponent; ++k) {
        u64 carry = 0, borrow = 0;
        for (u32 i = 0; i < N; ++i) {
            const u64 x = r.w[i];
            r.w[i] = x << 1 | carry;
            carry = x >> 63;
            const u64 m = P::modulus(i), difference = r.w[i] - m;
            reduced.w[i] = difference - borrow;
            borrow = static_cast<u64>(r.w[i] < m) | static_cast<u64>(difference < borrow);
        }
        if (carry >= borrow) r = reduced;
    }
    return r;
}

template <class P>
WG_FN constexpr Limbs<P::LIMBS> power_of_two(u32 exponent) {
    return times_power_of_two<P>(Limbs<P::LIMBS>{{1}}, exponent);
}

// 1 / x modulo 2^64 for odd x, by Newton's iteration.
WG_FN constexpr u64 inverse_power_of_two(u64 x) {
    u64 y = x;
    for (u32 i = 0; i < 6; ++i) y *= 2 - x * y;
    return y;
}

template <class P>
WG_FN constexpr auto modulus62() {
    constexpr u32 L = (64 * P::LIMBS + 61) / 62 + ((64 * P::LIMBS) % 62 == 0);
    const Limbs<P::LIMBS> m = modulus_limbs<P>();
    return Modulus62<L>{to_signed62<L>(m.w), inverse_power_of_two(m.w[0]) & MASK62};
}

template <class P>
struct ModulusInMemory {
    static constexpr Limbs<P::LIMBS> VALUE = modulus_limbs<P>();
};

// t += m * modulus, for the m that makes t[0] zero; returns the limb above t. A modulus may bring a shortcut.
template <class P>
WG_FN u64 add_multiple_of_modulus(u64 (&t)[P::LIMBS], u64 m) {
    if constexpr (requires { P::SHORTCUT; }) {
        return P::cancel_low_limb(t);
    } else if constexpr (WG_X86_ADX) {
        return add_multiple(t, ModulusInMemory<P>::VALUE.w, m);
    } else {
        constexpr Limbs<P::LIMBS> M = modulus_limbs<P>();
        return add_multiple(t, M.w, m);  // limbs that are 0 or a power of two fold away
    }
}

template <class P>
constexpr u64 NEGATED_INVERSE = 0 - inverse_power_of_two(P::modulus(0));

// t (2N limbs) times 2^-64N modulo the modulus.
template <class P>
WG_FN void montgomery_reduce(u64 (&r)[P::LIMBS], const u64 (&t)[2 * P::LIMBS]) {
    constexpr u32 N = P::LIMBS;
    constexpr Limbs<N> M = modulus_limbs<P>();
    u64 window[N], high[N];
    WG_UNROLL
    for (u32 j = 0; j < N; ++j) {
        window[j] = t[j];
        high[j] = t[N + j];
    }
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) {
        const u64 above = add_multiple_of_modulus<P>(window, window[0] * NEGATED_INVERSE<P>);
        WG_UNROLL
        for (u32 j = 0; j + 1 < N; ++j) window[j] = window[j + 1];  // window[0] became 0
        window[N - 1] = above;
    }
    const u64 top = add_limbs(window, window, high);
    subtract_if_at_least(r, window, top, M.w);
}

// How many products fused_sum may add: K with (K + 1) * modulus < 2^64N; 0 where a processor or a
// modulus lacks the means.
template <class P>
constexpr u32 FUSED_TERMS_MAX =
    !WG_X86_ADX || P::modulus(P::LIMBS - 1) >> 62 != 0 ? 0 : ~0ull / (P::modulus(P::LIMBS - 1) + 1) - 1;

#if WG_X86_ADX
// r = (a[0] * b[0] + a[1] * b[1] + ...) * 2^-64N modulo the modulus, with one reduction for all (Longa, "Efficient
// algorithms for large prime characteristic fields and their application to bilinear pairings", 2022).
template <class P, u32 TERMS>
WG_FN void fused_sum(u64 (&r)[P::LIMBS], const u64 (*const (&a)[TERMS])[P::LIMBS],
                     const u64 (*const (&b)[TERMS])[P::LIMBS]) {
    static_assert(TERMS <= FUSED_TERMS_MAX<P>);
    constexpr Limbs<P::LIMBS> M = modulus_limbs<P>();
    u64 t[P::LIMBS] = {};
    WG_UNROLL
    for (u32 i = 0; i < P::LIMBS; ++i) {
        u64 top = 0;
        WG_UNROLL
        for (u32 k = 0; k < TERMS; ++k) montgomery_add(t, top, *a[k], (*b[k])[i]);
        montgomery_cancel<NEGATED_INVERSE<P>>(t, top, ModulusInMemory<P>::VALUE.w);
    }
    subtract_if_at_least(r, t, 0, M.w);
}
#endif

template <class P>
struct Field {
    static constexpr u32 LIMBS = P::LIMBS;
    static constexpr u32 FUSED_TERMS = FUSED_TERMS_MAX<P>;
    u64 w[P::LIMBS];

    static WG_FN Field zero() { return Field{}; }

    static WG_FN Field one() {
        constexpr Limbs<LIMBS> r = power_of_two<P>(64 * LIMBS);
        Field out;
        WG_UNROLL
        for (u32 i = 0; i < LIMBS; ++i) out.w[i] = r.w[i];
        return out;
    }

    WG_FN bool is_zero() const { return is_zero_limbs(w); }
    WG_FN bool operator==(const Field& b) const { return equal_limbs(w, b.w); }

    WG_FN Field operator+(const Field& b) const {
        constexpr Limbs<LIMBS> M = modulus_limbs<P>();
        Field r;
        const u64 carry = add_limbs(r.w, w, b.w);
        subtract_if_at_least(r.w, r.w, carry, M.w);
        return r;
    }

    WG_FN Field operator-(const Field& b) const {
        constexpr Limbs<LIMBS> M = modulus_limbs<P>();
        Field r;
        const u64 mask = 0 - subtract_limbs(r.w, w, b.w);
        u64 correction[LIMBS];
        WG_UNROLL
        for (u32 i = 0; i < LIMBS; ++i) correction[i] = M.w[i] & mask;
        add_limbs(r.w, r.w, correction);
        return r;
    }

    WG_FN Field operator-() const { return zero() - *this; }
    WG_FN Field operator*(const Field& b) const { return multiply(*this, b); }
    WG_FN Field squared() const { return square(*this); }
    WG_FN Field doubled() const { return *this + *this; }

    // a / 2: the even one of a and a + modulus, shifted.
    WG_FN Field halved() const {
        constexpr Limbs<LIMBS> M = modulus_limbs<P>();
        const u64 mask = 0 - (w[0] & 1);
        u64 correction[LIMBS];
        WG_UNROLL
        for (u32 i = 0; i < LIMBS; ++i) correction[i] = M.w[i] & mask;
        Field r;
        const u64 carry = add_limbs(r.w, w, correction);
        WG_UNROLL
        for (u32 i = 0; i < LIMBS; ++i) r.w[i] = r.w[i] >> 1 | (i + 1 < LIMBS ? r.w[i + 1] : carry) << 63;
        return r;
    }

    // 1 / a; 0 for 0.
    WG_FN Field inverse() const {
        constexpr auto M = modulus62<P>();
        constexpr Limbs<LIMBS> R3 = power_of_two<P>(192 * LIMBS);
        Field r = *this, r3;
        invert_modular(r.w, M);
        WG_UNROLL
        for (u32 i = 0; i < LIMBS; ++i) r3.w[i] = R3.w[i];
        return r * r3;
    }

    // A constant of the field, from its little-endian limbs; at compile time.
    template <class... Limb>
    static WG_FN constexpr Field constant(Limb... limbs) {
        const Limbs<LIMBS> r = times_power_of_two<P>(Limbs<LIMBS>{{limbs...}}, 64 * LIMBS);
        Field out{};
        for (u32 i = 0; i < LIMBS; ++i) out.w[i] = r.w[i];
        return out;
    }

    // From an integer below the modulus, and back.
    static WG_FN Field from_integer(const u64 (&a)[LIMBS]) {
        constexpr Limbs<LIMBS> R2 = power_of_two<P>(128 * LIMBS);
        Field r, r2;
        WG_UNROLL
        for (u32 i = 0; i < LIMBS; ++i) {
            r.w[i] = a[i];
            r2.w[i] = R2.w[i];
        }
        return r * r2;
    }
    WG_FN void to_integer(u64 (&a)[LIMBS]) const {
        u64 t[2 * LIMBS];
        WG_UNROLL
        for (u32 i = 0; i < 2 * LIMBS; ++i) t[i] = i < LIMBS ? w[i] : 0;
        montgomery_reduce<P>(a, t);
    }

    // a[0] * b[0] + a[1] * b[1] + ...
    template <u32 TERMS>
    static WG_FN Field sum_of_products(const Field* const (&a)[TERMS], const Field* const (&b)[TERMS]) {
#if WG_X86_ADX
        if constexpr (TERMS <= FUSED_TERMS_MAX<P>) {
            const u64(*a_limbs[TERMS])[LIMBS], (*b_limbs[TERMS])[LIMBS];
            WG_UNROLL
            for (u32 k = 0; k < TERMS; ++k) {
                a_limbs[k] = &a[k]->w;
                b_limbs[k] = &b[k]->w;
            }
            Field r;
            fused_sum<P, TERMS>(r.w, a_limbs, b_limbs);
            return r;
        }
#endif
        Field r = *a[0] * *b[0];
        WG_UNROLL
        for (u32 k = 1; k < TERMS; ++k) r = r + *a[k] * *b[k];
        return r;
    }

    static WG_NOINLINE Field multiply(WG_OPERAND(Field) a, WG_OPERAND(Field) b) {
        if constexpr (FUSED_TERMS_MAX<P> > 0) return sum_of_products<1>({&a}, {&b});
        u64 t[2 * LIMBS];
        multiply_wide(t, a.w, b.w);
        Field r;
        montgomery_reduce<P>(r.w, t);
        return r;
    }
    static WG_NOINLINE Field square(WG_OPERAND(Field) a) {
        if constexpr (FUSED_TERMS_MAX<P> > 0) return sum_of_products<1>({&a}, {&a});
        u64 t[2 * LIMBS];
        square_wide(t, a.w);
        Field r;
        montgomery_reduce<P>(r.w, t);
        return r;
    }
};

template <u32 N>
WG_FN void load_big_limbs(u64 (&r)[N], const u8* bytes) {
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) r[i] = load_big64(bytes + 8 * (N - 1 - i));
}

template <u32 N>
WG_FN void store_big_limbs(u8* bytes, const u64 (&a)[N]) {
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) store_big64(bytes + 8 * (N - 1 - i), a[i]);
}

// base^exponent for a public exponent, windows of four bits, most significant first.
template <class F, u32 N>
WG_NOINLINE inline F power(const F& base, const u64 (&exponent)[N]) {
    F table[16];
    table[0] = F::one();
    for (u32 i = 1; i < 16; ++i) table[i] = table[i - 1] * base;
    F r = F::one();
    for (u32 i = 64 * N; i > 0; i -= 4) {
        if (i != 64 * N) r = r.squared().squared().squared().squared();
        const u32 digit = static_cast<u32>(exponent[(i - 4) / 64] >> ((i - 4) % 64)) & 15;
        if (digit != 0) r = r * table[digit];
    }
    return r;
}

}  // namespace warpgrid
