// What every KZG proof's verification has in common: the generators, tau G2, and the lines of the pairing's loop for
// the two fixed points of G2. Host code only.
#pragma once

#include "core/native/crypto/bls12_381.hpp"

namespace warpgrid {

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

// The lines of the pairing's loop for a fixed point q: line i at p = (x, y), times a factor that the final
// exponentiation removes, is one[i] / y + (by_x[i] x / y) v + v w.
struct FixedLines {
    static constexpr u32 COUNT_MAX = 2 * Bls12::LOOP_DIGITS;
    Fp2<Bls12Field> one[COUNT_MAX], by_x[COUNT_MAX];
    u32 count = 0;

    explicit FixedLines(const Affine<Fp2<Bls12Field>>& q) {
        PairingState<Bls12> s;
        s.q = q;
        begin_running<Bls12>(s);
        for (u32 i = Bls12::LOOP_DIGITS - 1; i-- > 0;) {
            append(double_running<Bls12>(s));
            if (Bls12::loop_digit(i)) append(add_running<Bls12>(s, q));
        }
    }

   private:
    void append(const PairingLine<Bls12>& line) {
        const Fp2<Bls12Field> scale = line.a.inverse();
        one[count] = line.c * scale;
        by_x[count++] = line.b * scale;
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

// What the fixed lines take of two points of G1 that are not infinity: 1 / y and x / y of each.
struct KzgFactors {
    Bls12Field p_one, p_x, w_one, w_x;

    KzgFactors(const Jacobian<Bls12Field>& p, const Affine<Bls12Field>& w) {
        const Bls12Field inverse = (p.y * w.y).inverse();
        const Bls12Field p_y = inverse * w.y;  // 1 / Y of p, whose y is Y / Z^3
        p_one = p.z.squared() * p.z * p_y;
        p_x = p.x * p.z * p_y;
        w_one = inverse * p.y;
        w_x = w.x * w_one;
    }
};

}  // namespace warpgrid
