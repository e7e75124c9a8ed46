// limbs.hpp for x86-64 with the extensions BMI2 and ADX (2014 and later): mulx leaves the flags alone, adcx and adox
// carry two chains at once. g++ spends twice as many instructions on the same sums.
#pragma once

#include "core/native/platform.hpp"

namespace warpgrid {

template <u32 N>
WG_FN u64 add_limbs(u64 (&r)[N], const u64 (&a)[N], const u64 (&b)[N]) {
    static_assert(N == 4 || N == 6);
    u64 carry, t[N];
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) t[i] = a[i];
    if constexpr (N == 4) {
        asm("addq %[b0], %[t0]\n\t"
            "adcq %[b1], %[t1]\n\t"
            "adcq %[b2], %[t2]\n\t"
            "adcq %[b3], %[t3]\n\t"
            "sbbq %[carry], %[carry]"
            : [t0] "+&r"(t[0]), [t1] "+&r"(t[1]), [t2] "+&r"(t[2]), [t3] "+&r"(t[3]), [carry] "=r"(carry)
            : [b0] "rm"(b[0]), [b1] "rm"(b[1]), [b2] "rm"(b[2]), [b3] "rm"(b[3])
            : "cc");
    }
    if constexpr (N == 6) {
        asm("addq %[b0], %[t0]\n\t"
            "adcq %[b1], %[t1]\n\t"
            "adcq %[b2], %[t2]\n\t"
            "adcq %[b3], %[t3]\n\t"
            "adcq %[b4], %[t4]\n\t"
            "adcq %[b5], %[t5]\n\t"
            "sbbq %[carry], %[carry]"
            : [t0] "+&r"(t[0]), [t1] "+&r"(t[1]), [t2] "+&r"(t[2]), [t3] "+&r"(t[3]), [t4] "+&r"(t[4]),
              [t5] "+&r"(t[5]), [carry] "=r"(carry)
            : [b0] "rm"(b[0]), [b1] "rm"(b[1]), [b2] "rm"(b[2]), [b3] "rm"(b[3]), [b4] "rm"(b[4]), [b5] "rm"(b[5])
            : "cc");
    }
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) r[i] = t[i];
    return 0 - carry;
}

template <u32 N>
WG_FN u64 subtract_limbs(u64 (&r)[N], const u64 (&a)[N], const u64 (&b)[N]) {
    static_assert(N == 4 || N == 6);
    u64 carry, t[N];
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) t[i] = a[i];
    if constexpr (N == 4) {
        asm("subq %[b0], %[t0]\n\t"
            "sbbq %[b1], %[t1]\n\t"
            "sbbq %[b2], %[t2]\n\t"
            "sbbq %[b3], %[t3]\n\t"
            "sbbq %[carry], %[carry]"
            : [t0] "+&r"(t[0]), [t1] "+&r"(t[1]), [t2] "+&r"(t[2]), [t3] "+&r"(t[3]), [carry] "=r"(carry)
            : [b0] "rm"(b[0]), [b1] "rm"(b[1]), [b2] "rm"(b[2]), [b3] "rm"(b[3])
            : "cc");
    }
    if constexpr (N == 6) {
        asm("subq %[b0], %[t0]\n\t"
            "sbbq %[b1], %[t1]\n\t"
            "sbbq %[b2], %[t2]\n\t"
            "sbbq %[b3], %[t3]\n\t"
            "sbbq %[b4], %[t4]\n\t"
            "sbbq %[b5], %[t5]\n\t"
            "sbbq %[carry], %[carry]"
            : [t0] "+&r"(t[0]), [t1] "+&r"(t[1]), [t2] "+&r"(t[2]), [t3] "+&r"(t[3]), [t4] "+&r"(t[4]),
              [t5] "+&r"(t[5]), [carry] "=r"(carry)
            : [b0] "rm"(b[0]), [b1] "rm"(b[1]), [b2] "rm"(b[2]), [b3] "rm"(b[3]), [b4] "rm"(b[4]), [b5] "rm"(b[5])
            : "cc");
    }
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) r[i] = t[i];
    return 0 - carry;
}

