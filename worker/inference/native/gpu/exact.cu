// Kernels of the exact engine: docs/exact-inference.md on a Hopper GPU, equal to the CPU engine in every byte.
//
// only: sm_90a
//
// A layer is: sums of qkv, prepare_heads, attention, sums of o, residual_norm, sums of gate_up, gated, quantise_rows,
// sums of down, residual_norm. For prompts, attention is attend_maxima, attend and quantise_attended; for long ones, o,
// gate_up and down end in their own registers (product_residual, product_gated). Answers' attention is attend_answers
// and quantise_rows, or for long contexts and odd head widths score_keys, add_values and finish_heads. Where rows are
// few, products are finished where they are made (stream_values, stream_residual, stream_gated) and norm_rows follows;
// one row alone is normed and quantised there too (stream_*_own). worker/inference/exact/gpu_pass.py puts them
// together; blocks of a kernel may start before its predecessor has ended (pipeline.cuh). Compile for sm_90a (wgmma).
//
// What binds, at the shape of Llama-3-8B on an H200: a prompt of 4 x 512, products (two thirds of the time, 1,300 to
// 1,480 TOP/s of 1,979), then attend and prepare_heads; an answer of one row, memory for 50 of 71 microseconds a layer,
// for the rest the ends of four products and three kernels between them.
//
// Tried, without gain: the whole decoding step as one cooperative launch (a warp of each block streaming weights into a
// ring through seven grid-wide barriers a layer; equal bytes, 3.8 to 4.4 ms against 3.6 for a graph of kernels). What
// every block has to compute for itself there (norms, quantised inputs: 5 to 8 microseconds each) costs more than the
// launches that it saves.
#include "worker/inference/native/gpu/attention_answers.cuh"
#include "worker/inference/native/gpu/attention_tensor.cuh"
#include "worker/inference/native/gpu/heads.cuh"
#include "worker/inference/native/gpu/product_ends.cuh"
#include "worker/inference/native/gpu/stream.cuh"
#include "worker/inference/native/sampling.hpp"

using namespace warpgrid;
using namespace warpgrid::exact;

#define KERNEL(threads) extern "C" __global__ __launch_bounds__(threads) void
#define KERNEL_RESIDENT(threads, blocks) extern "C" __global__ __launch_bounds__(threads, blocks) void
#define KERNEL_PAIR(threads) extern "C" __global__ __cluster_dims__(2, 1, 1) __launch_bounds__(threads, 1) void
#define KERNEL_LARGE(threads) extern "C" __global__ __cluster_dims__(2, 1, 1) __maxnreg__(LARGE_REGISTERS) void

// One block packs 16 rows, K_BLOCK columns of a matrix (layout.cuh).
KERNEL(128) pack_weights(i8* packed, const i8* weights, u32 outputs, u32 columns, u32 paired) {
    const u32 row = threadIdx.x / 8, part = threadIdx.x % 8;
    const u32 source = packed_source(blockIdx.y * WEIGHT_ROWS + row, outputs, paired != 0),
              column = blockIdx.x * K_BLOCK + part * 16;
    int4 bytes = {0, 0, 0, 0};
    if (source < outputs && column < columns)
        bytes = *reinterpret_cast<const int4*>(weights + static_cast<u64>(source) * columns + column);
    i8* block = packed + (static_cast<u64>(blockIdx.y) * gridDim.x + blockIdx.x) * WEIGHT_BLOCK_BYTES;
    *reinterpret_cast<int4*>(block + swizzled(row, part * 16)) = bytes;
}

#define PRODUCT(name, kernel, tile_rows, stages, cluster)                                                           \
    kernel(PRODUCT_THREADS)                                                                                         \
        name(i32* sums, const i8* weights, const i8* activations, u32 outputs, u32 rows, u32 columns, u32 splits) { \
        product<tile_rows, stages, cluster>({weights, activations, outputs, rows, columns, splits},                 \
                                            StoreSums{sums, outputs, rows});                                        \
    }

#define KERNEL_ALONE(threads) KERNEL_RESIDENT(threads, 2)  // this product and the one after next
PRODUCT(product_8, KERNEL_ALONE, 8, 6, 1)
PRODUCT(product_16, KERNEL_ALONE, 16, 6, 1)
PRODUCT(product_32, KERNEL_ALONE, 32, 5, 1)
PRODUCT(product_64, KERNEL_ALONE, 64, 4, 1)
PRODUCT(product_128, KERNEL_PAIR, 128, 6, 2)
PRODUCT(product_256, KERNEL_LARGE, 256, 4, 2)

