// Batches of hashes and signature recoveries on a GPU: entry points only, one thread an item.
//
// keccak256_batch: one thread a message. Measured on an H200 (nvcc 13.0): 3.34 G permutations/s for 64 B, 3.37 for
//   136 B, 3.10 for 1,360 B. Floor: the integer pipes, about 3.8 G/s (2,900 three-input instructions a permutation on
//   132 SMs x 64 lanes x 1.97 GHz); a prototype of the same shape reached 3.58.
// recover_*: the passes of recovery_batch.hpp. Measured: 37.8 M/s for 1 M signatures (27.2 at 64 K, 3.2 at 4 K), of
//   27.7 ms: scalars 0.62, ladder 26.4, addresses 0.58, exceptional 0.02. 21 M/s with copies from and to pageable
//   memory. The ladder is bound by integer multiply-adds at half rate: about 2,100 field products of 64 (squares 36) in
//   the product and 16 in the folding. Tried:
//   - 4, 5 or 6 blocks an SM (128, 96, 80 registers; 0.5 to 1.2 KB spilled): 36.9, 37.4, 37.9 M/s. 3 (168 registers) is
//     6 % slower than 4.
//   - carry chains split over volatile asm statements: 5 % faster and wrong (limbs_device.hpp says why).
//   - squares added in the same chain, or by 64-bit additions after: no difference.
#include "core/native/crypto/keccak.hpp"
#include "core/native/crypto/recovery_batch.hpp"

using namespace warpgrid;

#ifndef WG_LADDER_BLOCKS_PER_SM
#define WG_LADDER_BLOCKS_PER_SM 6
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
    recover_addresses(u8* addresses, u8* status, const RecoveryScalars* records, const Secp256k1Point* points,
                      u64 count) {
    const u64 stride = (count + INVERSION_BATCH - 1) / INVERSION_BATCH, i = thread_index();
    if (i < stride) recovery_address_pass<INVERSION_BATCH>(addresses, status, records, points, count, i, stride);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    recover_exceptional(u8* addresses, u8* status, const u8* hashes, const u8* signatures, const u8* y_parities,
                        u64 count) {
    const u64 i = thread_index();
    if (i < count) recovery_exceptional_pass(addresses, status, {hashes, signatures, y_parities, count}, i);
}
