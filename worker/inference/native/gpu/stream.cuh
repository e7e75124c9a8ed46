// Products of a row or two (an answer alone): weights stream past, as fast as memory gives them.
//
// Sixteen weight rows are a group, contiguous in memory (layout.cuh). One thread copies a block's groups into a ring of
// stages, eight warps multiply, each its own 128 bytes of K, by mma.sync; at the end of a group their sums meet in
// shared memory, and two more warps in turn make values of them (one of the eight doing that held up all the others:
// 2.7 TB/s). K is never split between blocks, so values are finished here, and the next kernel has nothing to add up. A
// block takes half a multiprocessor's memory at most: that of the next product starts fetching its weights beside it,
// while the kernels in between wait for each other. Weights leave the L2 cache first: what else lies there (code,
// tables) is read again in every layer.
//
// A row alone is normed and quantised by every block for itself (OwnRow), which takes less time than a kernel between
// two products takes to start and end.
//
// Multiprocessors do not get equal shares of the memory's rate: of blocks with 14 groups the first was done after 20
// microseconds and the last after 31. So a quarter of a long product's groups is dealt out to whoever is ready
// (`claimed`).
//
// What binds: the memory's rate while weights stream (3.8 to 4.2 TB/s, as long as a stage is read much faster than it
// arrives: with branches around the loads of activations, 3.2), and between two products 3 to 4 microseconds from the
// last byte to the next product's first multiplication. Tried without gain: fetching more of the next weights into the
// L2 cache while the kernels between products run (3.03 to 3.13 ms a step instead of 2.86, also where they leave the
// cache first); doing a kernel's work once before its turn to have its instructions at hand (2.86 instead of 2.74).
#pragma once

#include "worker/inference/native/gpu/rows.cuh"
#include "worker/inference/native/gpu/warp_products.cuh"

namespace warpgrid::exact {

constexpr u32 STREAM_WARPS = 8;
constexpr u32 STREAM_FINISHERS = 2;
constexpr u32 STREAM_THREADS = 32 * (STREAM_WARPS + STREAM_FINISHERS + 1);  // and a warp that feeds
constexpr u32 STREAM_STAGES_MAX = 6;
constexpr u32 STREAM_ROWS_MAX = 8;
constexpr u32 STAGE_BYTES = STREAM_WARPS * WEIGHT_BLOCK_BYTES;
constexpr u32 MULTIPLIERS = 32 * STREAM_WARPS;
constexpr u32 PARTIAL_STRIDE = WEIGHT_ROWS + 4;  // so that a warp's stores meet different banks
constexpr u32 CLAIMS_MAX = 64;                   // of a block: with all others' far more than there are groups to claim
constexpr u32 STREAM_DRAINED = 2;                // stages read before the next product may start: 0, 1, 3, 5 are slower
constexpr u32 COPY_BYTES = 4096;

// `rows` counts limbs as rows, at most STREAM_ROWS_MAX. `activations` is null where blocks quantise for themselves.
// `claimed` counts the groups that were dealt out, from 0; null where all are divided beforehand.
struct StreamOperands {
    const i8* weights;
    const i8* activations;
    u32 outputs, rows, columns, stages;
    u32* claimed;
};

// One stage of the ring after the other.
struct StageCursor {
    u32 stage = 0, parity = 0;

