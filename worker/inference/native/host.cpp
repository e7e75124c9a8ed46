// C entry points of libwarpgrid_exact: open a model over mapped tensors, run batches, on a crew of threads.
//
// Host code: it may allocate and use the standard library. What is computed lives in cpu/engine.hpp.
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <iterator>
#include <new>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/native/crypto/hash_batches.hpp"

#define WG_EXACT_NAMESPACE warpgrid::exact_host
#include "worker/inference/native/cpu/engine.hpp"
#include "worker/inference/native/cpu/instruction_sets.hpp"

using namespace warpgrid;
using namespace warpgrid::exact_host;

namespace {

void pause_briefly() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

// Until `word`, an atomic number, is no longer `old`. Spins first: phases end every few microseconds, and the next call
// mostly comes soon. Then it sleeps, so that a crew larger than the free cores leaves them to whom it waits for.
template <typename Word>
void await_change(const Word& word, u32 old) {
    constexpr u32 SPINS_MAX = 4'000;
    for (u32 spins = 0; spins < SPINS_MAX; ++spins) {
        if (word.load(std::memory_order_acquire) != old) return;
        pause_briefly();
    }
    word.wait(old, std::memory_order_acquire);
}

// Threads that work through the phases of a task together (cpu/crew.hpp). One that the system keeps from coming is not
// waited for.
class ThreadCrew {
public:
    explicit ThreadCrew(u32 size) : size_(size) {
        for (u32 i = 1; i < size; ++i) threads_.emplace_back([this, i] { serve(i); });
    }

    ~ThreadCrew() {
        closing_ = true;
        summon();
        for (auto& thread : threads_) thread.join();
    }

    // task(crew) on this thread, and on the others for as long as this one is at it. All that it does is in phases.
    template <typename Task>
    void run(Task&& task) {
        call_ = [](void* state, Crew crew) { (*static_cast<std::remove_reference_t<Task>*>(state))(crew); };
        state_ = &task;
        progress_ = {};
        open_ = true;
        summon();
        task(member(0));
        open_ = false;
        for (u32 inside; (inside = inside_.load()) != 0;) await_change(inside_, inside);
    }

private:
    Crew member(u32 index) {
        return {size_, index, &progress_,
                [](Progress* progress, u32 phase) { await_change(std::atomic_ref(progress->phase), phase); },
                [](Progress* progress) { std::atomic_ref(progress->phase).notify_all(); }, 0};
    }

    void summon() {
        generation_.fetch_add(1, std::memory_order_release);
        generation_.notify_all();
    }

    // Who is inside when the call closes is waited for; who comes later finds it closed. (Sequentially consistent.)
    void serve(u32 index) {
        for (u32 seen = 0;;) {
            await_change(generation_, seen);
            seen = generation_.load(std::memory_order_acquire);
            if (closing_) return;
            inside_.fetch_add(1);
            if (open_) call_(state_, member(index));
            inside_.fetch_sub(1);
            inside_.notify_one();
        }
    }

