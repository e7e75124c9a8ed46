// Two points of G1 of BLS12-381 side by side on 512-bit vectors: the check that both lie in the subgroup, and the
// linear combination that a KZG proof asks for.
//
// Points are projective, x = X / Z and y = Y / Z, in lanes (X, Y, Z, anything) of either half of a vector. The formulas
// are those of Renes, Costello and Batina, "Complete addition formulas for prime order elliptic curves" (2016), for
// a = 0 and 3 b = 12: they hold for all points of a curve without points of order 2, as this one is, infinity
// (0, 1, 0) and equal points too. A doubling is two products of lanes, one after the other.
#pragma once

#include "core/native/crypto/bls12_381.hpp"

#if WG_X86

namespace warpgrid {

struct PointLanes {
    Residues p;
};

constexpr u8 FIRST_HALF = 0x0f, SECOND_HALF = 0xf0;
constexpr u8 X_LANES = 0x11, Y_LANES = 0x22, Z_LANES = 0x44;

// Lanes A, B, C, D of each half.
template <u32 A, u32 B, u32 C, u32 D, class T>
WG_IFMA_FN T lanes(const T& a) {
    T r;
    WG_UNROLL
    for (u32 i = 0; i < IFMA_LIMBS; ++i) {
        r.w[i] = _mm512_maskz_permutex_epi64(ALL_LANES, a.w[i], A | B << 2 | C << 4 | D << 6);
    }
    return r;
}

// a * 2^SHIFT.
template <u32 SHIFT>
WG_IFMA_FN Sums shifted(const Sums& a) {
    Sums r;
    WG_UNROLL
    for (u32 i = 0; i < IFMA_LIMBS; ++i) r.w[i] = _mm512_maskz_slli_epi64(ALL_LANES, a.w[i], SHIFT);
    return r;
}

WG_IFMA_NOINLINE PointLanes load_points(const Affine<Bls12Field>& a, const Affine<Bls12Field>& b) {
    const Bls12Field one = Bls12Field::one(), zero = Bls12Field::zero();
    return {load_residues({&a.x, &a.y, &one, &zero, &b.x, &b.y, &one, &zero})};
}
WG_IFMA_FN PointLanes infinities() {
    const Residues one = broadcast(IfmaConstants::ONE);
    Residues r;
    WG_UNROLL
    for (u32 i = 0; i < IFMA_LIMBS; ++i) r.w[i] = _mm512_maskz_mov_epi64(Y_LANES, one.w[i]);
    return {r};
}

// With b = Y^2 - 9 b Z^2: X' = 2 X Y b, Y' = b (Y^2 + 3 b Z^2) + 8 Y^2 (3 b Z^2), Z' = 8 Y^2 (Y Z).
WG_IFMA_NOINLINE PointLanes doubled(const PointLanes& a) {
    const Sums products = multiply_lanes(lanes<1, 1, 2, 0>(a.p), lanes<1, 2, 2, 1>(a.p));  // Y^2, Y Z, Z^2, X Y
    const Sums yy = lanes<0, 0, 0, 0>(products), zz = lanes<2, 2, 2, 2>(products);
    const Sums zz12 = shifted<3>(zz) + shifted<2>(zz), zz36 = shifted<5>(zz) + shifted<2>(zz);
    const Sums first = mixed(X_LANES | Y_LANES, shifted<3>(yy), yy - zz36);
    const Sums turned = lanes<3, 0, 2, 1>(products);  // X Y, Y^2, Z^2, Y Z
    const Sums second = mixed(Z_LANES, add_in(Y_LANES, add_in(X_LANES, turned, turned), zz12), zz12);
    const Sums r = multiply_lanes(reduced(first), reduced(second));
    return {reduced(mixed(Z_LANES, add_in(Y_LANES, r, lanes<2, 2, 2, 2>(r)), lanes<3, 3, 3, 3>(r)))};
}

// a0 * b0 + a1 * b1 in each lane.
WG_IFMA_NOINLINE Sums multiply_lanes(const Residues& a0, const Residues& b0, const Residues& a1, const Residues& b1) {
    __m512i t[2 * IFMA_LIMBS];
    WG_UNROLL
    for (u32 i = 0; i < 2 * IFMA_LIMBS; ++i) t[i] = _mm512_setzero_si512();
    add_product(t, a0, b0);
    add_product(t, a1, b1);
    return montgomery_reduced(t);
}

WG_IFMA_NOINLINE PointLanes operator+(const PointLanes& a, const PointLanes& b) {
    const Sums same = multiply_lanes(a.p, b.p);  // X X', Y Y', Z Z'
    const Sums cross = multiply_lanes(lanes<0, 1, 0, 3>(a.p), lanes<1, 2, 2, 3>(b.p),  // X Y' + Y X', Y Z' + Z Y',
                                      lanes<1, 2, 2, 3>(a.p), lanes<0, 1, 0, 3>(b.p));  // X Z' + Z X'
    const Sums xx = lanes<0, 0, 0, 0>(same), yy = lanes<1, 1, 1, 1>(same), zz = lanes<2, 2, 2, 2>(same);
    const Sums xx3 = doubled(xx) + xx, zz12 = shifted<3>(zz) + shifted<2>(zz);
    const Sums minus = yy - zz12, plus = yy + zz12;
    const Sums c0 = lanes<0, 0, 0, 0>(cross), c1 = lanes<1, 1, 1, 1>(cross), c2 = lanes<2, 2, 2, 2>(cross);
    const Sums c2_12 = shifted<3>(c2) + shifted<2>(c2);
    const auto by_coordinate = [](const Sums& x, const Sums& y, const Sums& z) WG_IFMA_TARGET {
        return reduced(mixed(Z_LANES, mixed(Y_LANES, x, y), z));
    };
    // X = c0 minus - c1 c2_12, Y = c2_12 xx3 + minus plus, Z = plus c1 + xx3 c0.
    return {reduced(multiply_lanes(by_coordinate(c0, c2_12, plus), by_coordinate(minus, xx3, c1),
                                   by_coordinate(zero_sums() - c1, minus, xx3), by_coordinate(c2_12, plus, c0)))};
}

// -a in the lanes of `halves`, a in the others.
WG_IFMA_FN PointLanes negated_in(u8 halves, const PointLanes& a) {
    const Sums p = sums_of(a.p);
    return {reduced(subtract_in(halves & Y_LANES, p, doubled(p)))};
}

struct ProjectivePoint {
    Bls12Field x, y, z;
    Jacobian<Bls12Field> jacobian() const { return {x * z, y * z.squared(), z}; }
};

WG_IFMA_NOINLINE void store_points(ProjectivePoint (&out)[2], const PointLanes& a) {
    Bls12Field fields[LANES];
    store_residues(fields, a.p);
    for (u32 half = 0; half < 2; ++half) out[half] = {fields[4 * half], fields[4 * half + 1], fields[4 * half + 2]};
}

// Are both points of the curve in the subgroup of prime order? There, and only there, X^2 p = (BETA x, -y) (Scott, "A
// note on group membership tests for G1, G2 and GT on BLS pairing-friendly curves", 2021).
WG_IFMA_NOINLINE bool are_in_subgroup(const Affine<Bls12Field>& a, const Affine<Bls12Field>& b) {
    PointLanes r = load_points(a, b);
    for (u32 factor = 0; factor < 2; ++factor) {
        const PointLanes p = r;
        for (u32 i = 63; i-- > 0;) {
            r = doubled(r);
            if (Bls12::X >> i & 1) r = r + p;
        }
    }
    ProjectivePoint q[2];
    store_points(q, r);
    const auto holds = [](const ProjectivePoint& q, const Affine<Bls12Field>& p) {
        return !q.z.is_zero() && q.x == p.x * Bls12::beta() * q.z && q.y == -(p.y * q.z);
    };
    return holds(q[0], a) && holds(q[1], b);
}

// The multiples 0 to 2^(WIDTH - 1) of a point p in the first halves, of X^2 p in the second; p is in the subgroup.
template <u32 WIDTH>
struct PointMultiples {
    static constexpr u32 COUNT = (1u << (WIDTH - 1)) + 1;
    PointLanes multiple[COUNT];

