// The extension field Fp12 of BLS12-381 on 512-bit vectors (residues_ifma.hpp): what the verification of a KZG proof
// and the end of every pairing spend their time in. The same values as extension.hpp's, four products of Fp2 at once.
#pragma once

#include "core/native/crypto/residues_ifma.hpp"

#if WG_X86

namespace warpgrid {

// a0 + a1 v + a2 v^2 stands as (a0, a1, a2, anything). An element of Fp12 is c0 + c1 w.
struct Fp12Lanes {
    Residues c0, c1;
};

WG_IFMA_NOINLINE Fp12Lanes load_fp12(const Fp12<Bls12>& f) {
    const Bls12Field zero = Bls12Field::zero();
    const auto load = [&](const Fp6<Bls12>& a) WG_IFMA_TARGET {
        return load_residues({&a.c0.c0, &a.c0.c1, &a.c1.c0, &a.c1.c1, &a.c2.c0, &a.c2.c1, &zero, &zero});
    };
    return {load(f.c0), load(f.c1)};
}

WG_IFMA_NOINLINE Fp12<Bls12> store_fp12(const Fp12Lanes& f) {
    Bls12Field a[LANES], b[LANES];
    store_residues(a, f.c0);
    store_residues(b, f.c1);
    return {{{a[0], a[1]}, {a[2], a[3]}, {a[4], a[5]}}, {{b[0], b[1]}, {b[2], b[3]}, {b[4], b[5]}}};
}

WG_IFMA_FN Residues negated(const Residues& a) { return reduced(zero_sums() - sums_of(a)); }

// The power p^6.
WG_IFMA_FN Fp12Lanes conjugate(const Fp12Lanes& f) { return {f.c0, negated(f.c1)}; }

// (a1 + a2, a0 + a1, a0 + a2, anything): what Karatsuba's cross products take.
WG_IFMA_FN Sums pair_sums(const Sums& a) { return places<1, 0, 0, 3>(a) + places<2, 1, 2, 3>(a); }

// The product in Fp6 from (a0 b0, a1 b1, a2 b2) and the products of the pair sums.
WG_IFMA_NOINLINE Sums join_fp6(const Sums& squares, const Sums& crosses) {
    const Sums mixed_terms = crosses - places<1, 0, 0, 3>(squares) - places<2, 1, 2, 3>(squares);  // 12, 01, 02
    // c0 = v0 + xi e12, c1 = e01 + xi v2, c2 = e02 + v1.
    const Sums with_xi = mixed(place_mask(1), mixed_terms, places<2, 2, 2, 2>(squares));
    const Sums plain = mixed(place_mask(0), mixed_terms, squares);
    const Sums low = times_xi(with_xi), high = places<1, 1, 1, 1>(squares);
    return add_in(place_mask(2), add_in(place_mask(0) | place_mask(1), plain, low), high);
}

// Times v: (xi a2, a0, a1).
WG_IFMA_FN Sums times_v(const Sums& a) {
    const Sums turned = places<2, 0, 1, 3>(a);
    return mixed(place_mask(0), turned, times_xi(turned));
}

// The operands of the products that make up one of Fp12 = Fp6 times Fp6, by Karatsuba twice: 18 of 20 places are used.
struct Fp12Operands {
    Residues low, high, low_pairs, high_pairs, rest;
};

WG_IFMA_NOINLINE Fp12Operands operands_of(const Fp12Lanes& f) {
    const Sums low = sums_of(f.c0), high = sums_of(f.c1), cross = low + high, pairs = pair_sums(cross);
    return {reduced(mixed(place_mask(3), low, places<0, 0, 0, 0>(cross))),
            reduced(mixed(place_mask(3), high, places<1, 1, 1, 1>(cross))),
            reduced(mixed(place_mask(3), pair_sums(low), places<2, 2, 2, 2>(cross))),
            reduced(mixed(place_mask(3), pair_sums(high), places<0, 0, 0, 0>(pairs))),
            reduced(places<1, 2, 1, 2>(pairs))};
}

WG_IFMA_NOINLINE Fp12Lanes multiply_fp12(const Fp12Lanes& a, const Fp12Lanes& b) {
    const Fp12Operands x = operands_of(a), y = operands_of(b);
    const Sums low = multiply_fp2(x.low, y.low), high = multiply_fp2(x.high, y.high);
    const Sums low_pairs = multiply_fp2(x.low_pairs, y.low_pairs),
               high_pairs = multiply_fp2(x.high_pairs, y.high_pairs);
    const Sums rest = multiply_fp2(x.rest, y.rest);
    // The cross product's parts lie at place 3 of the four, and at places 0 and 1 of the rest.
    const Sums cross = mixed(place_mask(2), places<3, 3, 3, 3>(low, high), places<3, 3, 3, 3>(low_pairs));
    const Sums cross_squares = mixed(place_mask(1), cross, places<3, 3, 3, 3>(high));
    const Sums cross_pairs = mixed(place_mask(0), places<0, 0, 1, 1>(rest), places<3, 3, 3, 3>(high_pairs));
    return {reduced(join_fp6(low, low_pairs) + times_v(join_fp6(high, high_pairs))),
            reduced(join_fp6(cross_squares - low - high, cross_pairs - low_pairs - high_pairs))};
}

// c0^2 + v c1^2 = (c0 + c1) (c0 + v c1) - (1 + v) c0 c1: two products of Fp6.
WG_IFMA_NOINLINE Fp12Lanes square_fp12(const Fp12Lanes& f) {
    const Sums low = sums_of(f.c0), high = sums_of(f.c1), sum = low + high, turned = low + times_v(high);
    const Sums sum_pairs = pair_sums(sum), turned_pairs = pair_sums(turned);
    const auto with_last = [](const Sums& a, const Sums& last) WG_IFMA_TARGET {
        return reduced(mixed(place_mask(3), a, last));
    };
    const Sums first =
        multiply_fp2(with_last(low, places<0, 0, 0, 0>(sum)), with_last(high, places<0, 0, 0, 0>(turned)));
    const Sums second = multiply_fp2(with_last(pair_sums(low), places<1, 1, 1, 1>(sum)),
                                     with_last(pair_sums(high), places<1, 1, 1, 1>(turned)));
    const Sums third = multiply_fp2(with_last(sum_pairs, places<2, 2, 2, 2>(sum)),
                                    with_last(turned_pairs, places<2, 2, 2, 2>(turned)));
    const Sums squares =
        mixed(place_mask(1), mixed(place_mask(2), places<3, 3, 3, 3>(first), places<3, 3, 3, 3>(third)),
              places<3, 3, 3, 3>(second));
    const Sums product = join_fp6(first, second), other = join_fp6(squares, third);
    return {reduced(other - product - times_v(product)), reduced(doubled(product))};
}

// ---- the cyclotomic subgroup ----------------------------------------------------------------------------------------

// An element there as Fp4[t] / (t^3 - s), Fp4 = Fp2[s] / (s^2 - xi): sum of (g_2i + g_2i+1 s) t^i, in our tower
// (g0, g1, ..., g5) = (c00, c11, c10, c02, c01, c12). Here lie (g0, g2, g4) and (g1, g3, g5).
struct CyclotomicLanes {
    Residues even, odd;
};

WG_IFMA_FN CyclotomicLanes to_cyclotomic(const Fp12Lanes& f) {
    const Residues even = mixed(place_mask(1), places<0, 0, 1, 3>(f.c0), places<0, 0, 0, 0>(f.c1));
    const Residues odd = mixed(place_mask(1), places<1, 1, 2, 3>(f.c1), places<2, 2, 2, 2>(f.c0));
    return {even, odd};
}
WG_IFMA_FN Fp12Lanes from_cyclotomic(const CyclotomicLanes& g) {
    return {mixed(place_mask(2), places<0, 2, 1, 3>(g.even), places<1, 1, 1, 1>(g.odd)),
            mixed(place_mask(0), places<0, 0, 2, 3>(g.odd), places<1, 1, 1, 1>(g.even))};
}

// Squares of g_2i + g_2i+1 s, then Granger and Scott's combination (as Fp12::cyclotomic_squared).
WG_IFMA_NOINLINE CyclotomicLanes cyclotomic_squared(const CyclotomicLanes& g) {
    const Sums even = sums_of(g.even), odd = sums_of(g.odd);
    const Sums product = multiply_fp2(g.even, g.odd);
    const Sums square = multiply_fp2(reduced(even + odd), reduced(even + times_xi(odd)));
    const Sums low = square - product - times_xi(product), high = doubled(product);
    // g0' = 3 low0 - 2 g0, g2' = 3 xi high2 + 2 g2, g4' = 3 low1 - 2 g4; g1' = 3 high0 + 2 g1, g3' = 3 low2 - 2 g3,
    // g5' = 3 high1 + 2 g5.
    const Sums for_even = mixed(place_mask(1), places<0, 0, 1, 3>(low), times_xi(places<2, 2, 2, 2>(high)));
    const Sums for_odd = mixed(place_mask(1), places<0, 0, 1, 3>(high), places<2, 2, 2, 2>(low));
    const u8 at_1 = place_mask(1), not_at_1 = static_cast<u8>(~at_1);
    const Sums new_even = subtract_in(not_at_1, add_in(at_1, for_even, even), even);
    const Sums new_odd = add_in(not_at_1, subtract_in(at_1, for_odd, odd), odd);
    return {reduced(doubled(new_even) + for_even), reduced(doubled(new_odd) + for_odd)};
}

// f^X, with X the curve's parameter without its sign.
WG_IFMA_NOINLINE Fp12Lanes power_of_parameter(const Fp12Lanes& f) {
    Fp12Lanes r = f;
    for (u32 i = 63; i > 0;) {
        CyclotomicLanes g = to_cyclotomic(r);
        do {
            g = cyclotomic_squared(g);
        } while (!(Bls12::X >> --i & 1) && i > 0);
        r = from_cyclotomic(g);
        if (Bls12::X >> i & 1) r = multiply_fp12(r, f);
    }
    return r;
}

// The power p: coefficients conjugated and multiplied by the powers of xi^((p - 1) / 6) that the tower's basis takes.
struct FrobeniusLanes {
    Residues c0, c1;
    WG_IFMA_TARGET FrobeniusLanes() {
        const Fp2<Bls12Field> g1 = Bls12::frobenius_constant(), g2 = g1.squared(), one = Fp2<Bls12Field>::one();
        const Fp12Lanes factors = load_fp12({{one, g2, g2.squared()}, {g1, g2 * g1, g2.squared() * g1}});
        c0 = factors.c0;
        c1 = factors.c1;
    }
};

WG_IFMA_NOINLINE Fp12Lanes frobenius(const Fp12Lanes& f) {
    static const FrobeniusLanes factors;
    const auto power = [](const Residues& a, const Residues& factor) WG_IFMA_TARGET {
        return reduced(multiply_fp2(reduced(subtract_in(ODD_LANES, sums_of(a), doubled(sums_of(a)))), factor));
    };
    return {power(f.c0, factors.c0), power(f.c1, factors.c1)};
}

// Bls12::final_exponentiation's hard part, of an element of the cyclotomic subgroup, with its names.
WG_IFMA_NOINLINE Fp12Lanes hard_exponentiation(const Fp12Lanes& f) {
    const auto power_x = [](const Fp12Lanes& x) WG_IFMA_TARGET { return conjugate(power_of_parameter(x)); };
    const Fp12Lanes a = multiply_fp12(power_x(f), conjugate(f));
    const Fp12Lanes b = multiply_fp12(power_x(a), conjugate(a));
    const Fp12Lanes c = multiply_fp12(power_x(b), frobenius(b));
    const Fp12Lanes d =
        multiply_fp12(multiply_fp12(power_x(power_x(c)), frobenius(frobenius(c))), conjugate(c));
    return multiply_fp12(multiply_fp12(d, from_cyclotomic(cyclotomic_squared(to_cyclotomic(f)))), f);
}

WG_IFMA_NOINLINE bool is_one_after_hard_exponentiation(const Fp12<Bls12>& f) {
    return store_fp12(hard_exponentiation(load_fp12(f))) == Fp12<Bls12>::one();
}

}  // namespace warpgrid

#endif  // WG_X86
