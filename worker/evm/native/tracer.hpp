// The traced machine: the ordinary one on codes that were decoded an instruction a block (Granularity::Instruction),
// with registers that add up what was charged and a loop that looks at them before and after each instruction. The
// interpreter itself knows nothing of it, so a run that is not traced pays nothing. Host code only.
//
// Costs and halts are told as geth tells them (EIP-3155 and its callTracer): the cost of an instruction that could not
// be paid is what was charged up to the charge that failed, that one included.
#pragma once

#include "worker/evm/native/results.hpp"
#include "worker/evm/native/trace_stream.hpp"

namespace warpgrid::evm {

struct TracedRegisters : Registers<1> {
    u64 charged;  // since the instruction began, beyond its constant gas

    bool charge(u64 amount) {
        charged += amount;
        return Registers<1>::charge(amount);
    }
    void note_charge(u64 amount) { charged += amount; }
};

struct TracedMachine : Machine<HostContext> {
    using Regs = TracedRegisters;
};

class Tracer {
   public:
    explicit Tracer(TraceStream& stream) : stream_(stream) {}

    // Runs a machine that has been opened until its first message has ended, or until it needs the host.
    void run(TracedMachine& m, TracedRegisters& r) {
        enter_first(m, r);
        do {
            while (r.halt == Halt::None) {
                before(m, r);
                step(m, r);  // the block's record, which takes the constant gas
                if (r.halt == Halt::None) step(m, r);
                if (m.state.fault != Halt::None || is_fault(r.halt)) return;
                after(m, r);
            }
        } while (leave(m, r));
    }

   private:
    static constexpr u32 WORDS_FOUND_MAX = 7;              // as many as a call has operands
    static constexpr u64 INPUT_BYTES_PAYABLE = 1ull << 24;  // longer inputs cost more gas than there is

    // What an instruction found, for what can only be told when it has ended.
    struct Found {
        u64 at;        // its record
        bool written;  // there is one
        u8 opcode;
        u32 depth, logs;
        i64 gas;
        u256 words[WORDS_FOUND_MAX];  // the top of its stack, as far as there is one
        u32 words_count;
        u256 balance;
        u64 nonce;
        Address self;
        std::vector<u8> input;  // of the message that it asks for
    };

    // A message that has begun: its gas, and where each instruction of its code begins (its end last).
    struct Open {
        u64 gas;
        std::vector<u32> places;
    };

    static bool has_value(u8 opcode) { return opcode == OP_CALL || opcode == OP_CALLCODE; }
    static bool is_call(u8 opcode) {
        return has_value(opcode) || opcode == OP_DELEGATECALL || opcode == OP_STATICCALL;
    }
    static bool is_create(u8 opcode) { return opcode == OP_CREATE || opcode == OP_CREATE2; }

    // ---- messages ----

    void enter(u8 opcode, const Address& from, const Address& to, const u256& value, u64 gas, const u8* input,
               u64 size) {
        if (!stream_.wants(TRACE_MESSAGES)) return;
        TraceEnter record = {};
        record.header.kind = TraceKind::Enter;
        record.value = value;
        record.gas = gas;
        record.input_bytes = size;
        record.from = from;
        record.to = to;
        record.opcode = opcode;
        const u64 at = stream_.begin(record);
        stream_.append(input, size);
        stream_.end(at);
    }
    void exit(u64 gas_used, Halt halt, const u8* output, u64 size) {
        if (!stream_.wants(TRACE_MESSAGES)) return;
        TraceExit record = {};
        record.header.kind = TraceKind::Exit;
        record.gas_used = gas_used;
        record.output_bytes = size;
        record.halt = halt;
        const u64 at = stream_.begin(record);
        stream_.append(output, size);
        stream_.end(at);
    }

    void enter_first(const TracedMachine& m, const TracedRegisters& r) {
        const Transactions& b = m.batch();
        const u64 i = m.index, data = b.data_offsets[i];
        const Address to = b.is_creation[i] ? m.state.address(m.frame.self) : b.to[i];
        enter(b.is_creation[i] ? OP_CREATE : OP_CALL, b.sender[i], to, b.value[i], b.gas_limit[i], b.data + data,
              b.data_offsets[i + 1] - data);
        open_.push_back({static_cast<u64>(r.gas), {}});
        if (r.halt == Halt::None) open_.back().places = places_of(m.code());
    }

    void enter_called(const TracedMachine& m, const TracedRegisters& r) {
        const bool borrows_code = found_.opcode == OP_DELEGATECALL || found_.opcode == OP_CALLCODE;
        const Address to = borrows_code ? to_address(found_.words[1]) : m.self;
        enter(found_.opcode, found_.self, to, m.frame.value, static_cast<u64>(r.gas), found_.input.data(),
              found_.input.size());
        open_.push_back({static_cast<u64>(r.gas), places_of(m.code())});
    }

