// A whole decoding step of a few rows in one launch: every layer, the logits and the greedy choice.
//
// One block a multiprocessor stays from embedding to logits. A warp of it does nothing but fetch this block's share of
// the weights, in order, into a ring in shared memory; weights depend on nothing, so it runs ahead through every barrier,
// and memory is busy while the other eight warps wait for each other. Those multiply (mma.sync m16n8k32: sixteen weight
// rows by up to eight activation rows, limbs counted), finish values, and meet at grid-wide barriers where a step needs
// all of a row: seven a layer. What every block needs of a row (maximum, norm, quantised input) every block computes for
// itself, which costs less than a barrier.
//
// Floor: the weights once at the memory's rate. The ring holds what memory delivers in about five microseconds, so a stall
// shorter than that is free; attention's four barriers in a row are longer. Of the ring only FLYING stages are on their way
// at once. One launch for each step in exact.cu (about 13
// a layer) stood at 43 % of the floor for one row of a Llama-3-8B shape: each start and end leaves memory idle for 2 to 3
// microseconds.
//
// Launched cooperatively, with as many blocks as multiprocessors. Rows belong to different sequences.
#include "worker/inference/native/gpu/attention_tensor.cuh"
#include "worker/inference/native/gpu/heads.cuh"
#include "worker/inference/native/gpu/pipeline.cuh"
#include "worker/inference/native/sampling.hpp"

using namespace warpgrid;
using namespace warpgrid::exact;

constexpr u32 WORKERS = 256;  // threads that multiply; one warp more fetches
constexpr u32 WARPS = WORKERS / 32;
constexpr u32 STAGE_BLOCKS = WARPS;  // K blocks of a stage, one for each warp
constexpr u32 STAGE_BYTES = STAGE_BLOCKS * WEIGHT_BLOCK_BYTES;
constexpr u32 STAGES_MAX = 14;
constexpr u32 FLYING = 3;  // stages on their way at any time: enough for the bandwidth
constexpr u32 ROWS_MAX = 8;  // activation rows, limbs counted
constexpr u32 NO_BOUNDARY = ~0u;
constexpr u32 HEADS_MAX = 512;  // of all rows

struct MatrixView {
    const i8* weights;
    const i32* mantissa;
    const i32* row_shift;
    const i32* bias;
    u32 outputs, columns, bits, unused;

    __device__ __forceinline__ u32 limbs() const { return bits / 8; }
};

struct LayerView {
    MatrixView qkv, o, gate_up, down;
    const i32* query_norm;
    const i32* key_norm;
};

// Everything that a step reads and writes. gpu_decode.py has the same structs.
struct Step {
    const LayerView* layer;
    MatrixView head;
    Attention attention;
    Heads heads;
    const i8* embedding;
    const u16* embedding_mantissa;
    const i8* embedding_exponent;
    const i32* token;
    const i32* sigmoid;
    i32* residual;     // [rows][width]
    i32* values;       // [rows][outputs of qkv], Q12
    i32* hidden;       // [rows][f]
    i32* hidden_max;   // [rows]
    i32* logits;       // [rows][vocabulary]
    u64* best;         // [rows]
    i32* boundaries;   // [rows][layers + 1][width] for the trace, or null
    u32* arrivals;     // of blocks: at barriers, at the end
    u32 rows, layers, width, feed_forward, vocabulary, splits, stages, unused;
    i32 residual_fraction, hidden_fraction;
};

struct Workers {
    static __device__ __forceinline__ u32 thread() { return threadIdx.x; }
    static __device__ __forceinline__ u32 threads() { return WORKERS; }
    static __device__ __forceinline__ void sync() { asm volatile("bar.sync 1, 256;" ::: "memory"); }
};

// The next stage of the ring, for whoever fills or empties it.
struct Cursor {
    u32 base, full, empty, stages;
    u32 stage = 0, parity = 0;

