"""The two parties of a dispute: what each says when it is its turn. `zk/contracts/Dispute.sol` is the judge.

A challenger that has the honest trace names, level by level, the first node that differs from its own; in the end the
worker must prove one cell from cells that both agree on, which it can if and only if the cell is right. Owns strategy
and evidence; a chain (`DisputeChain`) carries the moves. docs/trace.md has the rules.
"""

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Final, Protocol

import numpy as np
from eth_abi.abi import encode

from core.contract import Event
from core.jobs.exact import ExactTerms, exact_model_hash, exact_request_hash
from zk.audit import CommittedRows
from zk.instruction import TILE, Instruction, Operation, RowMode
from zk.merkle import Digests, depth_of, empty_root, levels_of, siblings_of
from zk.program import Programs, program_root
from zk.tape import Tape
from zk.trace import Trace, residual_leaf

__all__ = [
    "EVIDENCE_TYPE",
    "LEVELS_PER_ROUND",
    "MOVES_MAX",
    "Challenger",
    "ChunkOpening",
    "DisputeChain",
    "MakeTape",
    "ModelOpener",
    "Move",
    "Seat",
    "Terms",
    "Turn",
    "Worker",
    "play",
    "table_code",
    "tokens_bytes",
]

LEVELS_PER_ROUND: Final = 4
_CELLS: Final = "(bytes,uint256,bytes32[])[]"
_CHUNKS: Final = "(bytes,bytes32,uint256,uint256,uint256,bytes32[],bytes32[])[]"
EVIDENCE_TYPE: Final = f"({_CELLS},{_CHUNKS},(bytes,bytes32[]),uint256)"
# Words of a model's header leaf (docs/exact-inference.md, section 6).
HEADER_CONTEXT_MAX: Final = 8
HEADER_END_TOKENS: Final = 22
MOVES_MAX: Final = 30


def tokens_bytes(tokens: tuple[int, ...]) -> bytes:
    """Tokens as u32, little-endian: what their hash is of."""
    return np.array(tokens, "<u4").tobytes()