    __device__ __forceinline__ void next(u32 stages) {
        if (++stage < stages) return;
        stage = 0;
        parity ^= 1;
    }
};

struct StreamMemory {
    u64 full[STREAM_STAGES_MAX], empty[STREAM_STAGES_MAX], activations;
    u64 squares[MULTIPLIERS];  // of OwnRow, as are the next two
    i32 row_max[STREAM_WARPS];
    Scale scale[STREAM_FINISHERS];
    volatile u32 claims[CLAIMS_MAX + STREAM_FINISHERS];
    i32 partial[STREAM_FINISHERS][STREAM_WARPS][STREAM_ROWS_MAX][PARTIAL_STRIDE];  // [16 of these] weight rows
};

template <u32 BARRIER, u32 THREADS>
__device__ __forceinline__ void named_sync() {
    asm volatile("bar.sync %0, %1;" ::"n"(BARRIER), "n"(THREADS) : "memory");
}
template <u32 BARRIER, u32 THREADS>
__device__ __forceinline__ void named_arrive() {
    asm volatile("bar.arrive %0, %1;" ::"n"(BARRIER), "n"(THREADS) : "memory");
}

// Between those who multiply and the finisher of every second group: partial sums are there, and have been read.
constexpr u32 PARTIAL_THREADS = MULTIPLIERS + 32;
__device__ __forceinline__ void give_partial(u32 finisher) {
    finisher == 0 ? named_arrive<1, PARTIAL_THREADS>() : named_arrive<2, PARTIAL_THREADS>();
}
__device__ __forceinline__ void await_partial(u32 finisher) {
    finisher == 0 ? named_sync<1, PARTIAL_THREADS>() : named_sync<2, PARTIAL_THREADS>();
}
__device__ __forceinline__ void partial_was_read(u32 finisher) {
    finisher == 0 ? named_arrive<3, PARTIAL_THREADS>() : named_arrive<4, PARTIAL_THREADS>();
}
__device__ __forceinline__ void await_partial_read(u32 finisher) {
    finisher == 0 ? named_sync<3, PARTIAL_THREADS>() : named_sync<4, PARTIAL_THREADS>();
}

// Of an OwnRow: among those who multiply, and from them to the finishers.
constexpr u32 ROW_THREADS = MULTIPLIERS + 32 * STREAM_FINISHERS;
__device__ __forceinline__ void multipliers_sync() { named_sync<5, MULTIPLIERS>(); }
__device__ __forceinline__ void give_row() { named_arrive<6, ROW_THREADS>(); }
__device__ __forceinline__ void await_row() { named_sync<6, ROW_THREADS>(); }

// A warp's part of a group's sums: 16 weight rows times up to eight activation rows, over 128 bytes of K. Each lane
// names a row of matrices (load_matrices): of weights rows 0-7 and 8-15 of sixteen bytes, then of the next; of
// activations four times sixteen bytes. What follows in a row lies at the address with other bits (layout.cuh,
// swizzled).
__device__ __forceinline__ void multiply_block(i32 (&even)[4], i32 (&odd)[4], u32 weights, u32 activations) {
    u32 a[4][4], b[2][4];
    load_matrices(b[0], activations);
    load_matrices(b[1], activations ^ 64);
#pragma unroll
    for (u32 step = 0; step < 4; ++step) load_matrices(a[step], weights ^ 32 * step);
#pragma unroll
    for (u32 step = 0; step < 4; ++step) {
        const u32* const pair = b[step / 2] + step % 2 * 2;
        mma_s8(step % 2 == 0 ? even : odd, a[step], pair[0], pair[1]);
    }
}
static_assert(K_BLOCK == 4 * 32);

// One block's part of a product; each method is one role's.
struct Stream {
    const StreamOperands& o;
    StreamMemory& memory;
    u32 blocks;                       // of K
    u32 groups, divided, first, end;  // of weight rows: all, those divided beforehand, and of these the block's own
    u32 ring;
    u8* activations;

    __device__ __forceinline__ Stream(const StreamOperands& o, StreamMemory& memory, u8* shared)
        : o(o), memory(memory), blocks(k_blocks(o.columns)), groups((o.outputs + WEIGHT_ROWS - 1) / WEIGHT_ROWS) {
        divided = o.claimed ? groups / gridDim.x * 3 / 4 * gridDim.x : groups;
        first = divided * blockIdx.x / gridDim.x;
        end = divided * (blockIdx.x + 1) / gridDim.x;
        ring = (shared_address(shared) + 1023) & ~1023u;
        activations = shared + (ring - shared_address(shared)) + o.stages * STAGE_BYTES;
    }

    __device__ __forceinline__ u32 full(u32 stage) const { return shared_address(memory.full + stage); }
    __device__ __forceinline__ u32 empty(u32 stage) const { return shared_address(memory.empty + stage); }

    // By all threads, before any other method.
    __device__ __forceinline__ void init() const {
        if (threadIdx.x < CLAIMS_MAX + STREAM_FINISHERS) memory.claims[threadIdx.x] = ~0u;
        if (threadIdx.x == 0) {
            for (u32 stage = 0; stage < o.stages; ++stage) {
                barrier_init(full(stage), 1);
                barrier_init(empty(stage), STREAM_WARPS);
            }
            barrier_init(shared_address(&memory.activations), 1);
            barrier_init_done();
        }
        __syncthreads();
    }

