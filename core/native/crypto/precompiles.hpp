// Every precompiled contract of Cancun, Prague and Osaka: which exist, what they cost, what they answer.
//
// A caller charges precompile_gas first, then makes sure that its arena holds precompile_scratch_words, then runs
// run_precompile with room for precompile_output_bytes. Nothing here allocates or keeps state. On the GPU the
// contracts over BLS12-381 (0x0a to 0x11) answer HostNeeded, and so does any contract whose scratch is larger than the
// arena: the transaction parks with its request, the host runs the same function, and the transaction runs again.
#pragma once

#include "core/native/platform.hpp"

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

// The precompile at this address under this fork, or None. `address` is big-endian, as in the EVM.
WG_FN Precompile precompile_at(const u8* address, Fork fork);

// Gas of a call with this input; at most PRECOMPILE_GAS_UNPAYABLE.
WG_FN u64 precompile_gas(Precompile precompile, const u8* input, u64 size, Fork fork);

// Upper bounds, for inputs whose gas has been paid. Zero scratch for most.
WG_FN u64 precompile_output_bytes(Precompile precompile, const u8* input, u64 size);
WG_FN u64 precompile_scratch_words(Precompile precompile, const u8* input, u64 size);

// Runs a call whose gas was charged. `output` may not overlap `input`. On Success sets output_size; on the others
// output_size is 0 and the output buffer unspecified.
WG_NOINLINE PrecompileStatus run_precompile(Precompile precompile, const u8* input, u64 size, Fork fork, u8* output,
                                            u64& output_size, Scratch& scratch);

}  // namespace warpgrid
