// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Integers} from "./Integers.sol";
import {Philox} from "./Philox.sol";
import {OperandsMissing, StepInput, StepInputs} from "./StepInput.sol";
import {Tables} from "./Tables.sol";

/// @title Steps from logits to the token
/// @notice What top_k and top_p keep is everything above a threshold and the first few that equal it; the threshold is
/// found bit by bit, by 32 passes that count or weigh what is not below a candidate. Logits are compared with 2^31
/// added, so that they are positive; threshold 0 keeps all. zk/choice.py is the twin.
library TokenSteps {
    using Integers for bytes;
    using Integers for int256[];
    using StepInputs for StepInput;

    uint256 private constant LOG2_E_Q22 = 6_051_102;
    int256 private constant BIAS = 2 ** 31;
    int256 private constant BY_COUNT = 0;
    uint256 private constant TOP_P_OFF = 1 << 16;

    /// @dev A cell of CUT: what is kept. `total` is its weight.
    struct Cut {
        int256 threshold;
        int256 equals;
        int256 total;
    }

    /// @dev Cells: the largest logit so far and the lowest index that has it.
    function largest(StepInput memory input) internal pure returns (bytes memory) {
        unchecked {
            int256[] memory logits = input.operands[0].int32s();
            bool first = input.outer == 0;
            int256 best = first ? type(int256).min : input.operands[1].int64At(0);
            int256 index = first ? int256(0) : input.operands[1].int64At(1);
            for (uint256 i = 0; i < logits.length; i++) {
                if (logits[i] > best) (best, index) = (logits[i], int256(32 * input.outer + i));
            }
            return Integers.scalars(best, index);
        }
    }

    /// @dev Parameter: by count or by weight. Operands: logits, largest, the earlier cut when by weight. Cells: the
    /// threshold so far, and the measure in this pass, up to this tile, of what is not below the candidate.
    function search(StepInput memory input) internal view returns (bytes memory) {
        unchecked {
            int256 kind = input.parameter(0);
            if (_isOff(input, kind)) return Integers.scalars(0, 0);
            uint256 own = kind == BY_COUNT ? 2 : 3;
            (int256 bound, int256 measure) = (int256(0), int256(0));
            if (input.outer > 0 || input.inner > 0) {
                bound = input.operands[own].int64At(0);
                measure = input.operands[own].int64At(1);
            }
            if (input.inner == 0) {
                if (input.outer > 0 && measure >= _target(input, kind, 2)) {
                    bound |= BIAS >> (input.outer - 1);
                }
                measure = 0;
            }
            int256 candidate = bound | (BIAS >> input.outer);
            return Integers.scalars(bound, measure + _measure(input, kind, candidate));
        }
    }

    function _measure(StepInput memory input, int256 kind, int256 candidate) private view returns (int256 measure) {
        unchecked {
            int256[] memory logits = input.operands[0].int32s();
            if (kind == BY_COUNT) {
                for (uint256 i = 0; i < logits.length; i++) if (logits[i] + BIAS >= candidate) measure++;
                return measure;
            }
            Cut memory earlier = _cut(input.operands[2]);
            int256 top = input.operands[1].int64At(0);
            for (uint256 i = 0; i < logits.length; i++) {
                int256 logit = logits[i] + BIAS;
                if (logit >= candidate && logit > earlier.threshold) measure += _weight(input, top - logits[i]);
            }
            // Those that top_k keeps at its threshold count once.
            if (input.inner == 0 && candidate <= earlier.threshold) {
                measure += earlier.equals * _weight(input, top - (earlier.threshold - BIAS));
            }
        }
    }

    /// @dev Parameter: by count or by weight. Operands: the last cell of the search, the earlier cut when by weight.
    function threshold(StepInput memory input) internal pure returns (bytes memory) {
        int256 kind = input.parameter(0);
        if (_isOff(input, kind)) return Integers.scalars(0);
        int256 found = input.operands[0].int64At(0);
        bool reached = input.operands[0].int64At(1) >= _target(input, kind, 1);
        return Integers.scalars(reached ? found | 1 : found);
    }

    /// @dev Operands: logits, largest, threshold. Cells: number and weight of the logits above it, up to this tile.
    function above(StepInput memory input) internal view returns (bytes memory) {
        unchecked {
            if (_isGreedy(input)) return Integers.scalars(0, 0);
            int256[] memory logits = input.operands[0].int32s();
            int256 top = input.operands[1].int64At(0);
            int256 bound = input.operands[2].int64At(0) - BIAS;
            (int256 count, int256 weight) = (int256(0), int256(0));
            if (input.outer > 0) {
                count = input.operands[3].int64At(0);
                weight = input.operands[3].int64At(1);
            }
            for (uint256 i = 0; i < logits.length; i++) {
                if (logits[i] <= bound) continue;
                count++;
                weight += _weight(input, top - logits[i]);
            }
            return Integers.scalars(count, weight);
        }
    }

    /// @dev Parameter: by count or by weight. Operands: the last of `above`, largest, threshold, the earlier cut when by
    /// weight. Cell: threshold, how many that equal it are kept, weight of all that is kept.
    function cut(StepInput memory input) internal view returns (bytes memory) {
        if (_isGreedy(input)) return Integers.scalars(0, 0, 0);
        int256 kind = input.parameter(0);
        if (kind != BY_COUNT && _isOff(input, kind)) return input.operands[3];
        int256 bound = input.operands[2].int64At(0);
        int256 weight = input.operands[0].int64At(1);
        if (bound == 0) return Integers.scalars(0, 0, weight);
        int256 each = _weight(input, input.operands[1].int64At(0) - (bound - BIAS));
        int256 equals = _target(input, kind, 3) - (kind == BY_COUNT ? input.operands[0].int64At(0) : weight);
        if (kind != BY_COUNT) equals = (equals + each - 1) / each;
        return Integers.scalars(bound, equals, weight + equals * each);
    }

    /// @dev Operands: logits, largest, cut. Cells: the weight of what is kept, and the number of logits that equal the
    /// threshold, up to this tile.
    function draw(StepInput memory input) internal view returns (bytes memory) {
        unchecked {
            if (_isGreedy(input)) return Integers.scalars(0, 0);
            (int256 sum, int256 equals) = (int256(0), int256(0));
            if (input.outer > 0) {
                sum = input.operands[3].int64At(0);
                equals = input.operands[3].int64At(1);
            }
            (int256[] memory weights, int256 own) = _kept(input, equals);
            for (uint256 i = 0; i < weights.length; i++) sum += weights[i];
            return Integers.scalars(sum, equals + own);
        }
    }

    /// @dev Parameter: tiles. Operands: a tile of logits, largest, cut, the cell of `draw` of the same tile. The hint
    /// says which tile holds the token.
    function pick(StepInput memory input) internal view returns (bytes memory) {
        if (_isGreedy(input)) return Integers.scalars(0);
        require(input.hint < uint256(input.parameter(0)), OperandsMissing());
        uint256 total = uint256(input.operands[2].int64At(2));
        int256 drawn = int256((Philox.uniform(input.sampling[3], input.position, input.sampling[4]) * total) >> 64);
        (int256[] memory weights,) = _kept(input, input.operands[3].int64At(1) - _equalsInTile(input));
        int256 sum = input.operands[3].int64At(0);
        for (uint256 i = 0; i < weights.length; i++) sum -= weights[i];
        require(sum <= drawn, OperandsMissing());
        for (uint256 i = 0; i < weights.length; i++) {
            sum += weights[i];
            if (sum > drawn) return Integers.scalars(int256(32 * input.hint + i));
        }
        revert OperandsMissing();
    }

    /// @dev Operands: the largest logit with its index, for greedy choice; the picked token.
    function tokenDigest(StepInput memory input) internal pure returns (bytes memory) {
        int256[] memory token = new int256[](1);
        token[0] = _isGreedy(input) ? input.operands[0].int64At(1) : input.operands[1].int64At(0);
        return abi.encodePacked(sha256(token.packInt32()));
    }

    /// @dev The weights of a tile, 0 for what is not kept; `equals` logits of earlier tiles equal the threshold. Also how
    /// many of this tile do. Operands: logits, largest, cut.
    function _kept(StepInput memory input, int256 equals) private view returns (int256[] memory kept, int256 own) {
        unchecked {
            kept = input.operands[0].int32s();
            int256 top = input.operands[1].int64At(0);
            Cut memory last = _cut(input.operands[2]);
            for (uint256 i = 0; i < kept.length; i++) {
                int256 logit = kept[i] + BIAS;
                bool isKept = logit > last.threshold;
                if (logit == last.threshold) {
                    isKept = equals + own < last.equals;
                    own++;
                }
                kept[i] = isKept ? _weight(input, top - kept[i]) : int256(0);
            }
        }
    }

    function _equalsInTile(StepInput memory input) private pure returns (int256 own) {
        unchecked {
            int256[] memory logits = input.operands[0].int32s();
            int256 bound = input.operands[2].int64At(0) - BIAS;
            for (uint256 i = 0; i < logits.length; i++) if (logits[i] == bound) own++;
        }
    }

    function _cut(bytes memory cell) private pure returns (Cut memory) {
        return Cut(cell.int64At(0), cell.int64At(1), cell.int64At(2));
    }

    /// @dev What is kept must count, or weigh, at least this. The earlier cut is operand number `earlier`.
    function _target(StepInput memory input, int256 kind, uint256 earlier) private pure returns (int256) {
        if (kind == BY_COUNT) return int256(input.sampling[1]);
        return (input.operands[earlier].int64At(2) >> 16) * int256(input.sampling[2]);
    }

    function _isGreedy(StepInput memory input) private pure returns (bool) {
        return input.sampling[0] == 0;
    }

    function _isOff(StepInput memory input, int256 kind) private pure returns (bool) {
        return _isGreedy(input) || (kind == BY_COUNT ? input.sampling[1] == 0 : input.sampling[2] >= TOP_P_OFF);
    }

    function _weight(StepInput memory input, int256 distance) private view returns (int256) {
        unchecked {
            int256 factor = int256((LOG2_E_Q22 << 16) / input.sampling[0]);
            return Tables.weight((distance * factor) >> 22);
        }
    }
}
