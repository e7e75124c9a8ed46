// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice What a worker signs when it has answered a job. market/receipt.py is its twin, bit for bit.
/// @param jobId           the escrow's id of the job
/// @param worker          the account that staked in WorkerRegistry; its registered signer signs
/// @param tier            0: float (trusted and sampled), 1: exact (provable)
/// @param modelHash       keccak-256 that identifies the weights
/// @param requestHash     salted hash of the request; the same as in the order
/// @param outputHash      salted hash of the answer
/// @param traceRoot       Merkle root of the execution trace; zero for the float tier and only there
/// @param inputTokens     tokens read
/// @param outputTokens    tokens made
/// @param startedAtMs     Unix time in milliseconds
/// @param finishedAtMs    Unix time in milliseconds
/// @param inputTokenWei   price of one token read, in wei
/// @param outputTokenWei  price of one token made, in wei
/// @param totalWei        inputTokens * inputTokenWei + outputTokens * outputTokenWei
struct Receipt {
    bytes32 jobId;
    address worker;
    uint8 tier;
    bytes32 modelHash;
    bytes32 requestHash;
    bytes32 outputHash;
    bytes32 traceRoot;
    uint32 inputTokens;
    uint32 outputTokens;
    uint64 startedAtMs;
    uint64 finishedAtMs;
    uint128 inputTokenWei;
    uint128 outputTokenWei;
    uint128 totalWei;
}

/// @title Hashing of receipts, and the Merkle tree over a batch of them
/// @dev The tree is that of RFC 9162 (section 2.1) with keccak-256: leaves and nodes are told apart by a prefix byte, and
/// an inclusion proof is bound to the leaf's index and the batch's size.
library Receipts {
    bytes32 internal constant TYPEHASH = keccak256(
        "Receipt(bytes32 jobId,address worker,uint8 tier,bytes32 modelHash,bytes32 requestHash,bytes32 outputHash,"
        "bytes32 traceRoot,uint32 inputTokens,uint32 outputTokens,uint64 startedAtMs,uint64 finishedAtMs,"
        "uint128 inputTokenWei,uint128 outputTokenWei,uint128 totalWei)"
    );

    error ProofInvalid(uint256 index, uint256 size);

    /// @notice EIP-712 struct hash.
    function structHash(Receipt calldata receipt) internal pure returns (bytes32) {
        return keccak256(abi.encode(TYPEHASH, receipt));
    }

    /// @notice Whether the total is exactly usage times price. Cannot overflow: 2 * 2^32 * 2^128 < 2^256.
    function addsUp(Receipt calldata receipt) internal pure returns (bool) {
        uint256 total = uint256(receipt.inputTokens) * receipt.inputTokenWei
            + uint256(receipt.outputTokens) * receipt.outputTokenWei;
        return total == receipt.totalWei;
    }

    /// @notice The leaf of a receipt's EIP-712 digest.
    function leaf(bytes32 digest) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(uint8(0), digest));
    }

    /// @notice Root of the tree over `leaves`, which must not be empty. Overwrites `leaves`.
    function root(bytes32[] memory leaves) internal pure returns (bytes32) {
        uint256 width = leaves.length;
        while (width > 1) {
            uint256 pairs = width / 2;
            for (uint256 i = 0; i < pairs; i++) {
                leaves[i] = _node(leaves[2 * i], leaves[2 * i + 1]);
            }
            if (width % 2 == 1) leaves[pairs] = leaves[width - 1];
            width = pairs + (width % 2);
        }
        return leaves[0];
    }

    /// @notice The root that `proof` leads to from the leaf at `index` of `size` (RFC 9162, section 2.1.3.2).
    function rootFromProof(bytes32 node, uint256 index, uint256 size, bytes32[] calldata proof)
        internal
        pure
        returns (bytes32)
    {
        require(index < size, ProofInvalid(index, size));
        uint256 position = index;
        uint256 last = size - 1;
        for (uint256 i = 0; i < proof.length; i++) {
            require(last != 0, ProofInvalid(index, size));
            if (position % 2 == 1 || position == last) {
                node = _node(proof[i], node);
                while (position % 2 == 0 && position != 0) {
                    position >>= 1;
                    last >>= 1;
                }
            } else {
                node = _node(node, proof[i]);
            }
            position >>= 1;
            last >>= 1;
        }
        require(last == 0, ProofInvalid(index, size));
        return node;
    }

    function _node(bytes32 left, bytes32 right) private pure returns (bytes32) {
        return keccak256(abi.encodePacked(uint8(1), left, right));
    }
}
