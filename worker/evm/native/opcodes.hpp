// Names and constant properties of the instructions, all from opcodes.def.
#pragma once

#include "core/native/platform.hpp"

namespace warpgrid::evm {

enum Opcode : u8 {
#define WG_OPCODE(byte, name, gas, inputs, outputs, flow, access) OP_##name = byte,
#define WG_INTERNAL(byte, name, access) OP_##name = byte,
#include "worker/evm/native/opcodes.def"
#undef WG_OPCODE
#undef WG_INTERNAL
};

enum class Flow : u8 { Undefined, Next, Split, End };

struct OpcodeTraits {
    u16 gas;
    u8 inputs, outputs;
    Flow flow;
};

// The traits of an instruction byte; Flow::Undefined for a byte that is none.
WG_FN constexpr OpcodeTraits opcode_traits(u8 opcode) {
    switch (opcode) {
#define WG_OPCODE(byte, name, gas, inputs, outputs, flow, access) \
    case byte: return {gas, inputs, outputs, Flow::flow};
#define WG_INTERNAL(byte, name, access)
#include "worker/evm/native/opcodes.def"
#undef WG_OPCODE
#undef WG_INTERNAL
        default: return {0, 0, 0, Flow::Undefined};
    }
}

struct OpcodeTable {
    OpcodeTraits traits[256];
};

WG_FN constexpr OpcodeTable make_opcode_table() {
    OpcodeTable table = {};
    for (u32 i = 0; i < 256; ++i) table.traits[i] = opcode_traits(static_cast<u8>(i));
    return table;
}

WG_CONSTANT OpcodeTable OPCODES = make_opcode_table();

}  // namespace warpgrid::evm
