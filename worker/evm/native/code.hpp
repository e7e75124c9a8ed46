// Contracts decoded for execution, once per code hash.
//
// A program becomes records of 8 bytes. A BLOCK record stands before each run of instructions that can only be entered
// at its start; it carries the constant gas of the run and what it needs of the stack, so that the instructions check
// neither. PUSH before JUMP or JUMPI is fused into one record that knows its target, with an ISZERO before it into one
// that jumps on zero; POPs in a row are one record, and one with the SWAP that saves the top from them; the commonest
// instructions take along a first operand that was just pushed; what arithmetic makes of constants (solc writes its
// masks as shifts and differences) is one constant. Gas and stack needs stay those of the instructions. Checking a
// block at once is exact: a frame that fails later in the block loses all its gas and effects anyway, and no block runs
// past an instruction that sees the gas left (Flow::Split). With Granularity::Instruction every
// instruction is a block, as tracing needs it.
#pragma once

#include "worker/evm/native/instructions_pure.hpp"
#include "worker/evm/native/opcodes.hpp"
#include "worker/evm/native/types.hpp"

namespace warpgrid::evm {

constexpr u32 NO_JUMP = NONE;

// operation in the low byte of `head`; above it what the operation wants:
// BLOCK: stack inputs (11 bits) and growth (11 bits); DUP, SWAP, LOG, DROP: n. `immediate`: gas,
// value, target or index.
struct alignas(8) Instruction {
    u32 head;
    u32 immediate;
};

WG_FN constexpr Instruction make_instruction(u8 operation, u32 argument, u32 immediate) {
    return {operation | argument << 8, immediate};
}

enum class Granularity : u8 { Block, Instruction };

struct CodeSizes {
    u32 records;
    u32 constants;
};

// Where decode writes; with null pointers it only counts.
struct CodeTarget {
    Instruction* records;
    u32* jumps;
    u256* constants;
};

// Constants that the last records of the open block push: what arithmetic on them can be done at once. Pure
// instructions take it for a stack.
struct ConstantRun {
    static constexpr u32 LENGTH_MAX = 4;
    u256 values[LENGTH_MAX];  // the last one first
    u32 length;

    WG_FN void push(const u256& value) {
        for (u32 i = LENGTH_MAX - 1; i > 0; --i) values[i] = values[i - 1];
        values[0] = value;
        if (length < LENGTH_MAX) ++length;
    }
    WG_FN void drop() {
        for (u32 i = 1; i < LENGTH_MAX; ++i) values[i - 1] = values[i];
        --length;
    }
    WG_FN const u256& top() const { return values[0]; }
    WG_FN const u256& at(u32 n) const { return values[n]; }
    WG_FN void replace(u32 n, const u256& value) {
        const u256 result = value;
        for (u32 i = 0; i < n; ++i) drop();
        values[0] = result;
    }

    // Does the instruction, if it is one for constants; how many of them it took, or 0.
    WG_FN u32 apply(u8 opcode) {
        const u32 inputs = opcode == OP_NOT ? 1 : 2;
        if (length < inputs) return 0;
        switch (opcode) {
            case OP_ADD: op_ADD(*this); break;
            case OP_SUB: op_SUB(*this); break;
            case OP_AND: op_AND(*this); break;
            case OP_OR: op_OR(*this); break;
            case OP_NOT: op_NOT(*this); break;
            case OP_SHL: op_SHL(*this); break;
            case OP_SHR: op_SHR(*this); break;
            default: return 0;
        }
        return inputs;
    }
};

WG_FN bool is_narrow(const u256& value) { return fits_u64(value) && value.w[0] >> 32 == 0; }

struct Decoder {
    const u8* code;
    u32 size;
    Granularity granularity;
    CodeTarget target;
    CodeSizes sizes;
    CodeSizes room;  // the most there were at a time, before something was folded
    // the open block
    u32 block;
    u32 gas;
    i32 height, inputs, growth;
    // of the last record, and of the one before it
    u8 last, before;
    u32 last_argument, last_immediate, before_argument;
    ConstantRun run_of_constants;

