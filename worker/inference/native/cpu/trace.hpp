// What a forward pass keeps for the trace (docs/trace.md, section 1): rows are hashed while the cache still holds them,
// each thread's own share of the batch, so that nobody waits; the rows themselves are copied out only for who asks.
#pragma once

#include "worker/inference/native/cpu/rows.hpp"

namespace WG_EXACT_NAMESPACE {

// Where the canonical key-value rows of a layer are put, canonical_stride bytes from one row to the next; null where
// nothing is traced.
WG_FN u8* canonical_rows(const Model& model, u32 layer, const Batch& batch, const Workspace& work) {
    if (batch.kv_rows) return batch.kv_rows + static_cast<u64>(layer) * kv_row_bytes(model);
    return batch.roots ? work.kv_rows : nullptr;
}

WG_FN u64 canonical_stride(const Model& model, const Batch& batch) {
    return static_cast<u64>(kv_row_bytes(model)) * (batch.kv_rows ? model.layers : 1);
}

// Digests of the share's rows become leaf `leaf` of their positions. Row 0 of the batch is at `rows`.
inline void trace_rows(const Workspace& work, u64 leaves, Share share, u64 leaf, const u8* rows, u64 stride, u64 size) {
    work.hashes.rows(work.leaves + (share.begin * leaves + leaf) * DIGEST_BYTES, leaves * DIGEST_BYTES,
                     rows + share.begin * stride, stride, size, share.end - share.begin);
}

inline void trace_boundary(const Crew& crew, const Model& model, u32 boundary, const Batch& batch, const Workspace& work) {
    if (!batch.roots) return;
    const Share share = share_of(crew, batch.rows);
    const u64 size = 4ull * model.width;
    trace_rows(work, leaves_each(model.layers), share, 1 + 2ull * boundary, reinterpret_cast<const u8*>(work.residual), size, size);
    if (!batch.boundaries) return;
    for (u32 row = share.begin; row < share.end; ++row) {
        const u64 at = (static_cast<u64>(row) * (model.layers + 1) + boundary) * model.width;
        __builtin_memcpy(batch.boundaries + at, work.residual + static_cast<u64>(row) * model.width, size);
    }
}

inline void trace_kv_rows(const Crew& crew, const Model& model, u32 layer, const Batch& batch, const Workspace& work) {
    if (!batch.roots) return;
    trace_rows(work, leaves_each(model.layers), share_of(crew, batch.rows), 2 + 2ull * layer,
               canonical_rows(model, layer, batch, work), canonical_stride(model, batch), kv_row_bytes(model));
}

// The root of each position, once all of its rows are hashed.
inline void trace_positions(const Crew& crew, const Model& model, const Batch& batch, const Workspace& work) {
    if (!batch.roots) return;
    const Share share = share_of(crew, batch.rows);
    const u64 leaves = leaves_each(model.layers), first = share.begin * leaves;
    trace_rows(work, leaves, share, 0, reinterpret_cast<const u8*>(batch.token), sizeof(i32), sizeof(i32));
    work.hashes.roots(batch.roots + share.begin * DIGEST_BYTES, work.nodes + first / 2 * DIGEST_BYTES,
                      work.leaves + first * DIGEST_BYTES, leaves, share.end - share.begin);
}

}  // namespace WG_EXACT_NAMESPACE
