// How a transaction's private memory is divided, sized before the launch: a class of arenas.
//
// Nothing grows while a transaction runs. What does not fit ends with Status::Overflow and runs again in a larger
// class, so that common transactions do not pay for rare ones.
#pragma once

#include "worker/evm/native/types.hpp"

namespace warpgrid::evm {

// What a class holds for one transaction; the host fills it in.
struct ArenaSizes {
    u64 stack_words;      // of all frames together
    u64 memory_bytes;     // of all frames together
    u64 return_bytes;     // the longest return data
    u64 accounts;         // accounts touched
    u64 slots;            // slots touched, transient ones included
    u64 index_entries;    // of each of the two indexes: a power of two, at least 2 * max(accounts, slots), or 0
    u64 journal_entries;  // changes that can be undone
    u64 log_bytes;
    u64 frames;           // call depth
    u64 region_bytes;     // contiguous memory: new code, its decoded form, buffers of precompiles
    u64 codes;            // codes made by the transaction
};
static_assert(sizeof(ArenaSizes) == 88);

// ---- what the sections hold; they are also the format of the results ------------------------------------------------

enum EntryFlag : u32 {
    ENTRY_LOADED = 1,      // the base values are there
    ENTRY_WARM = 2,        // EIP-2929
    ENTRY_EXISTS = 4,      // accounts: in the state now (empty accounts only if they were there before)
    ENTRY_EXISTED = 8,     // accounts: in the state before the transaction
    ENTRY_WRITTEN = 16,    // changed, if only to the same value: then an empty account disappears (EIP-161)
    ENTRY_CREATED = 32,    // accounts: created by this transaction (EIP-6780)
    ENTRY_DESTROYED = 64,  // accounts: self-destructed
    ENTRY_TRANSIENT = 128,  // slots: EIP-1153
    ENTRY_STORAGE = 256,    // accounts: had storage before the transaction
    ENTRY_NEW_CODE = 512,   // accounts: the code was set by this transaction
    ENTRY_ASKED = 1024,     // accounts: an instruction depended on whether it was warm; never undone
};

struct alignas(16) AccountEntry {
    Address address;
    u32 flags;
    u64 nonce;
    u256 balance;
    u32 code;
    u32 base;  // record number, or NONE
    u64 original_nonce;
    u256 original_balance;
    u32 original_code;
    u32 hash;
    u64 output_code;  // in results: where the new code begins in the code section
};
static_assert(sizeof(AccountEntry) == 128 && alignof(AccountEntry) == 16);

struct alignas(16) SlotEntry {
    u256 key;
    u256 value;
    u256 original;
    u32 account;  // entry number
    u32 flags;
    u32 hash;
    u32 base;  // record number, or NONE
};
static_assert(sizeof(SlotEntry) == 112);

struct alignas(16) JournalEntry {
    u32 entry;  // number, with JOURNAL_SLOT for a slot
    u32 flags;
    u64 nonce;
    u256 value;  // balance or slot value
    u32 code;
    u32 padding[3];
};
static_assert(sizeof(JournalEntry) == 64);
constexpr u32 JOURNAL_SLOT = 0x80000000u;

// Where a stretch of changes begins, for a failure to undo: the journal's length, and how many entries there were.
struct Checkpoint {
    u32 journal, accounts, slots;
};

// A suspended frame's registers and a running frame's facts.
struct alignas(16) Frame {
    u256 value;        // CALLVALUE
    Address caller;
    u32 self;          // account entry whose storage and balance this frame uses
    u64 record;        // where to continue: number of the next record
    i64 gas;
    u64 memory_base;
    u64 memory_bytes;
    u32 stack_base;
    u32 stack_height;
    u64 input_offset;  // in the arenas, or an address when INPUT_OUTSIDE
    u64 input_bytes;
    u64 output_offset;  // where the caller wants the return data, in its memory
    u64 output_bytes;
    i64 refund;         // of the transaction when the frame began
    u64 region_top;     // likewise
    u64 log_bytes;      // likewise
    Checkpoint start;   // what the frame's failure goes back to
    u32 logs;           // of the transaction when the frame began
    u32 code;           // number of the code that runs
    u32 flags;          // FrameFlag
    u32 codes;          // of the region when the frame began
    u32 padding[3];
};
static_assert(sizeof(Frame) == 192);

// KECCAK256 of two words, remembered: solc hashes a mapping's slot anew for each access to it.
struct alignas(16) Digest {
    u64 input[8];
    u64 output[4];
};
static_assert(sizeof(Digest) == 96);
constexpr u32 DIGESTS_KEPT = 8;  // the last ones; each has a tag of 4 bytes, by which it is searched

enum FrameFlag : u32 {
    FRAME_STATIC = 1,
    FRAME_CREATE = 2,
    FRAME_INPUT_OUTSIDE = 4,  // the input is the transaction's own data
};

// Offsets of the sections in a lane's memory.
struct ArenaLayout {
    u64 stack, memory, returned, accounts, slots, account_hashes, slot_hashes, account_index, slot_index, journal, logs,
        frames, digests, digest_tags, end;
};

// Slack after sections that unaligned accesses may touch a little beyond their end.
constexpr u64 SECTION_SLACK = 64;

WG_FN constexpr u64 align_section(u64 bytes) { return (bytes + SECTION_SLACK + 15) & ~15ull; }

// Of a section with a hash of 4 bytes for each entry: whole chunks, since four are read at a time.
WG_FN constexpr u64 hashes_bytes(u64 entries) { return (entries * sizeof(u32) + 15) & ~15ull; }

WG_FN constexpr ArenaLayout lay_out(const ArenaSizes& sizes) {
    ArenaLayout layout = {};
    layout.stack = 0;
    layout.memory = layout.stack + sizes.stack_words * 32;
    layout.returned = layout.memory + align_section(sizes.memory_bytes);
    layout.accounts = layout.returned + align_section(sizes.return_bytes);
    layout.slots = layout.accounts + sizes.accounts * sizeof(AccountEntry);
    layout.account_hashes = layout.slots + sizes.slots * sizeof(SlotEntry);
    layout.slot_hashes = layout.account_hashes + hashes_bytes(sizes.accounts);
    layout.account_index = layout.slot_hashes + hashes_bytes(sizes.slots);
    layout.slot_index = layout.account_index + sizes.index_entries * sizeof(u32);
    layout.journal = layout.slot_index + sizes.index_entries * sizeof(u32);
    layout.logs = layout.journal + sizes.journal_entries * sizeof(JournalEntry);
    layout.frames = layout.logs + align_section(sizes.log_bytes);
    layout.digests = layout.frames + sizes.frames * sizeof(Frame);
    layout.digest_tags = layout.digests + DIGESTS_KEPT * sizeof(Digest);
    layout.end = layout.digest_tags + DIGESTS_KEPT * sizeof(u32);
    return layout;
}

// The class that common transactions run in on a GPU; a constant, so that offsets cost the kernel no instructions.
// worker/evm/gpu_engine.py declares the same sizes.
WG_FN constexpr ArenaSizes common_arenas() {
    return {
        .stack_words = 96,
        .memory_bytes = 2304,
        .return_bytes = 512,
        .accounts = 8,
        .slots = 24,
        .index_entries = 0,
        .journal_entries = 36,
        .log_bytes = 1024,
        .frames = 6,
        .region_bytes = 1024,
        .codes = 2,
    };
}

// Bytes of one lane's private memory; the region is separate and contiguous.
WG_FN u64 lane_bytes(const ArenaSizes& sizes) { return lay_out(sizes).end; }
WG_FN u64 region_bytes(const ArenaSizes& sizes) { return sizes.region_bytes + sizes.codes * sizeof(Code); }

}  // namespace warpgrid::evm
