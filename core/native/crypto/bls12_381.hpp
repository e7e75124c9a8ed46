// BLS12-381 for the precompiles 0x0b to 0x0f (EIP-2537): its groups, multi-scalar multiplication and pairing.
// Runs on the CPU only: a GPU parks these calls.
#pragma once

#include "core/native/crypto/bls12_381_ifma.hpp"
#include "core/native/crypto/modexp.hpp"

namespace warpgrid {

// Digits of a scalar (first reduced modulo the order) in base X, least significant first.
WG_FN void bls_base_x(u64 (&digits)[4], const u64 (&scalar)[4]) {
    constexpr Limbs<4> R = modulus_limbs<Bls12Order>();
    u64 rest[4] = {scalar[0], scalar[1], scalar[2], scalar[3]};
    for (u32 k = 0; k < 2; ++k) subtract_if_at_least(rest, rest, 0, R.w);  // 2^256 < 3 R
    const u64 reciprocal = reciprocal_of(Bls12::X);                         // X has its top bit set
    for (u32 k = 0; k < 3; ++k) {
        u64 remainder = 0;
        for (u32 i = 4; i-- > 0;) rest[i] = divide_two_by_one(remainder, rest[i], Bls12::X, reciprocal, remainder);
        digits[k] = remainder;
    }
    digits[3] = rest[0];  // the order is below X^4
}

// What a group gives to multi-scalar multiplication: PARTS short scalars for each point, and the point for each part.
struct BlsG1 {
    using F = Bls12Field;
    static constexpr u32 PARTS = 2, PART_BITS = 128, FIELD_WORDS = 1;
    static WG_FN F curve_b() { return Bls12::b(); }

    // part 1 multiplies X^2 P = (BETA x, -y).
    static WG_FN void part(u64 (&scalar)[2], const u64 (&digits)[4], u32 k) {
        const u128 value = static_cast<u128>(digits[2 * k + 1]) * Bls12::X + digits[2 * k];
        scalar[0] = static_cast<u64>(value);
        scalar[1] = static_cast<u64>(value >> 64);
    }
    static WG_FN Affine<F> part_point(const Affine<F>& p, u32 k) {
        return k == 0 ? p : Affine<F>{p.x * Bls12::beta(), -p.y};
    }
    static WG_FN bool is_in_subgroup(const Affine<F>& p) {
        Jacobian<F> q = multiply_point_sparse<CurveA::Zero>(Jacobian<F>::from(p), Bls12::X);
        q = multiply_point_sparse<CurveA::Zero>(q, Bls12::X);
        add_affine<CurveA::Zero>(q, -part_point(p, 1));
        return q.is_infinity();
    }
};

struct BlsG2 {
    using F = Fp2<Bls12Field>;
    static constexpr u32 PARTS = 4, PART_BITS = 64, FIELD_WORDS = 2;
    static WG_FN F curve_b() { return Bls12::twist_b(); }

