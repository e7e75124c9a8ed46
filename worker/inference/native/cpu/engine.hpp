// The forward pass of docs/exact-inference.md, section 4, on the CPU: every thread runs `forward` and meets the others
// at barriers; rows, output blocks and queries are dealt out, so the division of labour cannot change a result.
//
// Answers, one row at a time, are bound by memory: SmolLM2's 134 MB a token in 5.0 ms on two cores of Zen 4 is 27 GB/s, and
// reading alone reaches 28. Tried, without gain: threads that have no row to prepare fetching their next weights.
//
// Compiled once per instruction set (cpu/isa.inc).
#pragma once

#include "worker/inference/native/cpu/attention.hpp"

namespace WG_EXACT_NAMESPACE {

// Blocks of a matrix that a thread works on.
WG_FN Share blocks_of(const Crew& crew, const Matrix& matrix) {
    return share_of(crew, (matrix.rows + BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS);
}

// out[row][n] for every row; `activations` holds one or two limbs a row. Blocks of outputs are dealt out to the crew.
template <Target target, u32 LIMBS>
inline void linear_blocks(const Crew& crew, const Matrix& matrix, i32* out, u64 out_stride, const u8* activations,
                          const Scale* scales, u32 rows) {
    constexpr u32 ROWS = TILE_ROWS / LIMBS;
    const Share blocks = blocks_of(crew, matrix);
    alignas(64) i32 sums[TILE_ROWS * BLOCK_OUTPUTS];
    for (u32 index = blocks.begin; index < blocks.end; ++index) {
        const u32 first = index * BLOCK_OUTPUTS;
        const Block block = {matrix.weights + static_cast<u64>(first) * matrix.columns, BLOCK_OUTPUTS * STEP_INPUTS};
        const u32 count = matrix.rows - first < BLOCK_OUTPUTS ? matrix.rows - first : BLOCK_OUTPUTS;
        for (u32 row = 0; row < rows; row += ROWS) {
            const u32 here = rows - row < ROWS ? rows - row : ROWS;
            const u8* from = activations + static_cast<u64>(row) * LIMBS * matrix.columns;
            tile_of<TILE_ROWS, CHUNKS, Sums::FRESH>(here * LIMBS, sums, {from, matrix.columns, matrix.columns}, block);
            for (u32 r = 0; r < here; ++r) {
                finish_block<target, LIMBS == 2>(out + (row + r) * out_stride + first, sums + r * LIMBS * BLOCK_OUTPUTS,
                                                 matrix, first, count, scales[row + r]);
            }
        }
    }
}

template <Target target>
inline void linear(const Crew& crew, const Matrix& matrix, i32* out, u64 out_stride, const Workspace& work, u32 rows) {
    if (matrix.bits == 8) {
        linear_blocks<target, 1>(crew, matrix, out, out_stride, work.quantised, work.scale, rows);
    } else {
        linear_blocks<target, 2>(crew, matrix, out, out_stride, work.quantised, work.scale, rows);
    }
}

inline void normed_rows(const Crew& crew, const Model& model, const Matrix& matrix, const Workspace& work, u32 rows) {
    for (u32 row = 0; row < rows; ++row) {
        if (!mine(crew, row)) continue;
        u8* q = work.quantised + static_cast<u64>(row) * limbs_of(matrix) * model.width;
        work.scale[row] = normed_row(model, q, work.residual + static_cast<u64>(row) * model.width, matrix.bits);
    }
}

inline void attention(const Crew& crew, const Model& model, u32 index, const Batch& batch, Workspace& work) {
    const Layer& layer = model.layer[index];
    const u32 attended = model.heads * model.head_width;
    normed_rows(crew, model, layer.qkv, work, batch.rows);
    meet(crew);
    if (layer.qkv.bias) {
        linear<Target::BIASED>(crew, layer.qkv, work.wide, layer.qkv.rows, work, batch.rows);
    } else {
        linear<Target::VALUES>(crew, layer.qkv, work.wide, layer.qkv.rows, work, batch.rows);
    }
    meet(crew);
    for (u32 row = 0; row < batch.rows; ++row)
        if (mine(crew, row)) prepare_heads(model, layer, index, batch, work, row);
    meet(crew);
    trace_kv_rows(crew, model, index, batch, work);
    attend_all(model, batch, work, crew, index);
    meet(crew);
    for (u32 row = 0; row < batch.rows; ++row) {
        if (!mine(crew, row)) continue;
        const u64 at = static_cast<u64>(row) * attended;
        u8* q = work.quantised + limbs_of(layer.o) * at;
        work.scale[row] = plain_row(q, work.attended + at, attended, layer.o.bits, 16);
    }
    meet(crew);
    linear<Target::RESIDUAL>(crew, layer.o, work.residual, model.width, work, batch.rows);
    meet(crew);
}

inline void feed_forward(const Crew& crew, const Model& model, const Layer& layer, const Batch& batch, Workspace& work) {
    const u64 f = model.feed_forward;
    normed_rows(crew, model, layer.gate_up, work, batch.rows);
    meet(crew);
    linear<Target::VALUES>(crew, layer.gate_up, work.wide, 2 * f, work, batch.rows);
    meet(crew);
    for (u32 row = 0; row < batch.rows; ++row) {
        if (!mine(crew, row)) continue;
        i32* gate = work.wide + row * 2 * f;
        gated_row(model, gate, gate + f);
        work.scale[row] = plain_row(work.quantised + row * limbs_of(layer.down) * f, gate, model.feed_forward,
                                    layer.down.bits, model.hidden_fraction);
    }
    meet(crew);
    linear<Target::RESIDUAL>(crew, layer.down, work.residual, model.width, work, batch.rows);
    meet(crew);
}

// The rows whose logits are wanted become the first rows of the activations.
inline void head(const Crew& crew, const Model& model, const Batch& batch, Workspace& work) {
    for (u32 i = 0; i < batch.logit_count; ++i) {
        if (!mine(crew, i)) continue;
        u8* q = work.quantised + static_cast<u64>(i) * limbs_of(model.head) * model.width;
        const i32* x = work.residual + static_cast<u64>(batch.logit_rows[i]) * model.width;
        work.scale[i] = normed_row(model, q, x, model.head.bits);
    }
    meet(crew);
    linear<Target::VALUES>(crew, model.head, batch.logits, model.vocabulary, work, batch.logit_count);
    meet(crew);
}

inline void forward(const Crew& crew, const Model& model, const Batch& batch, Workspace& work) {
    for (u32 row = 0; row < batch.rows; ++row)
        if (mine(crew, row))
            embed(model, work.residual + static_cast<u64>(row) * model.width, static_cast<u64>(batch.token[row]));
    meet(crew);
    for (u32 layer = 0; layer < model.layers; ++layer) {
        trace_boundary(crew, model, layer, batch, work);
        attention(crew, model, layer, batch, work);
        feed_forward(crew, model, model.layer[layer], batch, work);
    }
    trace_boundary(crew, model, model.layers, batch, work);
    trace_positions(crew, model, batch, work);
    if (batch.logits) head(crew, model, batch, work);
}

}  // namespace WG_EXACT_NAMESPACE
