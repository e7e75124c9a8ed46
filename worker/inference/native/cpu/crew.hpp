// How threads share the work of a forward pass.
//
// Each runs the same text, a sequence of phases. A phase is over when its items are done, not when everybody has
// arrived: a thread that the system kept waiting finds over what the others did meanwhile, and helps with the next.
#pragma once

#include "worker/inference/native/fixed_point.hpp"

namespace warpgrid::exact_crew {

// What a crew shares, each in a cache line of its own: they are written and spun on by different threads.
struct Progress {
    alignas(64) u64 taken;  // the number of the phase, and in the low half how many of its items are taken
    alignas(64) u32 done;   // how many are done
    alignas(64) u32 phase;  // the number once more, for those who wait for the next
};

// One thread's part in it. Spinning, sleeping and waking are the host's.
struct Crew {
    u32 size;
    u32 index;
    Progress* progress;
    void (*await)(Progress*, u32 phase);  // returns once `phase` is over
    void (*wake)(Progress*);
    u32 phase;  // this thread's next
};

}  // namespace warpgrid::exact_crew

namespace WG_EXACT_NAMESPACE {

using exact_crew::Crew;
using exact_crew::Progress;

// One phase: work(begin, end) for ranges that make up 0 .. count, each by whichever thread is free. Ranges begin large,
// so that what one thread reads is mostly in a row, and end small, so that all threads end together.
template <class Work>
inline void share_out(Crew& crew, u32 count, Work&& work) {
    if (count == 0) return;
    if (crew.size == 1) return work(0, count);
    const u32 phase = crew.phase++;
    Progress& shared = *crew.progress;
    u64 state = __atomic_load_n(&shared.taken, __ATOMIC_ACQUIRE);
    while (state >> 32 == phase) {
        const u32 begin = static_cast<u32>(state), left = count - begin;
        if (left == 0) return crew.await(&shared, phase);
        const u32 some = left / crew.size + (left < crew.size);
        const bool taken = __atomic_compare_exchange_n(&shared.taken, &state, state + some, false, __ATOMIC_ACQ_REL,
                                                       __ATOMIC_ACQUIRE);
        if (!taken) continue;  // `state` is what another thread made it
        work(begin, begin + some);
        if (__atomic_add_fetch(&shared.done, some, __ATOMIC_ACQ_REL) == count) {
            __atomic_store_n(&shared.done, 0, __ATOMIC_RELAXED);
            __atomic_store_n(&shared.taken, (phase + 1ull) << 32, __ATOMIC_RELEASE);
            __atomic_store_n(&shared.phase, phase + 1, __ATOMIC_RELEASE);
            return crew.wake(&shared);
        }
        state = __atomic_load_n(&shared.taken, __ATOMIC_ACQUIRE);
    }
}

}  // namespace WG_EXACT_NAMESPACE
