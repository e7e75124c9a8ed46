// The operand stack of the running frame. All frames of a transaction share one section of its arenas: a frame's stack
// begins above its caller's, with one unused slot between.
//
// On a CPU the top lies in memory like the rest. On a GPU it is kept in registers (`value`), which saves a store and a
// load for most instructions (notes in kernel.cu); the slot of the top is stale until `flush`. Callers check heights.
#pragma once

#include "worker/evm/native/lane_memory.hpp"

namespace warpgrid::evm {

constexpr u32 STACK_HEIGHT_MAX = 1024;

template <u32 LANES>
struct Stack {
    LaneMemory<LANES> memory;  // the section begins at offset 0
    u32 highest;               // slot of the top
    u32 base;                  // the unused slot below the frame's first
    u32 limit;                 // height that this frame may reach
    u256 value;

    WG_FN u256& top() { return value; }
    WG_FN u256 at(u32 n) const { return memory.load_word((highest - n) * 32ull); }
    WG_FN void set(u32 n, const u256& word) { memory.store_word((highest - n) * 32ull, word); }
    WG_FN void push(const u256& word) {
        flush();
        ++highest;
        value = word;
    }
    WG_FN void drop(u32 n) {
        highest -= n;
        reload();
    }
    // Drops n and replaces the new top.
    WG_FN void replace(u32 n, const u256& word) {
        highest -= n;
        value = word;
    }
    WG_FN void duplicate(u32 n) { push(n == 0 ? u256(value) : at(n)); }
    WG_FN void swap(u32 n) {
        const u256 other = at(n);
        set(n, value);
        value = other;
    }
    WG_FN u32 height() const { return highest - base; }

    WG_FN void flush() const { memory.store_word(highest * 32ull, value); }
    WG_FN void reload() { value = memory.load_word(highest * 32ull); }
    WG_FN void open(u32 slot) { highest = base = slot; }
    WG_FN void resume(u32 frame_base, u32 top_slot) {
        base = frame_base;
        highest = top_slot;
        reload();
    }
    WG_FN u32 top_slot() const { return highest; }
    WG_FN u32 base_slot() const { return base; }
    WG_FN void bind(LaneMemory<LANES> lane) { memory = lane; }
    WG_FN void take(const Stack& other) {
        memory.base = other.memory.base;
        highest = other.highest;
        base = other.base;
        limit = other.limit;
        WG_UNROLL
        for (u32 i = 0; i < 4; ++i) value.w[i] = other.value.w[i];
    }
};

template <>
struct Stack<1> {
    u256* section;
    u256* slot;
    u256* base;
    u32 limit;

    WG_FN u256& top() { return *slot; }
    WG_FN const u256& at(u32 n) const { return slot[-static_cast<i64>(n)]; }
    WG_FN void set(u32 n, const u256& word) { slot[-static_cast<i64>(n)] = word; }
    WG_FN void push(const u256& word) { *++slot = word; }
    WG_FN void drop(u32 n) { slot -= n; }
    WG_FN void replace(u32 n, const u256& word) {
        slot -= n;
        *slot = word;
    }
    WG_FN void duplicate(u32 n) {
        slot[1] = slot[-static_cast<i64>(n)];
        ++slot;
    }
    WG_FN void swap(u32 n) {
        const u256 other = slot[-static_cast<i64>(n)];
        slot[-static_cast<i64>(n)] = *slot;
        *slot = other;
    }
    WG_FN u32 height() const { return static_cast<u32>(slot - base); }

    WG_FN void flush() const {}
    WG_FN void reload() {}
    WG_FN void open(u32 number) { slot = base = section + number; }
    WG_FN void resume(u32 frame_base, u32 number) {
        base = section + frame_base;
        slot = section + number;
    }
    WG_FN u32 top_slot() const { return static_cast<u32>(slot - section); }
    WG_FN u32 base_slot() const { return static_cast<u32>(base - section); }
    WG_FN void bind(LaneMemory<1> lane) { section = reinterpret_cast<u256*>(lane.base); }
};

}  // namespace warpgrid::evm
