// Instances mode on a GPU, one transaction a thread: what the kernels share.
//
// A grid of resident blocks takes a row of the batch for each thread at a time. The rows come sorted by (code,
// selector), so that a warp's lanes mostly run the same instructions; after each one the lanes are brought together
// again, since the compiler never does that in a loop around a switch. The warps of a block begin together, so that
// they find each other's instructions in the caches: what the engine executes for a token's transfer, 90 KB, is more
// than those hold for warps at sixteen different places. Private memory belongs to the resident thread, not to the
// transaction, so that it stays in the caches.
#pragma once

#include "worker/evm/native/results.hpp"

namespace warpgrid::evm {

// The host writes it before each launch (worker/evm/gpu_engine.py).
struct LaunchArguments {
    World world;
    Transactions batch;
    Outputs outputs;
    ArenaSizes sizes;
    ArenaLayout layout;
    const u32* rows;
    u64 count;
    u64* next_row;  // shared counter, zero at launch
    u8* lanes;      // warp_bytes for each resident warp
    u8* regions;    // region_bytes for each resident thread
    u64 warp_bytes;
    u64 region_stride;
    u64 row_ns_max;   // a row that runs longer ends as Halt::Late
    u32* begun_rows;  // in the host's memory, for each resident thread: the row it began last
};
static_assert(sizeof(LaunchArguments) == 656);

}  // namespace warpgrid::evm

// In constant memory, where every function reads it as an operand.
extern "C" {
__constant__ warpgrid::evm::LaunchArguments warpgrid_evm_arguments;
}

