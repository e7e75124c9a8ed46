// Address space that is taken at once and filled as it is used. Host code only.
#pragma once

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

#include "core/native/platform.hpp"

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

// Bytes that grow in place: what was handed out never moves.
class GrowingBytes {
   public:
    u8* data() { return space_.base(); }
    const u8* data() const { return space_.base(); }
    u64 size() const { return size_; }
    void resize(u64 size) {
        if (!space_.base() || size > space_.bytes()) {
            std::fputs("warpgrid: the codes of one base need more than its address space\n", stderr);
            std::abort();
        }
        size_ = size;
    }
    void clear() {
        if (size_) space_.forget();
        size_ = 0;
    }

   private:
    static constexpr u64 BYTES_MAX = 64ull << 30;
    Reservation space_{BYTES_MAX};
    u64 size_ = 0;
};

}  // namespace warpgrid::evm
