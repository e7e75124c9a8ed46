// libFuzzer target: modular exponentiation against the school's method, bit by bit. The first
// three bytes are the lengths.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "core/native/crypto/modexp.hpp"

using namespace warpgrid;

namespace {

constexpr u64 BASE_BYTES_MAX = 80, EXPONENT_BYTES_MAX = 5, MODULUS_BYTES_MAX = 80;

using Number = std::vector<u8>;  // big-endian; always as long as the modulus, and below it

bool below(const Number& a, const Number& b) { return std::memcmp(a.data(), b.data(), a.size()) < 0; }

// 2 a + bit, less the modulus where that is not above it.
Number doubled(const Number& a, u32 bit, const Number& modulus) {
    Number twice(a.size());
    u32 carry = bit;
    for (u64 i = a.size(); i-- > 0;) {
        carry |= static_cast<u32>(a[i]) << 1;
        twice[i] = static_cast<u8>(carry);
        carry >>= 8;
    }
    if (!carry && below(twice, modulus)) return twice;
    i32 borrow = 0;
    for (u64 i = a.size(); i-- > 0;) {
        borrow += static_cast<i32>(twice[i]) - modulus[i];
        twice[i] = static_cast<u8>(borrow);
        borrow >>= 8;
    }
    return twice;
}

Number sum(const Number& a, const Number& b, const Number& modulus) {
    Number total(a.size());
    u32 carry = 0;
    for (u64 i = a.size(); i-- > 0;) {
        carry += static_cast<u32>(a[i]) + b[i];
        total[i] = static_cast<u8>(carry);
        carry >>= 8;
    }
    if (!carry && below(total, modulus)) return total;
    i32 borrow = 0;
    for (u64 i = a.size(); i-- > 0;) {
        borrow += static_cast<i32>(total[i]) - modulus[i];
        total[i] = static_cast<u8>(borrow);
        borrow >>= 8;
    }
    return total;
}

u32 bit_of(const u8* bytes, u64 i) { return bytes[i / 8] >> (7 - i % 8) & 1; }

Number product(const Number& a, const Number& b, const Number& modulus) {
    Number total(a.size());
    for (u64 i = 0; i < 8 * a.size(); ++i) {
        total = doubled(total, 0, modulus);
        if (bit_of(a.data(), i)) total = sum(total, b, modulus);
    }
    return total;
}

Number expected(const u8* base, u64 base_bytes, const u8* exponent, u64 exponent_bytes, const Number& modulus) {
    Number result(modulus.size());
    if (Number(modulus.size()) == modulus) return result;  // EIP-198: zero
    Number reduced(modulus.size());
    for (u64 i = 0; i < 8 * base_bytes; ++i) reduced = doubled(reduced, bit_of(base, i), modulus);
    result = doubled(result, 1, modulus);  // 1, or 0 where the modulus is 1
    for (u64 i = 0; i < 8 * exponent_bytes; ++i) {
        result = product(result, result, modulus);
        if (bit_of(exponent, i)) result = product(result, reduced, modulus);
    }
    return result;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 3) return 0;
    const u64 lengths[3] = {data[0] % (BASE_BYTES_MAX + 1), data[1] % (EXPONENT_BYTES_MAX + 1),
                            data[2] % (MODULUS_BYTES_MAX + 1)};
    const u64 body = lengths[0] + lengths[1] + lengths[2];
    std::vector<u8> input(96 + body);
    for (u32 i = 0; i < 3; ++i) input[32 * i + 31] = static_cast<u8>(lengths[i]);
    const u64 given = size - 3 < body ? size - 3 : body;
    std::memcpy(input.data() + 96, data + 3, given);
    std::vector<u64> scratch(modexp_scratch_words(input.data(), input.size()) + 1);
    std::vector<u8> output(lengths[2] + 1);
    modexp(output.data(), input.data(), input.size(), scratch.data());
    const u8* base = input.data() + 96;
    const u8* modulus = base + lengths[0] + lengths[1];
    const Number right =
        expected(base, lengths[0], base + lengths[0], lengths[1], Number(modulus, modulus + lengths[2]));
    if (std::memcmp(right.data(), output.data(), lengths[2]) != 0) abort();
    return 0;
}