    __device__ __forceinline__ u32 at() const { return base + stage * STAGE_BYTES; }
    __device__ __forceinline__ u32 filled() const { return full + 8 * stage; }
    __device__ __forceinline__ u32 emptied() const { return empty + 8 * stage; }
    __device__ __forceinline__ void advance() {
        if (++stage < stages) return;
        stage = 0;
        parity ^= 1;
    }
};

__device__ __forceinline__ u32 units_of(const MatrixView& m) { return (m.outputs + WEIGHT_ROWS - 1) / WEIGHT_ROWS; }

// This block's share of a matrix, by one thread. `landed` follows FLYING stages behind `ring`.
__device__ __forceinline__ void fetch(const MatrixView& m, Cursor& ring, Cursor& landed, u32& issued) {
    const u32 blocks = k_blocks(m.columns), units = units_of(m);
    for (u32 unit = blockIdx.x; unit < units; unit += gridDim.x) {
        const i8* from = m.weights + static_cast<u64>(unit) * blocks * WEIGHT_BLOCK_BYTES;
        for (u32 block = 0; block < blocks; block += STAGE_BLOCKS) {
            const u32 bytes = min(STAGE_BLOCKS, blocks - block) * WEIGHT_BLOCK_BYTES;
            barrier_wait(ring.emptied(), ring.parity ^ 1);
            barrier_expect(ring.filled(), bytes);
            copy_bulk(ring.at(), from + static_cast<u64>(block) * WEIGHT_BLOCK_BYTES, bytes, ring.filled());
            ring.advance();
            if (++issued < FLYING) continue;
            barrier_wait(landed.filled(), landed.parity);
            landed.advance();
        }
    }
}

// What the workers of a block share.
struct Shared {
    u64 full[STAGES_MAX], empty[STAGES_MAX];
    i32 sums[2][WEIGHT_ROWS][ROWS_MAX];  // of two units in turn
    Scale scale[ROWS_MAX];               // of each row's quantised input
    i32 partial_max[32];
    u64 partial_sum[32];
    HeadScale head[HEADS_MAX];
};

class Worker {
  public:
    __device__ Worker(const Step& step, Shared& shared, const Cursor& ring, u8* inputs)
        : s(step), shared(shared), ring(ring), inputs(inputs) {}

    __device__ void run() {
        embed();
        grid_barrier();
        for (u32 layer = 0; layer < s.layers; ++layer) {
            attend(layer);
            feed_forward(layer);
        }
        norm_input(s.head, s.layers);
        logits();
        Workers::sync();
        if (threadIdx.x == 0 && atomicAdd(s.arrivals + 1, 1) == gridDim.x - 1) s.arrivals[0] = s.arrivals[1] = 0;
    }

  private:
    const Step& s;
    Shared& shared;
    Cursor ring;
    u8* inputs;        // the quantised input: [rows * limbs][columns, padded], swizzled
    u32 unit_count = 0;
    u32 barriers = 0;