// As limbs.hpp's, by conditional moves.
template <u32 N>
WG_FN void subtract_if_at_least_x86(u64 (&r)[N], const u64 (&a)[N], u64 carry, const u64 (&m)[N]) {
    static_assert(N == 4 || N == 6);
    u64 t[N];
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) t[i] = a[i];
    if constexpr (N == 4) {
        asm("subq %[m0], %[t0]\n\tsbbq %[m1], %[t1]\n\tsbbq %[m2], %[t2]\n\tsbbq %[m3], %[t3]\n\tsbbq $0, %[carry]\n\t"
            "cmovcq %[a0], %[t0]\n\tcmovcq %[a1], %[t1]\n\tcmovcq %[a2], %[t2]\n\tcmovcq %[a3], %[t3]"
            : [t0] "+&r"(t[0]), [t1] "+&r"(t[1]), [t2] "+&r"(t[2]), [t3] "+&r"(t[3]), [carry] "+&r"(carry)
            : [a0] "rm"(a[0]), [a1] "rm"(a[1]), [a2] "rm"(a[2]), [a3] "rm"(a[3]),
              [m0] "rm"(m[0]), [m1] "rm"(m[1]), [m2] "rm"(m[2]), [m3] "rm"(m[3])
            : "cc");
    }
    if constexpr (N == 6) {
        asm("subq %[m0], %[t0]\n\tsbbq %[m1], %[t1]\n\tsbbq %[m2], %[t2]\n\tsbbq %[m3], %[t3]\n\tsbbq %[m4], %[t4]\n\t"
            "sbbq %[m5], %[t5]\n\tsbbq $0, %[carry]\n\t"
            "cmovcq %[a0], %[t0]\n\tcmovcq %[a1], %[t1]\n\tcmovcq %[a2], %[t2]\n\tcmovcq %[a3], %[t3]\n\t"
            "cmovcq %[a4], %[t4]\n\tcmovcq %[a5], %[t5]"
            : [t0] "+&r"(t[0]), [t1] "+&r"(t[1]), [t2] "+&r"(t[2]), [t3] "+&r"(t[3]), [t4] "+&r"(t[4]),
              [t5] "+&r"(t[5]), [carry] "+&r"(carry)
            : [a0] "rm"(a[0]), [a1] "rm"(a[1]), [a2] "rm"(a[2]), [a3] "rm"(a[3]), [a4] "rm"(a[4]), [a5] "rm"(a[5]),
              [m0] "m"(m[0]), [m1] "m"(m[1]), [m2] "m"(m[2]), [m3] "m"(m[3]), [m4] "m"(m[4]), [m5] "m"(m[5])
            : "cc");
    }
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) r[i] = t[i];
}

