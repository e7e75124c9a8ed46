// What one engine on CPU cores holds: arenas for each of its threads, and one arena for results. Host code only.
#pragma once

#include <sys/mman.h>

#include <vector>

#include "worker/evm/native/arenas.hpp"

namespace warpgrid::evm {

// Address space for one purpose; the system gives it memory page by page, as it is touched.
class Reservation {
   public:
    explicit Reservation(u64 bytes) : bytes_(bytes) {
        void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        base_ = at == MAP_FAILED ? nullptr : static_cast<u8*>(at);
    }
    ~Reservation() {
        if (base_) munmap(base_, bytes_);
    }
    Reservation(const Reservation&) = delete;
    Reservation& operator=(const Reservation&) = delete;
    u8* base() const { return base_; }
    u64 bytes() const { return bytes_; }
    void forget() { madvise(base_, bytes_, MADV_DONTNEED); }

   private:
    u8* base_;
    u64 bytes_;
};

// Working memory of one thread.
struct Worker {
    explicit Worker(const ArenaSizes& s)
        : sizes(s), layout(lay_out(s)), lanes(lane_bytes(s)), region(region_bytes(s)) {}
    ArenaSizes sizes;
    ArenaLayout layout;
    Reservation lanes, region;
};

struct Session {
    Session(const ArenaSizes& sizes, u32 threads, u64 output_bytes) : output(output_bytes) {
        for (u32 i = 0; i < threads; ++i) workers.push_back(new Worker(sizes));
    }
    ~Session() {
        for (Worker* worker : workers) delete worker;
    }
    bool usable() const {
        for (const Worker* worker : workers) {
            if (!worker->lanes.base() || !worker->region.base()) return false;
        }
        return output.base() != nullptr;
    }
    std::vector<Worker*> workers;
    Reservation output;
    u64 used = 0;
};

}  // namespace warpgrid::evm
