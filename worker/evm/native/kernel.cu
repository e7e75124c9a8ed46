// Entry point of the common class: most transactions, with little private memory, few registers and no stack to speak
// of. What does not fit (memory, depth, a precompile beyond the hashes) ends as Overflow and runs in the heavy class.
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