    // This block's group of a number, or `groups` where there are no more.
    __device__ __forceinline__ u32 group(u32 number) const {
        if (first + number < end) return first + number;
        if (!o.claimed) return groups;
        u32 claim;
        do claim = memory.claims[number - (end - first)];
        while (claim == ~0u);
        return claim;
    }

    // By one warp: all weights of the block, as stages fall empty.
    __device__ __forceinline__ void feed() const {
        const bool feeds = threadIdx.x % 32 == 0;
        const u64 policy = read_once();
        StageCursor at;
        if (feeds)
            for (u32 group = first; group < end; ++group) feed_group(group, at, policy);
        if (feeds && !o.claimed) {
            drain(at);
            allow_next();
        }
        __syncwarp();
        await_previous();  // which also says that the count of claims is of this product
        if (!feeds || !o.claimed) return;
        u32 number = 0, next = claim();
        while (number < CLAIMS_MAX && divided + next < groups) {
            const u32 group = divided + next;
            memory.claims[number++] = group;
            if (number < CLAIMS_MAX) next = claim();
            feed_group(group, at, policy);
        }
#pragma unroll
        for (u32 i = 0; i < STREAM_FINISHERS; ++i) memory.claims[number + i] = groups;  // for each finisher's next
        drain(at);
        allow_next();
    }

    // Until all but so many stages have been read: what the next product fetches would delay what this one waits for.
    __device__ __forceinline__ void drain(StageCursor at) const {
        for (u32 i = 0; i < STREAM_DRAINED; ++i, at.next(o.stages)) barrier_wait(empty(at.stage), at.parity ^ 1);
    }

    // The next of the groups that are dealt out. Not atomicAdd, whose result the compiler waits for at once.
    __device__ __forceinline__ u32 claim() const {
        u32 count;
        asm volatile("atom.global.add.u32 %0, [%1], 1;" : "=r"(count) : "l"(o.claimed) : "memory");
        return count;
    }

    __device__ __forceinline__ void feed_group(u32 group, StageCursor& at, u64 policy) const {
        const i8* source = o.weights + static_cast<u64>(group) * blocks * WEIGHT_BLOCK_BYTES;
#pragma unroll 1
        for (u32 block = 0; block < blocks; block += STREAM_WARPS, at.next(o.stages)) {
            const u32 bytes = min(STREAM_WARPS, blocks - block) * WEIGHT_BLOCK_BYTES;
            barrier_wait(empty(at.stage), at.parity ^ 1);
            barrier_expect(full(at.stage), bytes);
            copy_bulk(ring + at.stage * STAGE_BYTES, source, bytes, full(at.stage), policy);
            source += bytes;
        }
    }

    // By one warp: what it takes to finish this block's groups, and its share of those that are dealt out.
    template <typename Finish>
    __device__ __forceinline__ void prefetch(const Finish& values) const {
        const u32 rest = groups - divided;
        values.prefetch(first, end);
        values.prefetch(divided + rest * blockIdx.x / gridDim.x, divided + rest * (blockIdx.x + 1) / gridDim.x);
    }

    // By one warp, once quantised activations are there.
    __device__ __forceinline__ void fetch_activations() const {
        const u32 lane = threadIdx.x % 32, bytes = blocks * o.rows * K_BLOCK;
        const u32 ready = shared_address(&memory.activations);
        async_proxy_follows();
        if (lane == 0) barrier_expect(ready, bytes);
        __syncwarp();
        for (u32 at = lane * COPY_BYTES; at < bytes; at += 32 * COPY_BYTES)
            copy_bulk(shared_address(activations) + at, o.activations + at, min(COPY_BYTES, bytes - at), ready);
    }

