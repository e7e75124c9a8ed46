// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title One register of the tape: its place, its cells and how each is computed
/// @notice zk/instruction.py makes the bytes: big-endian int64 words, thirteen fields, then five words for each operand,
/// the tensors and the parameters. Whoever reads them has checked their digest against the programs' root, so they are
/// well formed. An operand is the cells (start + startPerPosition * n + outer * (e / width) + inner * (e % width)) and
/// after, 2^log2Size in all; n is the number of positions up to the disputed one.
library Instructions {
    uint256 private constant FIELDS = 13;
    uint256 private constant OPERAND_WORDS = 5;

    function operation(bytes calldata self) internal pure returns (uint256) {
        return _word(self, 0);
    }

    /// @notice Its first cell on a tape with n positions.
    function first(bytes calldata self, uint256 n) internal pure returns (uint256) {
        unchecked {
            return _word(self, 1) + _word(self, 2) * n;
        }
    }

    /// @notice How many cells it has on a tape with n positions.
    function count(bytes calldata self, uint256 n) internal pure returns (uint256) {
        unchecked {
            return _word(self, 3) + _word(self, 4) * n;
        }
    }

    function width(bytes calldata self) internal pure returns (uint256) {
        return _word(self, 5);
    }

    /// @notice Cells e with e % width not below this are absent.
    function present(bytes calldata self) internal pure returns (uint256) {
        return _word(self, 6);
    }

    /// @notice How far back in its own register a cell reads; 0 for not at all.
    function chain(bytes calldata self) internal pure returns (uint256) {
        return _word(self, 7);
    }

    /// @notice 0: no row of the trace; 1: of the position itself; 2: of each position up to it; 3: of the one before.
    function rowMode(bytes calldata self) internal pure returns (uint256) {
        return _word(self, 8);
    }

    function rowLeaf(bytes calldata self) internal pure returns (uint256) {
        return _word(self, 9);
    }

    function operands(bytes calldata self) internal pure returns (uint256) {
        return _word(self, 10);
    }

    function tensors(bytes calldata self) internal pure returns (uint256) {
        return _word(self, 11);
    }

    /// @notice First cell and log2 of the number of cells of the i-th operand.
    function operand(bytes calldata self, uint256 i, uint256 n, uint256 outer, uint256 inner)
        internal
        pure
        returns (uint256 index, uint256 log2Size)
    {
        unchecked {
            uint256 word = FIELDS + OPERAND_WORDS * i;
            index = _word(self, word) + _word(self, word + 1) * n + _word(self, word + 2) * outer
                + _word(self, word + 3) * inner;
            log2Size = _word(self, word + 4);
        }
    }

    /// @notice The model's leaf of the i-th tensor.
    function tensor(bytes calldata self, uint256 i) internal pure returns (uint256) {
        unchecked {
            return _word(self, FIELDS + OPERAND_WORDS * operands(self) + i);
        }
    }

    /// @notice Where in the call data the parameters begin, int64 each.
    function parametersAt(bytes calldata self) internal pure returns (uint256 offset) {
        unchecked {
            uint256 words = FIELDS + OPERAND_WORDS * operands(self) + tensors(self);
            assembly ("memory-safe") {
                offset := add(self.offset, shl(3, words))
            }
        }
    }

    function _word(bytes calldata self, uint256 i) private pure returns (uint256 value) {
        assembly ("memory-safe") {
            value := shr(192, calldataload(add(self.offset, shl(3, i))))
        }
    }
}
