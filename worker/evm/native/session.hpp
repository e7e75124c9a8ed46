// What one engine on CPU cores holds: arenas for each of its threads, and one arena for results. Host code only.
#pragma once

#include <memory>
#include <vector>

#include "worker/evm/native/base.hpp"
#include "worker/evm/native/memo.hpp"

namespace warpgrid::evm {

// Answers a request by adding to the base what it names; 0 when that failed.
using Answer = u32 (*)(const Request* request);

// The host's end of Asker in serial mode: brings the answer into the base that a machine sees through `world`.
struct HostAnswers {
    Base& base;
    World& world;
    Answer answer;

    static bool ask(void* self, const Request& request) {
        HostAnswers& host = *static_cast<HostAnswers*>(self);
        if (request.kind != RequestKind::Account && request.kind != RequestKind::Slot) return false;
        if (!host.answer(&request)) return false;
        host.world = host.base.world_view(host.world.accounts_complete);
        return true;
    }
    Asker<1> asker() { return {answer ? ask : nullptr, this}; }
};

// Working memory of one thread.
struct Worker {
    Worker(const ArenaSizes& s, u32 memo_entries)
        : sizes(s), layout(lay_out(s)), lanes(lane_bytes(s)), region(region_bytes(s)), memo(memo_entries) {}
    ArenaSizes sizes;
    ArenaLayout layout;
    Reservation lanes, region;
    PrecompileMemo memo;
};

struct Session {
    Session(const ArenaSizes& sizes, u32 threads, u64 output_bytes, u32 memo_entries) : output(output_bytes) {
        for (u32 i = 0; i < threads; ++i) workers.push_back(std::make_unique<Worker>(sizes, memo_entries));
        if (output.base()) output.prefer_large_pages();
    }
    bool usable() const {
        for (const auto& worker : workers) {
            if (!worker->lanes.base() || !worker->region.base()) return false;
        }
        return output.base() != nullptr;
    }
    std::vector<std::unique_ptr<Worker>> workers;
    Reservation output;
    u64 used = 0;
};

}  // namespace warpgrid::evm