    // part k multiplies X^k P = (-psi)^k P.
    static WG_FN void part(u64 (&scalar)[1], const u64 (&digits)[4], u32 k) { scalar[0] = digits[k]; }
    static WG_FN Affine<F> part_point(Affine<F> p, u32 k) {
        for (u32 i = 0; i < k; ++i) p = -Bls12::twist_frobenius(p);
        return p;
    }
    static WG_FN bool is_in_subgroup(const Affine<F>& p) {
        Jacobian<F> q = multiply_point_sparse<CurveA::Zero>(Jacobian<F>::from(p), Bls12::X);
        add_affine<CurveA::Zero>(q, Bls12::twist_frobenius(p));
        return q.is_infinity();
    }
};

constexpr u64 BLS_FIELD_BYTES = 64;

// 64 bytes, big-endian, below the prime.
WG_FN bool bls_load_field(Bls12Field& r, const u8* bytes) {
    constexpr Limbs<6> P = modulus_limbs<Bls12Prime>();
    u64 a[6];
    if ((load_big64(bytes) | load_big64(bytes + 8)) != 0) return false;
    load_big_limbs(a, bytes + 16);
    if (!less_than_limbs(a, P.w)) return false;
    r = Bls12Field::from_integer(a);
    return true;
}
WG_FN bool bls_load_field(Fp2<Bls12Field>& r, const u8* bytes) {
    return bls_load_field(r.c0, bytes) && bls_load_field(r.c1, bytes + BLS_FIELD_BYTES);
}

WG_FN void bls_store_field(u8* bytes, const Bls12Field& a) {
    u64 integer[6];
    a.to_integer(integer);
    zero_bytes(bytes, 16);
    store_big_limbs(bytes + 16, integer);
}
WG_FN void bls_store_field(u8* bytes, const Fp2<Bls12Field>& a) {
    bls_store_field(bytes, a.c0);
    bls_store_field(bytes + BLS_FIELD_BYTES, a.c1);
}

template <class G>
constexpr u64 BLS_POINT_BYTES = 2 * BLS_FIELD_BYTES * G::FIELD_WORDS;

// x and y, on the curve (not necessarily in the subgroup); all zeros is infinity.
template <class G>
WG_NOINLINE inline PointKind bls_load_point(Affine<typename G::F>& p, const u8* bytes) {
    if (!bls_load_field(p.x, bytes) || !bls_load_field(p.y, bytes + BLS_POINT_BYTES<G> / 2)) return PointKind::Invalid;
    if (p.x.is_zero() && p.y.is_zero()) return PointKind::Infinity;
    return p.y.squared() == p.x.squared() * p.x + G::curve_b() ? PointKind::Finite : PointKind::Invalid;
}

template <class G>
WG_NOINLINE inline PointKind bls_load_subgroup_point(Affine<typename G::F>& p, const u8* bytes) {
    const PointKind kind = bls_load_point<G>(p, bytes);
    return kind == PointKind::Finite && !G::is_in_subgroup(p) ? PointKind::Invalid : kind;
}

template <class G>
WG_NOINLINE inline void bls_store_point(u8* output, const Jacobian<typename G::F>& p) {
    if (p.is_infinity()) {
        zero_bytes(output, BLS_POINT_BYTES<G>);
        return;
    }
    const Affine<typename G::F> affine = to_affine(p);
    bls_store_field(output, affine.x);
    bls_store_field(output + BLS_POINT_BYTES<G> / 2, affine.y);
}

// output = the sum of two points of the curve; false when one is not on it. `input` has two points.
template <class G>
WG_NOINLINE inline bool bls_add(u8* output, const u8* input) {
    Affine<typename G::F> a, b;
    const PointKind kind_a = bls_load_point<G>(a, input), kind_b = bls_load_point<G>(b, input + BLS_POINT_BYTES<G>);
    if (kind_a == PointKind::Invalid || kind_b == PointKind::Invalid) return false;
    Jacobian<typename G::F> sum = Jacobian<typename G::F>::infinity();
    if (kind_a == PointKind::Finite) sum = Jacobian<typename G::F>::from(a);
    if (kind_b == PointKind::Finite) add_affine<CurveA::Zero>(sum, b);
    bls_store_point<G>(output, sum);
    return true;
}

// One scalar times one point of a sum: odd multiples, and signed digits of the scalar's parts.
template <class G>
struct BlsTerm {
    Affine<typename G::F> multiples[8];
    SignedDigits<G::PART_BITS> parts[G::PARTS];

