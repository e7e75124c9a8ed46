// The precompiles that run on the CPU only, 0x0a to 0x11: dispatch and memory. A GPU parks these calls.
#pragma once

#include "core/native/crypto/kzg.hpp"
#include "core/native/crypto/precompile_types.hpp"

namespace warpgrid {

WG_FN u64 host_precompile_scratch_words(Precompile precompile, u64 size) {
    switch (precompile) {
        case Precompile::BlsG1Msm: return BLS_MSM_ITEM_WORDS<BlsG1> * (size / BLS_MSM_ITEM_BYTES<BlsG1>);
        case Precompile::BlsG2Msm: return BLS_MSM_ITEM_WORDS<BlsG2> * (size / BLS_MSM_ITEM_BYTES<BlsG2>);
        case Precompile::BlsPairing: return BLS_PAIR_WORDS * (size / BLS_PAIR_BYTES);
        default: return 0;
    }
}

template <class G>
WG_FN PrecompileStatus bls_add_call(const u8* input, u64 size, u8* output, u64& output_size) {
    const bool valid = size == 2 * BLS_POINT_BYTES<G> && bls_add<G>(output, input);
    return fixed_output(valid, BLS_POINT_BYTES<G>, output_size);
}

template <class G>
WG_FN PrecompileStatus bls_msm_call(const u8* input, u64 size, u8* output, u64& output_size, u64* words) {
    const bool whole = size != 0 && size % BLS_MSM_ITEM_BYTES<G> == 0;
    return fixed_output(whole && bls_msm<G>(output, input, size, words), BLS_POINT_BYTES<G>, output_size);
}

WG_FN PrecompileStatus bls_pairing_call(const u8* input, u64 size, u8* output, u64& output_size, u64* words) {
    bool is_one = false;
    const bool whole = size != 0 && size % BLS_PAIR_BYTES == 0;
    if (!whole || !bls_pairing(is_one, input, size, words)) return PrecompileStatus::Failure;
    output_size = store_boolean(output, is_one);
    return PrecompileStatus::Success;
}

// HostNeeded means here that the scratch is too small.
WG_NOINLINE inline PrecompileStatus run_host_precompile(Precompile precompile, const u8* input, u64 size, u8* output,
                                                        u64& output_size, const Scratch& scratch) {
    if (host_precompile_scratch_words(precompile, size) > scratch.words_max) return PrecompileStatus::HostNeeded;
    switch (precompile) {
        case Precompile::PointEvaluation:
            return fixed_output(size == POINT_EVALUATION_INPUT_BYTES && point_evaluation(output, input),
                                POINT_EVALUATION_OUTPUT_BYTES, output_size);
        case Precompile::BlsG1Add: return bls_add_call<BlsG1>(input, size, output, output_size);
        case Precompile::BlsG1Msm: return bls_msm_call<BlsG1>(input, size, output, output_size, scratch.words);
        case Precompile::BlsG2Add: return bls_add_call<BlsG2>(input, size, output, output_size);
        case Precompile::BlsG2Msm: return bls_msm_call<BlsG2>(input, size, output, output_size, scratch.words);
        case Precompile::BlsPairing: return bls_pairing_call(input, size, output, output_size, scratch.words);
        case Precompile::BlsMapG1:
            return fixed_output(size == BLS_FIELD_BYTES && bls_map_g1(output, input), BLS_POINT_BYTES<BlsG1>,
                                output_size);
        case Precompile::BlsMapG2:
            return fixed_output(size == 2 * BLS_FIELD_BYTES && bls_map_g2(output, input), BLS_POINT_BYTES<BlsG2>,
                                output_size);
        default: return PrecompileStatus::Failure;
    }
}

}  // namespace warpgrid
