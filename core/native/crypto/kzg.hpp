// Verification of a KZG proof, the precompile 0x0a (EIP-4844), against the second power of the public setup in G2.
#pragma once

#include "core/native/crypto/bls12_381_map.hpp"
#include "core/native/crypto/kzg_ifma.hpp"
#include "core/native/crypto/sha256.hpp"

namespace warpgrid {

constexpr u64 POINT_EVALUATION_INPUT_BYTES = 192;
constexpr u64 POINT_EVALUATION_OUTPUT_BYTES = 64;
constexpr u8 VERSIONED_HASH_VERSION_KZG = 0x01;
constexpr u64 FIELD_ELEMENTS_PER_BLOB = 4096;

// A point of the curve of G1 in the 48 bytes of the consensus layer: flags compressed, infinity
// and larger root, then x.
WG_NOINLINE inline PointKind bls_load_compressed_g1(Affine<Bls12Field>& p, const u8* bytes) {
    constexpr Limbs<6> P = modulus_limbs<Bls12Prime>();
    constexpr u64 COMPRESSED = 1ull << 63, INFINITE = 1ull << 62, LARGER = 1ull << 61;
    u64 x[6];
    load_big_limbs(x, bytes);
    const u64 flags = x[5];
    x[5] &= LARGER - 1;
    if (!(flags & COMPRESSED)) return PointKind::Invalid;
    if (flags & INFINITE) return is_zero_limbs(x) && !(flags & LARGER) ? PointKind::Infinity : PointKind::Invalid;
    if (!less_than_limbs(x, P.w)) return PointKind::Invalid;
    p.x = Bls12Field::from_integer(x);
    if (!bls_square_root(p.y, p.x.squared() * p.x + Bls12::b())) return PointKind::Invalid;
    u64 y[6], negated[6];
    p.y.to_integer(y);
    (-p.y).to_integer(negated);
    if (less_than_limbs(negated, y) != ((flags & LARGER) != 0)) p.y = -p.y;
    return PointKind::Finite;
}

WG_FN bool kzg_are_in_subgroup(const Affine<Bls12Field>& a, const Affine<Bls12Field>& b) {
#if WG_X86
    if (PROCESSOR.ifma) return are_in_subgroup(a, b);
#endif
    return BlsG1::is_in_subgroup(a) && BlsG1::is_in_subgroup(b);
}

// z w - y G1.
WG_FN Jacobian<Bls12Field> kzg_combination(const u64 (&y)[4], const Affine<Bls12Field>& w, const u64 (&z)[4]) {
#if WG_X86
    if (PROCESSOR.ifma) {
        ProjectivePoint parts[2];
        multiply_points(parts, kzg_generator_multiples(), y, w, z);
        Jacobian<Bls12Field> sum = parts[0].jacobian();
        add_jacobian<CurveA::Zero>(sum, parts[1].jacobian());
        return sum;
    }
#endif
    BlsTerm<BlsG1> terms[2] = {kzg_constants().minus_generator_g1, {}};
    terms[0].prepare_scalar(y);
    terms[1].prepare(w, z);
    return bls_sum(terms, 2);
}

// The loops of e(p, -G2) e(w, tau G2), before the final exponentiation.
WG_NOINLINE inline Fp12<Bls12> kzg_miller_loop(const KzgFactors& factors) {
    const KzgConstants& constants = kzg_constants();
    Fp12<Bls12> f = Fp12<Bls12>::one();
    u32 line = 0;
    const auto multiply_by_lines = [&] {
        f = f.times_01_unit(constants.minus_generator.one[line] * factors.p_one,
                            constants.minus_generator.by_x[line] * factors.p_x);
        f = f.times_01_unit(constants.setup.one[line] * factors.w_one, constants.setup.by_x[line] * factors.w_x);
        ++line;
    };
    for (u32 i = Bls12::LOOP_DIGITS - 1; i-- > 0;) {
        f = f.squared();
        multiply_by_lines();
        if (Bls12::loop_digit(i)) multiply_by_lines();
    }
    return f.conjugate();
}

// e(p, -G2) e(w, tau G2) = 1, for p and w that are not infinity?
WG_NOINLINE inline bool kzg_pairings_cancel(const Jacobian<Bls12Field>& p, const Affine<Bls12Field>& w) {
    const KzgFactors factors(p, w);
#if WG_X86
    if (PROCESSOR.ifma) return bls_is_paired_one(kzg_miller_loop_ifma(factors));
#endif
    return bls_is_paired_one(kzg_miller_loop(factors));
}

// Does p(z) = y hold for the polynomial committed to? e(C - y G1 + z proof, -G2) e(proof, tau G2) = 1.
WG_NOINLINE inline bool kzg_verify(const u8* commitment, const u8* proof, const u64 (&z)[4], const u64 (&y)[4]) {
    constexpr Limbs<4> R = modulus_limbs<Bls12Order>();
    Affine<Bls12Field> c, w;
    const PointKind c_kind = bls_load_compressed_g1(c, commitment), w_kind = bls_load_compressed_g1(w, proof);
    if (c_kind == PointKind::Invalid || w_kind == PointKind::Invalid) return false;
    if (!less_than_limbs(z, R.w) || !less_than_limbs(y, R.w)) return false;
    // The generator stands in for infinity, and is taken no times.
    const bool c_finite = c_kind == PointKind::Finite, w_finite = w_kind == PointKind::Finite;
    if (!c_finite) c = bls_generator_g1();
    if (!w_finite) w = bls_generator_g1();
    if (!kzg_are_in_subgroup(c, w)) return false;
    const u64 zero[4] = {};
    Jacobian<Bls12Field> left = kzg_combination(y, w, w_finite ? z : zero);
    if (c_finite) add_affine<CurveA::Zero>(left, c);
    // The pairing of an infinite point is one, and that of two others is not.
    if (left.is_infinity() || !w_finite) return left.is_infinity() && !w_finite;
    return kzg_pairings_cancel(left, w);
}

// `input` is versioned hash (32), z (32), y (32), commitment (48), proof (48).
WG_NOINLINE inline bool point_evaluation(u8* output, const u8* input) {
    u8 hash[32];
    sha256(hash, input + 96, 48);
    hash[0] = VERSIONED_HASH_VERSION_KZG;
    for (u32 i = 0; i < 32; ++i) {
        if (hash[i] != input[i]) return false;
    }
    u64 z[4], y[4];
    load_big_limbs(z, input + 32);
    load_big_limbs(y, input + 64);
    if (!kzg_verify(input + 96, input + 144, z, y)) return false;
    constexpr Limbs<4> R = modulus_limbs<Bls12Order>();
    zero_bytes(output, 32);
    store_big64(output + 24, FIELD_ELEMENTS_PER_BLOB);
    store_big_limbs(output + 32, R.w);
    return true;
}

}  // namespace warpgrid
