// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Dispute} from "../../zk/contracts/Dispute.sol";
import {Terms, TermsHashing} from "../../zk/contracts/Terms.sol";
import {JobEscrow} from "./JobEscrow.sol";
import {Payouts} from "./Payouts.sol";
import {Receipt} from "./Receipts.sol";

/// @title Who decides that a receipt was wrong
/// @notice An exact answer is judged by `Dispute` alone: anyone may challenge it within its window by putting up a bond,
/// and the game's loser pays, the worker with its stake, the challenger with its bond. Half of what is taken goes to
/// the winner, half is gone, so that nobody gains by losing to himself. A float answer cannot be proven wrong: there,
/// and only there, an account that the genesis names may judge by evidence of its own.
/// @dev Predeployed at genesis: no constructor; the parameters are genesis storage and nobody can change them.
contract Arbiter is Payouts {
    using TermsHashing for Terms;

    uint256 private constant WINNER_PERCENT = 50;

    // Genesis storage.
    JobEscrow public escrow;
    Dispute public dispute;
    /// @notice Who may reject receipts of the float tier; zero for nobody.
    address public judge;
    /// @notice What a challenger puts up, in wei: more than twice what a game's gas costs the worker.
    uint256 public bondWei;

    /// @notice Wei of lost bonds that is gone for good.
    uint256 public burnedWei;
    /// @notice The job that a game in progress is about.
    mapping(bytes32 gameId => bytes32 jobId) public jobOf;

    event Challenged(bytes32 indexed jobId, bytes32 indexed gameId, address indexed challenger, address worker);
    event Resolved(bytes32 indexed jobId, bytes32 indexed gameId, address winner);

    error NotJudge(address caller);
    error NotChallenger(address caller);
    error NotFloatTier(bytes32 jobId);
    error ReceiptNotAccepted(bytes32 jobId);
    error TermsNotOrdered(bytes32 jobId);
    error GameUnknown(bytes32 gameId);
    error GameNotOver(bytes32 gameId);

    /// @notice Disputes an accepted receipt. The bond is taken from the value sent and, where that is less, from the
    /// caller's credit. Several challengers may play at once; whoever wins first ends the job.
    /// @param terms    what the order and the receipt say; their nonce is the job's id
    /// @param receipt  the accepted one, as the escrow's event has it
    function challenge(Terms calldata terms, Receipt calldata receipt) external payable returns (bytes32 gameId) {
        bytes32 jobId = receipt.jobId;
        require(msg.sender == terms.challenger, NotChallenger(msg.sender));
        require(escrow.jobOf(jobId).receiptDigest == escrow.digestOf(receipt), ReceiptNotAccepted(jobId));
        require(
            terms.traceRoot == receipt.traceRoot && terms.worker == receipt.worker
                && terms.modelHash() == receipt.modelHash && terms.requestHash() == receipt.requestHash
                && terms.promptTokens == receipt.inputTokens && terms.answerTokens == receipt.outputTokens
                && terms.nonce == uint256(jobId),
            TermsNotOrdered(jobId)
        );
        _credit(msg.sender, msg.value);
        _debit(msg.sender, bondWei);
        escrow.hold(jobId);
        gameId = dispute.open(terms);
        jobOf[gameId] = jobId;
        emit Challenged(jobId, gameId, msg.sender, receipt.worker);
    }

    /// @notice Does what the outcome of a game asks for. Anyone may call.
    function resolve(Terms calldata terms) external {
        bytes32 gameId = terms.id();
        bytes32 jobId = jobOf[gameId];
        require(jobId != 0, GameUnknown(gameId));
        address winner = dispute.winnerOf(terms);
        require(winner != address(0), GameNotOver(gameId));
        delete jobOf[gameId];
        if (winner == terms.challenger) {
            _credit(winner, bondWei);
            if (escrow.jobOf(jobId).status == JobEscrow.Status.Settling) escrow.reject(jobId, gameId, winner);
        } else {
            uint256 rewardWei = (bondWei * WINNER_PERCENT) / 100;
            burnedWei += bondWei - rewardWei;
            _credit(winner, rewardWei);
        }
        escrow.unhold(jobId);
        emit Resolved(jobId, gameId, winner);
    }

    /// @notice Rejects an accepted receipt of the float tier. Judge only.
    /// @param evidence hash of what anyone can re-check
    /// @param finder   who is paid for finding it
    function reject(bytes32 jobId, bytes32 evidence, address finder) external {
        require(msg.sender == judge, NotJudge(msg.sender));
        require(escrow.jobOf(jobId).tier < escrow.TIER_EXACT(), NotFloatTier(jobId));
        escrow.reject(jobId, evidence, finder);
    }
}
