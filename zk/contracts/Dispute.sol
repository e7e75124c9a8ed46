// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Openings} from "./Openings.sol";
import {Context, Evidence, Instruction, Steps} from "./Steps.sol";

/// @notice What the parties agree on before they disagree. `promptHash` is keccak-256 of the prompt's tokens (u32, LE);
/// `programRoot` follows from the model's header (zk/program.py) and is part of what an order names.
struct Terms {
    bytes32 traceRoot;
    bytes32 modelRoot;
    bytes32 programRoot;
    bytes32 requestHash;
    bytes32 promptHash;
    uint256[5] sampling;
    uint256 promptTokens;
    uint256 answerTokens;
    uint256 layers;
    address worker;
    address challenger;
    uint256 nonce;
}

/// @title A dispute over one exact answer: bisection to one operation on one tile, which `Steps` recomputes
/// @notice docs/trace.md has the rules. The worker reveals nodes, the challenger names the first that is wrong, and in
/// the end the worker proves one cell or loses. Whoever lets a clock run out loses. Nobody's money is held here: an
/// arbiter (market/contracts) reads `winnerOf`.
contract Dispute {
    enum Turn {
        None,
        WorkerStates,
        WorkerReveals,
        ChallengerPicks,
        WorkerPostsTape,
        WorkerProves,
        Over
    }

    struct Game {
        Turn turn;
        bool onTape;
        bool workerWon;
        uint8 levels;
        uint8 depth;
        uint64 deadline;
        uint64 index;
        uint64 leaf;
        bytes32 node;
        bytes32 revealed;
        bytes32 rowsRoot;
        bytes32 tapeRoot;
    }

    Steps private constant STEPS = Steps(0x5747000000000000000000000000000000000011);
    bytes32 private constant TRACE_TAG = keccak256("warpgrid trace 1");
    uint256 private constant LEVELS_PER_ROUND = 4;
    uint256 private constant SLOTS_LOG2 = 6;

    /// @notice Seconds for each move; genesis storage.
    uint64 public moveSeconds;

    mapping(bytes32 id => Game) public games;

    event Opened(bytes32 indexed id, Terms terms);
    event Revealed(bytes32 indexed id, bytes32[] nodes);
    event Picked(bytes32 indexed id, uint256 index, bool onTape);
    event TapePosted(bytes32 indexed id, bytes32 root);
    event Decided(bytes32 indexed id, address winner);

    error NotYourTurn(Turn turn);
    error NotYou(address expected);
    error AlreadyOpen();
    error TermsInvalid();
    error NotAsCommitted();
    error DeadlineNotReached(uint64 deadline);
    error DeadlineOver(uint64 deadline);
    error CellNotProven(bytes32 claimed, bytes32 computed);

    /// @notice Challenges an answer.
    function open(Terms calldata terms) external returns (bytes32 id) {
        id = keccak256(abi.encode(terms));
        Game storage game = games[id];
        require(game.turn == Turn.None, AlreadyOpen());
        require(msg.sender == terms.challenger, NotYou(terms.challenger));
        require(
            terms.promptTokens > 0 && terms.answerTokens > 0 && terms.layers > 0 && terms.worker != terms.challenger
                && terms.promptTokens + terms.answerTokens < 1 << 32 && terms.layers < 1 << 16,
            TermsInvalid()
        );
        // Choice by top_k or top_p needs a sorted order, which no program computes yet.
        require(terms.sampling[0] == 0 || (terms.sampling[1] == 0 && terms.sampling[2] == 1 << 16), TermsInvalid());
        emit Opened(id, terms);
        _next(game, Turn.WorkerStates);
    }

    /// @notice The worker shows what its trace root commits to.
    function state(Terms calldata terms, bytes32 answerHash, bytes32 rowsRoot) external {
        Game storage game = _turn(terms, Turn.WorkerStates, terms.worker);
        bytes32 root = keccak256(
            abi.encode(
                TRACE_TAG,
                terms.modelRoot,
                terms.requestHash,
                terms.sampling,
                terms.promptTokens,
                terms.answerTokens,
                terms.promptHash,
                answerHash,
                rowsRoot
            )
        );
        require(root == terms.traceRoot, NotAsCommitted());
        game.rowsRoot = rowsRoot;
        game.node = rowsRoot;
        game.depth = uint8(_rowsDepth(terms));
        game.levels = game.depth;
        _next(game, Turn.WorkerReveals);
    }

    /// @notice The worker reveals the nodes some levels below the disputed one.
    function reveal(Terms calldata terms, bytes32[] calldata nodes) external {
        Game storage game = _turn(terms, Turn.WorkerReveals, terms.worker);
        require(nodes.length == 1 << _step(game.levels), NotAsCommitted());
        require(Openings.fold(nodes) == game.node, NotAsCommitted());
        game.revealed = keccak256(abi.encodePacked(nodes));
        emit Revealed(_id(terms), nodes);
        _next(game, Turn.ChallengerPicks);
    }

    /// @notice The challenger names the first revealed node that is wrong.
    function pick(Terms calldata terms, bytes32[] calldata nodes, uint256 choice) external {
        Game storage game = _turn(terms, Turn.ChallengerPicks, terms.challenger);
        require(keccak256(abi.encodePacked(nodes)) == game.revealed && choice < nodes.length, NotAsCommitted());
        uint256 step = _step(game.levels);
        game.index = uint64((uint256(game.index) << step) + choice);
        game.levels -= uint8(step);
        game.node = nodes[choice];
        emit Picked(_id(terms), game.index, game.onTape);
        if (game.onTape) {
            _next(game, game.levels == 0 ? Turn.WorkerProves : Turn.WorkerReveals);
        } else if (game.levels > 0) {
            _next(game, Turn.WorkerReveals);
        } else if (_isPadding(terms, game.index) || game.node == 0) {
            _decide(terms, game, (game.node == 0) == _isPadding(terms, game.index) ? terms.worker : terms.challenger);
        } else {
            game.leaf = game.index;
            _next(game, Turn.WorkerPostsTape);
        }
    }

    /// @notice A disputed token of the prompt is settled by the prompt.
    function provePrompt(Terms calldata terms, bytes calldata prompt) external {
        Game storage game = _turn(terms, Turn.WorkerPostsTape, terms.worker);
        (uint256 position, uint256 inner) = _place(terms, game.leaf);
        require(inner == 0 && position < terms.promptTokens, NotAsCommitted());
        require(prompt.length == 4 * terms.promptTokens && keccak256(prompt) == terms.promptHash, NotAsCommitted());
        bytes32 computed = sha256(prompt[4 * position:4 * position + 4]);
        require(computed == game.node, CellNotProven(game.node, computed));
        _decide(terms, game, terms.worker);
    }

    /// @notice The worker commits to the tape that computes the disputed leaf: its last cell is that leaf.
    function postTape(
        Terms calldata terms,
        bytes32 root,
        Instruction calldata last,
        bytes32[] calldata lastPath,
        bytes32[] calldata cellPath
    ) external {
        Game storage game = _turn(terms, Turn.WorkerPostsTape, terms.worker);
        (uint256 position, uint256 inner) = _place(terms, game.leaf);
        require(inner != 0 || position >= terms.promptTokens, NotAsCommitted());
        _checkInstruction(terms, inner, last, 0, lastPath);
        uint256 index = last.start + last.startPerPosition * (position + 1);
        uint256 depth = Openings.depthOf(index + 1);
        bytes32 cell = keccak256(abi.encodePacked(game.node));
        require(Openings.rootOf(cell, index, cellPath, depth) == root, NotAsCommitted());
        game.onTape = true;
        game.tapeRoot = root;
        game.node = root;
        game.index = 0;
        game.depth = uint8(depth);
        game.levels = uint8(depth);
        emit TapePosted(_id(terms), root);
        _next(game, depth == 0 ? Turn.WorkerProves : Turn.WorkerReveals);
    }

    /// @notice The worker opens what the disputed cell is computed from; the cell is recomputed.
    function prove(
        Terms calldata terms,
        Instruction calldata instruction,
        uint256 slot,
        bytes32[] calldata instructionPath,
        Evidence calldata evidence
    ) external {
        Game storage game = _turn(terms, Turn.WorkerProves, terms.worker);
        (uint256 position, uint256 inner) = _place(terms, game.leaf);
        _checkInstruction(terms, inner, instruction, slot, instructionPath);
        bytes32 computed = STEPS.recompute(
            instruction,
            evidence,
            Context({
                tapeRoot: game.tapeRoot,
                tapeDepth: game.depth,
                rowsRoot: game.rowsRoot,
                rowsDepth: _rowsDepth(terms),
                leavesPerPosition: 1 << Openings.depthOf(2 * terms.layers + 2),
                modelRoot: terms.modelRoot,
                position: position,
                index: game.index,
                sampling: terms.sampling
            })
        );
        require(computed == game.node, CellNotProven(game.node, computed));
        _decide(terms, game, terms.worker);
    }

    /// @notice Ends a game whose next move is overdue.
    function timeout(Terms calldata terms) external {
        Game storage game = games[_id(terms)];
        require(game.turn != Turn.None && game.turn != Turn.Over, NotYourTurn(game.turn));
        require(block.timestamp > game.deadline, DeadlineNotReached(game.deadline));
        _decide(terms, game, game.turn == Turn.ChallengerPicks ? terms.worker : terms.challenger);
    }

    /// @notice Who won, or nobody yet.
    function winnerOf(Terms calldata terms) external view returns (address) {
        Game storage game = games[_id(terms)];
        if (game.turn != Turn.Over) return address(0);
        return game.workerWon ? terms.worker : terms.challenger;
    }

    /// @notice Whose move it is.
    function turnOf(Terms calldata terms) external view returns (Turn) {
        return games[_id(terms)].turn;
    }

    function _turn(Terms calldata terms, Turn turn, address player) private view returns (Game storage game) {
        game = games[_id(terms)];
        require(game.turn == turn, NotYourTurn(game.turn));
        require(msg.sender == player, NotYou(player));
        require(block.timestamp <= game.deadline, DeadlineOver(game.deadline));
    }

    function _next(Game storage game, Turn turn) private {
        game.turn = turn;
        game.deadline = uint64(block.timestamp) + moveSeconds;
    }

    function _decide(Terms calldata terms, Game storage game, address winner) private {
        game.turn = Turn.Over;
        game.workerWon = winner == terms.worker;
        emit Decided(_id(terms), winner);
    }

    function _checkInstruction(
        Terms calldata terms,
        uint256 inner,
        Instruction calldata instruction,
        uint256 slot,
        bytes32[] calldata path
    ) private pure {
        uint256 programs = Openings.depthOf(2 * terms.layers + 2);
        require(slot < 1 << SLOTS_LOG2, NotAsCommitted());
        bytes32 leaf = keccak256(abi.encode(instruction));
        bytes32 root = Openings.rootOf(leaf, (inner << SLOTS_LOG2) + slot, path, programs + SLOTS_LOG2);
        require(root == terms.programRoot, NotAsCommitted());
    }

    /// @dev Whether there is no row at a leaf of the trace, which must then be zero.
    function _isPadding(Terms calldata terms, uint256 leaf) private pure returns (bool) {
        uint256 positions = terms.promptTokens + terms.answerTokens;
        (uint256 position, uint256 inner) = _place(terms, leaf);
        if (position >= positions) return true;
        return inner > 2 * terms.layers + 1 || (position == positions - 1 && inner > 0);
    }

    function _place(Terms calldata terms, uint256 leaf) private pure returns (uint256 position, uint256 inner) {
        uint256 depth = Openings.depthOf(2 * terms.layers + 2);
        return (leaf >> depth, leaf & ((1 << depth) - 1));
    }

    function _rowsDepth(Terms calldata terms) private pure returns (uint256) {
        return Openings.depthOf(2 * terms.layers + 2) + Openings.depthOf(terms.promptTokens + terms.answerTokens);
    }

    function _step(uint256 levels) private pure returns (uint256) {
        uint256 rest = levels % LEVELS_PER_ROUND;
        return rest == 0 ? LEVELS_PER_ROUND : rest;
    }

    function _id(Terms calldata terms) private pure returns (bytes32) {
        return keccak256(abi.encode(terms));
    }
}
