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
#include "worker/evm/native/transfer.hpp"

using namespace warpgrid;

extern "C" __global__ void __launch_bounds__(128, 3) warpgrid_evm_run_common() {
    evm::run_rows<evm::CommonContext>();
}

// Rows of which `is_transfer` holds.
extern "C" __global__ void __launch_bounds__(128) warpgrid_evm_run_transfers() {
    const evm::LaunchArguments& a = warpgrid_evm_arguments;
    const u64 i = blockIdx.x * static_cast<u64>(blockDim.x) + threadIdx.x;
    if (i >= a.count) return;
    evm::TransferMachine<evm::LaunchContext> m;
    m.index = a.rows[i];
    m.block = &a.batch.blocks[a.batch.block[m.index]];
    evm::run_transfer(m, a.outputs);
}

// Sorting key of each row, so that neighbours run the same code: 0 for a transfer; else from the code that is called and
// the function selector.
extern "C" __global__ void warpgrid_evm_sort_keys(u32* keys) {
    const evm::World& world = warpgrid_evm_arguments.world;
    const evm::Transactions& batch = warpgrid_evm_arguments.batch;
    const u64 i = blockIdx.x * static_cast<u64>(blockDim.x) + threadIdx.x;
    if (i >= warpgrid_evm_arguments.count) return;
    const u64 row = warpgrid_evm_arguments.rows[i], data = batch.data_offsets[row];
    const u32 target = batch.is_creation[row] ? evm::NONE : evm::find_account(world, batch.world[row], batch.to[row]);
    if (evm::is_transfer(world, batch, row, target)) {
        keys[i] = 0;
        return;
    }
    u64 called = 0;
    if (target != evm::NONE && world.accounts[target].code != evm::CODE_UNKNOWN) {
        called = *reinterpret_cast<const u64*>(world.codes[world.accounts[target].code].hash);
    }
    u64 selector = 0;
    for (u64 k = data; k < data + 4 && k < batch.data_offsets[row + 1]; ++k) selector = selector << 8 | batch.data[k];
    keys[i] = static_cast<u32>(evm::mix(called ^ selector)) | 1;
}
