// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {Integers} from "./Integers.sol";
import {OperandsMissing, StepInput, StepInputs} from "./StepInput.sol";
import {Tables} from "./Tables.sol";

/// @title Steps on rows and tiles: norms, scales, linear layers, the gated unit, embeddings
/// @dev Arithmetic is unchecked where docs/exact-inference.md section 8 bounds it.
library LinearSteps {
    using Integers for bytes;
    using Integers for int256;
    using Integers for int256[];
    using StepInputs for StepInput;

    function copyRow(StepInput memory input) internal pure returns (bytes memory tile) {
        tile = new bytes(128);
        for (uint256 i = 0; i < 4; i++) {
            uint256 value = input.row.word(128 * input.outer + 32 * i);
            assembly ("memory-safe") {
                mstore(add(add(tile, 32), mul(i, 32)), value)
            }
        }
    }

    function absmax(StepInput memory input) internal pure returns (bytes memory) {
        int256 a = input.outer > 0 ? input.operands[1].int64At(0) : int256(1);
        return Integers.scalars(input.operands[0].int32s().largestMagnitude(a));
    }

    function sumOfSquares(StepInput memory input) internal pure returns (bytes memory) {
        unchecked {
            int256[] memory tile = input.operands[0].int32s();
            int256 k = input.operands[1].int64At(0).normShift();
            int256 sum = input.outer > 0 ? input.operands[2].int64At(0) : int256(0);
            for (uint256 i = 0; i < tile.length; i++) {
                int256 x = tile[i].shiftRight(k);
                sum += x * x;
            }
            return Integers.scalars(sum);
        }
    }

    /// @dev Parameters: width d, epsilon_q48, residual fraction F.
    function normScale(StepInput memory input) internal pure returns (bytes memory) {
        int256 a = input.operands[0].int64At(0);
        int256 width = input.parameter(0);
        int256 k = a.normShift();
        int256 sum = input.operands[1].int64At(0)
            + (input.parameter(1) * width).shiftRight(48 + 2 * k - 2 * input.parameter(2));
        int256 r = int256(Math.sqrt(uint256(sum / width)));
        if (r < 1) r = 1;
        (int256 ma, int256 ea) = a.mantissa();
        (int256 m, int256 e) = ((ma << 32) / r).mantissa();
        return Integers.scalars(m, e + ea - 32 - k);
    }

    /// @dev Parameter: fraction.
    function plainScale(StepInput memory input) internal pure returns (bytes memory) {
        (int256 m, int256 e) = input.operands[0].int64At(0).mantissa();
        return Integers.scalars(m, e - input.parameter(0));
    }

    /// @dev Parameter: bits. Two limbs lie behind one another, 32 bytes each.
    function quantise(StepInput memory input) internal pure returns (bytes memory) {
        unchecked {
            int256[] memory z = input.operands[0].int32s();
            bool wide = input.parameter(0) == 16;
            int256 reciprocal = (int256(wide ? int256(32639) : int256(127)) << 40) / input.operands[1].int64At(0);
            uint256 count = z.length;
            int256[] memory q = new int256[](wide ? 2 * count : count);
            for (uint256 i = 0; i < count; i++) {
                int256 value = z[i].quantise(reciprocal);
                if (wide) {
                    q[i] = (value + 128) >> 8;
                    q[count + i] = value - 256 * q[i];
                } else {
                    q[i] = value;
                }
            }
            return q.packInt8();
        }
    }

    /// @dev Parameter: bits.
    function dot(StepInput memory input) internal pure returns (bytes memory) {
        unchecked {
            bytes memory q = input.operands[0];
            bytes memory weights = input.chunks[0];
            bool wide = input.parameter(0) == 16;
            uint256 stride = wide ? 64 : 32;
            uint256 count = weights.length / 32;
            require(q.length == count * stride, OperandsMissing());
            int256 acc = input.outer > 0 ? input.operands[1].int64At(0) : int256(0);
            for (uint256 i = 0; i < count; i++) {
                uint256 w = weights.word(32 * i);
                int256 sum = Integers.dot32(w, q.word(stride * i));
                acc += wide ? 256 * sum + Integers.dot32(w, q.word(stride * i + 32)) : sum;
            }
            return Integers.scalars(acc);
        }
    }

    /// @notice The first row of a tile. Parameters: rows of a group, rows of a tile, rows of the matrix.
    function firstRow(StepInput memory input) internal pure returns (uint256) {
        unchecked {
            return input.outer * uint256(input.parameter(0)) + input.inner * uint256(input.parameter(1));
        }
    }

    /// @dev Cells: for each row of a tile, an int64 of bias (32 bits), 0, exponent (8), mantissa (16).
    function rowScales(StepInput memory input) internal pure returns (bytes memory) {
        unchecked {
            uint256 first = firstRow(input);
            uint256 count = uint256(input.parameter(1));
            uint256 left = uint256(input.parameter(2)) - first;
            int256[] memory scales = new int256[](left < count ? left : count);
            bool biased = input.chunks.length == 3;
            for (uint256 i = 0; i < scales.length; i++) {
                uint256 n = first + i;
                int256 value = input.chunks[0].uint16At(n % 512) | ((input.chunks[1].int8At(n % 1024) & 0xff) << 16);
                scales[i] = biased ? value | (input.chunks[2].int32At(n % 256) << 32) : value;
            }
            return scales.packInt64();
        }
    }

    /// @dev Parameter: output fraction. Operands: products, scale of their input, scales of the rows, and the residual
    /// where the result is added to it.
    function rescale(StepInput memory input) internal pure returns (bytes memory) {
        unchecked {
            int256[] memory acc = input.operands[0].int64s();
            int256[] memory scales = input.operands[2].int64s();
            bool isAdded = input.operands.length == 4;
            int256[] memory residual = isAdded ? input.operands[3].int32s() : scales;
            int256 scale = input.operands[1].int64At(0);
            int256 shift = -(8 + input.operands[1].int64At(1) + input.parameter(0));
            require(scales.length == acc.length && residual.length == acc.length, OperandsMissing());
            for (uint256 i = 0; i < acc.length; i++) {
                int256 row = scales[i];
                int256 u = (acc[i] * (row & 0xffff)).roundShift(8);
                int256 v = (u * scale).roundShift(shift - int8(uint8(uint256(row >> 16)))) + (row >> 32);
                acc[i] = (isAdded ? v + residual[i] : v).saturate();
            }
            return acc.packInt32();
        }
    }

    /// @dev Parameter: hidden fraction.
    function gatedUnit(StepInput memory input) internal view returns (bytes memory) {
        unchecked {
            int256[] memory gates = input.operands[0].int32s();
            int256[] memory ups = input.operands[1].int32s();
            int256 shift = 24 - input.parameter(0);
            for (uint256 i = 0; i < gates.length; i++) {
                int256 gate = gates[i];
                int256 clamped = gate < -65536 ? int256(-65536) : gate > 65535 ? int256(65535) : gate;
                uint256 place = uint256(clamped + 65536);
                (int256 low, int256 high) = Tables.sigmoid(place >> 5);
                int256 sigma = low + (((high - low) * int256(place & 31)) >> 5);
                gates[i] = ((gate * sigma).roundShift(16) * ups[i]).roundShift(shift).saturate();
            }
            return gates.packInt32();
        }
    }

    /// @dev Parameter: entries of a chunk, 512 for mantissas and 1,024 for exponents. Cell: the token, and its row's.
    function tokenScale(StepInput memory input) internal pure returns (bytes memory) {
        uint256 token = input.token();
        bool isMantissa = input.parameter(0) == 512;
        bytes memory chunk = input.chunks[0];
        return Integers.scalars(int256(token), isMantissa ? chunk.uint16At(token % 512) : chunk.int8At(token % 1024));
    }

    /// @notice The token whose embedding is taken.
    function tokenOf(StepInput memory input) internal pure returns (int256) {
        return input.operands[0].int64At(0);
    }

    /// @dev Parameter: residual fraction. Operands: the cells of `tokenScale`, mantissa and exponent.
    function embedding(StepInput memory input) internal pure returns (bytes memory) {
        unchecked {
            int256 scale = input.operands[0].int64At(1);
            int256 shift = -(input.operands[1].int64At(1) + input.parameter(0));
            int256[] memory tile = new int256[](32);
            for (uint256 i = 0; i < 32; i++) {
                int256 weight = input.chunks[0].int8At((32 * input.outer) % 1024 + i);
                tile[i] = (weight * scale).roundShift(shift).saturate();
            }
            return tile.packInt32();
        }
    }

    function rowDigest(StepInput memory input) internal pure returns (bytes memory) {
        bytes memory row;
        for (uint256 i = 0; i < input.operands.length; i++) row = abi.encodePacked(row, input.operands[i]);
        return abi.encodePacked(sha256(row));
    }
}
