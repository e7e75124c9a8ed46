// Messages to other accounts: the CALL and CREATE families, SELFDESTRUCT, and precompiled
// contracts. Yellow Paper H.2, f0s.
#pragma once

#include "worker/evm/native/frames.hpp"

namespace warpgrid::evm {

// ---- precompiles ----------------------------------------------------------------------------------------------------

struct PrecompileCall {
    Precompile precompile;
    u64 input_offset, input_bytes;  // in the arenas
    bool outside;                   // the input is the transaction's own data
    u64 gas;
};

// The input as contiguous bytes: where it lies, or a copy in the region. Null with `fault`.
template <class M>
WG_FN const u8* contiguous_input(M& m, const PrecompileCall& call) {
    if (call.outside) return m.batch().data + call.input_offset;
    if constexpr (M::LANES == 1) return m.memory.base + call.input_offset;
    const u64 copy = m.region.take(call.input_bytes);
    if (copy == ~0ull) {
        m.state.fault = Halt::Overflow;
        return nullptr;
    }
    m.memory.copy_out(m.region.base + copy, call.input_offset, call.input_bytes);
    return m.region.base + copy;
}

// Key under which the host's answer to a precompile call is kept.
template <class M>
WG_FN u256 answer_key(M& m, Precompile precompile, const u8* input, u64 size) {
    const u64 at = m.region.take(size + 4);
    if (at == ~0ull) {
        m.state.fault = Halt::Overflow;
        return {};
    }
    u8* bytes = m.region.base + at;
    for (u32 i = 0; i < 4; ++i) bytes[i] = static_cast<u8>(static_cast<u32>(precompile) >> (8 * i));
    copy_memory(bytes + 4, input, size);
    u8 digest[32];
    keccak256(digest, bytes, size + 4);
    return load_big_endian(digest);
}

// The host's answer to a call that this back end does not compute, or a request for it. True if answered.
template <class M>
WG_NOINLINE bool answer_from_host(M& m, const PrecompileCall& call, const u8* input, PrecompileStatus& status) {
    const u256 key = answer_key(m, call.precompile, input, call.input_bytes);
    if (m.state.fault != Halt::None) return false;
    const PrecompileAnswer* answer = find_answer(m.world(), key);
    if (!answer) {
        m.state.park(RequestKind::Precompile, {}, key);
        m.state.request.precompile = static_cast<u32>(call.precompile);
        m.state.request.input_size = call.input_bytes;
        if (call.input_bytes > m.sizes().return_bytes) {
            m.state.fault = Halt::Overflow;
        } else {
            m.memory.copy_in(m.layout().returned, input, call.input_bytes);
            m.return_bytes = call.input_bytes;
        }
        return false;
    }
    status = static_cast<PrecompileStatus>(answer->status);
    if (answer->size > m.sizes().return_bytes) {
        m.state.fault = Halt::Overflow;
        return false;
    }
    m.memory.copy_in(m.layout().returned, m.world().answer_blob + answer->output, answer->size);
    m.return_bytes = answer->size;
    return true;
}

// The precompiles of the common class; HostNeeded for the others.
WG_FN PrecompileStatus run_common_precompile(Precompile precompile, const u8* input, u64 size, u8* output,
                                             u64& output_size) {
    output_size = 0;
    switch (precompile) {
        case Precompile::Sha256: sha256(output, input, size); return fixed_output(true, 32, output_size);
        case Precompile::Ripemd160: return ripemd160_word(input, size, output, output_size);
        case Precompile::Identity: copy_memory(output, input, size); return fixed_output(true, size, output_size);
        default: return PrecompileStatus::HostNeeded;
    }
}

// Computes a precompile whose gas has been charged; its output becomes the return data. Halt::Return, PrecompileFailed,
// or a fault.
template <class M>
WG_FN Halt compute_precompile(M& m, const PrecompileCall& call, const u8* input) {
    const u64 output_bytes = precompile_output_bytes(call.precompile, input, call.input_bytes);
    const u64 output = m.region.take(output_bytes);
    if (output == ~0ull) return Halt::Overflow;
    u64 size = 0;
    PrecompileStatus status;
    if constexpr (M::REACH == Reach::Common) {
        status = run_common_precompile(call.precompile, input, call.input_bytes, m.region.base + output, size);
        if (status == PrecompileStatus::HostNeeded) return Halt::Overflow;
    } else {
        const u64 scratch_words = precompile_scratch_words(call.precompile, input, call.input_bytes);
        const u64 scratch_at = scratch_words < m.sizes().region_bytes ? m.region.take(scratch_words * 8) : ~0ull;
        if (scratch_at == ~0ull) return Halt::Overflow;
        const Scratch scratch = {reinterpret_cast<u64*>(m.region.base + scratch_at), scratch_words};
        u8* const to = m.region.base + output;
        if constexpr (requires { m.memo; }) {  // a host's machine
            status = m.memo->run(call.precompile, input, call.input_bytes, m.fork(), to, size, scratch);
        } else {
            status = run_precompile(call.precompile, input, call.input_bytes, m.fork(), to, size, scratch);
        }
    }
    if (size > m.sizes().return_bytes) return Halt::Overflow;
    if (status == PrecompileStatus::HostNeeded) {
        if (!answer_from_host(m, call, input, status)) return m.state.fault;
    } else {
        m.memory.copy_in(m.layout().returned, m.region.base + output, size);
        m.return_bytes = size;
    }
    return status == PrecompileStatus::Success ? Halt::Return : Halt::PrecompileFailed;
}

// Runs a precompile; `gas` becomes what is left of it, the return data its output. Halt::Return on success.
template <class M>
WG_NOINLINE Halt call_precompile(M& m, PrecompileCall& call) {
    m.return_bytes = 0;
    const u64 region_top = m.region.top;
    const u8* input = contiguous_input(m, call);
    if (!input) return m.state.fault;
    const u64 cost = precompile_gas(call.precompile, input, call.input_bytes, m.fork());
    Halt halt = Halt::OutOfGas;
    if (cost <= call.gas) {
        call.gas -= cost;
        halt = compute_precompile(m, call, input);
    }
    m.region.top = region_top;
    if (is_fault(halt)) {
        m.state.fault = halt;
    } else if (halt != Halt::Return) {
        call.gas = 0;
        m.return_bytes = 0;
    }
    return halt;
}

// ---- CALL, CALLCODE, DELEGATECALL, STATICCALL -----------------------------------------------------------------------

struct CallOperands {
    u256 gas, target, value;
    u256 input_offset, input_size, output_offset, output_size;
    u32 count;
};

template <class S>
WG_FN CallOperands read_call_operands(S& stack, u8 opcode) {
    const u32 has_value = opcode == OP_CALL || opcode == OP_CALLCODE;
    CallOperands o;
    o.gas = stack.top();
    o.target = stack.at(1);
    o.value = has_value ? u256(stack.at(2)) : u256{};
    o.input_offset = stack.at(2 + has_value);
    o.input_size = stack.at(3 + has_value);
    o.output_offset = stack.at(4 + has_value);
    o.output_size = stack.at(5 + has_value);
    o.count = 6 + has_value;
    return o;
}

// Code that runs when an account is called: its own, or the one it delegates to (EIP-7702).
struct Callee {
    u32 entry;
    u32 code;
    bool delegated;
};

// Resolves a called account and adds what its access costs to `cost`. Entry NONE with `fault`.
template <class M>
WG_NOINLINE Callee resolve_callee(M& m, const Address& target, u64& cost) {
    Callee callee = {m.state.account(target), CODE_EMPTY, false};
    if (callee.entry == NONE) return callee;
    cost += m.state.ask_account(callee.entry) ? GAS_COLD_ACCOUNT : GAS_WARM;
    callee.code = m.state.code(callee.entry);
    if (m.code_of(callee.code).flags & CODE_DELEGATION) {
        const u32 other = m.state.account(load_address(m.code_bytes(callee.code) + 3));
        if (other == NONE) return {NONE, 0, false};
        cost += m.state.ask_account(other) ? GAS_COLD_ACCOUNT : GAS_WARM;
        callee.code = m.state.code(other);
        callee.delegated = true;
    }
    return callee;
}

// Ends a call that runs no code: pushes its result, gives back its gas and copies its output.
template <class M>
WG_FN void finish_call(M& m, typename M::Regs& r, const CallOperands& o, bool success, u64 gas) {
    r.gas += static_cast<i64>(gas);
    const u64 bytes = saturate_u64(o.output_size) < m.return_bytes ? o.output_size.w[0] : m.return_bytes;
    if (bytes) m.memory.move(r.memory_base + o.output_offset.w[0], m.layout().returned, bytes);
    r.stack.push(make_u256(success));
}

template <class M>
WG_FN Message message_of_call(const M& m, const typename M::Regs& r, const CallOperands& o, const Callee& callee,
                              u8 opcode, u64 gas) {
    const bool own_context = opcode == OP_CALL || opcode == OP_STATICCALL;
    Message message;
    message.value = opcode == OP_DELEGATECALL ? m.frame.value : o.value;
    message.caller = opcode == OP_DELEGATECALL ? m.frame.caller : m.self;
    message.self = own_context ? callee.entry : m.frame.self;
    message.code = callee.code;
    message.flags = (m.frame.flags & FRAME_STATIC) | (opcode == OP_STATICCALL ? FRAME_STATIC : 0u);
    message.gas = static_cast<i64>(gas);
    message.input_offset = r.memory_base + (is_zero(o.input_size) ? 0 : o.input_offset.w[0]);
    message.input_bytes = o.input_size.w[0];
    message.output_offset = is_zero(o.output_size) ? 0 : o.output_offset.w[0];
    message.output_bytes = o.output_size.w[0];
    message.region_top = m.region.top;
    message.codes = m.region.code_count;
    return message;
}

// Everything that a call costs its caller, the gas it passes on included. False with `halt`.
template <class M>
WG_FN bool charge_call(M& m, typename M::Regs& r, const CallOperands& o, u8 opcode, Callee& callee, u64& gas_given) {
    const bool has_value = !is_zero(o.value);
    if (has_value && opcode == OP_CALL && m.is_static()) {
        r.halt = Halt::WriteProtection;
        return false;
    }
    if (!ensure_range(m, r, o.input_offset, o.input_size) || !ensure_range(m, r, o.output_offset, o.output_size)) {
        return false;
    }
    u64 cost = 0;
    callee = resolve_callee(m, to_address(o.target), cost);
    if (callee.entry == NONE) {
        r.halt = m.state.fault;
        return false;
    }
    if (has_value) {
        cost += GAS_CALL_VALUE;
        if (opcode == OP_CALL && m.state.is_empty(callee.entry)) cost += GAS_NEW_ACCOUNT;
    }
    if (!r.charge(cost)) return false;
    const u64 most = all_but_a_64th(static_cast<u64>(r.gas)), wanted = saturate_u64(o.gas);
    gas_given = wanted < most ? wanted : most;
    r.gas -= static_cast<i64>(gas_given);
    if (has_value) gas_given += GAS_STIPEND;
    return true;
}

template <class M>
WG_NOINLINE void call(M& m, typename M::Regs& r, u8 opcode) {
    const CallOperands o = read_call_operands(r.stack, opcode);
    Callee callee;
    u64 gas;
    if (!charge_call(m, r, o, opcode, callee, gas)) return;
    r.stack.drop(o.count);
    m.return_bytes = 0;
    const bool transfers = opcode == OP_CALL || opcode == OP_CALLCODE;
    if (m.depth >= CALL_DEPTH_MAX || (transfers && m.state.balance(m.frame.self) < o.value)) {
        return finish_call(m, r, o, false, gas);
    }
    const Checkpoint start = m.state.open_stretch();
    if (opcode == OP_CALL) transfer(m, m.frame.self, callee.entry, o.value);
    const Address target = to_address(o.target);
    const Precompile precompile =
        callee.delegated ? Precompile::None : precompile_of(target, m.fork());
    const Message message = message_of_call(m, r, o, callee, opcode, gas);
    if (precompile != Precompile::None) {
        PrecompileCall request = {precompile, message.input_offset, message.input_bytes, false, gas};
        const Halt halt = call_precompile(m, request);
        if (is_fault(halt)) {
            r.halt = halt;
            return;
        }
        if (halt != Halt::Return) m.state.revert_to(start);
        m.state.start = m.frame.start;
        return finish_call(m, r, o, halt == Halt::Return, request.gas);
    }
    if (callee.code == CODE_EMPTY && m.granularity == Granularity::Block) {
        m.state.start = m.frame.start;
        return finish_call(m, r, o, true, gas);
    }
    push_frame(m, r, message, start);
}

// ---- CREATE, CREATE2 ------------------------------------------------------------------------------------------------

// keccak256(rlp([sender, nonce])), the last 20 bytes.
WG_NOINLINE inline Address address_of_creation(const Address& sender, u64 nonce) {
    u8 bytes[32], digest[32];
    u32 nonce_bytes = 0;
    while (nonce_bytes < 8 && nonce >> (8 * nonce_bytes)) ++nonce_bytes;
    u32 size = 0;
    const bool single = nonce != 0 && nonce < 0x80;
    bytes[size++] = static_cast<u8>(0xc0 + 21 + (single ? 1 : 1 + nonce_bytes));
    bytes[size++] = 0x80 + ADDRESS_BYTES;
    for (u32 i = 0; i < ADDRESS_BYTES; ++i) bytes[size++] = reinterpret_cast<const u8*>(&sender)[i];
    if (!single) bytes[size++] = static_cast<u8>(0x80 + nonce_bytes);
    for (u32 i = nonce_bytes; i-- > 0;) bytes[size++] = static_cast<u8>(nonce >> (8 * i));
    keccak256(digest, bytes, size);
    return load_address(digest + 12);
}

// EIP-1014: keccak256(0xff, sender, salt, keccak256(initcode)), the last 20 bytes.
WG_NOINLINE inline Address address_of_creation2(const Address& sender, const u256& salt, const u256& code_hash) {
    u8 bytes[85], digest[32];
    bytes[0] = 0xff;
    for (u32 i = 0; i < ADDRESS_BYTES; ++i) bytes[1 + i] = reinterpret_cast<const u8*>(&sender)[i];
    store_big_endian(bytes + 21, salt);
    store_big_endian(bytes + 53, code_hash);
    keccak256(digest, bytes, 85);
    return load_address(digest + 12);
}

// May a contract be created here? EIP-684, EIP-7610.
template <class M>
WG_FN bool is_collision(const M& m, u32 entry) {
    return m.state.nonce(entry) != 0 || m.state.code(entry) != CODE_EMPTY ||
           m.state.account_flags(entry) & ENTRY_STORAGE;
}

// Marks the new account and endows it, after the snapshot that a failure goes back to.
template <class M>
WG_FN void open_account(M& m, u32 creator, u32 entry, const u256& value) {
    m.state.mark_account(entry, ENTRY_CREATED);
    m.state.set_nonce(entry, 1);
    transfer(m, creator, entry, value);
}

template <class M>
WG_FN bool charge_create(M& m, typename M::Regs& r, u8 opcode, const u256& offset, const u256& size) {
    if (m.is_static()) {
        r.halt = Halt::WriteProtection;
    } else if (saturate_u64(size) > INITCODE_SIZE_MAX) {
        r.halt = Halt::InitCodeSize;
    } else {
        const u64 per_word = GAS_INITCODE_WORD + (opcode == OP_CREATE2 ? GAS_KECCAK_WORD : 0);
        return r.charge(per_word * words_of(size.w[0])) && ensure_range(m, r, offset, size);
    }
    return false;
}

template <class M>
WG_FN Address address_to_create(const M& m, const typename M::Regs& r, u8 opcode, u64 code_offset, u64 size) {
    if (opcode == OP_CREATE) return address_of_creation(m.self, m.state.nonce(m.frame.self));
    return address_of_creation2(m.self, r.stack.at(3), keccak_range(m.memory, code_offset, size));
}

template <class M>
WG_NOINLINE void create(M& m, typename M::Regs& r, u8 opcode) {
    const u256 value = r.stack.top(), offset = r.stack.at(1), size = r.stack.at(2);
    if (!charge_create(m, r, opcode, offset, size)) return;
    const u64 code_offset = r.memory_base + (is_zero(size) ? 0 : offset.w[0]);
    const u32 creator = m.frame.self;
    const u64 gas = all_but_a_64th(static_cast<u64>(r.gas)), nonce = m.state.nonce(creator);
    m.return_bytes = 0;
    if (m.state.balance(creator) < value || nonce == ~0ull || m.depth >= CALL_DEPTH_MAX) {
        return r.stack.replace(opcode == OP_CREATE ? 2 : 3, {});
    }
    const u32 entry = m.state.account(address_to_create(m, r, opcode, code_offset, size.w[0]));
    if (entry == NONE) {
        r.halt = m.state.fault;
        return;
    }
    r.gas -= static_cast<i64>(gas);
    m.state.warm_account(entry);
    m.state.set_nonce(creator, nonce + 1);
    if (is_collision(m, entry)) return r.stack.replace(opcode == OP_CREATE ? 2 : 3, {});
    r.stack.drop(opcode == OP_CREATE ? 3 : 4);
    const Checkpoint start = m.state.open_stretch();
    Message message = {};
    message.region_top = m.region.top;
    message.codes = m.region.code_count;
    const u32 code = reserve_code(m, size.w[0]);
    if (code == NONE) {
        r.halt = m.state.fault;
        return;
    }
    m.memory.copy_out(m.region.base + m.region.code(code).bytes, code_offset, size.w[0]);
    open_account(m, creator, entry, value);
    message.value = value;
    message.caller = m.self;
    message.self = entry;
    message.code = code;
    message.flags = FRAME_CREATE;
    message.gas = static_cast<i64>(gas);
    push_frame(m, r, message, start);
}

// ---- SELFDESTRUCT ---------------------------------------------------------------------------------------------------

// EIP-6780: moves the balance; the account goes only if this transaction created it.
template <class M>
WG_NOINLINE void self_destruct(M& m, typename M::Regs& r) {
    if (m.is_static()) {
        r.halt = Halt::WriteProtection;
        return;
    }
    const u32 self = m.frame.self, heir = m.state.account(to_address(r.stack.top()));
    if (heir == NONE) {
        r.halt = m.state.fault;
        return;
    }
    u64 cost = m.state.ask_account(heir) ? GAS_COLD_ACCOUNT : 0;
    const u256 balance = m.state.balance(self);
    if (!is_zero(balance) && m.state.is_empty(heir)) cost += GAS_NEW_ACCOUNT;
    if (!r.charge(cost)) return;
    m.state.set_balance(self, {});
    m.state.set_balance(heir, m.state.balance(heir) + balance);
    if (m.state.account_flags(self) & ENTRY_CREATED) {
        m.state.set_balance(self, {});
        m.state.mark_account(self, ENTRY_DESTROYED);
    }
    r.halt = Halt::SelfDestruct;
}
WG_OUTLINE(op_SELFDESTRUCT, self_destruct)

#define WG_MESSAGE(name, function, opcode)                                     \
    template <class M, class R>                                                \
    WG_FN void name(M& m, R& r, Instruction) {                                 \
        with_addressed(m, r, [&](R& called) { function(m, called, opcode); }); \
    }
WG_MESSAGE(op_CALL, call, OP_CALL)
WG_MESSAGE(op_CALLCODE, call, OP_CALLCODE)
WG_MESSAGE(op_DELEGATECALL, call, OP_DELEGATECALL)
WG_MESSAGE(op_STATICCALL, call, OP_STATICCALL)
WG_MESSAGE(op_CREATE, create, OP_CREATE)
WG_MESSAGE(op_CREATE2, create, OP_CREATE2)

}  // namespace warpgrid::evm
