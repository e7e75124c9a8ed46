// Arithmetic, comparison and bitwise instructions: they see nothing but the stack. Yellow Paper,
// appendix H.2, 0s and 10s.
#pragma once

#include "core/native/u256.hpp"

namespace warpgrid::evm {

template <class S> WG_FN void op_ADD(S& s) { s.replace(1, s.top() + s.at(1)); }
template <class S> WG_FN void op_MUL(S& s) { s.replace(1, s.top() * s.at(1)); }
template <class S> WG_FN void op_SUB(S& s) { s.replace(1, s.top() - s.at(1)); }

// Functions that are called, not inlined, get copies: the stack's top must never have an address, or it would leave its
// registers (stack.hpp).
template <class S>
WG_FN void op_DIV(S& s) {
    const u256 a = s.top(), b = s.at(1);
    s.replace(1, divide(a, b).quotient);
}
template <class S>
WG_FN void op_SDIV(S& s) {
    const u256 a = s.top(), b = s.at(1);
    s.replace(1, divide_signed(a, b).quotient);
}
template <class S>
WG_FN void op_MOD(S& s) {
    const u256 a = s.top(), b = s.at(1);
    s.replace(1, divide(a, b).remainder);
}
template <class S>
WG_FN void op_SMOD(S& s) {
    const u256 a = s.top(), b = s.at(1);
    s.replace(1, divide_signed(a, b).remainder);
}
template <class S>
WG_FN void op_ADDMOD(S& s) {
    const u256 a = s.top(), b = s.at(1), modulus = s.at(2);
    s.replace(2, add_modulo(a, b, modulus));
}
template <class S>
WG_FN void op_MULMOD(S& s) {
    const u256 a = s.top(), b = s.at(1), modulus = s.at(2);
    s.replace(2, multiply_modulo(a, b, modulus));
}

// Extends the sign of the value's byte number top (0: lowest).
template <class S>
WG_FN void op_SIGNEXTEND(S& s) {
    const u256 position = s.top(), value = s.at(1);
    if (!fits_u64(position) || position.w[0] > 30) return s.replace(1, value);
    const u32 unused = 248 - 8 * static_cast<u32>(position.w[0]);
    s.replace(1, shift_right_signed(shift_left(value, unused), unused));
}

template <class S> WG_FN void op_LT(S& s) { s.replace(1, make_u256(s.top() < s.at(1))); }
template <class S> WG_FN void op_GT(S& s) { s.replace(1, make_u256(s.at(1) < s.top())); }
template <class S> WG_FN void op_SLT(S& s) { s.replace(1, make_u256(signed_less(s.top(), s.at(1)))); }
template <class S> WG_FN void op_SGT(S& s) { s.replace(1, make_u256(signed_less(s.at(1), s.top()))); }
template <class S> WG_FN void op_EQ(S& s) { s.replace(1, make_u256(s.top() == s.at(1))); }
template <class S> WG_FN void op_ISZERO(S& s) { s.replace(0, make_u256(is_zero(s.top()))); }
template <class S> WG_FN void op_AND(S& s) { s.replace(1, s.top() & s.at(1)); }
template <class S> WG_FN void op_OR(S& s) { s.replace(1, s.top() | s.at(1)); }
template <class S> WG_FN void op_XOR(S& s) { s.replace(1, s.top() ^ s.at(1)); }
template <class S> WG_FN void op_NOT(S& s) { s.replace(0, ~s.top()); }

// Byte number top of the value, counted from the most significant.
template <class S>
WG_FN void op_BYTE(S& s) {
    const u256 position = s.top(), value = s.at(1);
    const bool inside = fits_u64(position) && position.w[0] < 32;
    const u32 shift = inside ? 248 - 8 * static_cast<u32>(position.w[0]) : 0;
    s.replace(1, inside ? make_u256(shift_right(value, shift).w[0] & 0xff) : u256{});
}

template <class S>
WG_FN void op_SHL(S& s) {
    const u256 amount = s.top(), value = s.at(1);
    const bool inside = fits_u64(amount) && amount.w[0] < 256;
    s.replace(1, inside ? shift_left(value, static_cast<u32>(amount.w[0])) : u256{});
}
template <class S>
WG_FN void op_SHR(S& s) {
    const u256 amount = s.top(), value = s.at(1);
    const bool inside = fits_u64(amount) && amount.w[0] < 256;
    s.replace(1, inside ? shift_right(value, static_cast<u32>(amount.w[0])) : u256{});
}
template <class S>
WG_FN void op_SAR(S& s) {
    const u256 amount = s.top(), value = s.at(1);
    const bool inside = fits_u64(amount) && amount.w[0] < 256;
    s.replace(1, shift_right_signed(value, inside ? static_cast<u32>(amount.w[0]) : 255));
}

template <class S> WG_FN void op_POP(S& s) { s.drop(1); }

}  // namespace warpgrid::evm
