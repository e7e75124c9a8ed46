// The operand stack of the running frame. All frames of a transaction share one section of its arenas: a frame's stack
// begins above its caller's, with one unused slot between.
//
// On a CPU the top lies in memory like the rest. On a GPU it is kept in registers (`value`), which saves a store and a
// load for most instructions, and the words under it partly in shared memory. Callers check heights.
#pragma once

#include "worker/evm/native/lane_memory.hpp"

namespace warpgrid::evm {

constexpr u32 STACK_HEIGHT_MAX = 1024;

// How many of a frame's lowest words lie in a multiprocessor's own memory. The L1 cache writes every store through to
// the L2, whose bandwidth stack words would fill (notes in kernel.cu).
constexpr u32 NEAR_WORDS = 6;

template <u32 LANES>
struct Stack {
    u8* near_words;  // of this lane: word i of the frame, for i < NEAR_WORDS
    u8* far_words;   // of this lane: word i of the section
    u32 count;       // words of the frame; the last one is `value`
    u32 base;        // the unused slot below the frame's first, in the section
    u32 limit;       // height that this frame may reach
    u256 value;

    static constexpr u32 WORD_STRIDE = 32 * LANES;

    WG_FN LaneMemory<LANES> place(u32 i) const {
        return {i < NEAR_WORDS ? near_words + i * WORD_STRIDE : far_words + (base + i) * WORD_STRIDE};
    }

    WG_FN u256& top() { return value; }
    WG_FN u256 at(u32 n) const { return load(count - n); }
    WG_FN void set(u32 n, const u256& word) { store(count - n, word); }
    WG_FN void push(const u256& word) {
        make_room();
        value = word;
    }
    WG_FN void drop(u32 n) {
        count -= n;
        value = load(count);
    }
    // Drops n and replaces the new top.
    WG_FN void replace(u32 n, const u256& word) {
        count -= n;
        value = word;
    }
    // The top is stored before the word is read, so that no register holds both.
    WG_FN void duplicate(u32 n) {
        make_room();
        if (n != 0) value = load(count - 1 - n);
    }
    WG_FN void swap(u32 n) {
        const u256 other = at(n);
        set(n, value);
        value = other;
    }
    // Drops the n words under the top.
    WG_FN void slide(u32 n) { count -= n; }
    WG_FN u32 height() const { return count; }

    // Leaves the frame's words in the section, for `resume`.
    WG_FN void flush() const {
        for (u32 i = 0; i < count; ++i) far(i).store_word(0, load(i));
        far(count).store_word(0, value);
    }
    WG_FN void open(u32 slot) {
        base = slot;
        count = 0;
    }
    WG_FN void resume(u32 frame_base, u32 top_slot) {
        base = frame_base;
        count = top_slot - frame_base;
        for (u32 i = 0; i < count && i < NEAR_WORDS; ++i) store(i, far(i).load_word(0));
        value = far(count).load_word(0);
    }
    WG_FN u32 top_slot() const { return base + count; }
    WG_FN u32 base_slot() const { return base; }
    WG_FN void bind(LaneMemory<LANES> lane) { far_words = lane.base; }
    WG_FN void take(const Stack& other) {
        near_words = other.near_words;
        far_words = other.far_words;
        count = other.count;
        base = other.base;
        limit = other.limit;
        WG_UNROLL
        for (u32 i = 0; i < 4; ++i) value.w[i] = other.value.w[i];
    }

   private:
    // Stores the top where it belongs among the others; it is the new top, too, until another word takes its place.
    WG_FN void make_room() {
        store(count, value);
        ++count;
    }
    WG_FN LaneMemory<LANES> far(u32 i) const { return {far_words + (base + i) * WORD_STRIDE}; }
    WG_FN u256 load(u32 i) const { return place(i).load_word_anywhere(); }
    WG_FN void store(u32 i, const u256& word) const { place(i).store_word_anywhere(word); }
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
    WG_FN void slide(u32 n) {
        slot[-static_cast<i64>(n)] = *slot;
        slot -= n;
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