    WG_IFMA_TARGET explicit PointMultiples(const Affine<Bls12Field>& p) {
        multiple[0] = infinities();
        multiple[1] = load_points(p, BlsG1::part_point(p, 1));
        for (u32 i = 2; i < COUNT; ++i)
            multiple[i] = i % 2 == 0 ? doubled(multiple[i / 2]) : multiple[i - 1] + multiple[1];
    }

    // The multiple by d of the first point, and by e of the second.
    WG_IFMA_FN PointLanes at(i32 d, i32 e) const {
        const PointLanes chosen = {mixed(SECOND_HALF, multiple[d < 0 ? -d : d].p, multiple[e < 0 ? -e : e].p)};
        const u8 halves = static_cast<u8>((d < 0 ? FIRST_HALF : 0) | (e < 0 ? SECOND_HALF : 0));
        return halves == 0 ? chosen : negated_in(halves, chosen);
    }
};

// A scalar of the group as k0 + k1 X^2, each in signed digits of WIDTH bits, in -2^(WIDTH - 1) ... 2^(WIDTH - 1).
template <u32 WIDTH>
struct WindowDigits {
    static constexpr u32 COUNT = BlsG1::PART_BITS / WIDTH + 1;
    i16 digit[2][COUNT];

    explicit WindowDigits(const u64 (&scalar)[4]) {
        u64 digits[4], part[2];
        bls_base_x(digits, scalar);
        for (u32 k = 0; k < 2; ++k) {
            BlsG1::part(part, digits, k);
            i32 carry = 0;
            for (u32 i = 0; i < COUNT; ++i) {
                const u32 bit = i * WIDTH;
                u64 window = bit < 128 ? part[bit / 64] >> (bit % 64) : 0;
                if (bit < 64 && bit % 64 + WIDTH > 64) window |= part[1] << (64 - bit % 64);
                const i32 value = static_cast<i32>(window & ((1u << WIDTH) - 1)) + carry;
                carry = value > 1 << (WIDTH - 1);
                digit[k][i] = static_cast<i16>(value - (carry << WIDTH));
            }
        }
    }
};

// a p + b q for points of the subgroup, with the multiples of p known, in two summands.
constexpr u32 FIXED_WIDTH = 6, VARIABLE_WIDTH = 4;
WG_IFMA_NOINLINE void multiply_points(ProjectivePoint (&out)[2], const PointMultiples<FIXED_WIDTH>& p,
                                      const u64 (&a)[4], const Affine<Bls12Field>& q, const u64 (&b)[4]) {
    const PointMultiples<VARIABLE_WIDTH> q_multiples(q);
    const WindowDigits<FIXED_WIDTH> p_digits(a);
    const WindowDigits<VARIABLE_WIDTH> q_digits(b);
    PointLanes sum = infinities();
    for (u32 bit = BlsG1::PART_BITS + 1; bit-- > 0;) {
        sum = doubled(sum);
        if (bit % VARIABLE_WIDTH == 0) {
            const u32 i = bit / VARIABLE_WIDTH;
            sum = sum + q_multiples.at(q_digits.digit[0][i], q_digits.digit[1][i]);
        }
        if (bit % FIXED_WIDTH == 0) {
            const u32 i = bit / FIXED_WIDTH;
            sum = sum + p.at(p_digits.digit[0][i], p_digits.digit[1][i]);
        }
    }
    store_points(out, sum);
}

}  // namespace warpgrid

#endif  // WG_X86
