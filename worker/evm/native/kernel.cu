// Entry points of the common class: most transactions, with little private memory, few registers and no stack to speak
// of. What does not fit (memory, depth, a precompile beyond the hashes) ends as Overflow and runs in the heavy class.
//
// Measured on an H200 (nvcc 13.0, sm_90: 128 registers, 88 bytes of spills, 1,696 bytes of stack, 32 KiB of shared
// memory a block; 1 M rows unless told, kernel alone, every outcome written in full and equal to the CPU build's):
// ERC-20 transfer 189 M/s, to new receivers 190; transfer 1,760; four functions shuffled 185, 177 with sorting, 64
// unsorted; 100 tokens mixed 171; swap (262,144 rows) 23; arithmetic loop 194 G instructions/s; keccak loop 2.9 G
// hashes/s; 4,096 ERC-20 transfers in 0.17 ms.
//
// What binds (ncu, ERC-20): the memory behind the L1. A transfer is 33 k instructions a warp (224 records of 60
// instructions each, two keccaks of 5 k), whose floor at 4 instructions a cycle would be 1,000 M/s; 0.9 instructions a
// cycle are issued of 4, and more warps gain nothing. The L1 writes every store through: 7.5 KB a transaction reach the
// L2, of which 0.7 KB are the outcome; and the private memory of all resident threads, some 2 KB each, is twice the L2,
// so that 5 KB a transaction move to and from HBM.
//
// What helped (ERC-20, M/s): 116 at first; 160 with a journal only of what older frames saw, entries built once, arenas
// of constant size, arguments in constant memory, and digests of two words remembered; 166 with 3 blocks a
// multiprocessor and the registers that gives; 172 with a dispatch that makes no calls (the state of divergence was
// saved to local memory at each record), constants folded by the decoder and jumps that take their block along (46.7 k
// instructions a warp became 33.4 k; the arithmetic loop went from 133 to 206 G/s, a launch of 4,096 from 0.21 to 0.13
// ms); 191 with the lowest 8 words of a stack in shared memory and 4 blocks. Transfers in a kernel of their own: 355
// became 1,720. What did not: 2 blocks (the same or less), 5 (96 registers: 1.8 KB of spills); 12 words in shared
// memory (184); outcomes stored past the caches and hashes in the base's index (no difference seen). Warning: copied as
// a whole, registers that were in memory are kept in pieces of a byte by nvcc (Registers::take).
#include "worker/evm/native/kernel.hpp"
#include "worker/evm/native/transfer.hpp"

using namespace warpgrid;

extern "C" __global__ void __launch_bounds__(evm::THREADS_PER_BLOCK_MAX, 2) warpgrid_evm_run_common() {
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

// Sorting key of each row, so that neighbours run the same code: 0 for a transfer; else from the code that is called
// and the function selector.
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
