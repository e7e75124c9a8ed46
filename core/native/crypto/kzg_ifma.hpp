// The pairing's loop of a KZG proof on 512-bit vectors: both points of G2 are fixed, so a step takes the product of two
// known lines at two points, which is one product of lanes and one of four elements of Fp2.
#pragma once

#include "core/native/crypto/bls12_381_g1_ifma.hpp"
#include "core/native/crypto/kzg_lines.hpp"

#if WG_X86

namespace warpgrid {

// The lines of both points side by side: one and by_x of the first, then of the second.
struct KzgLineLanes {
    Residues lines[FixedLines::COUNT_MAX];

    WG_IFMA_TARGET explicit KzgLineLanes(const KzgConstants& constants) {
        const FixedLines &first = constants.minus_generator, &second = constants.setup;
        for (u32 i = 0; i < first.count; ++i) {
            lines[i] = load_residues({&first.one[i].c0, &first.one[i].c1, &first.by_x[i].c0, &first.by_x[i].c1,
                                      &second.one[i].c0, &second.one[i].c1, &second.by_x[i].c0, &second.by_x[i].c1});
        }
    }
};
inline const KzgLineLanes& kzg_line_lanes() {
    static const KzgLineLanes lanes(kzg_constants());
    return lanes;
}

// The multiples of -G1.
inline const PointMultiples<FIXED_WIDTH>& kzg_generator_multiples() {
    static const PointMultiples<FIXED_WIDTH> multiples(-bls_generator_g1());
    return multiples;
}

// (b0 + b1 v + v w) (c0 + c1 v + v w) from (b0, b1, c0, c1):
// b0 c0 + xi + (b0 c1 + b1 c0) v + b1 c1 v^2 + ((b0 + c0) v + (b1 + c1) v^2) w.
WG_IFMA_FN Fp12Lanes multiply_lines(const Residues& lines) {
    const Sums products = multiply_fp2(places<0, 0, 1, 1>(lines), places<2, 3, 2, 3>(lines));
    const Sums with_xi = add_in(place_mask(0), places<0, 1, 3, 3>(products), sums_of(broadcast(IfmaConstants::ONE)));
    const Sums low = add_in(place_mask(1), with_xi, places<2, 2, 2, 2>(products));
    const Sums high = places<0, 0, 1, 1>(lines) + places<2, 2, 3, 3>(lines);
    return {reduced(low), reduced(mixed(place_mask(0), high, zero_sums()))};
}

// As kzg_miller_loop.
WG_IFMA_NOINLINE Fp12<Bls12> kzg_miller_loop_ifma(const KzgFactors& factors) {
    const KzgLineLanes& lanes = kzg_line_lanes();
    const Residues points = load_residues({&factors.p_one, &factors.p_one, &factors.p_x, &factors.p_x,
                                           &factors.w_one, &factors.w_one, &factors.w_x, &factors.w_x});
    u32 line = 0;
    const auto next_lines = [&]() WG_IFMA_TARGET {
        return multiply_lines(reduced(multiply_lanes(lanes.lines[line++], points)));
    };
    Fp12Lanes f = next_lines();
    for (u32 i = Bls12::LOOP_DIGITS - 1; i-- > 0;) {
        if (i + 2 < Bls12::LOOP_DIGITS) f = multiply_fp12(square_fp12(f), next_lines());
        if (Bls12::loop_digit(i)) f = multiply_fp12(f, next_lines());
    }
    return store_fp12(conjugate(f));
}

}  // namespace warpgrid

#endif  // WG_X86
