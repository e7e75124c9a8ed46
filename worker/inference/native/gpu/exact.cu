// Kernels of the exact engine: docs/exact-inference.md on a Hopper GPU, equal to the CPU engine in every byte.
//
// A layer is: product qkv, prepare_heads, score_keys, add_values, finish_heads, product o, residual_norm, product
// gate_up, gated, quantise, product down, residual_norm. worker/inference/exact/gpu.py puts them together.
// Compile for sm_90a (wgmma).
#include "worker/inference/native/gpu/attention.cuh"
#include "worker/inference/native/gpu/matmul.cuh"
#include "worker/inference/native/sampling.hpp"

using namespace warpgrid;
using namespace warpgrid::exact;

#define KERNEL(threads) extern "C" __global__ __launch_bounds__(threads) void
#define KERNEL_RESIDENT(threads, blocks) extern "C" __global__ __launch_bounds__(threads, blocks) void

constexpr u32 ITEMS = 4;  // values that a thread loads together

// Products: outputs x activation rows of a tile, and how deep the pipeline is.
#define PRODUCT(name, groups, tile_rows, stages)                                                               \
    KERNEL(128 * (groups)) name(i32* accumulators, const i8* weights, const i8* activations, u32 outputs, u32 rows, \
                                u32 columns) {                                                                 \
        product<groups, tile_rows, stages>(accumulators, weights, activations, outputs, rows, columns);        \
    }

PRODUCT(product_8, 1, 8, 8)
PRODUCT(product_16, 1, 16, 8)
PRODUCT(product_32, 1, 32, 6)
PRODUCT(product_64, 1, 64, 6)
PRODUCT(product_128, 2, 128, 5)
PRODUCT(product_256, 2, 256, 4)

// Rows of the embedding, the residual's boundary 0; resets what the steps of this pass accumulate.
KERNEL(1024) embed(i32* residual, const i8* embedding, const u16* mantissa, const i8* exponent, const i32* token,
                   u32 width, i32 fraction, u64* best) {
    const u64 row = blockIdx.x, from = static_cast<u64>(token[row]);
    if (threadIdx.x == 0) best[row] = 0;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x)
        residual[row * width + i] = embedding_value(embedding[from * width + i], mantissa[from], exponent[from], fraction);
}

// Where `accumulators` is not null: residual += the product. Where `out` is not null: the row quantised for the next
// product. Where `boundary` is not null: the residual row for the trace. `rows_wanted` chooses rows, or is null for all.
KERNEL(1024) residual_norm(i32* residual, const i32* accumulators, const i32* mantissa, const i32* row_shift,
                           const Scale* in_scale, u32 in_bits, u32 splits, i8* out, Scale* out_scale, u32 out_bits,
                           u32 width, i32 fraction, u64 epsilon_q48, i32* boundary, u64 boundary_stride,
                           const i32* rows_wanted, i32* hidden_max) {
    const u32 row = rows_wanted ? static_cast<u32>(rows_wanted[blockIdx.x]) : blockIdx.x;
    i32* from = residual + static_cast<u64>(row) * width;
    const Product product = {accumulators, mantissa, row_shift, gridDim.x, width, in_bits, splits};
    const Scale row_scale = accumulators ? in_scale[row] : Scale{};
    i32 x[ROW_ITEMS] = {};
#pragma unroll
    for (u32 first = 0; first < ROW_ITEMS; first += ITEMS) {
        i64 sums[ITEMS] = {};
#pragma unroll
        for (u32 j = 0; j < ITEMS; ++j) {
            const u32 i = threadIdx.x + (first + j) * blockDim.x;
            if (i >= width) break;
            x[first + j] = from[i];
            if (accumulators) sums[j] = product.sum(row, i);
        }
#pragma unroll
        for (u32 j = 0; j < ITEMS; ++j) {
            const u32 i = threadIdx.x + (first + j) * blockDim.x;
            if (i >= width) break;
            i32& value = x[first + j];
            if (accumulators) from[i] = value = saturate(value + product.rescaled(sums[j], i, row_scale));
            if (boundary) boundary[row * boundary_stride + i] = value;
        }
    }
    if (hidden_max && threadIdx.x == 0) hidden_max[row] = 1;
    if (!out) return;
    norm_row(out + static_cast<u64>(blockIdx.x) * (out_bits / 8) * width, out_scale + blockIdx.x, x, width, out_bits,
             fraction, epsilon_q48);
}

