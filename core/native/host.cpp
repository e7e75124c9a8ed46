// C entry points of libwarpgrid_core: the crypto that every room shares, over batches of items.
#include "core/native/crypto/keccak.hpp"

using namespace warpgrid;

// digests[n][32] = keccak256 of items[offsets[i]..offsets[i+1]).
WG_EXPORT void warpgrid_keccak256_batch(u8* digests, const u8* items, const u64* offsets, u64 count) {
    for (u64 i = 0; i < count; ++i) keccak256(digests + 32 * i, items + offsets[i], offsets[i + 1] - offsets[i]);
}
