// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Integers} from "./Integers.sol";

/// @title The two tables of docs/exact-inference.md, section 2
/// @notice Each is the code of a predeployed contract: one zero byte, then entries of three bytes, big-endian.
library Tables {
    using Integers for int256;

    address private constant EXP2 = 0x5747000000000000000000000000000000000012;
    address private constant SIGMOID = 0x5747000000000000000000000000000000000013;

    /// @notice 2^-(distance / 2^16) in Q20.
    function exp2(int256 distance) internal view returns (int256) {
        return _entry(EXP2, uint256(distance & 65535) >> 4).shiftRight(distance >> 16);
    }

    /// @notice The same with 20 more bits: the weight of a token at this distance from the largest.
    function weight(int256 distance) internal view returns (int256) {
        return (_entry(EXP2, uint256(distance & 65535) >> 4) << 20).shiftRight(distance >> 16);
    }

    /// @notice Entries `index` and `index + 1` of SIGMOID.
    function sigmoid(uint256 index) internal view returns (int256 low, int256 high) {
        address table = SIGMOID;
        assembly ("memory-safe") {
            mstore(0, 0)
            extcodecopy(table, 26, add(1, mul(3, index)), 6)
            let pair := mload(0)
            low := shr(24, pair)
            high := and(pair, 0xffffff)
        }
    }

    function _entry(address table, uint256 index) private view returns (int256 value) {
        assembly ("memory-safe") {
            mstore(0, 0)
            extcodecopy(table, 29, add(1, mul(3, index)), 3)
            value := mload(0)
        }
    }
}
