// Entry point of the heavy class: every precompile that a GPU computes, deep calls, much memory; few transactions at a
// time. Its threads need about 16 KB of stack for the pairing.
#include "worker/evm/native/kernel.hpp"

extern "C" __global__ void __launch_bounds__(128) warpgrid_evm_run_heavy() {
    warpgrid::evm::run_rows<warpgrid::evm::HeavyContext>();
}