template <u32 N>
WG_FN u64 add_multiple(u64 (&t)[N], const u64 (&a)[N], u64 b) {
    static_assert(N == 4 || N == 6);
    u64 carry, low, high;
    if constexpr (N == 4) {
        asm("xorl %k[carry], %k[carry]\n\t"
            "mulxq %[a0], %[low], %[high]\n\tadcxq %[low], %[t0]\n\tadoxq %[high], %[t1]\n\t"
            "mulxq %[a1], %[low], %[high]\n\tadcxq %[low], %[t1]\n\tadoxq %[high], %[t2]\n\t"
            "mulxq %[a2], %[low], %[high]\n\tadcxq %[low], %[t2]\n\tadoxq %[high], %[t3]\n\t"
            "mulxq %[a3], %[low], %[high]\n\tadcxq %[low], %[t3]\n\tadoxq %[high], %[carry]\n\t"
            "movl $0, %k[low]\n\tadcxq %[low], %[carry]"
            : [t0] "+&r"(t[0]), [t1] "+&r"(t[1]), [t2] "+&r"(t[2]), [t3] "+&r"(t[3]),
              [carry] "=&r"(carry), [low] "=&r"(low), [high] "=&r"(high)
            : [a0] "rm"(a[0]), [a1] "rm"(a[1]), [a2] "rm"(a[2]), [a3] "rm"(a[3]), "d"(b)
            : "cc");
    }
    if constexpr (N == 6) {
        asm("xorl %k[carry], %k[carry]\n\t"
            "mulxq 0(%[a]), %[low], %[high]\n\tadcxq %[low], %[t0]\n\tadoxq %[high], %[t1]\n\t"
            "mulxq 8(%[a]), %[low], %[high]\n\tadcxq %[low], %[t1]\n\tadoxq %[high], %[t2]\n\t"
            "mulxq 16(%[a]), %[low], %[high]\n\tadcxq %[low], %[t2]\n\tadoxq %[high], %[t3]\n\t"
            "mulxq 24(%[a]), %[low], %[high]\n\tadcxq %[low], %[t3]\n\tadoxq %[high], %[t4]\n\t"
            "mulxq 32(%[a]), %[low], %[high]\n\tadcxq %[low], %[t4]\n\tadoxq %[high], %[t5]\n\t"
            "mulxq 40(%[a]), %[low], %[high]\n\tadcxq %[low], %[t5]\n\tadoxq %[high], %[carry]\n\t"
            "movl $0, %k[low]\n\tadcxq %[low], %[carry]"
            : [t0] "+&r"(t[0]), [t1] "+&r"(t[1]), [t2] "+&r"(t[2]), [t3] "+&r"(t[3]), [t4] "+&r"(t[4]),
              [t5] "+&r"(t[5]), [carry] "=&r"(carry), [low] "=&r"(low), [high] "=&r"(high)
            : [a] "r"(&a), "m"(a), "d"(b)
            : "cc");
    }
    return carry;
}

template <u32 LOW, u32 N>
WG_FN u64 add_multiple_33(u64 (&t)[N], const u64 (&a)[N]) {
    return add_multiple(t, a, 0x100000000ull + LOW);
}

template <u32 N>
WG_FN void multiply_wide(u64 (&r)[2 * N], const u64 (&a)[N], const u64 (&b)[N]) {
    u64 t[N] = {};
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) {
        const u64 top = add_multiple(t, a, b[i]);
        r[i] = t[0];
        WG_UNROLL
        for (u32 j = 0; j + 1 < N; ++j) t[j] = t[j + 1];
        t[N - 1] = top;
    }
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) r[N + i] = t[i];
}

// ---- Montgomery rows: sums of products whose modulus leaves the top two bits of N limbs free -----------------------

// Adds limb x of a, times rdx, to (t, u): the low half by the flag O, the high half by C.
#define WG_ADD_PRODUCT(x, t, u) \
    "mulxq %[a" #x "], %[low], %[high]\n\tadoxq %[low], %[" #t "]\n\tadcxq %[high], %[" #u "]\n\t"
// Adds limb x of the modulus, times rdx, to t, which moves one limb down.
#define WG_CANCEL_PRODUCT(x, below, t) \
    "adcxq %[" #t "], %[" #below "]\n\tmulxq %[m" #x "], %[low], %[" #t "]\n\tadoxq %[low], %[" #below "]\n\t"
// rdx = the multiple of the modulus that makes t0 zero; begins to add it.
#define WG_CANCEL_BEGIN                                                                             \
    "movabsq %[inverse], %%rdx\n\timulq %[t0], %%rdx\n\txorl %k[low], %k[low]\n\t"                  \
    "mulxq %[m0], %[low], %[high]\n\tadcxq %[t0], %[low]\n\tmovq %[high], %[t0]\n\t"