    // Every block has come here, and all see what all wrote before.
    __device__ __noinline__ void grid_barrier() {
        Workers::sync();
        ++barriers;
        if (threadIdx.x == 0) {
            __threadfence();
            atomicAdd(s.arrivals, 1);
            u32 arrived;
            do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(arrived) : "l"(s.arrivals) : "memory");
            while (arrived < barriers * gridDim.x);
            __threadfence();
        }
        Workers::sync();
    }

    // Inputs of products

    __device__ __forceinline__ u32* input_at(u32 row, u32 i, u32 stride) const {
        return reinterpret_cast<u32*>(inputs + row * stride + i / K_BLOCK * K_BLOCK + (((i % K_BLOCK / 16) ^ (row % 8)) * 16) + i % 16);
    }

    __device__ __forceinline__ void store_input(const MatrixView& m, u32 row, u32 i, const Quad& quad, i64 reciprocal) const {
        const QuantisedQuad packed = quantised_quad(quad, m.bits, reciprocal);
        const u32 stride = k_blocks(m.columns) * K_BLOCK, first = row * m.limbs();
        *input_at(first, i, stride) = packed.high;
        if (m.bits == 16) *input_at(first + 1, i, stride) = packed.low;
    }

    // Rows of the embedding, boundary 0, each by one block.
    __device__ void embed() {
        if (blockIdx.x >= s.rows) return;
        const u64 from = static_cast<u64>(s.token[blockIdx.x]);
#pragma unroll 1
        for (u32 i = threadIdx.x; i < s.width; i += WORKERS)
            s.residual[blockIdx.x * s.width + i] = embedding_value(s.embedding[from * s.width + i], s.embedding_mantissa[from],
                                                                   s.embedding_exponent[from], s.residual_fraction);
    }

    // Residual rows with the scales of their norms; as boundary number `boundary` into the trace, if it is one.
    __device__ __noinline__ void norm_input(const MatrixView& m, u32 boundary) {
        for (u32 row = 0; row < s.rows; ++row) {
            const i32* x = s.residual + static_cast<u64>(row) * s.width;
            i32 a = 1;
#pragma unroll 4
            for (u32 i = 4 * threadIdx.x; i < s.width; i += 4 * WORKERS) a = max(a, magnitude(load_quad(x + i)));
            a = largest_of_all(a);
            const i32 k = norm_shift(static_cast<u64>(a));
            const i64 reciprocal = reciprocal_of(m.bits, a);
            i32* kept = s.boundaries && boundary != NO_BOUNDARY && blockIdx.x == row
                            ? s.boundaries + (static_cast<u64>(row) * (s.layers + 1) + boundary) * s.width
                            : nullptr;
            u64 squares = 0;
#pragma unroll 2
            for (u32 i = 4 * threadIdx.x; i < s.width; i += 4 * WORKERS) {
                const Quad quad = load_quad(x + i);
                squares += squares_of(quad, k);
                store_input(m, row, i, quad, reciprocal);
                if (kept) store_quad(kept + i, quad);
            }
            squares = crew_reduce<Workers>(squares, shared.partial_sum, Sum());
            if (threadIdx.x == 0)
                shared.scale[row] = norm_scale(static_cast<u64>(a), squares, s.heads.epsilon_q48, s.width, s.residual_fraction);
        }
        Workers::sync();
    }

    __device__ __noinline__ i32 largest_of_all(i32 a) const { return crew_reduce<Workers>(a, shared.partial_max, Larger()); }

    __device__ void attended_input(const MatrixView& m) {
        const Attention& a = s.attention;
        const u32 h = a.head_width, width = a.heads * h;
        for (u32 at = threadIdx.x; at < s.rows * a.heads; at += WORKERS)
            shared.head[at] = head_scale(a.denominator[at], attention_shift(a.score_max[at], a.reach_max[at]));
        Workers::sync();
        for (u32 row = 0; row < s.rows; ++row) {
            auto load = [&](u32 i) {
                const ulonglong2* at = reinterpret_cast<const ulonglong2*>(a.numerator + static_cast<u64>(row) * width + i);
                const ulonglong2 low = at[0], high = at[1];
                const HeadScale& head = shared.head[row * a.heads + i / h];
                return Quad{head.output(static_cast<i64>(low.x)), head.output(static_cast<i64>(low.y)),
                            head.output(static_cast<i64>(high.x)), head.output(static_cast<i64>(high.y))};
            };
            i32 largest = 1;
#pragma unroll 2
            for (u32 i = 4 * threadIdx.x; i < width; i += 4 * WORKERS) largest = max(largest, magnitude(load(i)));
            largest = largest_of_all(largest);
            const i64 reciprocal = reciprocal_of(m.bits, largest);
#pragma unroll 2
            for (u32 i = 4 * threadIdx.x; i < width; i += 4 * WORKERS) store_input(m, row, i, load(i), reciprocal);
            if (threadIdx.x == 0) shared.scale[row] = plain_scale(static_cast<u64>(largest), 16);
        }
        Workers::sync();
    }

    __device__ void hidden_input(const MatrixView& m) {
        for (u32 row = 0; row < s.rows; ++row) {
            const i32 largest = s.hidden_max[row];
            const i64 reciprocal = reciprocal_of(m.bits, largest);
#pragma unroll 4
            for (u32 i = 4 * threadIdx.x; i < s.feed_forward; i += 4 * WORKERS)
                store_input(m, row, i, load_quad(s.hidden + static_cast<u64>(row) * s.feed_forward + i), reciprocal);
            if (threadIdx.x == 0) shared.scale[row] = plain_scale(static_cast<u64>(largest), s.hidden_fraction);
        }
        Workers::sync();
    }

    // Products

    // One K block of sixteen weight rows by the input, by one warp.
    __device__ __forceinline__ void multiply_block(i32 (&acc)[4], u32 weights, u32 block, u32 stride, u32 activation_rows) const {
        const u32 lane = threadIdx.x % 32, row = lane / 4;
#pragma unroll
        for (u32 k = 0; k < K_BLOCK; k += 32) {
            u32 a[4], b[2] = {0, 0};
            const u32 at = weights + swizzled(lane % 16, k + lane / 16 * 16);
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                         : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                         : "r"(at)
                         : "memory");
            if (row < activation_rows) {
                b[0] = *input_at(row, block * K_BLOCK + k + lane % 4 * 4, stride);
                b[1] = *input_at(row, block * K_BLOCK + k + 16 + lane % 4 * 4, stride);
            }
            mma_s8(acc, a, b[0], b[1]);
        }
    }

    // An output that a thread finishes: number `n` of row `row`, of which `before` was there already (a bias, a residual).
    // In a matrix of pairs, the thread eight lanes on has the up that belongs to this one's gate.
    struct Output {
        u32 n, row;
        bool there;
        i32 mantissa, row_shift, before;
    };

    // What is known of a unit before its sums are: loads that would cost a trip to memory afterwards.
    template <typename Before>
    __device__ __forceinline__ Output output_of(const MatrixView& m, u32 unit, bool paired, const Before& before) const {
        const u32 q = threadIdx.x / ROWS_MAX, column = threadIdx.x % ROWS_MAX;
        Output output = {packed_source(unit * WEIGHT_ROWS + place_of(q), m.outputs, paired), column / m.limbs(), false, 0, 0, 0};
        output.there = q < WEIGHT_ROWS && column < s.rows * m.limbs() && column % m.limbs() == 0 && output.n < m.outputs;
        if (output.there) {
            output.mantissa = m.mantissa[output.n];
            output.row_shift = m.row_shift[output.n];
            output.before = before(output.n, output.row);
        }
        return output;
    }

    static __device__ __forceinline__ u32 place_of(u32 q) { return q % 2 * 8 + q / 2; }

    // This block's share of a product: `finish(output, value)` is called by 128 threads for each of its units.
    template <typename Before, typename Finish>
    __device__ __forceinline__ void multiply(const MatrixView& m, bool paired, const Before& before, const Finish& finish) {
        const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, blocks = k_blocks(m.columns), units = units_of(m);
        const u32 activation_rows = s.rows * m.limbs();
        for (u32 unit = blockIdx.x; unit < units; unit += gridDim.x, ++unit_count) {
            const Output output = output_of(m, unit, paired, before);
            i32 acc[4] = {};
            for (u32 block = warp; block < blocks + warp; block += STAGE_BLOCKS, ring.advance()) {
                barrier_wait(ring.filled(), ring.parity);
                if (block < blocks)
                    multiply_block(acc, ring.at() + warp * WEIGHT_BLOCK_BYTES, block, blocks * K_BLOCK, activation_rows);
                __syncwarp();
                if (lane == 0) barrier_arrive(ring.emptied());
            }
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                const u32 column = lane % 4 * 2 + i % 2;
                if (column < activation_rows) atomicAdd(&shared.sums[unit_count % 2][lane / 4 + i / 2 * 8][column], acc[i]);
            }
            Workers::sync();
            if (threadIdx.x >= WEIGHT_ROWS * ROWS_MAX) continue;
            i64 value = 0;
            if (output.there) {
                const i64 sum = take(m, place_of(threadIdx.x / ROWS_MAX), threadIdx.x % ROWS_MAX);
                const Scale scale = shared.scale[output.row];
                value = m.bits == 8 ? linear_output(static_cast<i32>(sum), output.mantissa, output.row_shift, scale)
                                    : linear_output(sum, output.mantissa, output.row_shift, scale);
            }
            finish(output, value);
        }
    }

    // The sum of a finished unit, both limbs; leaves zeros for the unit after the next.
    __device__ __forceinline__ i64 take(const MatrixView& m, u32 place, u32 column) const {
        i32* at = &shared.sums[unit_count % 2][place][column];
        const i32 high = at[0], low = m.bits == 16 ? at[1] : 0;
        at[0] = 0;
        if (m.bits == 16) at[1] = 0;
        return m.bits == 16 ? 256 * static_cast<i64>(high) + low : high;
    }

    __device__ __forceinline__ void add_to_residual(const MatrixView& m) {
        auto residual = [&](u32 n, u32 row) -> i32& { return s.residual[static_cast<u64>(row) * s.width + n]; };
        multiply(m, false, residual, [&](const Output& output, i64 value) {
            if (output.there) residual(output.n, output.row) = saturate(output.before + value);
        });
    }

    // Steps of a layer

    __device__ void attend(u32 layer) {
        const LayerView& l = s.layer[layer];
        norm_input(l.qkv, layer);
        multiply(
            l.qkv, false, [&](u32 n, u32) { return l.qkv.bias ? l.qkv.bias[n] : 0; },
            [&](const Output& output, i64 value) {
                if (output.there) s.values[static_cast<u64>(output.row) * l.qkv.outputs + output.n] = saturate(value + output.before);
            });
        grid_barrier();
        prepare(layer, l);
        grid_barrier();
        const Attention& a = s.attention;
        const u32 group = a.heads / a.kv_heads, groups = a.kv_heads * ((group + HEADS_OF_TILE - 1) / HEADS_OF_TILE);
        const u32 units = s.rows * groups * s.splits;
        auto tile = [&](u32 unit) { return tile_of(a, unit / groups % s.rows, unit % groups, unit / groups / s.rows); };
        for (u32 unit = blockIdx.x; unit < units; unit += gridDim.x) score_keys<HEADS_OF_TILE, Workers>(a, tile(unit), layer);
        grid_barrier();
        for (u32 unit = blockIdx.x; unit < units; unit += gridDim.x) add_values<HEADS_OF_TILE, Workers>(a, tile(unit), layer);
        grid_barrier();
        attended_input(l.o);
        add_to_residual(l.o);
        grid_barrier();
    }

    // Heads, one warp each, spread over the blocks; and what later steps of this layer grow begins anew.
    __device__ void prepare(u32 layer, const LayerView& l) {
        Heads heads = s.heads;
        heads.query_norm = l.query_norm;
        heads.key_norm = l.key_norm;
        const u32 count = heads.heads + 2 * heads.kv_heads;
        for (u32 unit = blockIdx.x + threadIdx.x / 32 * gridDim.x; unit < s.rows * count; unit += WARPS * gridDim.x) {
            const u32 row = unit / count;
            const i32* values = s.values + static_cast<u64>(row) * l.qkv.outputs;
            prepare_head(heads, layer, row, unit % count, [&](u32 n) { return values[n]; });
        }
        if (blockIdx.x != gridDim.x - 1 || threadIdx.x >= s.rows) return;
        s.hidden_max[threadIdx.x] = 1;
        if (layer == 0) s.best[threadIdx.x] = 0;
    }

    __device__ void feed_forward(u32 layer) {
        const LayerView& l = s.layer[layer];
        forget_attention();
        norm_input(l.gate_up, NO_BOUNDARY);
        i32 largest = 0;
        multiply(
            l.gate_up, true, [](u32, u32) { return 0; },
            [&](const Output& output, i64 value) {
                const i32 gate = saturate(value), up = __shfl_xor_sync(~0u, gate, 8);
                if (!output.there || output.n >= s.feed_forward) return;
                const i32 z = gated_unit(gate, up, s.sigmoid, s.hidden_fraction);
                s.hidden[static_cast<u64>(output.row) * s.feed_forward + output.n] = z;
                largest = max(largest, magnitude(z));
            });
        largest = max(largest, __shfl_xor_sync(~0u, largest, 8));
        largest = max(largest, __shfl_xor_sync(~0u, largest, 16));
        if (threadIdx.x < WEIGHT_ROWS * ROWS_MAX && threadIdx.x % 32 < s.rows * l.gate_up.limbs() && largest > 0)
            atomicMax(s.hidden_max + threadIdx.x % 32 / l.gate_up.limbs(), largest);
        grid_barrier();
        hidden_input(l.down);
        add_to_residual(l.down);
        grid_barrier();
    }

    // The running results of attention as they were at first: all have read them.
    __device__ void forget_attention() {
        const Attention& a = s.attention;
        const u32 first = blockIdx.x * WORKERS + threadIdx.x, step = gridDim.x * WORKERS;
        for (u32 at = first; at < s.rows * a.heads; at += step) {
            a.score_max[at] = a.reach_max[at] = -SCORE_MAX;
            a.denominator[at] = 0;
        }
        for (u32 at = first; at < s.rows * a.heads * a.head_width; at += step) a.numerator[at] = 0;
    }

    __device__ void logits() {
        u64 best = 0;
        multiply(
            s.head, false, [](u32, u32) { return 0; },
            [&](const Output& output, i64 value) {
                if (!output.there) return;
                const i32 logit = saturate(value);
                s.logits[static_cast<u64>(output.row) * s.vocabulary + output.n] = logit;
                best = max(best, ~order_key(logit, output.n));
            });
        best = max(best, __shfl_xor_sync(~0u, best, 8));
        best = max(best, __shfl_xor_sync(~0u, best, 16));
        if (threadIdx.x < WEIGHT_ROWS * ROWS_MAX && threadIdx.x % 32 < s.rows * s.head.limbs() && best > 0)
            atomicMax(s.best + threadIdx.x % 32 / s.head.limbs(), best);
    }
};

