// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice What the parties agree on before they disagree: the order, and what the worker's receipt states of its answer.
/// @param traceRoot        what the worker committed to
/// @param modelRoot        root of the weights (docs/exact-inference.md, section 6)
/// @param programTree      root of the tree of programs; follows from the model's header (zk/program.py)
/// @param textHash         salted hash of the request's text; nothing here looks into it
/// @param promptHash       keccak-256 of the prompt's prefix, 32 bytes that hide it, and its tokens (u32, little-endian)
/// @param sampling         temperature_q16, top_k, top_p_q16, seed, choice
/// @param promptTokens     tokens of the prompt
/// @param answerTokens     tokens of the answer
/// @param answerTokensMax  the longest answer that was asked for
/// @param endsByText       whether a stop string may have ended the answer
/// @param layers           of the model
/// @param nonce            tells games between the same parties apart; the arbiter's is the job's id
struct Terms {
    bytes32 traceRoot;
    bytes32 modelRoot;
    bytes32 programTree;
    bytes32 textHash;
    bytes32 promptHash;
    uint256[5] sampling;
    uint256 promptTokens;
    uint256 answerTokens;
    uint256 answerTokensMax;
    bool endsByText;
    uint256 layers;
    address worker;
    address challenger;
    uint256 nonce;
}

/// @notice core/jobs/exact.py is its twin.
library TermsHashing {
    bytes32 private constant REQUEST_TAG = keccak256("warpgrid exact request 1");

    /// @notice The game that these terms are of.
    function id(Terms calldata terms) internal pure returns (bytes32) {
        return keccak256(abi.encode(terms));
    }

    /// @notice What an exact order, its receipt and its trace name a request by.
    function requestHash(Terms calldata terms) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                REQUEST_TAG,
                terms.textHash,
                terms.promptHash,
                terms.promptTokens,
                terms.sampling,
                terms.answerTokensMax,
                terms.endsByText
            )
        );
    }

    /// @notice What an exact order and its receipt name a model by. Binds the number of layers too.
    function modelHash(Terms calldata terms) internal pure returns (bytes32) {
        bytes32 programRoot = keccak256(abi.encode(terms.layers, terms.programTree));
        return keccak256(abi.encode(terms.modelRoot, programRoot));
    }
}
