// Attention over pages of keys and values, as two int8 products: queries with a page of keys, then the two bytes of the
// softmax's weights with a page of values. Both run in the tiles of cpu/matmul.hpp.
//
// A tile takes queries of one key-value head, of consecutive rows of one sequence. As the specification wants, the
// maxima over all keys are found first and the sums formed after; positions past a query's own get a score below all.
#pragma once

#include "worker/inference/native/cpu/trace.hpp"

namespace WG_EXACT_NAMESPACE {

constexpr i32 NEVER = -0x7FFFFFFF - 1;     // the score of a position that does not exist: its probability is 0
constexpr u32 PAGES_PER_SUM_MAX = 1024;    // whose weighted values add up in int32, byte by byte of the weights
static_assert(255ll * 127 * PAGE_POSITIONS * PAGES_PER_SUM_MAX < (1ll << 31));

WG_FN u32 page_count(u32 positions) { return (positions + PAGE_POSITIONS - 1) / PAGE_POSITIONS; }

WG_FN u64 score_stride(const Model& model) { return static_cast<u64>(page_count(model.context_max)) * PAGE_POSITIONS; }

// Quantise the queries of one key-value head.
inline void store_queries(const Model& model, const Batch& batch, Workspace& work, u32 row, u32 kv_head, const i32* y) {
    const u32 h = model.head_width, group = model.heads / model.kv_heads;
    u64 index = (static_cast<u64>(kv_head) * batch.rows + row) * group;
    for (u32 head = kv_head * group; head < (kv_head + 1) * group; ++head, ++index) {
        const i32* z = y + head * h;
        const i32 a = largest_magnitude(z, h);
        quantise_narrow(work.queries + index * h, z, h, a);
        Mantissa scale = mantissa_of(static_cast<u64>(a) * static_cast<u64>(model.attention_mantissa));
        scale.exponent += model.attention_exponent;
        work.query_scale[index] = scale;
    }
}

inline void store_head(const Model& model, const PageView& page, u32 slot, const i32* key, const i32* value,
                       u8* canonical) {
    const u32 h = model.head_width;
    const i32 key_max = largest_magnitude(key, h), value_max = largest_magnitude(value, h);
    u8 k[HEAD_WIDTH_MAX], v[HEAD_WIDTH_MAX];
    quantise_narrow(k, key, h, key_max);
    quantise_narrow(v, value, h, value_max);
    i32 sum = 0;
    for (u32 i = 0; i < h; ++i) {
        k[i] ^= 0x80;  // back to two's complement
        v[i] ^= 0x80;
        sum += static_cast<i8>(k[i]);
    }
    i8* keys = page.keys + slot * STEP_INPUTS;
    for (u32 i = 0; i < h; i += STEP_INPUTS) __builtin_memcpy(keys + i * PAGE_POSITIONS, k + i, STEP_INPUTS);
    i8* values = page.values + static_cast<u64>(slot / STEP_INPUTS) * STEP_INPUTS * h + slot % STEP_INPUTS;
    for (u32 i = 0; i < h; ++i) values[STEP_INPUTS * i] = static_cast<i8>(v[i]);
    const Mantissa scale = mantissa_of(static_cast<u64>(key_max));
    page.key_correction[slot] = 128 * sum;
    page.key_mantissa[slot] = scale.mantissa;
    page.key_exponent[slot] = scale.exponent;
    page.value_max[slot] = value_max;
    page.value_reach[slot] = bit_length(static_cast<u64>(value_max)) << 16;
    if (!canonical) return;
    __builtin_memcpy(canonical, k, h);
    __builtin_memcpy(canonical + h, &key_max, 4);
    __builtin_memcpy(canonical + h + 4, v, h);
    __builtin_memcpy(canonical + 2 * h + 4, &value_max, 4);
}

// Norm, rotate and transform one row's queries and key of one key-value head, and store them and the value, quantised.
inline void prepare_head(const Model& model, const Layer& layer, u32 layer_index, const Batch& batch, Workspace& work,
                         u32 row, u32 kv_head) {
    const u32 h = model.head_width, half = h / 2, group = model.heads / model.kv_heads;
    const u32 position = static_cast<u32>(batch.position[row]);
    const u64 rotary = static_cast<u64>(position) * half;
    i32* y = work.wide + static_cast<u64>(row) * layer.qkv.rows;
    i32* key = y + (model.heads + kv_head) * h;
    const auto transform = [&](i32* z, const i32* norm) {
        if (norm) head_norm(model, z, norm);
        rotate(z, model.cosines + rotary, model.sines + rotary, half);
        if (model.head_hadamard) hadamard(z, h);
    };
    for (u32 head = kv_head * group; head < (kv_head + 1) * group; ++head) transform(y + head * h, layer.query_norm);
    transform(key, layer.key_norm);
    store_queries(model, batch, work, row, kv_head, y);
    const i32* pages = batch.page_table + static_cast<u64>(batch.sequence[row]) * batch.pages_per_sequence;
    const u64 page = static_cast<u64>(pages[position / PAGE_POSITIONS]);
    u8* canonical = canonical_rows(model, layer_index, batch, work);
    if (canonical) canonical += row * canonical_stride(model, batch) + kv_head * (2 * h + 8);
    store_head(model, page_view(work.cache, model, page, layer_index, kv_head), position % PAGE_POSITIONS, key,
               key + model.kv_heads * h, canonical);
}

// Queries that share their keys, `count` of them from `first` on within (row, head of the group) of a run of rows.
struct QueryTile {
    u32 layer, kv_head;
    u32 run_begin;  // the run's first row
    u32 first, count;
};

// Its first query's place in the workspace.
WG_FN u64 first_query(const Model& model, const Batch& batch, const QueryTile& queries) {
    const u32 group = model.heads / model.kv_heads;
    return (static_cast<u64>(queries.kv_head) * batch.rows + queries.run_begin) * group + queries.first;
}

// One query's way through the pages.
struct QueryState {
    Mantissa scale;
    u32 positions;  // it attends to
    i32* scores;
    Lanes score_max, lambda;
    Lanes denominator;
    i32 largest, shift;  // m and t of the specification
};

WG_FN Lanes score_lanes(Lanes dot, Lanes key_mantissa, Lanes key_exponent, Mantissa query) {
    // score_value of operations.hpp.
    const Lanes scale = short_product(key_mantissa, all_lanes(query.mantissa));
    const Lanes product = long_product(dot, scale) << 8;
    const Lanes count = smaller(16 - query.exponent - key_exponent, all_lanes(63));
    const Lanes score = (product + ((all_lanes(1) << count) >> 1)) >> count;
    return larger(smaller(score, all_lanes(SCORE_MAX)), all_lanes(-SCORE_MAX));
}

// Scores of one page from its dot products, and the two maxima.
inline void score_page(QueryState& query, const PageView& page, const i32* dots, u32 first) {
    i32* scores = query.scores + first;
    const u32 here = query.positions <= first ? 0
                     : query.positions - first < PAGE_POSITIONS ? query.positions - first
                                                                : PAGE_POSITIONS;
    for (u32 j = 0; j < here; j += LANES) {
        const Lanes dot = load_lanes(dots + j) - load_lanes(page.key_correction + j);
        const Lanes mantissa = load_lanes(page.key_mantissa + j), exponent = load_lanes(page.key_exponent + j);
        Lanes score = score_lanes(dot, mantissa, exponent, query.scale);
        if (here - j < LANES)
            for (u32 i = here - j; i < LANES; ++i) score[i] = NEVER;
        store_lanes(scores + j, score);
        query.score_max = larger(query.score_max, score);
        query.lambda = larger(query.lambda, score + load_lanes(page.value_reach + j));
    }
    for (u32 j = (here + LANES - 1) / LANES * LANES; j < PAGE_POSITIONS; ++j) scores[j] = NEVER;
}

// The weights of one page, their high bytes at `bytes` and their low bytes PAGE_POSITIONS behind; adds to the
// denominator.
inline void weigh_page(const Model& model, QueryState& query, const PageView& page, u8* bytes, u32 first) {
    const Lanes largest = all_lanes(query.largest);
    for (u32 j = 0; j < PAGE_POSITIONS; j += LANES) {
        const Lanes distance = largest - load_lanes(query.scores + first + j);
        const Lanes p = look_up(model.exp2, (distance & 65535) >> 4) >> smaller(distance >> 16, all_lanes(63));
        const Lanes product = short_product(p, load_lanes(page.value_max + j));
        const Lanes w = smaller(rounded(product, query.shift), all_lanes(32767));
        query.denominator += p;
        store_lanes(bytes + j, w >> 8);
        store_lanes(bytes + PAGE_POSITIONS + j, w);
    }
}

// Where a query's sums of `output` lie: two rows of 64, of the weights' high and of their low bytes.
WG_FN u32 sums_at(u32 query, u32 output) {
    return (output / BLOCK_OUTPUTS * 2 * QUERIES_MAX + 2 * query) * BLOCK_OUTPUTS + output % BLOCK_OUTPUTS;
}

// sums[2 * query + limb][outputs] += products of the weights with one page of values, 64 outputs at a time.
inline void add_values(i32* sums, u32 limbs, const u8* weights, const i8* values, u32 h) {
    const Activations rows = {weights, PAGE_POSITIONS, PAGE_POSITIONS};
    for (u32 done = 0; done < limbs; done += TILE_ROWS) {
        const u32 here = limbs - done < TILE_ROWS ? limbs - done : TILE_ROWS;
        const Activations part = {rows.values + done * PAGE_POSITIONS, rows.stride, rows.columns};
        for (u32 output = 0; output < h;) {
            i32* to = sums + sums_at(0, output) + done * BLOCK_OUTPUTS;
            const Block block = {values + STEP_INPUTS * output, static_cast<u64>(STEP_INPUTS) * h};
            if (h - output >= BLOCK_OUTPUTS) {
                tile_of<TILE_ROWS, CHUNKS, Sums::ADDED>(here, to, part, block);
                output += BLOCK_OUTPUTS;
            } else {
                tile_of<TILE_ROWS, 1, Sums::ADDED>(here, to, part, block);
                output += CHUNK_OUTPUTS;
            }
        }
    }
}

inline void output_row(i32* out, const i64* totals, u32 h, const QueryState& query) {
    const u64 denominator = static_cast<u64>(sum_of(query.denominator));
    const i32 b = bit_length(denominator);
    const Lanes reciprocal = all_lanes(static_cast<i64>((1ull << (b + 22)) / (127 * denominator)));
    for (u32 i = 0; i < h; i += LANES)
        store_lanes(out + i,
                    saturated(rounded(long_product(load_lanes(totals + i), reciprocal), b + 18 - query.shift)));
}

// The queries of a tile as they begin: a score below every other, nothing summed.
inline u32 begin_queries(QueryState* state, const Model& model, const Batch& batch, const Workspace& work,
                         const Crew& crew, const QueryTile& queries) {
    const u32 group = model.heads / model.kv_heads;
    u32 positions_max = 0;
    for (u32 q = 0; q < queries.count; ++q) {
        const u32 row = queries.run_begin + (queries.first + q) / group;
        const u32 positions = static_cast<u32>(batch.position[row]) + 1;
        state[q] = {.scale = work.query_scale[first_query(model, batch, queries) + q],
                    .positions = positions,
                    .scores = work.scores + (static_cast<u64>(crew.index) * QUERIES_MAX + q) * score_stride(model),
                    .score_max = all_lanes(NEVER),
                    .lambda = all_lanes(NEVER),
                    .denominator = all_lanes(0),
                    .largest = 0,
                    .shift = 0};
        positions_max = positions > positions_max ? positions : positions_max;
    }
    return page_count(positions_max);
}

// The first half: all scores, and from their maxima m and t of each query.
template <class Pages>
inline void score_all(QueryState* state, const u8* queried, u32 count, u32 h, u32 pages, Pages page_at) {
    alignas(64) i32 dots[QUERIES_MAX * BLOCK_OUTPUTS];
    for (u32 page = 0; page < pages; ++page) {
        const PageView view = page_at(page);
        const Block block = {view.keys, BLOCK_OUTPUTS * STEP_INPUTS};
        for (u32 q = 0; q < count; q += TILE_ROWS) {
            const u32 here = count - q < TILE_ROWS ? count - q : TILE_ROWS;
            tile_of<TILE_ROWS, CHUNKS, Sums::FRESH>(here, dots + q * BLOCK_OUTPUTS, {queried + q * h, h, h}, block);
        }
        for (u32 q = 0; q < count; ++q) score_page(state[q], view, dots + q * BLOCK_OUTPUTS, page * PAGE_POSITIONS);
    }
    for (u32 q = 0; q < count; ++q) {
        const i64 largest = largest_of(state[q].score_max), lambda = largest_of(state[q].lambda);
        state[q].largest = static_cast<i32>(largest);
        state[q].shift = 5 + static_cast<i32>((lambda - largest + 65535) >> 16);
    }
}

// The second half: totals[query][h], the weighted values.
template <class Pages>
inline void sum_all(i64 (*totals)[HEAD_WIDTH_MAX], QueryState* state, const Model& model, u32 count, u32 pages,
                    Pages page_at) {
    const u32 h = model.head_width;
    alignas(64) u8 weights[2 * QUERIES_MAX * PAGE_POSITIONS];
    alignas(64) i32 sums[2 * QUERIES_MAX * HEAD_WIDTH_MAX];
    for (u32 begin = 0; begin < pages; begin += PAGES_PER_SUM_MAX) {
        const u32 end = pages - begin < PAGES_PER_SUM_MAX ? pages : begin + PAGES_PER_SUM_MAX;
        __builtin_memset(sums, 0, sizeof(i32) * sums_at(0, (h + BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS * BLOCK_OUTPUTS));
        for (u32 page = begin; page < end; ++page) {
            const PageView view = page_at(page);
            for (u32 q = 0; q < count; ++q)
                weigh_page(model, state[q], view, weights + 2 * q * PAGE_POSITIONS, page * PAGE_POSITIONS);
            add_values(sums, 2 * count, weights, view.values, h);
        }
        for (u32 q = 0; q < count; ++q) {
            for (u32 i = 0; i < h; i += LANES) {
                const i32* high = sums + sums_at(q, i);
                const Lanes sum = (load_lanes(high) << 8) + load_lanes(high + BLOCK_OUTPUTS);
                store_lanes(totals[q] + i, load_lanes(totals[q] + i) + sum);
            }
        }
    }
}

inline void attend(const Model& model, const Batch& batch, Workspace& work, const Crew& crew,
                   const QueryTile& queries) {
    const u32 h = model.head_width, group = model.heads / model.kv_heads, count = queries.count;
    const u64 sequence = static_cast<u64>(batch.sequence[queries.run_begin]);
    const i32* table = batch.page_table + sequence * batch.pages_per_sequence;
    const auto page_at = [&](u32 page) {
        return page_view(work.cache, model, static_cast<u64>(table[page]), queries.layer, queries.kv_head);
    };
    QueryState state[QUERIES_MAX];
    const u32 pages = begin_queries(state, model, batch, work, crew, queries);
    score_all(state, work.queries + first_query(model, batch, queries) * h, count, h, pages, page_at);
    i64 totals[QUERIES_MAX][HEAD_WIDTH_MAX] = {};
    sum_all(totals, state, model, count, pages, page_at);
    for (u32 q = 0; q < count; ++q) {
        const u32 index = queries.first + q, row = queries.run_begin + index / group;
        const u32 head = queries.kv_head * group + index % group;
        output_row(work.attended + (static_cast<u64>(row) * model.heads + head) * h, totals[q], h, state[q]);
    }
}

// attend(tile) for the tiles begin .. end - 1 of a batch, of `per_tile` queries each; returns how many there are.
template <class Attend>
inline u32 each_tile(const Model& model, const Batch& batch, u32 layer, u32 per_tile, u32 begin, u32 end,
                     Attend&& attend) {
    const u32 group = model.heads / model.kv_heads;
    u32 item = 0;
    for (u32 run_begin = 0, run_end; run_begin < batch.rows; run_begin = run_end) {
        run_end = run_begin + 1;
        while (run_end < batch.rows && batch.sequence[run_end] == batch.sequence[run_begin]) ++run_end;
        const u32 queries = (run_end - run_begin) * group;
        for (u32 first = 0; first < queries; first += per_tile) {
            const u32 count = queries - first < per_tile ? queries - first : per_tile;
            for (u32 head = 0; head < model.kv_heads; ++head, ++item)
                if (begin <= item && item < end) attend({layer, head, run_begin, first, count});
        }
    }
    return item;
}

// All queries of a batch, shared out in tiles; small batches in smaller tiles, so that everybody has some.
inline void attend_all(Crew& crew, const Model& model, const Batch& batch, Workspace& work, u32 layer) {
    u32 per_tile = crew.size == 1 ? QUERIES_MAX : batch.rows * model.heads / (4 * crew.size);
    per_tile = per_tile < 1 ? 1 : per_tile > QUERIES_MAX ? QUERIES_MAX : per_tile;
    const auto one = [&](const QueryTile& queries) { attend(model, batch, work, crew, queries); };
    const u32 count = each_tile(model, batch, layer, per_tile, 0, 0, one);
    share_out(crew, count, [&](u32 begin, u32 end) { each_tile(model, batch, layer, per_tile, begin, end, one); });
}

}  // namespace WG_EXACT_NAMESPACE
