// What a forward pass keeps for the trace (docs/trace.md, section 1): rows are hashed in the phases that read them, two
// by two, while the first cache holds them; the rows themselves are copied out only for who asks.
//
// The floor is SHA-256 itself: 84 kB a token of SmolLM2 take 25 microseconds of a core at 3.4 GB/s, its instructions a
// block in 68 cycles of at least 64. Tried, without gain: sixteen rows in the lanes of AVX-512 (3.45 GB/s), and both at
// once (3.1: they wait for the same units); rows hashed by who is idle at the end of a phase, from the second cache.
#pragma once

#include "worker/inference/native/cpu/crew.hpp"
#include "worker/inference/native/cpu/rows.hpp"

namespace WG_EXACT_NAMESPACE {

constexpr u32 HASHED_TOGETHER = 2;  // rows, as many as the processor's instructions for SHA-256 work on at once

// Where the canonical key-value rows of a layer are put, canonical_stride bytes from one row to the next; null where
// nothing is traced.
WG_FN u8* canonical_rows(const Model& model, u32 layer, const Batch& batch, const Workspace& work) {
    if (batch.kv_rows) return batch.kv_rows + static_cast<u64>(layer) * kv_row_bytes(model);
    return batch.roots ? work.kv_rows : nullptr;
}

WG_FN u64 canonical_stride(const Model& model, const Batch& batch) {
    return static_cast<u64>(kv_row_bytes(model)) * (batch.kv_rows ? model.layers : 1);
}

// Rows of a batch, so many bytes apart. Row 0 is at `first`.
struct ByteRows {
    u8* first;
    u64 stride;
};

// Hashing rows of a batch: their digests become leaf `leaf` of their positions. Null `work`: nothing is traced.
struct RowHashes {
    const Workspace* work;
    u64 leaves, leaf;
    ByteRows rows;
    u64 size;
    ByteRows copies;  // where the rows are wanted too, or null

    void operator()(u32 begin, u32 end) const {
        if (!work) return;
        work->hashes.rows(work->leaves + (begin * leaves + leaf) * DIGEST_BYTES, leaves * DIGEST_BYTES,
                          rows.first + begin * rows.stride, rows.stride, size, end - begin);
        if (!copies.first) return;
        for (u64 row = begin; row < end; ++row)
            __builtin_memcpy(copies.first + row * copies.stride, rows.first + row * rows.stride, size);
    }
};

constexpr RowHashes NO_HASHES = {};

inline RowHashes boundary_hashes(const Model& model, u32 boundary, const Batch& batch, const Workspace& work) {
    const u64 size = 4ull * model.width;
    i32* copies = batch.boundaries ? batch.boundaries + static_cast<u64>(boundary) * model.width : nullptr;
    return {batch.roots ? &work : nullptr,
            leaves_each(model.layers),
            1 + 2ull * boundary,
            {reinterpret_cast<u8*>(work.residual), size},
            size,
            {reinterpret_cast<u8*>(copies), (model.layers + 1) * size}};
}

inline RowHashes kv_row_hashes(const Model& model, u32 layer, const Batch& batch, const Workspace& work) {
    const ByteRows rows = {canonical_rows(model, layer, batch, work), canonical_stride(model, batch)};
    return {batch.roots ? &work : nullptr, leaves_each(model.layers), 2 + 2ull * layer, rows, kv_row_bytes(model), {}};
}

// The last boundary, the tokens, and the root of each position.
inline void trace_positions(Crew& crew, const Model& model, const Batch& batch, const Workspace& work) {
    if (!batch.roots) return;
    const u64 leaves = leaves_each(model.layers);
    share_out(crew, batch.rows, [&](u32 begin, u32 end) {
        boundary_hashes(model, model.layers, batch, work)(begin, end);
        u8* first = work.leaves + begin * leaves * DIGEST_BYTES;
        work.hashes.rows(first, leaves * DIGEST_BYTES, reinterpret_cast<const u8*>(batch.token + begin), sizeof(i32),
                         sizeof(i32), end - begin);
        work.hashes.roots(batch.roots + begin * DIGEST_BYTES, work.nodes + begin * leaves / 2 * DIGEST_BYTES, first,
                          leaves, end - begin);
    });
}

}  // namespace WG_EXACT_NAMESPACE
