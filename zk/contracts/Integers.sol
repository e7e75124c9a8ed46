// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// @title The integer functions of docs/exact-inference.md, section 1, and the packings of a dispute's cells
/// @dev Arithmetic is unchecked where section 8 bounds it; every operand comes from a cell both parties agree on.
library Integers {
    int256 internal constant INT32_MAX = 2 ** 31 - 1;

    uint256 private constant LANES = 0x000000ff000000ff000000ff000000ff000000ff000000ff000000ff000000ff;
    uint256 private constant ONES = 0x0000000100000001000000010000000100000001000000010000000100000001;
    uint256 private constant SIGNS = 0x8080808080808080808080808080808080808080808080808080808080808080;
    uint256 private constant BYTES_EVEN = 0x00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff;
    uint256 private constant WORDS16 = 0x0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff;
    uint256 private constant WORDS64 = 0x0000000000000000ffffffffffffffff0000000000000000ffffffffffffffff;
    uint256 private constant WORDS32 = 0x00000000ffffffff00000000ffffffff00000000ffffffff00000000ffffffff;

    /// @notice x >> count, where a negative count multiplies.
    function shiftRight(int256 x, int256 count) internal pure returns (int256) {
        unchecked {
            if (count < 0) return x << uint256(-count);
            return x >> uint256(count > 254 ? int256(254) : count);
        }
    }

    /// @notice Rounding shift, half up.
    function roundShift(int256 x, int256 count) internal pure returns (int256) {
        unchecked {
            if (count < 1) return x << uint256(-count);
            uint256 shift = uint256(count > 254 ? int256(254) : count);
            return (x + int256(1 << (shift - 1))) >> shift;
        }
    }

    function saturate(int256 x) internal pure returns (int256) {
        return x > INT32_MAX ? INT32_MAX : x < -INT32_MAX ? -INT32_MAX : x;
    }

    function magnitude(int256 x) internal pure returns (int256) {
        unchecked {
            return x < 0 ? -x : x;
        }
    }

    /// @notice Bit length of x >= 0.
    function bitLength(int256 x) internal pure returns (int256) {
        unchecked {
            return x == 0 ? int256(0) : int256(Math.log2(uint256(x))) + 1;
        }
    }

    /// @notice mant(a) = (m, e).
    function mantissa(int256 a) internal pure returns (int256 m, int256 e) {
        unchecked {
            e = bitLength(a) - 16;
            m = shiftRight(a, e);
        }
    }

    /// @notice By how much a norm shifts a vector of magnitude a.
    function normShift(int256 a) internal pure returns (int256 k) {
        unchecked {
            k = bitLength(a) - 24;
            if (k < -16) k = -16;
        }
    }

    function largestMagnitude(int256[] memory values, int256 a) internal pure returns (int256) {
        unchecked {
            for (uint256 i = 0; i < values.length; i++) {
                int256 size = magnitude(values[i]);
                if (size > a) a = size;
            }
            return a;
        }
    }

    /// @notice A value z on the grid of the magnitude a, with the quantised maximum `top`; `reciprocal` is
    /// (top * 2^40) div a.
    function quantise(int256 z, int256 reciprocal) internal pure returns (int256) {
        unchecked {
            return (z * reciprocal + (1 << 39)) >> 40;
        }
    }

    /// @notice Sum of 32 products of int8.
    /// @dev Bytes are shifted to unsigned; four products of eight 32-bit lanes each, one operand with its lanes in reverse,
    /// leave their inner products in the highest lane. Lanes stay below 2^20.
    function dot32(uint256 a, uint256 b) internal pure returns (int256) {
        unchecked {
            a ^= SIGNS;
            b ^= SIGNS;
            uint256 r = (b >> 128) | (b << 128);
            r = ((r >> 64) & WORDS64) | ((r & WORDS64) << 64);
            r = ((r >> 32) & WORDS32) | ((r & WORDS32) << 32);
            uint256 products;
            uint256 sums;
            for (uint256 shift = 0; shift < 32; shift += 8) {
                uint256 left = (a >> shift) & LANES;
                uint256 right = (r >> shift) & LANES;
                products += (left * right) >> 224;
                sums += left + right;
            }
            return int256(products) - int256(128 * ((sums * ONES) >> 224)) + 32 * 128 * 128;
        }
    }

    /// @notice The 32 bytes at `offset`.
    function word(bytes memory data, uint256 offset) internal pure returns (uint256 value) {
        require(offset + 32 <= data.length, "short");
        assembly ("memory-safe") {
            value := mload(add(add(data, 32), offset))
        }
    }

    /// @notice The first `count` <= 32 of the bytes at `offset`, then zeros.
    function part(bytes memory data, uint256 offset, uint256 count) internal pure returns (uint256 value) {
        require(offset + count <= data.length, "short");
        assembly ("memory-safe") {
            value := mload(add(add(data, 32), offset))
            value := and(value, not(shr(shl(3, count), not(0))))
        }
    }

    /// @notice int64, big-endian, number `i`: the scalars of cells.
    function int64At(bytes memory data, uint256 i) internal pure returns (int256 value) {
        require(8 * i + 8 <= data.length, "short");
        assembly ("memory-safe") {
            value := sar(192, mload(add(add(data, 32), mul(i, 8))))
        }
    }

    /// @notice int32, little-endian, number `i`: a model's integers.
    function int32At(bytes memory data, uint256 i) internal pure returns (int256) {
        return int32AtByte(data, 4 * i);
    }

    /// @notice int32, little-endian, at `offset` bytes.
    function int32AtByte(bytes memory data, uint256 offset) internal pure returns (int256 value) {
        uint256 v = part(data, offset, 4) >> 224;
        assembly ("memory-safe") {
            v := or(or(shl(24, and(v, 0xff)), shl(8, and(v, 0xff00))), or(and(shr(8, v), 0xff00), shr(24, v)))
            value := signextend(3, v)
        }
    }

    /// @notice 16 bits, little-endian, number `i`, unsigned.
    function uint16At(bytes memory data, uint256 i) internal pure returns (int256 value) {
        require(2 * i + 2 <= data.length, "short");
        assembly ("memory-safe") {
            let v := shr(240, mload(add(add(data, 32), mul(i, 2))))
            value := or(shr(8, v), shl(8, and(v, 0xff)))
        }
    }

    function int8At(bytes memory data, uint256 i) internal pure returns (int256 value) {
        require(i < data.length, "short");
        assembly ("memory-safe") {
            value := signextend(0, shr(248, mload(add(add(data, 32), i))))
        }
    }

    /// @notice All int32, little-endian, of rows and tiles.
    function int32s(bytes memory data) internal pure returns (int256[] memory values) {
        require(data.length & 3 == 0, "short");
        assembly ("memory-safe") {
            let count := shr(2, mload(data))
            values := mload(0x40)
            mstore(values, count)
            let to := add(values, 32)
            // Eight lanes are written at a time, so room is left for eight.
            mstore(0x40, add(to, shl(5, and(add(count, 7), not(7)))))
            let end := add(to, shl(5, count))
            for { let from := add(data, 32) } lt(to, end) { from := add(from, 32) } {
                let v := mload(from)
                v := or(shl(8, and(v, BYTES_EVEN)), and(shr(8, v), BYTES_EVEN))
                v := or(shl(16, and(v, WORDS16)), and(shr(16, v), WORDS16))
                for { let shift := 224 } 1 { shift := sub(shift, 32) } {
                    mstore(to, signextend(3, shr(shift, v)))
                    to := add(to, 32)
                    if iszero(shift) { break }
                }
            }
        }
    }

    /// @notice The same the other way. Values fit int32.
    function packInt32(int256[] memory values) internal pure returns (bytes memory data) {
        assembly ("memory-safe") {
            let count := mload(values)
            data := mload(0x40)
            mstore(data, shl(2, count))
            let to := add(data, 32)
            mstore(0x40, add(to, and(add(shl(2, count), 31), not(31))))
            let end := add(to, shl(2, count))
            for { let from := add(values, 32) } lt(to, end) { to := add(to, 32) } {
                let v := 0
                for { let shift := 224 } 1 { shift := sub(shift, 32) } {
                    v := or(v, shl(shift, and(mload(from), 0xffffffff)))
                    from := add(from, 32)
                    if iszero(shift) { break }
                }
                v := or(shl(8, and(v, BYTES_EVEN)), and(shr(8, v), BYTES_EVEN))
                v := or(shl(16, and(v, WORDS16)), and(shr(16, v), WORDS16))
                mstore(to, v)
            }
        }
    }

    /// @notice All int64, big-endian.
    function int64s(bytes memory data) internal pure returns (int256[] memory values) {
        require(data.length & 7 == 0, "short");
        assembly ("memory-safe") {
            let count := shr(3, mload(data))
            values := mload(0x40)
            mstore(values, count)
            let to := add(values, 32)
            let end := add(to, shl(5, count))
            mstore(0x40, end)
            for { let from := add(data, 32) } lt(to, end) { from := add(from, 8) } {
                mstore(to, sar(192, mload(from)))
                to := add(to, 32)
            }
        }
    }

    /// @notice The same the other way. Values fit int64.
    function packInt64(int256[] memory values) internal pure returns (bytes memory data) {
        assembly ("memory-safe") {
            let count := mload(values)
            data := mload(0x40)
            mstore(data, shl(3, count))
            let to := add(data, 32)
            let end := add(to, shl(3, count))
            // Each store writes 32 bytes, of which the next ones overwrite all but eight.
            mstore(0x40, and(add(end, 63), not(31)))
            for { let from := add(values, 32) } lt(to, end) { to := add(to, 8) } {
                mstore(to, shl(192, mload(from)))
                from := add(from, 32)
            }
        }
    }

    /// @notice Values of one byte each. The low eight bits count.
    function packInt8(int256[] memory values) internal pure returns (bytes memory data) {
        assembly ("memory-safe") {
            let count := mload(values)
            data := mload(0x40)
            mstore(data, count)
            let to := add(data, 32)
            mstore(0x40, add(to, and(add(count, 31), not(31))))
            let end := add(to, count)
            for { let from := add(values, 32) } lt(to, end) { to := add(to, 1) } {
                mstore8(to, mload(from))
                from := add(from, 32)
            }
        }
    }

    /// @notice Cells of scalars.
    function scalars(int256 x) internal pure returns (bytes memory) {
        return abi.encodePacked(int64(x));
    }

    function scalars(int256 x, int256 y) internal pure returns (bytes memory) {
        return abi.encodePacked(int64(x), int64(y));
    }

    function scalars(int256 x, int256 y, int256 z) internal pure returns (bytes memory) {
        return abi.encodePacked(int64(x), int64(y), int64(z));
    }
}