#define PRODUCT_RESIDUAL(name, limbs)                                                                                \
    KERNEL_LARGE(PRODUCT_THREADS)                                                                                    \
    name(i32* residual, const i8* weights, const i8* activations, u32 outputs, u32 rows, u32 columns,                \
         const i32* mantissa, const i32* row_shift, const Scale* scale) {                                            \
        __shared__ Scale tile_scale[256];                                                                            \
        __shared__ i32 exponent_max;                                                                                 \
        if (threadIdx.x == 0) exponent_max = EXPONENT_MIN;                                                           \
        product<256, 4, 2>(                                                                                          \
            {weights, activations, outputs, rows, columns, 1},                                                       \
            AddToResidual<limbs>{residual, mantissa, row_shift, scale, {tile_scale, &exponent_max}, outputs, rows}); \
    }

PRODUCT_RESIDUAL(product_residual_8, 1)
PRODUCT_RESIDUAL(product_residual_16, 2)

KERNEL_LARGE(PRODUCT_THREADS)
product_gated(i32* hidden, const i8* weights, const i8* activations, u32 outputs, u32 rows, u32 columns,
              const i32* mantissa, const i32* row_shift, const Scale* scale, i32* hidden_max, const i32* sigmoid,
              i32 hidden_fraction) {
    __shared__ i32 table[SIGMOID_ENTRIES], tile_max[256];
    __shared__ Scale tile_scale[256];
    __shared__ i32 exponent_max;
    if (threadIdx.x == 0) exponent_max = EXPONENT_MIN;
    for (u32 i = threadIdx.x; i < SIGMOID_ENTRIES; i += blockDim.x) table[i] = sigmoid[i];
    const Gate gate = {hidden, hidden_max, tile_max, {tile_scale, &exponent_max}, table, mantissa, row_shift, scale,
                       outputs / 2, rows, hidden_fraction};
    product<256, 4, 2>({weights, activations, outputs, rows, columns, 1}, gate);
}

// A table of 4,096 words on its way into the L2 cache, which a layer's weights have swept since it was last read.
__device__ __forceinline__ void prefetch_table(const i32* table) {
    for (u32 i = 32 * threadIdx.x; i < 4096; i += 32 * blockDim.x) prefetch_line(table + i);
}

// Rows of the embedding, the residual's boundary 0; resets what the steps of this pass accumulate.
KERNEL(1024) embed(i32* residual, const i8* embedding, const u16* mantissa, const i8* exponent, const i32* token,
                   u32 width, i32 fraction, u64* best, u32* claimed, u32 layers) {
    take_turn();
    const u64 row = blockIdx.x, from = static_cast<u64>(token[row]);
    if (threadIdx.x == 0) best[row] = 0;
    for (u32 layer = threadIdx.x; row == 0 && layer < layers; layer += blockDim.x) claimed[layer] = 0;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x)
        residual[row * width + i] =
            embedding_value(embedding[from * width + i], mantissa[from], exponent[from], fraction);
}

