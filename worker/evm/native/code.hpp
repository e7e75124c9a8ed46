// Contracts decoded for execution, once per code hash.
//
// A program becomes records of 8 bytes. A BLOCK record stands before each run of instructions that can only be entered
// at its start; it carries the constant gas of the run and what it needs of the stack, so that the instructions check
// neither. PUSH before JUMP or JUMPI is fused into one record that knows its target. Checking a block at once is exact:
// a frame that fails later in the block loses all its gas and effects anyway, and no block runs past an instruction that
// sees the gas left (Flow::Split). With Granularity::Instruction every instruction is a block, as tracing needs it.
#pragma once

#include "worker/evm/native/opcodes.hpp"
#include "worker/evm/native/types.hpp"

namespace warpgrid::evm {

constexpr u32 NO_JUMP = NONE;

// operation in the low byte of `head`; above it what the operation wants:
// BLOCK: stack inputs (11 bits) and growth (11 bits); DUP, SWAP, LOG: n. `immediate`: gas, value, target or index.
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

struct Decoder {
    const u8* code;
    u32 size;
    Granularity granularity;
    CodeTarget target;
    CodeSizes sizes;
    // the open block
    u32 block;
    u32 gas;
    i32 height, inputs, growth;

    WG_FN void emit(u8 operation, u32 argument, u32 immediate) {
        if (target.records) target.records[sizes.records] = make_instruction(operation, argument, immediate);
        ++sizes.records;
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
        sizes = {0, 0};
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
        if (opcode >= OP_DUP1 && opcode <= OP_DUP16) {
            emit(OP_DUP, opcode - OP_DUP1, pc);
        } else if (opcode >= OP_SWAP1 && opcode <= OP_SWAP16) {
            emit(OP_SWAP, opcode - OP_SWAP1 + 1, pc);
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
        const bool narrow = fits_u64(value) && value.w[0] >> 32 == 0;
        if (granularity == Granularity::Block && next < size && (code[next] == OP_JUMP || code[next] == OP_JUMPI)) {
            account_for(OPCODES.traits[code[next]]);
            const u32 destination = narrow && value.w[0] < size ? static_cast<u32>(value.w[0]) : NO_JUMP;
            emit(code[next] == OP_JUMP ? OP_PUSH_JUMP : OP_PUSH_JUMPI, 0, destination);
            restart_block();
            return next + 1;
        }
        if (narrow) {
            emit(OP_PUSH_WORD, 0, static_cast<u32>(value.w[0]));
        } else {
            if (target.constants) target.constants[sizes.constants] = value;
            emit(OP_PUSH_WIDE, 0, sizes.constants++);
        }
        if (granularity == Granularity::Instruction) restart_block();
        return next;
    }

    WG_FN void resolve_jumps() {
        for (u32 i = 0; i < sizes.records; ++i) {
            const u8 operation = static_cast<u8>(target.records[i].head);
            if (operation != OP_PUSH_JUMP && operation != OP_PUSH_JUMPI) continue;
            const u32 destination = target.records[i].immediate;
            const u32 record = destination == NO_JUMP ? NO_JUMP : target.jumps[destination];
            target.records[i].immediate = record == NO_JUMP ? 0 : record;
        }
    }
};

// Decodes code[0..size) into `target`, or only counts what it would need when the target's pointers are null.
WG_NOINLINE inline CodeSizes decode_code(const u8* code, u32 size, Granularity granularity, const CodeTarget& target) {
    Decoder decoder = {code, size, granularity, target, {}, 0, 0, 0, 0, 0};
    decoder.run();
    return decoder.sizes;
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
