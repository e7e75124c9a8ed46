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

template <class M, class R>
WG_FN void op_PUSH_JUMP(M& m, R& r, Instruction instruction) {
    r.record = m.code.records + instruction.immediate;
}

template <class M, class R>
WG_FN void op_PUSH_JUMPI(M& m, R& r, Instruction instruction) {
    const bool taken = !is_zero(r.stack.top());
    r.stack.drop(1);
    if (taken) r.record = m.code.records + instruction.immediate;
}

template <class M, class R> WG_FN void op_BAD_JUMP(M&, R& r, Instruction) { r.halt = Halt::InvalidJump; }
template <class M, class R>
WG_FN void op_PUSH_WORD(M&, R& r, Instruction instruction) {
    r.stack.push(make_u256(instruction.immediate));
}
template <class M, class R>
WG_FN void op_PUSH_WIDE(M& m, R& r, Instruction instruction) {
    r.stack.push(m.code.constants[instruction.immediate]);
}
template <class M, class R>
WG_FN void op_DUP(M&, R& r, Instruction instruction) {
    r.stack.duplicate(instruction.head >> 8);
}
template <class M, class R>
WG_FN void op_SWAP(M&, R& r, Instruction instruction) {
    r.stack.swap(instruction.head >> 8);
}

// Executes the next record.
template <class M, class R>
WG_FN void step(M& m, R& r) {
    const Instruction instruction = *r.record++;
    switch (static_cast<u8>(instruction.head)) {
#define WG_CASE_Stack(name) \
    case OP_##name: op_##name(r.stack); break;
#define WG_CASE_Machine(name) \
    case OP_##name: op_##name(m, r, instruction); break;
#define WG_CASE_Decoded(name)
#define WG_OPCODE(byte, name, gas, inputs, outputs, flow, access) WG_CASE_##access(name)
#define WG_INTERNAL(byte, name) WG_CASE_Machine(name)
#include "worker/evm/native/opcodes.def"
#undef WG_OPCODE
#undef WG_INTERNAL
#undef WG_CASE_Stack
#undef WG_CASE_Machine
#undef WG_CASE_Decoded
        default: r.halt = Halt::InvalidOpcode;
    }
}

}  // namespace warpgrid::evm
