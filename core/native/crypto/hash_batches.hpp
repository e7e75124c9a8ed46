// Hashes of many messages at once, as many together as the processor likes. Host code.
#pragma once

#include "core/native/crypto/sha256.hpp"

#if WG_X86
#include "core/native/crypto/keccak_x86.hpp"
#else
#include "core/native/crypto/keccak.hpp"
#endif

namespace warpgrid {

// digests[count][32] = keccak256 of `count` messages of `size` bytes, one behind the other. The digests may take the
// place of messages.
inline void keccak256_equal(u8* digests, const u8* messages, u64 size, u64 count) {
#if WG_X86
    constexpr u64 TOGETHER = KECCAK_MESSAGES_X86, SMALL_BYTES = 64;
    if (PROCESSOR.avx512) {
        for (; count >= TOGETHER; count -= TOGETHER, digests += 32 * TOGETHER, messages += size * TOGETHER)
            keccak256_eight_x86(digests, messages, size);
        if (count > 1 && size <= SMALL_BYTES) {  // eight take no longer than two alone
            u8 filled[TOGETHER * SMALL_BYTES] = {}, hashed[32 * TOGETHER];
            copy_memory(filled, messages, size * count);
            keccak256_eight_x86(hashed, filled, size);
            copy_memory(digests, hashed, 32 * count);
            return;
        }
    }
#endif
    for (u64 i = 0; i < count; ++i) keccak256(digests + 32 * i, messages + size * i, size);
}

// SHA-256 of `count` rows of `size` bytes; rows and digests are so many bytes apart.
inline void sha256_rows(u8* digests, u64 digest_stride, const u8* rows, u64 row_stride, u64 size, u64 count) {
    u64 i = 0;
    for (; i + 2 <= count; i += 2) {
        sha256_together<2>({digests + i * digest_stride, digests + (i + 1) * digest_stride},
                           {rows + i * row_stride, rows + (i + 1) * row_stride}, size);
    }
    if (i < count) sha256(digests + i * digest_stride, rows + i * row_stride, size);
}

// How many of the messages from `first` on have the size of that one. Message i is offsets[i] .. offsets[i + 1].
inline u64 equal_messages(const u64* offsets, u64 first, u64 count) {
    const u64 size = offsets[first + 1] - offsets[first];
    u64 i = first + 1;
    while (i < count && offsets[i + 1] - offsets[i] == size) ++i;
    return i - first;
}

}  // namespace warpgrid
