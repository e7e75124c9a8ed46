// A transaction's private working memory, seen as one run of bytes.
//
// On a CPU it is just that (LANES = 1). On a GPU the 32 lanes of a warp share one region, interleaved in chunks of 16
// bytes: chunk c of lane l lies at chunk 32 c + l, so that lanes doing the same thing touch neighbouring bytes and one
// 16-byte access of the whole warp is coalesced. Values of up to 16 bytes must not straddle a chunk.
#pragma once

#include "core/native/u256.hpp"

namespace warpgrid::evm {

constexpr u64 CHUNK_BYTES = 16;

struct alignas(16) Chunk {
    u64 low, high;
};

// A load that the compiler leaves where it stands among others of its kind: it would else put each just before its use.
WG_FN Chunk load_in_order(const u8* from) {
#if WG_ON_DEVICE
    Chunk value;
    asm volatile("ld.global.v2.u64 {%0, %1}, [%2];" : "=l"(value.low), "=l"(value.high) : "l"(from));
    return value;
#else
    return load_as<Chunk>(from);
#endif
}

// Stores what this device does not read again: it need not stay in the caches.
WG_FN void store_once(u8* to, Chunk value) {
#if WG_ON_DEVICE
    __stcs(reinterpret_cast<ulonglong2*>(to), ulonglong2{value.low, value.high});
#else
    store_as(to, value);
#endif
}

// Writes a structure of 16-byte chunks to contiguous memory, a chunk at a time.
template <class T>
WG_FN void store_chunks(u8* to, const T& value) {
    static_assert(sizeof(T) % CHUNK_BYTES == 0 && alignof(T) == CHUNK_BYTES);
    WG_UNROLL
    for (u64 i = 0; i < sizeof(T); i += CHUNK_BYTES) {
        store_once(to + i, load_as<Chunk>(reinterpret_cast<const u8*>(&value) + i));
    }
}

template <u32 LANES>
struct LaneMemory {
    u8* base;  // of this lane's first chunk

    WG_FN u8* at(u64 offset) const {
        if constexpr (LANES == 1) {
            return base + offset;
        } else {  // a lane's memory is far below 128 MiB: 32-bit arithmetic does
            const u32 within = static_cast<u32>(offset) % CHUNK_BYTES, chunks = static_cast<u32>(offset) - within;
            u8* place = base + (chunks * LANES + within);
            assume_device_memory(place);
            return place;
        }
    }

    template <class T>
    WG_FN T load(u64 offset) const {
        static_assert(sizeof(T) <= CHUNK_BYTES);
        return load_as<T>(at(offset));
    }
    template <class T>
    WG_FN void store(u64 offset, T value) const {
        static_assert(sizeof(T) <= CHUNK_BYTES);
        store_as<T>(at(offset), value);
    }

    // `offset` is a multiple of 16.
    WG_FN u256 load_word(u64 offset) const {
        const Chunk a = load<Chunk>(offset), b = load<Chunk>(offset + CHUNK_BYTES);
        return {{a.low, a.high, b.low, b.high}};
    }
    WG_FN void store_word(u64 offset, const u256& value) const {
        store<Chunk>(offset, {value.w[0], value.w[1]});
        store<Chunk>(offset + CHUNK_BYTES, {value.w[2], value.w[3]});
    }

    // The word at offset 0, wherever `base` points: also into shared memory.
    WG_FN u256 load_word_anywhere() const {
        const Chunk a = load_as<Chunk>(base), b = load_as<Chunk>(base + CHUNK_BYTES * LANES);
        return {{a.low, a.high, b.low, b.high}};
    }
    WG_FN void store_word_anywhere(const u256& value) const {
        store_as<Chunk>(base, {value.w[0], value.w[1]});
        store_as<Chunk>(base + CHUNK_BYTES * LANES, {value.w[2], value.w[3]});
    }

