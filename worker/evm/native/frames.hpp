// Messages: how a frame begins and ends. Frames are kept in the arenas, so that the interpreter needs no recursion.
//
// A message that fails undoes its changes; one that halts exceptionally also loses its gas. Yellow
// Paper, sections 7 and 8.
#pragma once

#include "worker/evm/native/instructions_memory.hpp"

namespace warpgrid::evm {

// What a caller asks for.
struct Message {
    u256 value;
    Address caller;
    u32 self;  // account entry
    u32 code;
    u32 flags;  // FrameFlag
    i64 gas;
    u64 input_offset, input_bytes;
    u64 output_offset, output_bytes;
    u64 region_top;  // and `codes`: of the region, before anything was put there for this message
    u32 codes;
};

// ---- code made by the transaction itself ----------------------------------------------------------------------------

// Reserves a private code of `size` bytes; its number, or NONE with `fault`. The caller fills in the bytes.
template <class M>
WG_FN u32 reserve_code(M& m, u64 size) {
    const u64 bytes = m.region.take(size);
    if (bytes == ~0ull || m.region.code_count == m.region.code_max) {
        m.state.fault = Halt::Overflow;
        return NONE;
    }
    const u32 number = m.region.code_count++ | CODE_PRIVATE;
    Code code = {};
    code.bytes = bytes;
    code.size = static_cast<u32>(size);
    m.region.code(number) = code;
    return number;
}

// Decodes a private code where that has not happened. False with `fault`.
template <class M>
WG_NOINLINE bool decode_private_code(M& m, u32 number) {
    Code& code = m.region.code(number);
    const u8* bytes = m.region.base + code.bytes;
    const CodeSizes sizes = decode_code(bytes, code.size, m.granularity, {});
    code.constants = m.region.take(sizes.constants * 32ull);
    code.records = m.region.take(sizes.records * sizeof(Instruction));
    code.jumps = m.region.take(code.size * sizeof(u32));
    if (code.jumps == ~0ull || code.records == ~0ull || code.constants == ~0ull) {
        m.state.fault = Halt::Overflow;
        return false;
    }
    u8* base = m.region.base;
    decode_code(bytes, code.size, m.granularity,
                {reinterpret_cast<Instruction*>(base + code.records), reinterpret_cast<u32*>(base + code.jumps),
                 reinterpret_cast<u256*>(base + code.constants)});
    code.record_count = sizes.records;
    code.flags |= CODE_DECODED;
    return true;
}

// Ends a private code: sets what depends on its bytes.
template <class M>
WG_FN void seal_code(M& m, u32 number) {
    Code& code = m.region.code(number);
    const u8* bytes = m.region.base + code.bytes;
    if (is_delegation(bytes, code.size)) code.flags |= CODE_DELEGATION;
    keccak256(code.hash, bytes, code.size);
}

// A code number, or the number of the empty code for no bytes: the current return data becomes an account's code.
template <class M>
WG_FN u32 code_from_return_data(M& m) {
    if (m.return_bytes == 0) return CODE_EMPTY;
    const u32 number = reserve_code(m, m.return_bytes);
    if (number == NONE) return NONE;
    m.memory.copy_out(m.region.base + m.region.code(number).bytes, m.layout().returned, m.return_bytes);
    seal_code(m, number);
    return number;
}

// ---- value ----------------------------------------------------------------------------------------------------------

template <class M>
WG_FN void transfer(M& m, u32 from, u32 to, const u256& value) {
    if (is_zero(value)) return;
    m.state.set_balance(from, m.state.balance(from) - value);
    m.state.set_balance(to, m.state.balance(to) + value);
}

// ---- begin ----------------------------------------------------------------------------------------------------------

// Remembers the running frame's registers, to be resumed when its callee has ended.
template <class M>
WG_FN void suspend_frame(M& m, typename M::Regs& r) {
    r.stack.flush();
    m.frame.record = static_cast<u64>(r.record - m.code().records);
    m.frame.gas = r.gas;
    m.frame.memory_base = r.memory_base;
    m.frame.memory_bytes = r.memory_bytes;
    m.frame.stack_base = r.stack.base_slot();
    m.frame.stack_height = r.stack.top_slot();
    m.memory.store_struct(m.layout().frames + m.depth * sizeof(Frame), m.frame);
}

// Registers that belong to the running frame's code.
template <class M>
WG_FN bool load_code(M& m, typename M::Regs& r, u32 number) {
    if (number & CODE_PRIVATE && !(m.region.code(number).flags & CODE_DECODED) && !decode_private_code(m, number)) {
        r.halt = m.state.fault;
        return false;
    }
    m.code() = view_code(m.code_of(number), m.blob_of(number));
    return true;
}

template <class M>
WG_FN void set_stack_limit(const M& m, typename M::Regs& r) {
    const u64 room = m.sizes().stack_words - 1 - r.stack.base_slot();
    r.stack.limit = room < STACK_HEIGHT_MAX ? static_cast<u32>(room) : STACK_HEIGHT_MAX;
}

// Makes `message` the running frame; memory and stack begin above what is in use. `start` was opened before anything
// that its failure must undo.
template <class M>
WG_NOINLINE void begin_frame(M& m, typename M::Regs& r, const Message& message, const Checkpoint& start,
                             u64 memory_base, u32 stack_slot) {
    Frame& f = m.frame;
    f.value = message.value;
    f.caller = message.caller;
    f.self = message.self;
    f.input_offset = message.input_offset;
    f.input_bytes = message.input_bytes;
    f.output_offset = message.output_offset;
    f.output_bytes = message.output_bytes;
    f.refund = m.refund;
    f.region_top = message.region_top;
    f.codes = message.codes;
    f.log_bytes = m.log_bytes;
    f.logs = m.logs;
    f.start = start;
    f.code = message.code;
    f.flags = message.flags;
    m.self = m.state.address(message.self);
    m.return_bytes = 0;
    r.gas = message.gas;
    r.halt = Halt::None;
    r.memory_base = memory_base;
    r.memory_bytes = 0;
    r.stack.open(stack_slot);
    if (stack_slot + 1 >= m.sizes().stack_words) {
        r.halt = Halt::Overflow;
        return;
    }
    set_stack_limit(m, r);
    if (load_code(m, r, message.code)) r.record = m.code().records + FIRST_RECORD;
}

// Suspends the running frame and begins a callee's.
template <class M>
WG_FN void push_frame(M& m, typename M::Regs& r, const Message& message, const Checkpoint& start) {
    if (m.depth + 1 >= m.sizes().frames) {
        r.halt = Halt::Overflow;
        return;
    }
    suspend_frame(m, r);
    ++m.depth;
    begin_frame(m, r, message, start, r.memory_base + r.memory_bytes, r.stack.top_slot() + 1);
}

// ---- end ------------------------------------------------------------------------------------------------------------

WG_FN bool is_success(Halt halt) { return halt == Halt::Stop || halt == Halt::Return || halt == Halt::SelfDestruct; }
WG_FN bool is_fault(Halt halt) { return halt == Halt::Park || halt == Halt::Overflow || halt == Halt::Late; }

// Gives back what a frame that ends took of the region. Codes from before it lose a decoded form that lay above.
template <class M>
WG_FN void release_region(M& m) {
    if (m.region.top == m.frame.region_top) return;
    m.region.top = m.frame.region_top;
    m.region.code_count = m.frame.codes;
    for (u32 i = 0; i < m.frame.codes; ++i) {
        Code& code = m.region.code(i);
        if (code.flags & CODE_DECODED && code.jumps >= m.region.top) code.flags &= ~CODE_DECODED;
    }
}

// A creation's return data becomes code: checks it, charges for it and sets it (EIP-170, EIP-3541). The new code takes
// the place of the init code, unless that has deployed others meanwhile.
template <class M>
WG_FN void deploy(M& m, typename M::Regs& r) {
    if (m.return_bytes && *m.memory.at(m.layout().returned) == 0xef) {
        r.halt = Halt::InvalidCode;
    } else if (!r.charge(GAS_CODE_BYTE * m.return_bytes)) {
        r.halt = Halt::OutOfGas;
    } else if (m.return_bytes > CODE_SIZE_MAX) {
        r.halt = Halt::CodeSize;
    } else {
        if (m.region.code_count == m.frame.codes + 1) release_region(m);
        const u32 code = code_from_return_data(m);
        if (code == NONE) {
            r.halt = m.state.fault;
        } else {
            m.state.set_code(m.frame.self, code);
        }
    }
}

// Settles the running frame's outcome: code of a creation, or everything undone. What is left is in r.gas and r.halt.
template <class M>
WG_NOINLINE void settle_frame(M& m, typename M::Regs& r) {
    if (r.halt != Halt::Return && r.halt != Halt::Revert) m.return_bytes = 0;
    if (is_success(r.halt) && m.frame.flags & FRAME_CREATE) deploy(m, r);
    if (is_success(r.halt) || is_fault(r.halt)) return;
    m.state.revert_to(m.frame.start);
    m.refund = m.frame.refund;
    m.logs = m.frame.logs;
    m.log_bytes = m.frame.log_bytes;
    if (r.halt != Halt::Revert) {
        r.gas = 0;
        m.return_bytes = 0;
    }
}

// Continues the caller of the frame that has just been settled.
template <class M>
WG_FN void resume_caller(M& m, typename M::Regs& r) {
    const bool success = is_success(r.halt), creation = m.frame.flags & FRAME_CREATE;
    const u64 output_offset = m.frame.output_offset;
    const u64 wanted = m.frame.output_bytes, output_bytes = wanted < m.return_bytes ? wanted : m.return_bytes;
    const u256 result = !success ? u256{} : creation ? to_word(m.self) : make_u256(1);
    if (!success) release_region(m);
    const i64 gas = r.gas;
    --m.depth;
    m.frame = m.memory.template load_struct<Frame>(m.layout().frames + m.depth * sizeof(Frame));
    m.state.start = m.frame.start;
    m.self = m.state.address(m.frame.self);
    m.code() = view_code(m.code_of(m.frame.code), m.blob_of(m.frame.code));
    r.record = m.code().records + m.frame.record;
    r.gas = m.frame.gas + gas;
    r.memory_base = m.frame.memory_base;
    r.memory_bytes = m.frame.memory_bytes;
    r.stack.resume(m.frame.stack_base, m.frame.stack_height);
    set_stack_limit(m, r);
    r.halt = Halt::None;
    if (creation) {
        if (success) m.return_bytes = 0;
    } else if (output_bytes) {
        m.memory.move(r.memory_base + output_offset, m.layout().returned, output_bytes);
    }
    r.stack.push(result);
}

// Ends the running frame. True when its caller goes on, false when the transaction's first message has ended.
template <class M>
WG_NOINLINE bool leave_frame(M& m, typename M::Regs& r) {
    if (m.state.fault != Halt::None) r.halt = m.state.fault;
    if (is_fault(r.halt)) return false;
    settle_frame(m, r);
    if (is_fault(r.halt) || m.depth == 0) return false;
    resume_caller(m, r);
    return true;
}

}  // namespace warpgrid::evm