    __device__ __forceinline__ void multiply() const {
        const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const u32 own_weights = ring + warp * WEIGHT_BLOCK_BYTES + swizzled(lane % 16, lane / 16 * 16);
        const u32 own_activations = shared_address(activations) + swizzled(min(lane % 8, o.rows - 1), lane / 8 * 16);
        StageCursor at;
        u32 number = 0;
        for (; group(number) < groups; ++number) {
            i32 even[4] = {}, odd[4] = {};
#pragma unroll 1
            for (u32 block = warp; block - warp < blocks; block += STREAM_WARPS, at.next(o.stages)) {
                barrier_wait(full(at.stage), at.parity);
                if (block < blocks)
                    multiply_block(even, odd, own_weights + at.stage * STAGE_BYTES,
                                   own_activations + block * o.rows * K_BLOCK);
                __syncwarp();
                if (lane == 0) barrier_arrive(empty(at.stage));
            }
            const u32 finisher = number % STREAM_FINISHERS;
            if (number >= STREAM_FINISHERS) await_partial_read(finisher);
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                const u32 row = lane % 4 * 2 + i % 2;
                if (row < o.rows) memory.partial[finisher][warp][row][lane / 4 + i / 2 * 8] = even[i] + odd[i];
            }
            give_partial(finisher);
        }
        for (u32 last = number - min(number, STREAM_FINISHERS); last < number; ++last)
            await_partial_read(last % STREAM_FINISHERS);
    }

    // The sum that a weight row of a group has with one token.
    __device__ __forceinline__ i64 sum(u32 finisher, u32 token, u32 weight_row, u32 limbs) const {
        i32 high = 0, low = 0;
#pragma unroll
        for (u32 warp = 0; warp < STREAM_WARPS; ++warp)
            high += memory.partial[finisher][warp][token * limbs][weight_row];
        if (limbs == 1) return high;
#pragma unroll
        for (u32 warp = 0; warp < STREAM_WARPS; ++warp)
            low += memory.partial[finisher][warp][token * limbs + 1][weight_row];
        return 256 * static_cast<i64>(high) + low;
    }

    // By one warp: values of every second group. A lane has one item of a token at a time: a weight row, or (where
    // Finish::SUMS is 2) a gate and its up. What an item needs beside its sums is loaded before they are there.
    template <typename Finish>
    __device__ __forceinline__ void finish(u32 finisher, Finish& values) const {
        constexpr u32 ITEMS = WEIGHT_ROWS / Finish::SUMS;
        const u32 lane = threadIdx.x % 32, all = ITEMS * values.scales.tokens, limbs = values.scales.limbs;
#pragma unroll 1
        for (u32 number = finisher, now; (now = group(number)) < groups; number += STREAM_FINISHERS) {
#pragma unroll 1
            for (u32 round = 0; round < all; round += 32) {
                const u32 item = round + lane, n = now * ITEMS + item % ITEMS, token = item / ITEMS;
                const bool is_item = item < all;
                if (is_item) values.begin(n, token);
                if (round == 0) await_partial(finisher);
                i64 sums[Finish::SUMS] = {};
#pragma unroll
                for (u32 i = 0; i < Finish::SUMS; ++i)
                    if (is_item) sums[i] = sum(finisher, token, item % ITEMS + i * ITEMS, limbs);
                if (round + 32 >= all) partial_was_read(finisher);
                if (is_item) values.end(n, token, sums);
            }
        }
        values.close();
    }
};

// What makes values of a linear layer's sums.
struct LinearScales {
    const i32* mantissa;
    const i32* row_shift;
    const Scale* scale;
    u32 tokens, limbs;

    struct Own {
        i32 mantissa, shift;
        Scale scale;
    };

    __device__ __forceinline__ Own load(u32 n, u32 token) const { return {mantissa[n], row_shift[n], scale[token]}; }
    __device__ __forceinline__ i64 value(i64 sum, const Own& own) const {
        if (!shifts_far(own.shift, own.scale.exponent, 8 * limbs))
            return linear_slow(sum, own.mantissa, own.shift, own.scale);
        return limbs == 1 ? linear_fast(static_cast<i32>(sum), own.mantissa, own.shift, own.scale)
                          : linear_fast(sum, own.mantissa, own.shift, own.scale);
    }
    // By one warp: outputs `first` .. `end` are this block's.
    __device__ __forceinline__ void prefetch(u32 first, u32 end) const {
        for (u32 n = first + 32 * (threadIdx.x % 32); n < end; n += 32 * 32)
            prefetch_line(mantissa + n), prefetch_line(row_shift + n);
    }
};

// Activations that a kernel before has quantised.
struct Fetched {
    __device__ __forceinline__ void by_multipliers(const Stream& stream) const {
        await_previous();
        barrier_wait(shared_address(&stream.memory.activations), 0);
    }
    __device__ __forceinline__ void by_finishers(const Stream& stream, u32 finisher, LinearScales&) const {
        await_previous();
        if (finisher == 0) stream.fetch_activations();
    }
};