extern "C" __global__ __launch_bounds__(WORKERS + 32, 1) void decode(const Step* global) {
    extern __shared__ __align__(1024) u8 dynamic[];
    __shared__ Step step;
    __shared__ Shared shared;
    for (u32 i = threadIdx.x; i < sizeof(Step) / 4; i += blockDim.x)
        reinterpret_cast<u32*>(&step)[i] = reinterpret_cast<const u32*>(global)[i];
    for (u32 i = threadIdx.x; i < 2 * WEIGHT_ROWS * ROWS_MAX; i += blockDim.x) (&shared.sums[0][0][0])[i] = 0;
    __syncthreads();
    u8* const ring_at = dynamic + ((1024 - shared_address(dynamic) % 1024) % 1024);
    Cursor ring = {shared_address(ring_at), shared_address(shared.full), shared_address(shared.empty), step.stages};
    if (threadIdx.x == 0) {
        for (u32 stage = 0; stage < ring.stages; ++stage) {
            barrier_init(ring.full + 8 * stage, 1);
            barrier_init(ring.empty + 8 * stage, WARPS);
        }
        barrier_init_done();
    }
    __syncthreads();
    if (threadIdx.x < WORKERS) {
        Worker(step, shared, ring, ring_at + step.stages * STAGE_BYTES).run();
    } else if (threadIdx.x == WORKERS) {
        Cursor landed = ring;
        u32 issued = 0;
        for (u32 layer = 0; layer < step.layers; ++layer) {
            const LayerView& l = step.layer[layer];
            fetch(l.qkv, ring, landed, issued);
            fetch(l.o, ring, landed, issued);
            fetch(l.gate_up, ring, landed, issued);
            fetch(l.down, ring, landed, issued);
        }
        fetch(step.head, ring, landed, issued);
    }
}