namespace warpgrid::evm {

constexpr u32 THREADS_PER_BLOCK_MAX = 256;  // of run_rows; a multiple of 32 below it will do for few rows
constexpr u32 STOPS_A_STEP = 16;  // how often a warp leaves its dispatch until it waits for the others of its block
constexpr i64 GAS_NEVER = static_cast<i64>(1ull << 63);  // no frame has so little

// The code that each thread's running frame runs: jumps and wide constants ask for it, and would
// have to wait for the L2.
__shared__ CodeView near_codes[THREADS_PER_BLOCK_MAX];

struct LaunchContext {
    struct CodePlace {
        __device__ __forceinline__ CodeView& view() const { return near_codes[threadIdx.x]; }
    };
    static constexpr u32 LANES = 32;
    WG_FN const World& world() const { return warpgrid_evm_arguments.world; }
    WG_FN const Transactions& batch() const { return warpgrid_evm_arguments.batch; }
};

// The common class: the division of its arenas is known when the kernel is compiled.
struct CommonContext : LaunchContext {
    static constexpr Reach REACH = Reach::Common;
    WG_FN constexpr ArenaSizes sizes() const { return common_arenas(); }
    WG_FN constexpr ArenaLayout layout() const { return lay_out(common_arenas()); }
};

struct HeavyContext : LaunchContext {
    static constexpr Reach REACH = Reach::Everything;
    WG_FN const ArenaSizes& sizes() const { return warpgrid_evm_arguments.sizes; }
    WG_FN const ArenaLayout& layout() const { return warpgrid_evm_arguments.layout; }
};

// The commonest of the records that were put off: their operands and results travel in processor registers. What it
// does not take on stays put off.
template <class M>
__device__ __forceinline__ void execute_by_value(M& m, typename M::Regs& r, u64 deadline_ns) {
    const Instruction instruction = r.record[-1];
    const u8 operation = static_cast<u8>(instruction.head);
    if (operation == OP_BLOCK) {
        r.halt = device_time_ns() > deadline_ns ? Halt::Late : Halt::None;
    } else if (operation == OP_KECCAK256 && is_pair_in_memory(r)) {
        r.halt = Halt::None;
        hash_pair(m, r);
    } else if (operation == OP_SLOAD) {
        r.halt = Halt::None;
        op_SLOAD(m, r, instruction);
    } else if (operation == OP_SSTORE) {
        r.halt = Halt::None;
        op_SSTORE(m, r, instruction);
    } else if (operation == OP_MSTORE || operation == OP_MLOAD) {  // once memory has grown, the dispatch can do it
        r.halt = Halt::None;
        if (ensure_memory(m, r, saturate_u64(r.stack.top()), 32)) --r.record;
    } else if (operation == OP_DIV) {
        r.halt = Halt::None;
        op_DIV(r.stack);
    }
}

// What the dispatch leaves to a call: a record that was put off, or the end of a frame. True if
// the transaction goes on.
template <class M>
__device__ __noinline__ bool go_on(M& m, typename M::Regs& r) {
    if (r.halt == Halt::PutOff) {
        execute_put_off(m, r);
        if (r.halt == Halt::None) return true;
    }
    return leave_frame(m, r);
}

// In PTX, since of a pointer known to be of device memory the compiler keeps a second copy beside the first. The hint
// to keep records in the L1 cache was measured to gain nothing (kernel.cu).
__device__ __forceinline__ Instruction record_at(const Instruction* record) {
    Instruction instruction;
    asm volatile("ld.global.L1::evict_last.v2.u32 {%0, %1}, [%2];"
                 : "=r"(instruction.head), "=r"(instruction.immediate)
                 : "l"(record));
    return instruction;
}

// The dispatch: a record a turn, lanes brought together after each, until one of them halts. There is not a call in it:
// for one, the state of divergence would be saved at every record. The record that follows is read
// while one is executed.
template <class M>
__device__ __forceinline__ void run_until_a_lane_halts(M& m, typename M::Regs& r) {
    // Added to what was read ahead: copied as it is, ptxas would copy it where it is read, and wait for it there. It is
    // 0, since rows are numbered in 32 bits.
    const u32 zero = static_cast<u32>(warpgrid_evm_arguments.count >> 32);
    for (;;) {
        Instruction instruction = record_at(r.record);
        do {
            r.halt = Halt::None;
            r.ahead.next = record_at(++r.record);
            execute_without_calls(m, r, instruction);
            instruction = {r.ahead.next.head + zero, r.ahead.next.immediate + zero};
        } while (!any_lane(r.halt != Halt::None));
        if (r.halt == Halt::Moved) r.halt = Halt::None;
        if (any_lane(r.halt != Halt::None)) return;
    }
}

// Runs what `open_machine` began, all lanes of the warp together; and, if all warps of the block are `in_step`, these
// side by side, so that they find each other's instructions in the caches. `r` becomes what it is at the end;
// `addressed` is room for a copy of it.
template <class M>
__device__ __forceinline__ void run_together(M& m, typename M::Regs& r, typename M::Regs& addressed, bool running,
                                             bool in_step) {
    Halt outcome = r.halt;
    u32 stops = 0;
    if (!running) r.record = WAIT;
    const u64 deadline_ns = device_time_ns() + warpgrid_evm_arguments.row_ns_max;
    r.ahead.blocks = 0;
    reunite_lanes(r.gas != GAS_NEVER);
    while (any_lane(running)) {
        run_until_a_lane_halts(m, r);
        if (r.halt == Halt::PutOff) execute_by_value(m, r, deadline_ns);
        if (r.halt != Halt::None) {
            addressed.take(r);
            running = go_on(m, addressed);
            r.take(addressed);
            if (!running) {
                outcome = r.halt;
                r.record = WAIT;
            }
        }
        reunite_lanes(r.gas != GAS_NEVER);
        if (in_step && ++stops % STOPS_A_STEP == 0) __syncthreads_or(true);
    }
    while (in_step && __syncthreads_or(false)) {  // until none of the block's warps runs
    }
    r.halt = outcome;
}

// Do all of the block's warps run the same code? Asked by all of its threads.
__device__ __forceinline__ bool is_alike(bool running, u32 code) {
    __shared__ u32 block_code;
    if (threadIdx.x == 0) block_code = code;
    __syncthreads();
    return __syncthreads_and(!running || code == block_code);
}

template <class Context>
__device__ __forceinline__ void run_rows() {
    const LaunchArguments& a = warpgrid_evm_arguments;
    const u32 thread = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32;
    extern __shared__ u8 near_words[];  // NEAR_WORDS words for each thread: the launch says how much
    const LaneMemory<32> memory = {a.lanes + thread / 32 * a.warp_bytes + lane * CHUNK_BYTES};
    __shared__ u64 block_first;  // row of the block's first thread
    Machine<Context> m;
    m.granularity = Granularity::Block;
    u8* const own_words = near_words + threadIdx.x / 32 * (NEAR_WORDS * 32 * 32) + lane * CHUNK_BYTES;
    for (;;) {
        __syncthreads();
        if (threadIdx.x == 0) block_first = atomicAdd(a.next_row, static_cast<u64>(blockDim.x));
        __syncthreads();
        if (block_first >= a.count) break;
        const u64 first = block_first + threadIdx.x / 32 * 32;
        const bool present = first + lane < a.count;
        Registers<32> r = {}, addressed;  // in processor registers, and a copy for functions that are called
        Rejection rejection = Rejection::None;
        bool running = false;
        if (present) {
            const u32 row = a.rows[first + lane];
            a.begun_rows[thread] = row;
            m.block = &a.batch.blocks[a.batch.block[row]];
            addressed = {};
            addressed.stack.near_words = own_words;
            rejection = open_machine(m, addressed, row, memory, a.regions + thread * a.region_stride);
            running = rejection == Rejection::None && m.state.fault == Halt::None;
            if (running && addressed.halt != Halt::None)
                running = leave_frame(m, addressed);  // a precompile, a collision
            r.take(addressed);
        }
        reunite_lanes(r.gas != GAS_NEVER);
        run_together(m, r, addressed, running, is_alike(running, m.frame.code));
        if (present) {
            addressed.take(r);
            write_result(m, addressed, rejection, a.outputs);
        }
        converge_lanes();
    }
}

}  // namespace warpgrid::evm
