// Entry point of the common class: most transactions, with little private memory, few registers and no stack to speak
// of. What does not fit (memory, depth, a precompile beyond the hashes) ends as Overflow and runs in the heavy class.
//
// Measured on an H200 (nvcc 13.0, sm_90, 128 registers, 76 bytes of spills, 2,032 bytes of stack; outcomes written in
// full, each equal to the CPU build's): ERC-20 transfer 133 M/s at 65,536 rows, 116 M/s at 1 M, one launch of 4,096 in
// 0.21 ms; to new receivers 113 M/s; plain transfer 355 M/s; four functions shuffled 124 M/s sorted (sorting 0.3 ms of
// 8.7), 40 M/s unsorted; swap 18 M/s; arithmetic loop 125 G instructions/s; keccak loop 2.8 G hashes/s.
// What binds (ncu, ERC-20): memory latency. 0.95 instructions a cycle of 4; 56 % of the stalls wait for L1, which hits
// 71 %; 55 k instructions a warp, whose floor would be 600 M/s. Next: fewer journal entries and smaller outcomes.
// Tried: single bytes in copies (55 M/s ERC-20, 157 M/s plain: 2x slower); an address of the stack's top that escapes into
// a called division (arithmetic loop 56 G/s: the top then lives in local memory); a jump table instead of the compare
// tree (-Xcicc --Xllc=-jump-table-density=1, in the figures above; the default build has the tree).
#include "worker/evm/native/kernel.hpp"

extern "C" __global__ void __launch_bounds__(128, 4)
    warpgrid_evm_run_common(const warpgrid::evm::LaunchArguments* arguments) {
    warpgrid::evm::run_rows<warpgrid::evm::Reach::Common>(*arguments);
}

// Sorting key of each row, so that neighbours run the same code: the account called, then the function selector.
extern "C" __global__ void warpgrid_evm_sort_keys(const warpgrid::evm::LaunchArguments* arguments, warpgrid::u64* keys) {
    using namespace warpgrid;
    const evm::Transactions& batch = arguments->batch;
    const u64 i = blockIdx.x * static_cast<u64>(blockDim.x) + threadIdx.x;
    if (i >= arguments->count) return;
    const u64 row = arguments->rows[i], data = batch.data_offsets[row];
    u64 selector = 0;
    for (u64 k = data; k < data + 4 && k < batch.data_offsets[row + 1]; ++k) selector = selector << 8 | batch.data[k];
    const u64 target = batch.is_creation[row] ? 0 : evm::hash_account(0, batch.to[row]);
    keys[i] = target << 32 | selector;
}
