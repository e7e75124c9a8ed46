// What a program may ask about its message, its transaction, its block and other accounts. Yellow
// Paper H.2, 30s and 40s.
#pragma once

#include "worker/evm/native/machine.hpp"

namespace warpgrid::evm {

template <class M, class R> WG_FN void op_ADDRESS(M& m, R& r, Instruction) { r.stack.push(to_word(m.self)); }
template <class M, class R> WG_FN void op_ORIGIN(M& m, R& r, Instruction) { r.stack.push(to_word(m.sender())); }
template <class M, class R> WG_FN void op_CALLER(M& m, R& r, Instruction) { r.stack.push(to_word(m.frame.caller)); }
template <class M, class R> WG_FN void op_CALLVALUE(M& m, R& r, Instruction) { r.stack.push(m.frame.value); }
template <class M, class R> WG_FN void op_GASPRICE(M& m, R& r, Instruction) { r.stack.push(m.gas_price); }
template <class M, class R> WG_FN void op_CODESIZE(M& m, R& r, Instruction) { r.stack.push(make_u256(m.code().size)); }
template <class M, class R>
WG_FN void op_CALLDATASIZE(M& m, R& r, Instruction) {
    r.stack.push(make_u256(m.frame.input_bytes));
}
template <class M, class R>
WG_FN void op_RETURNDATASIZE(M& m, R& r, Instruction) {
    r.stack.push(make_u256(m.return_bytes));
}

template <class M, class R>
WG_FN void op_COINBASE(M& m, R& r, Instruction) {
    r.stack.push(to_word(m.block->coinbase));
}
template <class M, class R>
WG_FN void op_TIMESTAMP(M& m, R& r, Instruction) {
    r.stack.push(make_u256(m.block->timestamp));
}
template <class M, class R> WG_FN void op_NUMBER(M& m, R& r, Instruction) { r.stack.push(make_u256(m.block->number)); }
template <class M, class R> WG_FN void op_PREVRANDAO(M& m, R& r, Instruction) { r.stack.push(m.block->prev_randao); }
template <class M, class R>
WG_FN void op_GASLIMIT(M& m, R& r, Instruction) {
    r.stack.push(make_u256(m.block->gas_limit));
}
template <class M, class R>
WG_FN void op_CHAINID(M& m, R& r, Instruction) {
    r.stack.push(make_u256(m.block->chain_id));
}
template <class M, class R> WG_FN void op_BASEFEE(M& m, R& r, Instruction) { r.stack.push(m.block->base_fee); }
template <class M, class R> WG_FN void op_BLOBBASEFEE(M& m, R& r, Instruction) { r.stack.push(m.block->blob_base_fee); }
template <class M, class R>
WG_FN void op_SELFBALANCE(M& m, R& r, Instruction) {
    r.stack.push(m.state.balance(m.frame.self));
}

template <class M, class R>
WG_FN void op_BLOBHASH(M& m, R& r, Instruction) {
    const u64 first = m.batch().blob_hash_offsets[m.index], count = m.batch().blob_hash_offsets[m.index + 1] - first;
    const u64 wanted = saturate_u64(r.stack.top());
    r.stack.replace(0, wanted < count ? load_big_endian(m.batch().blob_hash + 32 * (first + wanted)) : u256{});
}

template <class M, class R>
WG_FN void op_BLOCKHASH(M& m, R& r, Instruction) {
    const u64 wanted = saturate_u64(r.stack.top()), number = m.block->number;
    if (wanted >= number || number - wanted > 256) return r.stack.replace(0, {});
    const u64 place = wanted - m.block->block_hash_first;
    if (place >= m.block->block_hash_count) {  // unknown, also when it lies before the first one known
        m.state.park(RequestKind::BlockHash, {}, r.stack.top());
        r.halt = Halt::Park;
        return;
    }
    r.stack.replace(0, m.world().block_hashes[m.block->block_hash_offset + place]);
}

// ---- input and code -------------------------------------------------------------------------------------------------

template <class M, class R>
WG_FN void op_CALLDATALOAD(M& m, R& r, Instruction) {
    const u64 offset = saturate_u64(r.stack.top()), size = m.frame.input_bytes;
    if (offset >= size) return r.stack.replace(0, {});
    const bool outside = m.frame.flags & FRAME_INPUT_OUTSIDE;
    const u8* data = m.outside_input() + offset;
    if (size - offset >= 32) {
        r.stack.replace(0, outside ? load_big_endian(data) : m.memory.load_big_endian(m.frame.input_offset + offset));
        return;
    }
    u256 word = {};
    for (u32 i = 0; i < size - offset; ++i) {
        const u64 byte = outside ? data[i] : *m.memory.at(m.frame.input_offset + offset + i);
        word.w[3 - i / 8] |= byte << (8 * (7 - i % 8));
    }
    r.stack.replace(0, word);
}

// The part of a copy that lies inside a source of `size` bytes; the rest of the destination becomes zero.
WG_FN u64 bytes_available(u64 offset, u64 count, u64 size) {
    return offset >= size ? 0 : (size - offset < count ? size - offset : count);
}

// Charges a copy of stack words (destination, source, count) on the top of the stack and makes room for it.
template <class M, class R>
WG_FN bool prepare_copy(M& m, R& r, const u256& destination, const u256& count) {
    if (saturate_u64(count) > MEMORY_BYTES_UNPAYABLE) {
        r.halt = Halt::OutOfGas;
        return false;
    }
    return r.charge(GAS_COPY_WORD * words_of(count.w[0])) && ensure_range(m, r, destination, count);
}

template <class M>
WG_FN void copy_padded(const M& m, u64 to, const u8* source, u64 offset, u64 count, u64 size) {
    const u64 available = bytes_available(offset, count, size);
    m.memory.copy_in(to, source + (available ? offset : 0), available);
    m.memory.zero(to + available, count - available);
}

template <class M, class R>
WG_NOINLINE void copy_calldata(M& m, R& r) {
    const u256 destination = r.stack.top(), source = r.stack.at(1), count = r.stack.at(2);
    if (!prepare_copy(m, r, destination, count)) return;
    r.stack.drop(3);
    if (is_zero(count)) return;
    const u64 to = r.memory_base + destination.w[0], offset = saturate_u64(source);
    if (m.frame.flags & FRAME_INPUT_OUTSIDE) {
        copy_padded(m, to, m.outside_input(), offset, count.w[0], m.frame.input_bytes);
    } else {
        const u64 available = bytes_available(offset, count.w[0], m.frame.input_bytes);
        m.memory.move(to, m.frame.input_offset + (available ? offset : 0), available);
        m.memory.zero(to + available, count.w[0] - available);
    }
}

template <class M, class R>
WG_NOINLINE void copy_code(M& m, R& r) {
    const u256 destination = r.stack.top(), source = r.stack.at(1), count = r.stack.at(2);
    if (!prepare_copy(m, r, destination, count)) return;
    r.stack.drop(3);
    if (is_zero(count)) return;
    copy_padded(m, r.memory_base + destination.w[0], m.code().bytes, saturate_u64(source), count.w[0], m.code().size);
}

template <class M, class R>
WG_NOINLINE void copy_return_data(M& m, R& r) {
    const u256 destination = r.stack.top(), source = r.stack.at(1), count = r.stack.at(2);
    if (!prepare_copy(m, r, destination, count)) return;
    const u64 offset = saturate_u64(source);
    if (offset > m.return_bytes || count.w[0] > m.return_bytes - offset) {
        r.halt = Halt::ReturnDataBounds;
        return;
    }
    r.stack.drop(3);
    m.memory.move(r.memory_base + destination.w[0], m.layout().returned + offset, count.w[0]);
}

// ---- other accounts -------------------------------------------------------------------------------------------------

// Entry of the account named by a stack word, charged for access (EIP-2929); NONE with `halt`.
template <class M, class R>
WG_FN u32 access_account(M& m, R& r, const u256& word) {
    const u32 entry = m.state.account(to_address(word));
    if (entry == NONE) {
        r.halt = m.state.fault;
        return NONE;
    }
    return r.charge(m.state.ask_account(entry) ? GAS_COLD_ACCOUNT : GAS_WARM) ? entry : NONE;
}

template <class M, class R>
WG_NOINLINE void account_balance(M& m, R& r) {
    const u32 entry = access_account(m, r, r.stack.top());
    if (entry != NONE) r.stack.replace(0, m.state.balance(entry));
}

template <class M, class R>
WG_NOINLINE void account_code_size(M& m, R& r) {
    const u32 entry = access_account(m, r, r.stack.top());
    if (entry != NONE) r.stack.replace(0, make_u256(m.code_of(m.state.code(entry)).size));
}

template <class M, class R>
WG_NOINLINE void account_code_hash(M& m, R& r) {
    const u32 entry = access_account(m, r, r.stack.top());
    if (entry == NONE) return;
    const Code& code = m.code_of(m.state.code(entry));
    r.stack.replace(0, m.state.is_empty(entry) ? u256{} : load_big_endian(code.hash));
}

template <class M, class R>
WG_NOINLINE void copy_account_code(M& m, R& r) {
    const u32 entry = access_account(m, r, r.stack.top());
    if (entry == NONE) return;
    const u256 destination = r.stack.at(1), source = r.stack.at(2), count = r.stack.at(3);
    if (!prepare_copy(m, r, destination, count)) return;
    r.stack.drop(4);
    if (is_zero(count)) return;
    const u32 code = m.state.code(entry);
    copy_padded(m, r.memory_base + destination.w[0], m.code_bytes(code), saturate_u64(source), count.w[0],
                m.code_of(code).size);
}

// An instruction that is a call. On a CPU the registers are copied, so that they never have an address; a GPU calls
// from where they have one (interpreter.hpp, execute_put_off).
template <class M, class R, class F>
WG_FN void with_addressed(M&, R& r, F function) {
    if constexpr (M::LANES == 1) {
        R copy = r;
        function(copy);
        r = copy;
    } else {
        function(r);
    }
}

#define WG_OUTLINE(name, function)                                  \
    template <class M, class R>                                     \
    WG_FN void name(M& m, R& r, Instruction) {                      \
        with_addressed(m, r, [&](R& called) { function(m, called); }); \
    }
WG_OUTLINE(op_CALLDATACOPY, copy_calldata)
WG_OUTLINE(op_CODECOPY, copy_code)
WG_OUTLINE(op_RETURNDATACOPY, copy_return_data)
WG_OUTLINE(op_BALANCE, account_balance)
WG_OUTLINE(op_EXTCODESIZE, account_code_size)
WG_OUTLINE(op_EXTCODEHASH, account_code_hash)
WG_OUTLINE(op_EXTCODECOPY, copy_account_code)

}  // namespace warpgrid::evm
