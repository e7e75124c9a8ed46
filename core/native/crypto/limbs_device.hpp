// limbs.hpp for a GPU: 32-bit words, the carry flag, and products that fuse into IMAD.WIDE.
//
// Each carry chain is one asm statement. Split over statements it is wrong: the compiler puts its own 128-bit
// additions, which use the same flag, between them (seen with nvcc 13.0 as a carry lost once in 500 products).
#pragma once

#include "core/native/platform.hpp"

namespace warpgrid {

template <u32 N>
WG_FN u64 add_limbs(u64 (&r)[N], const u64 (&a)[N], const u64 (&b)[N]) {
    static_assert(N == 4 || N == 5 || N == 8);
    u64 t[N], carry;
    if constexpr (N == 4) {
        asm("add.cc.u64 %0, %5, %9;\n\t"
            "addc.cc.u64 %1, %6, %10;\n\t"
            "addc.cc.u64 %2, %7, %11;\n\t"
            "addc.cc.u64 %3, %8, %12;\n\t"
            "addc.u64 %4, 0, 0;"
            : "=l"(t[0]), "=l"(t[1]), "=l"(t[2]), "=l"(t[3]), "=l"(carry)
            : "l"(a[0]), "l"(a[1]), "l"(a[2]), "l"(a[3]), "l"(b[0]), "l"(b[1]), "l"(b[2]), "l"(b[3]));
    }
    if constexpr (N == 5) {
        asm("add.cc.u64 %0, %6, %11;\n\t"
            "addc.cc.u64 %1, %7, %12;\n\t"
            "addc.cc.u64 %2, %8, %13;\n\t"
            "addc.cc.u64 %3, %9, %14;\n\t"
            "addc.cc.u64 %4, %10, %15;\n\t"
            "addc.u64 %5, 0, 0;"
            : "=l"(t[0]), "=l"(t[1]), "=l"(t[2]), "=l"(t[3]), "=l"(t[4]), "=l"(carry)
            : "l"(a[0]), "l"(a[1]), "l"(a[2]), "l"(a[3]), "l"(a[4]), "l"(b[0]), "l"(b[1]), "l"(b[2]),
              "l"(b[3]), "l"(b[4]));
    }
    if constexpr (N == 8) {
        asm("add.cc.u64 %0, %9, %17;\n\t"
            "addc.cc.u64 %1, %10, %18;\n\t"
            "addc.cc.u64 %2, %11, %19;\n\t"
            "addc.cc.u64 %3, %12, %20;\n\t"
            "addc.cc.u64 %4, %13, %21;\n\t"
            "addc.cc.u64 %5, %14, %22;\n\t"
            "addc.cc.u64 %6, %15, %23;\n\t"
            "addc.cc.u64 %7, %16, %24;\n\t"
            "addc.u64 %8, 0, 0;"
            : "=l"(t[0]), "=l"(t[1]), "=l"(t[2]), "=l"(t[3]), "=l"(t[4]), "=l"(t[5]), "=l"(t[6]),
              "=l"(t[7]), "=l"(carry)
            : "l"(a[0]), "l"(a[1]), "l"(a[2]), "l"(a[3]), "l"(a[4]), "l"(a[5]), "l"(a[6]), "l"(a[7]),
              "l"(b[0]), "l"(b[1]), "l"(b[2]), "l"(b[3]), "l"(b[4]), "l"(b[5]), "l"(b[6]), "l"(b[7]));
    }
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) r[i] = t[i];
    return carry;
}