class Turn:
    """Dispute.sol's turns."""

    NONE, STATES, REVEALS, PICKS, POSTS_TAPE, PROVES, OVER = range(7)


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms.sol's Terms, with its meanings; the field order is the struct's."""

    trace_root: bytes
    model_root: bytes
    program_tree: bytes
    text_hash: bytes
    prompt_hash: bytes
    sampling: tuple[int, int, int, int, int]
    prompt_tokens: int
    answer_tokens: int
    answer_tokens_max: int
    ends_by_text: bool
    layers: int
    worker: bytes
    challenger: bytes
    nonce: int = 0

    @property
    def request_hash(self) -> bytes:
        exact = ExactTerms(self.prompt_hash, self.prompt_tokens, self.sampling)
        return exact_request_hash(
            self.text_hash, exact, answer_tokens_max=self.answer_tokens_max, ends_by_text=self.ends_by_text
        )

    @property
    def model_hash(self) -> bytes:
        return exact_model_hash(self.model_root, program_root(self.layers, self.program_tree))

    def solidity(self) -> tuple[object, ...]:
        """The struct as an ABI encoder takes it."""
        return astuple(self)


@dataclass(frozen=True, slots=True)
class ChunkOpening:
    """A chunk of a tensor's row with everything up to the model's root."""

    data: bytes
    name_hash: bytes
    type_code: int
    rows: int
    columns: int
    path: tuple[bytes, ...]
    model_path: tuple[bytes, ...]


class ModelOpener(Protocol):
    """Opens a model's tensors, numbered by their leaves in the model's tree."""

    def open(self, tensor: int, row: int, chunk: int) -> ChunkOpening: ...

    def header(self) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """The words of the header leaf (32 bytes each), and its path."""
        ...


class DisputeChain(Protocol):
    """The contract and one game in it, seen by a party."""

    def move(self, sender: bytes, function: str, *arguments: object) -> None:
        """A transaction. Raises what the chain raises when the contract refuses it."""
        ...

    def turn(self) -> int: ...

    def events(self) -> Sequence[Event]:
        """Everything that the contract said about this game, from its opening on."""
        ...


class _Tree:
    """A tree in which both parties descend: the trace's, then the tape's."""

    def __init__(self, levels: list[Digests]) -> None:
        self._levels = levels
        self.left, self.index = len(levels) - 1, 0

    def nodes(self) -> list[bytes]:
        """The nodes of this round."""
        step = self._step()
        level = self.left - step
        first = self.index << step
        return [self._node(level, i) for i in range(first, first + (1 << step))]

    def descend(self, index: int) -> None:
        """To the node with this index, a round further down."""
        step = self._step()
        assert index >> step == self.index, "the node lies below the disputed one"
        self.left, self.index = self.left - step, index

    def _step(self) -> int:
        return self.left % LEVELS_PER_ROUND or LEVELS_PER_ROUND

    def _node(self, level: int, index: int) -> bytes:
        nodes = self._levels[level]
        return nodes[index].tobytes() if index < len(nodes) else empty_root(level)


MakeTape = Callable[[int, int], Tape]
"""(position, inner leaf) -> the tape that computes it."""

Move = tuple[str, tuple[object, ...]]
"""A function of the contract, and its arguments behind the terms."""


class Worker:
    """The party that answered: states, reveals, posts the tape, proves. Honest if its trace and tapes are.

    What it does follows from the game's events, so it can be made anew in the middle of a game.
    """

    turns = (Turn.STATES, Turn.REVEALS, Turn.POSTS_TAPE, Turn.PROVES)

    def __init__(
        self, trace: Trace, rows: CommittedRows, programs: Programs, opener: ModelOpener, make_tape: MakeTape
    ) -> None:
        self._trace, self._rows, self._programs, self._opener = trace, rows, programs, opener
        self._make_tape = make_tape
        self._tree = _Tree(trace.levels)
        self._tape: Tape | None = None
        self._leaf = 0

    def observe(self, event: Event) -> None:
        """Take note of the game's next event."""
        if event.name == "Picked":
            self._tree.descend(event.arguments["index"])
        elif event.name == "TapePosted":
            self._enter_tape()

    def move(self, turn: int) -> Move:
        """What it does when it is its turn."""
        if turn == Turn.STATES:
            return "state", self.statement()
        if turn == Turn.REVEALS:
            return "reveal", (self.nodes(),)
        if turn == Turn.POSTS_TAPE:
            return self.tape()
        return "prove", self.proof()

    def statement(self) -> tuple[bytes, bytes]:
        """Arguments of `state`: the answer's tokens and the rows' root."""
        return tokens_bytes(self._trace.statement.answer), self._trace.rows_root

    def nodes(self) -> list[bytes]:
        """Argument of `reveal`."""
        return self._tree.nodes()

    def tape(self) -> Move:
        """The move that answers for a leaf: `postTape`, or `provePrompt` for a token of the prompt."""
        position, inner = divmod(self._tree.index, self._trace.shape.leaves)
        statement = self._trace.statement
        if inner == 0 and position < len(statement.prompt):
            return "provePrompt", (statement.prompt_prefix + tokens_bytes(statement.prompt),)
        tape = self._make_tape(position, inner)
        last = self._programs.instruction(inner, 0)
        path = siblings_of(tape.levels, last.first(position + 1))
        return "postTape", (tape.root, last.encode(), self._programs.path(inner, 0), path)

    def _enter_tape(self) -> None:
        self._leaf = self._tree.index
        self._tape = self._make_tape(*divmod(self._leaf, self._trace.shape.leaves))
        self._tree = _Tree(self._tape.levels)

    def proof(self) -> tuple[object, ...]:
        """Arguments of `prove`."""
        assert self._tape is not None, "the contract asks for a tape first"
        position, inner = divmod(self._leaf, self._trace.shape.leaves)
        index = self._tree.index
        slot = self._programs.slot(inner, index, position + 1)
        instruction = self._programs.instruction(inner, slot)
        evidence = encode([EVIDENCE_TYPE], [self.evidence(self._tape, instruction, index, position)])
        return instruction.encode(), slot, self._programs.path(inner, slot), evidence

    def evidence(self, tape: Tape, instruction: Instruction, index: int, position: int) -> tuple[object, ...]:
        """Steps.sol's Evidence for one cell of a tape."""
        positions = position + 1
        cell = index - instruction.first(positions)
        empty_row: tuple[object, ...] = (b"", ())
        if index not in tape.cells:
            return (), (), empty_row, 0
        outer, inner = divmod(cell, instruction.width)
        hint = 0
        if instruction.operation == Operation.PICK:
            hint = inner = min(int.from_bytes(tape.cells[index], "big") // TILE, instruction.parameters[0] - 1)
        starts = [
            o.start + o.per_position * positions + o.outer * outer + o.inner * inner for o in instruction.operands
        ]
        cells = [tape.group(start, o.log2_size) for start, o in zip(starts, instruction.operands, strict=True)]
        if instruction.chain and cell >= instruction.chain:
            cells.append(tape.group(index - instruction.chain, 0))
        token = self._trace.statement.tokens[position]
        chunks = [
            astuple(self._opener.open(tensor, *_chunk_place(instruction, i, outer, inner, position, token)))
            for i, tensor in enumerate(instruction.tensors)
        ]
        return cells, chunks, self._row(instruction, position, outer), hint

    def _row(self, instruction: Instruction, position: int, outer: int) -> tuple[object, ...]:
        """The trace row that a cell reads, opened."""
        if instruction.row_mode == RowMode.NONE:
            return b"", ()
        at = {RowMode.OWN: position, RowMode.EACH: outer, RowMode.BEFORE: position - 1}[instruction.row_mode]
        leaf = instruction.row_leaf
        if leaf == 0:
            data = self._trace.statement.tokens[at].to_bytes(4, "little")
        elif leaf % 2 == 0:
            data = self._rows.kv_rows[at, (leaf - 2) // 2].tobytes()
        else:
            data = self._rows.boundaries[at, (leaf - residual_leaf(0)) // 2].astype("<i4").tobytes()
        return data, self._trace.open(at, leaf).siblings


def _chunk_place(
    instruction: Instruction, i: int, outer: int, inner: int, position: int, token: int
) -> tuple[int, int]:
    """Row and chunk of the i-th tensor that a cell reads; Steps.sol's `_chunkOf`."""
    match instruction.operation:
        case Operation.DOT:
            return inner, outer
        case Operation.ROW_SCALES:
            first = outer * instruction.parameters[0] + inner * instruction.parameters[1]
            return 0, first // (512, 1024, 256)[i]
        case Operation.ROTARY:
            return position, 0
        case Operation.EMBEDDING:
            return token, outer // TILE
        case Operation.TOKEN_SCALE:
            return 0, token // instruction.parameters[0]
        case _:
            return 0, 0


class Challenger:
    """The party that disagrees. Honest if its trace and tapes are.

    Its trace is of as many tokens as the worker claims: beyond an end token, what the model would say next. Like the
    worker, it can be made anew in the middle of a game.
    """

    turns = (Turn.PICKS,)

    def __init__(self, terms: Terms, trace: Trace, opener: ModelOpener, make_tape: MakeTape) -> None:
        self._terms, self._trace, self._opener, self._make_tape = terms, trace, opener, make_tape
        self._tree = _Tree(trace.levels)
        self._nodes: list[bytes] = []
        self._stated: tuple[bytes, bytes] | None = None

    def observe(self, event: Event) -> None:
        """Take note of the game's next event."""
        if event.name == "Stated":
            self._stated = event.arguments["answer"], event.arguments["rowsRoot"]
        elif event.name == "Revealed":
            self._nodes = list(event.arguments["nodes"])
        elif event.name == "Picked":
            self._tree.descend(event.arguments["index"])
        elif event.name == "TapePosted":
            position, inner = divmod(self._tree.index, self._trace.shape.leaves)
            self._tree = _Tree(self._make_tape(position, inner).levels)

    def move(self, turn: int) -> Move:
        """What it does when it is its turn."""
        assert turn == Turn.PICKS, "a challenger only picks"
        return "pick", pick_arguments(self._nodes, self.choice(self._nodes))

    def refutation(self) -> Move | None:
        """What wins at once over the answer as the worker stated it: a wrong length, or tokens other than the trace's.
        None if nothing does, or nothing is stated yet."""
        if self._stated is None:
            return None
        answer, rows_root = self._stated
        tokens = np.frombuffer(answer, "<u4").tolist()
        words, path = self._opener.header()
        index = wrong_end(self._terms, tokens, words)
        if index is not None:
            return "refuteLength", (answer, index, words, path)
        if rows_root != self._trace.rows_root:
            return None
        for index, pair in enumerate(zip(tokens, self._trace.statement.answer, strict=True)):
            if pair[0] != pair[1]:
                opening = self._trace.open(self._terms.prompt_tokens + index, 0)
                return "refuteAnswer", (answer, index, opening.digest, opening.siblings)
        return None

    def agrees(self) -> bool:
        """Whether the worker committed to this very trace, and it ends where the order lets it end."""
        words, _ = self._opener.header()
        answer = list(self._trace.statement.answer)
        return self._trace.root == self._terms.trace_root and wrong_end(self._terms, answer, words) is None

    def choice(self, nodes: list[bytes]) -> int:
        """The first revealed node that is not as it should be; the last one when all are."""
        own = self._tree.nodes()
        return next((i for i, pair in enumerate(zip(own, nodes, strict=True)) if pair[0] != pair[1]), len(nodes) - 1)


def wrong_end(terms: Terms, answer: list[int], header: tuple[bytes, ...]) -> int | None:
    """The token that shows an answer to be too long or too short (Dispute.sol's `refuteLength`), or None."""
    numbers = [int.from_bytes(word, "big") for word in header]
    context_max, ends = numbers[HEADER_CONTEXT_MAX], numbers[HEADER_END_TOKENS:]
    last, tokens = len(answer) - 1, terms.prompt_tokens + len(answer)
    if len(answer) > terms.answer_tokens_max or tokens > context_max:
        return last
    early = next((index for index, token in enumerate(answer[:-1]) if token in ends), None)
    if early is not None:
        return early
    is_free_to_end = answer[-1] in ends or len(answer) == terms.answer_tokens_max or tokens == context_max
    return None if is_free_to_end or terms.ends_by_text else last


def pick_arguments(nodes: list[bytes], choice: int) -> tuple[object, ...]:
    """Arguments of `pick`: the choice, the node, and its path to the node above all."""
    levels = levels_of(np.frombuffer(b"".join(nodes), np.uint8).reshape(-1, 32))
    return choice, nodes[choice], siblings_of(levels, choice)


class Seat:
    """A party at a game: reads what is new, and moves when it may."""

    def __init__(self, chain: DisputeChain, terms: Terms, party: Worker | Challenger) -> None:
        self._chain, self._terms, self._party = chain, terms, party
        self._address = terms.worker if isinstance(party, Worker) else terms.challenger
        self._seen = 0

    @property
    def turns(self) -> tuple[int, ...]:
        """The turns at which this party must move."""
        return self._party.turns

    def act(self) -> str | None:
        """Make one move if there is one to make; returns its function. Raises whatever the chain raises for a move that
        it refuses, or when it does not answer. Whether that move was made or not, the next call goes on from what the
        chain then says; whoever has no other lets the clock run out."""
        turn = self._chain.turn()  # first: a turn of its own lasts until it moves, so no event can come after it
        events = self._chain.events()
        for event in events[self._seen :]:
            self._party.observe(event)
        self._seen = len(events)
        move: Move | None = None
        if isinstance(self._party, Challenger) and turn != Turn.OVER:
            move = self._party.refutation()
        if move is None and turn in self._party.turns:
            move = self._party.move(turn)
        if move is None:
            return None
        self._chain.move(self._address, move[0], self._terms.solidity(), *move[1])
        return move[0]


def play(chain: DisputeChain, terms: Terms, worker: Worker, challenger: Challenger) -> int:
    """Open a game and play it to its end, or until a party's move is refused; returns the number of moves.

    Raises whatever the chain raises for a refused move: its author then lets the clock run out.
    """
    chain.move(terms.challenger, "open", terms.solidity())
    moves = 1
    seats = (Seat(chain, terms, worker), Seat(chain, terms, challenger))
    while chain.turn() != Turn.OVER:
        for seat in seats:
            if seat.act() is not None:
                moves += 1
                assert moves <= MOVES_MAX, "a game has a bounded number of moves"
    return moves


def table_code(entries: list[int]) -> bytes:
    """The code of a contract that holds a table: a zero byte (it stops when called), then three bytes an entry."""
    return b"\0" + b"".join(entry.to_bytes(3, "big") for entry in entries)


def most_moves(positions: int, layers: int, tape_cells: int) -> int:
    """Moves of the longest game over a trace of this size."""
    rounds = [
        -(-depth // LEVELS_PER_ROUND)
        for depth in (depth_of(positions) + depth_of(2 * layers + 2), depth_of(tape_cells))
    ]
    return 2 + 2 * rounds[0] + 1 + 2 * rounds[1] + 1


assert most_moves(131_072, 256, 1 << 23) <= MOVES_MAX
