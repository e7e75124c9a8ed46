// C entry point: the next token from one row of logits, on one CPU core.
#include <algorithm>

#define WG_EXACT_NAMESPACE warpgrid::exact_choose
#include "worker/inference/native/sampling.hpp"

using namespace warpgrid;
using namespace warpgrid::exact_choose;

namespace {

u32 largest_index(const i32* logits, u32 count) {
    i32 largest = logits[0];
    for (u32 i = 1; i < count; ++i) largest = std::max(largest, logits[i]);
    return static_cast<u32>(std::find(logits, logits + count, largest) - logits);
}

// Zeroes the weights outside top_k and top_p. Most answers need the head of the order alone, so it is sorted in growing
// pieces: each time the next larger piece is partitioned off, then sorted.
void truncate(u64* weights, u64* keys, const i32* logits, u32 count, const SamplingParameters& parameters) {
    for (u32 i = 0; i < count; ++i) keys[i] = order_key(logits[i], i);
    u32 kept = parameters.top_k && parameters.top_k < count ? parameters.top_k : count;
    if (kept < count) std::nth_element(keys, keys + kept, keys + count);
    if (parameters.top_p_q16 < Q16_ONE) {
        u64 total = 0;
        for (u32 i = 0; i < kept; ++i) total += weights[static_cast<u32>(keys[i])];
        const u64 target = (total >> 16) * parameters.top_p_q16;
        u64 sum = 0;
        u32 taken = 0;
        for (u32 sorted = 0, piece = 64; taken < kept; piece *= 4) {
            const u32 end = std::min(kept, sorted + piece);
            if (end < kept) std::nth_element(keys + sorted, keys + end, keys + kept);
            std::sort(keys + sorted, keys + end);
            while (taken < end && (taken == 0 || sum < target)) sum += weights[static_cast<u32>(keys[taken++])];
            if (taken < end || sum >= target) break;
            sorted = end;
        }
        kept = taken;
    }
    for (u32 i = kept; i < count; ++i) weights[static_cast<u32>(keys[i])] = 0;
}

}  // namespace

// `scratch` holds 2 * count words; `exp2` is the specification's table.
WG_EXPORT u32 warpgrid_exact_choose(const i32* logits, u32 count, const SamplingParameters* parameters, const i32* exp2,
                                    u64* scratch) {
    const u32 best = largest_index(logits, count);
    if (parameters->temperature_q16 == 0) return best;
    const i64 largest = logits[best], factor = temperature_factor(parameters->temperature_q16);
    u64* weights = scratch;
    for (u32 i = 0; i < count; ++i) weights[i] = token_weight(largest - logits[i], factor, exp2);
    if (parameters->top_k || parameters->top_p_q16 < Q16_ONE) truncate(weights, scratch + count, logits, count, *parameters);
    u64 sum = 0;
    for (u32 i = 0; i < count; ++i) sum += weights[i];
    const u64 uniform = philox_uniform(parameters->seed, parameters->position, parameters->choice);
    const u64 drawn = static_cast<u64>(static_cast<unsigned __int128>(uniform) * sum >> 64);
    u64 below = 0;
    for (u32 i = 0; i < count; ++i) {
        below += weights[i];
        if (below > drawn) return i;
    }
    return best;  // not reached: drawn < sum
}
