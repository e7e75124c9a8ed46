// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {Integers} from "./Integers.sol";
import {OperandsMissing, StepInput, StepInputs} from "./StepInput.sol";
import {Tables} from "./Tables.sol";

/// @title Steps on heads: norm, rotary, Hadamard, quantisation, attention
/// @dev Arithmetic is unchecked where docs/exact-inference.md section 8 bounds it.
library HeadSteps {
    using Integers for bytes;
    using Integers for int256;
    using Integers for int256[];
    using StepInputs for StepInput;

    /// @dev Parameter: epsilon_q48.
    function headNorm(StepInput memory input) internal pure returns (bytes memory) {
        unchecked {
            int256[] memory z = input.operands[0].int32s();
            int256[] memory weights = input.chunks[0].int32s();
            int256 width = int256(z.length);
            require(weights.length == z.length, OperandsMissing());
            int256 k = z.largestMagnitude(1).normShift();
            int256 squares = (input.parameter(0) * width).shiftRight(48 + 2 * k - 24);
            for (uint256 i = 0; i < z.length; i++) {
                z[i] = z[i].shiftRight(k);
                squares += z[i] * z[i];
            }
            int256 r = int256(Math.sqrt(uint256(squares / width)));
            int256 inverse = int256(1 << 40) / (r < 1 ? int256(1) : r);
            for (uint256 i = 0; i < z.length; i++) {
                z[i] = ((z[i] * inverse).roundShift(24) * weights[i]).roundShift(20).saturate();
            }
            return z.packInt32();
        }
    }

    function rotary(StepInput memory input) internal pure returns (bytes memory) {
        unchecked {
            int256[] memory z = input.operands[0].int32s();
            uint256 half = z.length / 2;
            for (uint256 i = 0; i < half; i++) {
                int256 c = int16(uint16(uint256(input.chunks[0].uint16At(i))));
                int256 s = int16(uint16(uint256(input.chunks[1].uint16At(i))));
                (int256 first, int256 second) = (z[i], z[half + i]);
                z[i] = (first * c - second * s).roundShift(14).saturate();
                z[half + i] = (second * c + first * s).roundShift(14).saturate();
            }
            return z.packInt32();
        }
    }

    function hadamard(StepInput memory input) internal pure returns (bytes memory) {
        unchecked {
            int256[] memory z = input.operands[0].int32s();
            uint256 width = z.length;
            require(width & (width - 1) == 0, OperandsMissing());
            for (uint256 stride = 1; stride < width; stride <<= 1) _butterflies(z, stride);
            int256 shift = int256(Math.log2(width) / 2);
            for (uint256 i = 0; i < width; i++) z[i] = z[i].roundShift(shift).saturate();
            return z.packInt32();
        }
    }

    /// @dev (z_i, z_j) <- (z_i + z_j, z_i - z_j) for j = i + stride and all i without that bit. The width is a multiple
    /// of 2 * stride.
    function _butterflies(int256[] memory z, uint256 stride) private pure {
        assembly ("memory-safe") {
            let step := shl(5, stride)
            let end := add(add(z, 32), shl(5, mload(z)))
            for { let pair := add(z, 32) } lt(pair, end) { pair := add(pair, shl(1, step)) } {
                let middle := add(pair, step)
                for { let i := pair } lt(i, middle) { i := add(i, 32) } {
                    let j := add(i, step)
                    let x := mload(i)
                    let y := mload(j)
                    mstore(i, add(x, y))
                    mstore(j, sub(x, y))
                }
            }
        }
    }

    /// @dev The canonical bytes of a key or value head: int8 entries, then their magnitude.
    function quantiseHead(StepInput memory input) internal pure returns (bytes memory) {
        unchecked {
            int256[] memory z = input.operands[0].int32s();
            uint256 width = z.length;
            int256 a = z.largestMagnitude(1);
            int256 reciprocal = (int256(127) << 40) / a;
            int256[] memory head = new int256[](width + 4);
            for (uint256 i = 0; i < width; i++) head[i] = z[i].quantise(reciprocal);
            for (uint256 i = 0; i < 4; i++) head[width + i] = a >> (8 * i);
            return head.packInt8();
        }
    }

    /// @dev Parameter: bytes of a head. Operands: up to 32 key heads, as many value heads, and so on.
    function keyValueDigest(StepInput memory input) internal pure returns (bytes memory) {
        uint256 headBytes = uint256(input.parameter(0));
        uint256 total;
        for (uint256 i = 0; i < input.operands.length; i++) total += input.operands[i].length;
        bytes memory row = new bytes(total);
        uint256 end;
        for (uint256 i = 0; i < input.operands.length; i += 2) {
            bytes memory keys = input.operands[i];
            bytes memory values = input.operands[i + 1];
            require(keys.length == values.length && keys.length % headBytes == 0, OperandsMissing());
            for (uint256 start = 0; start < keys.length; start += headBytes) {
                assembly ("memory-safe") {
                    let to := add(add(row, 32), end)
                    mcopy(to, add(add(keys, 32), start), headBytes)
                    mcopy(add(to, headBytes), add(add(values, 32), start), headBytes)
                }
                end += 2 * headBytes;
            }
        }
        return abi.encodePacked(sha256(row));
    }

    /// @dev Parameters: query heads for each key head, head width, attention mantissa and exponent. Cell: score, largest
    /// score and loudest so far.
    function score(StepInput memory input) internal pure returns (bytes memory) {
        unchecked {
            uint256 width = uint256(input.parameter(1));
            uint256 key = 2 * (input.inner / uint256(input.parameter(0))) * (width + 4);
            bytes memory query = input.operands[0];
            int256 dot;
            for (uint256 i = 0; i < width; i += 32) {
                uint256 count = width - i < 32 ? width - i : 32;
                dot += Integers.dot32(query.part(i, count), input.row.part(key + i, count));
            }
            (int256 mq, int256 eq) = (query.int32AtByte(width) * input.parameter(2)).mantissa();
            (int256 mk, int256 ek) = input.row.int32AtByte(key + width).mantissa();
            int256 s = (dot * mk * mq).roundShift(-(eq + ek + input.parameter(3) - 8));
            if (s > 2 ** 30) s = 2 ** 30;
            if (s < -(2 ** 30)) s = -(2 ** 30);
            int256 top = s;
            int256 loudest = s + (input.row.int32AtByte(key + 2 * width + 4).bitLength() << 16);
            if (input.outer > 0) {
                top = _larger(top, input.operands[1].int64At(1));
                loudest = _larger(loudest, input.operands[1].int64At(2));
            }
            return Integers.scalars(s, top, loudest);
        }
    }

    /// @dev Parameters: query heads for each key head, head width. Cell: D, then N.
    function sum(StepInput memory input) internal view returns (bytes memory) {
        unchecked {
            uint256 width = uint256(input.parameter(1));
            uint256 value = (2 * (input.inner / uint256(input.parameter(0))) + 1) * (width + 4);
            (int256 top, int256 t) = _topAndShift(input.operands[1]);
            int256 p = Tables.exp2(top - input.operands[0].int64At(0));
            int256 w = (p * input.row.int32AtByte(value + width)).roundShift(t);
            if (w > 32767) w = 32767;
            int256[] memory sums = input.outer == 0 ? new int256[](width + 1) : input.operands[2].int64s();
            require(sums.length == width + 1, OperandsMissing());
            sums[0] += p;
            for (uint256 i = 0; i < width; i++) sums[i + 1] += w * input.row.int8At(value + i);
            return sums.packInt64();
        }
    }

    /// @dev Parameter: entries of a tile.
    function attentionOutput(StepInput memory input) internal pure returns (bytes memory) {
        unchecked {
            (, int256 t) = _topAndShift(input.operands[1]);
            bytes memory sums = input.operands[0];
            int256 total = sums.int64At(0);
            int256 b = total.bitLength();
            int256 reciprocal = int256(1 << uint256(b + 22)) / (127 * total);
            int256[] memory tile = new int256[](uint256(input.parameter(0)));
            uint256 first = 1 + tile.length * input.inner;
            for (uint256 i = 0; i < tile.length; i++) {
                tile[i] = (sums.int64At(first + i) * reciprocal).roundShift(b + 18 - t).saturate();
            }
            return tile.packInt32();
        }
    }

    function _topAndShift(bytes memory cell) private pure returns (int256 top, int256 t) {
        unchecked {
            top = cell.int64At(1);
            t = 5 + ((cell.int64At(2) - top + 65535) >> 16);
        }
    }

    function _larger(int256 x, int256 y) private pure returns (int256) {
        return x > y ? x : y;
    }
}
