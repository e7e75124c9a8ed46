// What the forward pass works on: the packed model, a batch of rows, the key-value cache's pages, and the buffers
// between steps. Owns no memory: all of it comes from the host.
#pragma once

#include "worker/inference/native/cpu/matmul.hpp"
#include "worker/inference/native/operations.hpp"

namespace WG_EXACT_NAMESPACE {

constexpr u32 PAGE_POSITIONS = 64;
static_assert(PAGE_POSITIONS == BLOCK_OUTPUTS, "a page of keys is a block whose outputs are its positions");
constexpr u32 HEAD_WIDTH_MAX = 256;
constexpr u32 QUERIES_MAX = 6;  // that attend together

// A weight matrix, packed (cpu/matmul.hpp). `row_shift[n]` is -(8 + e_n + n') with n' the output's fraction.
struct Matrix {
    const i8* weights;
    const i32* corrections;
    const u16* mantissa;
    const i16* row_shift;
    const i32* bias;  // Q12, or null
    u32 rows;
    u32 columns;
    u32 bits;  // of the activations: 8 or 16
};

WG_FN u32 limbs_of(const Matrix& matrix) { return matrix.bits / 8; }

struct Layer {
    Matrix qkv, o;
    Matrix gate_up;  // blocks of 64 gates and of their 64 ups, in turn
    Matrix down;
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
    u8* roots;         // [rows][32]: of each position's part of the trace, or null. There where the next two are
    i32* boundaries;   // [rows][layers + 1][width]: the residual at every boundary, or null
    u8* kv_rows;       // [rows][layers][kv_row_bytes], canonical bytes, or null
};

// One key-value page of one head, as two blocks of cpu/matmul.hpp and five columns of PAGE_POSITIONS numbers:
//   keys [h / 4][64 positions][4] i8 · values [64 / 4][h][4] i8
// A page starts as zeros: positions that were never written give scores that are never used.
struct PageView {
    i8* keys;
    i8* values;
    i32* key_correction;  // 128 * sum of the key
    i32* key_mantissa;
    i32* key_exponent;
    i32* value_max;
    i32* value_reach;  // 2^16 * bl(value_max)
};

WG_FN u64 page_head_bytes(u32 head_width) { return PAGE_POSITIONS * (2ull * head_width + 20); }

WG_FN PageView page_view(u8* cache, const Model& model, u64 page, u32 layer, u32 head) {
    const u64 index = (page * model.layers + layer) * model.kv_heads + head;
    i8* base = reinterpret_cast<i8*>(cache + index * page_head_bytes(model.head_width));
    const u64 tensor = static_cast<u64>(PAGE_POSITIONS) * model.head_width;
    i32* column = reinterpret_cast<i32*>(base + 2 * tensor);
    return {base, base + tensor, column, column + PAGE_POSITIONS, column + 2 * PAGE_POSITIONS,
            column + 3 * PAGE_POSITIONS, column + 4 * PAGE_POSITIONS};
}

WG_FN u32 kv_row_bytes(const Model& model) { return model.kv_heads * (2 * model.head_width + 8); }

// The trace's hashes, of whose instruction sets the host knows.
struct TraceHashes {
    // Digests of `count` rows of `size` bytes; rows and digests are so many bytes apart.
    void (*rows)(u8* digests, u64 digest_stride, const u8* rows, u64 row_stride, u64 size, u64 count);
    // roots[count][32] from leaves[count][leaves_each][32]; `nodes` is room for half as many digests.
    void (*roots)(u8* roots, u8* nodes, const u8* leaves, u64 leaves_each, u64 count);
};

constexpr u64 DIGEST_BYTES = 32;

// Leaves of one position (docs/trace.md, section 1).
WG_FN u64 leaves_each(u32 layers) { return 1ull << bit_length(2ull * layers + 1); }

// Rows at most whose inputs to a linear layer every thread quantises for itself, which is quicker than to wait for
// others.
constexpr u32 OWN_ROWS_MAX = 2;

// Buffers shared by all threads, sized by the host for `rows_max` rows. Queries are in the order in which attention
// takes them: those of one key-value head side by side, row after row.
struct Workspace {
    i32* residual;     // [rows][width]
    i32* wide;         // [rows][max of qkv, feed forward]: outputs of qkv and of the gated unit
    i32* attended;     // [rows][heads * head_width]
    u8* quantised;     // [rows][2][max columns]: activations + 128; the second half of a row is the low limb
    Scale* scale;      // [rows]
    u8* own_quantised;  // [threads][OWN_ROWS_MAX][2][max columns]: the same, of a thread's own
    u64 own_bytes;      // of one thread
    u8* queries;       // [kv heads][rows][heads / kv heads][head_width]: queries + 128
    Mantissa* query_scale;  // the same without head_width: mant(a_q * Cm), its exponent increased by Ce
    i32* scores;       // [threads][QUERIES_MAX][context_max, in whole pages]
    u8* cache;
    u8* kv_rows;       // [rows][kv_row_bytes] of one layer, for the trace
    u8* leaves;        // [rows][leaves_each][32]; those that are no row's are zero
    u8* nodes;         // half as many
    TraceHashes hashes;
};

}  // namespace WG_EXACT_NAMESPACE