    WG_FN void prepare(const Affine<typename G::F>& p, const u64 (&scalar)[4]) {
        odd_multiples<CurveA::Zero>(multiples, p);
        prepare_scalar(scalar);
    }
    // For multiples that are there already.
    WG_FN void prepare_scalar(const u64 (&scalar)[4]) {
        u64 digits[4], part[G::PART_BITS / 64];
        bls_base_x(digits, scalar);
        for (u32 k = 0; k < G::PARTS; ++k) {
            G::part(part, digits, k);
            parts[k].template recode<5>(part);
        }
    }
};

// The sum of all terms over one chain of doublings (Straus).
template <class G>
WG_NOINLINE inline Jacobian<typename G::F> bls_sum(const BlsTerm<G>* terms, u64 count) {
    Jacobian<typename G::F> sum = Jacobian<typename G::F>::infinity();
    for (u32 i = G::PART_BITS + 1; i-- > 0;) {
        if (!sum.is_infinity()) double_point<CurveA::Zero>(sum);
        for (u64 term = 0; term < count; ++term) {
            for (u32 k = 0; k < G::PARTS; ++k) {
                const i32 d = terms[term].parts[k].digit[i];
                if (d == 0) continue;
                add_affine<CurveA::Zero>(sum, G::part_point(signed_entry(terms[term].multiples, d), k));
            }
        }
    }
    return sum;
}

constexpr u64 BLS_SCALAR_BYTES = 32;
template <class G>
constexpr u64 BLS_MSM_ITEM_BYTES = BLS_POINT_BYTES<G> + BLS_SCALAR_BYTES;
template <class G>
constexpr u64 BLS_MSM_ITEM_WORDS = (sizeof(BlsTerm<G>) + 7) / 8;

// output = the sum of scalar * point over the items of the input; false when a point is not in the subgroup. The size
// is a positive multiple of BLS_MSM_ITEM_BYTES, and `words` holds BLS_MSM_ITEM_WORDS for each item.
template <class G>
WG_NOINLINE inline bool bls_msm(u8* output, const u8* input, u64 size, u64* words) {
    BlsTerm<G>* terms = reinterpret_cast<BlsTerm<G>*>(words);
    u64 count = 0;
    for (u64 offset = 0; offset < size; offset += BLS_MSM_ITEM_BYTES<G>) {
        Affine<typename G::F> p;
        u64 scalar[4];
        const PointKind kind = bls_load_subgroup_point<G>(p, input + offset);
        if (kind == PointKind::Invalid) return false;
        load_big_limbs(scalar, input + offset + BLS_POINT_BYTES<G>);
        if (kind == PointKind::Finite) terms[count++].prepare(p, scalar);
    }
    bls_store_point<G>(output, bls_sum(terms, count));
    return true;
}

// Does the final exponentiation make this one?
WG_NOINLINE inline bool bls_is_paired_one(const Fp12<Bls12>& miller) {
#if WG_X86
    if (PROCESSOR.ifma) return is_one_after_hard_exponentiation(easy_exponentiation(miller));
#endif
    return Bls12::final_exponentiation(miller) == Fp12<Bls12>::one();
}

constexpr u64 BLS_PAIR_BYTES = BLS_POINT_BYTES<BlsG1> + BLS_POINT_BYTES<BlsG2>;
constexpr u64 BLS_PAIR_WORDS = sizeof(PairingState<Bls12>) / 8;

// Sets `is_one` to whether the pairings of all pairs multiply to one; false when a point is invalid. The size is a
// positive multiple of BLS_PAIR_BYTES, and `words` holds BLS_PAIR_WORDS for each pair.
WG_NOINLINE inline bool bls_pairing(bool& is_one, const u8* input, u64 size, u64* words) {
    PairingState<Bls12>* states = reinterpret_cast<PairingState<Bls12>*>(words);
    u64 count = 0;
    for (u64 offset = 0; offset < size; offset += BLS_PAIR_BYTES) {
        PairingState<Bls12>& state = states[count];
        const PointKind p = bls_load_subgroup_point<BlsG1>(state.p, input + offset);
        const PointKind q = bls_load_subgroup_point<BlsG2>(state.q, input + offset + BLS_POINT_BYTES<BlsG1>);
        if (p == PointKind::Invalid || q == PointKind::Invalid) return false;
        if (p == PointKind::Finite && q == PointKind::Finite) ++count;
    }
    is_one = count == 0 || bls_is_paired_one(miller_loop<Bls12>(states, count));
    return true;
}

}  // namespace warpgrid