template <u32 N>
WG_FN u64 subtract_limbs(u64 (&r)[N], const u64 (&a)[N], const u64 (&b)[N]) {
    static_assert(N == 4 || N == 5 || N == 8);
    u64 t[N], carry;
    if constexpr (N == 4) {
        asm("sub.cc.u64 %0, %5, %9;\n\t"
            "subc.cc.u64 %1, %6, %10;\n\t"
            "subc.cc.u64 %2, %7, %11;\n\t"
            "subc.cc.u64 %3, %8, %12;\n\t"
            "subc.u64 %4, 0, 0;"
            : "=l"(t[0]), "=l"(t[1]), "=l"(t[2]), "=l"(t[3]), "=l"(carry)
            : "l"(a[0]), "l"(a[1]), "l"(a[2]), "l"(a[3]), "l"(b[0]), "l"(b[1]), "l"(b[2]), "l"(b[3]));
    }
    if constexpr (N == 5) {
        asm("sub.cc.u64 %0, %6, %11;\n\t"
            "subc.cc.u64 %1, %7, %12;\n\t"
            "subc.cc.u64 %2, %8, %13;\n\t"
            "subc.cc.u64 %3, %9, %14;\n\t"
            "subc.cc.u64 %4, %10, %15;\n\t"
            "subc.u64 %5, 0, 0;"
            : "=l"(t[0]), "=l"(t[1]), "=l"(t[2]), "=l"(t[3]), "=l"(t[4]), "=l"(carry)
            : "l"(a[0]), "l"(a[1]), "l"(a[2]), "l"(a[3]), "l"(a[4]), "l"(b[0]), "l"(b[1]), "l"(b[2]),
              "l"(b[3]), "l"(b[4]));
    }
    if constexpr (N == 8) {
        asm("sub.cc.u64 %0, %9, %17;\n\t"
            "subc.cc.u64 %1, %10, %18;\n\t"
            "subc.cc.u64 %2, %11, %19;\n\t"
            "subc.cc.u64 %3, %12, %20;\n\t"
            "subc.cc.u64 %4, %13, %21;\n\t"
            "subc.cc.u64 %5, %14, %22;\n\t"
            "subc.cc.u64 %6, %15, %23;\n\t"
            "subc.cc.u64 %7, %16, %24;\n\t"
            "subc.u64 %8, 0, 0;"
            : "=l"(t[0]), "=l"(t[1]), "=l"(t[2]), "=l"(t[3]), "=l"(t[4]), "=l"(t[5]), "=l"(t[6]),
              "=l"(t[7]), "=l"(carry)
            : "l"(a[0]), "l"(a[1]), "l"(a[2]), "l"(a[3]), "l"(a[4]), "l"(a[5]), "l"(a[6]), "l"(a[7]),
              "l"(b[0]), "l"(b[1]), "l"(b[2]), "l"(b[3]), "l"(b[4]), "l"(b[5]), "l"(b[6]), "l"(b[7]));
    }
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) r[i] = t[i];
    return carry & 1;
}