constexpr u32 OWN_ROW_QUADS = 4;  // of a multiplier: rows of up to 4,096 values

// One row of int32, quantised to eight bits by every block for itself: `values`, whose largest magnitude is *largest,
// in Q`fraction`; or, where `largest` is null, a residual row with the scale of its norm. Block 0 notes the row in
// `boundary` (where that is not null), and sets the maxima that others will find (where those are not null) to their
// least value.
struct OwnRow {
    const i32* values;
    const i32* largest;
    i32* boundary;
    i32* hidden_max;
    i32* attended_max;
    u64 epsilon_q48;
    i32 fraction;

    __device__ __forceinline__ void by_multipliers(const Stream& stream) const {
        StreamMemory& memory = stream.memory;
        const u32 columns = stream.o.columns;
        await_previous();
        Quad x[OWN_ROW_QUADS] = {};
        i32 a = 1;
#pragma unroll
        for (u32 j = 0; j < OWN_ROW_QUADS; ++j) {
            const u32 i = 4 * (threadIdx.x + j * MULTIPLIERS);
            if (i < columns) x[j] = load_new_quad(values + i);
        }
        if (largest) {
            a = __ldcg(largest);
        } else {
#pragma unroll
            for (u32 j = 0; j < OWN_ROW_QUADS; ++j) a = max(a, magnitude(x[j]));
            a = __reduce_max_sync(~0u, a);
            if (threadIdx.x % 32 == 0) memory.row_max[threadIdx.x / 32] = a;
            multipliers_sync();
            a = row_max(memory);
        }
        const i64 reciprocal = reciprocal_of(8, a);
#pragma unroll
        for (u32 j = 0; j < OWN_ROW_QUADS; ++j) {
            const u32 i = 4 * (threadIdx.x + j * MULTIPLIERS);
            if (i < columns) *reinterpret_cast<u32*>(stream.activations + i) = quantised_quad(x[j], 8, reciprocal).high;
        }
        if (!largest) {
            u64 squares = 0;
#pragma unroll
            for (u32 j = 0; j < OWN_ROW_QUADS; ++j) squares += squares_of(x[j], norm_shift(static_cast<u64>(a)));
            memory.squares[threadIdx.x] = squares;
            give_row();
        }
        multipliers_sync();
        if (blockIdx.x == 0) note(x, columns);
    }

    __device__ __forceinline__ void note(const Quad (&x)[OWN_ROW_QUADS], u32 columns) const {
        if (threadIdx.x == 0 && hidden_max) *hidden_max = *attended_max = 1;
        if (!boundary) return;
#pragma unroll
        for (u32 j = 0; j < OWN_ROW_QUADS; ++j) {
            const u32 i = 4 * (threadIdx.x + j * MULTIPLIERS);
            if (i < columns) store_quad(boundary + i, x[j]);
        }
    }

    static __device__ __forceinline__ i32 row_max(const StreamMemory& memory) {
        i32 a = memory.row_max[0];
#pragma unroll
        for (u32 warp = 1; warp < STREAM_WARPS; ++warp) a = max(a, memory.row_max[warp]);
        return a;
    }

    __device__ __forceinline__ void by_finishers(const Stream& stream, u32 finisher, LinearScales& scales) const {
        StreamMemory& memory = stream.memory;
        await_previous();
        Scale own;
        if (largest) {
            own = plain_scale(static_cast<u64>(__ldcg(largest)), fraction);
        } else {
            await_row();
            u64 squares = 0;
            for (u32 i = threadIdx.x % 32; i < MULTIPLIERS; i += 32) squares += memory.squares[i];
            squares = warp_reduce(squares, Sum());
            own = norm_scale(static_cast<u64>(row_max(memory)), squares, epsilon_q48, stream.o.columns, fraction);
        }
        memory.scale[finisher] = own;  // by every lane, the same
        __syncwarp();
        scales.scale = memory.scale + finisher;
    }
};