    bool leave(TracedMachine& m, TracedRegisters& r) {
        if (m.state.fault != Halt::None) r.halt = m.state.fault;
        if (is_fault(r.halt)) return false;
        settle_frame(m, r);
        if (is_fault(r.halt)) return false;
        exit(open_.back().gas - static_cast<u64>(r.gas), r.halt, m.memory.at(m.layout().returned), m.return_bytes);
        open_.pop_back();
        if (m.depth == 0) return false;
        resume_caller(m, r);
        return true;
    }

    static std::vector<u32> places_of(const CodeView& code) {
        std::vector<u32> places;
        u32 pc = 0;
        for (; pc < code.size; ++pc) {
            places.push_back(pc);
            const u8 opcode = code.bytes[pc];
            if (opcode >= OP_PUSH0 && opcode <= OP_PUSH32) pc += opcode - OP_PUSH0;
        }
        places.push_back(pc);
        return places;
    }

    // A call that ran no code: a precompiled contract's, or one that was refused.
    void tell_call(const TracedMachine& m, const TracedRegisters& r, u64 charged, u64 given) {
        const u256 value = has_value(found_.opcode)            ? found_.words[2]
                           : found_.opcode == OP_DELEGATECALL ? m.frame.value
                                                               : u256{};
        const Address to = to_address(found_.words[1]);
        const bool too_deep = m.depth >= CALL_DEPTH_MAX;
        if (too_deep || (has_value(found_.opcode) && found_.balance < value)) {
            tell_refused(to, value, too_deep ? Halt::CallDepth : Halt::InsufficientBalance);
            return;
        }
        const u64 returned = static_cast<u64>(r.gas) - (static_cast<u64>(found_.gas) - charged - given);
        const u64 gas = given + (has_value(found_.opcode) && !is_zero(value) ? GAS_STIPEND : 0);
        const Precompile precompile = precompile_of(to, m.fork());
        const bool unpaid =
            precompile_gas(precompile, found_.input.data(), found_.input.size(), m.fork()) > gas;
        const Halt halt = !is_zero(r.stack.at(0)) ? Halt::Return : unpaid ? Halt::OutOfGas : Halt::PrecompileFailed;
        enter(found_.opcode, found_.self, to, value, gas, found_.input.data(), found_.input.size());
        exit(gas - returned, halt, m.memory.at(m.layout().returned), m.return_bytes);
    }

    // A creation that never began.
    void tell_create(const TracedMachine& m) {
        const Halt halt = m.depth >= CALL_DEPTH_MAX          ? Halt::CallDepth
                          : found_.balance < found_.words[0] ? Halt::InsufficientBalance
                          : found_.nonce == ~0ull            ? Halt::NonceOverflow
                                                             : Halt::AddressCollision;
        tell_refused({}, found_.words[0], halt);
    }

    void tell_refused(const Address& to, const u256& value, Halt halt) {
        enter(found_.opcode, found_.self, to, value, 0, found_.input.data(), found_.input.size());
        exit(0, halt, nullptr, 0);
    }

    void tell_log(const TracedMachine& m, const TracedRegisters& r) {
        if (!stream_.wants(TRACE_MESSAGES)) return;
        TraceLog record = {};
        record.header.kind = TraceKind::Log;
        record.address = m.self;
        record.topics = static_cast<u32>(found_.opcode - OP_LOG0);
        record.data_bytes = found_.words[1].w[0];
        const u64 at = stream_.begin(record);
        for (u32 i = 0; i < record.topics; ++i) stream_.append_word(found_.words[2 + i]);
        stream_.append(m.memory.at(r.memory_base + (record.data_bytes ? found_.words[0].w[0] : 0)), record.data_bytes);
        stream_.end(at);
    }

    // ---- instructions ----

    void before(const TracedMachine& m, TracedRegisters& r) {
        r.charged = 0;
        const u64 place = static_cast<u64>(r.record - m.code().records - FIRST_RECORD) / 2;
        const u32 pc = open_.back().places[place];
        found_.opcode = pc < m.code().size ? m.code().bytes[pc] : u8{OP_STOP};
        found_.depth = m.depth;
        found_.logs = m.logs;
        found_.gas = r.gas;
        found_.self = m.self;
        found_.words_count = r.stack.height() < WORDS_FOUND_MAX ? r.stack.height() : WORDS_FOUND_MAX;
        for (u32 i = 0; i < found_.words_count; ++i) found_.words[i] = r.stack.at(i);
        if (is_call(found_.opcode)) find_message(m, r, has_value(found_.opcode) ? 3 : 2);
        if (is_create(found_.opcode)) find_message(m, r, 1);
        if (found_.opcode == OP_SELFDESTRUCT) found_.balance = m.state.balance(m.frame.self);
        found_.at = stream_.size();
        found_.written = stream_.wants(TRACE_INSTRUCTIONS) && m.code().size;
        if (found_.written) write_instruction(m, r, pc);
    }

