// C entry point: the next token from one row of logits, on one CPU core.
#include <algorithm>
#include <bit>
#include <vector>

#define WG_EXACT_NAMESPACE warpgrid::exact_choose
#include "worker/inference/native/cpu/instruction_sets.hpp"
#include "worker/inference/native/sampling.hpp"

using namespace warpgrid;
using namespace warpgrid::exact_choose;

namespace {

// What a choice works on, kept from one to the next.
struct Scratch {
    std::vector<u64> weights, keys;
};

// How many weights have so many bits, and their sum. Whatever is in an octave comes before all of those below it.
struct Octave {
    u32 count = 0;
    u64 sum = 0;
};

// The first of the order, among them all that top_k and top_p keep. Whole octaves, so that few keys need to be sorted.
void collect_likely(std::vector<u64>& keys, const u64* weights, const i32* logits, u32 count,
                    const SamplingParameters& parameters) {
    Octave octaves[65];
    u64 total = 0;
    for (u32 i = 0; i < count; ++i) {
        Octave& octave = octaves[std::bit_width(weights[i])];
        ++octave.count;
        octave.sum += weights[i];
        total += weights[i];
    }
    const u32 wanted = parameters.top_k ? std::min(parameters.top_k, count) : 1;
    const u64 target = parameters.top_k ? 0 : (total >> 16) * parameters.top_p_q16;
    i32 lowest = 64;
    Octave above = octaves[lowest];
    while (above.count < wanted || above.sum < target) {
        --lowest;
        above.count += octaves[lowest].count;
        above.sum += octaves[lowest].sum;
    }
    keys.clear();
    for (u32 i = 0; i < count; ++i)
        if (static_cast<i32>(std::bit_width(weights[i])) >= lowest) keys.push_back(order_key(logits[i], i));
}

// The last key that top_p keeps, of those that top_k left and of a total weight; sorted in growing pieces, since mostly
// the head of the order is enough.
u64 last_in_nucleus(std::vector<u64>& keys, const u64* weights, u64 target) {
    u64 sum = 0, taken = 0, sorted = 0;
    for (u64 piece = 64; taken == 0 || (taken < keys.size() && sum < target); ++taken) {
        if (taken == sorted) {
            const auto begin = keys.begin() + static_cast<i64>(sorted);
            sorted = std::min<u64>(keys.size(), sorted + piece);
            const auto end = keys.begin() + static_cast<i64>(sorted);
            if (end != keys.end()) std::nth_element(begin, end, keys.end());
            std::sort(begin, end);
            piece *= 4;
        }
        sum += weights[static_cast<u32>(keys[taken])];
    }
    return keys[taken - 1];
}

// Zeroes the weights outside top_k and top_p.
void truncate(Scratch& scratch, const i32* logits, u32 count, const SamplingParameters& parameters) {
    u64* weights = scratch.weights.data();
    std::vector<u64>& keys = scratch.keys;
    collect_likely(keys, weights, logits, count, parameters);
    u64 total = 0;
    if (parameters.top_k && parameters.top_k < keys.size()) {
        std::nth_element(keys.begin(), keys.begin() + parameters.top_k, keys.end());
        keys.resize(parameters.top_k);
    }
    if (parameters.top_k) {
        for (const u64 key : keys) total += weights[static_cast<u32>(key)];
    } else {
        for (u32 i = 0; i < count; ++i) total += weights[i];
    }
    const u64 target = (total >> 16) * parameters.top_p_q16;
    const u64 last = parameters.top_p_q16 < Q16_ONE ? last_in_nucleus(keys, weights, target)
                                                    : *std::max_element(keys.begin(), keys.end());
    for (u32 i = 0; i < count; ++i) weights[i] = order_key(logits[i], i) > last ? 0 : weights[i];
}

}  // namespace

// `exp2` is the specification's table.
WG_EXPORT u32 warpgrid_exact_choose(const i32* logits, u32 count, const SamplingParameters* parameters,
                                    const i32* exp2) {
    static const exact_isa::Isa& isa = exact_isa::fastest_isa();
    const u32 best = isa.largest_index(logits, count);
    if (parameters->temperature_q16 == 0) return best;
    static thread_local Scratch scratch;
    scratch.weights.resize(count);
    u64* weights = scratch.weights.data();
    isa.token_weights(weights, logits, count, logits[best], temperature_factor(parameters->temperature_q16), exp2);
    if (parameters->top_k || parameters->top_p_q16 < Q16_ONE) truncate(scratch, logits, count, *parameters);
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