// One head of one row (blockIdx.x) after qkv: queries first, then keys, then values. Half a head of threads, in warps.
KERNEL(128) prepare_heads(const i32* accumulators, const i32* mantissa, const i32* row_shift, const Scale* scale, u32 bits,
                          u32 splits, const i32* bias, const i32* query_norm, const i32* key_norm, const i16* cosines,
                          const i16* sines, i8* queries, i32* query_max, u8* cache, const i32* page_table,
                          const i32* position, const i32* sequence, u8* kv_rows, u32 layer, u32 layers, u32 heads,
                          u32 kv_heads, u32 h, u32 pages_per_sequence, u64 epsilon_q48, u32 hadamard) {
    __shared__ i32 partial_max[32];
    __shared__ u64 partial_sum[32];
    __shared__ i64 sums[HEAD_WIDTH_MAX];
    const u32 row = blockIdx.x, head = blockIdx.y, half = h / 2, i = threadIdx.x;
    const bool inside = i < half, is_query = head < heads, is_value = head >= heads + kv_heads;
    const Product product = {accumulators, mantissa, row_shift, gridDim.x, (heads + 2 * kv_heads) * h, bits, splits};
    HeadPair z = {0, 0};
    if (inside) {
        const u32 n = head * h + i;
        const i64 first = product.sum(row, n), second = product.sum(row, n + half);
        z.first = saturate(product.rescaled(first, n, scale[row]) + (bias ? bias[n] : 0));
        z.second = saturate(product.rescaled(second, n + half, scale[row]) + (bias ? bias[n + half] : 0));
    }
    const u32 at = static_cast<u32>(position[row]);
    if (!is_value) {
        if (query_norm)
            z = head_norm_pair(z, inside, half, epsilon_q48, is_query ? query_norm : key_norm, partial_max, partial_sum);
        if (inside) {
            const i64 c = cosines[static_cast<u64>(at) * half + i], s = sines[static_cast<u64>(at) * half + i];
            const i64 first = z.first, second = z.second;
            z.first = saturate((first * c - second * s + (1 << 13)) >> 14);
            z.second = saturate((second * c + first * s + (1 << 13)) >> 14);
        }
        if (hadamard) z = hadamard_pair(z, inside, half, sums);
    }
    const i32 a = block_max(inside ? max(1, max(magnitude(z.first), magnitude(z.second))) : 1, partial_max);
    const i64 reciprocal = quantise_reciprocal(8, a);
    const i8 q0 = static_cast<i8>(quantise_value(z.first, reciprocal));
    const i8 q1 = static_cast<i8>(quantise_value(z.second, reciprocal));
    if (is_query) {
        i8* q = queries + (static_cast<u64>(row) * heads + head) * h;
        if (inside) q[i] = q0, q[i + half] = q1;
        if (i == 0) query_max[row * heads + head] = a;
        return;
    }
    const u32 kv_head = (head - heads) % kv_heads, slot = at % PAGE_POSITIONS;
    const i32 page = page_table[static_cast<u64>(sequence[row]) * pages_per_sequence + at / PAGE_POSITIONS];
    const PageView view = page_view(cache, (static_cast<u64>(page) * layers + layer) * kv_heads + kv_head, h);
    u8* kept = kv_rows ? kv_rows + ((static_cast<u64>(row) * layers + layer) * kv_heads + kv_head) * (2 * h + 8) +
                             (is_value ? h + 4 : 0)
                       : nullptr;
    if (kept && inside) kept[i] = static_cast<u8>(q0), kept[i + half] = static_cast<u8>(q1);
    if (kept && i < 4) kept[h + i] = static_cast<u8>(static_cast<u32>(a) >> (8 * i));
    auto place = [&](u32 entry) {
        return is_value ? view.values + (slot / 4 * h + entry) * 4 + slot % 4
                        : view.keys + (entry / 16 * PAGE_POSITIONS + slot) * 16 + entry % 16;
    };
    if (inside) *place(i) = q0, *place(i + half) = q1;
    if (i != 0) return;
    const Mantissa key_scale = mantissa_of(static_cast<u64>(a));
    if (is_value) {
        view.value_max[slot] = a;
    } else {
        view.key_mantissa[slot] = key_scale.mantissa;
        view.key_exponent[slot] = key_scale.exponent;
    }
}

KERNEL_RESIDENT(128, 8) score_keys_1(const Attention* attention, u32 layer) { score_keys<HEADS_OF_TILE>(*attention, layer); }
KERNEL_RESIDENT(128, 4) score_keys_4(const Attention* attention, u32 layer) { score_keys<4 * HEADS_OF_TILE>(*attention, layer); }
KERNEL_RESIDENT(256, 4) add_values_1(const Attention* attention, u32 layer) { add_values<HEADS_OF_TILE>(*attention, layer); }
KERNEL_RESIDENT(256, 2) add_values_4(const Attention* attention, u32 layer) { add_values<4 * HEADS_OF_TILE>(*attention, layer); }

// The outputs of all heads of a row, quantised for `o`; leaves the running results of attention as they were at first.
KERNEL(1024) finish_heads(i32* score_max, i32* reach_max, u64* denominator, u64* numerator, i32* attended, i8* out,
                          Scale* scale, u32 bits, u32 heads, u32 h) {
    __shared__ i32 partial[32];
    const u64 row = blockIdx.x;
    const u32 width = heads * h;
    i32 a = 1;
#pragma unroll 4
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        const u64 at = row * heads + i / h;
        const i32 o = attention_output(static_cast<i64>(numerator[row * width + i]), denominator[at],
                                       attention_shift(score_max[at], reach_max[at]));
        attended[row * width + i] = o;
        a = max(a, magnitude(o));
    }
    a = block_max(a, partial);  // a barrier: all have read the maxima
    for (u32 head = threadIdx.x; head < heads; head += blockDim.x) {
        score_max[row * heads + head] = reach_max[row * heads + head] = -SCORE_MAX;
        denominator[row * heads + head] = 0;
    }
    const i64 reciprocal = quantise_reciprocal(bits, a);
