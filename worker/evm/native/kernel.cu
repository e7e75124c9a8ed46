// Entry points of the common class: most transactions, with little private memory, few registers and no stack to speak
// of. What does not fit (memory, depth, a precompile beyond the hashes) ends as Overflow and runs in the heavy class.
//
// Measured on an H200 (nvcc 13.0, sm_90: 128 registers, 104 bytes of spills, 1,568 bytes of stack, 58 KiB of shared
// memory a block of 256; 1 M rows unless told, kernel alone, every outcome written in full and equal to the CPU
// build's): ERC-20 transfer 277 M/s, to new receivers 277; transfer 1,855; four functions shuffled 261, 242 with
// sorting, 84 unsorted; swap 39.3; 100 tokens mixed 228; arithmetic loop 426 G instructions/s; keccak loop 3.09 G
// hashes/s. 4,096 ERC-20 transfers in 0.112 ms. Of the kernel before this one: 4 M ERC-20 288.
//
// What bound it then (ncu, 131,072 rows, before the warps of a block ran in step). ERC-20: a warp waits 49 % of its
// time for memory and 16 % for instructions; 1.0 instructions a cycle are issued of 4. A transfer is 34 k instructions
// a warp, of which two keccaks are 10 k and 224 records of 80 each 18 k. The L1 holds an eighth of the private memory
// of its threads, 2 KB each, and hits 56 %; of the L2, for which all of that is twice too much, 80 %; so that 6 KB of
// stores a transaction reach the L2 and 6.5 KB move to and from HBM. Swap: 44 % memory, 30 % instructions: it executes
// 133 KB of code, a transfer 90 KB. Its 259 k instructions a warp were 2,175 records of 79, 8 keccaks of 5 k, where 4
// digests differ (with 4 places found by hash some lane of a warp missed each time), and 64 calls that copied the
// registers both ways. Arithmetic: the latency of dependent instructions. Keccak: the pipe for
// logic. Transfers: HBM. Not profiled since.
//
// What helped (ERC-20, M/s): 116 at first; 160 with a journal only of what older frames saw, entries built once, arenas
// of constant size, arguments in constant memory, and digests of two words remembered; 166 with 3 blocks a
// multiprocessor and the registers that gives; 172 with a dispatch that makes no calls (the state of divergence was
// saved to local memory at each record), constants folded by the decoder and jumps that take their block along; 187
// with the lowest words of a stack in shared memory and 16 warps; 207 with the calls out of the dispatch's loop
// altogether and the next record read ahead (arithmetic: 194 to 285 G/s), lanes together when they read the base's
// records, and outcomes copied 8 chunks at a time, not one by one; 212 with the frame's code in shared memory; 255 with
// the 4 warps of a block in step, 279 with 8. Transfers in a kernel of their own: 355 became 1,720. Lanes reunited
// before votes behind calls: 270, swap 26.2.
//
// The trap in that: ptxas takes the lanes of a warp to be together behind each region that it closes with a convergence
// barrier, and leaves out what a vote or __syncwarp() would do where they are not. They are not always where the region
// has calls (platform.hpp, reunite_lanes): some lanes vote alone, and the warp stands still for ever. After any change
// here the SASS must show a BRA.DIV or a WARPSYNC before every VOTE and BAR.
//
// Swap, 131,072 rows: 26 became 34.8 (ERC-20, 262,144: 262) with a dispatch of 30 instructions for a record instead of
// 49 (a jump is told by its halt, not by comparing records; the clock is looked at by blocks; the record read ahead is
// copied at the end of a turn), 8 digests replaced in turn, hashes of entries side by side, memory grown and DIV done
// by value, and first operands that were just pushed taken along; 37.8 (258) with blocks of one code in step at each
// 16th stop of the dispatch, 37.5 (250) at each 4th, 36.8 (245) at each.
//
// What did not: 16 warps in step (251; swap, which has more code, 29.2 and not 27.9); 12 warps of 158 registers (199);
// 12 words of a stack in shared memory (209 and not 207 then, but 4,096 rows took 0.130 and not 0.121 ms), or 8 now
// (swap 37.6, ERC-20 249, in step at each 4th stop); a row's fields prefetched all at once (the same); records marked
// to stay in the L1 (swap 37.5 and not 37.6, ERC-20 250 and not 251); a switch whose default is unreachable (more
// instructions). Nine of the dispatch's 30 instructions copy the stack's top and height ahead of the jump; no order of
// stores or cases rid it of them. Warning: copied as a whole, registers that were in memory are kept in pieces of a
// byte by nvcc (Registers::take).
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
// and the function selector. 16 bits, since the time of sorting goes by them.
extern "C" __global__ void warpgrid_evm_sort_keys(u16* keys) {
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
    keys[i] = static_cast<u16>(evm::mix(called ^ selector)) | 1;
}
