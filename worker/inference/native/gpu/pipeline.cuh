// Bulk copies into shared memory and the barriers that announce them (mbarrier; Hopper's copy engine).
//
// A ring of stages: `full[s]` completes when a stage's bytes have arrived, `empty[s]` when all readers have left it.
// The n-th use of a stage (n from 0) waits for parity n % 2 of `full`, and of `empty` for (n + 1) % 2, which passes at
// once the first time.
#pragma once

#include "core/native/platform.hpp"

namespace warpgrid::exact {

__device__ __forceinline__ u32 shared_address(const void* pointer) {
    return static_cast<u32>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void barrier_init(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// After barrier_init, before anybody else uses them.
__device__ __forceinline__ void barrier_init_done() {
    asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void barrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ __forceinline__ void barrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// The same barrier of another block of the cluster (or of this one). Not `.release.cluster`, which costs a fence of the
// whole GPU each time (half of a product's speed): what is announced is that reads are done.
__device__ __forceinline__ void barrier_arrive_at(u32 barrier, u32 rank) {
    asm volatile(
        "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(barrier),
        "r"(rank)
        : "memory");
}

__device__ __forceinline__ void barrier_wait(u32 barrier, u32 parity) {
    u32 done;
    do {
        asm volatile(
            "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
            : "=r"(done)
            : "r"(barrier), "r"(parity)
            : "memory");
    } while (!done);
}

// `bytes` (a multiple of 16) into this block's shared memory; `barrier` counts them.
__device__ __forceinline__ void copy_bulk(u32 target, const void* source, u32 bytes, u32 barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 :
                 : "r"(target), "l"(source), "r"(bytes), "r"(barrier)
                 : "memory");
}

// A cache policy for what is read once: it leaves the L2 cache before anything else does.
__device__ __forceinline__ u64 read_once() {
    u64 policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

// copy_bulk with a cache policy.
__device__ __forceinline__ void copy_bulk(u32 target, const void* source, u32 bytes, u32 barrier, u64 policy) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
                 "[%0], [%1], %2, [%3], %4;"
                 :
                 : "r"(target), "l"(source), "r"(bytes), "r"(barrier), "l"(policy)
                 : "memory");
}

// To the same place of every block of the cluster in `mask`, each of whose barriers counts the bytes.
__device__ __forceinline__ void copy_bulk_to_all(u32 target, const void* source, u32 bytes, u32 barrier, u16 mask) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1], %2, [%3], %4;"
                 :
                 : "r"(target), "l"(source), "r"(bytes), "r"(barrier), "h"(mask)
                 : "memory");
}

// Sixteen bytes into shared memory, by the thread itself; a group of them is what lies between two commits.
__device__ __forceinline__ void copy_async(void* target, const void* source) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(target)), "l"(source) : "memory");
}

__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <u32 PENDING>  // groups that may still be on their way
__device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// The same as copy_bulk, only into the L2 cache and without notice.
__device__ __forceinline__ void prefetch_bulk(const void* source, u32 bytes) {
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(source), "r"(bytes) : "memory");
}

// The cache line of one address, into the L2 cache.
__device__ __forceinline__ void prefetch_line(const void* source) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(source) : "memory");
}

// Kernels are launched so that the next one's blocks may start (and fetch weights, which nobody writes) while this one
// runs. `allow_next` by any thread of each block lets them; `await_previous` before anything that earlier kernels wrote
// is read, or that they read is written. Every kernel awaits, so that one which has ended implies all before it have.
__device__ __forceinline__ void allow_next() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
__device__ __forceinline__ void await_previous() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// Of a kernel that has nothing to do before its predecessor's results are there.
__device__ __forceinline__ void take_turn() {
    allow_next();
    await_previous();
}

// What ordinary stores wrote (and this thread may read) is what bulk copies issued from here on read, too.
__device__ __forceinline__ void async_proxy_follows() { asm volatile("fence.proxy.async.global;" ::: "memory"); }

__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

// A word of another block's shared memory (or of this one's), at the same address there.
__device__ __forceinline__ void store_at(u32 address, u32 rank, i32 value) {
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\nst.shared::cluster.s32 [there], %2;\n}"
                 :
                 : "r"(address), "r"(rank), "r"(value)
                 : "memory");
}

__device__ __forceinline__ i32 load_at(u32 address, u32 rank) {
    i32 value;
    asm volatile(
        "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %1, %2;\nld.shared::cluster.s32 %0, [there];\n}"
        : "=r"(value)
        : "r"(address), "r"(rank)
        : "memory");
    return value;
}

__device__ __forceinline__ u32 cluster_rank() {
    u32 rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

}  // namespace warpgrid::exact
