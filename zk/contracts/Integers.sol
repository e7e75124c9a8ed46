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

    /// @notice int64, big-endian, number `i`: the scalars of cells.
    function int64At(bytes memory data, uint256 i) internal pure returns (int256 value) {
        require(8 * i + 8 <= data.length, "short");
        assembly ("memory-safe") {
            value := sar(192, mload(add(add(data, 32), mul(i, 8))))
        }
    }

    /// @notice int32, little-endian, number `i`: rows, tiles, and a model's integers.
    function int32At(bytes memory data, uint256 i) internal pure returns (int256 value) {
        require(4 * i + 4 <= data.length, "short");
        assembly ("memory-safe") {
            let v := shr(224, mload(add(add(data, 32), mul(i, 4))))
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

    /// @notice Writes an int32, little-endian, as number `i` of `data`.
    function putInt32(bytes memory data, uint256 i, int256 value) internal pure {
        assert(4 * i + 4 <= data.length);
        assembly ("memory-safe") {
            let v := or(shl(24, and(value, 0xff)), shl(8, and(value, 0xff00)))
            v := or(v, or(and(shr(8, value), 0xff00), and(shr(24, value), 0xff)))
            let place := add(add(data, 32), mul(i, 4))
            mstore(place, or(shl(224, v), shr(32, shl(32, mload(place)))))
        }
    }

    /// @notice Writes an int64, big-endian, as number `i` of `data`.
    function putInt64(bytes memory data, uint256 i, int256 value) internal pure {
        assert(8 * i + 8 <= data.length);
        assembly ("memory-safe") {
            let place := add(add(data, 32), mul(i, 8))
            mstore(place, or(shl(192, value), shr(64, shl(64, mload(place)))))
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
