// Everything about one transaction in flight: the registers of the running frame, and the rest, which instructions
// touch more rarely. Instruction cores get these two and assume what dispatch has checked: constant gas, stack heights.
#pragma once

#include "worker/evm/native/code.hpp"
#include "worker/evm/native/gas.hpp"
#include "worker/evm/native/stack.hpp"
#include "worker/evm/native/state.hpp"

namespace warpgrid::evm {

// What a GPU's dispatch keeps beside (kernel.hpp): the record read ahead of the one it executes, and how many blocks it
// began since it looked at the clock.
template <u32 LANES>
struct Ahead {
    Instruction next;
    u32 blocks;
};
template <>
struct Ahead<1> {};

// What the interpreter's loop keeps in processor registers. Functions that are not inlined get a copy, so that the
// original never has an address.
template <u32 LANES>
struct Registers {
    const Instruction* record;
    i64 gas;
    u64 memory_base;   // of this frame's memory, in the arenas
    u64 memory_bytes;  // its size now, a multiple of 32
    Stack<LANES> stack;
    Halt halt;
    [[no_unique_address]] Ahead<LANES> ahead;

    // Takes over registers that were in memory, word by word: copied as a whole, nvcc keeps them in pieces of a byte.
    WG_FN void take(const Registers& other) {
        record = other.record;
        gas = other.gas;
        memory_base = other.memory_base;
        memory_bytes = other.memory_bytes;
        stack.take(other.stack);
        halt = other.halt;
    }

    WG_FN bool charge(u64 amount) {
        if (static_cast<u64>(gas) < amount) {
            halt = Halt::OutOfGas;
            return false;
        }
        gas -= static_cast<i64>(amount);
        return true;
    }
    WG_FN void note_charge(u64) {}  // of what was charged otherwise, for those who trace
};

// Contiguous memory of one transaction: bytes grow from the front, descriptors of codes sit behind.
struct Region {
    u8* base;
    u64 bytes_max;
    u64 top;
    u32 code_count, code_max;

    // Offset of `size` fresh bytes aligned to 16, or ~0 when there is no room.
    WG_FN u64 take(u64 size) {
        const u64 start = (top + 15) & ~15ull;
        if (size > bytes_max || start > bytes_max - size) return ~0ull;
        top = start + size;
        return start;
    }
    WG_FN Code& code(u32 number) const {
        return reinterpret_cast<Code*>(base + bytes_max)[number & ~CODE_PRIVATE];
    }
};

// Which precompiles a build of the engine computes. On a GPU the common class leaves all but the hashes to the heavy
// one: what their code costs in registers and stack, every transaction would pay.
enum class Reach : u8 { Common, Everything };

// Where a machine finds the base, the batch and the division of its arenas. This one holds pointers; kernels have
// contexts of their own, whose members are constants to them (kernel.hpp).
struct HostContext {
    struct CodePlace {
        CodeView kept;
        WG_FN CodeView& view() { return kept; }
        WG_FN const CodeView& view() const { return kept; }
    };
    static constexpr u32 LANES = 1;
    static constexpr Reach REACH = Reach::Everything;
    const World* base;
    const Transactions* transactions;
    const ArenaSizes* arena_sizes;
    const ArenaLayout* arena_layout;

    WG_FN const World& world() const { return *base; }
    WG_FN const Transactions& batch() const { return *transactions; }
    WG_FN const ArenaSizes& sizes() const { return *arena_sizes; }
    WG_FN const ArenaLayout& layout() const { return *arena_layout; }
};

template <class Context>
struct Machine {
    static constexpr u32 LANES = Context::LANES;
    static constexpr Reach REACH = Context::REACH;
    using Regs = Registers<LANES>;

    State<Context> state;
    const BlockEnvironment* block;
    u64 index;  // of the transaction in the batch
    LaneMemory<LANES> memory;
    Region region;
    Frame frame;    // the running one
    [[no_unique_address]] typename Context::CodePlace code_place;
    Address self;   // whose storage and balance it uses
    u32 depth;
    u32 logs;
    u64 log_bytes;
    u64 return_bytes;
    i64 refund;
    u256 gas_price;
    u64 floor_gas;
    Granularity granularity;
    u32 digests_made = 0;  // the arenas hold the last of them; they stay true from transaction to transaction

