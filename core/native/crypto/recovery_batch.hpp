// Recovery of many secp256k1 signers at once, in three passes made for a GPU (kernels/crypto.cu) and run on the CPU as
// their twin by the tests:
//
//     1. scalars: u1 = -z / r and u2 = s / r with one inversion for BATCH signatures, and u2 split in two halves;
//     2. ladder:  u1 G + u2 R, one thread a signature: a joint ladder of 4-bit signed digits over the halves of u2 with
//                 eight multiples of R, then a comb over u1 with a table of multiples of G;
//     3. address: to affine with one inversion for BATCH points, and the hash.
//
// The ladder's additions do not watch for equal or opposite points, which only a crafted signature meets: z ends as 0,
// the status says Exceptional, and a fourth pass runs the complete formulas for those alone.
#pragma once

#include "core/native/crypto/secp256k1.hpp"

namespace warpgrid {

enum class RecoveryStatus : u8 { Invalid = 0, Valid = 1, Exceptional = 2 };

// The columns of a batch, big-endian as transactions carry them.
struct RecoveryInput {
    const u8* hashes;      // [n][32]
    const u8* signatures;  // [n][64]: r, s
    const u8* y_parities;  // [n]
    u64 count;
};

// What pass 1 leaves for pass 2. Digits are nibbles of half + 0x77..7, so that digit - 7 lies within -7..8.
struct RecoveryScalars {
    u64 u1[4];
    u64 nibbles[2][2];
    u8 top_nibble[2];
    u8 negative[2];
    u8 y_parity;
    RecoveryStatus status;
};

using Secp256k1Point = Jacobian<Secp256k1Field>;

WG_FN RecoverableSignature load_signature(const RecoveryInput& input, u64 i) {
    RecoverableSignature signature;
    load_big_limbs(signature.hash, input.hashes + 32 * i);
    load_big_limbs(signature.r, input.signatures + 64 * i);
    load_big_limbs(signature.s, input.signatures + 64 * i + 32);
    signature.y_parity = input.y_parities[i];
    return signature;
}

WG_FN RecoveryScalars recovery_record(const RecoverableSignature& signature, const Secp256k1Scalar& r_inverse) {
    constexpr u64 OFFSET = 0x7777777777777777ull;
    RecoveryScalars record;
    u64 u2[4];
    recovery_scalars(record.u1, u2, signature, r_inverse);
    const SplitScalar split = secp256k1_split(u2);
    WG_UNROLL
    for (u32 half = 0; half < 2; ++half) {
        u64 carry = 0;
        record.nibbles[half][0] = add_with_carry(split.half[half][0], OFFSET, carry);
        record.nibbles[half][1] = add_with_carry(split.half[half][1], OFFSET, carry);
        record.top_nibble[half] = static_cast<u8>(7 + carry);
        record.negative[half] = split.negative[half];
    }
    record.y_parity = static_cast<u8>(signature.y_parity);
    record.status = RecoveryStatus::Valid;
    return record;
}

// Pass 1 for signatures first, first + stride, ... (BATCH of them, as far as they exist).
template <u32 BATCH>
WG_FN void recovery_scalars_pass(RecoveryScalars* records, const RecoveryInput& input, u64 first, u64 stride) {
    Secp256k1Scalar before[BATCH], product = Secp256k1Scalar::one();
    for (u32 k = 0; k < BATCH; ++k) {
        const u64 i = first + k * stride;
        before[k] = product;
        if (i >= input.count) continue;
        const RecoverableSignature signature = load_signature(input, i);
        const bool valid =
            is_secp256k1_scalar(signature.r) && is_secp256k1_scalar(signature.s) && signature.y_parity <= 1;
        records[i].status = valid ? RecoveryStatus::Valid : RecoveryStatus::Invalid;
        if (valid) product = product * Secp256k1Scalar::from_integer(signature.r);
    }
    Secp256k1Scalar inverse = product.inverse();
    for (u32 k = BATCH; k-- > 0;) {
        const u64 i = first + k * stride;
        if (i >= input.count || records[i].status != RecoveryStatus::Valid) continue;
        const RecoverableSignature signature = load_signature(input, i);
        records[i] = recovery_record(signature, inverse * before[k]);
        inverse = inverse * Secp256k1Scalar::from_integer(signature.r);
    }
}

// Multiples 1..8 of R over one common z, with the abscissas of LAMBDA R beside them. Scaling a curve y^2 = x^3 + b by z
// gives another b, which no formula uses: the ladder runs there, and its result's z is multiplied by the common one.
struct MultiplesOfR {
    Secp256k1Field x[2][8], y[8];
};

WG_FN Secp256k1Field fill_multiples(MultiplesOfR& table, const Affine<Secp256k1Field>& r_point) {
    Secp256k1Field ratio[8];  // of the z of neighbours
    Secp256k1Point p = Secp256k1Point::from(r_point);
    table.x[0][0] = p.x;
    table.y[0] = p.y;
    double_point_inline<CurveA::Zero>(p);
    ratio[1] = p.z;
    table.x[0][1] = p.x;
    table.y[1] = p.y;
    for (u32 k = 2; k < 8; ++k) {
        const Slope<Secp256k1Field> slope = slope_to(p, r_point);
        ratio[k] = slope.h;
        finish_addition(p, slope);
        table.x[0][k] = p.x;
        table.y[k] = p.y;
    }
    const Secp256k1Field beta = secp256k1_beta();
    Secp256k1Field scale = Secp256k1Field::one();
    for (u32 k = 8; k-- > 0;) {
        if (k < 7) {
            scale = scale * ratio[k + 1];
            const Secp256k1Field squared = scale.squared();
            table.x[0][k] = table.x[0][k] * squared;
            table.y[k] = table.y[k] * (squared * scale);
        }
        table.x[1][k] = table.x[0][k] * beta;
    }
    return p.z;
}

WG_FN void accumulate(Secp256k1Point& sum, bool& empty, const Affine<Secp256k1Field>& point) {
    if (empty) {
        sum = Secp256k1Point::from(point);
        empty = false;
    } else {
        add_affine_distinct(sum, point);
    }
}

// The comb has 256 / BITS windows of 2^BITS points: entry d of a window is d * 2^(BITS window) * G, entry 0 unused.
// BITS divides 64.
template <u32 BITS>
WG_FN void fill_comb_entry(Affine<Secp256k1Field>* comb, u64 index) {
    const u64 digit = index % (1ull << BITS), bit = (index >> BITS) * BITS;
    if (digit == 0) return;
    u64 scalar[4] = {0, 0, 0, 0};
    scalar[bit / 64] = digit << (bit % 64);
    const u64 none[4] = {0, 0, 0, 0};
    const Affine<Secp256k1Field> generator = generator_entry<Secp256k1Field>(SECP256K1_GENERATOR, 1);
    comb[index] = to_affine(secp256k1_double_multiply(scalar, none, generator));
}

// sum += u1 * G.
template <u32 BITS>
WG_FN void add_comb(Secp256k1Point& sum, bool& empty, const u64 (&u1)[4], const Affine<Secp256k1Field>* comb) {
    for (u32 window = 0; window < 256 / BITS; ++window) {
        const u32 bit = window * BITS;
        const u64 digit = u1[bit / 64] >> (bit % 64) & ((1ull << BITS) - 1);
        if (digit != 0) accumulate(sum, empty, comb[(static_cast<u64>(window) << BITS) + digit]);
    }
}

// Pass 2 for one signature. Writes the point and leaves the status Valid, Invalid or Exceptional in the record.
template <u32 BITS>
WG_FN void recovery_ladder_pass(Secp256k1Point* points, RecoveryScalars* records, const RecoveryInput& input,
                                const Affine<Secp256k1Field>* comb, u64 i) {
    if (records[i].status != RecoveryStatus::Valid) return;
    const RecoveryScalars record = records[i];
    u64 x[4];
    load_big_limbs(x, input.signatures + 64 * i);
    Affine<Secp256k1Field> r_point;
    if (!secp256k1_lift(r_point, x, record.y_parity)) {
        records[i].status = RecoveryStatus::Invalid;
        return;
    }
    MultiplesOfR table;
    const Secp256k1Field common_z = fill_multiples(table, r_point);
    Secp256k1Point sum;
    bool empty = true;
    for (u32 position = 33; position-- > 0;) {
        for (u32 k = 0; !empty && k < 4; ++k) double_point_inline<CurveA::Zero>(sum);
        for (u32 half = 0; half < 2; ++half) {
            const u32 nibble =
                position == 32 ? record.top_nibble[half]
                               : static_cast<u32>(record.nibbles[half][position / 16] >> (4 * (position % 16))) & 15;
            const i32 digit = static_cast<i32>(nibble) - 7;
            if (digit == 0) continue;
            const u32 entry = static_cast<u32>(digit < 0 ? -digit : digit) - 1;
            Affine<Secp256k1Field> point{table.x[half][entry], table.y[entry]};
            if ((digit < 0) != (record.negative[half] != 0)) point.y = -point.y;
            accumulate(sum, empty, point);
        }
    }
    if (!empty) sum.z = sum.z * common_z;
    add_comb<BITS>(sum, empty, record.u1, comb);
    if (empty || sum.z.is_zero()) {
        records[i].status = RecoveryStatus::Exceptional;
        return;
    }
    points[i] = sum;
}

// Pass 3 for points first, first + stride, ... (BATCH of them, as far as they exist).
template <u32 BATCH>
WG_FN void recovery_address_pass(u8* addresses, u8* status, const RecoveryScalars* records,
                                 const Secp256k1Point* points, u64 count, u64 first, u64 stride) {
    Secp256k1Field before[BATCH], product = Secp256k1Field::one();
    for (u32 k = 0; k < BATCH; ++k) {
        const u64 i = first + k * stride;
        before[k] = product;
        if (i < count && records[i].status == RecoveryStatus::Valid) product = product * points[i].z;
    }
    Secp256k1Field inverse = product.inverse();
    for (u32 k = BATCH; k-- > 0;) {
        const u64 i = first + k * stride;
        if (i >= count) continue;
        status[i] = static_cast<u8>(records[i].status);
        zero_bytes(addresses + 20 * i, 20);
        if (records[i].status != RecoveryStatus::Valid) continue;
        const Secp256k1Field z_inverse = inverse * before[k], squared = z_inverse.squared();
        inverse = inverse * points[i].z;
        address_of_point(addresses + 20 * i, {points[i].x * squared, points[i].y * (squared * z_inverse)});
    }
}

// Pass 4 for one signature: the complete formulas, where the fast ones met an exceptional point.
WG_FN void recovery_exceptional_pass(u8* addresses, u8* status, const RecoveryInput& input, u64 i) {
    if (status[i] != static_cast<u8>(RecoveryStatus::Exceptional)) return;
    const bool valid = recover_address(addresses + 20 * i, load_signature(input, i));
    status[i] = static_cast<u8>(valid ? RecoveryStatus::Valid : RecoveryStatus::Invalid);
}

}  // namespace warpgrid
