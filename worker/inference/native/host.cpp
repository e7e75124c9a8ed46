// C entry points of libwarpgrid_exact: open a model over mapped tensors, run batches, on a crew of threads.
//
// Host code: it may allocate and use the standard library. What is computed lives in cpu/engine.hpp.
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/native/crypto/hash_batches.hpp"

#define WG_EXACT_NAMESPACE warpgrid::exact_host
#include "worker/inference/native/cpu/engine.hpp"
#include "worker/inference/native/cpu/isa.hpp"

using namespace warpgrid;
using namespace warpgrid::exact_host;

namespace {

struct Isa {
    const char* name;
    exact_isa::Forward* forward;
    bool available;
};

// Fastest first.
std::vector<Isa> instruction_sets() {
    return {
#if WG_X86
        {"avx512vnni", exact_isa::forward_avx512vnni, PROCESSOR.vnni},
        {"avx2", exact_isa::forward_avx2, PROCESSOR.avx2},
#endif
        {"generic", exact_isa::forward_generic, true},
    };
}

void pause_briefly() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

// Until `value` is no longer `old`. Spins first: layers meet every few microseconds, and the next call mostly comes soon.
// Then it sleeps, so that a crew larger than the free cores leaves them to the thread that it waits for.
void await_change(const std::atomic<u32>& value, u32 old) {
    constexpr u32 SPINS_MAX = 4'000;
    for (u32 spins = 0; spins < SPINS_MAX; ++spins) {
        if (value.load(std::memory_order_acquire) != old) return;
        pause_briefly();
    }
    value.wait(old, std::memory_order_acquire);
}

// Threads that run the same function together.
class ThreadCrew {
public:
    explicit ThreadCrew(u32 size) : size_(size) {
        for (u32 i = 1; i < size; ++i) threads_.emplace_back([this, i] { serve(i); });
    }

    ~ThreadCrew() {
        call_ = nullptr;
        summon();
        for (auto& thread : threads_) thread.join();
    }

    template <typename Task>
    void run(Task&& task) {
        call_ = [](void* state, u32 index) { (*static_cast<std::remove_reference_t<Task>*>(state))(index); };
        state_ = &task;
        finished_.store(0, std::memory_order_relaxed);
        summon();
        task(0);
        for (u32 finished; (finished = finished_.load(std::memory_order_acquire)) + 1 < size_;)
            await_change(finished_, finished);
    }

    static void wait(void* crew) { static_cast<ThreadCrew*>(crew)->wait(); }
    u32 size() const { return size_; }

private:
    void summon() {
        generation_.fetch_add(1, std::memory_order_release);
        generation_.notify_all();
    }

    void wait() {
        const u32 phase = phase_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            arrived_.store(0, std::memory_order_relaxed);
            phase_.store(phase + 1, std::memory_order_release);
            phase_.notify_all();
            return;
        }
        await_change(phase_, phase);
    }

    void serve(u32 index) {
        for (u32 seen = 0;; ++seen) {
            await_change(generation_, seen);
            if (!call_) return;
            call_(state_, index);
            finished_.fetch_add(1, std::memory_order_release);
            finished_.notify_one();
        }
    }

    const u32 size_;
    void (*call_)(void*, u32) = nullptr;
    void* state_ = nullptr;
    // Each in a cache line of its own: they are written and spun on by different threads.
    alignas(64) std::atomic<u32> generation_{0};
    alignas(64) std::atomic<u32> finished_{0};
    alignas(64) std::atomic<u32> arrived_{0};
    alignas(64) std::atomic<u32> phase_{0};
    std::vector<std::thread> threads_;  // last: they read the rest from their first moment on
};

// Zeroed memory from the system, in huge pages where it gives them: weights are streamed, and every page costs a look-up.
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

