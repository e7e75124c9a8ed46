// The parts of choosing a token (docs/exact-inference.md, section 5) that look at every logit, in vectors.
#pragma once

#include "worker/inference/native/cpu/lanes.hpp"
#include "worker/inference/native/sampling.hpp"

namespace WG_EXACT_NAMESPACE {

// The lowest index among the largest.
inline u32 largest_index(const i32* logits, u32 count) {
    constexpr u32 PIECE = 256;
    u32 piece = 0;
    i32 largest = logits[0];
    for (u32 begin = 0; begin < count; begin += PIECE) {
        const u32 end = count - begin < PIECE ? count : begin + PIECE;
        i32 here = logits[begin];
        for (u32 i = begin + 1; i < end; ++i) here = logits[i] > here ? logits[i] : here;
        if (here > largest) piece = begin;
        largest = here > largest ? here : largest;
    }
    while (logits[piece] != largest) ++piece;
    return piece;
}

// weights[i] = token_weight of a logit that lies below `largest`.
inline void token_weights(u64* weights, const i32* logits, u32 count, i32 largest, i64 factor, const i32* exp2) {
    u32 i = 0;
    for (; i + LANES <= count; i += LANES) {
        const Lanes distance = static_cast<i64>(largest) - load_lanes(logits + i);
        const Lanes d = long_product(all_lanes(factor), distance) >> 22;
        const Lanes shift = smaller(d >> 16, all_lanes(63));  // past 40 nothing is left
        store_lanes(weights + i, (look_up(exp2, (d & 65535) >> 4) << 20) >> shift);
    }
    for (; i < count; ++i) weights[i] = token_weight(static_cast<i64>(largest) - logits[i], factor, exp2);
}

}  // namespace WG_EXACT_NAMESPACE