// Where `sums` is not null: residual += the product. Where `out` is not null: the row quantised for the next product.
// Where `boundary` is not null: the residual row for the trace. `rows_wanted` chooses rows, or is null for all.
KERNEL(1024)
residual_norm(i32* residual, const i32* sums, const i32* mantissa, const i32* row_shift, const Scale* in_scale,
              u32 in_bits, u32 splits, i8* out, u32 out_bits, u32 block_bytes, Scale* out_scale, u32 width,
              i32 fraction, u64 epsilon_q48, i32* boundary, u64 boundary_stride, const i32* rows_wanted,
              i32* hidden_max, i32* attended_max) {
    allow_next();
    const Product product = {sums, mantissa, row_shift, gridDim.x, width, in_bits, splits};
    if (sums)
        for (u32 i = 4 * threadIdx.x; i < width; i += 4 * blockDim.x) product.prefetch(i);
    await_previous();
    const u32 row = rows_wanted ? static_cast<u32>(rows_wanted[blockIdx.x]) : blockIdx.x;
    i32* from = residual + static_cast<u64>(row) * width;
    const Scale row_scale = sums ? in_scale[row] : Scale{};
    Quad x[ROW_QUADS] = {};
#pragma unroll
    for (u32 j = 0; j < ROW_QUADS; ++j) {
        const u32 i = 4 * (threadIdx.x + j * blockDim.x);
        if (i < width) x[j] = load_quad(from + i);
    }
#pragma unroll
    for (u32 j = 0; j < ROW_QUADS; ++j) {
        const u32 i = 4 * (threadIdx.x + j * blockDim.x);
        if (i >= width) break;
        if (sums) {
            i64 four[4];
            product.sum_four(four, row, i);
#pragma unroll
            for (u32 part = 0; part < 4; ++part)
                x[j].value[part] = saturate(x[j].value[part] + product.output(four[part], i + part, row_scale));
            store_quad(from + i, x[j]);
        }
        if (boundary) store_quad(boundary + row * boundary_stride + i, x[j]);
    }
    if (threadIdx.x == 0) hidden_max[row] = attended_max[row] = 1;
    if (out)
        norm_row({out, out_bits, block_bytes}, blockIdx.x, out_scale + blockIdx.x, x, width, fraction, epsilon_q48);
}

// residual_norm where there is no product to add and each thread has four values: the short code of an answer alone, as
// each layer fetches it again.
KERNEL_RESIDENT(1024, 2)
norm_rows(const i32* residual, i8* out, u32 out_bits, u32 block_bytes, Scale* out_scale, u32 width, i32 fraction,
          u64 epsilon_q48, i32* boundary, u64 boundary_stride, const i32* rows_wanted, i32* hidden_max,
          i32* attended_max) {
    take_turn();
    const u32 row = rows_wanted ? static_cast<u32>(rows_wanted[blockIdx.x]) : blockIdx.x, i = 4 * threadIdx.x;
    Quad x[1] = {};
    if (i < width) x[0] = load_quad(residual + static_cast<u64>(row) * width + i);
    if (boundary && i < width) store_quad(boundary + row * boundary_stride + i, x[0]);
    if (threadIdx.x == 0) hidden_max[row] = attended_max[row] = 1;
    if (out)
        norm_row({out, out_bits, block_bytes}, blockIdx.x, out_scale + blockIdx.x, x, width, fraction, epsilon_q48);
}

constexpr u32 HEADS_OF_BLOCK = 8;

// One warp for each head of row blockIdx.x.
KERNEL(32 * HEADS_OF_BLOCK)
prepare_heads(const i32* sums, const i32* mantissa, const i32* row_shift, const Scale* scale, u32 bits, u32 splits,
              const i32* bias, const Heads* state, const i32* query_norm, const i32* key_norm, u8* kv_rows, u32 layer) {
    allow_next();
    const u32 row = blockIdx.x, head = blockIdx.y * HEADS_OF_BLOCK + threadIdx.x / 32;
    Heads heads = *state;
    heads.query_norm = query_norm;
    heads.key_norm = key_norm;
    heads.kv_rows = kv_rows;
    const u32 all = heads.heads + 2 * heads.kv_heads;
    const Product product = {sums, mantissa, row_shift, gridDim.x, all * heads.head_width, bits, splits};
    for (u32 i = threadIdx.x % 32; splits > 0 && head < all && i < heads.head_width; i += 32)
        product.prefetch(head * heads.head_width + i);
    prefetch_angles(heads, row);
    await_previous();
    if (head >= all) return;
    if (splits == 0) {  // finished (stream_values)
        prepare_head(heads, layer, row, head, [&](u32 n) { return sums[static_cast<u64>(row) * product.outputs + n]; });
        return;
    }
    const Scale row_scale = scale[row];
    prepare_head(heads, layer, row, head, [&](u32 n) {
        return saturate(product.output(product.sum(row, n), n, row_scale) + (bias ? bias[n] : 0));
    });
}

// In clusters of gridDim.z blocks.
#define ATTEND_ANSWERS(width)                                                                         \
    KERNEL_RESIDENT(ANSWER_THREADS, 4)                                                                \
    attend_answers_##width(const Attention* attention, u32 layer, i32* attended, i32* attended_max) { \
        __shared__ __align__(16) AnswerMemory<width> memory;                                          \
        const Attention a = *attention;                                                               \
        Answer<width> answer(a, memory, layer);                                                       \
        allow_next();                                                                                 \
        prefetch_table(a.exp2);                                                                       \
        if (gridDim.x * gridDim.y * gridDim.z < ANSWER_PREFETCH_BLOCKS) answer.prefetch();            \
        await_previous();                                                                             \
        answer.load_queries();                                                                        \
        answer.score();                                                                               \
        answer.add_values();                                                                          \
        answer.finish(attended, attended_max);                                                        \
    }
