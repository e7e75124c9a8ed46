// The latest answers of dear precompiles on one thread. A call that repeats (a proof checked twice, a signature relayed
// through two contracts) is looked up by its whole input; nothing is ever taken for granted. Host code only.
#pragma once

#include <cstring>
#include <vector>

#include "core/native/crypto/precompiles.hpp"
#include "worker/evm/native/state.hpp"

namespace warpgrid::evm {

class PrecompileMemo {
   public:
    explicit PrecompileMemo(u32 entries) : entries_(entries) {}  // a power of two, or 0 for none

    // As warpgrid::run_precompile.
    PrecompileStatus run(Precompile precompile, const u8* input, u64 size, Fork fork, u8* output, u64& output_size,
                         const Scratch& scratch) {
        if (entries_.empty() || !is_dear(precompile) || size > INPUT_BYTES_MAX) {
            return run_precompile(precompile, input, size, fork, output, output_size, scratch);
        }
        Entry& entry = entries_[hash(precompile, input, size) & (entries_.size() - 1)];
        if (entry.precompile == precompile && entry.fork == fork && entry.size == size &&
            std::memcmp(entry.input, input, size) == 0) {
            output_size = entry.output_size;
            std::memcpy(output, entry.output, output_size);
            return entry.status;
        }
        const PrecompileStatus status = run_precompile(precompile, input, size, fork, output, output_size, scratch);
        if (status == PrecompileStatus::HostNeeded || output_size > OUTPUT_BYTES_MAX) return status;
        entry.precompile = precompile;
        entry.fork = fork;
        entry.status = status;
        entry.size = static_cast<u32>(size);
        entry.output_size = static_cast<u32>(output_size);
        std::memcpy(entry.input, input, size);
        std::memcpy(entry.output, output, output_size);
        return status;
    }

   private:
    static constexpr u64 INPUT_BYTES_MAX = 512, OUTPUT_BYTES_MAX = 256;

    struct Entry {
        Precompile precompile = Precompile::None;
        Fork fork = Fork::Cancun;
        PrecompileStatus status = PrecompileStatus::Success;
        u32 size = 0, output_size = 0;
        u8 input[INPUT_BYTES_MAX], output[OUTPUT_BYTES_MAX];
    };

    // Those that take microseconds for a short input.
    static bool is_dear(Precompile precompile) {
        switch (precompile) {
            case Precompile::Sha256:
            case Precompile::Ripemd160:
            case Precompile::Identity:
            case Precompile::ModExp:
            case Precompile::Bn254Add:
            case Precompile::Blake2F: return false;
            default: return true;
        }
    }
    static u64 hash(Precompile precompile, const u8* input, u64 size) {
        u64 h = static_cast<u64>(precompile) << 32 | size;
        for (; size >= 8; size -= 8, input += 8) h = mix(h ^ load_unaligned64(input));
        for (; size > 0; --size) h = mix(h ^ *input++);
        return h;
    }

    std::vector<Entry> entries_;
};

}  // namespace warpgrid::evm