    WG_FN void emit(u8 operation, u32 argument, u32 immediate) {
        if (target.records) target.records[sizes.records] = make_instruction(operation, argument, immediate);
        if (++sizes.records > room.records) room.records = sizes.records;
        before = last;
        before_argument = last_argument;
        last = operation;
        last_argument = argument;
        last_immediate = immediate;
        if (operation != OP_PUSH_WORD && operation != OP_PUSH_WIDE) run_of_constants.length = 0;
    }
    // Puts a record in the place of the last `count`.
    WG_FN void replace(u32 count, u8 operation, u32 argument, u32 immediate) {
        const u8 kept = before;
        const u32 kept_argument = before_argument;
        sizes.records -= count;
        emit(operation, argument, immediate);
        before = count == 1 ? kept : u8{OP_BLOCK};
        before_argument = count == 1 ? kept_argument : 0;
    }
    WG_FN void emit_constant(const u256& value) {
        if (is_narrow(value)) {
            emit(OP_PUSH_WORD, 0, static_cast<u32>(value.w[0]));
        } else {
            if (target.constants) target.constants[sizes.constants] = value;
            emit(OP_PUSH_WIDE, 0, sizes.constants++);
            if (sizes.constants > room.constants) room.constants = sizes.constants;
        }
    }
    // Puts one constant in the place of the last ones, if this instruction can be done now.
    WG_FN bool fold(u8 opcode) {
        if (run_of_constants.length == 0 || granularity != Granularity::Block) return false;
        const ConstantRun before = run_of_constants;
        const u32 taken = run_of_constants.apply(opcode);
        for (u32 i = 0; i < taken; ++i) {
            --sizes.records;
            if (!is_narrow(before.values[i])) --sizes.constants;
        }
        if (taken) emit_constant(run_of_constants.top());
        return taken;
    }
    // Puts an instruction and the push of its first operand into one record, if there is one for them.
    WG_FN bool take_operand(u8 opcode) {
        if (granularity != Granularity::Block) return false;
        const u8 fused = last == OP_DUP         ? with_copy(opcode)
                         : last == OP_PUSH_WORD ? with_word(opcode)
                         : last == OP_PUSH_WIDE ? with_wide(opcode)
                                                : u8{OP_INVALID};
        if (fused == OP_INVALID) return false;
        replace(1, fused, last_argument, last_immediate);
        return true;
    }
    static WG_FN u8 with_copy(u8 opcode) {
        switch (opcode) {
            case OP_ADD: return OP_ADD_COPY;
            case OP_SUB: return OP_SUB_COPY;
            case OP_AND: return OP_AND_COPY;
            case OP_EQ: return OP_EQ_COPY;
            case OP_LT: return OP_LT_COPY;
            case OP_GT: return OP_GT_COPY;
            default: return OP_INVALID;
        }
    }
    static WG_FN u8 with_word(u8 opcode) {
        return opcode == OP_ADD ? u8{OP_ADD_WORD} : opcode == OP_EQ ? u8{OP_EQ_WORD} : u8{OP_INVALID};
    }
    static WG_FN u8 with_wide(u8 opcode) { return opcode == OP_AND ? u8{OP_AND_WIDE} : u8{OP_INVALID}; }

    // POP: one word more for the last record, where that drops some.
    WG_FN void drop_one(u32 pc) {
        if (granularity != Granularity::Block) return emit(OP_DROP, 1, pc);
        const bool more = last == OP_DROP;
        const u32 count = more ? last_argument + 1 : 1;
        const bool swapped =
            more ? before == OP_SWAP && before_argument == count : last == OP_SWAP && last_argument == 1;
        if (swapped) {
            replace(more ? 2 : 1, OP_SLIDE, count, pc);
        } else if (more) {
            replace(1, OP_DROP, count, pc);
        } else {
            emit(OP_DROP, 1, pc);
        }
    }
    WG_FN void close_block() {
        const u32 needed = inputs > 1025 ? 1025 : static_cast<u32>(inputs);
        const u32 grown = growth > 1025 ? 1025 : static_cast<u32>(growth);
        if (target.records) target.records[block] = make_instruction(OP_BLOCK, needed | grown << 11, gas);
    }
    WG_FN void open_block() {
        block = sizes.records;
        gas = 0;
        height = inputs = growth = 0;
        emit(OP_BLOCK, 0, 0);
    }
    WG_FN void restart_block() {
        if (sizes.records == block + 1 && gas == 0) return;  // it is still empty
        close_block();
        open_block();
    }
    WG_FN void account_for(const OpcodeTraits& traits) {
        gas += traits.gas;
        if (traits.inputs - height > inputs) inputs = traits.inputs - height;
        height += traits.outputs - traits.inputs;
        if (height > growth) growth = height;
    }

    WG_FN void run() {
        sizes = room = {0, 0};
        if (target.jumps) {
            for (u32 i = 0; i < size; ++i) target.jumps[i] = NO_JUMP;
        }
        emit(OP_BAD_JUMP, 0, 0);  // record 0: where invalid fused jumps lead
        open_block();
        for (u32 pc = 0; pc < size;) pc = decode_one(pc);
        emit(OP_STOP, size, 0);
        close_block();
        if (target.records) resolve_jumps();
    }