ATTEND_ANSWERS(64)
ATTEND_ANSWERS(128)

KERNEL_RESIDENT(128, 8) score_keys_1(const Attention* attention, u32 layer) {
    const Tile tile = tile_of(*attention, blockIdx.x, blockIdx.y, blockIdx.z);
    allow_next();
    prefetch_pages(*attention, tile, layer);
    await_previous();
    score_keys<HEADS_OF_TILE, BlockCrew>(*attention, tile, layer);
}
KERNEL_RESIDENT(128, 4) score_keys_4(const Attention* attention, u32 layer) {
    const Tile tile = tile_of(*attention, blockIdx.x, blockIdx.y, blockIdx.z);
    allow_next();
    prefetch_pages(*attention, tile, layer);
    await_previous();
    score_keys<4 * HEADS_OF_TILE, BlockCrew>(*attention, tile, layer);
}
KERNEL_RESIDENT(256, 4) add_values_1(const Attention* attention, u32 layer) {
    allow_next();
    prefetch_table(attention->exp2);
    await_previous();
    add_values<HEADS_OF_TILE, BlockCrew>(*attention, tile_of(*attention, blockIdx.x, blockIdx.y, blockIdx.z), layer);
}
KERNEL_RESIDENT(256, 2) add_values_4(const Attention* attention, u32 layer) {
    allow_next();
    prefetch_table(attention->exp2);
    await_previous();
    add_values<4 * HEADS_OF_TILE, BlockCrew>(*attention, tile_of(*attention, blockIdx.x, blockIdx.y, blockIdx.z),
                                             layer);
}

#define ATTEND_MAXIMA(width)                                                                               \
    KERNEL_RESIDENT(32 * TENSOR_WARPS, 6) attend_maxima_##width(const Attention* attention, u32 layer) { \
        take_turn();                                                                                     \
        attend_maxima<width>(*attention, layer);                                                         \
    }
ATTEND_MAXIMA(64)
ATTEND_MAXIMA(128)

#define ATTEND(width)                                                                                   \
    KERNEL_RESIDENT(32 * TENSOR_WARPS, 2) attend_##width(const Attention* attention, u32 layer, i32* attended) { \
        __shared__ i32 exp2[4096];                                                                      \
        allow_next();                                                                                   \
        for (u32 i = threadIdx.x; i < 4096; i += blockDim.x) exp2[i] = attention->exp2[i];              \
        __syncthreads();                                                                                \
        await_previous();                                                                               \
        attend<width>(*attention, layer, exp2, attended);                                               \
    }
ATTEND(64)
ATTEND(128)

// A row of attended values, whose largest magnitude is at most the block's largest `a`, quantised for `o`.
__device__ __forceinline__ void quantise_attended_row(const i32* attended, i32 a, u32 width, const Quantised& to,
                                                      Scale* scale) {
    __shared__ i32 partial[32];
    const u32 row = blockIdx.x;
    a = crew_reduce<BlockCrew>(a, partial, Larger());
    const i64 reciprocal = reciprocal_of(to.bits, a);
#pragma unroll 4
    for (u32 i = 4 * threadIdx.x; i < width; i += 4 * blockDim.x)
        store_quantised(to, row, i, width, load_quad(attended + static_cast<u64>(row) * width + i), reciprocal);
    if (threadIdx.x == 0) scale[row] = plain_scale(static_cast<u64>(a), 16);
}

KERNEL(1024) quantise_attended(const i32* attended, i8* out, u32 bits, u32 block_bytes, Scale* scale, u32 width) {
    take_turn();
    i32 a = 1;
#pragma unroll 4
    for (u32 i = 4 * threadIdx.x; i < width; i += 4 * blockDim.x)
        a = max(a, magnitude(load_quad(attended + static_cast<u64>(blockIdx.x) * width + i)));
    quantise_attended_row(attended, a, width, {out, bits, block_bytes}, scale);
}

