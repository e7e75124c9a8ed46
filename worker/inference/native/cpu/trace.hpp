// What a forward pass keeps for the trace (docs/trace.md, section 1): rows are hashed while the cache still holds them,
// last in a phase that leaves them as they are, when a thread may have nothing else to do; the rows themselves are
// copied out only for who asks.
//
// The floor is SHA-256 itself: 84 kB a token of SmolLM2 take 25 microseconds of a core at 3.4 GB/s, its instructions a
// block in 68 cycles of at least 64. Tried, without gain: sixteen rows in the lanes of AVX-512 (3.45 GB/s), and both at
// once (3.1: they wait for the same units).
#pragma once

#include "worker/inference/native/cpu/crew.hpp"
#include "worker/inference/native/cpu/rows.hpp"

namespace WG_EXACT_NAMESPACE {

constexpr u32 HASHED_TOGETHER_MAX = 32;  // rows

// Where the canonical key-value rows of a layer are put, canonical_stride bytes from one row to the next; null where
// nothing is traced.
WG_FN u8* canonical_rows(const Model& model, u32 layer, const Batch& batch, const Workspace& work) {
    if (batch.kv_rows) return batch.kv_rows + static_cast<u64>(layer) * kv_row_bytes(model);
    return batch.roots ? work.kv_rows : nullptr;
}

WG_FN u64 canonical_stride(const Model& model, const Batch& batch) {
    return static_cast<u64>(kv_row_bytes(model)) * (batch.kv_rows ? model.layers : 1);
}

// Work that a phase has beside its own: aside.item(i) for i below `count`, last of all.
template <class Item>
struct Aside {
    u32 count;
    Item item;
};

inline constexpr auto NOTHING_ITEM = [](u32) {};
inline constexpr Aside<decltype(NOTHING_ITEM)> NOTHING_ASIDE = {0, NOTHING_ITEM};

// Rows of a batch, so many bytes apart. Row 0 is at `first`.
struct ByteRows {
    u8* first;
    u64 stride;
};

// Hashing all rows of a batch, some at a time: their digests become leaf `leaf` of their positions.
struct RowHashes {
    const Workspace* work;
    u64 leaves, leaf;
    ByteRows rows;
    u64 size;
    ByteRows copies;  // where the rows are wanted too, or null
    u32 row_count, together;

    WG_FN u32 begin_of(u32 item) const { return item * together; }
    WG_FN u32 count_of(u32 item) const {
        const u32 rest = row_count - begin_of(item);
        return rest < together ? rest : together;
    }

    void operator()(u32 item) const {
        const u64 begin = begin_of(item), count = count_of(item);
        work->hashes.rows(work->leaves + (begin * leaves + leaf) * DIGEST_BYTES, leaves * DIGEST_BYTES,
                          rows.first + begin * rows.stride, rows.stride, size, count);
        if (!copies.first) return;
        for (u64 row = begin; row < begin + count; ++row)
            __builtin_memcpy(copies.first + row * copies.stride, rows.first + row * rows.stride, size);
    }
};

inline Aside<RowHashes> hash_aside(const Crew& crew, const Model& model, const Batch& batch, const Workspace& work,
                                   u64 leaf, ByteRows rows, u64 size, ByteRows copies) {
    const u32 fair = (batch.rows / (2 * crew.size) + 1) / 2 * 2;
    const u32 together = fair < 2 ? 2 : fair > HASHED_TOGETHER_MAX ? HASHED_TOGETHER_MAX : fair;
    const u32 count = batch.roots ? (batch.rows + together - 1) / together : 0;
    return {count, {&work, leaves_each(model.layers), leaf, rows, size, copies, batch.rows, together}};
}

inline Aside<RowHashes> boundary_aside(const Crew& crew, const Model& model, u32 boundary, const Batch& batch,
                                       const Workspace& work) {
    const u64 size = 4ull * model.width;
    i32* copies = batch.boundaries ? batch.boundaries + static_cast<u64>(boundary) * model.width : nullptr;
    return hash_aside(crew, model, batch, work, 1 + 2ull * boundary, {reinterpret_cast<u8*>(work.residual), size}, size,
                      {reinterpret_cast<u8*>(copies), (model.layers + 1) * size});
}

inline Aside<RowHashes> kv_rows_aside(const Crew& crew, const Model& model, u32 layer, const Batch& batch,
                                      const Workspace& work) {
    const ByteRows rows = {canonical_rows(model, layer, batch, work), canonical_stride(model, batch)};
    return hash_aside(crew, model, batch, work, 2 + 2ull * layer, rows, kv_row_bytes(model), {nullptr, 0});
}

// The last boundary, the tokens, and the root of each position.
inline void trace_positions(Crew& crew, const Model& model, const Batch& batch, const Workspace& work) {
    if (!batch.roots) return;
    const auto last = boundary_aside(crew, model, model.layers, batch, work);
    const u64 leaves = leaves_each(model.layers);
    share_out(crew, last.count, [&](u32 begin, u32 end) {
        for (u32 item = begin; item < end; ++item) {
            last.item(item);
            const u64 row = last.item.begin_of(item), count = last.item.count_of(item);
            work.hashes.rows(work.leaves + row * leaves * DIGEST_BYTES, leaves * DIGEST_BYTES,
                             reinterpret_cast<const u8*>(batch.token + row), sizeof(i32), sizeof(i32), count);
            work.hashes.roots(batch.roots + row * DIGEST_BYTES, work.nodes + row * leaves / 2 * DIGEST_BYTES,
                              work.leaves + row * leaves * DIGEST_BYTES, leaves, count);
        }
    });
}

}  // namespace WG_EXACT_NAMESPACE
