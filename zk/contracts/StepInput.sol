// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice What a step works on: the bytes of the cells, chunks and row that it reads, and where it stands.
struct StepInput {
    uint256 operation;
    uint256 outer;
    uint256 inner;
    bytes[] operands;
    bytes[] chunks;
    bytes row;
    uint256 parametersAt;
    uint256 hint;
    uint256 position;
    uint256[5] sampling;
}

error OperandsMissing();

library StepInputs {
    /// @notice The i-th parameter of the instruction, which lies in the call data.
    function parameter(StepInput memory input, uint256 i) internal pure returns (int256 value) {
        uint256 start = input.parametersAt;
        assembly ("memory-safe") {
            value := sar(192, calldataload(add(start, shl(3, i))))
        }
    }

    /// @notice The token that a row of the trace holds.
    function token(StepInput memory input) internal pure returns (uint256 value) {
        bytes memory row = input.row;
        require(row.length == 4, OperandsMissing());
        assembly ("memory-safe") {
            let v := shr(224, mload(add(row, 32)))
            value := or(or(shl(24, and(v, 0xff)), shl(8, and(v, 0xff00))), or(and(shr(8, v), 0xff00), shr(24, v)))
        }
    }
}
