// Verification of a KZG proof, the precompile 0x0a (EIP-4844), against the second power of the public setup in G2.
#pragma once

#include "core/native/crypto/bls12_381_map.hpp"
#include "core/native/crypto/sha256.hpp"

namespace warpgrid {

constexpr u64 POINT_EVALUATION_INPUT_BYTES = 192;
constexpr u64 POINT_EVALUATION_OUTPUT_BYTES = 64;
constexpr u8 VERSIONED_HASH_VERSION_KZG = 0x01;
constexpr u64 FIELD_ELEMENTS_PER_BLOB = 4096;

// A point of G1 in the 48 bytes of the consensus layer: flags compressed, infinity and larger root, then x.
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
    return BlsG1::is_in_subgroup(p) ? PointKind::Finite : PointKind::Invalid;
}

WG_FN Affine<Bls12Field> bls_generator_g1() {
    constexpr Bls12Field X = Bls12Field::constant(0xfb3af00adb22c6bbull, 0x6c55e83ff97a1aefull, 0xa14e3a3f171bac58ull,
                                                  0xc3688c4f9774b905ull, 0x2695638c4fa9ac0full, 0x17f1d3a73197d794ull);
    constexpr Bls12Field Y = Bls12Field::constant(0x0caa232946c5e7e1ull, 0xd03cc744a2888ae4ull, 0x00db18cb2c04b3edull,
                                                  0xfcf5e095d5d00af6ull, 0xa09e30ed741d8ae4ull, 0x08b3f481e3aaa0f1ull);
    return {X, Y};
}

WG_FN Affine<Fp2<Bls12Field>> bls_generator_g2() {
    constexpr Bls12Field X0 = Bls12Field::constant(0xd48056c8c121bdb8ull, 0x0bac0326a805bbefull, 0xb4510b647ae3d177ull,
                                                   0xc6e47ad4fa403b02ull, 0x260805272dc51051ull, 0x024aa2b2f08f0a91ull);
    constexpr Bls12Field X1 = Bls12Field::constant(0xe5ac7d055d042b7eull, 0x334cf11213945d57ull, 0xb5da61bbdc7f5049ull,
                                                   0x596bd0d09920b61aull, 0x7dacd3a088274f65ull, 0x13e02b6052719f60ull);
    constexpr Bls12Field Y0 = Bls12Field::constant(0xe193548608b82801ull, 0x923ac9cc3baca289ull, 0x6d429a695160d12cull,
                                                   0xadfd9baa8cbdd3a7ull, 0x8cc9cdc6da2e351aull, 0x0ce5d527727d6e11ull);
    constexpr Bls12Field Y1 = Bls12Field::constant(0xaaa9075ff05f79beull, 0x3f370d275cec1da1ull, 0x267492ab572e99abull,
                                                   0xcb3e287e85a763afull, 0x32acd2b02bc28b99ull, 0x0606c4a02ea734ccull);
    return {{X0, X1}, {Y0, Y1}};
}

// tau G2 of the ceremony of 2023.
WG_FN Affine<Fp2<Bls12Field>> kzg_setup_g2() {
    constexpr Bls12Field X0 = Bls12Field::constant(0xc98edada20c1def2ull, 0x087041de621000edull, 0xa36851477ba4c60bull,
                                                   0x3926c911cceceac9ull, 0x734429b7b38608e2ull, 0x185cbfee53492714ull);
    constexpr Bls12Field X1 = Bls12Field::constant(0xafaaab24f3499f72ull, 0x2914e5870cb452d2ull, 0x1009a2ce615ac53dull,
                                                   0x26187075cbfbefa8ull, 0x843bc287230af389ull, 0x15bfd7dd8cdeb128ull);
    constexpr Bls12Field Y0 = Bls12Field::constant(0xee689bfbbb832a99ull, 0x4ce26d105941f383ull, 0xe82451a496a9c979ull,
                                                   0x131569490e28de18ull, 0xd7d5ee8599d1fca2ull, 0x014353bdb96b626dull);
    constexpr Bls12Field Y1 = Bls12Field::constant(0x23048ef30d0a154full, 0x9495346f3d7ac9cdull, 0xda5ed1ba9bfa0789ull,
                                                   0xef79de09fc63671full, 0x03432fcae0181b4bull, 0x1666c54b0a325295ull);
    return {{X0, X1}, {Y0, Y1}};
}

