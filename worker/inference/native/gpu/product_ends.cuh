// What becomes of a tile's sums in the threads that hold them (matmul.cuh): they are stored raw, added to the residual,
// or gated. For products of many rows; those of few are finished in stream.cuh.
#pragma once

#include "worker/inference/native/gpu/matmul.cuh"
#include "worker/inference/native/gpu/rescale.cuh"

namespace warpgrid::exact {

// Raw sums, for the kernel that follows: [splits][rows][outputs].
struct StoreSums {
    i32* sums;
    u32 outputs, rows;

    template <u32 COUNT>
    __device__ __forceinline__ void operator()(const i32 (&acc)[COUNT], const Place& place) const {
#pragma unroll
        for (u32 i = 0; i < COUNT; ++i) {
            const u32 row = place.row0 + i / 4 * 8 + i % 2, output = place.output0 + i % 4 / 2 * 8;
            if (row < rows && output < outputs)
                sums[(static_cast<u64>(place.split) * rows + row) * outputs + output] = acc[i];
        }
    }
};

// The product's threads that hold sums.
struct GroupsCrew {
    static __device__ __forceinline__ void sync() { asm volatile("bar.sync 1, 256;" ::: "memory"); }
};

// Scales of a tile's rows in shared memory, with a largest exponent.
struct TileScale {
    Scale* of;  // [256]
    i32* exponent_max;

    // By all threads that hold sums, before each tile. Returns the largest exponent so far.
    __device__ __forceinline__ i32 load(const Scale* scale, u32 first_row, u32 rows) const {
        GroupsCrew::sync();
        if (first_row + threadIdx.x < rows) {
            of[threadIdx.x] = scale[first_row + threadIdx.x];
            atomicMax(exponent_max, of[threadIdx.x].exponent);
        }
        GroupsCrew::sync();
        return *exponent_max;
    }
};

constexpr u32 LOADED = 8;  // blocks of eight rows whose loads come before any of their stores, which could alias them

// residual += the product.
template <u32 LIMBS>
struct AddToResidual {
    i32* residual;
    const i32* mantissa;
    const i32* row_shift;
    const Scale* scale;
    TileScale tile_scale;
    u32 width, rows;  // limbs are rows

    template <u32 COUNT>
    __device__ __forceinline__ void operator()(const i32 (&acc)[COUNT], const Place& place) const {
        const i32 exponent = tile_scale.load(scale, place.row0 / LIMBS - threadIdx.x % 4 * 2 / LIMBS, rows / LIMBS);
#pragma unroll
        for (u32 e = 0; e < 2; ++e) {
            const u32 n = place.output0 + 8 * e;
            if (n >= width) continue;
            if (shifts_far(row_shift[n], exponent, 8 * LIMBS)) add<true>(acc, place, e, n);
            else add<false>(acc, place, e, n);
        }
    }

    template <bool FAR, u32 COUNT>
    __device__ __forceinline__ void add(const i32 (&acc)[COUNT], const Place& place, u32 e, u32 n) const {
        const i32 row_mantissa = mantissa[n], shift = row_shift[n];
        const u32 row0 = place.row0 / LIMBS, tile_row0 = threadIdx.x % 4 * 2 / LIMBS, last = rows / LIMBS - 1;
        i32* const x = residual + n;
#pragma unroll
        for (u32 first = 0; first < COUNT / 4; first += LOADED) {
            i32 before[LOADED][2 / LIMBS];
#pragma unroll
            for (u32 b = 0; b < LOADED; ++b) {
#pragma unroll
                for (u32 j = 0; j < 2 / LIMBS; ++j)
                    before[b][j] = x[static_cast<u64>(min(row0 + 8 / LIMBS * (first + b) + j, last)) * width];
            }
#pragma unroll
            for (u32 b = 0; b < LOADED; ++b) {
#pragma unroll
                for (u32 j = 0; j < 2 / LIMBS; ++j) {
                    const u32 row = 8 / LIMBS * (first + b) + j;  // of the tile, before this lane's own
                    const i32* sums = acc + 4 * (first + b) + 2 * e;
                    const Scale row_scale = tile_scale.of[tile_row0 + row];
                    i64 added;
                    if constexpr (!FAR)
                        added = linear_slow(LIMBS == 1 ? sums[j] : 256 * static_cast<i64>(sums[0]) + sums[1],
                                            row_mantissa, shift, row_scale);
                    else if constexpr (LIMBS == 1) added = linear_fast(sums[j], row_mantissa, shift, row_scale);
                    else added = linear_fast(256 * static_cast<i64>(sums[0]) + sums[1], row_mantissa, shift, row_scale);
                    if (row0 + row <= last) x[static_cast<u64>(row0 + row) * width] = saturate(before[b][j] + added);
                }
            }
        }
    }
};

constexpr i32 EXPONENT_MIN = -(1 << 30);

// hidden = gated units of the product, and their largest magnitude of each row.
struct Gate {
    i32* hidden;
    i32* hidden_max;
    i32* tile_max;  // shared: [256]
    TileScale tile_scale;
    const i32* sigmoid;  // shared
    const i32* mantissa;
    const i32* row_shift;
    const Scale* scale;
    u32 f, rows;
    i32 hidden_fraction;

