// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {Integers} from "./Integers.sol";
import {Cells, Chunk, Openings, Row} from "./Openings.sol";
import {Philox} from "./Philox.sol";

/// @notice Which cells a step reads: cell (start + startPerPosition * n + outer * (e / width) + inner * (e % width)) and
/// those after it, 2^log2Size in all. n is the number of positions up to the disputed one.
struct Operand {
    uint256 start;
    uint256 startPerPosition;
    uint256 outer;
    uint256 inner;
    uint256 log2Size;
}

/// @notice One register of the tape: its place, its cells and how each is computed. zk/program.py makes them.
struct Instruction {
    uint256 operation;
    uint256 start;
    uint256 startPerPosition;
    uint256 cells;
    uint256 cellsPerPosition;
    uint256 width;
    bool chained;
    Operand[] operands;
    uint256[] tensors;
    uint256 rowMode;
    uint256 rowLeaf;
    int256[] parameters;
}

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
    using Integers for bytes;
    using Integers for int256;

    /// @dev Contracts whose code is one zero byte, then the table's entries of three bytes each, big-endian.
    address private constant EXP2 = 0x5747000000000000000000000000000000000012;
    address private constant SIGMOID = 0x5747000000000000000000000000000000000013;

    uint256 private constant LOG2_E_Q22 = 6_051_102;

    /// @dev What a step works on.
    struct Input {
        uint256 operation;
        uint256 outer;
        uint256 inner;
        bytes[] operands;
        bytes[] chunks;
        bytes row;
        int256[] parameters;
        uint256 hint;
        uint256 position;
        uint256[5] sampling;
    }

    error NotInThisRegister(uint256 index);
    error OperandsMissing();
    error UnknownOperation(uint256 operation);

    /// @notice The digest that the cell at `context.index` must have: zero for one that pads its register.
    function recompute(Instruction calldata instruction, Evidence calldata evidence, Context calldata context)
        external
        view
        returns (bytes32)
    {
        uint256 n = context.position + 1;
        uint256 start = instruction.start + instruction.startPerPosition * n;
        uint256 cells = instruction.cells + instruction.cellsPerPosition * n;
        require(context.index >= start, NotInThisRegister(context.index));
        uint256 e = context.index - start;
        if (e >= cells) {
            bool isLast = _isDigest(instruction.operation);
            require(isLast || e < (cells + 31) & ~uint256(31), NotInThisRegister(context.index));
            return 0;
        }
        Input memory input;
        input.operation = instruction.operation;
        input.outer = e / instruction.width;
        input.inner = e % instruction.width;
        input.parameters = instruction.parameters;
        input.hint = evidence.hint;
        input.position = context.position;
        input.sampling = context.sampling;
        if (_isAbsent(input)) return 0;
        _open(input, instruction, evidence, context);
        return keccak256(_step(input));
    }

    /// @dev The last register of a program: what follows it pads the tape.
    function _isDigest(uint256 operation) private pure returns (bool) {
        return operation == 12 || operation == 13 || operation == 20;
    }

    /// @dev Rows of a matrix and heads of a position are padded within their register.
    function _isAbsent(Input memory input) private pure returns (bool) {
        if (input.operation == 7 || input.operation == 14 || input.operation == 15) {
            return input.inner >= uint256(input.parameters[0]);
        }
        return false;
    }

    function _open(
        Input memory input,
        Instruction calldata instruction,
        Evidence calldata evidence,
        Context calldata context
    ) private pure {
        _openCells(input, instruction, evidence, context);
        if (instruction.rowMode != 0) {
            // The position itself, each position up to it, or the one before it.
            uint256 mode = instruction.rowMode;
            uint256 position = mode == 1 ? context.position : mode == 2 ? input.outer : context.position - 1;
            input.row = Openings.check(
                evidence.row,
                position * context.leavesPerPosition + instruction.rowLeaf,
                context.rowsRoot,
                context.rowsDepth
            );
        }
        uint256 count = instruction.tensors.length;
        require(evidence.chunks.length == count, OperandsMissing());
        input.chunks = new bytes[](count);
        for (uint256 i = 0; i < count; i++) {
            (uint256 row, uint256 number) = _chunkOf(input, i);
            input.chunks[i] =
                Openings.check(evidence.chunks[i], instruction.tensors[i], row, number, context.modelRoot);
        }
    }

    function _openCells(
        Input memory input,
        Instruction calldata instruction,
        Evidence calldata evidence,
        Context calldata context
    ) private pure {
        uint256 count = instruction.operands.length;
        bool hasEarlier = instruction.chained && input.outer > 0;
        uint256 inner = input.operation == 22 ? input.hint : input.inner;
        require(evidence.cells.length == (hasEarlier ? count + 1 : count), OperandsMissing());
        input.operands = new bytes[](evidence.cells.length);
        for (uint256 i = 0; i < count; i++) {
            Operand calldata operand = instruction.operands[i];
            uint256 index = operand.start + operand.startPerPosition * (context.position + 1)
                + operand.outer * input.outer + operand.inner * inner;
            input.operands[i] =
                Openings.check(evidence.cells[i], index, operand.log2Size, context.tapeRoot, context.tapeDepth);
        }
        if (hasEarlier) {
            input.operands[count] = Openings.check(
                evidence.cells[count], context.index - instruction.width, 0, context.tapeRoot, context.tapeDepth
            );
        }
    }

    /// @dev Row and chunk of the i-th tensor that this step reads.
    function _chunkOf(Input memory input, uint256 i) private pure returns (uint256 row, uint256 number) {
        if (input.operation == 7) return (input.inner, input.outer);
        if (input.operation == 8) return (0, input.outer / (i == 0 ? 16 : i == 1 ? 32 : 8));
        if (input.operation == 9) return (input.position, 0);
        uint256 token = _token(input.row);
        return i == 0 ? (token, input.outer / 32) : (0, token / (i == 1 ? 512 : 1024));
    }

    function _step(Input memory input) private view returns (bytes memory) {
        uint256 operation = input.operation;
        if (operation == 1) return _copyRow(input);
        if (operation == 2) return _absmax(input);
        if (operation == 3) return _sumOfSquares(input);
        if (operation == 4) return _normScale(input);
        if (operation == 5) return _plainScale(input);
        if (operation == 6) return _quantise(input);
        if (operation == 7) return _dot(input);
        if (operation == 8) return _rescale(input);
        if (operation == 9) return _rotary(input);
        if (operation == 10) return _hadamard(input);
        if (operation == 11) return _quantiseHead(input);
        if (operation == 12) return _keyValueDigest(input);
        if (operation == 13) return _rowDigest(input);
        if (operation == 14) return _score(input);
        if (operation == 15) return _sum(input);
        if (operation == 16) return _attentionOutput(input);
        if (operation == 17) return _gatedUnit(input);
        if (operation == 18) return _embedding(input);
        if (operation == 19) return _largest(input);
        if (operation == 20) return _tokenDigest(input);
        if (operation == 21) return _weights(input);
        if (operation == 22) return _pick(input);
        revert UnknownOperation(operation);
    }

    // Vectors

    function _copyRow(Input memory input) private pure returns (bytes memory tile) {
        tile = new bytes(128);
        for (uint256 i = 0; i < 4; i++) {
            uint256 value = input.row.word(128 * input.outer + 32 * i);
            assembly ("memory-safe") {
                mstore(add(add(tile, 32), mul(i, 32)), value)
            }
        }
    }

    function _absmax(Input memory input) private pure returns (bytes memory) {
        unchecked {
            bytes memory tile = input.operands[0];
            int256 a = input.outer > 0 ? input.operands[1].int64At(0) : int256(1);
            for (uint256 i = 0; i < 32; i++) {
                int256 size = tile.int32At(i).magnitude();
                if (size > a) a = size;
            }
            return Integers.scalars(a);
        }
    }

    function _shiftOf(int256 a) private pure returns (int256 k) {
        k = a.bitLength() - 24;
        if (k < -16) k = -16;
    }

    function _sumOfSquares(Input memory input) private pure returns (bytes memory) {
        unchecked {
            bytes memory tile = input.operands[0];
            int256 k = _shiftOf(input.operands[1].int64At(0));
            int256 sum = input.outer > 0 ? input.operands[2].int64At(0) : int256(0);
            for (uint256 i = 0; i < 32; i++) {
                int256 x = tile.int32At(i).shiftRight(k);
                sum += x * x;
            }
            return Integers.scalars(sum);
        }
    }

    /// @dev Parameters: width d, epsilon_q48, residual fraction F.
    function _normScale(Input memory input) private pure returns (bytes memory) {
        int256 a = input.operands[0].int64At(0);
        int256 width = input.parameters[0];
        int256 k = _shiftOf(a);
        int256 sum = input.operands[1].int64At(0)
            + (input.parameters[1] * width).shiftRight(48 + 2 * k - 2 * input.parameters[2]);
        int256 r = int256(Math.sqrt(uint256(sum / width)));
        if (r < 1) r = 1;
        (int256 ma, int256 ea) = a.mantissa();
        (int256 m, int256 e) = ((ma << 32) / r).mantissa();
        return Integers.scalars(m, e + ea - 32 - k);
    }

    function _plainScale(Input memory input) private pure returns (bytes memory) {
        (int256 m, int256 e) = input.operands[0].int64At(0).mantissa();
        return Integers.scalars(m, e - input.parameters[0]);
    }

    /// @dev Parameter: bits. Two limbs lie behind one another, 32 bytes each.
    function _quantise(Input memory input) private pure returns (bytes memory q) {
        unchecked {
            bytes memory tile = input.operands[0];
            bool wide = input.parameters[0] == 16;
            int256 reciprocal = (int256(wide ? int256(32639) : int256(127)) << 40) / input.operands[1].int64At(0);
            q = new bytes(wide ? 64 : 32);
            for (uint256 i = 0; i < 32; i++) {
                int256 value = tile.int32At(i).quantise(reciprocal);
                if (wide) {
                    int256 high = (value + 128) >> 8;
                    q[i] = bytes1(uint8(uint256(high)));
                    q[32 + i] = bytes1(uint8(uint256(value - 256 * high)));
                } else {
                    q[i] = bytes1(uint8(uint256(value)));
                }
            }
        }
    }

    /// @dev Parameters: rows of the matrix, bits.
    function _dot(Input memory input) private pure returns (bytes memory) {
        unchecked {
            bytes memory q = input.operands[0];
            bytes memory weights = input.chunks[0];
            bool wide = input.parameters[1] == 16;
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

    /// @dev Parameters: output fraction, and what is added: 0 nothing, 1 the bias, 2 the residual.
    function _rescale(Input memory input) private pure returns (bytes memory tile) {
        unchecked {
            tile = new bytes(128);
            bytes memory acc = input.operands[0];
            int256 scale = input.operands[1].int64At(0);
            int256 shift = -(8 + input.operands[1].int64At(1) + input.parameters[0]);
            for (uint256 i = 0; i < 32; i++) {
                uint256 n = 32 * input.outer + i;
                int256 u = (acc.int64At(i) * input.chunks[0].uint16At(n % 512)).roundShift(8);
                int256 v = (u * scale).roundShift(shift - input.chunks[1].int8At(n % 1024));
                if (input.parameters[1] == 1) v += input.chunks[2].int32At(n % 256);
                if (input.parameters[1] == 2) v += input.operands[2].int32At(i);
                tile.putInt32(i, v.saturate());
            }
        }
    }

    // Heads

    function _rotary(Input memory input) private pure returns (bytes memory head) {
        unchecked {
            bytes memory z = input.operands[0];
            head = new bytes(z.length);
            uint256 half = z.length / 8;
            for (uint256 i = 0; i < half; i++) {
                int256 c = int16(uint16(uint256(input.chunks[0].uint16At(i))));
                int256 s = int16(uint16(uint256(input.chunks[1].uint16At(i))));
                int256 first = z.int32At(i);
                int256 second = z.int32At(half + i);
                head.putInt32(i, (first * c - second * s).roundShift(14).saturate());
                head.putInt32(half + i, (second * c + first * s).roundShift(14).saturate());
            }
        }
    }

    function _hadamard(Input memory input) private pure returns (bytes memory head) {
        unchecked {
            bytes memory z = input.operands[0];
            uint256 width = z.length / 4;
            int256[] memory sums = new int256[](width);
            for (uint256 i = 0; i < width; i++) sums[i] = z.int32At(i);
            for (uint256 stride = 1; stride < width; stride <<= 1) {
                for (uint256 i = 0; i < width; i++) {
                    if (i & stride != 0) continue;
                    (sums[i], sums[i + stride]) = (sums[i] + sums[i + stride], sums[i] - sums[i + stride]);
                }
            }
            int256 shift = int256(Math.log2(width) / 2);
            head = new bytes(z.length);
            for (uint256 i = 0; i < width; i++) head.putInt32(i, sums[i].roundShift(shift).saturate());
        }
    }

    /// @dev The canonical bytes of a key or value head: int8 entries, then their magnitude.
    function _quantiseHead(Input memory input) private pure returns (bytes memory head) {
        unchecked {
            bytes memory z = input.operands[0];
            uint256 width = z.length / 4;
            int256 a = 1;
            for (uint256 i = 0; i < width; i++) {
                int256 size = z.int32At(i).magnitude();
                if (size > a) a = size;
            }
            int256 reciprocal = (int256(127) << 40) / a;
            head = new bytes(width + 4);
            for (uint256 i = 0; i < width; i++) head[i] = bytes1(uint8(uint256(z.int32At(i).quantise(reciprocal))));
            for (uint256 i = 0; i < 4; i++) head[width + i] = bytes1(uint8(uint256(a) >> (8 * i)));
        }
    }

    /// @dev Parameter: bytes of a head.
    function _keyValueDigest(Input memory input) private pure returns (bytes memory) {
        bytes memory row;
        uint256 headBytes = uint256(input.parameters[0]);
        for (uint256 start = 0; start < input.operands[0].length; start += headBytes) {
            bytes memory key = _slice(input.operands[0], start, headBytes);
            row = abi.encodePacked(row, key, _slice(input.operands[1], start, headBytes));
        }
        return abi.encodePacked(sha256(row));
    }

    function _rowDigest(Input memory input) private pure returns (bytes memory) {
        bytes memory row;
        for (uint256 i = 0; i < input.operands.length; i++) row = abi.encodePacked(row, input.operands[i]);
        return abi.encodePacked(sha256(row));
    }

    // Attention

    /// @dev Parameters: heads, heads for each key head, head width, attention mantissa and exponent.
    function _score(Input memory input) private pure returns (bytes memory) {
        uint256 width = uint256(input.parameters[2]);
        uint256 key = 2 * (input.inner / uint256(input.parameters[1])) * (width + 4);
        bytes memory query = input.operands[0];
        int256 dot;
        for (uint256 i = 0; i < width; i += 32) {
            dot += Integers.dot32(query.word(i), input.row.word(key + i));
        }
        (int256 mq, int256 eq) = (_magnitudeAt(query, width) * input.parameters[3]).mantissa();
        (int256 mk, int256 ek) = _magnitudeAt(input.row, key + width).mantissa();
        int256 s = (dot * mk * mq).roundShift(-(eq + ek + input.parameters[4] - 8));
        if (s > 2 ** 30) s = 2 ** 30;
        if (s < -(2 ** 30)) s = -(2 ** 30);
        int256 top = s;
        int256 loudest = s + (_magnitudeAt(input.row, key + 2 * width + 4).bitLength() << 16);
        if (input.outer > 0) {
            top = _larger(top, input.operands[1].int64At(1));
            loudest = _larger(loudest, input.operands[1].int64At(2));
        }
        return Integers.scalars(s, top, loudest);
    }

    /// @dev Parameters: heads, heads for each key head, head width. Cells: D, then N.
    function _sum(Input memory input) private view returns (bytes memory cell) {
        unchecked {
            uint256 width = uint256(input.parameters[2]);
            uint256 value = (2 * (input.inner / uint256(input.parameters[1])) + 1) * (width + 4);
            (int256 top, int256 t) = _topAndShift(input.operands[1]);
            int256 delta = top - input.operands[0].int64At(0);
            int256 p = _exp2(delta);
            int256 w = (p * _magnitudeAt(input.row, value + width)).roundShift(t);
            if (w > 32767) w = 32767;
            cell = new bytes(8 + 8 * width);
            bool first = input.outer == 0;
            cell.putInt64(0, first ? p : p + input.operands[2].int64At(0));
            for (uint256 i = 0; i < width; i++) {
                int256 product = w * input.row.int8At(value + i);
                cell.putInt64(i + 1, first ? product : product + input.operands[2].int64At(i + 1));
            }
        }
    }

    function _attentionOutput(Input memory input) private pure returns (bytes memory tile) {
        unchecked {
            (, int256 t) = _topAndShift(input.operands[1]);
            int256 total = input.operands[0].int64At(0);
            int256 b = total.bitLength();
            int256 reciprocal = int256(1 << uint256(b + 22)) / (127 * total);
            tile = new bytes(128);
            for (uint256 i = 0; i < 32; i++) {
                int256 mixed = input.operands[0].int64At(1 + 32 * input.inner + i);
                tile.putInt32(i, (mixed * reciprocal).roundShift(b + 18 - t).saturate());
            }
        }
    }

    function _topAndShift(bytes memory score) private pure returns (int256 top, int256 t) {
        top = score.int64At(1);
        t = 5 + ((score.int64At(2) - top + 65535) >> 16);
    }

    // Feed-forward, embedding, choice

    /// @dev Parameter: hidden fraction.
    function _gatedUnit(Input memory input) private view returns (bytes memory tile) {
        unchecked {
            tile = new bytes(128);
            for (uint256 i = 0; i < 32; i++) {
                int256 gate = input.operands[0].int32At(i);
                int256 clamped = gate < -65536 ? int256(-65536) : gate > 65535 ? int256(65535) : gate;
                uint256 place = uint256(clamped + 65536);
                int256 low = _entry(SIGMOID, place >> 5);
                int256 sigma = low + (((_entry(SIGMOID, (place >> 5) + 1) - low) * int256(place & 31)) >> 5);
                int256 silu = (gate * sigma).roundShift(16);
                tile.putInt32(i, (silu * input.operands[1].int32At(i)).roundShift(24 - input.parameters[0]).saturate());
            }
        }
    }

    /// @dev Parameter: residual fraction.
    function _embedding(Input memory input) private pure returns (bytes memory tile) {
        unchecked {
            uint256 token = _token(input.row);
            int256 scale = input.chunks[1].uint16At(token % 512);
            int256 shift = -(input.chunks[2].int8At(token % 1024) + input.parameters[0]);
            tile = new bytes(128);
            for (uint256 i = 0; i < 32; i++) {
                int256 weight = input.chunks[0].int8At((32 * input.outer) % 1024 + i);
                tile.putInt32(i, (weight * scale).roundShift(shift).saturate());
            }
        }
    }

    /// @dev Cells: the largest logit so far and the lowest index that has it.
    function _largest(Input memory input) private pure returns (bytes memory) {
        bool first = input.outer == 0;
        int256 best = first ? type(int256).min : input.operands[1].int64At(0);
        int256 index = first ? int256(0) : input.operands[1].int64At(1);
        for (uint256 i = 0; i < 32; i++) {
            int256 logit = input.operands[0].int32At(i);
            if (logit > best) (best, index) = (logit, int256(32 * input.outer + i));
        }
        return Integers.scalars(best, index);
    }

    /// @dev Operand: the largest logit with its index for greedy choice, the picked token otherwise.
    function _tokenDigest(Input memory input) private pure returns (bytes memory) {
        uint256 token = uint256(input.operands[input.sampling[0] == 0 ? 0 : 1].int64At(input.sampling[0] == 0 ? 1 : 0));
        return abi.encodePacked(sha256(_token(token)));
    }

    /// @dev Cells: the sum of the weights of all logits up to and with this tile.
    function _weights(Input memory input) private view returns (bytes memory) {
        unchecked {
            int256 sum = input.outer > 0 ? input.operands[2].int64At(0) : int256(0);
            if (input.sampling[0] == 0) return Integers.scalars(0);
            int256 top = input.operands[1].int64At(0);
            for (uint256 i = 0; i < 32; i++) sum += _weight(input, top - input.operands[0].int32At(i));
            return Integers.scalars(sum);
        }
    }

    /// @dev Operands: total, tile of logits, largest logit, sum up to and with the tile. The hint says which of
    /// `parameters[0]` tiles.
    function _pick(Input memory input) private view returns (bytes memory) {
        if (input.sampling[0] == 0) return Integers.scalars(0);
        require(input.hint < uint256(input.parameters[0]), OperandsMissing());
        uint256 total = uint256(input.operands[0].int64At(0));
        int256 drawn = int256((Philox.uniform(input.sampling[3], input.position, input.sampling[4]) * total) >> 64);
        int256 top = input.operands[2].int64At(0);
        int256 sum = input.operands[3].int64At(0);
        int256[32] memory weights;
        for (uint256 i = 0; i < 32; i++) {
            weights[i] = _weight(input, top - input.operands[1].int32At(i));
            sum -= weights[i];
        }
        require(sum <= drawn, OperandsMissing());
        for (uint256 i = 0; i < 32; i++) {
            sum += weights[i];
            if (sum > drawn) return Integers.scalars(int256(32 * input.hint + i));
        }
        revert OperandsMissing();
    }

    function _weight(Input memory input, int256 distance) private view returns (int256) {
        int256 factor = int256((LOG2_E_Q22 << 16) / input.sampling[0]);
        int256 d = (distance * factor) >> 22;
        int256 entry = _entry(EXP2, uint256(d & 65535) >> 4);
        return (entry << 20).shiftRight(d >> 16);
    }

    // Parts

    function _exp2(int256 delta) private view returns (int256) {
        return _entry(EXP2, uint256(delta & 65535) >> 4).shiftRight(delta >> 16);
    }

    function _entry(address table, uint256 index) private view returns (int256 value) {
        assembly ("memory-safe") {
            mstore(0, 0)
            extcodecopy(table, 29, add(1, mul(3, index)), 3)
            value := mload(0)
        }
    }

    function _token(bytes memory row) private pure returns (uint256) {
        require(row.length == 4, OperandsMissing());
        return uint256(row.int32At(0)) & 0xffffffff;
    }

    function _token(uint256 token) private pure returns (bytes memory row) {
        row = new bytes(4);
        row.putInt32(0, int256(token));
    }

    function _magnitudeAt(bytes memory data, uint256 start) private pure returns (int256) {
        require(start + 4 <= data.length, OperandsMissing());
        return _slice(data, start, 4).int32At(0);
    }

    function _slice(bytes memory data, uint256 start, uint256 size) private pure returns (bytes memory part) {
        require(start + size <= data.length, OperandsMissing());
        part = new bytes(size);
        assembly ("memory-safe") {
            mcopy(add(part, 32), add(add(data, 32), start), size)
        }
    }

    function _larger(int256 x, int256 y) private pure returns (int256) {
        return x > y ? x : y;
    }
}
