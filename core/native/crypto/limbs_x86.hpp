// limbs.hpp for x86-64 with the extensions BMI2 and ADX (2014 and later): mulx leaves the flags alone, adcx and adox carry
// two chains at once. g++ spends twice as many instructions on the same sums.
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
            : [t0] "+&r"(t[0]), [t1] "+&r"(t[1]), [t2] "+&r"(t[2]), [t3] "+&r"(t[3]), [t4] "+&r"(t[4]), [t5] "+&r"(t[5]), [carry] "=r"(carry)
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
            : [t0] "+&r"(t[0]), [t1] "+&r"(t[1]), [t2] "+&r"(t[2]), [t3] "+&r"(t[3]), [t4] "+&r"(t[4]), [t5] "+&r"(t[5]), [carry] "=r"(carry)
            : [b0] "rm"(b[0]), [b1] "rm"(b[1]), [b2] "rm"(b[2]), [b3] "rm"(b[3]), [b4] "rm"(b[4]), [b5] "rm"(b[5])
            : "cc");
    }
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) r[i] = t[i];
    return 0 - carry;
}

template <u32 N>
WG_FN u64 add_multiple(u64 (&t)[N], const u64 (&a)[N], u64 b) {
    static_assert(N == 4 || N == 6);
    u64 carry, low, high;
    if constexpr (N == 4) {
        asm("xorl %k[carry], %k[carry]\n\t"
            "mulxq 0(%[a]), %[low], %[high]\n\tadcxq %[low], %[t0]\n\tadoxq %[high], %[t1]\n\t"
            "mulxq 8(%[a]), %[low], %[high]\n\tadcxq %[low], %[t1]\n\tadoxq %[high], %[t2]\n\t"
            "mulxq 16(%[a]), %[low], %[high]\n\tadcxq %[low], %[t2]\n\tadoxq %[high], %[t3]\n\t"
            "mulxq 24(%[a]), %[low], %[high]\n\tadcxq %[low], %[t3]\n\tadoxq %[high], %[carry]\n\t"
            "movl $0, %k[low]\n\tadcxq %[low], %[carry]"
            : [t0] "+&r"(t[0]), [t1] "+&r"(t[1]), [t2] "+&r"(t[2]), [t3] "+&r"(t[3]),
              [carry] "=&r"(carry), [low] "=&r"(low), [high] "=&r"(high)
            : [a] "r"(&a), "m"(a), "d"(b)
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
            : [t0] "+&r"(t[0]), [t1] "+&r"(t[1]), [t2] "+&r"(t[2]), [t3] "+&r"(t[3]), [t4] "+&r"(t[4]), [t5] "+&r"(t[5]),
              [carry] "=&r"(carry), [low] "=&r"(low), [high] "=&r"(high)
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

template <u32 N>
WG_FN void square_wide(u64 (&r)[2 * N], const u64 (&a)[N]) {
    multiply_wide(r, a, a);
}

}  // namespace warpgrid