    // A structure of 16-byte chunks; `offset` is a multiple of 16.
    template <class T>
    WG_FN T load_struct(u64 offset) const {
        static_assert(sizeof(T) % CHUNK_BYTES == 0 && alignof(T) == CHUNK_BYTES);
        T value;
        WG_UNROLL
        for (u64 i = 0; i < sizeof(T) / CHUNK_BYTES; ++i) {
            store_as<Chunk>(reinterpret_cast<u8*>(&value) + i * CHUNK_BYTES, load<Chunk>(offset + i * CHUNK_BYTES));
        }
        return value;
    }
    template <class T>
    WG_FN void store_struct(u64 offset, const T& value) const {
        static_assert(sizeof(T) % CHUNK_BYTES == 0 && alignof(T) == CHUNK_BYTES);
        WG_UNROLL
        for (u64 i = 0; i < sizeof(T) / CHUNK_BYTES; ++i) {
            store<Chunk>(offset + i * CHUNK_BYTES,
                         load_as<Chunk>(reinterpret_cast<const u8*>(&value) + i * CHUNK_BYTES));
        }
    }

    // Copies and fills. On a GPU they move chunks, or 8-byte words put together from unaligned ones, and single bytes
    // only at the ends.
    WG_FN void copy_in(u64 to, const u8* from, u64 size) const {
        if constexpr (LANES == 1) {
            copy_memory(base + to, from, size);
        } else {
            u64 i = 0;
            for (; i < size && (to + i) % 8; ++i) *at(to + i) = from[i];
            for (; i + 8 <= size; i += 8) store<u64>(to + i, load_unaligned64(from + i));
            for (; i < size; ++i) *at(to + i) = from[i];
        }
    }
    // `count` chunks, between multiples of 16. Several loads are under way before the first store waits for its own.
    WG_NOINLINE void copy_chunks_out(u8* to, u64 from, u32 count) const {
        for (; count >= 8; count -= 8) copy_at_once<8>(to, from);
        for (; count >= 2; count -= 2) copy_at_once<2>(to, from);
        if (count) copy_at_once<1>(to, from);
    }
    WG_FN void copy_out(u8* to, u64 from, u64 size) const {
        if constexpr (LANES == 1) {
            copy_memory(to, base + from, size);
        } else {
            u64 i = 0;
            if ((reinterpret_cast<u64>(to) | from) % CHUNK_BYTES == 0) {
                i = size & ~(CHUNK_BYTES - 1);
                copy_chunks_out(to, from, static_cast<u32>(i / CHUNK_BYTES));
            }
            for (; i < size && reinterpret_cast<u64>(to + i) % 8; ++i) to[i] = *at(from + i);
            for (; i + 8 <= size; i += 8) store_as<u64>(to + i, load_little_endian(from + i));
            for (; i < size; ++i) to[i] = *at(from + i);
        }
    }
    WG_FN void zero(u64 offset, u64 size) const {
        if constexpr (LANES == 1) {
            clear_memory(base + offset, size);
        } else {
            u64 i = 0;
            for (; i < size && (offset + i) % CHUNK_BYTES; ++i) *at(offset + i) = 0;
            for (; i + CHUNK_BYTES <= size; i += CHUNK_BYTES) store<Chunk>(offset + i, {0, 0});
            for (; i < size; ++i) *at(offset + i) = 0;
        }
    }
    // Overlapping ranges are allowed.
    WG_FN void move(u64 to, u64 from, u64 size) const {
        if constexpr (LANES == 1) {
            move_memory(base + to, base + from, size);
        } else if (to <= from ? from - to >= CHUNK_BYTES || from == to : to - from >= size) {
            move_forward(to, from, size);
        } else if (to < from) {
            for (u64 i = 0; i < size; ++i) *at(to + i) = *at(from + i);
        } else {
            for (u64 i = size; i-- > 0;) *at(to + i) = *at(from + i);
        }
    }
    // In ascending order, up to 16 bytes at a time: right where the destination lies far enough below, or apart.
    WG_FN void move_forward(u64 to, u64 from, u64 size) const {
        u64 i = 0;
        if ((to | from) % CHUNK_BYTES == 0) {
            for (; i + CHUNK_BYTES <= size; i += CHUNK_BYTES) store<Chunk>(to + i, load<Chunk>(from + i));
        }
        for (; i < size && (to + i) % 8; ++i) *at(to + i) = *at(from + i);
        for (; i + 8 <= size; i += 8) store<u64>(to + i, load_little_endian(from + i));
        for (; i < size; ++i) *at(to + i) = *at(from + i);
    }

