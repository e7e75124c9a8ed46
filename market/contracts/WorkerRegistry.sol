// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EnumerableSet} from "@openzeppelin/contracts/utils/structs/EnumerableSet.sol";
import {Payouts} from "./Payouts.sol";
import {TypedDomain} from "./TypedDomain.sol";

/// @title Who works: stake, keys, endpoint
/// @notice A worker is the account that staked. It names a hot key that signs its receipts, the key of its node's TLS
/// certificate, and where it can be reached. Its stake can be taken by the escrow or the arbiter until it has left.
/// @dev Predeployed at genesis: no constructor; the parameters are genesis storage and nobody can change them.
contract WorkerRegistry is Payouts, TypedDomain {
    using EnumerableSet for EnumerableSet.AddressSet;

    /// @notice Longest endpoint, in bytes.
    uint256 public constant ENDPOINT_BYTES_MAX = 256;
    /// @notice Part of a slash that pays whoever found the fault, in percent. The rest is burned, so that a worker
    /// cannot save its stake by reporting itself.
    uint256 public constant FINDER_PERCENT = 50;

    bytes32 private constant BINDING_TYPEHASH = keccak256("SignerBinding(address worker)");

    /// @param signer            key that signs receipts
    /// @param nodeKeyHash       SHA-256 of the node's TLS public key (SubjectPublicKeyInfo, DER)
    /// @param capabilitiesHash  hash of the capability record that the worker announces to coordinators
    /// @param endpoint          where the node can be dialled, or empty if it only dials out
    struct Identity {
        address signer;
        bytes32 nodeKeyHash;
        bytes32 capabilitiesHash;
        string endpoint;
    }

    /// @param stakeWei  what the worker can lose, in wei
    /// @param leavesAt  Unix time in seconds when an unbonding stake is free; 0 while bonded
    struct Worker {
        uint128 stakeWei;
        uint64 leavesAt;
        Identity identity;
    }

    // Genesis storage.
    /// @notice The contract that may slash after a rejected job.
    address public escrow;
    /// @notice The account or contract that may slash on evidence of its own.
    address public arbiter;
    /// @notice Least stake of a worker that may be paid, in wei.
    uint256 public stakeMinWei;
    /// @notice Seconds between the wish to leave and the stake's release.
    uint256 public unbondingSeconds;

    /// @notice Wei of slashed stake that is gone for good.
    uint256 public burnedWei;
    /// @notice Disputes that a worker is in: it cannot leave meanwhile.
    mapping(address account => uint256 count) public holdsOf;
    /// @notice The worker that a signing key belongs to.
    mapping(address signer => address worker) public workerOfSigner;
    mapping(address account => Worker) private _workers;
    EnumerableSet.AddressSet private _accounts;

    event Registered(address indexed worker, address indexed signer, uint256 stakeWei);
    event IdentityChanged(
        address indexed worker,
        address indexed signer,
        bytes32 nodeKeyHash,
        bytes32 capabilitiesHash,
        string endpoint
    );
    event StakeAdded(address indexed worker, uint256 amountWei, uint256 stakeWei);
    event Unbonding(address indexed worker, uint256 leavesAt);
    event UnbondingCancelled(address indexed worker);
    event Left(address indexed worker, uint256 stakeWei);
    event Slashed(address indexed worker, address indexed finder, uint256 amountWei, uint256 stakeWei);

    error AlreadyRegistered(address worker);
    error NotRegistered(address worker);
    error StakeTooSmall(uint256 stakeWei, uint256 stakeMinWei);
    error StakeTooLarge(uint256 stakeWei);
    error SignerTaken(address signer);
    error SignerNotProven(address signer);
    error EndpointTooLong(uint256 lengthBytes);
    error NotUnbonding(address worker);
    error AlreadyUnbonding(address worker);
    error StillBonded(address worker, uint256 leavesAt);
    error StillHeld(address worker, uint256 holds);
    error NotEscrow(address caller);
    error NotSlasher(address caller);
    error FinderMissing();

    /// @notice Becomes a worker with the value sent as its stake.
    /// @param binding the signer's EIP-712 signature of SignerBinding(worker): nobody can claim another's key
    function register(Identity calldata identity, bytes calldata binding) external payable {
        require(!_accounts.contains(msg.sender), AlreadyRegistered(msg.sender));
        require(msg.value >= stakeMinWei, StakeTooSmall(msg.value, stakeMinWei));
        _accounts.add(msg.sender);
        _workers[msg.sender].stakeWei = _toStake(msg.value);
        emit Registered(msg.sender, identity.signer, msg.value);
        _setIdentity(identity, binding);
    }

    /// @notice Replaces keys and endpoint. Receipts signed by a former signer can no longer be settled.
    function changeIdentity(Identity calldata identity, bytes calldata binding) external {
        Worker storage worker = _registered(msg.sender);
        delete workerOfSigner[worker.identity.signer];
        _setIdentity(identity, binding);
    }

    /// @notice Adds the value sent to a worker's stake.
    function addStake(address account) external payable {
        Worker storage worker = _registered(account);
        worker.stakeWei = _toStake(worker.stakeWei + msg.value);
        emit StakeAdded(account, msg.value, worker.stakeWei);
    }

    /// @notice Starts to leave. The stake stays at risk for `unbondingSeconds`.
    function beginUnbonding() external {
        Worker storage worker = _registered(msg.sender);
        require(worker.leavesAt == 0, AlreadyUnbonding(msg.sender));
        worker.leavesAt = uint64(block.timestamp + unbondingSeconds);
        emit Unbonding(msg.sender, worker.leavesAt);
    }

    /// @notice Stays after all.
    function cancelUnbonding() external {
        Worker storage worker = _registered(msg.sender);
        require(worker.leavesAt != 0, NotUnbonding(msg.sender));
        worker.leavesAt = 0;
        emit UnbondingCancelled(msg.sender);
    }

    /// @notice Leaves once unbonding is over: what is left of the stake becomes the worker's credit.
    function finishUnbonding() external {
        Worker storage worker = _registered(msg.sender);
        require(worker.leavesAt != 0, NotUnbonding(msg.sender));
        require(block.timestamp >= worker.leavesAt, StillBonded(msg.sender, worker.leavesAt));
        require(holdsOf[msg.sender] == 0, StillHeld(msg.sender, holdsOf[msg.sender]));
        uint256 stakeWei = worker.stakeWei;
        delete workerOfSigner[worker.identity.signer];
        delete _workers[msg.sender];
        _accounts.remove(msg.sender);
        _credit(msg.sender, stakeWei);
        emit Left(msg.sender, stakeWei);
    }

    /// @notice Keeps a worker from leaving until `unhold`. Escrow only.
    function hold(address account) external {
        require(msg.sender == escrow, NotEscrow(msg.sender));
        holdsOf[account]++;
    }

    /// @notice Ends one `hold`. Escrow only.
    function unhold(address account) external {
        require(msg.sender == escrow, NotEscrow(msg.sender));
        holdsOf[account]--;
    }

    /// @notice Takes up to `amountWei` of a worker's stake; half pays the finder.
    /// @return takenWei what was taken: less than asked if the stake was smaller, 0 if the worker has left
    function slash(address account, uint256 amountWei, address finder) external returns (uint256 takenWei) {
        require(msg.sender == escrow || msg.sender == arbiter, NotSlasher(msg.sender));
        require(finder != address(0), FinderMissing());
        Worker storage worker = _workers[account];
        uint256 stakeWei = worker.stakeWei;
        takenWei = amountWei < stakeWei ? amountWei : stakeWei;
        if (takenWei == 0) return 0;
        worker.stakeWei = uint128(stakeWei - takenWei);
        uint256 rewardWei = (takenWei * FINDER_PERCENT) / 100;
        burnedWei += takenWei - rewardWei;
        _credit(finder, rewardWei);
        emit Slashed(account, finder, takenWei, worker.stakeWei);
    }

    /// @notice Until when a worker's stake is at risk, in Unix seconds: 0 if it has no sufficient stake, 2^64 - 1 if it
    /// is not leaving.
    function bondedUntil(address account) external view returns (uint64) {
        Worker storage worker = _workers[account];
        if (worker.stakeWei < stakeMinWei || !_accounts.contains(account)) return 0;
        return worker.leavesAt == 0 ? type(uint64).max : worker.leavesAt;
    }

    /// @notice The key that signs a worker's receipts; zero if it is not registered.
    function signerOf(address account) external view returns (address) {
        return _workers[account].identity.signer;
    }

    /// @notice A worker's record; all zero if it is not registered.
    function workerOf(address account) external view returns (Worker memory) {
        return _workers[account];
    }

    /// @notice How many workers are registered, leaving ones included.
    function workerCount() external view returns (uint256) {
        return _accounts.length();
    }

    /// @notice Up to `limit` registered accounts from `offset` on. The order changes when a worker leaves.
    function workers(uint256 offset, uint256 limit) external view returns (address[] memory) {
        return _accounts.values(offset, offset + limit);
    }

    function _setIdentity(Identity calldata identity, bytes calldata binding) private {
        address signer = identity.signer;
        require(bytes(identity.endpoint).length <= ENDPOINT_BYTES_MAX, EndpointTooLong(bytes(identity.endpoint).length));
        require(workerOfSigner[signer] == address(0), SignerTaken(signer));
        bytes32 digest = _digest(keccak256(abi.encode(BINDING_TYPEHASH, msg.sender)));
        (address proven, ECDSA.RecoverError failure,) = ECDSA.tryRecover(digest, binding);
        require(failure == ECDSA.RecoverError.NoError && proven == signer, SignerNotProven(signer));
        workerOfSigner[signer] = msg.sender;
        _workers[msg.sender].identity = identity;
        emit IdentityChanged(
            msg.sender, signer, identity.nodeKeyHash, identity.capabilitiesHash, identity.endpoint
        );
    }

    function _registered(address account) private view returns (Worker storage) {
        require(_accounts.contains(account), NotRegistered(account));
        return _workers[account];
    }

    function _toStake(uint256 amountWei) private pure returns (uint128) {
        require(amountWei <= type(uint128).max, StakeTooLarge(amountWei));
        return uint128(amountWei);
    }

    function _domainName() internal pure override returns (string memory) {
        return "Warpgrid WorkerRegistry";
    }
}