// s[0..2 PAIRS) += the products of b with a[0], a[2], ...; returns the carry out of s.
template <u32 PAIRS>
WG_FN u32 add_products(u32* s, const u32* a, u32 b) {
    static_assert(PAIRS >= 1 && PAIRS <= 4);
    u32 carry;
    if constexpr (PAIRS == 1) {
        asm("mad.lo.cc.u32 %0, %3, %4, %0;\n\t"
            "madc.hi.cc.u32 %1, %3, %4, %1;\n\t"
            "addc.u32 %2, 0, 0;"
            : "+r"(s[0]), "+r"(s[1]), "=r"(carry)
            : "r"(a[0]), "r"(b));
    }
    if constexpr (PAIRS == 2) {
        asm("mad.lo.cc.u32 %0, %5, %7, %0;\n\t"
            "madc.hi.cc.u32 %1, %5, %7, %1;\n\t"
            "madc.lo.cc.u32 %2, %6, %7, %2;\n\t"
            "madc.hi.cc.u32 %3, %6, %7, %3;\n\t"
            "addc.u32 %4, 0, 0;"
            : "+r"(s[0]), "+r"(s[1]), "+r"(s[2]), "+r"(s[3]), "=r"(carry)
            : "r"(a[0]), "r"(a[2]), "r"(b));
    }
    if constexpr (PAIRS == 3) {
        asm("mad.lo.cc.u32 %0, %7, %10, %0;\n\t"
            "madc.hi.cc.u32 %1, %7, %10, %1;\n\t"
            "madc.lo.cc.u32 %2, %8, %10, %2;\n\t"
            "madc.hi.cc.u32 %3, %8, %10, %3;\n\t"
            "madc.lo.cc.u32 %4, %9, %10, %4;\n\t"
            "madc.hi.cc.u32 %5, %9, %10, %5;\n\t"
            "addc.u32 %6, 0, 0;"
            : "+r"(s[0]), "+r"(s[1]), "+r"(s[2]), "+r"(s[3]), "+r"(s[4]), "+r"(s[5]), "=r"(carry)
            : "r"(a[0]), "r"(a[2]), "r"(a[4]), "r"(b));
    }
    if constexpr (PAIRS == 4) {
        asm("mad.lo.cc.u32 %0, %9, %13, %0;\n\t"
            "madc.hi.cc.u32 %1, %9, %13, %1;\n\t"
            "madc.lo.cc.u32 %2, %10, %13, %2;\n\t"
            "madc.hi.cc.u32 %3, %10, %13, %3;\n\t"
            "madc.lo.cc.u32 %4, %11, %13, %4;\n\t"
            "madc.hi.cc.u32 %5, %11, %13, %5;\n\t"
            "madc.lo.cc.u32 %6, %12, %13, %6;\n\t"
            "madc.hi.cc.u32 %7, %12, %13, %7;\n\t"
            "addc.u32 %8, 0, 0;"
            : "+r"(s[0]), "+r"(s[1]), "+r"(s[2]), "+r"(s[3]), "+r"(s[4]), "+r"(s[5]), "+r"(s[6]), "+r"(s[7]),
              "=r"(carry)
            : "r"(a[0]), "r"(a[2]), "r"(a[4]), "r"(a[6]), "r"(b));
    }
    return carry;
}

template <u32 N>
WG_FN u64 add_multiple(u64 (&t)[N], const u64 (&a)[N], u64 b) {
    u64 carry = 0;
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) t[i] = multiply_add(a[i], b, t[i], carry);
    return carry;
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
template <u32 N>
WG_FN void merge_even_odd(u64 (&limbs)[N], const u32 (&even)[2 * N], const u32 (&odd)[2 * N]) {
    u64 low[N], high[N];
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) {
        low[i] = static_cast<u64>(even[2 * i + 1]) << 32 | even[2 * i];
        high[i] = static_cast<u64>(odd[2 * i]) << 32 | (i > 0 ? odd[2 * i - 1] : 0);
    }
    add_limbs(limbs, low, high);
}

template <u32 N>
WG_FN void multiply_wide(u64 (&r)[2 * N], const u64 (&a_limbs)[N], const u64 (&b_limbs)[N]) {
    constexpr u32 W = 2 * N;
    u32 a[W], b[W], even[2 * W], odd[2 * W];
    split_words(a, a_limbs);
    split_words(b, b_limbs);
    WG_UNROLL
    for (u32 k = 0; k < 2 * W; ++k) even[k] = odd[k] = 0;
    WG_UNROLL
    for (u32 i = 0; i < W; i += 2) {
        // Words of a with the parity of the position; the carries land in words that are still 0, or out of an odd row,
        // whose top word cannot overflow.
        even[i + W] = add_products<N>(even + i, a, b[i]);
        add_products<N>(odd + i, a + 1, b[i]);
        odd[i + W] = add_products<N>(odd + i, a, b[i + 1]);
        add_products<N>(even + i + 2, a + 1, b[i + 1]);
    }
    merge_even_odd(r, even, odd);
}

