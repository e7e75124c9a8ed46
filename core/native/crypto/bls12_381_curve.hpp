// The curve BLS12-381: its fields, its twist and the end of its pairing. The parameter is -X with
// X = 0xd201000000010000.
#pragma once

#include "core/native/crypto/pairing.hpp"

namespace warpgrid {

struct Bls12Prime {
    static constexpr u32 LIMBS = 6;
    static WG_FN constexpr u64 modulus(u32 i) {
        constexpr u64 p[6] = {0xb9feffffffffaaabull, 0x1eabfffeb153ffffull, 0x6730d2a0f6b0f624ull,
                              0x64774b84f38512bfull, 0x4b1ba7b6434bacd7ull, 0x1a0111ea397fe69aull};
        return p[i];
    }
};

struct Bls12Order {
    static constexpr u32 LIMBS = 4;
    static WG_FN constexpr u64 modulus(u32 i) {
        constexpr u64 r[4] = {0xffffffff00000001ull, 0x53bda402fffe5bfeull, 0x3339d80809a1d805ull,
                              0x73eda753299d7d48ull};
        return r[i];
    }
};

struct Bls12 {
    using Fp = Field<Bls12Prime>;
    using F2 = Fp2<Fp>;
    static constexpr bool D_TWIST = false;
    static constexpr u64 X = 0xd201000000010000ull;

    static constexpr u32 LOOP_DIGITS = 64;
    static WG_FN i32 loop_digit(u32 i) { return static_cast<i32>(X >> i & 1); }

    // xi = 1 + u.
    static WG_FN F2 times_xi(const F2& a) { return {a.c0 - a.c1, a.c0 + a.c1}; }

    // xi^((p - 1) / 6).
    static WG_FN F2 frobenius_constant() {
        constexpr Fp C0 = Fp::constant(0x8d0775ed92235fb8ull, 0xf67ea53d63e7813dull, 0x7b2443d784bab9c4ull,
                                       0x0fd603fd3cbd5f4full, 0xc231beb4202c0d1full, 0x1904d3bf02bb0667ull);
        constexpr Fp C1 = Fp::constant(0x2cf78a126ddc4af3ull, 0x282d5ac14d6c7ec2ull, 0xec0c8ec971f63c5full,
                                       0x54a14787b6c7b36full, 0x88e9e902231f9fb8ull, 0x00fc3e2b36c4e032ull);
        return {C0, C1};
    }

    static WG_FN Fp b() {
        constexpr Fp B = Fp::constant(4ull);
        return B;
    }
    static WG_FN F2 twist_b() { return {b(), b()}; }

    // A cube root of one: (x, y) -> (BETA x, y) multiplies a point of G1 by -X^2.
    static WG_FN Fp beta() {
        constexpr Fp B = Fp::constant(0x2e01fffffffefffeull, 0xde17d813620a0002ull, 0xddb3a93be6f89688ull,
                                      0xba69c6076a0f77eaull, 0x5f19672fdf76ce51ull, 0ull);
        return B;
    }

    // The power p on the curve, seen from the twist: x conjugated times xi^(-(p-1)/3), y times xi^(-(p-1)/2). It
    // multiplies a point of G2 by -X.
    static WG_FN Affine<F2> twist_frobenius(const Affine<F2>& q) {
        constexpr Fp X1 = Fp::constant(0x8bfd00000000aaadull, 0x409427eb4f49fffdull, 0x897d29650fb85f9bull,
                                       0xaa0d857d89759ad4ull, 0xec02408663d4de85ull, 0x1a0111ea397fe699ull);
        constexpr Fp Y0 = Fp::constant(0xf1ee7b04121bdea2ull, 0x304466cf3e67fa0aull, 0xef396489f61eb45eull,
                                       0x1c3dedd930b1cf60ull, 0xe2e9c448d77a2cd9ull, 0x135203e60180a68eull);
        constexpr Fp Y1 = Fp::constant(0xc81084fbede3cc09ull, 0xee67992f72ec05f4ull, 0x77f76e17009241c5ull,
                                       0x48395dabc2d3435eull, 0x6831e36d6bd17ffeull, 0x06af0e0437ff400bull);
        return {{X1 * q.x.c1, X1 * q.x.c0}, q.y.conjugate() * F2{Y0, Y1}};
    }
    static WG_FN Jacobian<F2> twist_frobenius(const Jacobian<F2>& q) {
        const Affine<F2> numerators = twist_frobenius(Affine<F2>{q.x, q.y});
        return {numerators.x, numerators.y, q.z.conjugate()};
    }

    // The parameter is negative: the loop over X gives the inverse, up to what the final exponentiation removes.
    static WG_FN Fp12<Bls12> finish_loop(const Fp12<Bls12>& f, PairingState<Bls12>*, u64) { return f.conjugate(); }

    // The hard part by Hayashida, Hayasaka, Teruya, "Efficient final exponentiation via cyclotomic structure" (2020):
    // the power (x - 1)^2 (x + p) (x^2 + p^2 - 1) + 3 with x = -X, thrice the exact one.
    static WG_NOINLINE Fp12<Bls12> final_exponentiation(const Fp12<Bls12>& miller) {
        using F12 = Fp12<Bls12>;
        const F12 f = easy_exponentiation(miller);
        const F12 a = power_x(f) * f.conjugate();                                          // x - 1
        const F12 b = power_x(a) * a.conjugate();                                          // (x - 1)^2
        const F12 c = power_x(b) * b.frobenius();                                          // ... (x + p)
        const F12 d = power_x(power_x(c)) * c.frobenius().frobenius() * c.conjugate();     // ... (x^2 + p^2 - 1)
        return d * f.cyclotomic_squared() * f;
    }
    static WG_FN Fp12<Bls12> power_x(const Fp12<Bls12>& f) { return cyclotomic_power(f, X).conjugate(); }
};

using Bls12Field = Bls12::Fp;
using Bls12Scalar = Field<Bls12Order>;

}  // namespace warpgrid