// The outputs of all heads of a row, quantised for `o`; leaves the running results of attention as they were at first.
KERNEL(1024) finish_heads(i32* score_max, i32* reach_max, u64* denominator, u64* numerator, i32* attended, i8* out,
                          u32 bits, u32 block_bytes, Scale* scale, u32 heads, u32 h) {
    take_turn();
    __shared__ HeadScale scales[256];
    const u64 row = blockIdx.x;
    const u32 width = heads * h;
    for (u32 head = threadIdx.x; head < heads; head += blockDim.x) {
        const u64 at = row * heads + head;
        scales[head] = head_scale(denominator[at], attention_shift(score_max[at], reach_max[at]));
        score_max[at] = reach_max[at] = -SCORE_MAX;
        denominator[at] = 0;
    }
    __syncthreads();
    i32 a = 1;
#pragma unroll 4
    for (u32 i = 4 * threadIdx.x; i < width; i += 4 * blockDim.x) {
        ulonglong2* at = reinterpret_cast<ulonglong2*>(numerator + row * width + i);
        const ulonglong2 low = at[0], high = at[1];
        at[0] = at[1] = {0, 0};
        const HeadScale& head = scales[i / h];
        const Quad o = {head.output(static_cast<i64>(low.x)), head.output(static_cast<i64>(low.y)),
                        head.output(static_cast<i64>(high.x)), head.output(static_cast<i64>(high.y))};
        store_quad(attended + row * width + i, o);
        a = max(a, magnitude(o));
    }
    quantise_attended_row(attended, a, width, {out, bits, block_bytes}, scale);
}

// The kernels that follow give each block 4 * 256 neighbouring values of a row (blockIdx.y).
__device__ __forceinline__ u32 first_item() { return 4 * (blockIdx.x * blockDim.x + threadIdx.x); }

// Gated units of a row's part, and the largest of them.
KERNEL(256) gated(const i32* sums, const i32* mantissa, const i32* row_shift, const Scale* scale, u32 bits, u32 splits,
                  i32* hidden, i32* hidden_max, const i32* sigmoid, u32 f, i32 hidden_fraction) {
    __shared__ i32 partial[32];
    allow_next();
    const u32 row = blockIdx.y, i = first_item();
    const Product product = {sums, mantissa, row_shift, gridDim.y, 2 * f, bits, splits};
    if (i < f) product.prefetch(i), product.prefetch(f + i);
    prefetch_table(sigmoid);
    await_previous();
    const Scale row_scale = scale[row];
    i32 a = 1;
    if (i < f) {
        i64 gates[4], ups[4];
        product.sum_four(gates, row, gate_place(i));
        product.sum_four(ups, row, gate_place(i) + 8);
        Quad z;
#pragma unroll
        for (u32 j = 0; j < 4; ++j) {
            const i32 gate = saturate(product.output(gates[j], i + j, row_scale));
            const i32 up = saturate(product.output(ups[j], f + i + j, row_scale));
            z.value[j] = gated_unit(gate, up, sigmoid, hidden_fraction);
        }
        store_quad(hidden + static_cast<u64>(row) * f + i, z);
        a = magnitude(z);
    }
    a = crew_reduce<BlockCrew>(a, partial, Larger());
    if (threadIdx.x == 0) atomicMax(hidden_max + row, a);
}

// A row's part, quantised for the next product; `row_max` has the largest magnitude of each row.
KERNEL(256)
quantise_rows(const i32* rows, const i32* row_max, i8* out, u32 bits, u32 block_bytes, Scale* scale, u32 width,
              i32 fraction) {
    take_turn();
    const u32 row = blockIdx.y, i = first_item();
    const i32 a = row_max[row];
    if (i < width)
        store_quantised({out, bits, block_bytes}, row, i, width, load_quad(rows + static_cast<u64>(row) * width + i),
                        reciprocal_of(bits, a));
    if (i == 0) scale[row] = plain_scale(static_cast<u64>(a), fraction);
}

// Products of few rows, finished where they are made (stream.cuh); `own`: of a row that blocks quantise for themselves.
#define KERNEL_STREAM KERNEL_RESIDENT(STREAM_THREADS, 3)
#define STREAM_ARGUMENTS                                                                                            \
    const i8 *weights, u32 outputs, u32 rows, u32 columns, u32 stages, u32 bits, u32 *claimed, const i32 *mantissa, \
        const i32 *row_shift