// (t, top) += a * b. The sum needs no more than N + 1 limbs.
template <u32 N>
WG_FN void montgomery_add(u64 (&t)[N], u64& top, const u64 (&a)[N], u64 b) {
    static_assert(N == 4 || N == 6);
    u64 low, high;
    if constexpr (N == 4) {
        asm("xorl %k[low], %k[low]\n\t"
            WG_ADD_PRODUCT(0, t0, t1) WG_ADD_PRODUCT(1, t1, t2) WG_ADD_PRODUCT(2, t2, t3) WG_ADD_PRODUCT(3, t3, top)
            "movl $0, %k[low]\n\tadoxq %[low], %[top]"
            : [t0] "+&r"(t[0]), [t1] "+&r"(t[1]), [t2] "+&r"(t[2]), [t3] "+&r"(t[3]), [top] "+&r"(top),
              [low] "=&r"(low), [high] "=&r"(high)
            : [a0] "m"(a[0]), [a1] "m"(a[1]), [a2] "m"(a[2]), [a3] "m"(a[3]), "d"(b)
            : "cc");
    }
    if constexpr (N == 6) {
        asm("xorl %k[low], %k[low]\n\t"
            WG_ADD_PRODUCT(0, t0, t1) WG_ADD_PRODUCT(1, t1, t2) WG_ADD_PRODUCT(2, t2, t3)
            WG_ADD_PRODUCT(3, t3, t4) WG_ADD_PRODUCT(4, t4, t5) WG_ADD_PRODUCT(5, t5, top)
            "movl $0, %k[low]\n\tadoxq %[low], %[top]"
            : [t0] "+&r"(t[0]), [t1] "+&r"(t[1]), [t2] "+&r"(t[2]), [t3] "+&r"(t[3]), [t4] "+&r"(t[4]),
              [t5] "+&r"(t[5]), [top] "+&r"(top), [low] "=&r"(low), [high] "=&r"(high)
            : [a0] "m"(a[0]), [a1] "m"(a[1]), [a2] "m"(a[2]), [a3] "m"(a[3]), [a4] "m"(a[4]), [a5] "m"(a[5]), "d"(b)
            : "cc");
    }
}

// t = ((t, top) + k * m) / 2^64 with the k that makes it whole; `INVERSE` is -1 / m modulo 2^64. It fits into N limbs.
template <u64 INVERSE, u32 N>
WG_FN void montgomery_cancel(u64 (&t)[N], u64 top, const u64 (&m)[N]) {
    static_assert(N == 4 || N == 6);
    u64 low, high;
    if constexpr (N == 4) {
        asm(WG_CANCEL_BEGIN
            WG_CANCEL_PRODUCT(1, t0, t1) WG_CANCEL_PRODUCT(2, t1, t2) WG_CANCEL_PRODUCT(3, t2, t3)
            "movl $0, %k[low]\n\tadcxq %[low], %[t3]\n\tadoxq %[top], %[t3]"
            : [t0] "+&r"(t[0]), [t1] "+&r"(t[1]), [t2] "+&r"(t[2]), [t3] "+&r"(t[3]), [low] "=&r"(low),
              [high] "=&r"(high)
            : [m0] "m"(m[0]), [m1] "m"(m[1]), [m2] "m"(m[2]), [m3] "m"(m[3]), [top] "r"(top), [inverse] "i"(INVERSE)
            : "cc", "rdx");
    }
    if constexpr (N == 6) {
        asm(WG_CANCEL_BEGIN
            WG_CANCEL_PRODUCT(1, t0, t1) WG_CANCEL_PRODUCT(2, t1, t2) WG_CANCEL_PRODUCT(3, t2, t3)
            WG_CANCEL_PRODUCT(4, t3, t4) WG_CANCEL_PRODUCT(5, t4, t5)
            "movl $0, %k[low]\n\tadcxq %[low], %[t5]\n\tadoxq %[top], %[t5]"
            : [t0] "+&r"(t[0]), [t1] "+&r"(t[1]), [t2] "+&r"(t[2]), [t3] "+&r"(t[3]), [t4] "+&r"(t[4]),
              [t5] "+&r"(t[5]), [low] "=&r"(low), [high] "=&r"(high)
            : [m0] "m"(m[0]), [m1] "m"(m[1]), [m2] "m"(m[2]), [m3] "m"(m[3]), [m4] "m"(m[4]), [m5] "m"(m[5]),
              [top] "r"(top), [inverse] "i"(INVERSE)
            : "cc", "rdx");
    }
}
#undef WG_ADD_PRODUCT
#undef WG_CANCEL_PRODUCT
#undef WG_CANCEL_BEGIN

