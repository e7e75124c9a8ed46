// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice Cells of the tape: `present` cells of equal size, then absent ones up to the size of the group, and the path
/// from the group's node to the tape's root.
struct Cells {
    bytes data;
    uint256 present;
    bytes32[] path;
}

/// @notice A chunk of a row of a tensor, with the parts of the tensor's leaf and the paths up to the model's root.
struct Chunk {
    bytes data;
    bytes32 nameHash;
    uint256 typeCode;
    uint256 rows;
    uint256 columns;
    bytes32[] path;
    bytes32[] modelPath;
}

/// @notice A row of the trace, and the path from its leaf to the rows' root.
struct Row {
    bytes data;
    bytes32[] path;
}

/// @title Merkle paths of a dispute: tape, model (docs/exact-inference.md, section 6) and trace (docs/trace.md)
library Openings {
    uint256 private constant CHUNK_BYTES = 1024;

    error WrongDepth(uint256 given, uint256 needed);
    error WrongRoot();
    error WrongShape();

    /// @notice The root that a path of exactly `depth` siblings leads to.
    function rootOf(bytes32 node, uint256 index, bytes32[] calldata path, uint256 depth)
        internal
        pure
        returns (bytes32)
    {
        require(path.length == depth, WrongDepth(path.length, depth));
        assembly ("memory-safe") {
            for { let level := 0 } lt(level, depth) { level := add(level, 1) } {
                // The node goes to the half that its index says, its sibling to the other.
                let half := shl(5, and(shr(level, index), 1))
                mstore(half, node)
                mstore(xor(half, 0x20), calldataload(add(path.offset, shl(5, level))))
                node := keccak256(0x00, 0x40)
            }
        }
        return node;
    }

    /// @notice The node over 2^n nodes, which this overwrites.
    function fold(bytes32[] memory nodes) internal pure returns (bytes32) {
        uint256 count = nodes.length;
        require(count != 0 && count & (count - 1) == 0, WrongShape());
        assembly ("memory-safe") {
            let first := add(nodes, 32)
            for {} gt(count, 1) { count := shr(1, count) } {
                for { let i := 0 } lt(i, count) { i := add(i, 2) } {
                    mstore(add(first, shl(4, i)), keccak256(add(first, shl(5, i)), 0x40))
                }
            }
        }
        return nodes[0];
    }

    /// @notice Checks 2^log2Size cells from `index` on against the tape's root; gives their bytes.
    function check(Cells calldata cells, uint256 index, uint256 log2Size, bytes32 root, uint256 depth)
        internal
        pure
        returns (bytes memory data)
    {
        uint256 size = 1 << log2Size;
        require(index & (size - 1) == 0 && cells.present != 0 && cells.present <= size, WrongShape());
        require(cells.data.length % cells.present == 0, WrongShape());
        uint256 cellBytes = cells.data.length / cells.present;
        bytes32[] memory nodes = new bytes32[](size);
        data = cells.data;
        uint256 present = cells.present;
        assembly ("memory-safe") {
            for { let i := 0 } lt(i, present) { i := add(i, 1) } {
                let digest := keccak256(add(add(data, 32), mul(i, cellBytes)), cellBytes)
                mstore(add(add(nodes, 32), shl(5, i)), digest)
            }
        }
        require(rootOf(fold(nodes), index >> log2Size, cells.path, depth - log2Size) == root, WrongRoot());
    }

    /// @notice Checks a chunk against the model's root; gives its bytes.
    function check(Chunk calldata chunk, uint256 tensor, uint256 row, uint256 number, bytes32 root)
        internal
        pure
        returns (bytes memory)
    {
        uint256 rowBytes = chunk.columns * _elementBytes(chunk.typeCode);
        uint256 perRow = (rowBytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
        require(row < chunk.rows && number < perRow, WrongShape());
        uint256 left = rowBytes - number * CHUNK_BYTES;
        require(chunk.data.length == (left < CHUNK_BYTES ? left : CHUNK_BYTES), WrongShape());
        bytes32 tensorRoot =
            rootOf(keccak256(chunk.data), row * perRow + number, chunk.path, depthOf(chunk.rows * perRow));
        bytes32 leaf = keccak256(abi.encode(chunk.nameHash, chunk.typeCode, chunk.rows, chunk.columns, tensorRoot));
        require(rootOf(leaf, tensor, chunk.modelPath, chunk.modelPath.length) == root, WrongRoot());
        require(tensor >> chunk.modelPath.length == 0, WrongShape());
        return chunk.data;
    }

    /// @notice Checks a row against the rows' root; gives its bytes.
    function check(Row calldata row, uint256 leaf, bytes32 root, uint256 depth) internal pure returns (bytes memory) {
        require(rootOf(sha256(row.data), leaf, row.path, depth) == root, WrongRoot());
        return row.data;
    }

    /// @notice Levels between `leaves` leaves and their root.
    function depthOf(uint256 leaves) internal pure returns (uint256 depth) {
        while ((uint256(1) << depth) < leaves) depth++;
    }

    function _elementBytes(uint256 typeCode) private pure returns (uint256) {
        return typeCode == 1 ? 1 : typeCode == 4 ? 4 : 2;
    }
}
