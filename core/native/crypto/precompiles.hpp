// Every precompiled contract of Cancun, Prague and Osaka: which exist, what they cost, what they answer.
//
// A caller charges precompile_gas first, then makes sure that its arena holds precompile_scratch_words, then runs
// run_precompile with room for precompile_output_bytes. Nothing here allocates or keeps state. On the GPU the
// contracts over BLS12-381 (0x0a to 0x11) answer HostNeeded, and so does any contract whose scratch is larger than the
// arena: the transaction parks with its request, the host runs the same function, and the transaction runs again.
#pragma once

#include "core/native/crypto/blake2b.hpp"
#include "core/native/crypto/bls12_381_gas.hpp"
#include "core/native/crypto/bn254.hpp"
#include "core/native/crypto/modexp.hpp"
#include "core/native/crypto/p256.hpp"
#include "core/native/crypto/precompile_types.hpp"
#include "core/native/crypto/ripemd160.hpp"
#include "core/native/crypto/secp256k1.hpp"
#include "core/native/crypto/sha256.hpp"
#include "core/native/platform.hpp"

#if !WG_ON_DEVICE
#include "core/native/crypto/precompiles_host.hpp"
#endif

namespace warpgrid {

// The precompile at this address under this fork, or None. `address` is 20 bytes, big-endian, as in the EVM.
WG_FN Precompile precompile_at(const u8* address, Fork fork) {
    for (u32 i = 0; i < 18; ++i) {
        if (address[i] != 0) return Precompile::None;
    }
    const u32 number = static_cast<u32>(address[18]) << 8 | address[19];
    if (number == static_cast<u32>(Precompile::P256Verify)) {
        return fork >= Fork::Osaka ? Precompile::P256Verify : Precompile::None;
    }
    const Precompile last = fork >= Fork::Prague ? Precompile::BlsMapG2 : Precompile::PointEvaluation;
    return number <= static_cast<u32>(last) ? static_cast<Precompile>(number) : Precompile::None;
}

// base + per_word for every started 32 bytes.
WG_FN u64 gas_by_words(u64 base, u64 per_word, u64 size) { return base + per_word * ((size + 31) / 32); }

// Gas of a call with this input; at most PRECOMPILE_GAS_UNPAYABLE.
WG_NOINLINE inline u64 precompile_gas(Precompile precompile, const u8* input, u64 size, Fork fork) {
    switch (precompile) {
        case Precompile::EcRecover: return 3000;
        case Precompile::Sha256: return gas_by_words(60, 12, size);
        case Precompile::Ripemd160: return gas_by_words(600, 120, size);
        case Precompile::Identity: return gas_by_words(15, 3, size);
        case Precompile::ModExp:
            return fork >= Fork::Osaka ? modexp_gas_osaka(input, size) : modexp_gas_berlin(input, size);
        case Precompile::Bn254Add: return 150;
        case Precompile::Bn254Mul: return 6000;
        case Precompile::Bn254Pairing: return 45000 + 34000 * (size / BN254_PAIR_BYTES);
        case Precompile::Blake2F: return size == BLAKE2F_INPUT_BYTES ? load_big32(input) : PRECOMPILE_GAS_UNPAYABLE;
        case Precompile::PointEvaluation: return 50000;
        case Precompile::BlsG1Add: return 375;
        case Precompile::BlsG1Msm: return bls_msm_gas(BLS_G1_DISCOUNT, size / 160, BLS_G1_MULTIPLY_GAS);
        case Precompile::BlsG2Add: return 600;
        case Precompile::BlsG2Msm: return bls_msm_gas(BLS_G2_DISCOUNT, size / 288, BLS_G2_MULTIPLY_GAS);
        case Precompile::BlsPairing: return 37700 + 32600 * (size / 384);
        case Precompile::BlsMapG1: return 5500;
        case Precompile::BlsMapG2: return 23800;
        case Precompile::P256Verify: return 6900;
        default: return PRECOMPILE_GAS_UNPAYABLE;
    }
}

// Room that run_precompile needs for its output.
WG_FN u64 precompile_output_bytes(Precompile precompile, const u8* input, u64 size) {
    if (precompile == Precompile::Identity) return size;
    if (precompile == Precompile::ModExp) return modexp_layout(input, size).modulus_bytes;
    return 256;
}

// Scratch that run_precompile needs, for an input whose gas has been paid; ~0 for more than any machine has.
WG_FN u64 precompile_scratch_words(Precompile precompile, const u8* input, u64 size) {
    if (precompile == Precompile::ModExp) return modexp_scratch_words(input, size);
    if (precompile == Precompile::Bn254Pairing) return BN254_PAIR_WORDS * (size / BN254_PAIR_BYTES);
#if !WG_ON_DEVICE
    return host_precompile_scratch_words(precompile, size);
#endif
    return 0;
}

// 0x01: hash, v, r, s in 128 zero-padded bytes; the address as a word, or nothing where no key signed.
WG_NOINLINE inline PrecompileStatus ecrecover(const u8* input, u64 size, u8* output, u64& output_size) {
    u8 padded[128];
    read_padded(padded, sizeof(padded), input, size, 0);
    u64 v[4];
    RecoverableSignature signature;
    load_big_limbs(signature.hash, padded);
    load_big_limbs(v, padded + 32);
    load_big_limbs(signature.r, padded + 64);
    load_big_limbs(signature.s, padded + 96);
    output_size = 0;
    if ((v[1] | v[2] | v[3]) != 0 || (v[0] != 27 && v[0] != 28)) return PrecompileStatus::Success;
    signature.y_parity = static_cast<u32>(v[0] - 27);
    zero_bytes(output, 12);
    if (recover_address(output + 12, signature)) output_size = 32;
    return PrecompileStatus::Success;
}

WG_FN PrecompileStatus ripemd160_word(const u8* input, u64 size, u8* output, u64& output_size) {
    zero_bytes(output, 12);
    ripemd160(output + 12, input, size);
    output_size = 32;
    return PrecompileStatus::Success;
}

WG_FN PrecompileStatus modexp_call(const u8* input, u64 size, Fork fork, u8* output, u64& output_size,
                                   const Scratch& scratch) {
    const ModexpLayout layout = modexp_layout(input, size);
    const u64 longest = layout.base_bytes > layout.modulus_bytes ? layout.base_bytes : layout.modulus_bytes;
    if (fork >= Fork::Osaka && (longest > MODEXP_LENGTH_MAX_OSAKA || layout.exponent_bytes > MODEXP_LENGTH_MAX_OSAKA)) {
        return PrecompileStatus::Failure;
    }
    if (modexp_scratch_words(input, size) > scratch.words_max) return PrecompileStatus::HostNeeded;
    modexp(output, input, size, scratch.words);
    output_size = layout.modulus_bytes;
    return PrecompileStatus::Success;
}

WG_FN PrecompileStatus bn254_pairing_call(const u8* input, u64 size, u8* output, u64& output_size,
                                          const Scratch& scratch) {
    if (size % BN254_PAIR_BYTES != 0) return PrecompileStatus::Failure;
    if (BN254_PAIR_WORDS * (size / BN254_PAIR_BYTES) > scratch.words_max) return PrecompileStatus::HostNeeded;
    bool is_one;
    if (!bn254_pairing(is_one, input, size, scratch.words)) return PrecompileStatus::Failure;
    output_size = store_boolean(output, is_one);
    return PrecompileStatus::Success;
}

// Runs a call whose gas was charged. `output` may not overlap `input`. On Success sets output_size; on the others
// output_size is 0 and the output buffer unspecified.
WG_NOINLINE inline PrecompileStatus run_precompile(Precompile precompile, const u8* input, u64 size, Fork fork,
                                                   u8* output, u64& output_size, const Scratch& scratch) {
    output_size = 0;
    switch (precompile) {
        case Precompile::EcRecover: return ecrecover(input, size, output, output_size);
        case Precompile::Sha256: sha256(output, input, size); return fixed_output(true, 32, output_size);
        case Precompile::Ripemd160: return ripemd160_word(input, size, output, output_size);
        case Precompile::Identity: copy_bytes(output, input, size); return fixed_output(true, size, output_size);
        case Precompile::ModExp: return modexp_call(input, size, fork, output, output_size, scratch);
        case Precompile::Bn254Add: return fixed_output(bn254_add(output, input, size), 64, output_size);
        case Precompile::Bn254Mul: return fixed_output(bn254_multiply(output, input, size), 64, output_size);
        case Precompile::Bn254Pairing: return bn254_pairing_call(input, size, output, output_size, scratch);
        case Precompile::Blake2F:
            if (size != BLAKE2F_INPUT_BYTES || input[BLAKE2F_INPUT_BYTES - 1] > 1) return PrecompileStatus::Failure;
            blake2f(output, input);
            return fixed_output(true, 64, output_size);
        case Precompile::P256Verify:
            if (size != P256_INPUT_BYTES || !p256_verify(input)) return PrecompileStatus::Success;  // empty
            output_size = store_boolean(output, true);
            return PrecompileStatus::Success;
        default: break;
    }
#if !WG_ON_DEVICE
    return run_host_precompile(precompile, input, size, output, output_size, scratch);
#endif
    return PrecompileStatus::HostNeeded;
}

}  // namespace warpgrid
