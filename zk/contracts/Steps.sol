// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {HeadSteps} from "./HeadSteps.sol";
import {Instructions} from "./Instructions.sol";
import {LinearSteps} from "./LinearSteps.sol";
import {Cells, Chunk, Openings, Row} from "./Openings.sol";
import {OperandsMissing, StepInput, StepInputs} from "./StepInput.sol";
import {TokenSteps} from "./TokenSteps.sol";

/// @notice What the worker opens so that a cell can be recomputed. `hint` is the tile that holds the chosen token.
struct Evidence {
    Cells[] cells;
    Chunk[] chunks;
    Row row;
    uint256 hint;
}

/// @notice The commitments that openings are checked against, and where the disputed cell stands.
struct Context {
    bytes32 tapeRoot;
    uint256 tapeDepth;
    bytes32 rowsRoot;
    uint256 rowsDepth;
    uint256 leavesPerPosition;
    bytes32 modelRoot;
    uint256 position;
    uint256 index;
    uint256[5] sampling;
}

/// @title One step of the exact arithmetic, recomputed from opened operands
/// @notice docs/exact-inference.md defines every operation; docs/trace.md the cells. Holds no state.
contract Steps {
    using Instructions for bytes;
    using StepInputs for StepInput;

    error NotInThisRegister(uint256 index);
    error UnknownOperation(uint256 operation);

    /// @notice The digest that the cell at `context.index` must have: zero for one that is absent.
    /// @param instruction its register, as `Instructions` reads it; the caller has checked it
    /// @param evidence the ABI encoding of an `Evidence`
    function recompute(bytes calldata instruction, bytes calldata evidence, Context calldata context)
        external
        view
        returns (bytes32)
    {
        uint256 n = context.position + 1;
        uint256 start = instruction.first(n);
        uint256 cells = instruction.count(n);
        require(context.index >= start, NotInThisRegister(context.index));
        uint256 e = context.index - start;
        StepInput memory input;
        input.operation = instruction.operation();
        if (e >= cells) {
            // What follows the last register pads the tape, what follows another pads it to 32 cells.
            require(_isDigest(input.operation) || e < (cells + 31) & ~uint256(31), NotInThisRegister(context.index));
            return 0;
        }
        uint256 width = instruction.width();
        input.outer = e / width;
        input.inner = e % width;
        if (input.inner >= instruction.present()) return 0;
        input.parametersAt = instruction.parametersAt();
        input.position = context.position;
        input.sampling = context.sampling;
        _open(input, instruction, _decode(evidence), context);
        return keccak256(_step(input));
    }

    /// @dev The struct inside its encoding. Its parts are read with their bounds checked, wherever they claim to lie.
    function _decode(bytes calldata encoded) private pure returns (Evidence calldata evidence) {
        require(encoded.length >= 160, OperandsMissing());
        assembly ("memory-safe") {
            evidence := add(encoded.offset, 32)
        }
    }

    /// @dev The last register of a program.
    function _isDigest(uint256 operation) private pure returns (bool) {
        return operation == 12 || operation == 13 || operation == 20;
    }

    function _open(
        StepInput memory input,
        bytes calldata instruction,
        Evidence calldata evidence,
        Context calldata context
    ) private pure {
        input.hint = evidence.hint;
        _openCells(input, instruction, evidence, context);
        uint256 mode = instruction.rowMode();
        if (mode != 0) {
            uint256 position = mode == 1 ? context.position : mode == 2 ? input.outer : context.position - 1;
            input.row = Openings.check(
                evidence.row,
                position * context.leavesPerPosition + instruction.rowLeaf(),
                context.rowsRoot,
                context.rowsDepth
            );
        }
        uint256 count = instruction.tensors();
        require(evidence.chunks.length == count, OperandsMissing());
        input.chunks = new bytes[](count);
        for (uint256 i = 0; i < count; i++) {
            (uint256 row, uint256 number) = _chunkOf(input, i);
            input.chunks[i] =
                Openings.check(evidence.chunks[i], instruction.tensor(i), row, number, context.modelRoot);
        }
    }

    function _openCells(
        StepInput memory input,
        bytes calldata instruction,
        Evidence calldata evidence,
        Context calldata context
    ) private pure {
        uint256 n = context.position + 1;
        uint256 count = instruction.operands();
        uint256 chain = instruction.chain();
        bool hasEarlier = chain != 0 && context.index - instruction.first(n) >= chain;
        uint256 inner = input.operation == 22 ? input.hint : input.inner;
        require(evidence.cells.length == (hasEarlier ? count + 1 : count), OperandsMissing());
        input.operands = new bytes[](evidence.cells.length);
        for (uint256 i = 0; i < count; i++) {
            (uint256 index, uint256 log2Size) = instruction.operand(i, n, input.outer, inner);
            input.operands[i] =
                Openings.check(evidence.cells[i], index, log2Size, context.tapeRoot, context.tapeDepth);
        }
        if (hasEarlier) {
            input.operands[count] = Openings.check(
                evidence.cells[count], context.index - chain, 0, context.tapeRoot, context.tapeDepth
            );
        }
    }

    /// @dev Row and chunk of the i-th tensor that this step reads.
    function _chunkOf(StepInput memory input, uint256 i) private pure returns (uint256 row, uint256 number) {
        uint256 operation = input.operation;
        if (operation == 7) return (input.inner, input.outer);
        if (operation == 23) return (0, LinearSteps.firstRow(input) / (i == 0 ? 512 : i == 1 ? 1024 : 256));
        if (operation == 9) return (input.position, 0);
        if (operation == 18) return (uint256(LinearSteps.tokenOf(input)), input.outer / 32);
        if (operation == 24) return (0, input.token() / uint256(input.parameter(0)));
        return (0, 0);
    }

    function _step(StepInput memory input) private view returns (bytes memory) {
        uint256 operation = input.operation;
        if (operation == 1) return LinearSteps.copyRow(input);
        if (operation == 2) return LinearSteps.absmax(input);
        if (operation == 3) return LinearSteps.sumOfSquares(input);
        if (operation == 4) return LinearSteps.normScale(input);
        if (operation == 5) return LinearSteps.plainScale(input);
        if (operation == 6) return LinearSteps.quantise(input);
        if (operation == 7) return LinearSteps.dot(input);
        if (operation == 8) return LinearSteps.rescale(input);
        if (operation == 9) return HeadSteps.rotary(input);
        if (operation == 10) return HeadSteps.hadamard(input);
        if (operation == 11) return HeadSteps.quantiseHead(input);
        if (operation == 12) return HeadSteps.keyValueDigest(input);
        if (operation == 13) return LinearSteps.rowDigest(input);
        if (operation == 14) return HeadSteps.score(input);
        if (operation == 15) return HeadSteps.sum(input);
        if (operation == 16) return HeadSteps.attentionOutput(input);
        if (operation == 17) return LinearSteps.gatedUnit(input);
        if (operation == 18) return LinearSteps.embedding(input);
        if (operation == 19) return TokenSteps.largest(input);
        if (operation == 20) return TokenSteps.tokenDigest(input);
        if (operation == 21) return TokenSteps.draw(input);
        if (operation == 22) return TokenSteps.pick(input);
        if (operation == 23) return LinearSteps.rowScales(input);
        if (operation == 24) return LinearSteps.tokenScale(input);
        if (operation == 25) return HeadSteps.headNorm(input);
        if (operation == 26) return TokenSteps.search(input);
        if (operation == 27) return TokenSteps.threshold(input);
        if (operation == 28) return TokenSteps.above(input);
        if (operation == 29) return TokenSteps.cut(input);
        if (operation == 30) return input.operands[0]; // join: the cells one after another
        revert UnknownOperation(operation);
    }
}
