// What a transaction did, step by step: a stream of records of its instructions, messages and logs, which
// worker/evm/trace_stream.py reads. Each record is padded to 16 bytes. Host code only.
#pragma once

#include <cstring>
#include <vector>

#include "worker/evm/native/types.hpp"

namespace warpgrid::evm {

enum class TraceKind : u32 { Instruction = 1, Enter, Exit, Log };

enum TraceWish : u32 {
    TRACE_INSTRUCTIONS = 1,
    TRACE_MEMORY = 2,    // the whole memory with every instruction before which it was another
    TRACE_RETURNED = 4,  // the return data likewise
    TRACE_MESSAGES = 8,  // messages and logs
};

enum TraceFlag : u32 {
    TRACE_STORAGE_FOLLOWS = 1,   // key and value of an SLOAD or SSTORE
    TRACE_MEMORY_FOLLOWS = 2,    // else it is that of the instruction before
    TRACE_RETURNED_FOLLOWS = 4,  // likewise
};

struct TraceHeader {
    TraceKind kind;
    u32 flags;  // TraceFlag
    u64 bytes;  // of the whole record
};

// Then storage, stack (bottom first), memory, return data.
struct TraceInstruction {
    TraceHeader header;
    u64 gas;   // before
    u64 cost;  // with what a called account is given
    i64 refund;
    u32 pc, depth;
    u32 opcode, stack_words;
    Halt halt;     // why it failed, or None
    Address self;  // whose storage it sees
    u64 memory_bytes, returned_bytes;
};
static_assert(sizeof(TraceInstruction) == 96);

// A message begins; then its input.
struct TraceEnter {
    TraceHeader header;
    u256 value;
    u64 gas;
    u64 input_bytes;
    Address from, to;
    u32 opcode;  // the instruction that sent it; of a transaction CALL or CREATE
    u32 padding;
};
static_assert(sizeof(TraceEnter) == 112);

// The message that began last and has not ended ends; then its output.
struct TraceExit {
    TraceHeader header;
    u64 gas_used;
    u64 output_bytes;
    Halt halt;
    u32 padding[3];
};
static_assert(sizeof(TraceExit) == 48);

// Then topics and data.
struct TraceLog {
    TraceHeader header;
    u64 data_bytes;
    Address address;
    u32 topics;
};
static_assert(sizeof(TraceLog) == 48);

// A stream that grows up to a limit. Beyond it nothing more is written, and `full` says so.
class TraceStream {
   public:
    TraceStream(u32 wishes, u64 bytes_max) : wishes_(wishes), bytes_max_(bytes_max) {}

    bool wants(u32 wish) const { return wishes_ & wish; }
    bool full() const { return full_; }
    const std::vector<u8>& bytes() const { return bytes_; }
    u64 size() const { return bytes_.size(); }
    void shrink(u64 size) { bytes_.resize(size); }

    // Begins a record and returns its place; `append` adds to it, `end` closes it.
    template <class Record>
    u64 begin(const Record& record) {
        const u64 at = size();
        append(&record, sizeof(Record));
        return at;
    }
    void append(const void* from, u64 count) {
        if (full_ || count > bytes_max_ - size()) {
            full_ = true;
            return;
        }
        const u8* first = static_cast<const u8*>(from);
        bytes_.insert(bytes_.end(), first, first + count);
    }
    void append_word(const u256& word) {
        u8 raw[32];
        store_big_endian(raw, word);
        append(raw, 32);
    }
    void end(u64 at) {
        if (full_) return;
        bytes_.resize((size() + 15) & ~15ull);
        const u64 count = size() - at;
        std::memcpy(bytes_.data() + at + WG_OFFSET(TraceHeader, bytes), &count, sizeof(count));
    }
    // Overwrites a field of a record written before.
    template <class T>
    void set(u64 at, const T& value) {
        if (!full_) std::memcpy(bytes_.data() + at, &value, sizeof(value));
    }

   private:
    std::vector<u8> bytes_;
    u32 wishes_;
    u64 bytes_max_;
    bool full_ = false;
};

}  // namespace warpgrid::evm
