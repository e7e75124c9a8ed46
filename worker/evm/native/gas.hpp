// What things cost beyond the constants of opcodes.def. Sources: Yellow Paper appendix G and the EIPs named.
#pragma once

#include "core/native/u256.hpp"

namespace warpgrid::evm {

constexpr u64 GAS_TRANSACTION = 21000;
constexpr u64 GAS_TRANSACTION_CREATE = 32000;
constexpr u64 GAS_CALLDATA_TOKEN = 4;         // a zero byte is one token, another byte four
constexpr u64 GAS_CALLDATA_TOKEN_FLOOR = 10;  // EIP-7623
constexpr u64 GAS_ACCESS_LIST_ADDRESS = 2400;
constexpr u64 GAS_ACCESS_LIST_KEY = 1900;
constexpr u64 GAS_AUTHORIZATION = 25000;       // EIP-7702
constexpr u64 GAS_AUTHORIZATION_REFUND = 12500;
constexpr u64 GAS_LIMIT_MAX = 1ull << 24;      // EIP-7825

constexpr u64 GAS_WARM = 100;  // EIP-2929
constexpr u64 GAS_COLD_ACCOUNT = 2600;
constexpr u64 GAS_COLD_SLOT = 2100;
constexpr u64 GAS_STORAGE_SET = 20000;
constexpr u64 GAS_STORAGE_UPDATE = 5000 - GAS_COLD_SLOT;
constexpr u64 GAS_STORAGE_CLEAR_REFUND = 4800;  // EIP-3529
constexpr u64 GAS_STIPEND = 2300;
constexpr u64 GAS_CALL_VALUE = 9000;
constexpr u64 GAS_NEW_ACCOUNT = 25000;
constexpr u64 GAS_CODE_BYTE = 200;
constexpr u64 GAS_INITCODE_WORD = 2;  // EIP-3860
constexpr u64 GAS_KECCAK_WORD = 6;
constexpr u64 GAS_COPY_WORD = 3;
constexpr u64 GAS_LOG_BYTE = 8;
constexpr u64 GAS_EXPONENT_BYTE = 50;
constexpr u64 GAS_PER_BLOB = 1ull << 17;  // EIP-4844

constexpr u32 CODE_SIZE_MAX = 24576;               // EIP-170
constexpr u32 INITCODE_SIZE_MAX = 2 * CODE_SIZE_MAX;
constexpr u32 CALL_DEPTH_MAX = 1024;
constexpr u32 BLOBS_PER_TRANSACTION_MAX = 6;       // EIP-7594, Osaka

// Memory that ends beyond this is out of gas at once: it would cost 2^53 gas, far above any block's limit.
constexpr u64 MEMORY_BYTES_UNPAYABLE = 1ull << 36;

WG_FN u64 words_of(u64 bytes) { return (bytes + 31) / 32; }

WG_FN u64 memory_gas(u64 words) { return 3 * words + words * words / 512; }

WG_FN u64 bytes_of_exponent(const u256& exponent) { return (256 - count_leading_zeros(exponent) + 7) / 8; }

struct StorageCharge {
    u64 gas;
    i64 refund;
};

// SSTORE beyond the cold access (EIP-2200, EIP-2929, EIP-3529).
WG_FN StorageCharge storage_charge(const u256& original, const u256& current, const u256& value) {
    if (current == value) return {GAS_WARM, 0};
    if (original == current) {
        if (is_zero(original)) return {GAS_STORAGE_SET, 0};
        return {GAS_STORAGE_UPDATE, is_zero(value) ? static_cast<i64>(GAS_STORAGE_CLEAR_REFUND) : 0};
    }
    i64 refund = 0;
    if (!is_zero(original)) {
        if (is_zero(current)) refund -= GAS_STORAGE_CLEAR_REFUND;
        if (is_zero(value)) refund += GAS_STORAGE_CLEAR_REFUND;
    }
    if (original == value) {
        refund += static_cast<i64>(is_zero(original) ? GAS_STORAGE_SET - GAS_WARM : GAS_STORAGE_UPDATE - GAS_WARM);
    }
    return {GAS_WARM, refund};
}

// Of `gas`, what a caller may pass on (EIP-150).
WG_FN u64 all_but_a_64th(u64 gas) { return gas - gas / 64; }

}  // namespace warpgrid::evm