    // 32 big-endian bytes at any offset.
    WG_FN u256 load_big_endian(u64 offset) const {
        if constexpr (LANES == 1) {
            u64 words[4];
            copy_memory(reinterpret_cast<u8*>(words), base + offset, 32);
            return from_big_endian_words(words[0], words[1], words[2], words[3]);
        } else if (offset % CHUNK_BYTES == 0) {
            const Chunk a = load<Chunk>(offset), b = load<Chunk>(offset + CHUNK_BYTES);
            return from_big_endian_words(a.low, a.high, b.low, b.high);
        } else {
            return load_unaligned(offset);
        }
    }
    WG_FN void store_big_endian(u64 offset, const u256& value) const {
        const u64 words[4] = {swap_bytes(value.w[3]), swap_bytes(value.w[2]), swap_bytes(value.w[1]),
                              swap_bytes(value.w[0])};
        if constexpr (LANES == 1) {
            copy_memory(base + offset, reinterpret_cast<const u8*>(words), 32);
        } else if (offset % CHUNK_BYTES == 0) {
            store<Chunk>(offset, {words[0], words[1]});
            store<Chunk>(offset + CHUNK_BYTES, {words[2], words[3]});
        } else {
            store_unaligned(offset, words);
        }
    }

    // The 8 bytes at any offset, as a little-endian word (what keccak absorbs).
    WG_FN u64 load_little_endian(u64 offset) const {
        if constexpr (LANES == 1) {
            u64 word;
            copy_memory(reinterpret_cast<u8*>(&word), base + offset, 8);
            return word;
        } else {
            const u64 first = load<u64>(offset & ~7ull);
            const u32 shift = 8 * (offset & 7);
            if (shift == 0) return first;
            return first >> shift | load<u64>((offset & ~7ull) + 8) << (64 - shift);
        }
    }

   private:
    template <u32 COUNT>
    WG_FN void copy_at_once(u8*& to, u64& from) const {
        Chunk chunks[COUNT];
        WG_UNROLL
        for (u32 k = 0; k < COUNT; ++k) chunks[k] = load_in_order(at(from + k * CHUNK_BYTES));
        WG_UNROLL
        for (u32 k = 0; k < COUNT; ++k) store_once(to + k * CHUNK_BYTES, chunks[k]);
        to += COUNT * CHUNK_BYTES;
        from += COUNT * CHUNK_BYTES;
    }
    WG_FN u256 load_unaligned(u64 offset) const {
        return from_big_endian_words(load_little_endian(offset), load_little_endian(offset + 8),
                                     load_little_endian(offset + 16), load_little_endian(offset + 24));
    }
    WG_FN void store_unaligned(u64 offset, const u64 (&words)[4]) const {
        const u32 shift = 8 * (offset & 7);
        const u64 start = offset & ~7ull;
        if (shift == 0) {
            for (u32 i = 0; i < 4; ++i) store<u64>(start + 8 * i, words[i]);
            return;
        }
        u64 carry = load<u64>(start) & ((1ull << shift) - 1);
        for (u32 i = 0; i < 4; ++i) {
            store<u64>(start + 8 * i, carry | words[i] << shift);
            carry = words[i] >> (64 - shift);
        }
        const u64 last = load<u64>(start + 32);
        store<u64>(start + 32, carry | (last & ~((1ull << shift) - 1)));
    }
};

}  // namespace warpgrid::evm