#pragma unroll 4
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        numerator[row * width + i] = 0;
        store_quantised(out + row * (bits / 8) * width, width, bits, i, attended[row * width + i], reciprocal);
    }
    if (threadIdx.x == 0) scale[row] = plain_scale(static_cast<u64>(a), 16);
}

// The kernels that follow give each block ITEMS * 256 neighbouring values of a row (blockIdx.y).
__device__ __forceinline__ u32 item_of(u32 j) { return (blockIdx.x * ITEMS + j) * blockDim.x + threadIdx.x; }

// Gated units of a row's part, and the largest of them. `sigmoid` has each entry with the one that follows it.
KERNEL(256) gated(const i32* accumulators, const i32* mantissa, const i32* row_shift, const Scale* scale, u32 bits, u32 splits,
                  i32* hidden, i32* hidden_max, const int2* sigmoid, u32 f, i32 hidden_fraction) {
    __shared__ i32 partial[32];
    const u32 row = blockIdx.y;
    const Scale row_scale = scale[row];
    const Product product = {accumulators, mantissa, row_shift, gridDim.y, 2 * f, bits, splits};
    i64 gates[ITEMS] = {}, ups[ITEMS] = {};
#pragma unroll
    for (u32 j = 0; j < ITEMS; ++j) {
        const u32 i = item_of(j);
        if (i >= f) break;
        gates[j] = product.sum(row, i);
        ups[j] = product.sum(row, f + i);
    }
    i32 a = 1;
#pragma unroll
    for (u32 j = 0; j < ITEMS; ++j) {
        const u32 i = item_of(j);
        if (i >= f) break;
        const i32 gate = saturate(product.rescaled(gates[j], i, row_scale));
        const i32 up = saturate(product.rescaled(ups[j], f + i, row_scale));
        const int2 entry = sigmoid[sigmoid_index(gate)];
        const i32 z = gated_value(gate, up, entry.x, entry.y, hidden_fraction);
        hidden[static_cast<u64>(row) * f + i] = z;
        a = max(a, magnitude(z));
    }
    a = block_max(a, partial);
    if (threadIdx.x == 0) atomicMax(hidden_max + row, a);
}

// A row's part of the gated units, quantised for `down`.
KERNEL(256) quantise_hidden(const i32* hidden, const i32* hidden_max, i8* out, Scale* scale, u32 bits, u32 f,
                            i32 hidden_fraction) {
    const u32 row = blockIdx.y;
    const i32 a = hidden_max[row];
    i32 z[ITEMS] = {};
#pragma unroll
    for (u32 j = 0; j < ITEMS; ++j)
        if (item_of(j) < f) z[j] = hidden[static_cast<u64>(row) * f + item_of(j)];
    const i64 reciprocal = quantise_reciprocal(bits, a);
#pragma unroll
    for (u32 j = 0; j < ITEMS; ++j)
        if (item_of(j) < f) store_quantised(out + static_cast<u64>(row) * (bits / 8) * f, f, bits, item_of(j), z[j], reciprocal);
    if (item_of(0) == 0) scale[row] = plain_scale(static_cast<u64>(a), hidden_fraction);
}

// Logits of a part of the vocabulary, and the key of the greedy choice: `best` grows to the largest logit with the
// lowest index.
KERNEL(256) finish_logits(const i32* accumulators, const i32* mantissa, const i32* row_shift, const Scale* scale, u32 bits,
                          u32 splits, i32* logits, u64* best, u32 vocabulary) {
    __shared__ u64 partial[32];
    const u32 row = blockIdx.y;
    const Scale row_scale = scale[row];
    const Product product = {accumulators, mantissa, row_shift, gridDim.y, vocabulary, bits, splits};
    i64 sums[ITEMS] = {};
#pragma unroll
    for (u32 j = 0; j < ITEMS; ++j)
        if (item_of(j) < vocabulary) sums[j] = product.sum(row, item_of(j));
    u64 key = 0;
#pragma unroll
    for (u32 j = 0; j < ITEMS; ++j) {
        const u32 n = item_of(j);
        if (n >= vocabulary) break;
        const i32 logit = saturate(product.rescaled(sums[j], n, row_scale));
        logits[static_cast<u64>(row) * vocabulary + n] = logit;
        key = max(key, ~order_key(logit, n));
    }
    key = block_reduce(key, partial, [](u64 a, u64 b) { return a > b ? a : b; });
    if (threadIdx.x == 0) atomicMax(best + row, key);
}
