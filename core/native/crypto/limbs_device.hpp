// limbs.hpp for a GPU: 32-bit words, the carry flag, and products that fuse into IMAD.WIDE.
#pragma once

#include "core/native/platform.hpp"

namespace warpgrid {

// PTX carry chains. Each statement reads and writes the carry flag, so they stay in program order (volatile) and
// nothing else may be put between two links of a chain.
#define WG_PTX2(name, instruction, type, constraint)                                                     \
    __device__ __forceinline__ type name(type a, type b) {                                               \
        type r;                                                                                          \
        asm volatile(instruction " %0, %1, %2;" : "=" constraint(r) : constraint(a), constraint(b));     \
        return r;                                                                                        \
    }
#define WG_PTX3(name, instruction)                                                                       \
    __device__ __forceinline__ u32 name(u32 a, u32 b, u32 c) {                                           \
        u32 r;                                                                                           \
        asm volatile(instruction " %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));                 \
        return r;                                                                                        \
    }
WG_PTX2(ptx_add_cc64, "add.cc.u64", u64, "l")
WG_PTX2(ptx_addc_cc64, "addc.cc.u64", u64, "l")
WG_PTX2(ptx_addc64, "addc.u64", u64, "l")
WG_PTX2(ptx_sub_cc64, "sub.cc.u64", u64, "l")
WG_PTX2(ptx_subc_cc64, "subc.cc.u64", u64, "l")
WG_PTX2(ptx_subc64, "subc.u64", u64, "l")
WG_PTX2(ptx_add_cc, "add.cc.u32", u32, "r")
WG_PTX2(ptx_addc_cc, "addc.cc.u32", u32, "r")
WG_PTX2(ptx_addc, "addc.u32", u32, "r")
WG_PTX3(ptx_mad_lo_cc, "mad.lo.cc.u32")
WG_PTX3(ptx_madc_lo_cc, "madc.lo.cc.u32")
WG_PTX3(ptx_madc_hi_cc, "madc.hi.cc.u32")
WG_PTX3(ptx_madc_hi, "madc.hi.u32")
#undef WG_PTX2
#undef WG_PTX3

template <u32 N>
WG_FN u64 add_limbs(u64 (&r)[N], const u64 (&a)[N], const u64 (&b)[N]) {
    r[0] = ptx_add_cc64(a[0], b[0]);
    WG_UNROLL
    for (u32 i = 1; i < N; ++i) r[i] = ptx_addc_cc64(a[i], b[i]);
    return ptx_addc64(0, 0);
}

template <u32 N>
WG_FN u64 subtract_limbs(u64 (&r)[N], const u64 (&a)[N], const u64 (&b)[N]) {
    r[0] = ptx_sub_cc64(a[0], b[0]);
    WG_UNROLL
    for (u32 i = 1; i < N; ++i) r[i] = ptx_subc_cc64(a[i], b[i]);
    return ptx_subc64(0, 0) & 1;
}

template <u32 N>
WG_FN void split_words(u32 (&words)[2 * N], const u64 (&limbs)[N]) {
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) {
        words[2 * i] = static_cast<u32>(limbs[i]);
        words[2 * i + 1] = static_cast<u32>(limbs[i] >> 32);
    }
}

// limbs = even + odd * 2^32, the last step of every product: 64-bit products at even word positions gather in `even`,
// those at odd positions one word lower in `odd`, so that each low/high pair fuses into one IMAD.WIDE.
template <u32 W>
WG_FN void merge_even_odd(u64 (&limbs)[W / 2], u32 (&even)[W], const u32 (&odd)[W]) {
    even[1] = ptx_add_cc(even[1], odd[0]);
    WG_UNROLL
    for (u32 k = 2; k < W - 1; ++k) even[k] = ptx_addc_cc(even[k], odd[k - 1]);
    even[W - 1] = ptx_addc(even[W - 1], odd[W - 2]);
    WG_UNROLL
    for (u32 i = 0; i < W / 2; ++i) limbs[i] = static_cast<u64>(even[2 * i + 1]) << 32 | even[2 * i];
}

template <u32 N>
WG_FN u64 add_multiple(u64 (&t)[N], const u64 (&a)[N], u64 b) {
    u64 carry = 0;
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) t[i] = multiply_add(a[i], b, t[i], carry);
    return carry;
}

template <u32 N>
WG_FN void multiply_wide(u64 (&r)[2 * N], const u64 (&a_limbs)[N], const u64 (&b_limbs)[N]) {
    constexpr u32 W = 2 * N;
    u32 a[W], b[W], sums[2][2 * W];
    split_words(a, a_limbs);
    split_words(b, b_limbs);
    WG_UNROLL
    for (u32 k = 0; k < 2 * W; ++k) sums[0][k] = sums[1][k] = 0;
    WG_UNROLL
    for (u32 i = 0; i < W; ++i) {
        WG_UNROLL
        for (u32 odd = 0; odd < 2; ++odd) {
            u32(&sum)[2 * W] = sums[odd];
            const u32 first = (i + odd) % 2;  // words j of a with i + j even, or odd
            WG_UNROLL
            for (u32 j = first; j < W; j += 2) {
                const u32 k = i + j - odd;
                sum[k] = j == first ? ptx_mad_lo_cc(a[j], b[i], sum[k]) : ptx_madc_lo_cc(a[j], b[i], sum[k]);
                sum[k + 1] = ptx_madc_hi_cc(a[j], b[i], sum[k + 1]);
            }
            if (first == 0 && i + W - odd < 2 * W) sum[i + W - odd] = ptx_addc(0, 0);
        }
    }
    merge_even_odd(r, sums[0], sums[1]);
}

// r = a * a: the products above the diagonal once, doubled, then the squares.
template <u32 N>
WG_FN void square_wide(u64 (&r)[2 * N], const u64 (&a_limbs)[N]) {
    constexpr u32 W = 2 * N;
    u32 a[W], sums[2][2 * W], t[2 * W];
    split_words(a, a_limbs);
    WG_UNROLL
    for (u32 k = 0; k < 2 * W; ++k) sums[0][k] = sums[1][k] = 0;
    WG_UNROLL
    for (u32 i = 0; i + 1 < W; ++i) {
        WG_UNROLL
        for (u32 step = 1; step <= 2; ++step) {  // j = i + 1, i + 3, ... lie at odd positions; i + 2, ... at even ones
            u32(&sum)[2 * W] = sums[step % 2];
            const u32 odd = step % 2;
            u32 end = 0;
            WG_UNROLL
            for (u32 j = i + step; j < W; j += 2) {
                const u32 k = i + j - odd;
                sum[k] = j == i + step ? ptx_mad_lo_cc(a[j], a[i], sum[k]) : ptx_madc_lo_cc(a[j], a[i], sum[k]);
                sum[k + 1] = ptx_madc_hi_cc(a[j], a[i], sum[k + 1]);
                end = k + 2;
            }
            if (end != 0 && end < 2 * W) sum[end] = ptx_addc(sum[end], 0);
        }
    }
    t[0] = 0;
    t[1] = sums[1][0];
    t[2] = ptx_add_cc(sums[0][2], sums[1][1]);
    WG_UNROLL
    for (u32 k = 3; k < 2 * W - 1; ++k) t[k] = ptx_addc_cc(sums[0][k], sums[1][k - 1]);
    t[2 * W - 1] = ptx_addc(sums[0][2 * W - 1], sums[1][2 * W - 2]);
    WG_UNROLL
    for (u32 k = 2 * W - 1; k > 0; --k) t[k] = t[k] << 1 | t[k - 1] >> 31;
    t[0] = ptx_mad_lo_cc(a[0], a[0], t[0]);
    t[1] = ptx_madc_hi_cc(a[0], a[0], t[1]);
    WG_UNROLL
    for (u32 i = 1; i < W; ++i) {
        t[2 * i] = ptx_madc_lo_cc(a[i], a[i], t[2 * i]);
        t[2 * i + 1] = ptx_madc_hi_cc(a[i], a[i], t[2 * i + 1]);
    }
    WG_UNROLL
    for (u32 i = 0; i < W; ++i) r[i] = static_cast<u64>(t[2 * i + 1]) << 32 | t[2 * i];
}

template <u32 LOW, u32 N>
WG_FN u64 add_multiple_33(u64 (&t)[N], const u64 (&a_limbs)[N]) {
    constexpr u32 W = 2 * N;
    u32 a[W], even[W + 2], odd[W + 2];
    split_words(a, a_limbs);
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) {
        even[2 * i] = static_cast<u32>(t[i]);
        even[2 * i + 1] = static_cast<u32>(t[i] >> 32);
        odd[2 * i] = a[2 * i];  // a * 2^32, one word lower
        odd[2 * i + 1] = a[2 * i + 1];
    }
    WG_UNROLL
    for (u32 j = 0; j < W; j += 2) {
        even[j] = j == 0 ? ptx_mad_lo_cc(a[j], LOW, even[j]) : ptx_madc_lo_cc(a[j], LOW, even[j]);
        even[j + 1] = ptx_madc_hi_cc(a[j], LOW, even[j + 1]);
    }
    even[W] = ptx_addc(0, 0);
    even[W + 1] = 0;
    WG_UNROLL
    for (u32 j = 0; j < W; j += 2) {
        odd[j] = j == 0 ? ptx_mad_lo_cc(a[j + 1], LOW, odd[j]) : ptx_madc_lo_cc(a[j + 1], LOW, odd[j]);
        odd[j + 1] = ptx_madc_hi_cc(a[j + 1], LOW, odd[j + 1]);
    }
    odd[W] = ptx_addc(0, 0);
    odd[W + 1] = 0;
    u64 sum[N + 1];
    merge_even_odd(sum, even, odd);
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) t[i] = sum[i];
    return sum[N];
}

}  // namespace warpgrid