// Row I of a square: the products of a[I] with the words above it, to their places, and their carries.
template <u32 I, u32 N>
WG_FN void add_square_row(u32 (&even)[4 * N], u32 (&odd)[4 * N], const u32 (&a)[2 * N]) {
    constexpr u32 W = 2 * N, ODD_PAIRS = (W - I) / 2, EVEN_PAIRS = (W - I - 1) / 2;
    if constexpr (ODD_PAIRS > 0) {
        const u32 carry = add_products<ODD_PAIRS>(odd + 2 * I, a + I + 1, a[I]);
        if constexpr (2 * I + 2 * ODD_PAIRS < 2 * W) odd[2 * I + 2 * ODD_PAIRS] += carry;
    }
    if constexpr (EVEN_PAIRS > 0) {
        const u32 carry = add_products<EVEN_PAIRS>(even + 2 * I + 2, a + I + 2, a[I]);
        if constexpr (2 * I + 2 + 2 * EVEN_PAIRS < 2 * W) even[2 * I + 2 + 2 * EVEN_PAIRS] += carry;
    }
    if constexpr (I + 2 < W) add_square_row<I + 1, N>(even, odd, a);
}

// s += the squares of the words of a, each at twice its place.
WG_FN void add_squares(u32 (&s)[16], const u32 (&a)[8]) {
    asm("mad.lo.cc.u32 %0, %16, %16, %0;\n\t"
        "madc.hi.cc.u32 %1, %16, %16, %1;\n\t"
        "madc.lo.cc.u32 %2, %17, %17, %2;\n\t"
        "madc.hi.cc.u32 %3, %17, %17, %3;\n\t"
        "madc.lo.cc.u32 %4, %18, %18, %4;\n\t"
        "madc.hi.cc.u32 %5, %18, %18, %5;\n\t"
        "madc.lo.cc.u32 %6, %19, %19, %6;\n\t"
        "madc.hi.cc.u32 %7, %19, %19, %7;\n\t"
        "madc.lo.cc.u32 %8, %20, %20, %8;\n\t"
        "madc.hi.cc.u32 %9, %20, %20, %9;\n\t"
        "madc.lo.cc.u32 %10, %21, %21, %10;\n\t"
        "madc.hi.cc.u32 %11, %21, %21, %11;\n\t"
        "madc.lo.cc.u32 %12, %22, %22, %12;\n\t"
        "madc.hi.cc.u32 %13, %22, %22, %13;\n\t"
        "madc.lo.cc.u32 %14, %23, %23, %14;\n\t"
        "madc.hi.u32 %15, %23, %23, %15;"
        : "+r"(s[0]), "+r"(s[1]), "+r"(s[2]), "+r"(s[3]), "+r"(s[4]), "+r"(s[5]), "+r"(s[6]),
          "+r"(s[7]), "+r"(s[8]), "+r"(s[9]), "+r"(s[10]), "+r"(s[11]), "+r"(s[12]), "+r"(s[13]),
          "+r"(s[14]), "+r"(s[15])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]), "r"(a[6]), "r"(a[7]));
}

// The products above the diagonal once, doubled, then the squares.
template <u32 N>
WG_FN void square_wide(u64 (&r)[2 * N], const u64 (&a_limbs)[N]) {
    constexpr u32 W = 2 * N;
    u32 a[W], even[2 * W], odd[2 * W];
    split_words(a, a_limbs);
    WG_UNROLL
    for (u32 k = 0; k < 2 * W; ++k) even[k] = odd[k] = 0;
    add_square_row<0, N>(even, odd, a);
    u64 t[2 * N];
    merge_even_odd(t, even, odd);
    WG_UNROLL
    for (u32 i = 2 * N - 1; i > 0; --i) t[i] = t[i] << 1 | t[i - 1] >> 63;
    t[0] <<= 1;
    u32 words[2 * W];
    split_words(words, t);
    add_squares(words, a);
    WG_UNROLL
    for (u32 i = 0; i < 2 * N; ++i) r[i] = static_cast<u64>(words[2 * i + 1]) << 32 | words[2 * i];
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
    even[W] = add_products<N>(even, a, LOW);
    odd[W] = add_products<N>(odd, a + 1, LOW);
    even[W + 1] = odd[W + 1] = 0;
    u64 sum[N + 1];
    merge_even_odd(sum, even, odd);
    WG_UNROLL
    for (u32 i = 0; i < N; ++i) t[i] = sum[i];
    return sum[N];
}

}  // namespace warpgrid
