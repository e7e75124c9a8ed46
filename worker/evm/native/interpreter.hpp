// The interpreter: one record after the other, until the transaction's first message has ended.
//
// Dispatch checks what all instructions share (constant gas and stack heights, once per block); cores assume it.
#pragma once

#include "worker/evm/native/instructions_pure.hpp"
#include "worker/evm/native/instructions_system.hpp"

namespace warpgrid::evm {

constexpr u32 BLOCKS_A_LOOK = 1024;  // that a GPU executes between two looks at the clock

// Now and then a GPU puts a block's record off after it was executed, to look at the clock.
template <class M, class R>
WG_FN void op_BLOCK(M&, R& r, Instruction instruction) {
    const u32 inputs = instruction.head >> 8 & 0x7ff, growth = instruction.head >> 19, height = r.stack.height();
    if constexpr (M::LANES > 1) {
        if (++r.ahead.blocks % BLOCKS_A_LOOK == 0) r.halt = Halt::PutOff;
    }
    r.gas -= instruction.immediate;
    if (r.gas < 0) r.halt = Halt::OutOfGas;
    if (height < inputs) r.halt = Halt::StackUnderflow;
    if (height + growth > r.stack.limit) {
        r.halt = height + growth > STACK_HEIGHT_MAX ? Halt::StackOverflow : Halt::Overflow;
    }
}

// On a GPU a jump takes the block's record along that stands after it, `next`: a dispatch less.
template <class M, class R>
WG_FN void enter_block(M& m, R& r, Instruction next) {
    if (static_cast<u8>(next.head) != OP_BLOCK) return;  // the trap for invalid jumps
    ++r.record;
    op_BLOCK(m, r, next);
}

// Goes to a record of the running code if `taken`. On a GPU what was read ahead is read anew then.
template <class M, class R>
WG_FN void branch(M& m, R& r, bool taken, u32 target) {
    if (taken) r.record = m.code().records + target;
    if constexpr (M::LANES > 1) {
        const Instruction next = taken ? *r.record : r.ahead.next;
        r.halt = Halt::Moved;
        enter_block(m, r, next);
    }
}

template <class M, class R>
WG_FN void op_PUSH_JUMP(M& m, R& r, Instruction instruction) {
    branch(m, r, true, instruction.immediate);
}

template <class M, class R>
WG_FN void op_PUSH_JUMPI(M& m, R& r, Instruction instruction) {
    const bool taken = !is_zero(r.stack.top());
    r.stack.drop(1);
    branch(m, r, taken, instruction.immediate);
}

template <class M, class R>
WG_FN void op_PUSH_JUMPZ(M& m, R& r, Instruction instruction) {
    const bool taken = is_zero(r.stack.top());
    r.stack.drop(1);
    branch(m, r, taken, instruction.immediate);
}

template <class M, class R> WG_FN void op_BAD_JUMP(M&, R& r, Instruction) { r.halt = Halt::InvalidJump; }
// Where a lane whose transaction has ended stays until its warp has: the record that it waits on,
// and the one read ahead.
WG_CONSTANT Instruction WAIT[2] = {make_instruction(OP_WAIT, 0, 0), make_instruction(OP_WAIT, 0, 0)};
template <class M, class R> WG_FN void op_WAIT(M&, R& r, Instruction) { r.record = WAIT; }
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
template <class M, class R>
WG_FN void op_SLIDE(M&, R& r, Instruction instruction) {
    r.stack.slide(instruction.head >> 8);
}

// What an instruction with two operands takes for a stack when its first one was never pushed.
template <class S>
struct StackUnder {
    S& stack;
    u256 operand;
    WG_FN const u256& top() const { return operand; }
    WG_FN u256 at(u32 n) const { return n == 1 ? u256(stack.top()) : stack.at(n - 1); }
    WG_FN void replace(u32 n, const u256& word) { stack.replace(n - 1, word); }
};

#define WG_FUSED(name, suffix, fetched)                            \
    template <class M, class R>                                    \
    WG_FN void op_##name##_##suffix(M& m, R& r, Instruction one) { \
        StackUnder<decltype(r.stack)> under = {r.stack, fetched};  \
        op_##name(under);                                          \
    }
#define WG_WITH_COPY(name) WG_FUSED(name, COPY, copied_word(m, r, one))
template <class M, class R>
WG_FN u256 copied_word(const M&, R& r, Instruction one) {
    return one.head >> 8 ? u256(r.stack.at(one.head >> 8)) : u256(r.stack.top());
}
template <class M, class R>
WG_FN u256 narrow_constant(const M&, const R&, Instruction one) {
    return make_u256(one.immediate);
}
template <class M, class R>
WG_FN u256 wide_constant(const M& m, const R&, Instruction one) {
    return m.code().constants[one.immediate];
}
WG_WITH_COPY(ADD)
WG_WITH_COPY(SUB)
WG_WITH_COPY(AND)
WG_WITH_COPY(EQ)
WG_WITH_COPY(LT)
WG_WITH_COPY(GT)
WG_FUSED(ADD, WORD, narrow_constant(m, r, one))
WG_FUSED(EQ, WORD, narrow_constant(m, r, one))
WG_FUSED(AND, WIDE, wide_constant(m, r, one))
#undef WG_WITH_COPY
#undef WG_FUSED

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

// The same where calls are not welcome: a record that makes one is put off with Halt::PutOff, for `execute_put_off`.
// The registers that a call must save, and the state of divergence with them, would else be saved at every record.
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

// Executes the record that was put off; not one that waits for memory to grow (kernel.hpp, execute_by_value).
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
#define WG_CASE_Memory(name)
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