#define STREAM_OPERANDS(activations) {weights, activations, outputs, rows, columns, stages, claimed}
#define STREAM_SCALES(scale) {mantissa, row_shift, scale, rows * 8 / bits, bits / 8}
#define OWN_ROW_ARGUMENTS \
    const i32 *row, const i32 *largest, i32 *boundary, i32 *hidden_max, i32 *attended_max, u64 epsilon_q48, i32 fraction
#define OWN_ROW OwnRow{row, largest, boundary, hidden_max, attended_max, epsilon_q48, fraction}

KERNEL_STREAM stream_values(STREAM_ARGUMENTS, const i8* activations, const Scale* scale, i32* values, const i32* bias) {
    stream_product(STREAM_OPERANDS(activations), Fetched{}, StreamValues{values, bias, STREAM_SCALES(scale), outputs});
}

KERNEL_STREAM stream_values_own(STREAM_ARGUMENTS, OWN_ROW_ARGUMENTS, i32* values, const i32* bias) {
    stream_product(STREAM_OPERANDS(nullptr), OWN_ROW, StreamValues{values, bias, STREAM_SCALES(nullptr), outputs});
}

KERNEL_STREAM stream_residual(STREAM_ARGUMENTS, const i8* activations, const Scale* scale, i32* residual) {
    stream_product(STREAM_OPERANDS(activations), Fetched{}, StreamResidual{residual, STREAM_SCALES(scale), outputs});
}

KERNEL_STREAM stream_residual_own(STREAM_ARGUMENTS, OWN_ROW_ARGUMENTS, i32* residual) {
    stream_product(STREAM_OPERANDS(nullptr), OWN_ROW, StreamResidual{residual, STREAM_SCALES(nullptr), outputs});
}

KERNEL_STREAM stream_gated(STREAM_ARGUMENTS, const i8* activations, const Scale* scale, i32* hidden,
                           i32* largest_hidden, const i32* sigmoid, i32 hidden_fraction) {
    stream_product(STREAM_OPERANDS(activations), Fetched{},
                   StreamGated{hidden, largest_hidden, STREAM_SCALES(scale), sigmoid, outputs / 2, hidden_fraction});
}

KERNEL_STREAM stream_gated_own(STREAM_ARGUMENTS, OWN_ROW_ARGUMENTS, i32* hidden, i32* largest_hidden,
                               const i32* sigmoid, i32 hidden_fraction) {
    stream_product(STREAM_OPERANDS(nullptr), OWN_ROW,
                   StreamGated{hidden, largest_hidden, STREAM_SCALES(nullptr), sigmoid, outputs / 2, hidden_fraction});
}

// Logits of a part of the vocabulary, and the key of the greedy choice: `best` grows to the largest logit with the
// lowest index.
KERNEL(256) finish_logits(const i32* sums, const i32* mantissa, const i32* row_shift, const Scale* scale, u32 bits,
                          u32 splits, i32* logits, u64* best, u32 vocabulary) {
    __shared__ u64 partial[32];
    allow_next();
    const u32 row = blockIdx.y;
    const Product product = {sums, mantissa, row_shift, gridDim.y, vocabulary, bits, splits};
#pragma unroll
    for (u32 j = 0; j < 4; ++j) {
        const u32 n = (blockIdx.x * 4 + j) * blockDim.x + threadIdx.x;
        if (n < vocabulary) product.prefetch(n);
    }
    await_previous();
    const Scale row_scale = scale[row];
    i64 four[4] = {};
#pragma unroll
    for (u32 j = 0; j < 4; ++j) {
        const u32 n = (blockIdx.x * 4 + j) * blockDim.x + threadIdx.x;  // any vocabulary: rows are not aligned
        if (n < vocabulary) four[j] = product.sum(row, n);
    }
    u64 key = 0;
#pragma unroll
    for (u32 j = 0; j < 4; ++j) {
        const u32 n = (blockIdx.x * 4 + j) * blockDim.x + threadIdx.x;
        if (n >= vocabulary) break;
        const i32 logit = saturate(product.output(four[j], n, row_scale));
        logits[static_cast<u64>(row) * vocabulary + n] = logit;
        key = max(key, ~order_key(logit, n));
    }
    key = crew_reduce<BlockCrew>(key, partial, Larger());
    if (threadIdx.x == 0) atomicMax(best + row, key);
}
