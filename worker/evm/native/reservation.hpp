// Address space that is taken at once and filled as it is used. Host code only.
#pragma once

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

#include "core/native/platform.hpp"

namespace warpgrid::evm {

// Memory that is read all over: a page of two megabytes takes as much of the processor's address cache as one of four
// kilobytes. The system may say no to a hint.
constexpr u64 LARGE_PAGE_BYTES = 2ull << 20;
inline void prefer_large_pages(void* at, u64 bytes) { madvise(at, bytes, MADV_HUGEPAGE); }

// For tables that grow to megabytes.
template <class T>
struct LargePageAllocator {
    using value_type = T;
    LargePageAllocator() = default;
    template <class U>
    LargePageAllocator(const LargePageAllocator<U>&) {}

    T* allocate(u64 count) {
        if (!is_large(count)) return std::allocator<T>().allocate(count);
        const u64 bytes = count * sizeof(T);
        void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) {
            std::fputs("warpgrid: the system gives no memory for the tables of a base\n", stderr);
            std::abort();
        }
        prefer_large_pages(at, bytes);
        return static_cast<T*>(at);
    }
    void deallocate(T* at, u64 count) {
        if (!is_large(count)) return std::allocator<T>().deallocate(at, count);
        munmap(at, count * sizeof(T));
    }
    bool operator==(const LargePageAllocator&) const { return true; }

   private:
    static bool is_large(u64 count) { return count * sizeof(T) >= 2 * LARGE_PAGE_BYTES; }
};

// Address space for one purpose; the system gives it memory page by page, as it is touched.
class Reservation {
   public:
    explicit Reservation(u64 bytes) : bytes_(bytes) {
        void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        base_ = at == MAP_FAILED ? nullptr : static_cast<u8*>(at);
    }
    void prefer_large_pages() { evm::prefer_large_pages(base_, bytes_); }
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