    template <u32 COUNT>
    __device__ __forceinline__ void operator()(const i32 (&acc)[COUNT], const Place& place) const {
        const u32 lane = threadIdx.x % 32, i = place.output0 / 16 * 8 + lane / 4;
        const bool inside = i < f;
        const i32 gate_mantissa = inside ? mantissa[i] : 0, gate_shift = inside ? row_shift[i] : 0;
        const i32 up_mantissa = inside ? mantissa[f + i] : 0, up_shift = inside ? row_shift[f + i] : 0;
        const u32 tile_row = place.row0 - lane % 4 * 2;
        tile_max[threadIdx.x] = 0;
        const i32 exponent = tile_scale.load(scale, tile_row, rows);
        const bool far = !inside || (shifts_far(gate_shift, exponent, 8) && shifts_far(up_shift, exponent, 8));
        const Unit unit = {i, gate_mantissa, gate_shift, up_mantissa, up_shift, inside};
        if (__all_sync(~0u, far)) gate<true>(acc, place, unit);
        else gate<false>(acc, place, unit);
        GroupsCrew::sync();
        if (tile_row + threadIdx.x < rows) atomicMax(hidden_max + tile_row + threadIdx.x, tile_max[threadIdx.x]);
    }

    struct Unit {
        u32 i;
        i32 gate_mantissa, gate_shift, up_mantissa, up_shift;
        bool inside;
    };

    template <bool FAR>
    static __device__ __forceinline__ i32 output(i32 sum, i32 row_mantissa, i32 shift, Scale row_scale) {
        if constexpr (FAR) return linear_fast(sum, row_mantissa, shift, row_scale);
        else return saturate(linear_slow(sum, row_mantissa, shift, row_scale));
    }

    template <bool FAR, u32 COUNT>
    __device__ __forceinline__ void gate(const i32 (&acc)[COUNT], const Place& place, const Unit& unit) const {
        const u32 lane = threadIdx.x % 32;
        i32* const out = hidden + static_cast<u64>(place.row0) * f + unit.i;
#pragma unroll
        for (u32 first = 0; first < COUNT / 4; first += 4) {
            i32 z[8];
#pragma unroll
            for (u32 part = 0; part < 8; ++part) {
                const u32 b = first + part / 2, j = part % 2;
                const Scale row_scale = tile_scale.of[8 * b + lane % 4 * 2 + j];
                const i32 gate = output<FAR>(acc[4 * b + j], unit.gate_mantissa, unit.gate_shift, row_scale);
                const i32 up = output<FAR>(acc[4 * b + 2 + j], unit.up_mantissa, unit.up_shift, row_scale);
                z[part] = gated_unit(gate, up, sigmoid, hidden_fraction);
            }
#pragma unroll
            for (u32 part = 0; part < 8; ++part) {
                const u32 row = 8 * (first + part / 2) + part % 2;
                const bool there = unit.inside && place.row0 + row < rows;
                if (there) out[static_cast<u64>(row) * f] = z[part];
                z[part] = there ? magnitude(z[part]) : 0;
            }
            const u32 part = lane / 4;  // of which this lane gets the largest of eight
            atomicMax(tile_max + 8 * (first + part / 2) + lane % 4 * 2 + part % 2, largest_of_eight(z, lane));
        }
    }

    // Eight lanes (those of equal lane % 4) have eight values each: lane / 4 = i gets the largest of the i-th values.
    static __device__ __forceinline__ i32 largest_of_eight(const i32 (&z)[8], u32 lane) {
        const bool upper4 = lane & 16, upper2 = lane & 8, upper1 = lane & 4;
        i32 four[4], two[2];
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            const i32 sent = upper4 ? z[i] : z[i + 4];
            four[i] = max(upper4 ? z[i + 4] : z[i], __shfl_xor_sync(~0u, sent, 16));
        }
#pragma unroll
        for (u32 i = 0; i < 2; ++i) {
            const i32 sent = upper2 ? four[i] : four[i + 2];
            two[i] = max(upper2 ? four[i + 2] : four[i], __shfl_xor_sync(~0u, sent, 8));
        }
        const i32 sent = upper1 ? two[0] : two[1];
        return max(upper1 ? two[1] : two[0], __shfl_xor_sync(~0u, sent, 4));
    }
};

constexpr u32 SIGMOID_ENTRIES = 4096;

}  // namespace warpgrid::exact