    WG_FN decltype(auto) code() { return code_place.view(); }  // that the running frame runs
    WG_FN decltype(auto) code() const { return code_place.view(); }
    WG_FN decltype(auto) world() const { return state.context.world(); }
    WG_FN decltype(auto) batch() const { return state.context.batch(); }
    WG_FN decltype(auto) sizes() const { return state.context.sizes(); }
    WG_FN decltype(auto) layout() const { return state.context.layout(); }
    WG_FN Fork fork() const { return static_cast<Fork>(block->fork); }
    WG_FN bool is_static() const { return frame.flags & FRAME_STATIC; }
    WG_FN const Address& sender() const { return batch().sender[index]; }

    WG_FN const Code& code_of(u32 number) const {
        return number & CODE_PRIVATE ? region.code(number) : world().codes[number];
    }
    WG_FN const u8* blob_of(u32 number) const { return number & CODE_PRIVATE ? region.base : world().code_blob; }
    WG_FN const u8* code_bytes(u32 number) const { return blob_of(number) + code_of(number).bytes; }

    // Byte ranges of the input of the running frame.
    WG_FN const u8* outside_input() const { return batch().data + frame.input_offset; }
};

// A frame's memory after growth, with the gas that is left.
struct Growth {
    i64 gas;
    u64 bytes;
    Halt halt;
};

// What growth costs, or 0 where no gas could pay for it.
WG_FN u64 growth_gas(u64 bytes, u64 offset, u64 size) {
    if (offset > MEMORY_BYTES_UNPAYABLE || size > MEMORY_BYTES_UNPAYABLE) return 0;
    return memory_gas(words_of(offset + size)) - memory_gas(bytes / 32);
}

// Makes memory[offset .. offset + size) of the frame whose memory begins at `base` and has `bytes` exist, charging for
// growth. Everything travels in processor registers.
template <class M>
WG_NOINLINE Growth grow_memory(const M& m, u64 base, u64 bytes, i64 gas, u64 offset, u64 size) {
    if (offset > MEMORY_BYTES_UNPAYABLE || size > MEMORY_BYTES_UNPAYABLE) return {gas, bytes, Halt::OutOfGas};
    const u64 words = words_of(offset + size), cost = memory_gas(words) - memory_gas(bytes / 32);
    if (static_cast<u64>(gas) < cost) return {gas, bytes, Halt::OutOfGas};
    gas -= static_cast<i64>(cost);
    if (base + words * 32 > m.layout().memory + m.sizes().memory_bytes) return {gas, bytes, Halt::Overflow};
    m.memory.zero(base + bytes, words * 32 - bytes);
    return {gas, words * 32, Halt::None};
}

// Does the frame's memory hold the 32 bytes at `offset`?
template <class R>
WG_FN bool memory_holds_word(const R& r, u64 offset) {
    return offset <= r.memory_bytes && 32 <= r.memory_bytes - offset;
}

template <class M>
WG_FN bool ensure_memory(const M& m, typename M::Regs& r, u64 offset, u64 size) {
    // offset + size cannot wrap unnoticed: either operand near 2^64 exceeds memory_bytes on its own
    if (offset <= r.memory_bytes && size <= r.memory_bytes - offset) return true;
    if constexpr (M::LANES == 1) r.note_charge(growth_gas(r.memory_bytes, offset, size));
    const Growth growth = grow_memory(m, r.memory_base, r.memory_bytes, r.gas, offset, size);
    r.gas = growth.gas;
    r.memory_bytes = growth.bytes;
    if (growth.halt != Halt::None) r.halt = growth.halt;
    return growth.halt == Halt::None;
}

// The same for a range given by stack words; an empty range needs nothing, wherever it lies.
template <class M>
WG_FN bool ensure_range(const M& m, typename M::Regs& r, const u256& offset, const u256& size) {
    return is_zero(size) || ensure_memory(m, r, saturate_u64(offset), saturate_u64(size));
}

}  // namespace warpgrid::evm
