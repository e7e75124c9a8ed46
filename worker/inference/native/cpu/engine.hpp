// The forward pass of docs/exact-inference.md, section 4, on the CPU: every thread runs `forward`, a sequence of phases
// whose rows, output blocks and queries go to whoever is free (cpu/crew.hpp); who does what cannot change a result.
//
// Answers, one row at a time, are bound by memory, so phases that read no weights are few and short: each thread
// quantises a single row for itself, and gates meet their ups where both are computed. Tried, without gain: fetching
// the next weights ahead, by threads that wait, between the pages of attention, or before a block's sums are finished.
//
// Compiled once per instruction set (cpu/isa.inc).
#pragma once

#include "worker/inference/native/cpu/attention.hpp"

namespace WG_EXACT_NAMESPACE {

constexpr u32 ROWS_TOGETHER = 48;  // of one block of outputs, as one item of a phase

// What a linear layer reads: quantised rows, one or two limbs each, and their scales.
struct Inputs {
    u8* values;
    Scale* scales;
};

struct RowRange {
    u32 begin, end;
};

template <u32 LIMBS>
WG_FN void multiply(i32* sums, const Matrix& matrix, u32 block, const Inputs& inputs, u32 row, u32 count) {
    const u8* from = inputs.values + static_cast<u64>(row) * LIMBS * matrix.columns;
    const i8* weights = matrix.weights + static_cast<u64>(block) * BLOCK_OUTPUTS * matrix.columns;
    tile_of<TILE_ROWS, CHUNKS, Sums::FRESH>(count * LIMBS, sums, {from, matrix.columns, matrix.columns},
                                            {weights, BLOCK_OUTPUTS * STEP_INPUTS});
}

// out[row][n] for the 64 outputs n of one block.
template <Target target, u32 LIMBS>
inline void linear_block(i32* out, const Matrix& matrix, u32 block, const Inputs& inputs, RowRange rows) {
    constexpr u32 ROWS = TILE_ROWS / LIMBS;
    const u32 first = block * BLOCK_OUTPUTS;
    const u32 count = matrix.rows - first < BLOCK_OUTPUTS ? matrix.rows - first : BLOCK_OUTPUTS;
    alignas(64) i32 sums[TILE_ROWS * BLOCK_OUTPUTS];
    for (u32 row = rows.begin; row < rows.end; row += ROWS) {
        const u32 here = rows.end - row < ROWS ? rows.end - row : ROWS;
        multiply<LIMBS>(sums, matrix, block, inputs, row, here);
        for (u32 r = 0; r < here; ++r) {
            i32* to = out + static_cast<u64>(row + r) * matrix.rows + first;
            finish_block<target, LIMBS == 2>(to, sums + r * LIMBS * BLOCK_OUTPUTS, matrix, first, count,
                                             inputs.scales[row + r]);
        }
    }
}

// out[row][n] of the gated unit, for 64 of its outputs: a block of gates and the block of their ups.
template <u32 LIMBS>
inline void gated_block(i32* out, const Model& model, const Matrix& matrix, u32 pair, const Inputs& inputs,
                        RowRange rows) {
    constexpr u32 ROWS = TILE_ROWS / LIMBS;
    const u32 first = pair * BLOCK_OUTPUTS, f = model.feed_forward;
    const u32 count = f - first < BLOCK_OUTPUTS ? f - first : BLOCK_OUTPUTS;
    alignas(64) i32 sums[2][TILE_ROWS * BLOCK_OUTPUTS], values[2][BLOCK_OUTPUTS];
    for (u32 row = rows.begin; row < rows.end; row += ROWS) {
        const u32 here = rows.end - row < ROWS ? rows.end - row : ROWS;
        for (u32 half = 0; half < 2; ++half) multiply<LIMBS>(sums[half], matrix, 2 * pair + half, inputs, row, here);
        for (u32 r = 0; r < here; ++r) {
            for (u32 half = 0; half < 2; ++half) {
                const i32* high = sums[half] + r * LIMBS * BLOCK_OUTPUTS;
                finish<Target::VALUES, LIMBS == 2>(values[half], high, high + BLOCK_OUTPUTS, matrix,
                                                   2 * first + half * BLOCK_OUTPUTS, count, inputs.scales[row + r]);
            }
            gated_values(model, out + static_cast<u64>(row + r) * f + first, values[0], values[1], count);
        }
    }
}

template <Target target, u32 LIMBS>
WG_FN void any_block(i32* out, const Model& model, const Matrix& matrix, u32 block, const Inputs& inputs,
                     RowRange rows) {
    if constexpr (target == Target::GATED) {
        gated_block<LIMBS>(out, model, matrix, block, inputs, rows);
    } else {
        linear_block<target, LIMBS>(out, matrix, block, inputs, rows);
    }
}

// A linear layer over all rows of a batch. prepare(row, q) quantises a row's inputs to q and returns their scale.
template <Target target, class Prepare, class Item>
inline void linear(Crew& crew, const Model& model, const Matrix& matrix, i32* out, const Workspace& work, u32 rows,
                   Prepare&& prepare, const Aside<Item>& aside) {
    const bool own = crew.size > 1 && rows <= OWN_ROWS_MAX;
    Scale own_scales[OWN_ROWS_MAX];
    const Inputs inputs = own ? Inputs{work.own_quantised + crew.index * work.own_bytes, own_scales}
                              : Inputs{work.quantised, work.scale};
    const u64 row_bytes = static_cast<u64>(limbs_of(matrix)) * matrix.columns;
    const auto prepare_rows = [&](u32 begin, u32 end) {
        for (u32 row = begin; row < end; ++row) inputs.scales[row] = prepare(row, inputs.values + row * row_bytes);
    };
    if (!own) share_out(crew, rows, prepare_rows);
    bool prepared = !own;
    const u32 outputs = target == Target::GATED ? model.feed_forward : matrix.rows;
    const u32 parts = (rows + ROWS_TOGETHER - 1) / ROWS_TOGETHER;
    const u32 items = (outputs + BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS * parts;
    share_out(crew, items + aside.count, [&](u32 begin, u32 end) {
        if (!prepared && begin < items) prepare_rows(0, rows);
        prepared = true;
        for (u32 item = begin; item < end; ++item) {
            if (item >= items) {
                aside.item(item - items);
                continue;
            }
            const u32 first = item % parts * ROWS_TOGETHER;
            const RowRange range = {first, rows - first < ROWS_TOGETHER ? rows : first + ROWS_TOGETHER};
            if (matrix.bits == 8) {
                any_block<target, 1>(out, model, matrix, item / parts, inputs, range);
            } else {
                any_block<target, 2>(out, model, matrix, item / parts, inputs, range);
            }
        }
    });
}

inline void attention(Crew& crew, const Model& model, u32 index, const Batch& batch, Workspace& work) {
    const Layer& layer = model.layer[index];
    const u32 attended = model.heads * model.head_width;
    const auto boundary = boundary_aside(crew, model, index, batch, work);
    const auto normed = [&](u32 row, u8* q) {
        return normed_row(model, q, work.residual + static_cast<u64>(row) * model.width, layer.qkv.bits);
    };
    if (layer.qkv.bias) {
        linear<Target::BIASED>(crew, model, layer.qkv, work.wide, work, batch.rows, normed, boundary);
    } else {
        linear<Target::VALUES>(crew, model, layer.qkv, work.wide, work, batch.rows, normed, boundary);
    }
    share_out(crew, batch.rows * model.kv_heads, [&](u32 begin, u32 end) {
        for (u32 item = begin; item < end; ++item)
            prepare_head(model, layer, index, batch, work, item / model.kv_heads, item % model.kv_heads);
    });
    attend_all(crew, model, batch, work, index);
    const auto plain = [&](u32 row, u8* q) {
        return plain_row(q, work.attended + static_cast<u64>(row) * attended, attended, layer.o.bits, 16);
    };
    linear<Target::RESIDUAL>(crew, model, layer.o, work.residual, work, batch.rows, plain,
                             kv_rows_aside(crew, model, index, batch, work));
}

inline void feed_forward(Crew& crew, const Model& model, const Layer& layer, const Batch& batch,
                         const Workspace& work) {
    const u64 f = model.feed_forward;
    const auto normed = [&](u32 row, u8* q) {
        return normed_row(model, q, work.residual + static_cast<u64>(row) * model.width, layer.gate_up.bits);
    };
    linear<Target::GATED>(crew, model, layer.gate_up, work.wide, work, batch.rows, normed, NOTHING_ASIDE);
    const auto plain = [&](u32 row, u8* q) {
        return plain_row(q, work.wide + row * f, model.feed_forward, layer.down.bits, model.hidden_fraction);
    };
    linear<Target::RESIDUAL>(crew, model, layer.down, work.residual, work, batch.rows, plain, NOTHING_ASIDE);
}

// Logits of the rows that are wanted.
inline void head(Crew& crew, const Model& model, const Batch& batch, const Workspace& work) {
    const auto normed = [&](u32 i, u8* q) {
        const i32* x = work.residual + static_cast<u64>(batch.logit_rows[i]) * model.width;
        return normed_row(model, q, x, model.head.bits);
    };
    linear<Target::VALUES>(crew, model, model.head, batch.logits, work, batch.logit_count, normed, NOTHING_ASIDE);
}

inline void forward(Crew& crew, const Model& model, const Batch& batch, Workspace& work) {
    share_out(crew, batch.rows, [&](u32 begin, u32 end) {
        for (u32 row = begin; row < end; ++row)
            embed(model, work.residual + static_cast<u64>(row) * model.width, static_cast<u64>(batch.token[row]));
    });
    for (u32 layer = 0; layer < model.layers; ++layer) {
        attention(crew, model, layer, batch, work);
        feed_forward(crew, model, model.layer[layer], batch, work);
    }
    trace_positions(crew, model, batch, work);
    if (batch.logits) head(crew, model, batch, work);
}

}  // namespace WG_EXACT_NAMESPACE