    const u32 size_;
    void (*call_)(void*, Crew) = nullptr;
    void* state_ = nullptr;
    Progress progress_{};
    std::atomic<bool> open_ = false, closing_ = false;
    // Each in a cache line of its own: they are written and spun on by different threads.
    alignas(64) std::atomic<u32> generation_{0};
    alignas(64) std::atomic<u32> inside_{0};
    std::vector<std::thread> threads_;  // last: they read the rest from their first moment on
};

// Zeroed memory from the system, in huge pages where it gives them: weights are streamed, and every page costs a
// look-up.
class Memory {
public:
    Memory() = default;
    explicit Memory(u64 bytes) : bytes_(bytes) {
        void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapped == MAP_FAILED) return;
        base_ = static_cast<u8*>(mapped);
        madvise(base_, bytes_, MADV_HUGEPAGE);  // advice: without it everything works, a little slower
    }
    Memory(Memory&& other) noexcept : base_(std::exchange(other.base_, nullptr)), bytes_(other.bytes_) {}
    Memory& operator=(Memory&& other) noexcept {
        std::swap(base_, other.base_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~Memory() {
        if (base_) munmap(base_, bytes_);
    }
    u8* base() const { return base_; }

private:
    u8* base_ = nullptr;
    u64 bytes_ = 0;
};

// A tensor of the model file, as Python mapped it.
struct MatrixSource {
    const i8* weights;  // row-major [rows][columns]
    const u16* mantissa;
    const i8* exponent;
    const i32* bias;
    u32 rows, columns, bits;
    i32 output_fraction;
};

struct LayerSource {
    MatrixSource qkv, o, gate_up, down;
    const i32* query_norm;
    const i32* key_norm;
};

struct ModelSource {
    Model model;  // with its pointers to matrices still empty
    const LayerSource* layers;
    MatrixSource head;
};

// Matrices that are one in the model file, one above the other, and packed as blocks of each in turn.
struct Stacked {
    MatrixSource source;
    u32 matrices;

    u32 rows_each() const { return source.rows / matrices; }
    u32 packed_rows() const { return (rows_each() + BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS * BLOCK_OUTPUTS * matrices; }
    u64 packed_bytes() const { return static_cast<u64>(packed_rows()) * source.columns; }
    u32 packed_row(u32 row) const {
        const u32 matrix = row / rows_each(), within = row % rows_each();
        return (within / BLOCK_OUTPUTS * matrices + matrix) * BLOCK_OUTPUTS + within % BLOCK_OUTPUTS;
    }
};

// What goes with packed weights: a number for each of their outputs.
struct OutputColumns {
    std::vector<i32> corrections, bias;
    std::vector<u16> mantissa;
    std::vector<i16> row_shift;

    // Packs the weights to `weights`, which is zero, and returns the matrix.
    Matrix pack(const Stacked& stacked, i8* weights) {
        const MatrixSource& source = stacked.source;
        const u32 padded = stacked.packed_rows();
        corrections.assign(padded, 0);
        mantissa.assign(padded, 1 << 15);
        row_shift.assign(padded, 62);
        if (source.bias) bias.assign(padded, 0);
        for (u32 row = 0; row < source.rows; ++row) {
            const i8* from = source.weights + static_cast<u64>(row) * source.columns;
            const u32 n = stacked.packed_row(row);
            i8* to = weights + static_cast<u64>(n / BLOCK_OUTPUTS) * BLOCK_OUTPUTS * source.columns +
                     n % BLOCK_OUTPUTS * STEP_INPUTS;
            i32 sum = 0;
            for (u32 k = 0; k < source.columns; ++k) sum += from[k];
            for (u32 k = 0; k < source.columns; k += STEP_INPUTS, to += BLOCK_OUTPUTS * STEP_INPUTS)
                std::memcpy(to, from + k, STEP_INPUTS);
            corrections[n] = 128 * sum;
            mantissa[n] = source.mantissa[row];
            row_shift[n] = static_cast<i16>(-(8 + source.exponent[row] + source.output_fraction));
            if (source.bias) bias[n] = source.bias[row];
        }
        return {weights, corrections.data(), mantissa.data(), row_shift.data(), source.bias ? bias.data() : nullptr,
                source.rows, source.columns, source.bits};
    }
};

// TraceHashes::roots.
void hash_positions(u8* roots, u8* nodes, const u8* leaves, u64 leaves_each, u64 count) {
    const u8* below = leaves;
    for (u64 each = leaves_each; each > 1; each /= 2, below = nodes)
        keccak256_equal(nodes, below, 2 * DIGEST_BYTES, count * each / 2);
    std::memcpy(roots, nodes, count * DIGEST_BYTES);
}

struct Engine {
    Engine(u32 threads, const exact_isa::Isa& isa_chosen) : size(threads), crew(threads), isa(isa_chosen) {}

    const u32 size;
    ThreadCrew crew;
    const exact_isa::Isa& isa;
    Model model{};
    Memory weights;  // all packed matrices, in the order in which a forward pass reads them
    std::vector<OutputColumns> columns;
    std::vector<Layer> layers;
    u32 rows_max = 0;
    u64 pages = 0;
    std::vector<Memory> buffers;
    Workspace work{};

    bool pack(const ModelSource& source) {
        model = source.model;
        std::vector<Stacked> matrices;
        for (u32 l = 0; l < model.layers; ++l) {
            const LayerSource& from = source.layers[l];
            matrices.insert(matrices.end(), {{from.qkv, 1}, {from.o, 1}, {from.gate_up, 2}, {from.down, 1}});
        }
        matrices.push_back({source.head, 1});
        std::vector<u64> offsets = {0};
        for (const Stacked& one : matrices) offsets.push_back(offsets.back() + one.packed_bytes());
        weights = Memory(offsets.back());
        if (!weights.base()) return false;
        columns.resize(matrices.size());
        std::vector<Matrix> packed(matrices.size());
        crew.run([&](Crew member) {
            share_out(member, static_cast<u32>(matrices.size()), [&](u32 begin, u32 end) {
                for (u32 i = begin; i < end; ++i)
                    packed[i] = columns[i].pack(matrices[i], reinterpret_cast<i8*>(weights.base() + offsets[i]));
            });
        });
        for (u32 l = 0; l < model.layers; ++l) {
            const Matrix* each = &packed[4ull * l];
            const LayerSource& from = source.layers[l];
            layers.push_back({each[0], each[1], each[2], each[3], from.query_norm, from.key_norm});
        }
        model.layer = layers.data();
        model.head = packed.back();
        return true;
    }

    // Whether every buffer could be had.
    bool reserve(u32 rows, u64 cache_pages) {
        rows_max = rows;
        pages = cache_pages;
        const u64 attention = 1ull * model.heads * model.head_width, feed_forward = model.feed_forward;
        const u64 qkv = attention + 2ull * model.kv_heads * model.head_width;
        const u64 columns_max = std::max({static_cast<u64>(model.width), feed_forward, attention});
        const u64 context = (model.context_max + PAGE_POSITIONS - 1) / PAGE_POSITIONS * PAGE_POSITIONS;
        work.residual = buffer<i32>(1ull * rows * model.width);
        work.wide = buffer<i32>(rows * std::max(qkv, feed_forward));
        work.attended = buffer<i32>(rows * attention);
        work.quantised = buffer<u8>(2 * rows * columns_max);
        work.scale = buffer<Scale>(rows);
        work.own_bytes = 2 * OWN_ROWS_MAX * columns_max;
        work.own_quantised = buffer<u8>(size * work.own_bytes);
        work.queries = buffer<u8>(rows * attention);
        work.query_scale = buffer<Mantissa>(1ull * rows * model.heads);
        work.scores = buffer<i32>(1ull * size * QUERIES_MAX * context);
        work.cache = buffer<u8>(cache_pages * model.layers * model.kv_heads * page_head_bytes(model.head_width));
        const u64 leaves = leaves_each(model.layers);
        work.kv_rows = buffer<u8>(1ull * rows * kv_row_bytes(model));
        work.leaves = buffer<u8>(rows * leaves * DIGEST_BYTES);
        work.nodes = buffer<u8>(rows * leaves / 2 * DIGEST_BYTES);
        work.hashes = {sha256_rows, hash_positions};
        return std::all_of(buffers.begin(), buffers.end(), [](const Memory& one) { return one.base() != nullptr; });
    }

    template <typename T>
    T* buffer(u64 count) {
        buffers.emplace_back(count * sizeof(T));
        return reinterpret_cast<T*>(buffers.back().base());
    }
};

}  // namespace

// The name of instruction set `index`, null past the last; `*available` says whether this processor has it.
WG_EXPORT const char* warpgrid_exact_isa(u32 index, u32* available) {
    if (index >= std::size(exact_isa::INSTRUCTION_SETS)) return nullptr;
    const exact_isa::Compiled& one = exact_isa::INSTRUCTION_SETS[index];
    *available = one.available;
    return one.isa.name;
}

// Sizes of the structs that Python fills, to be compared at load.
WG_EXPORT void warpgrid_exact_layout(u64* sizes) {
    sizes[0] = sizeof(ModelSource);
    sizes[1] = sizeof(LayerSource);
    sizes[2] = sizeof(MatrixSource);
    sizes[3] = sizeof(Batch);
}

// An engine, or null when memory does not suffice. The source's weights are copied; norms, embedding and tables are
// not.
WG_EXPORT void* warpgrid_exact_open(const ModelSource* source, const char* isa, u32 threads, u32 rows_max, u64 pages) {
    for (const exact_isa::Compiled& one : exact_isa::INSTRUCTION_SETS) {
        if (std::strcmp(one.isa.name, isa) != 0 || !one.available) continue;
        Engine* engine = new (std::nothrow) Engine(threads, one.isa);
        if (engine && engine->pack(*source) && engine->reserve(rows_max, pages)) return engine;
        delete engine;
    }
    return nullptr;
}

WG_EXPORT void warpgrid_exact_close(void* engine) { delete static_cast<Engine*>(engine); }

// Run one batch of at most rows_max rows. Returns 0, or 1 + the index of the first row whose token, position or page is
// out of range (then nothing was computed).
WG_EXPORT u32 warpgrid_exact_forward(void* handle, const Batch* batch) {
    Engine& engine = *static_cast<Engine*>(handle);
    if (batch->rows > engine.rows_max) return 1 + engine.rows_max;
    for (u32 row = 0; row < batch->rows; ++row) {
        const u32 position = static_cast<u32>(batch->position[row]);
        if (static_cast<u32>(batch->token[row]) >= engine.model.vocabulary || position >= engine.model.context_max ||
            position / PAGE_POSITIONS >= batch->pages_per_sequence)
            return 1 + row;
        const u64 sequence = static_cast<u64>(batch->sequence[row]);
        for (u32 page = 0; page <= position / PAGE_POSITIONS; ++page) {
            const i32 index = batch->page_table[sequence * batch->pages_per_sequence + page];
            if (index < 0 || static_cast<u64>(index) >= engine.pages) return 1 + row;
        }
    }
    engine.crew.run([&](Crew crew) { engine.isa.forward(crew, &engine.model, batch, &engine.work); });
    return 0;
}
