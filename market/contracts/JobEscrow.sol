// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Payouts} from "./Payouts.sol";
import {Receipt, Receipts} from "./Receipts.sol";
import {TypedDomain} from "./TypedDomain.sol";
import {WorkerRegistry} from "./WorkerRegistry.sol";

/// @title A client's money between its order and the worker's receipt
/// @notice A job is funded with its maximum price when it is opened. The coordinator that the client chose settles
/// batches of signed receipts: it puts their Merkle root on chain and says what each job pays, and nothing more. The
/// payments can be collected after a challenge window, the rest going back to the client. Until then the client may
/// demand a receipt to be shown, and whoever wants to dispute one shows it. Every job ends in exactly one of Paid,
/// Refunded, Expired and Rejected, and the four together pay out exactly what was put in.
/// @dev Predeployed at genesis: no constructor; the parameters are genesis storage and nobody can change them.
contract JobEscrow is Payouts, TypedDomain {
    using Receipts for Receipt;

    /// @notice Most receipts settled by one `settleBatch`: at about 40,000 gas each they stay within a transaction's
    /// 2^24 (EIP-7825).
    uint256 public constant BATCH_RECEIPTS_MAX = 256;
    /// @notice Most receipts settled by one `settle`, at about 72,000 gas each.
    uint256 public constant SETTLE_RECEIPTS_MAX = 128;
    // Layout of the payments of a batch.
    uint256 private constant GROUP_BYTES = 22;
    uint256 private constant PAYMENT_BYTES = 48;
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
        Rejected, // its receipt was proven wrong
        Demanded // its client waits for the receipt to be shown
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
    /// @param releaseAt      Unix time in seconds from which an accepted receipt's payment can be released; zero while the
    ///                       job is paid with its batch; of a demanded job, when the time to show its receipt is over
    /// @param holds          disputes about the accepted receipt that are not over; nothing is released meanwhile
    /// @param batchId        the batch of the accepted receipt
    /// @param index          the receipt's place in it
    /// @param paymentWei     what the accepted receipt asks for
    /// @param receiptDigest  EIP-712 digest of the accepted receipt, once it was shown; exact tier only
    struct Job {
        address client;
        uint64 deadline;
        uint8 tier;
        Status status;
        address coordinator;
        uint64 releaseAt;
        uint32 holds;
        address worker;
        uint64 batchId;
        uint32 index;
        uint128 priceMaxWei;
        uint128 paymentWei;
        bytes32 modelHash;
        bytes32 requestHash;
        bytes32 receiptDigest;
    }

    /// @param releaseAt  Unix time in seconds from which its payments can be collected; zero where each is its own
    struct Batch {
        bytes32 root;
        address coordinator;
        uint32 size;
        uint64 releaseAt;
    }

    /// @notice What somebody has to collect from a batch.
    /// @param signer  the key that signs the worker's receipts of this batch; zero for a client
    struct Share {
        uint96 amountWei;
        address signer;
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
    mapping(uint256 batchId => mapping(address owner => Share)) public shares;
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
    event ReceiptDemanded(bytes32 indexed jobId, uint256 showBy);
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
    error PaymentsMalformed(uint256 length);
    error BatchNotDue(uint256 batchId, uint256 dueAt);
    error NotInBatch(bytes32 jobId);
    error AlreadyShown(bytes32 jobId);
    error NotClient(bytes32 jobId, address caller);
    error RootMismatch(uint256 batchId, bytes32 root);
    error ShareTooLarge(uint256 amountWei);
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
    error WorkerNotBonded(address worker, uint256 bondedUntil);

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
            batchId: 0,
            index: 0,
            priceMaxWei: order.priceMaxWei,
            paymentWei: 0,
            modelHash: order.modelHash,
            requestHash: order.requestHash,
            receiptDigest: 0
        });
        emit JobOpened(jobId, msg.sender, order.coordinator, order);
    }

    /// @notice Accepts a batch of receipts by their root and their payments; the receipts themselves stay off the chain.
    /// If one payment cannot be made, nothing happens, and the error names its job.
    /// @param tier      that all its jobs have
    /// @param root      over the receipts' leaves, in the order of the payments
    /// @param payments  for each worker: its address (20 bytes), the number of its receipts (2), and for each of them the
    ///                  job's id (32) and what the receipt asks for, in wei (16)
    function settleBatch(uint8 tier, bytes32 root, bytes calldata payments) external returns (uint256 batchId) {
        require(tier <= TIER_EXACT, TierUnknown(tier));
        uint256 releaseAt = block.timestamp + _windowSeconds(tier);
        batchId = batchCount++;
        uint256 size = 0;
        uint256 offset = 0;
        while (offset < payments.length) {
            require(payments.length >= offset + GROUP_BYTES, PaymentsMalformed(payments.length));
            address worker = address(bytes20(payments[offset:offset + 20]));
            uint256 count = uint16(bytes2(payments[offset + 20:offset + GROUP_BYTES]));
            offset += GROUP_BYTES;
            uint256 end = offset + count * PAYMENT_BYTES;
            require(payments.length >= end, PaymentsMalformed(payments.length));
            uint256 sumWei = 0;
            for (; offset < end; offset += PAYMENT_BYTES) {
                bytes32 jobId = bytes32(payments[offset:offset + 32]);
                uint128 paymentWei = uint128(bytes16(payments[offset + 32:offset + PAYMENT_BYTES]));
                Job storage job = _funded(jobId);
                _requireOrdered(jobId, job, msg.sender, worker, tier);
                require(paymentWei <= job.priceMaxWei, PriceAboveMaximum(jobId, paymentWei, job.priceMaxWei));
                job.status = Status.Settling;
                job.worker = worker;
                job.batchId = uint64(batchId);
                job.index = uint32(size++);
                job.paymentWei = paymentWei;
                sumWei += paymentWei;
                _addShare(batchId, job.client, job.priceMaxWei - paymentWei);
            }
            _requireBonded(worker, releaseAt);
            _addShare(batchId, worker, sumWei);
            shares[batchId][worker].signer = registry.signerOf(worker);
        }
        _requireSize(size, BATCH_RECEIPTS_MAX);
        batches[batchId] = Batch(root, msg.sender, uint32(size), uint64(releaseAt));
        emit BatchCommitted(batchId, msg.sender, root, size);
    }

    /// @notice Credits what these accounts have in a batch whose challenge window is over. Anyone may call.
    function collect(uint256 batchId, address[] calldata owners) external {
        uint256 releaseAt = batches[batchId].releaseAt;
        require(releaseAt != 0 && block.timestamp >= releaseAt, BatchNotDue(batchId, releaseAt));
        for (uint256 i = 0; i < owners.length; i++) {
            Share storage share = shares[batchId][owners[i]];
            uint256 amountWei = share.amountWei;
            share.amountWei = 0;
            _credit(owners[i], amountWei);
        }
    }

    /// @notice Asks for the receipt behind a payment that a batch makes, within its challenge window: unless somebody
    /// shows it in time, the client gets all back (`expire`). Client only.
    function demand(bytes32 jobId) external {
        Job storage job = _jobs[jobId];
        require(msg.sender == job.client, NotClient(jobId, msg.sender));
        require(job.status == Status.Settling && job.releaseAt == 0, NotInBatch(jobId));
        require(job.receiptDigest == 0, AlreadyShown(jobId));
        require(block.timestamp < _releaseAt(job), ChallengeClosed(jobId, _releaseAt(job)));
        _leaveBatch(job);
        job.status = Status.Demanded;
        job.releaseAt = uint64(block.timestamp + settlementSeconds);
        emit ReceiptDemanded(jobId, job.releaseAt);
    }

    /// @notice Shows a receipt that a batch settled, so that it can be disputed, or because it was demanded: then its
    /// challenge window begins anew. Anyone may call.
    function show(Receipt calldata receipt, bytes calldata signature, bytes32[] calldata proof) external {
        bytes32 jobId = receipt.jobId;
        Job storage job = _jobs[jobId];
        bool isDemanded = job.status == Status.Demanded;
        Batch storage batch = batches[job.batchId];
        require((isDemanded || job.status == Status.Settling) && batch.releaseAt != 0, NotInBatch(jobId));
        require(job.receiptDigest == 0, AlreadyShown(jobId));
        require(block.timestamp <= _releaseAt(job), ChallengeClosed(jobId, _releaseAt(job)));
        bytes32 digest = _digest(receipt.structHash());
        bytes32 root = Receipts.rootFromProof(Receipts.leaf(digest), job.index, batch.size, proof);
        require(root == batch.root, RootMismatch(job.batchId, root));
        _requireFulfils(job, receipt);
        require(receipt.totalWei == job.paymentWei, TotalWrong(jobId, receipt.totalWei));
        _requireSigned(jobId, shares[job.batchId][job.worker].signer, digest, signature);
        if (isDemanded) {
            job.status = Status.Settling;
            job.releaseAt = uint64(block.timestamp + _windowSeconds(receipt.tier));
        }
        if (receipt.tier == TIER_EXACT) job.receiptDigest = digest;
        emit ReceiptAccepted(
            jobId, job.batchId, job.worker, job.index, _releaseAt(job), receipt, signature
        );
    }

    /// @notice Accepts receipts that are put on chain as they are, for a client that coordinates its own jobs. If one
    /// cannot be accepted, nothing happens, and the error names its job.
    function settle(Receipt[] calldata receipts, bytes[] calldata signatures) external returns (uint256 batchId) {
        uint256 size = receipts.length;
        _requireSize(size, SETTLE_RECEIPTS_MAX);
        require(signatures.length == size, SignatureCountWrong(size, signatures.length));
        bytes32[] memory leaves = new bytes32[](size);
        for (uint256 i = 0; i < size; i++) {
            leaves[i] = Receipts.leaf(_digest(receipts[i].structHash()));
        }
        bytes32 root = Receipts.root(leaves);
        batchId = batchCount++;
        batches[batchId] = Batch(root, msg.sender, uint32(size), 0);
        emit BatchCommitted(batchId, msg.sender, root, size);
        for (uint256 i = 0; i < size; i++) {
            _accept(batchId, i, receipts[i], signatures[i]);
        }
    }

    /// @notice Pays those of `jobIds` whose own challenge window is over and leaves the others as they are, so that nobody
    /// can spoil a long list by releasing one of its jobs first. Jobs that are paid with their batch are collected
    /// instead. Anyone may call.
    /// @return paid how many were paid
    function release(bytes32[] calldata jobIds) external returns (uint256 paid) {
        for (uint256 i = 0; i < jobIds.length; i++) {
            Job storage job = _jobs[jobIds[i]];
            bool isOwn = job.status == Status.Settling && job.releaseAt != 0;
            if (!isOwn || block.timestamp < job.releaseAt || job.holds > 0) continue;
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

    /// @notice Ends a job that nobody settled in time, or whose receipt was demanded and not shown: the client gets all
    /// back. Anyone may call.
    function expire(bytes32 jobId) external {
        bool isDemanded = _jobs[jobId].status == Status.Demanded;
        Job storage job = isDemanded ? _jobs[jobId] : _funded(jobId);
        uint256 expiresAt = isDemanded ? job.releaseAt : job.deadline + settlementSeconds;
        require(block.timestamp > expiresAt, NotYetExpired(jobId, expiresAt));
        job.status = Status.Expired;
        _credit(job.client, job.priceMaxWei);
        emit JobExpired(jobId, job.priceMaxWei);
    }

    /// @notice Keeps an accepted receipt's payment, and its worker's stake, where they are until `unhold`. Within its
    /// challenge window. Arbiter only.
    function hold(bytes32 jobId) external {
        Job storage job = _judged(jobId);
        if (job.releaseAt == 0) _leaveBatch(job);
        require(block.timestamp < job.releaseAt, ChallengeClosed(jobId, job.releaseAt));
        job.holds++;
        registry.hold(job.worker);
    }

    /// @notice Ends one `hold`; after the last one a payment that is due is made, and one that is not yet due goes back to
    /// its batch. Arbiter only.
    function unhold(bytes32 jobId) external {
        require(msg.sender == arbiter, NotArbiter(msg.sender));
        Job storage job = _jobs[jobId];
        require(job.holds > 0, JobNotHeld(jobId));
        job.holds--;
        registry.unhold(job.worker);
        if (job.holds > 0 || job.status != Status.Settling) return;
        if (block.timestamp >= job.releaseAt) _pay(jobId, job);
        else if (job.releaseAt == batches[job.batchId].releaseAt) _joinBatch(job);
    }

    /// @notice Rejects an accepted receipt within its challenge window, or while it is held: the client gets all back,
    /// the worker is slashed. Arbiter only.
    /// @param evidence hash of what anyone can re-check
    /// @param finder   who is paid for finding it
    function reject(bytes32 jobId, bytes32 evidence, address finder) external {
        Job storage job = _judged(jobId);
        if (job.releaseAt == 0) _leaveBatch(job);
        require(block.timestamp < job.releaseAt || job.holds > 0, ChallengeClosed(jobId, job.releaseAt));
        job.status = Status.Rejected;
        _credit(job.client, job.priceMaxWei);
        uint256 slashedWei = registry.slash(job.worker, uint256(job.priceMaxWei) * penaltyMultiple, finder);
        emit JobRejected(jobId, job.worker, finder, evidence, slashedWei);
    }

    /// @notice A job's record; all zero if there is none. A job that is paid with its batch is Paid when the batch is due.
    function jobOf(bytes32 jobId) external view returns (Job memory job) {
        job = _jobs[jobId];
        if (job.status != Status.Settling || job.releaseAt != 0) return job;
        job.releaseAt = batches[job.batchId].releaseAt;
        if (block.timestamp >= job.releaseAt) job.status = Status.Paid;
    }

    /// @notice What the worker signs: the receipt's EIP-712 digest.
    function digestOf(Receipt calldata receipt) external view returns (bytes32) {
        return _digest(receipt.structHash());
    }

    /// @notice The id of the job that `client` opens with `nonce`, on this chain and in this escrow.
    function jobIdOf(address client, uint256 nonce) public view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), client, nonce));
    }

    function _accept(uint256 batchId, uint256 index, Receipt calldata receipt, bytes calldata signature) private {
        bytes32 jobId = receipt.jobId;
        Job storage job = _funded(jobId);
        _requireOrdered(jobId, job, msg.sender, receipt.worker, receipt.tier);
        _requireFulfils(job, receipt);
        uint256 windowSeconds = _windowSeconds(receipt.tier);
        uint256 releaseAt = block.timestamp + windowSeconds;
        bytes32 digest = _digest(receipt.structHash());
        _requireSigned(jobId, registry.signerOf(receipt.worker), digest, signature);
        _requireBonded(receipt.worker, releaseAt);

        job.status = Status.Settling;
        job.worker = receipt.worker;
        job.batchId = uint64(batchId);
        job.index = uint32(index);
        job.paymentWei = receipt.totalWei;
        job.releaseAt = uint64(releaseAt);
        if (receipt.tier == TIER_EXACT) job.receiptDigest = digest;
        emit ReceiptAccepted(jobId, batchId, receipt.worker, index, releaseAt, receipt, signature);
        if (windowSeconds == 0) _pay(jobId, job);
    }

    /// @dev The job's coordinator settles it, in time, for a worker and with a tier that were ordered.
    function _requireOrdered(bytes32 jobId, Job storage job, address coordinator, address worker, uint8 tier)
        private
        view
    {
        require(coordinator == job.coordinator, NotCoordinator(jobId, coordinator));
        uint256 closedAt = job.deadline + settlementSeconds;
        require(block.timestamp <= closedAt, SettlementClosed(jobId, closedAt));
        address ordered = job.worker;
        require(ordered == address(0) || ordered == worker, WrongWorker(jobId, worker));
        require(tier == job.tier, WrongTier(jobId, tier));
    }

    /// @dev The receipt answers this order, at no more than its price, in time.
    function _requireFulfils(Job storage job, Receipt calldata receipt) private view {
        bytes32 jobId = receipt.jobId;
        address worker = job.worker;
        require(worker == address(0) || worker == receipt.worker, WrongWorker(jobId, receipt.worker));
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

    function _requireSigned(bytes32 jobId, address signer, bytes32 digest, bytes calldata signature) private pure {
        (address found, ECDSA.RecoverError failure,) = ECDSA.tryRecover(digest, signature);
        require(failure == ECDSA.RecoverError.NoError && found == signer, SignatureInvalid(jobId));
    }

    /// @dev The worker's stake stays at risk until the payment is released.
    function _requireBonded(address worker, uint256 releaseAt) private view {
        uint256 bondedUntil = registry.bondedUntil(worker);
        require(bondedUntil >= releaseAt && bondedUntil != 0, WorkerNotBonded(worker, bondedUntil));
    }

    /// @dev From here on the job is paid by itself.
    function _leaveBatch(Job storage job) private {
        uint256 batchId = job.batchId;
        job.releaseAt = batches[batchId].releaseAt;
        if (block.timestamp >= job.releaseAt) return; // its payment may be collected: too late for whatever follows
        shares[batchId][job.worker].amountWei -= uint96(job.paymentWei);
        shares[batchId][job.client].amountWei -= uint96(job.priceMaxWei - job.paymentWei);
    }

    /// @dev From here on the job is paid with its batch again.
    function _joinBatch(Job storage job) private {
        job.releaseAt = 0;
        _addShare(job.batchId, job.worker, job.paymentWei);
        _addShare(job.batchId, job.client, job.priceMaxWei - job.paymentWei);
    }

    function _addShare(uint256 batchId, address owner, uint256 amountWei) private {
        Share storage share = shares[batchId][owner];
        uint256 sumWei = share.amountWei + amountWei;
        require(sumWei <= type(uint96).max, ShareTooLarge(sumWei));
        share.amountWei = uint96(sumWei);
    }

    function _releaseAt(Job storage job) private view returns (uint256) {
        return job.releaseAt != 0 ? job.releaseAt : batches[job.batchId].releaseAt;
    }

    function _windowSeconds(uint256 tier) private view returns (uint256) {
        return tier == TIER_EXACT ? exactChallengeSeconds : challengeSeconds;
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
