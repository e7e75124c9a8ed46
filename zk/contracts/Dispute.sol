// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Instructions} from "./Instructions.sol";
import {Openings} from "./Openings.sol";
import {Context, Steps} from "./Steps.sol";
import {Terms, TermsHashing} from "./Terms.sol";

/// @title A dispute over one exact answer: bisection to one operation on one tile, which `Steps` recomputes
/// @notice docs/trace.md has the rules. The worker reveals nodes, the challenger names the first that is wrong, and in
/// the end the worker proves one cell or loses. Whoever lets a clock run out loses. Nobody's money is held here: the
/// arbiter (market/contracts) opens a game about a job and reads `winnerOf`.
contract Dispute {
    using Instructions for bytes;
    using TermsHashing for Terms;

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
        bytes32 rowsRoot;
        bytes32 tapeRoot;
        bytes32 answerHash;
    }

    Steps private constant STEPS = Steps(0x5747000000000000000000000000000000000011);
    /// @dev market/contracts/Arbiter.sol: opens games on behalf of challengers that have put up a bond.
    address private constant ARBITER = 0x5747000000000000000000000000000000000003;
    bytes32 private constant TRACE_TAG = keccak256("warpgrid trace 1");
    uint256 private constant LEVELS_PER_ROUND = 4;
    uint256 private constant SLOTS_LOG2 = 6;
    uint256 private constant PREFIX_BYTES = 32;
    // Words of a model's header leaf.
    uint256 private constant HEADER_CONTEXT_MAX = 8;
    uint256 private constant HEADER_END_TOKENS = 22;

    /// @notice Seconds for each move; genesis storage.
    uint64 public moveSeconds;

    mapping(bytes32 id => Game) public games;

    event Opened(bytes32 indexed id, Terms terms);
    event Stated(bytes32 indexed id, bytes answer, bytes32 rowsRoot);
    event Revealed(bytes32 indexed id, bytes32[] nodes);
    event Picked(bytes32 indexed id, uint256 index, bool onTape);
    event TapePosted(bytes32 indexed id, bytes32 root);
    event Decided(bytes32 indexed id, address winner);

    error NotYourTurn(Turn turn);
    error NotYou(address expected);
    error AlreadyOpen();
    error TermsInvalid();
    error NotAsCommitted();
    error NotRefuted();
    error DeadlineNotReached(uint64 deadline);
    error DeadlineOver(uint64 deadline);
    error CellNotProven(bytes32 claimed, bytes32 computed);

    /// @notice Challenges an answer.
    function open(Terms calldata terms) external returns (bytes32 id) {
        id = terms.id();
        Game storage game = games[id];
        require(game.turn == Turn.None, AlreadyOpen());
        require(msg.sender == terms.challenger || msg.sender == ARBITER, NotYou(terms.challenger));
        require(
            terms.promptTokens > 0 && terms.answerTokens > 0 && terms.layers > 0 && terms.worker != terms.challenger
                && terms.promptTokens < 1 << 31 && terms.answerTokens < 1 << 31 && terms.layers < 1 << 16,
            TermsInvalid()
        );
        emit Opened(id, terms);
        _next(game, Turn.WorkerStates);
    }

    /// @notice The worker shows what its trace root commits to.
    function state(Terms calldata terms, bytes calldata answer, bytes32 rowsRoot) external {
        Game storage game = _turn(terms, Turn.WorkerStates, terms.worker);
        require(answer.length == 4 * terms.answerTokens, NotAsCommitted());
        bytes32 answerHash = keccak256(answer);
        bytes32 root = keccak256(
            abi.encode(
                TRACE_TAG,
                terms.modelRoot,
                terms.requestHash(),
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
        game.answerHash = answerHash;
        game.node = rowsRoot;
        game.depth = uint8(_rowsDepth(terms));
        game.levels = game.depth;
        emit Stated(terms.id(), answer, rowsRoot);
        _next(game, Turn.WorkerReveals);
    }

    /// @notice Wins at once with a stated token that is not the one in the trace. Challenger only.
    /// @param leaf the trace's digest of answer token number `index`, with its path
    function refuteAnswer(
        Terms calldata terms,
        bytes calldata answer,
        uint256 index,
        bytes32 leaf,
        bytes32[] calldata path
    ) external {
        Game storage game = _stated(terms, answer, index);
        uint256 place = (terms.promptTokens + index) << _leavesDepth(terms);
        require(Openings.rootOf(leaf, place, path, _rowsDepth(terms)) == game.rowsRoot, NotAsCommitted());
        require(leaf != sha256(answer[4 * index:4 * index + 4]), NotRefuted());
        _decide(terms, game, terms.challenger);
    }

    /// @notice Wins at once with an answer that is too long (it goes on after an end token, or beyond what was asked) or
    /// too short (its last token does not end it, nor does a limit). Challenger only.
    /// @param index  number of the answer token that is an end token and not the last, or is the last
    /// @param header the words of the model's header leaf, with its path
    function refuteLength(
        Terms calldata terms,
        bytes calldata answer,
        uint256 index,
        bytes32[] calldata header,
        bytes32[] calldata path
    ) external {
        Game storage game = _stated(terms, answer, index);
        // An inner node is the hash of two words, so none of them passes for a header.
        require(header.length >= HEADER_END_TOKENS && path.length < 64, NotAsCommitted());
        bytes32 leaf = keccak256(abi.encodePacked(header));
        require(Openings.rootOf(leaf, 0, path, path.length) == terms.modelRoot, NotAsCommitted());
        uint256 tokens = terms.promptTokens + terms.answerTokens;
        uint256 contextMax = uint256(header[HEADER_CONTEXT_MAX]);
        bool isEnd = _isIn(_tokenAt(answer, index), header[HEADER_END_TOKENS:]);
        bool isLast = index == terms.answerTokens - 1;
        bool tooLong = (isEnd && !isLast) || terms.answerTokens > terms.answerTokensMax || tokens > contextMax;
        bool tooShort = isLast && !isEnd && terms.answerTokens < terms.answerTokensMax && tokens < contextMax
            && !terms.endsByText;
        require(tooLong || tooShort, NotRefuted());
        _decide(terms, game, terms.challenger);
    }

    /// @notice The worker reveals the nodes some levels below the disputed one.
    function reveal(Terms calldata terms, bytes32[] calldata nodes) external {
        Game storage game = _turn(terms, Turn.WorkerReveals, terms.worker);
        require(nodes.length == 1 << _step(game.levels), NotAsCommitted());
        require(Openings.fold(nodes) == game.node, NotAsCommitted());
        emit Revealed(terms.id(), nodes);
        _next(game, Turn.ChallengerPicks);
    }

    /// @notice The challenger names the first revealed node that is wrong, with its path to the node above.
    function pick(Terms calldata terms, uint256 choice, bytes32 node, bytes32[] calldata path) external {
        Game storage game = _turn(terms, Turn.ChallengerPicks, terms.challenger);
        uint256 step = _step(game.levels);
        require(choice < 1 << step, NotAsCommitted());
        require(Openings.rootOf(node, choice, path, step) == game.node, NotAsCommitted());
        uint64 index = uint64((uint256(game.index) << step) + choice);
        uint8 levels = game.levels - uint8(step);
        game.index = index;
        game.levels = levels;
        game.node = node;
        emit Picked(terms.id(), index, game.onTape);
        if (game.onTape) {
            _next(game, levels == 0 ? Turn.WorkerProves : Turn.WorkerReveals);
        } else if (levels > 0) {
            _next(game, Turn.WorkerReveals);
        } else if (_isPadding(terms, index) || node == 0) {
            _decide(terms, game, (node == 0) == _isPadding(terms, index) ? terms.worker : terms.challenger);
        } else {
            game.leaf = index;
            _next(game, Turn.WorkerPostsTape);
        }
    }

    /// @notice A disputed token of the prompt is settled by the prompt, which this shows to everybody.
    /// @param prompt its prefix (32 bytes) and its tokens
    function provePrompt(Terms calldata terms, bytes calldata prompt) external {
        Game storage game = _turn(terms, Turn.WorkerPostsTape, terms.worker);
        (uint256 position, uint256 inner) = _place(terms, game.leaf);
        require(inner == 0 && position < terms.promptTokens, NotAsCommitted());
        uint256 start = PREFIX_BYTES + 4 * position;
        require(prompt.length == PREFIX_BYTES + 4 * terms.promptTokens, NotAsCommitted());
        require(keccak256(prompt) == terms.promptHash, NotAsCommitted());
        bytes32 computed = sha256(prompt[start:start + 4]);
        require(computed == game.node, CellNotProven(game.node, computed));
        _decide(terms, game, terms.worker);
    }

    /// @notice The worker commits to the tape that computes the disputed leaf: its last cell is that leaf.
    /// @param last the program's last instruction
    function postTape(
        Terms calldata terms,
        bytes32 root,
        bytes calldata last,
        bytes32[] calldata lastPath,
        bytes32[] calldata cellPath
    ) external {
        Game storage game = _turn(terms, Turn.WorkerPostsTape, terms.worker);
        (uint256 position, uint256 inner) = _place(terms, game.leaf);
        require(inner != 0 || position >= terms.promptTokens, NotAsCommitted());
        _checkInstruction(terms, inner, last, 0, lastPath);
        uint256 index = last.first(position + 1);
        uint256 depth = Openings.depthOf(index + 1);
        bytes32 cell = keccak256(abi.encodePacked(game.node));
        require(Openings.rootOf(cell, index, cellPath, depth) == root, NotAsCommitted());
        game.onTape = true;
        game.tapeRoot = root;
        game.node = root;
        game.index = 0;
        game.depth = uint8(depth);
        game.levels = uint8(depth);
        emit TapePosted(terms.id(), root);
        _next(game, depth == 0 ? Turn.WorkerProves : Turn.WorkerReveals);
    }

    /// @notice The worker opens what the disputed cell is computed from; the cell is recomputed.
    /// @param slot     which of its leaf's instructions computes the cell; 0 is the last one
    /// @param evidence ABI encoding of an `Evidence`
    function prove(
        Terms calldata terms,
        bytes calldata instruction,
        uint256 slot,
        bytes32[] calldata instructionPath,
        bytes calldata evidence
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
                leavesPerPosition: 1 << _leavesDepth(terms),
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
        Game storage game = games[terms.id()];
        require(game.turn != Turn.None && game.turn != Turn.Over, NotYourTurn(game.turn));
        require(block.timestamp > game.deadline, DeadlineNotReached(game.deadline));
        _decide(terms, game, game.turn == Turn.ChallengerPicks ? terms.worker : terms.challenger);
    }

    /// @notice Who won, or nobody yet.
    function winnerOf(Terms calldata terms) external view returns (address) {
        Game storage game = games[terms.id()];
        if (game.turn != Turn.Over) return address(0);
        return game.workerWon ? terms.worker : terms.challenger;
    }

    /// @notice Whose move it is.
    function turnOf(Terms calldata terms) external view returns (Turn) {
        return games[terms.id()].turn;
    }

    function _turn(Terms calldata terms, Turn turn, address player) private view returns (Game storage game) {
        game = games[terms.id()];
        require(game.turn == turn, NotYourTurn(game.turn));
        require(msg.sender == player, NotYou(player));
        require(block.timestamp <= game.deadline, DeadlineOver(game.deadline));
    }

    /// @dev A game whose worker has stated this answer, seen by the challenger.
    function _stated(Terms calldata terms, bytes calldata answer, uint256 index)
        private
        view
        returns (Game storage game)
    {
        game = games[terms.id()];
        require(game.turn > Turn.WorkerStates && game.turn != Turn.Over, NotYourTurn(game.turn));
        require(msg.sender == terms.challenger, NotYou(terms.challenger));
        require(keccak256(answer) == game.answerHash && index < terms.answerTokens, NotAsCommitted());
    }

    function _next(Game storage game, Turn turn) private {
        game.turn = turn;
        game.deadline = uint64(block.timestamp) + moveSeconds;
    }

    function _decide(Terms calldata terms, Game storage game, address winner) private {
        game.turn = Turn.Over;
        game.workerWon = winner == terms.worker;
        emit Decided(terms.id(), winner);
    }

    function _checkInstruction(
        Terms calldata terms,
        uint256 inner,
        bytes calldata instruction,
        uint256 slot,
        bytes32[] calldata path
    ) private pure {
        require(slot < 1 << SLOTS_LOG2, NotAsCommitted());
        uint256 depth = _leavesDepth(terms) + SLOTS_LOG2;
        bytes32 root = Openings.rootOf(keccak256(instruction), (inner << SLOTS_LOG2) + slot, path, depth);
        require(root == terms.programTree, NotAsCommitted());
    }

    /// @dev Whether there is no row at a leaf of the trace, which must then be zero.
    function _isPadding(Terms calldata terms, uint256 leaf) private pure returns (bool) {
        uint256 positions = terms.promptTokens + terms.answerTokens;
        (uint256 position, uint256 inner) = _place(terms, leaf);
        if (position >= positions) return true;
        return inner > 2 * terms.layers + 1 || (position == positions - 1 && inner > 0);
    }

    function _place(Terms calldata terms, uint256 leaf) private pure returns (uint256 position, uint256 inner) {
        uint256 depth = _leavesDepth(terms);
        return (leaf >> depth, leaf & ((1 << depth) - 1));
    }

    function _leavesDepth(Terms calldata terms) private pure returns (uint256) {
        return Openings.depthOf(2 * terms.layers + 2);
    }

    function _rowsDepth(Terms calldata terms) private pure returns (uint256) {
        return _leavesDepth(terms) + Openings.depthOf(terms.promptTokens + terms.answerTokens);
    }

    function _step(uint256 levels) private pure returns (uint256) {
        uint256 rest = levels % LEVELS_PER_ROUND;
        return rest == 0 ? LEVELS_PER_ROUND : rest;
    }

    /// @dev Number `index` of tokens that are u32, little-endian.
    function _tokenAt(bytes calldata tokens, uint256 index) private pure returns (uint256) {
        bytes calldata raw = tokens[4 * index:4 * index + 4];
        return uint256(uint8(raw[0])) | uint256(uint8(raw[1])) << 8 | uint256(uint8(raw[2])) << 16
            | uint256(uint8(raw[3])) << 24;
    }

    function _isIn(uint256 token, bytes32[] calldata ends) private pure returns (bool) {
        for (uint256 i = 0; i < ends.length; i++) {
            if (uint256(ends[i]) == token) return true;
        }
        return false;
    }
}