// Each product of two different limbs once, then all of them doubled while the squares are added.
WG_FN void square_wide_4(u64 (&r)[8], const u64 (&a)[4]) {
    u64 r0, r1, r2, r3, r4, r5, r6, r7, low, high;
    asm("movq %[a0], %%rdx\n\t"
        "mulxq %[a1], %[r1], %[r2]\n\t"
        "mulxq %[a2], %[low], %[r3]\n\taddq %[low], %[r2]\n\t"
        "mulxq %[a3], %[low], %[r4]\n\tadcq %[low], %[r3]\n\tadcq $0, %[r4]\n\t"
        "movq %[a1], %%rdx\n\txorl %k[r6], %k[r6]\n\t"
        "mulxq %[a2], %[low], %[high]\n\tadcxq %[low], %[r3]\n\tadoxq %[high], %[r4]\n\t"
        "mulxq %[a3], %[low], %[r5]\n\tadcxq %[low], %[r4]\n\tadoxq %[r6], %[r5]\n\tadcxq %[r6], %[r5]\n\t"
        "movq %[a2], %%rdx\n\t"
        "mulxq %[a3], %[low], %[r6]\n\taddq %[low], %[r5]\n\tadcq $0, %[r6]\n\t"
        "movq %[a0], %%rdx\n\txorl %k[r7], %k[r7]\n\t"
        "mulxq %%rdx, %[r0], %[high]\n\tadcxq %[r1], %[r1]\n\tadoxq %[high], %[r1]\n\tmovq %[a1], %%rdx\n\t"
        "mulxq %%rdx, %[low], %[high]\n\tadcxq %[r2], %[r2]\n\tadoxq %[low], %[r2]\n\t"
        "adcxq %[r3], %[r3]\n\tadoxq %[high], %[r3]\n\tmovq %[a2], %%rdx\n\t"
        "mulxq %%rdx, %[low], %[high]\n\tadcxq %[r4], %[r4]\n\tadoxq %[low], %[r4]\n\t"
        "adcxq %[r5], %[r5]\n\tadoxq %[high], %[r5]\n\tmovq %[a3], %%rdx\n\t"
        "mulxq %%rdx, %[low], %[high]\n\tadcxq %[r6], %[r6]\n\tadoxq %[low], %[r6]\n\t"
        "adcxq %[r7], %[r7]\n\tadoxq %[high], %[r7]"
        : [r0] "=&r"(r0), [r1] "=&r"(r1), [r2] "=&r"(r2), [r3] "=&r"(r3), [r4] "=&r"(r4), [r5] "=&r"(r5),
          [r6] "=&r"(r6), [r7] "=&r"(r7), [low] "=&r"(low), [high] "=&r"(high)
        : [a0] "rm"(a[0]), [a1] "rm"(a[1]), [a2] "rm"(a[2]), [a3] "rm"(a[3])
        : "cc", "rdx");
    const u64 all[8] = {r0, r1, r2, r3, r4, r5, r6, r7};
    WG_UNROLL
    for (u32 i = 0; i < 8; ++i) r[i] = all[i];
}

template <u32 N>
WG_FN void square_wide(u64 (&r)[2 * N], const u64 (&a)[N]) {
    if constexpr (N == 4) return square_wide_4(r, a);
    multiply_wide(r, a, a);
}

}  // namespace warpgrid
