// libFuzzer target: every precompiled contract on any input: the first byte picks the contract, the second the fork.
// An answer must be the same twice, no longer than announced, and a failure must leave no output.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "core/native/crypto/precompiles.hpp"

using namespace warpgrid;

namespace {

constexpr u64 OUTPUT_BYTES_MAX = 1 << 16;
constexpr u64 GAS_MAX = 2'000'000;

struct Answer {
    PrecompileStatus status;
    std::vector<u8> output;
};

Answer ask(Precompile precompile, const u8* input, u64 size, Fork fork) {
    const u64 announced = precompile_output_bytes(precompile, input, size);
    std::vector<u64> scratch(precompile_scratch_words(precompile, input, size) + 1);
    std::vector<u8> output(announced < OUTPUT_BYTES_MAX ? announced + 1 : OUTPUT_BYTES_MAX);
    u64 written = 0;
    const Answer answer = {
        run_precompile(precompile, input, size, fork, output.data(), written, {scratch.data(), scratch.size()}), {}};
    if (written > announced) abort();
    output.resize(written);
    return {answer.status, output};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 2) return 0;
    u8 address[20] = {};
    const u32 number = data[0] % 18;
    address[19] = static_cast<u8>(number);
    if (number == 0) address[18] = 1;  // P256VERIFY is at 0x100
    const Fork fork = static_cast<Fork>(data[1] % 3);
    const Precompile precompile = precompile_at(address, fork);
    if (precompile == Precompile::None) return 0;
    std::vector<u8> input(data + 2, data + size);
    if (precompile_gas(precompile, input.data(), input.size(), fork) > GAS_MAX) return 0;
    const Answer one = ask(precompile, input.data(), input.size(), fork);
    const Answer other = ask(precompile, input.data(), input.size(), fork);
    if (one.status != other.status || one.output != other.output) abort();
    return 0;
}
