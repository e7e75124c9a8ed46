// The vocabulary of the precompiled contracts: their numbers, the forks that price them, and how a call can end.
#pragma once

#include "core/native/crypto/bytes.hpp"

namespace warpgrid {

enum class Fork : u8 { Cancun = 0, Prague = 1, Osaka = 2 };

enum class PrecompileStatus : u32 {
    Success = 0,     // output[0..output_size) is the return data (it may be empty, as for an invalid signature)
    Failure = 1,     // the call fails and consumes all gas given to it
    HostNeeded = 2,  // not answered here: the host must run the same function
};

enum class Precompile : u32 {
    None = 0x00,
    EcRecover = 0x01,
    Sha256 = 0x02,
    Ripemd160 = 0x03,
    Identity = 0x04,
    ModExp = 0x05,
    Bn254Add = 0x06,
    Bn254Mul = 0x07,
    Bn254Pairing = 0x08,
    Blake2F = 0x09,
    PointEvaluation = 0x0a,
    BlsG1Add = 0x0b,
    BlsG1Msm = 0x0c,
    BlsG2Add = 0x0d,
    BlsG2Msm = 0x0e,
    BlsPairing = 0x0f,
    BlsMapG1 = 0x10,
    BlsMapG2 = 0x11,
    P256Verify = 0x100,
};

// Caller-owned working memory, 8-byte aligned.
struct Scratch {
    u64* words;
    u64 words_max;
};

// A price above every gas limit: the call must run out of gas.
constexpr u64 PRECOMPILE_GAS_UNPAYABLE = ~0ull;

// A call that gives `bytes` of output where its input was valid, and fails where it was not.
WG_FN PrecompileStatus fixed_output(bool valid, u64 bytes, u64& output_size) {
    output_size = valid ? bytes : 0;
    return valid ? PrecompileStatus::Success : PrecompileStatus::Failure;
}

// The 32 bytes of a boolean answer.
WG_FN u64 store_boolean(u8* output, bool value) {
    zero_bytes(output, 32);
    output[31] = value;
    return 32;
}

}  // namespace warpgrid