    // The input of the message that an instruction asks for, by the operands `first` and `first` + 1, and what its
    // sender has. Memory that is not there yet reads as zeros.
    void find_message(const TracedMachine& m, const TracedRegisters& r, u32 first) {
        found_.balance = m.state.balance(m.frame.self);
        found_.nonce = m.state.nonce(m.frame.self);
        found_.input.clear();
        if (found_.words_count < first + 2) return;
        const u64 offset = saturate_u64(found_.words[first]), size = saturate_u64(found_.words[first + 1]);
        if (size > INPUT_BYTES_PAYABLE) return;
        found_.input.assign(size, 0);
        if (offset >= r.memory_bytes) return;
        const u64 there = r.memory_bytes - offset < size ? r.memory_bytes - offset : size;
        std::memcpy(found_.input.data(), m.memory.at(r.memory_base + offset), there);
    }

    void write_instruction(const TracedMachine& m, const TracedRegisters& r, u32 pc) {
        TraceInstruction record = {};
        record.header.kind = TraceKind::Instruction;
        record.gas = static_cast<u64>(r.gas);
        record.refund = m.refund;
        record.pc = pc;
        record.depth = m.depth + 1;
        record.opcode = found_.opcode;
        record.self = m.self;
        record.stack_words = r.stack.height();
        record.memory_bytes = r.memory_bytes;
        record.returned_bytes = m.return_bytes;
        const u8* memory = m.memory.at(r.memory_base);
        const u8* returned = m.memory.at(m.layout().returned);
        const bool stores = found_.opcode == OP_SSTORE && found_.words_count > 1;
        if (stores || (found_.opcode == OP_SLOAD && found_.words_count > 0))
            record.header.flags = TRACE_STORAGE_FOLLOWS;
        if (stream_.wants(TRACE_MEMORY) && is_new(memory_, memory, r.memory_bytes)) {
            record.header.flags |= TRACE_MEMORY_FOLLOWS;
        }
        if (stream_.wants(TRACE_RETURNED) && is_new(returned_, returned, m.return_bytes)) {
            record.header.flags |= TRACE_RETURNED_FOLLOWS;
        }
        stream_.begin(record);
        if (record.header.flags & TRACE_STORAGE_FOLLOWS) {
            const u256 pair[2] = {found_.words[0], stores ? found_.words[1] : u256{}};
            stream_.append(pair, sizeof(pair));
        }
        stream_.append(r.stack.section + r.stack.base_slot() + 1, record.stack_words * sizeof(u256));
        if (record.header.flags & TRACE_MEMORY_FOLLOWS) stream_.append(memory, r.memory_bytes);
        if (record.header.flags & TRACE_RETURNED_FOLLOWS) stream_.append(returned, m.return_bytes);
        stream_.end(found_.at);
    }

    // Is this another content than the one written last? Then it is the last one now.
    static bool is_new(std::vector<u8>& last, const u8* bytes, u64 size) {
        if (last.size() == size && (size == 0 || std::memcmp(last.data(), bytes, size) == 0)) return false;
        last.assign(bytes, bytes + size);
        return true;
    }

    void after(const TracedMachine& m, const TracedRegisters& r) {
        const bool failed = r.halt != Halt::None && r.halt != Halt::Revert && !is_success(r.halt);
        const u64 constant = r.halt == Halt::InvalidOpcode ? 0 : OPCODES.traits[found_.opcode].gas;
        const u64 charged = constant + r.charged;
        const u64 given = is_call(found_.opcode) && !failed ? gas_given(charged) : 0;
        if (found_.written) {
            stream_.set(found_.at + WG_OFFSET(TraceInstruction, cost), charged + given);
            if (failed) stream_.set(found_.at + WG_OFFSET(TraceInstruction, halt), r.halt);
            if (found_.opcode == OP_SLOAD && !failed) {
                stream_.set(found_.at + sizeof(TraceInstruction) + sizeof(u256), r.stack.at(0));
            }
        }
        if (failed) return;
        if (m.depth > found_.depth) {
            enter_called(m, r);
        } else if (is_call(found_.opcode)) {
            tell_call(m, r, charged, given);
        } else if (is_create(found_.opcode)) {
            tell_create(m);
        } else if (found_.opcode == OP_SELFDESTRUCT) {
            enter(OP_SELFDESTRUCT, found_.self, to_address(found_.words[0]), found_.balance, 0, nullptr, 0);
            exit(0, Halt::SelfDestruct, nullptr, 0);
        } else if (m.logs > found_.logs) {
            tell_log(m, r);
        }
    }

    // What a call that cost `charged` gives to the account called: what was asked for, or 63 parts of 64 (EIP-150).
    u64 gas_given(u64 charged) const {
        const u64 most = all_but_a_64th(static_cast<u64>(found_.gas) - charged), wanted = saturate_u64(found_.words[0]);
        return wanted < most ? wanted : most;
    }

    TraceStream& stream_;
    Found found_ = {};
    std::vector<Open> open_;
    std::vector<u8> memory_, returned_;  // as written last
};

}  // namespace warpgrid::evm
