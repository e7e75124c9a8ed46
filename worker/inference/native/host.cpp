// C entry points of libwarpgrid_exact: open a model over mapped tensors, run batches, on a crew of threads.
//
// Host code: it may allocate and use the standard library. What is computed lives in cpu/engine.hpp.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <type_traits>
#include <vector>

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

bool cpu_has_avx2() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
#else
    return false;
#endif
}

bool cpu_has_avx512vnni() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512cd");
#else
    return false;
#endif
}

// Fastest first.
std::vector<Isa> instruction_sets() {
    return {
#if defined(__x86_64__)
        {"avx512vnni", exact_isa::forward_avx512vnni, cpu_has_avx512vnni()},
        {"avx2", exact_isa::forward_avx2, cpu_has_avx2()},
#endif
        {"generic", exact_isa::forward_generic, true},
    };
}

// Threads that run the same function together. A barrier spins briefly (layers meet every few microseconds), then yields
// the core, so that a crew larger than the free cores still moves.
class ThreadCrew {
public:
    explicit ThreadCrew(u32 size) : size_(size) {
        for (u32 i = 1; i < size; ++i) threads_.emplace_back([this, i] { serve(i); });
    }

    ~ThreadCrew() {
        {
            std::lock_guard lock(mutex_);
            stopping_ = true;
        }
        wake_.notify_all();
        for (auto& thread : threads_) thread.join();
    }

    template <typename Task>
    void run(Task&& task) {
        call_ = [](void* state, u32 index) { (*static_cast<std::remove_reference_t<Task>*>(state))(index); };
        state_ = &task;
        finished_.store(0);
        {
            std::lock_guard lock(mutex_);
            ++generation_;
        }
        wake_.notify_all();
        task(0);
        while (finished_.load(std::memory_order_acquire) + 1 < size_) std::this_thread::yield();
    }

    static void wait(void* crew) { static_cast<ThreadCrew*>(crew)->wait(); }
    u32 size() const { return size_; }

private:
    static constexpr u32 SPINS_MAX = 4'000;

    void wait() {
        const u32 phase = phase_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            arrived_.store(0, std::memory_order_relaxed);
            phase_.store(phase + 1, std::memory_order_release);
            return;
        }
        for (u32 spins = 0; phase_.load(std::memory_order_acquire) == phase; ++spins) {
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
            if (spins > SPINS_MAX) std::this_thread::yield();
        }
    }

    void serve(u32 index) {
        u64 seen = 0;
        while (true) {
            {
                std::unique_lock lock(mutex_);
                wake_.wait(lock, [&] { return stopping_ || generation_ != seen; });
                if (stopping_) return;
                seen = generation_;
            }
            call_(state_, index);
            finished_.fetch_add(1, std::memory_order_release);
        }
    }

    const u32 size_;
    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable wake_;
    u64 generation_ = 0;
    bool stopping_ = false;
    void (*call_)(void*, u32) = nullptr;
    void* state_ = nullptr;
    std::atomic<u32> finished_{0}, arrived_{0}, phase_{0};
};

template <typename T>
std::unique_ptr<T[], decltype(&std::free)> aligned(u64 count) {
    const u64 bytes = (count * sizeof(T) + 63) / 64 * 64 + 64;
    return {static_cast<T*>(std::aligned_alloc(64, bytes)), &std::free};
}

using Bytes = std::unique_ptr<u8[], decltype(&std::free)>;

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

struct PackedMatrix {
    Bytes weights{nullptr, &std::free};
    std::vector<i32> corrections, mantissa, row_shift, bias;

