// Batches of hashes and signature recoveries on a GPU: entry points only, one thread an item.
//
// keccak256_batch: one thread a message. Floor: the integer pipes; a permutation is about 2,900 instructions of three
//   inputs, so 132 SMs x 64 lanes x 1.97 GHz allow 3.8 G permutations/s on an H200.
// recover_*: the passes of recovery_batch.hpp. Floor: 32-bit multiply-adds, half rate; about 2,100 field products of
//   100 wide multiply-adds (64 in the product, 8 + 8 in the folding, additions) make 40 M recoveries/s on an H200.
#include "core/native/crypto/keccak.hpp"
#include "core/native/crypto/recovery_batch.hpp"

using namespace warpgrid;

#ifndef WG_LADDER_BLOCKS_PER_SM
#define WG_LADDER_BLOCKS_PER_SM 4
#endif

constexpr u32 THREADS = 128;
constexpr u32 COMB_BITS = 16;
constexpr u32 INVERSION_BATCH = 16;

WG_FN u64 thread_index() { return static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; }

extern "C" __global__ void __launch_bounds__(THREADS)
    keccak256_batch(u8* digests, const u8* items, const u64* offsets, u64 count) {
    const u64 i = thread_index();
    if (i < count) keccak256(digests + 32 * i, items + offsets[i], offsets[i + 1] - offsets[i]);
}

extern "C" __global__ void __launch_bounds__(THREADS) recover_comb(Affine<Secp256k1Field>* comb, u64 count) {
    const u64 i = thread_index();
    if (i < count) fill_comb_entry<COMB_BITS>(comb, i);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    recover_scalars(RecoveryScalars* records, const u8* hashes, const u8* signatures, const u8* y_parities, u64 count) {
    const u64 stride = (count + INVERSION_BATCH - 1) / INVERSION_BATCH, i = thread_index();
    if (i >= stride) return;
    recovery_scalars_pass<INVERSION_BATCH>(records, {hashes, signatures, y_parities, count}, i, stride);
}

extern "C" __global__ void __launch_bounds__(THREADS, WG_LADDER_BLOCKS_PER_SM)
    recover_ladder(Secp256k1Point* points, RecoveryScalars* records, const u8* hashes, const u8* signatures,
                   const u8* y_parities, const Affine<Secp256k1Field>* comb, u64 count) {
    const u64 i = thread_index();
    if (i >= count) return;
    recovery_ladder_pass<COMB_BITS>(points, records, {hashes, signatures, y_parities, count}, comb, i);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    recover_addresses(u8* addresses, u8* status, const RecoveryScalars* records, const Secp256k1Point* points, u64 count) {
    const u64 stride = (count + INVERSION_BATCH - 1) / INVERSION_BATCH, i = thread_index();
    if (i < stride) recovery_address_pass<INVERSION_BATCH>(addresses, status, records, points, count, i, stride);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    recover_exceptional(u8* addresses, u8* status, const u8* hashes, const u8* signatures, const u8* y_parities,
                        u64 count) {
    const u64 i = thread_index();
    if (i < count) recovery_exceptional_pass(addresses, status, {hashes, signatures, y_parities, count}, i);
}