u32 padded_rows(const MatrixSource& source) {
    return (source.rows + BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS * BLOCK_OUTPUTS;
}

u64 packed_bytes(const MatrixSource& source) { return static_cast<u64>(padded_rows(source)) * source.columns; }

// What goes with packed weights: a number for each of their outputs.
struct OutputColumns {
    std::vector<i32> corrections, bias;
    std::vector<u16> mantissa;
    std::vector<i16> row_shift;

    // Packs the weights to `weights`, which is zero, and returns the matrix.
    Matrix pack(const MatrixSource& source, i8* weights) {
        const u32 padded = padded_rows(source);
        corrections.assign(padded, 0);
        mantissa.assign(padded, 1 << 15);
        row_shift.assign(padded, 62);
        if (source.bias) {
            bias.assign(source.bias, source.bias + source.rows);
            bias.resize(padded);
        }
        for (u32 n = 0; n < source.rows; ++n) {
            const i8* row = source.weights + static_cast<u64>(n) * source.columns;
            i8* to = weights + static_cast<u64>(n / BLOCK_OUTPUTS) * BLOCK_OUTPUTS * source.columns + n % BLOCK_OUTPUTS * STEP_INPUTS;
            i32 sum = 0;
            for (u32 k = 0; k < source.columns; ++k) sum += row[k];
            for (u32 k = 0; k < source.columns; k += STEP_INPUTS, to += BLOCK_OUTPUTS * STEP_INPUTS)
                std::memcpy(to, row + k, STEP_INPUTS);
            corrections[n] = 128 * sum;
            mantissa[n] = source.mantissa[n];
            row_shift[n] = static_cast<i16>(-(8 + source.exponent[n] + source.output_fraction));
        }
        return {weights, corrections.data(), mantissa.data(), row_shift.data(), source.bias ? bias.data() : nullptr,
                source.rows, source.columns, source.bits};
    }
};

// TraceHashes::roots.
void hash_positions(u8* roots, u8* nodes, const u8* leaves, u64 leaves_each, u64 count) {
    const u8* below = leaves;
    for (u64 each = leaves_each; each > 1; each /= 2, below = nodes) keccak256_equal(nodes, below, 2 * DIGEST_BYTES, count * each / 2);
    std::memcpy(roots, nodes, count * DIGEST_BYTES);
}

struct Engine {
    Engine(u32 threads, exact_isa::Forward* isa_forward) : crew(threads), forward(isa_forward) {}

    ThreadCrew crew;
    exact_isa::Forward* forward;
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
        columns.resize(4ull * model.layers + 1);
        layers.resize(model.layers);
        std::vector<u64> offsets = {0};
        for (u32 l = 0; l < model.layers; ++l) {
            const LayerSource& from = source.layers[l];
            for (const MatrixSource* one : {&from.qkv, &from.o, &from.gate_up, &from.down})
                offsets.push_back(offsets.back() + packed_bytes(*one));
        }
        weights = Memory(offsets.back() + packed_bytes(source.head));
        if (!weights.base()) return false;
        auto pack_one = [&](u64 index, const MatrixSource& one) {
            return columns[index].pack(one, reinterpret_cast<i8*>(weights.base() + offsets[index]));
        };
        crew.run([&](u32 thread) {
            for (u32 l = thread; l < model.layers; l += crew.size()) {
                const LayerSource& from = source.layers[l];
                layers[l] = {pack_one(4ull * l, from.qkv),         pack_one(4ull * l + 1, from.o),
                             pack_one(4ull * l + 2, from.gate_up), pack_one(4ull * l + 3, from.down),
                             from.query_norm,                      from.key_norm};
            }
            if (thread == 0) model.head = pack_one(4ull * model.layers, source.head);
        });
        model.layer = layers.data();
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
        work.wide = buffer<i32>(rows * std::max(qkv, 2 * feed_forward));
        work.attended = buffer<i32>(rows * attention);
        work.quantised = buffer<u8>(2 * rows * columns_max);
        work.scale = buffer<Scale>(rows);
        work.queries = buffer<u8>(rows * attention);
        work.query_scale = buffer<Mantissa>(1ull * rows * model.heads);
        work.scores = buffer<i32>(1ull * crew.size() * QUERIES_MAX * context);
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
    static const std::vector<Isa> sets = instruction_sets();
    if (index >= sets.size()) return nullptr;
    *available = sets[index].available;
    return sets[index].name;
}

// Sizes of the structs that Python fills, to be compared at load.
WG_EXPORT void warpgrid_exact_layout(u64* sizes) {
    sizes[0] = sizeof(ModelSource);
    sizes[1] = sizeof(LayerSource);
    sizes[2] = sizeof(MatrixSource);
    sizes[3] = sizeof(Batch);
}

// An engine, or null when memory does not suffice. The source's weights are copied; norms, embedding and tables are not.
WG_EXPORT void* warpgrid_exact_open(const ModelSource* source, const char* isa, u32 threads, u32 rows_max, u64 pages) {
    for (const Isa& one : instruction_sets()) {
        if (std::strcmp(one.name, isa) != 0 || !one.available) continue;
        Engine* engine = new (std::nothrow) Engine(threads, one.forward);
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
    engine.crew.run([&](u32 index) {
        engine.forward(index, engine.crew.size(), &ThreadCrew::wait, &engine.crew, &engine.model, batch, &engine.work);
    });
    return 0;
}
