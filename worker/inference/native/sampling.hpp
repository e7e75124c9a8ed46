// The choice of a token, docs/exact-inference.md section 5: cores for the CPU and the GPU, and the CPU's whole choice.
#pragma once

#include "worker/inference/native/fixed_point.hpp"

namespace WG_EXACT_NAMESPACE {

constexpr i64 LOG2_E_Q22 = 6'051'102;
constexpr u32 Q16_ONE = 1u << 16;

struct SamplingParameters {
    u64 seed;
    u32 temperature_q16;  // 0: greedy
    u32 top_k;            // 0: off
    u32 top_p_q16;        // 65536: off
    u32 choice;
    u32 position;
    u32 unused;
};

// Philox4x32-10 (Salmon et al. 2011); words 0 and 1 of its output, as the u64 that decides a token.
WG_FN u64 philox_uniform(u64 seed, u32 position, u32 choice) {
    u32 c0 = position, c1 = choice, c2 = 0, c3 = 0;
    u32 k0 = static_cast<u32>(seed), k1 = static_cast<u32>(seed >> 32);
    for (u32 round = 0; round < 10; ++round) {
        const u64 p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
        c0 = static_cast<u32>(p1 >> 32) ^ c1 ^ k0;
        c1 = static_cast<u32>(p1);
        c2 = static_cast<u32>(p0 >> 32) ^ c3 ^ k1;
        c3 = static_cast<u32>(p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c0 | static_cast<u64>(c1) << 32;
}

WG_FN i64 temperature_factor(u32 temperature_q16) { return (LOG2_E_Q22 << 16) / temperature_q16; }

// p_i (Q40) of a logit that lies `distance` (>= 0, Q16) below the largest.
WG_FN u64 token_weight(i64 distance, i64 factor, const i32* exp2) {
    const u64 d = static_cast<u64>((distance * factor) >> 22);
    return d >> 16 > 40 ? 0 : (static_cast<u64>(exp2[(d & 65535) >> 4]) << 20) >> (d >> 16);
}

// Ascending where the specification's order (larger logit first, then lower index) descends.
WG_FN u64 order_key(i32 logit, u32 index) {
    return static_cast<u64>(~(static_cast<u32>(logit) ^ 0x80000000u)) << 32 | index;
}

}  // namespace WG_EXACT_NAMESPACE