    WG_FN u32 decode_one(u32 pc) {
        const u8 opcode = code[pc];
        const OpcodeTraits traits = OPCODES.traits[opcode];
        if (traits.flow == Flow::Undefined) {
            emit(OP_INVALID, pc, 0);
            restart_block();
            return pc + 1;
        }
        if (opcode == OP_JUMPDEST) {
            restart_block();
            if (target.jumps) target.jumps[pc] = block;
        }
        account_for(traits);
        if (opcode >= OP_PUSH0 && opcode <= OP_PUSH32) return decode_push(pc, opcode - OP_PUSH0);
        if (fold(opcode) || take_operand(opcode)) return pc + 1;
        if (opcode >= OP_DUP1 && opcode <= OP_DUP16) {
            emit(OP_DUP, opcode - OP_DUP1, pc);
        } else if (opcode >= OP_SWAP1 && opcode <= OP_SWAP16) {
            emit(OP_SWAP, opcode - OP_SWAP1 + 1, pc);
        } else if (opcode == OP_POP) {
            drop_one(pc);
        } else if (opcode >= OP_LOG0 && opcode <= OP_LOG4) {
            emit(OP_LOG, opcode - OP_LOG0, pc);
        } else if (opcode != OP_JUMPDEST || granularity == Granularity::Instruction) {
            emit(opcode, 0, pc);
        }
        if (traits.flow != Flow::Next || granularity == Granularity::Instruction) restart_block();
        return pc + 1;
    }

    WG_FN u32 decode_push(u32 pc, u32 count) {
        u256 value = {};
        for (u32 i = 0; i < count; ++i) {
            const u64 byte = pc + 1 + i < size ? code[pc + 1 + i] : 0;
            const u32 position = count - 1 - i;
            value.w[position / 8] |= byte << (8 * (position % 8));
        }
        const u32 next = pc + 1 + count;
        if (granularity == Granularity::Block && next < size && (code[next] == OP_JUMP || code[next] == OP_JUMPI)) {
            account_for(OPCODES.traits[code[next]]);
            const u32 destination = is_narrow(value) && value.w[0] < size ? static_cast<u32>(value.w[0]) : NO_JUMP;
            const bool inverted = code[next] == OP_JUMPI && last == OP_ISZERO;
            if (inverted) --sizes.records;
            emit(code[next] == OP_JUMP ? OP_PUSH_JUMP : inverted ? OP_PUSH_JUMPZ : OP_PUSH_JUMPI, 0, destination);
            restart_block();
            return next + 1;
        }
        emit_constant(value);
        run_of_constants.push(value);
        if (granularity == Granularity::Instruction) restart_block();
        return next;
    }

    WG_FN void resolve_jumps() {
        for (u32 i = 0; i < sizes.records; ++i) {
            const u8 operation = static_cast<u8>(target.records[i].head);
            if (operation != OP_PUSH_JUMP && operation != OP_PUSH_JUMPI && operation != OP_PUSH_JUMPZ) continue;
            const u32 destination = target.records[i].immediate;
            const u32 record = destination == NO_JUMP ? NO_JUMP : target.jumps[destination];
            target.records[i].immediate = record == NO_JUMP ? 0 : record;
        }
    }
};

// Decodes code[0..size) into `target`, or only counts when the target's pointers are null. The room that it takes.
WG_NOINLINE inline CodeSizes decode_code(const u8* code, u32 size, Granularity granularity, const CodeTarget& target) {
    Decoder decoder = {};
    decoder.code = code;
    decoder.size = size;
    decoder.granularity = granularity;
    decoder.target = target;
    decoder.run();
    return decoder.room;
}

// EIP-7702: does this code delegate to another account's?
WG_FN bool is_delegation(const u8* code, u64 size) {
    return size == 23 && code[0] == 0xef && code[1] == 0x01 && code[2] == 0x00;
}

// A code with its offsets resolved.
struct CodeView {
    const u8* bytes;
    const Instruction* records;
    const u32* jumps;
    const u256* constants;
    u32 size;
};

WG_FN CodeView view_code(const Code& code, const u8* blob) {
    return {blob + code.bytes, reinterpret_cast<const Instruction*>(blob + code.records),
            reinterpret_cast<const u32*>(blob + code.jumps), reinterpret_cast<const u256*>(blob + code.constants),
            code.size};
}

constexpr u32 FIRST_RECORD = 1;  // after the trap for invalid jumps

}  // namespace warpgrid::evm
