// The forward pass of docs/exact-inference.md, section 4, on the CPU: every thread runs `forward` and meets the others at
// barriers; rows, output blocks and heads are dealt out, so the division of labour cannot change a result.
//
// Compiled once per instruction set (cpu/isa.cpp). Owns no memory: model, cache and workspace come from the host.
#pragma once

#include "worker/inference/native/cpu/matmul.hpp"

namespace WG_EXACT_NAMESPACE {

constexpr u32 PAGE_POSITIONS = 64;
constexpr u32 KEY_GROUP = 16;                 // positions whose keys are interleaved for one vector
static_assert(32767ll * 127 * PAGE_POSITIONS < (1ll << 31), "a page's weighted values add up in int32");
constexpr u32 HEAD_WIDTH_MAX = 256;

// A weight matrix, packed (cpu/matmul.hpp). `row_shift[n]` is -(8 + e_n + n') with n' the output's fraction.
struct Matrix {
    const i8* weights;
    const i32* corrections;
    const i32* mantissa;
    const i32* row_shift;
    const i32* bias;  // Q12, or null
    u32 rows;
    u32 columns;
    u32 bits;  // of the activations: 8 or 16
};

struct Layer {
    Matrix qkv, o, gate_up, down;
    const i32* query_norm;  // Q16, or null
    const i32* key_norm;
};

struct Model {
    u32 layers, width, heads, kv_heads, head_width, feed_forward, vocabulary, context_max;
    i32 residual_fraction, hidden_fraction;
    u64 epsilon_q48;
    i32 attention_mantissa, attention_exponent;
    u32 head_hadamard;
    const Layer* layer;
    Matrix head;
    const i8* embedding;
    const u16* embedding_mantissa;
    const i8* embedding_exponent;
    const i16* cosines;  // [context_max][head_width / 2], Q14
    const i16* sines;
    const i32* exp2;
    const i32* sigmoid;
};

// Rows of any number of sequences. Row i is token[i] at position[i] of the sequence whose pages are
// page_table[sequence[i] * pages_per_sequence ...]. Rows of one sequence that attend to each other may share a batch.
struct Batch {
    u32 rows;
    u32 pages_per_sequence;
    const i32* token;
    const i32* position;
    const i32* sequence;
    const i32* page_table;
    const i32* logit_rows;  // rows whose logits are wanted
    u32 logit_count;
    i32* logits;       // [logit_count][vocabulary], or null
    i32* boundaries;   // [rows][layers + 1][width]: the residual at every boundary, or null
    u8* kv_rows;       // [rows][layers][kv_heads * (2 * head_width + 8)], canonical bytes, or null
};

// One key-value page of one head: PAGE_POSITIONS positions, laid out for vectors.
//   keys [64 / 16][h / 4][16][4] u8 (k + 128) · values [64 / 2][h][2] i8 · i32 [64] each: key mantissa, key exponent,
//   value maximum
struct PageView {
    u8* keys;
    i8* values;
    i32* key_mantissa;
    i32* key_exponent;
    i32* value_max;
};

WG_FN u64 page_head_bytes(u32 head_width) { return PAGE_POSITIONS * (2ull * head_width + 12); }

WG_FN PageView page_view(u8* cache, const Model& model, u64 page, u32 layer, u32 head) {
    const u64 index = (page * model.layers + layer) * model.kv_heads + head;
    u8* base = cache + index * page_head_bytes(model.head_width);
    const u64 tensor = static_cast<u64>(PAGE_POSITIONS) * model.head_width;
    i32* scales = reinterpret_cast<i32*>(base + 2 * tensor);
    return {base, reinterpret_cast<i8*>(base + tensor), scales, scales + PAGE_POSITIONS, scales + 2 * PAGE_POSITIONS};
}

// Buffers shared by all threads, sized by the host for `rows_max` rows.
struct Workspace {
    i32* residual;     // [rows][width]
    i32* wide;         // [rows][max of qkv, 2 * feed forward]: outputs of qkv and gate_up
    i32* attended;     // [rows][heads * head_width]
    u8* quantised;     // [rows][2][max columns]: activations + 128; the second half of a row is the low limb
    Scale* scale;      // [rows]
    i8* queries;       // [rows][heads * head_width]
    i32* query_max;    // [rows][heads]
    i32* scores;       // [threads][context_max]
    u8* cache;
};

// Where all threads wait for each other. A hook of the host, so that it may spin or sleep.
struct Barrier {
    void (*wait)(void* state);
    void* state;
};

struct Crew {
    u32 index, size;
    Barrier barrier;
};

WG_FN void meet(const Crew& crew) {
    if (crew.size > 1) crew.barrier.wait(crew.barrier.state);
}

inline i32 largest_magnitude(const i32* z, u32 n) {
    i32 a = 1;
    for (u32 i = 0; i < n; ++i) {
        const i32 magnitude = z[i] < 0 ? -z[i] : z[i];
        a = magnitude > a ? magnitude : a;
    }
    return a;
}

// Quantise one row of n values as the matmul wants it. `columns` is the distance to the low limb.
inline void quantise_row(u8* out, const i32* z, u32 n, u32 columns, u32 bits, i32 a) {
    const i64 reciprocal = quantise_reciprocal(bits, a);
    if (bits == 8) {
        for (u32 i = 0; i < n; ++i) out[i] = static_cast<u8>(quantise_value(z[i], reciprocal) + 128);
        return;
    }
    for (u32 i = 0; i < n; ++i) {
        const i32 q = quantise_value(z[i], reciprocal);
        out[i] = static_cast<u8>(high_limb(q) + 128);
        out[columns + i] = static_cast<u8>(low_limb(q) + 128);
    }
}

inline Scale normed_row(const Model& model, u8* out, const i32* x, const Matrix& matrix) {
    const i32 a = largest_magnitude(x, model.width);
    const i32 k = norm_shift(static_cast<u64>(a));
    u64 squares = 0;
    for (u32 i = 0; i < model.width; ++i) {
        const i64 shifted = norm_shifted(x[i], k);
        squares += static_cast<u64>(shifted * shifted);
    }
    quantise_row(out, x, model.width, matrix.columns, matrix.bits, a);
    return norm_scale(static_cast<u64>(a), squares, model.epsilon_q48, model.width, model.residual_fraction);
}

enum class Target { VALUES, BIASED, RESIDUAL };

// Values of 64 outputs of one row from the matmul's sums, written to out[0 .. count). `low` matters with TWO_LIMBS alone.
// Every choice is a template's, and no pointer may alias, so that the loop vectorises: at small K it outweighs the product.
template <Target target, bool TWO_LIMBS>
inline void finish(i32* __restrict out, const i32* __restrict high, const i32* __restrict low, const Matrix& matrix,
                   u32 first, u32 count, Scale scale) {
    const i32* __restrict corrections = matrix.corrections + first;
    const i32* __restrict mantissa = matrix.mantissa + first;
    const i32* __restrict row_shift = matrix.row_shift + first;
    const i32* __restrict bias = matrix.bias + (target == Target::BIASED ? first : 0);
    for (u32 n = 0; n < count; ++n) {
        i64 accumulator = high[n] - corrections[n];
        if constexpr (TWO_LIMBS) accumulator = 256 * accumulator + (low[n] - corrections[n]);
        i64 v = linear_value(accumulator, mantissa[n], row_shift[n], scale);
        if constexpr (target == Target::RESIDUAL) v += out[n];
        if constexpr (target == Target::BIASED) v += bias[n];
        out[n] = saturate(v);
    }
}

// out[row][n] for every row; `activations` holds one or two limbs a row. Blocks of outputs are dealt out to the crew.
template <Target target>
inline void linear(const Crew& crew, const Matrix& matrix, i32* out, u64 out_stride, const u8* activations,
                   const Scale* scales, u32 rows) {
    const u32 limbs = matrix.bits == 8 ? 1 : 2;
    const u32 blocks = (matrix.rows + BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS;
    const u32 begin = static_cast<u32>(static_cast<u64>(blocks) * crew.index / crew.size);
    const u32 end = static_cast<u32>(static_cast<u64>(blocks) * (crew.index + 1) / crew.size);
    const u32 tile_rows = TILE_ROWS / limbs;
    const u64 limb_bytes = matrix.columns;
    alignas(64) i32 sums[TILE_ROWS * BLOCK_OUTPUTS];
    for (u32 block = begin; block < end; ++block) {
        const i8* weights = matrix.weights + static_cast<u64>(block) * BLOCK_OUTPUTS * matrix.columns;
        const u32 first = block * BLOCK_OUTPUTS;
        const u32 count = matrix.rows - first < BLOCK_OUTPUTS ? matrix.rows - first : BLOCK_OUTPUTS;
        for (u32 row = 0; row < rows; row += tile_rows) {
            const u32 here = rows - row < tile_rows ? rows - row : tile_rows;
            tile_of<TILE_ROWS>(here * limbs, sums, activations + row * limbs * limb_bytes, limb_bytes, weights,
                               matrix.columns);
            for (u32 r = 0; r < here; ++r) {
                const i32* high = sums + r * limbs * BLOCK_OUTPUTS;
                i32* to = out + (row + r) * out_stride + first;
                if (limbs == 2) {
                    finish<target, true>(to, high, high + BLOCK_OUTPUTS, matrix, first, count, scales[row + r]);
                } else {
                    finish<target, false>(to, high, high, matrix, first, count, scales[row + r]);
                }
            }
        }
    }
}

inline void head_norm(const Model& model, i32* z, const i32* gain) {
    const u32 h = model.head_width;
    const i32 a = largest_magnitude(z, h);
    const i32 k = norm_shift(static_cast<u64>(a));
    i64 shifted[HEAD_WIDTH_MAX];
    u64 squares = 0;
    for (u32 i = 0; i < h; ++i) {
        shifted[i] = norm_shifted(z[i], k);
        squares += static_cast<u64>(shifted[i] * shifted[i]);
    }
    const i64 inverse = static_cast<i64>((1ull << 40) / norm_root(squares, model.epsilon_q48, h, k, 12));
    for (u32 i = 0; i < h; ++i) {
        const i64 normal = (shifted[i] * inverse + (1 << 23)) >> 24;
        z[i] = saturate((normal * gain[i] + (1 << 19)) >> 20);
    }
}

inline void rotate(i32* z, const i16* cosines, const i16* sines, u32 half) {
    for (u32 i = 0; i < half; ++i) {
        const i64 first = z[i], second = z[i + half];
        z[i] = saturate((first * cosines[i] - second * sines[i] + (1 << 13)) >> 14);
        z[i + half] = saturate((second * cosines[i] + first * sines[i] + (1 << 13)) >> 14);
    }
}

inline void hadamard(i32* z, u32 width) {
    i64 sums[HEAD_WIDTH_MAX];
    for (u32 i = 0; i < width; ++i) sums[i] = z[i];
    for (u32 step = 1; step < width; step *= 2) {
        for (u32 i = 0; i < width; ++i) {
            if (i & step) continue;
            const i64 a = sums[i], b = sums[i + step];
            sums[i] = a + b;
            sums[i + step] = a - b;
        }
    }
    const i32 shift = (bit_length(width) - 1) / 2;
    for (u32 i = 0; i < width; ++i) z[i] = saturate(round_shift(sums[i], shift));
}

// Norm, rotate and transform the queries and keys of one row, quantise all heads, and store keys and values.
inline void prepare_heads(const Model& model, const Layer& layer, u32 layer_index, const Batch& batch, Workspace& work,
                          u32 row, u64 wide_stride) {
    const u32 h = model.head_width, half = h / 2;
    const u32 position = static_cast<u32>(batch.position[row]);
    const i16* cosines = model.cosines + static_cast<u64>(position) * half;
    const i16* sines = model.sines + static_cast<u64>(position) * half;
    i32* y = work.wide + row * wide_stride;
    for (u32 head = 0; head < model.heads + model.kv_heads; ++head) {
        const bool is_query = head < model.heads;
        i32* z = y + head * h;
        if (layer.query_norm) head_norm(model, z, is_query ? layer.query_norm : layer.key_norm);
        rotate(z, cosines, sines, half);
        if (model.head_hadamard) hadamard(z, h);
        if (!is_query) continue;
        const i32 a = largest_magnitude(z, h);
        const i64 reciprocal = quantise_reciprocal(8, a);
        i8* q = work.queries + (static_cast<u64>(row) * model.heads + head) * h;
        for (u32 i = 0; i < h; ++i) q[i] = static_cast<i8>(quantise_value(z[i], reciprocal));
        work.query_max[row * model.heads + head] = a;
    }
    const i32* pages = batch.page_table + static_cast<u64>(batch.sequence[row]) * batch.pages_per_sequence;
    const u64 page = static_cast<u64>(pages[position / PAGE_POSITIONS]);
    const u32 slot = position % PAGE_POSITIONS;
    const u64 row_bytes = static_cast<u64>(model.kv_heads) * (2 * h + 8);
    for (u32 head = 0; head < model.kv_heads; ++head) {
        const i32* key = y + (model.heads + head) * h;
        const i32* value = key + model.kv_heads * h;
        const i32 key_max = largest_magnitude(key, h), value_max = largest_magnitude(value, h);
        const i64 key_reciprocal = quantise_reciprocal(8, key_max), value_reciprocal = quantise_reciprocal(8, value_max);
        const PageView view = page_view(work.cache, model, page, layer_index, head);
        u8* keys = view.keys + static_cast<u64>(slot / KEY_GROUP) * KEY_GROUP * h + (slot % KEY_GROUP) * 4;
        i8* values = view.values + static_cast<u64>(slot / 2) * 2 * h + slot % 2;
        u8* out = batch.kv_rows
                      ? batch.kv_rows + (static_cast<u64>(row) * model.layers + layer_index) * row_bytes + head * (2 * h + 8)
                      : nullptr;
        for (u32 i = 0; i < h; ++i) {
            const i32 k = quantise_value(key[i], key_reciprocal), v = quantise_value(value[i], value_reciprocal);
            keys[(i / 4) * KEY_GROUP * 4 + i % 4] = static_cast<u8>(k + 128);
            values[2 * i] = static_cast<i8>(v);
            if (out) {
                out[i] = static_cast<u8>(k);
                out[h + 4 + i] = static_cast<u8>(v);
            }
        }
        if (out) {
            __builtin_memcpy(out + h, &key_max, 4);
            __builtin_memcpy(out + 2 * h + 4, &value_max, 4);
        }
        const Mantissa key_scale = mantissa_of(static_cast<u64>(key_max));
        view.key_mantissa[slot] = key_scale.mantissa;
        view.key_exponent[slot] = key_scale.exponent;
        view.value_max[slot] = value_max;
    }
}

// dots[16] of one query with the keys of 16 positions; excess = 128 * sum(q) is taken off.
inline void key_dots(i32* dots, const i8* query, const u8* keys, u32 h, i32 excess) {
#if defined(__AVX512VNNI__)
    __m512i acc = _mm512_set1_epi32(-excess);
    for (u32 i = 0; i < h; i += 4, keys += 64) {
        i32 four;
        __builtin_memcpy(&four, query + i, 4);
        acc = _mm512_dpbusd_epi32(acc, _mm512_loadu_si512(keys), _mm512_set1_epi32(four));
    }
    _mm512_storeu_si512(dots, acc);
#else
    for (u32 j = 0; j < KEY_GROUP; ++j) dots[j] = -excess;
    for (u32 i = 0; i < h; ++i) {
        const u8* column = keys + (i / 4) * 64 + i % 4;
        for (u32 j = 0; j < KEY_GROUP; ++j) dots[j] += query[i] * column[4 * j];
    }
#endif
}

// sums[h] += w0 * v0[h] + w1 * v1[h] for `pairs` pairs of positions; `values` is [pairs][h][2].
inline void add_values(i32* sums, const i16* weights, const i8* values, u32 pairs, u32 h) {
    u32 i = 0;
#if defined(__AVX512VNNI__)
    for (; i + 16 <= h; i += 16) {
        __m512i acc = _mm512_loadu_si512(sums + i);
        const i8* column = values + 2 * i;
        for (u32 pair = 0; pair < pairs; ++pair, column += 2 * h) {
            i32 both;
            __builtin_memcpy(&both, weights + 2 * pair, 4);
            const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(column));
            acc = _mm512_dpwssd_epi32(acc, _mm512_cvtepi8_epi16(narrow), _mm512_set1_epi32(both));
        }
        _mm512_storeu_si512(sums + i, acc);
    }
#endif
    for (; i < h; ++i) {
        for (u32 pair = 0; pair < pairs; ++pair) {
            const i8* v = values + static_cast<u64>(pair) * 2 * h + 2 * i;
            sums[i] += weights[2 * pair] * v[0] + weights[2 * pair + 1] * v[1];
        }
    }
}

// One query head over positions 0 .. position of its sequence, into out[h].
inline void attend(const Model& model, const Batch& batch, Workspace& work, const Crew& crew, u32 layer, u32 row, u32 head,
                   i32* out) {
    const u32 h = model.head_width;
    const u32 count = static_cast<u32>(batch.position[row]) + 1;
    const i32* pages = batch.page_table + static_cast<u64>(batch.sequence[row]) * batch.pages_per_sequence;
    const i8* query = work.queries + (static_cast<u64>(row) * model.heads + head) * h;
    const u32 kv_head = head / (model.heads / model.kv_heads);
    const u64 query_max = static_cast<u64>(work.query_max[row * model.heads + head]);
    Mantissa query_scale = mantissa_of(query_max * static_cast<u64>(model.attention_mantissa));
    query_scale.exponent += model.attention_exponent;
    i32* scores = work.scores + static_cast<u64>(crew.index) * model.context_max;
    alignas(64) i16 weights[PAGE_POSITIONS];
    i32 excess = 0;
    for (u32 i = 0; i < h; ++i) excess += query[i];
    excess *= 128;

    i32 score_max = -SCORE_MAX, lambda = -SCORE_MAX;
    for (u32 first = 0; first < count; first += KEY_GROUP) {
        const PageView view = page_view(work.cache, model, static_cast<u64>(pages[first / PAGE_POSITIONS]), layer, kv_head);
        const u32 slot = first % PAGE_POSITIONS;
        i32 dots[KEY_GROUP];
        key_dots(dots, query, view.keys + static_cast<u64>(slot) * h, h, excess);
        const u32 here = count - first < KEY_GROUP ? count - first : KEY_GROUP;
        for (u32 j = 0; j < here; ++j) {
            const Mantissa key_scale = {view.key_mantissa[slot + j], view.key_exponent[slot + j]};
            const i32 score = score_value(dots[j], key_scale, query_scale);
            const i32 reach = score + (bit_length(static_cast<u64>(view.value_max[slot + j])) << 16);
            scores[first + j] = score;
            score_max = score > score_max ? score : score_max;
            lambda = reach > lambda ? reach : lambda;
        }
    }

    const i32 shift = 5 + ((lambda - score_max + 65535) >> 16);
    u64 denominator = 0;
    i64 totals[HEAD_WIDTH_MAX] = {};
    for (u32 first = 0; first < count; first += PAGE_POSITIONS) {
        const PageView view = page_view(work.cache, model, static_cast<u64>(pages[first / PAGE_POSITIONS]), layer, kv_head);
        const u32 here = count - first < PAGE_POSITIONS ? count - first : PAGE_POSITIONS;
        for (u32 j = 0; j < here; ++j) {
            const i32 p = exp2_value(static_cast<u32>(score_max - scores[first + j]), model.exp2);
            denominator += static_cast<u64>(p);
            weights[j] = static_cast<i16>(attention_weight(p, view.value_max[j], shift));
        }
        if (here % 2) weights[here] = 0;
        i32 sums[HEAD_WIDTH_MAX] = {};
        add_values(sums, weights, view.values, (here + 1) / 2, h);
        for (u32 i = 0; i < h; ++i) totals[i] += sums[i];
    }
    for (u32 i = 0; i < h; ++i) out[i] = attention_output(totals[i], denominator, shift);
}

WG_FN bool mine(const Crew& crew, u32 item) { return item % crew.size == crew.index; }

// Residual rows at one boundary, for the trace.
inline void keep_boundary(const Crew& crew, const Model& model, const Batch& batch, const Workspace& work, u32 boundary) {
    if (!batch.boundaries) return;
    for (u32 row = 0; row < batch.rows; ++row) {
        if (!mine(crew, row)) continue;
        const u64 at = (static_cast<u64>(row) * (model.layers + 1) + boundary) * model.width;
        __builtin_memcpy(batch.boundaries + at, work.residual + static_cast<u64>(row) * model.width, 4ull * model.width);
    }
}

inline void feed_forward(const Crew& crew, const Model& model, const Layer& layer, const Batch& batch, Workspace& work) {
    const u64 width = model.width, f = model.feed_forward;
    for (u32 row = 0; row < batch.rows; ++row) {
        if (!mine(crew, row)) continue;
        u8* q = work.quantised + row * (layer.gate_up.bits / 8) * width;
        work.scale[row] = normed_row(model, q, work.residual + row * width, layer.gate_up);
    }
    meet(crew);
    linear<Target::VALUES>(crew, layer.gate_up, work.wide, 2 * f, work.quantised, work.scale, batch.rows);
    meet(crew);
    for (u32 row = 0; row < batch.rows; ++row) {
        if (!mine(crew, row)) continue;
        i32* gate = work.wide + row * 2 * f;
        for (u32 i = 0; i < f; ++i) {
            const i32* entry = model.sigmoid + sigmoid_index(gate[i]);
            gate[i] = gated_value(gate[i], gate[f + i], entry[0], entry[1], model.hidden_fraction);
        }
        const i32 a = largest_magnitude(gate, model.feed_forward);
        quantise_row(work.quantised + row * (layer.down.bits / 8) * f, gate, model.feed_forward, model.feed_forward,
                     layer.down.bits, a);
        work.scale[row] = plain_scale(static_cast<u64>(a), model.hidden_fraction);
    }
    meet(crew);
    linear<Target::RESIDUAL>(crew, layer.down, work.residual, width, work.quantised, work.scale, batch.rows);
    meet(crew);
}

inline void attention(const Crew& crew, const Model& model, u32 index, const Batch& batch, Workspace& work) {
    const Layer& layer = model.layer[index];
    const u64 width = model.width, attended = static_cast<u64>(model.heads) * model.head_width;
    for (u32 row = 0; row < batch.rows; ++row) {
        if (!mine(crew, row)) continue;
        u8* q = work.quantised + row * (layer.qkv.bits / 8) * width;
        work.scale[row] = normed_row(model, q, work.residual + row * width, layer.qkv);
    }
    meet(crew);
    if (layer.qkv.bias) {
        linear<Target::BIASED>(crew, layer.qkv, work.wide, layer.qkv.rows, work.quantised, work.scale, batch.rows);
    } else {
        linear<Target::VALUES>(crew, layer.qkv, work.wide, layer.qkv.rows, work.quantised, work.scale, batch.rows);
    }
    meet(crew);
    for (u32 row = 0; row < batch.rows; ++row) {
        if (mine(crew, row)) prepare_heads(model, layer, index, batch, work, row, layer.qkv.rows);
    }
    meet(crew);
    for (u32 row = 0; row < batch.rows; ++row) {
        for (u32 head = 0; head < model.heads; ++head) {
            if (!mine(crew, row * model.heads + head)) continue;
            attend(model, batch, work, crew, index, row, head, work.attended + row * attended + head * model.head_width);
        }
    }
    meet(crew);
    for (u32 row = 0; row < batch.rows; ++row) {
        if (!mine(crew, row)) continue;
        const i32* o = work.attended + row * attended;
        const i32 a = largest_magnitude(o, static_cast<u32>(attended));
        quantise_row(work.quantised + row * (layer.o.bits / 8) * attended, o, static_cast<u32>(attended),
                     static_cast<u32>(attended), layer.o.bits, a);
        work.scale[row] = plain_scale(static_cast<u64>(a), 16);
    }
    meet(crew);
    linear<Target::RESIDUAL>(crew, layer.o, work.residual, width, work.quantised, work.scale, batch.rows);
    meet(crew);
}

inline void forward(const Crew& crew, const Model& model, const Batch& batch, Workspace& work) {
    const u64 width = model.width;
    for (u32 row = 0; row < batch.rows; ++row) {
        if (!mine(crew, row)) continue;
        const u64 token = static_cast<u64>(batch.token[row]);
        for (u32 i = 0; i < model.width; ++i) {
            work.residual[row * width + i] =
                embedding_value(model.embedding[token * width + i], model.embedding_mantissa[token],
                                model.embedding_exponent[token], model.residual_fraction);
        }
    }
    meet(crew);
    for (u32 layer = 0; layer < model.layers; ++layer) {
        keep_boundary(crew, model, batch, work, layer);
        attention(crew, model, layer, batch, work);
        feed_forward(crew, model, model.layer[layer], batch, work);
    }
    keep_boundary(crew, model, batch, work, model.layers);
    if (!batch.logits) return;
    for (u32 i = 0; i < batch.logit_count; ++i) {
        if (!mine(crew, i)) continue;
        u8* q = work.quantised + i * (model.head.bits / 8) * width;
        work.scale[i] = normed_row(model, q, work.residual + static_cast<u64>(batch.logit_rows[i]) * width, model.head);
    }
    meet(crew);
    linear<Target::VALUES>(crew, model.head, batch.logits, model.vocabulary, work.quantised, work.scale,
                           batch.logit_count);
    meet(crew);
}

}  // namespace WG_EXACT_NAMESPACE