    bool pack(const MatrixSource& source) {
        const u32 padded = (source.rows + BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS * BLOCK_OUTPUTS;
        weights = aligned<u8>(static_cast<u64>(padded) * source.columns);
        if (!weights) return false;
        corrections.assign(padded, 0);
        mantissa.assign(padded, 1 << 15);
        row_shift.assign(padded, 62);
        if (source.bias) bias.assign(source.bias, source.bias + source.rows);
        for (u32 n = 0; n < padded; ++n) {
            i32 sum = 0;
            i8* block = reinterpret_cast<i8*>(weights.get()) + static_cast<u64>(n / BLOCK_OUTPUTS) * BLOCK_OUTPUTS * source.columns +
                        n % BLOCK_OUTPUTS * STEP_INPUTS;
            for (u32 k = 0; k < source.columns; ++k) {
                const i8 w = n < source.rows ? source.weights[static_cast<u64>(n) * source.columns + k] : 0;
                block[k / STEP_INPUTS * STEP_BYTES + k % STEP_INPUTS] = w;
                sum += w;
            }
            if (n >= source.rows) continue;
            corrections[n] = 128 * sum;
            mantissa[n] = source.mantissa[n];
            row_shift[n] = -(8 + source.exponent[n] + source.output_fraction);
        }
        return true;
    }

    Matrix view(const MatrixSource& source) const {
        return {reinterpret_cast<const i8*>(weights.get()), corrections.data(), mantissa.data(), row_shift.data(),
                bias.empty() ? nullptr : bias.data(), source.rows, source.columns, source.bits};
    }
};

struct Engine {
    Engine(u32 threads, exact_isa::Forward* isa_forward) : crew(threads), forward(isa_forward) {}

    ThreadCrew crew;
    exact_isa::Forward* forward;
    Model model{};
    std::vector<PackedMatrix> packed;
    std::vector<Layer> layers;
    u32 rows_max = 0;
    u64 pages = 0;
    Bytes residual{nullptr, &std::free}, wide{nullptr, &std::free}, attended{nullptr, &std::free},
        quantised{nullptr, &std::free}, scale{nullptr, &std::free}, queries{nullptr, &std::free},
        query_max{nullptr, &std::free}, scores{nullptr, &std::free}, cache{nullptr, &std::free};
    Workspace work{};

    bool pack(const ModelSource& source) {
        model = source.model;
        packed.resize(4ull * model.layers + 1);
        layers.resize(model.layers);
        std::atomic<bool> ok{true};
        auto pack_one = [&](u64 index, const MatrixSource& one) {
            if (!packed[index].pack(one)) ok = false;
        };
        crew.run([&](u32 thread) {
            for (u32 l = thread; l < model.layers; l += crew.size()) {
                const LayerSource& from = source.layers[l];
                pack_one(4ull * l, from.qkv);
                pack_one(4ull * l + 1, from.o);
                pack_one(4ull * l + 2, from.gate_up);
                pack_one(4ull * l + 3, from.down);
                layers[l] = {packed[4ull * l].view(from.qkv),         packed[4ull * l + 1].view(from.o),
                             packed[4ull * l + 2].view(from.gate_up), packed[4ull * l + 3].view(from.down),
                             from.query_norm,                         from.key_norm};
            }
            if (thread == 0) pack_one(4ull * model.layers, source.head);
        });
        model.layer = layers.data();
        model.head = packed.back().view(source.head);
        return ok;
    }

    bool reserve(u32 rows, u64 cache_pages) {
        rows_max = rows;
        pages = cache_pages;
        const u64 qkv = (model.heads + 2ull * model.kv_heads) * model.head_width, attention = 1ull * model.heads * model.head_width;
        const u64 wide_columns = std::max(qkv, 2ull * model.feed_forward);
        const u64 columns = std::max({static_cast<u64>(model.width), static_cast<u64>(model.feed_forward), attention});
        residual = aligned<u8>(4ull * rows * model.width);
        wide = aligned<u8>(4 * rows * wide_columns);
        attended = aligned<u8>(4 * rows * attention);
        quantised = aligned<u8>(2 * rows * columns);
        scale = aligned<u8>(sizeof(Scale) * rows);
        queries = aligned<u8>(rows * attention);
        query_max = aligned<u8>(4ull * rows * model.heads);
        scores = aligned<u8>(4ull * crew.size() * model.context_max);
        cache = aligned<u8>(cache_pages * model.layers * model.kv_heads * page_head_bytes(model.head_width));
        work = {reinterpret_cast<i32*>(residual.get()), reinterpret_cast<i32*>(wide.get()),
                reinterpret_cast<i32*>(attended.get()), quantised.get(), reinterpret_cast<Scale*>(scale.get()),
                reinterpret_cast<i8*>(queries.get()),   reinterpret_cast<i32*>(query_max.get()),
                reinterpret_cast<i32*>(scores.get()),   cache.get()};
        return residual && wide && attended && quantised && scale && queries && query_max && scores && cache;
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