// The lines of the pairing's loop for a fixed point q: line i at p = (x, y), times a factor that the final exponentiation
// removes, is one[i] / y + (by_x[i] x / y) v + v w.
struct FixedLines {
    static constexpr u32 COUNT_MAX = 2 * Bls12::LOOP_DIGITS;
    Fp2<Bls12Field> one[COUNT_MAX], by_x[COUNT_MAX];

    explicit FixedLines(const Affine<Fp2<Bls12Field>>& q) {
        PairingState<Bls12> s;
        s.q = q;
        begin_running<Bls12>(s);
        u32 count = 0;
        for (u32 i = Bls12::LOOP_DIGITS - 1; i-- > 0;) {
            set(count++, double_running<Bls12>(s));
            if (Bls12::loop_digit(i)) set(count++, add_running<Bls12>(s, q));
        }
    }

   private:
    void set(u32 i, const PairingLine<Bls12>& line) {
        const Fp2<Bls12Field> scale = line.a.inverse();
        one[i] = line.c * scale;
        by_x[i] = line.b * scale;
    }
};

// What KZG proofs have in common; made once, on the first proof.
struct KzgConstants {
    FixedLines minus_generator{-bls_generator_g2()}, setup{kzg_setup_g2()};
    BlsTerm<BlsG1> minus_generator_g1;
    KzgConstants() { odd_multiples<CurveA::Zero>(minus_generator_g1.multiples, -bls_generator_g1()); }
};
inline const KzgConstants& kzg_constants() {
    static const KzgConstants constants;
    return constants;
}

// e(p, -G2) e(w, tau G2) = 1, for p and w that are not infinity?
WG_NOINLINE inline bool kzg_pairings_cancel(const Jacobian<Bls12Field>& p, const Affine<Bls12Field>& w) {
    const KzgConstants& constants = kzg_constants();
    const Bls12Field inverse = (p.y * w.y).inverse();
    const Bls12Field p_y = inverse * w.y, w_one = inverse * p.y;  // 1 / Y of p, whose y is Y / Z^3, and 1 / y of w
    const Bls12Field p_x = p.x * p.z * p_y, p_one = p.z.squared() * p.z * p_y, w_x = w.x * w_one;
    Fp12<Bls12> f = Fp12<Bls12>::one();
    u32 line = 0;
    const auto multiply_by_lines = [&] {
        f = f.times_01_unit(constants.minus_generator.one[line] * p_one, constants.minus_generator.by_x[line] * p_x);
        f = f.times_01_unit(constants.setup.one[line] * w_one, constants.setup.by_x[line] * w_x);
        ++line;
    };
    for (u32 i = Bls12::LOOP_DIGITS - 1; i-- > 0;) {
        f = f.squared();
        multiply_by_lines();
        if (Bls12::loop_digit(i)) multiply_by_lines();
    }
    return Bls12::final_exponentiation(f.conjugate()) == Fp12<Bls12>::one();
}

// Does p(z) = y hold for the polynomial committed to? e(C - y G1 + z proof, -G2) e(proof, tau G2) = 1.
WG_NOINLINE inline bool kzg_verify(const u8* commitment, const u8* proof, const u64 (&z)[4], const u64 (&y)[4]) {
    constexpr Limbs<4> R = modulus_limbs<Bls12Order>();
    Affine<Bls12Field> c, w;
    const PointKind c_kind = bls_load_compressed_g1(c, commitment), w_kind = bls_load_compressed_g1(w, proof);
    if (c_kind == PointKind::Invalid || w_kind == PointKind::Invalid) return false;
    if (!less_than_limbs(z, R.w) || !less_than_limbs(y, R.w)) return false;
    BlsTerm<BlsG1> terms[2] = {kzg_constants().minus_generator_g1, {}};
    terms[0].prepare_scalar(y);
    if (w_kind == PointKind::Finite) terms[1].prepare(w, z);
    Jacobian<Bls12Field> left = bls_sum(terms, w_kind == PointKind::Finite ? 2 : 1);
    if (c_kind == PointKind::Finite) add_affine<CurveA::Zero>(left, c);
    // The pairing of an infinite point is one, and that of two others is not.
    if (left.is_infinity() || w_kind == PointKind::Infinity) return left.is_infinity() && w_kind == PointKind::Infinity;
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
