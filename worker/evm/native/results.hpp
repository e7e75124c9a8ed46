// Writes a transaction's outcome where the host reads it: one Result, and the sections it owns in the output arena.
#pragma once

#include "worker/evm/native/transaction.hpp"

namespace warpgrid::evm {

// Where results go. `used` counts the bytes of the arena taken by all transactions.
struct Outputs {
    Result* results;
    u8* arena;
    u64* used;
    u64 capacity;
};

// Before each code in the code section; the bytes follow, padded to 16.
struct CodeHeader {
    u64 bytes;
    u64 padding;
    u8 hash[32];
};
static_assert(sizeof(CodeHeader) == 48);

WG_FN u64 pad_chunk(u64 bytes) { return (bytes + CHUNK_BYTES - 1) & ~(CHUNK_BYTES - 1); }

template <class M>
WG_FN bool has_new_code(const M& m, u32 entry) {
    return m.state.account_flags(entry) & ENTRY_NEW_CODE && m.state.code(entry) & CODE_PRIVATE;
}

template <class M>
WG_FN u64 new_code_bytes(const M& m) {
    u64 bytes = 0;
    for (u32 i = 0; i < m.state.accounts.count; ++i) {
        if (has_new_code(m, i)) bytes += sizeof(CodeHeader) + pad_chunk(m.code_of(m.state.code(i)).size);
    }
    return bytes;
}

template <class M>
WG_FN void write_codes(const M& m, u8* accounts, u8* codes) {
    u64 at = 0;
    for (u32 i = 0; i < m.state.accounts.count; ++i) {
        if (!has_new_code(m, i)) continue;
        const u32 number = m.state.code(i);
        const Code& code = m.code_of(number);
        reinterpret_cast<AccountEntry*>(accounts)[i].output_code = at;
        CodeHeader& header = *reinterpret_cast<CodeHeader*>(codes + at);
        header.bytes = code.size;
        header.padding = 0;
        copy_memory(header.hash, code.hash, 32);
        at += sizeof(CodeHeader);
        copy_memory(codes + at, m.code_bytes(number), code.size);
        for (u64 i = code.size; i % CHUNK_BYTES; ++i) codes[at + i] = 0;
        at += pad_chunk(code.size);
    }
}

// Copies entries to contiguous memory.
template <class Entry, u32 LANES>
WG_FN void copy_entries(u8* to, const LaneMemory<LANES>& memory, u64 from, u32 count) {
    if constexpr (LANES == 1) {
        memory.copy_out(to, from, count * sizeof(Entry));
    } else {
        memory.copy_chunks_out(to, from, count * static_cast<u32>(sizeof(Entry) / CHUNK_BYTES));
    }
}

// Copies the sections out. Sets Status::Overflow when the arena is full.
template <class M>
WG_FN void write_sections(const M& m, const Outputs& outputs, Result& result) {
    const bool whole = result.status == Status::Success || result.status == Status::Reverted ||
                       result.status == Status::Halted;
    result.accounts = whole ? m.state.accounts.count : 0;
    result.slots = whole ? m.state.slots.count : 0;
    result.logs = whole ? m.logs : 0;
    result.log_bytes = whole ? m.log_bytes : 0;
    result.return_bytes = m.return_bytes;
    result.code_bytes = whole ? new_code_bytes(m) : 0;
    const u64 accounts = result.accounts * sizeof(AccountEntry), slots = result.slots * sizeof(SlotEntry);
    const u64 total = accounts + slots + result.log_bytes + pad_chunk(result.return_bytes) + result.code_bytes;
    result.output = fetch_add(outputs.used, total);
    if (result.output + total > outputs.capacity) {
        result.status = Status::Overflow;
        return;
    }
    u8* to = outputs.arena + result.output;
    copy_entries<AccountEntry>(to, m.memory, m.layout().accounts, result.accounts);
    copy_entries<SlotEntry>(to + accounts, m.memory, m.layout().slots, result.slots);
    m.memory.copy_out(to + accounts + slots, m.layout().logs, result.log_bytes);
    u8* returned = to + accounts + slots + result.log_bytes;
    m.memory.copy_out(returned, m.layout().returned, result.return_bytes);
    for (u64 i = result.return_bytes; i % CHUNK_BYTES; ++i) returned[i] = 0;
    if (result.code_bytes) write_codes(m, to, returned + pad_chunk(result.return_bytes));
}

// The outcome of a machine that has stopped, whatever the reason.
template <class M>
WG_NOINLINE void write_result(M& m, const typename M::Regs& r, Rejection rejection, const Outputs& outputs) {
    const Halt fault = m.state.fault != Halt::None ? m.state.fault : is_fault(r.halt) ? r.halt : Halt::None;
    Result result = {};
    if (fault == Halt::None && rejection == Rejection::None) {
        finish_transaction(m, r, result);
        if (m.state.fault != Halt::None) result.status = Status::Overflow;
    } else if (fault == Halt::None) {
        m.return_bytes = 0;
        result.status = Status::Rejected;
        result.rejection = rejection;
    } else {
        result.status = fault == Halt::Park ? Status::Parked : Status::Overflow;
        result.halt = fault;
        if (fault == Halt::Park) result.request = m.state.request;
        if (fault != Halt::Park || result.request.kind != RequestKind::Precompile) m.return_bytes = 0;
    }
    write_sections(m, outputs, result);
    store_chunks(reinterpret_cast<u8*>(&outputs.results[m.index]), result);
}

}  // namespace warpgrid::evm
