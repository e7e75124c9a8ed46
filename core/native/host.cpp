// C entry points of libwarpgrid_core: the crypto that every room shares, over batches of items.
#include "core/native/crypto/hash_batches.hpp"
#include "core/native/crypto/precompiles.hpp"
#include "core/native/crypto/recovery_batch.hpp"

using namespace warpgrid;

// For tests, while nothing else runs: with 0 this library does without instructions that not every processor has.
WG_EXPORT void warpgrid_use_newer_instructions([[maybe_unused]] u32 allowed) {
#if WG_X86
    use_newer_instructions(allowed != 0);
#endif
}

// digests[n][32] = keccak256 of items[offsets[i]..offsets[i+1]).
WG_EXPORT void warpgrid_keccak256_batch(u8* digests, const u8* items, const u64* offsets, u64 count) {
    for (u64 i = 0, equal; i < count; i += equal) {
        equal = equal_messages(offsets, i, count);
        keccak256_equal(digests + 32 * i, items + offsets[i], offsets[i + 1] - offsets[i], equal);
    }
}

// digests[n][32] = SHA-256 of items[offsets[i]..offsets[i+1]).
WG_EXPORT void warpgrid_sha256_batch(u8* digests, const u8* items, const u64* offsets, u64 count) {
    for (u64 i = 0, equal; i < count; i += equal) {
        equal = equal_messages(offsets, i, count);
        const u64 size = offsets[i + 1] - offsets[i];
        sha256_rows(digests + 32 * i, 32, items + offsets[i], size, size, equal);
    }
}

// addresses[n][20] of the signers of hashes[n][32] by signatures[n][64] (r, s) and y_parities[n]; valid[n] is 0, and
// the address zero, where no key signed.
WG_EXPORT void warpgrid_recover_batch(u8* addresses, u8* valid, const u8* hashes, const u8* signatures,
                                      const u8* y_parities, u64 count) {
    for (u64 i = 0; i < count; ++i) {
        RecoverableSignature signature;
        load_big_limbs(signature.hash, hashes + 32 * i);
        load_big_limbs(signature.r, signatures + 64 * i);
        load_big_limbs(signature.s, signatures + 64 * i + 32);
        signature.y_parity = y_parities[i];
        valid[i] = y_parities[i] <= 1 && recover_address(addresses + 20 * i, signature);
        if (!valid[i]) zero_bytes(addresses + 20 * i, 20);
    }
}

// The number of the precompile at the 20-byte address, 0 for none.
WG_EXPORT u32 warpgrid_precompile_at(const u8* address, u32 fork) {
    return static_cast<u32>(precompile_at(address, static_cast<Fork>(fork)));
}

WG_EXPORT u64 warpgrid_precompile_gas(u32 precompile, const u8* input, u64 size, u32 fork) {
    return precompile_gas(static_cast<Precompile>(precompile), input, size, static_cast<Fork>(fork));
}

WG_EXPORT u64 warpgrid_precompile_output_bytes(u32 precompile, const u8* input, u64 size) {
    return precompile_output_bytes(static_cast<Precompile>(precompile), input, size);
}

WG_EXPORT u64 warpgrid_precompile_scratch_words(u32 precompile, const u8* input, u64 size) {
    return precompile_scratch_words(static_cast<Precompile>(precompile), input, size);
}

// Returns the PrecompileStatus.
WG_EXPORT u32 warpgrid_run_precompile(u32 precompile, const u8* input, u64 size, u32 fork, u8* output,
                                      u64* output_size, u64* scratch, u64 scratch_words) {
    return static_cast<u32>(run_precompile(static_cast<Precompile>(precompile), input, size, static_cast<Fork>(fork),
                                           output, *output_size, Scratch{scratch, scratch_words}));
}

// The passes that a GPU makes over a batch (recovery_batch.hpp), on the CPU with a small comb: the twin for tests.
constexpr u32 TWIN_COMB_BITS = 8;
constexpr u32 TWIN_INVERSION_BATCH = 4;

WG_EXPORT u64 warpgrid_recovery_twin_scratch_bytes(u64 count) {
    return count * (sizeof(RecoveryScalars) + sizeof(Secp256k1Point)) +
           (256 / TWIN_COMB_BITS << TWIN_COMB_BITS) * sizeof(Affine<Secp256k1Field>);
}

// addresses[n][20], status[n] (RecoveryStatus, before and after pass 4); `scratch` is 8-byte aligned.
WG_EXPORT void warpgrid_recovery_twin(u8* addresses, u8* status_before, u8* status, const u8* hashes,
                                      const u8* signatures, const u8* y_parities, u64 count, u8* scratch) {
    constexpr u64 COMB_ENTRIES = 256 / TWIN_COMB_BITS << TWIN_COMB_BITS;
    const RecoveryInput input{hashes, signatures, y_parities, count};
    Affine<Secp256k1Field>* comb = reinterpret_cast<Affine<Secp256k1Field>*>(scratch);
    Secp256k1Point* points = reinterpret_cast<Secp256k1Point*>(comb + COMB_ENTRIES);
    RecoveryScalars* records = reinterpret_cast<RecoveryScalars*>(points + count);
    for (u64 i = 0; i < COMB_ENTRIES; ++i) fill_comb_entry<TWIN_COMB_BITS>(comb, i);
    const u64 stride = (count + TWIN_INVERSION_BATCH - 1) / TWIN_INVERSION_BATCH;
    for (u64 i = 0; i < stride; ++i) recovery_scalars_pass<TWIN_INVERSION_BATCH>(records, input, i, stride);
    for (u64 i = 0; i < count; ++i) recovery_ladder_pass<TWIN_COMB_BITS>(points, records, input, comb, i);
    for (u64 i = 0; i < stride; ++i) {
        recovery_address_pass<TWIN_INVERSION_BATCH>(addresses, status, records, points, count, i, stride);
    }
    for (u64 i = 0; i < count; ++i) {
        status_before[i] = status[i];
        recovery_exceptional_pass(addresses, status, input, i);
    }
}
