// The interpreter: one record after the other, until the transaction's first message has ended.
//
// Dispatch checks what all instructions share (constant gas and stack heights, once per block); cores assume it.
#pragma once

#include "worker/evm/native/instructions_pure.hpp"
#include "worker/evm/native/instructions_system.hpp"

namespace warpgrid::evm {

template <class M, class R>
WG_FN void op_BLOCK(M&, R& r, Instruction instruction) {
    const u32 inputs = instruction.head >> 8 & 0x7ff, growth = instruction.head >> 19, height = r.stack.height();
    r.gas -= instruction.immediate;
    if (r.gas < 0) r.halt = Halt::OutOfGas;
    if (height < inputs) r.halt = Halt::StackUnderflow;
    if (height + growth > r.stack.limit) {
        r.halt = height + growth > STACK_HEIGHT_MAX ? Halt::StackOverflow : Halt::Overflow;
    }
}

// On a GPU a jump takes the block's record that it leads to along: a dispatch less.
template <class M, class R>
WG_FN void enter_block(M& m, R& r) {
    if constexpr (M::LANES > 1) {
        const Instruction next = *r.record;
        if (static_cast<u8>(next.head) != OP_BLOCK) return;  // the trap for invalid jumps
        ++r.record;
        op_BLOCK(m, r, next);
    }
}

template <class M, class R>
WG_FN void op_PUSH_JUMP(M& m, R& r, Instruction instruction) {
    r.record = m.code().records + instruction.immediate;
    enter_block(m, r);
}

template <class M, class R>
WG_FN void op_PUSH_JUMPI(M& m, R& r, Instruction instruction) {
    const bool taken = !is_zero(r.stack.top());
    r.stack.drop(1);
    if (taken) r.record = m.code().records + instruction.immediate;
    enter_block(m, r);
}

template <class M, class R>
WG_FN void op_PUSH_JUMPZ(M& m, R& r, Instruction instruction) {
    const bool taken = is_zero(r.stack.top());
    r.stack.drop(1);
    if (taken) r.record = m.code().records + instruction.immediate;
    enter_block(m, r);
}

template <class M, class R> WG_FN void op_BAD_JUMP(M&, R& r, Instruction) { r.halt = Halt::InvalidJump; }
// Where a lane whose transaction has ended stays until its warp has.
template <class M, class R> WG_FN void op_WAIT(M&, R& r, Instruction) { --r.record; }
template <class M, class R>
WG_FN void op_PUSH_WORD(M&, R& r, Instruction instruction) {
    r.stack.push(make_u256(instruction.immediate));
}
template <class M, class R>
WG_FN void op_PUSH_WIDE(M& m, R& r, Instruction instruction) {
    r.stack.push(m.code().constants[instruction.immediate]);
}
template <class M, class R>
WG_FN void op_DUP(M&, R& r, Instruction instruction) {
    r.stack.duplicate(instruction.head >> 8);
}
template <class M, class R>
WG_FN void op_SWAP(M&, R& r, Instruction instruction) {
    r.stack.swap(instruction.head >> 8);
}
template <class M, class R>
WG_FN void op_DROP(M&, R& r, Instruction instruction) {
    r.stack.drop(instruction.head >> 8);
}

#define WG_OPCODE(byte, name, gas, inputs, outputs, flow, access) WG_CASE_##access(name)
#define WG_INTERNAL(byte, name, access) WG_CASE_##access(name)
#define WG_CASE_Decoded(name)

// Executes one record, whatever it takes.
template <class M, class R>
WG_FN void execute(M& m, R& r, Instruction instruction) {
    switch (static_cast<u8>(instruction.head)) {
#define WG_CASE_Stack(name) \
    case OP_##name: op_##name(r.stack); break;
#define WG_CASE_Machine(name) \
    case OP_##name: op_##name(m, r, instruction); break;
#define WG_CASE_StackCalled(name) WG_CASE_Stack(name)
#define WG_CASE_Called(name) WG_CASE_Machine(name)
#define WG_CASE_Memory(name) WG_CASE_Machine(name)
#include "worker/evm/native/opcodes.def"
#undef WG_CASE_Stack
#undef WG_CASE_Machine
#undef WG_CASE_StackCalled
#undef WG_CASE_Called
#undef WG_CASE_Memory
        default: r.halt = Halt::InvalidOpcode;
    }
}

// Executes the next record.
template <class M, class R>
WG_FN void step(M& m, R& r) {
    const Instruction instruction = *r.record++;
    execute(m, r, instruction);
}

// The same where calls are not welcome: a record that makes one is put off with Halt::PutOff, for `execute_put_off`. The
// registers that a call must save, and the state of divergence with them, would else be saved at every record.
template <class M, class R>
WG_FN void execute_without_calls(M& m, R& r, Instruction instruction) {
    switch (static_cast<u8>(instruction.head)) {
#define WG_CASE_Stack(name) \
    case OP_##name: op_##name(r.stack); break;
#define WG_CASE_Machine(name) \
    case OP_##name: op_##name(m, r, instruction); break;
#define WG_CASE_StackCalled(name)
#define WG_CASE_Called(name)
#define WG_CASE_Memory(name)                                       \
    case OP_##name:                                                \
        if (memory_holds_word(r, saturate_u64(r.stack.top()))) { \
            op_##name(m, r, instruction);                          \
        } else {                                                   \
            r.halt = Halt::PutOff;                                 \
        }                                                          \
        break;
#include "worker/evm/native/opcodes.def"
#undef WG_CASE_Stack
#undef WG_CASE_Machine
#undef WG_CASE_StackCalled
#undef WG_CASE_Called
#undef WG_CASE_Memory
        default: r.halt = Halt::PutOff;
    }
}

// Executes the record that was put off.
template <class M, class R>
WG_FN void execute_put_off(M& m, R& r) {
    const Instruction instruction = r.record[-1];
    r.halt = Halt::None;
    switch (static_cast<u8>(instruction.head)) {
#define WG_CASE_Stack(name)
#define WG_CASE_Machine(name)
#define WG_CASE_StackCalled(name) \
    case OP_##name: op_##name(r.stack); break;
#define WG_CASE_Called(name) \
    case OP_##name: op_##name(m, r, instruction); break;
#define WG_CASE_Memory(name) WG_CASE_Called(name)
#include "worker/evm/native/opcodes.def"
#undef WG_CASE_Stack
#undef WG_CASE_Machine
#undef WG_CASE_StackCalled
#undef WG_CASE_Called
#undef WG_CASE_Memory
        default: r.halt = Halt::InvalidOpcode;
    }
}

#undef WG_OPCODE
#undef WG_INTERNAL
#undef WG_CASE_Decoded

}  // namespace warpgrid::evm
