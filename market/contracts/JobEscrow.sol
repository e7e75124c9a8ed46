// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Payouts} from "./Payouts.sol";
import {Receipt, Receipts} from "./Receipts.sol";
import {TypedDomain} from "./TypedDomain.sol";
import {WorkerRegistry} from "./WorkerRegistry.sol";

/// @title A client's money between its order and the worker's receipt
/// @notice A job is funded with its maximum price when it is opened. The coordinator that the client chose commits
/// batches of signed receipts under a Merkle root; an accepted receipt fixes the payment, which is released after a
/// challenge window, the rest going back to the client. Every job ends in exactly one of Paid, Refunded, Expired and
/// Rejected, and the four together pay out exactly what was put in.
/// @dev Predeployed at genesis: no constructor; the parameters are genesis storage and nobody can change them.
contract JobEscrow is Payouts, TypedDomain {
    using Receipts for Receipt;

    /// @notice Most receipts in one batch.
    uint256 public constant BATCH_RECEIPTS_MAX = 65536;
    /// @notice Most receipts settled by one call: at about 72,000 gas each they stay within a transaction's 2^24
    /// (EIP-7825).
    uint256 public constant SETTLE_RECEIPTS_MAX = 128;
    /// @notice Furthest deadline of an order, in seconds from its opening.
    uint256 public constant DEADLINE_SECONDS_MAX = 30 days;
    /// @notice Highest tier.
    uint8 public constant TIER_EXACT = 1;

    enum Status {
        Unknown,
        Funded,
        Settling, // a receipt was accepted; its payment waits for the challenge window
        Paid,
        Refunded, // given up by its coordinator
        Expired,
        Rejected // its receipt was proven wrong
    }

    /// @param coordinator  who may settle this job or give it up; the client itself for a direct job
    /// @param worker       the only worker that may be paid, or zero for any that the coordinator picks
    /// @param tier         the tier that the receipt must have
    /// @param deadline     Unix time in seconds by which the answer must be finished
    /// @param priceMaxWei  what is put in escrow, and the most that can be paid
    /// @param modelHash    the model that must answer
    /// @param requestHash  salted hash of the request
    /// @param nonce        any number that the client has not used: with the client, it makes the id
    struct Order {
        address coordinator;
        address worker;
        uint8 tier;
        uint64 deadline;
        uint128 priceMaxWei;
        bytes32 modelHash;
        bytes32 requestHash;
        uint256 nonce;
    }

    /// @param worker         the ordered worker; once a receipt is accepted, the one that gave it
    /// @param releaseAt      Unix time in seconds from which an accepted receipt's payment can be released
    /// @param holds          disputes about the accepted receipt that are not over; nothing is released meanwhile
    /// @param paymentWei     what the accepted receipt asks for
    /// @param receiptDigest  EIP-712 digest of the accepted receipt; exact tier only
    struct Job {
        address client;
        uint64 deadline;
        uint8 tier;
        Status status;
        address coordinator;
        uint64 releaseAt;
        uint32 holds;
        address worker;
        uint128 priceMaxWei;
        uint128 paymentWei;
        bytes32 modelHash;
        bytes32 requestHash;
        bytes32 receiptDigest;
    }

    /// @param committedAt  Unix time in seconds
    struct Batch {
        bytes32 root;
        address coordinator;
        uint32 size;
        uint64 committedAt;
    }

    // Genesis storage.
    /// @notice Where workers stake and name their keys.
    WorkerRegistry public registry;
    /// @notice Who may reject a receipt: the account or contract that judges evidence.
    address public arbiter;
    /// @notice Seconds between an accepted receipt of the float tier and its payment.
    uint256 public challengeSeconds;
    /// @notice The same for the exact tier: long enough to run an answer again and dispute it.
    uint256 public exactChallengeSeconds;
    /// @notice Seconds after its deadline during which a job can still be settled; then it can be expired.
    uint256 public settlementSeconds;
    /// @notice How many times the maximum price a rejected receipt costs its worker.
    uint256 public penaltyMultiple;

    /// @notice How many batches there are; they are numbered from 0.
    uint256 public batchCount;
    mapping(uint256 batchId => Batch) public batches;
    mapping(bytes32 jobId => Job) private _jobs;

    event JobOpened(bytes32 indexed jobId, address indexed client, address indexed coordinator, Order order);
    event BatchCommitted(uint256 indexed batchId, address indexed coordinator, bytes32 root, uint256 size);
    event ReceiptAccepted(
        bytes32 indexed jobId,
        uint256 indexed batchId,
        address indexed worker,
        uint256 index,
        uint256 releaseAt,
        Receipt receipt,
        bytes signature
    );
    event JobPaid(bytes32 indexed jobId, address indexed worker, uint256 paidWei, uint256 refundedWei);
    event JobRefunded(bytes32 indexed jobId, uint256 refundedWei);
    event JobExpired(bytes32 indexed jobId, uint256 refundedWei);
    event JobRejected(
        bytes32 indexed jobId, address indexed worker, address indexed finder, bytes32 evidence, uint256 slashedWei
    );

    error JobExists(bytes32 jobId);
    error JobNotFunded(bytes32 jobId, Status status);
    error JobNotSettling(bytes32 jobId, Status status);
    error DeadlineInvalid(uint256 deadline, uint256 earliest, uint256 latest);
    error CoordinatorMissing();
    error TierUnknown(uint256 tier);
    error BatchSizeInvalid(uint256 size, uint256 sizeMax);
    error SignatureCountWrong(uint256 receipts, uint256 signatures);
    error BatchUnknown(uint256 batchId);
    error RootMismatch(uint256 batchId, bytes32 root);
    error JobNotHeld(bytes32 jobId);
    error NotCoordinator(bytes32 jobId, address caller);
    error NotArbiter(address caller);
    error SettlementClosed(bytes32 jobId, uint256 closedAt);
    error NotYetExpired(bytes32 jobId, uint256 expiresAt);
    error ChallengeClosed(bytes32 jobId, uint256 closedAt);
    error WrongWorker(bytes32 jobId, address worker);
    error WrongModel(bytes32 jobId, bytes32 modelHash);
    error WrongRequest(bytes32 jobId, bytes32 requestHash);
    error WrongTier(bytes32 jobId, uint256 tier);
    error TraceTierMismatch(bytes32 jobId);
    error TimesInvalid(bytes32 jobId, uint256 startedAtMs, uint256 finishedAtMs);
    error TotalWrong(bytes32 jobId, uint256 totalWei);
    error PriceAboveMaximum(bytes32 jobId, uint256 totalWei, uint256 priceMaxWei);
    error SignatureInvalid(bytes32 jobId);
    error WorkerNotBonded(bytes32 jobId, address worker, uint256 bondedUntil);

    /// @notice Opens and funds a job, from the value sent and, where that is less, from the caller's credit.
    /// @return jobId see `jobIdOf`
    function open(Order calldata order) external payable returns (bytes32 jobId) {
        jobId = jobIdOf(msg.sender, order.nonce);
        require(_jobs[jobId].status == Status.Unknown, JobExists(jobId));
        require(order.coordinator != address(0), CoordinatorMissing());
        require(order.tier <= TIER_EXACT, TierUnknown(order.tier));
        uint256 latest = block.timestamp + DEADLINE_SECONDS_MAX;
        require(
            order.deadline > block.timestamp && order.deadline <= latest,
            DeadlineInvalid(order.deadline, block.timestamp + 1, latest)
        );
        _credit(msg.sender, msg.value);
        _debit(msg.sender, order.priceMaxWei);
        _jobs[jobId] = Job({
            client: msg.sender,
            deadline: order.deadline,
            tier: order.tier,
            status: Status.Funded,
            coordinator: order.coordinator,
            releaseAt: 0,
            holds: 0,
            worker: order.worker,
            priceMaxWei: order.priceMaxWei,
            paymentWei: 0,
            modelHash: order.modelHash,
            requestHash: order.requestHash,
            receiptDigest: 0
        });
        emit JobOpened(jobId, msg.sender, order.coordinator, order);
    }

    /// @notice Commits a batch and accepts all its receipts. If one cannot be accepted, nothing happens, and the error
    /// names its job.
    function settle(Receipt[] calldata receipts, bytes[] calldata signatures) external returns (uint256 batchId) {
        uint256 size = receipts.length;
        _requireSize(size, SETTLE_RECEIPTS_MAX);
        require(signatures.length == size, SignatureCountWrong(size, signatures.length));
        bytes32[] memory leaves = new bytes32[](size);
        for (uint256 i = 0; i < size; i++) {
            leaves[i] = Receipts.leaf(_digest(receipts[i].structHash()));
        }
        batchId = _commit(Receipts.root(leaves), size);
        for (uint256 i = 0; i < size; i++) {
            _accept(batchId, i, msg.sender, receipts[i], signatures[i]);
        }
    }

    /// @notice Commits a batch by its root alone; its receipts are accepted one by one through `claim`.
    function commit(bytes32 root, uint256 size) external returns (uint256 batchId) {
        _requireSize(size, BATCH_RECEIPTS_MAX);
        return _commit(root, size);
    }

    /// @notice Accepts one receipt of a committed batch, on proof of its inclusion. Anyone may call.
    function claim(
        uint256 batchId,
        uint256 index,
        Receipt calldata receipt,
        bytes calldata signature,
        bytes32[] calldata proof
    ) external {
        require(batchId < batchCount, BatchUnknown(batchId));
        Batch storage batch = batches[batchId];
        bytes32 root =
            Receipts.rootFromProof(Receipts.leaf(_digest(receipt.structHash())), index, batch.size, proof);
        require(root == batch.root, RootMismatch(batchId, root));
        _accept(batchId, index, batch.coordinator, receipt, signature);
    }

    /// @notice Pays those of `jobIds` whose challenge window is over and leaves the others as they are, so that nobody
    /// can spoil a long list by releasing one of its jobs first. Anyone may call.
    /// @return paid how many were paid
    function release(bytes32[] calldata jobIds) external returns (uint256 paid) {
        for (uint256 i = 0; i < jobIds.length; i++) {
            Job storage job = _jobs[jobIds[i]];
            if (job.status != Status.Settling || block.timestamp < job.releaseAt || job.holds > 0) continue;
            _pay(jobIds[i], job);
            paid++;
        }
    }

    /// @notice Gives a job up before any receipt of it was accepted: the client gets all back. Coordinator only.
    function refund(bytes32 jobId) external {
        Job storage job = _funded(jobId);
        require(msg.sender == job.coordinator, NotCoordinator(jobId, msg.sender));
        job.status = Status.Refunded;
        _credit(job.client, job.priceMaxWei);
        emit JobRefunded(jobId, job.priceMaxWei);
    }

    /// @notice Ends a job that nobody settled in time: the client gets all back. Anyone may call.
    function expire(bytes32 jobId) external {
        Job storage job = _funded(jobId);
        uint256 expiresAt = job.deadline + settlementSeconds;
        require(block.timestamp > expiresAt, NotYetExpired(jobId, expiresAt));
        job.status = Status.Expired;
        _credit(job.client, job.priceMaxWei);
        emit JobExpired(jobId, job.priceMaxWei);
    }

    /// @notice Keeps an accepted receipt's payment, and its worker's stake, where they are until `unhold`. Within its
    /// challenge window. Arbiter only.
    function hold(bytes32 jobId) external {
        Job storage job = _judged(jobId);
        require(block.timestamp < job.releaseAt, ChallengeClosed(jobId, job.releaseAt));
        job.holds++;
        registry.hold(job.worker);
    }

    /// @notice Ends one `hold`; after the last one a payment that is due is made. Arbiter only.
    function unhold(bytes32 jobId) external {
        require(msg.sender == arbiter, NotArbiter(msg.sender));
        Job storage job = _jobs[jobId];
        require(job.holds > 0, JobNotHeld(jobId));
        job.holds--;
        registry.unhold(job.worker);
        if (job.holds == 0 && job.status == Status.Settling && block.timestamp >= job.releaseAt) _pay(jobId, job);
    }

    /// @notice Rejects an accepted receipt within its challenge window, or while it is held: the client gets all back,
    /// the worker is slashed. Arbiter only.
    /// @param evidence hash of what anyone can re-check
    /// @param finder   who is paid for finding it
    function reject(bytes32 jobId, bytes32 evidence, address finder) external {
        Job storage job = _judged(jobId);
        require(block.timestamp < job.releaseAt || job.holds > 0, ChallengeClosed(jobId, job.releaseAt));
        job.status = Status.Rejected;
        _credit(job.client, job.priceMaxWei);
        uint256 slashedWei = registry.slash(job.worker, uint256(job.priceMaxWei) * penaltyMultiple, finder);
        emit JobRejected(jobId, job.worker, finder, evidence, slashedWei);
    }

    /// @notice A job's record; all zero if there is none.
    function jobOf(bytes32 jobId) external view returns (Job memory) {
        return _jobs[jobId];
    }

    /// @notice What the worker signs: the receipt's EIP-712 digest.
    function digestOf(Receipt calldata receipt) external view returns (bytes32) {
        return _digest(receipt.structHash());
    }

    /// @notice The id of the job that `client` opens with `nonce`, on this chain and in this escrow.
    function jobIdOf(address client, uint256 nonce) public view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), client, nonce));
    }

    function _commit(bytes32 root, uint256 size) private returns (uint256 batchId) {
        batchId = batchCount++;
        batches[batchId] = Batch(root, msg.sender, uint32(size), uint64(block.timestamp));
        emit BatchCommitted(batchId, msg.sender, root, size);
    }

    function _accept(
        uint256 batchId,
        uint256 index,
        address coordinator,
        Receipt calldata receipt,
        bytes calldata signature
    ) private {
        bytes32 jobId = receipt.jobId;
        Job storage job = _funded(jobId);
        require(coordinator == job.coordinator, NotCoordinator(jobId, coordinator));
        uint256 closedAt = job.deadline + settlementSeconds;
        require(block.timestamp <= closedAt, SettlementClosed(jobId, closedAt));
        _requireFulfils(job, receipt);
        bool isExact = receipt.tier == TIER_EXACT;
        uint256 windowSeconds = isExact ? exactChallengeSeconds : challengeSeconds;
        uint256 releaseAt = block.timestamp + windowSeconds;
        bytes32 digest = _digest(receipt.structHash());
        _requireSigned(receipt, digest, signature, releaseAt);

        job.status = Status.Settling;
        job.worker = receipt.worker;
        job.paymentWei = receipt.totalWei;
        job.releaseAt = uint64(releaseAt);
        if (isExact) job.receiptDigest = digest;
        emit ReceiptAccepted(jobId, batchId, receipt.worker, index, releaseAt, receipt, signature);
        if (windowSeconds == 0) _pay(jobId, job);
    }

    /// @dev The receipt answers this order, at no more than its price, in time.
    function _requireFulfils(Job storage job, Receipt calldata receipt) private view {
        bytes32 jobId = receipt.jobId;
        address ordered = job.worker;
        require(ordered == address(0) || ordered == receipt.worker, WrongWorker(jobId, receipt.worker));
        require(receipt.modelHash == job.modelHash, WrongModel(jobId, receipt.modelHash));
        require(receipt.requestHash == job.requestHash, WrongRequest(jobId, receipt.requestHash));
        require(receipt.tier == job.tier, WrongTier(jobId, receipt.tier));
        require((receipt.traceRoot != 0) == (receipt.tier == TIER_EXACT), TraceTierMismatch(jobId));
        require(
            receipt.startedAtMs <= receipt.finishedAtMs && receipt.finishedAtMs <= uint256(job.deadline) * 1000,
            TimesInvalid(jobId, receipt.startedAtMs, receipt.finishedAtMs)
        );
        require(receipt.addsUp(), TotalWrong(jobId, receipt.totalWei));
        require(
            receipt.totalWei <= job.priceMaxWei, PriceAboveMaximum(jobId, receipt.totalWei, job.priceMaxWei)
        );
    }

    /// @dev The worker's registered key signed, and its stake stays at risk until the payment is released.
    function _requireSigned(Receipt calldata receipt, bytes32 digest, bytes calldata signature, uint256 releaseAt)
        private
        view
    {
        (address signer, ECDSA.RecoverError failure,) = ECDSA.tryRecover(digest, signature);
        require(
            failure == ECDSA.RecoverError.NoError && signer == registry.signerOf(receipt.worker),
            SignatureInvalid(receipt.jobId)
        );
        uint256 bondedUntil = registry.bondedUntil(receipt.worker);
        require(bondedUntil >= releaseAt && bondedUntil != 0, WorkerNotBonded(receipt.jobId, receipt.worker, bondedUntil));
    }

    function _pay(bytes32 jobId, Job storage job) private {
        uint256 paidWei = job.paymentWei;
        uint256 refundedWei = job.priceMaxWei - paidWei;
        job.status = Status.Paid;
        _credit(job.worker, paidWei);
        _credit(job.client, refundedWei);
        emit JobPaid(jobId, job.worker, paidWei, refundedWei);
    }

    /// @dev A job whose accepted receipt the caller may judge.
    function _judged(bytes32 jobId) private view returns (Job storage job) {
        require(msg.sender == arbiter, NotArbiter(msg.sender));
        job = _jobs[jobId];
        require(job.status == Status.Settling, JobNotSettling(jobId, job.status));
    }

    function _funded(bytes32 jobId) private view returns (Job storage job) {
        job = _jobs[jobId];
        require(job.status == Status.Funded, JobNotFunded(jobId, job.status));
    }

    function _requireSize(uint256 size, uint256 sizeMax) private pure {
        require(size > 0 && size <= sizeMax, BatchSizeInvalid(size, sizeMax));
    }

    function _domainName() internal pure override returns (string memory) {
        return "Warpgrid JobEscrow";
    }
}