// The whole product, of activations that are Fetched or an OwnRow. `values` makes values of sums: `prefetch(first,
// end)` names groups of this block, `begin` and `end` an item and its token (Stream::finish), `close` follows the last.
template <typename Input, typename Finish>
__device__ __forceinline__ void stream_product(const StreamOperands& o, const Input& input, Finish values) {
    extern __shared__ __align__(1024) u8 shared[];
    __shared__ __align__(16) StreamMemory memory;
    const Stream stream(o, memory, shared);
    const u32 warp = threadIdx.x / 32;
    stream.init();
    if (warp == STREAM_WARPS) {
        stream.feed();
    } else if (warp > STREAM_WARPS) {
        const u32 finisher = warp - STREAM_WARPS - 1;
        if (finisher == 0) stream.prefetch(values);
        input.by_finishers(stream, finisher, values.scales);
        stream.finish(finisher, values);
    } else {
        input.by_multipliers(stream);
        stream.multiply();
    }
}

// values[token][n], finished.
struct StreamValues {
    static constexpr u32 SUMS = 1;
    i32* values;
    const i32* bias;  // or null
    LinearScales scales;
    u32 outputs;
    LinearScales::Own own = {};
    i32 own_bias = 0;

    __device__ __forceinline__ void prefetch(u32 first, u32 end) const {
        scales.prefetch(WEIGHT_ROWS * first, min(WEIGHT_ROWS * end, outputs));
    }
    __device__ __forceinline__ void begin(u32 n, u32 token) {
        if (n >= outputs) return;
        own = scales.load(n, token);
        if (bias) own_bias = bias[n];
    }
    __device__ __forceinline__ void end(u32 n, u32 token, const i64 (&sums)[1]) const {
        if (n < outputs)
            values[static_cast<u64>(token) * outputs + n] = saturate(scales.value(sums[0], own) + own_bias);
    }
    __device__ __forceinline__ void close() const {}
};

// residual += values.
struct StreamResidual {
    static constexpr u32 SUMS = 1;
    i32* residual;
    LinearScales scales;
    u32 width;
    LinearScales::Own own = {};
    i32 before = 0;

    __device__ __forceinline__ void prefetch(u32 first, u32 end) const {
        scales.prefetch(WEIGHT_ROWS * first, min(WEIGHT_ROWS * end, width));
    }
    __device__ __forceinline__ void begin(u32 n, u32 token) {
        if (n >= width) return;
        own = scales.load(n, token);
        before = residual[static_cast<u64>(token) * width + n];
    }
    __device__ __forceinline__ void end(u32 n, u32 token, const i64 (&sums)[1]) const {
        if (n < width) residual[static_cast<u64>(token) * width + n] = saturate(before + scales.value(sums[0], own));
    }
    __device__ __forceinline__ void close() const {}
};

// hidden = gated units, and their largest magnitude of each token. A group is eight gates and their ups.
struct StreamGated {
    static constexpr u32 SUMS = 2;
    i32* hidden;
    i32* hidden_max;
    LinearScales scales;
    const i32* sigmoid;
    u32 f;
    i32 hidden_fraction;
    LinearScales::Own gate = {}, up = {};
    i32 largest[2] = {};  // of this lane's tokens lane / 8 and lane / 8 + 4

    __device__ __forceinline__ void prefetch(u32 first, u32 end) const {
        scales.prefetch(8 * first, min(8 * end, f));
        scales.prefetch(f + 8 * first, f + min(8 * end, f));
        for (u32 i = 32 * (threadIdx.x % 32); i < 4096; i += 32 * 32) prefetch_line(sigmoid + i);
    }
    __device__ __forceinline__ void begin(u32 i, u32 token) {
        if (i >= f) return;
        gate = scales.load(i, token);
        up = scales.load(f + i, token);
    }
    __device__ __forceinline__ void end(u32 i, u32 token, const i64 (&sums)[2]) {
        if (i >= f) return;
        const i32 gated = saturate(scales.value(sums[0], gate)), linear = saturate(scales.value(sums[1], up));
        const i32 z = gated_unit(gated, linear, sigmoid, hidden_fraction);
        hidden[static_cast<u64>(token) * f + i] = z;
        if (token < 4) largest[0] = max(largest[0], magnitude(z));
        else largest[1] = max(largest[1], magnitude(z));
    }
    __device__ __forceinline__ void close() const {
        const u32 lane = threadIdx.x % 32;
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            const i32 value = __reduce_max_sync(255u << (lane / 8 * 8), largest[half]);
            const u32 token = lane / 8 + 4 * half;
            if (lane % 8 == 0 && token < scales.tokens) atomicMax(hidden_max + token, value);
        }
    }
};
static_assert(STREAM_ROWS_MAX == 8, "StreamGated has room for as many tokens");

}  // namespace warpgrid::exact
