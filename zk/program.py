"""Programs: how each leaf of a trace is computed from earlier ones, as a tape of small cells.

A program is a list of instructions; an instruction is a register of the tape: where it stands, how many cells it has
(both may grow with the number n of positions), which operation makes a cell and which cells, tensors and trace rows it
reads. Every model of one header has the same programs, so their root follows from the header, and an order names it.
`zk/contracts/Steps.sol` recomputes any one cell from its operands; `zk.tape` fills a whole tape. docs/trace.md lists
the operations. Owns layout only: no values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Final

import numpy as np
from eth_abi.abi import encode

from core.hashing import keccak256
from zk.arithmetic import ModelShape, Role
from zk.errors import MoveInvalid
from zk.merkle import Digests, depth_of, levels_of, siblings_of
from zk.trace import key_value_leaf, residual_leaf

__all__ = ["TILE", "Instruction", "Operand", "Operation", "Programs", "RowMode", "chunks_of", "pad32"]

TILE: Final = 32
CHUNK: Final = 1024
SLOTS_LOG2: Final = 6
FIRST_TENSOR: Final = 3  # the model's tree starts with header, tokenizer and chat template


class Operation(IntEnum):
    """What makes a cell; the numbers are those of Steps.sol."""

    COPY_ROW = 1
    ABSMAX = 2
    SUM_OF_SQUARES = 3
    NORM_SCALE = 4
    PLAIN_SCALE = 5
    QUANTISE = 6
    DOT = 7
    RESCALE = 8
    ROTARY = 9
    HADAMARD = 10
    QUANTISE_HEAD = 11
    KEY_VALUE_DIGEST = 12
    ROW_DIGEST = 13
    SCORE = 14
    SUM = 15
    ATTENTION_OUTPUT = 16
    GATED_UNIT = 17
    EMBEDDING = 18
    LARGEST = 19
    TOKEN_DIGEST = 20
    WEIGHTS = 21
    PICK = 22


class RowMode(IntEnum):
    """Which position's row of the trace a cell reads."""

    NONE = 0
    OWN = 1
    EACH = 2  # the position numbered like the cell's outer index
    BEFORE = 3


@dataclass(frozen=True, slots=True)
class Operand:
    """2^log2_size cells from start + per_position * n + outer * (e div width) + inner * (e mod width) on."""

    start: int
    per_position: int = 0
    outer: int = 0
    inner: int = 0
    log2_size: int = 0


@dataclass(frozen=True, slots=True)
class Instruction:
    """A register: `cells` + `cells_per_position` * n cells from `start` + `start_per_position` * n on.

    A `chained` register's cell e reads its own cell e - width too, if e >= width. `tensors` are leaves of the model's
    tree. `parameters` are the operation's.
    """

    operation: Operation
    start: int
    start_per_position: int
    cells: int
    cells_per_position: int
    width: int
    chained: bool
    operands: tuple[Operand, ...]
    tensors: tuple[int, ...]
    row_mode: RowMode
    row_leaf: int
    parameters: tuple[int, ...]

    def first(self, positions: int) -> int:
        """Its first cell on the tape of a leaf at position `positions` - 1."""
        return self.start + self.start_per_position * positions

    def count(self, positions: int) -> int:
        return self.cells + self.cells_per_position * positions

    def solidity(self) -> tuple[object, ...]:
        """The struct as an ABI encoder takes it."""
        operands = [(o.start, o.per_position, o.outer, o.inner, o.log2_size) for o in self.operands]
        head = (int(self.operation), self.start, self.start_per_position, self.cells, self.cells_per_position)
        tail = (self.width, self.chained, operands, list(self.tensors), int(self.row_mode), self.row_leaf)
        return (*head, *tail, list(self.parameters))

    def leaf(self) -> bytes:
        """keccak-256 of the ABI encoding."""
        return keccak256(encode([_INSTRUCTION_TYPE], [self.solidity()]))


_INSTRUCTION_TYPE: Final = (
    "(uint256,uint256,uint256,uint256,uint256,uint256,bool,"
    "(uint256,uint256,uint256,uint256,uint256)[],uint256[],uint256,uint256,int256[])"
)


def pad32(count: int) -> int:
    return -(-count // TILE) * TILE


def chunks_of(columns: int) -> int:
    """Chunks of a row of int8."""
    return -(-columns // CHUNK)


class Programs:
    """All programs of a model's header, and their tree.

    Raises MoveInvalid for shapes that the contract cannot take: a head width other than 32, 64, 128 or 256, head norms,
    a vocabulary that is no multiple of 32, or more than 32 key-value heads.
    """

    def __init__(self, shape: ModelShape) -> None:
        if shape.head_width not in (32, 64, 128, 256) or shape.vocabulary % TILE or shape.key_value_heads > TILE:
            raise MoveInvalid("disputes need heads of 32 to 256 entries and a vocabulary in steps of 32")
        if shape.qk_norm:
            raise MoveInvalid("disputes cannot yet recompute head norms")
        self.shape = shape
        self.leaves = 1 << depth_of(2 * shape.layers + 2)
        self._programs: dict[int, tuple[Instruction, ...]] = {}

    def program(self, inner: int) -> tuple[Instruction, ...]:
        """The instructions for a leaf of a position, in order of the tape."""
        if inner not in self._programs:
            self._programs[inner] = tuple(_Assembler(self.shape).assemble(inner))
        return self._programs[inner]

    def slot(self, inner: int, index: int, positions: int) -> int:
        """The slot of the instruction whose register holds a cell of the tape. Slot 0 is the last instruction."""
        program = self.program(inner)
        last = len(program) - 1
        found = max(i for i, one in enumerate(program) if one.first(positions) <= index)
        return 0 if found == last else found + 1

    def instruction(self, inner: int, slot: int) -> Instruction:
        program = self.program(inner)
        return program[-1] if slot == 0 else program[slot - 1]

    def path(self, inner: int, slot: int) -> tuple[bytes, ...]:
        """The siblings of an instruction in the programs' tree."""
        return siblings_of(self._levels, (inner << SLOTS_LOG2) + slot)

    @property
    def root(self) -> bytes:
        return self._levels[-1].tobytes()

    @cached_property
    def _levels(self) -> list[Digests]:
        leaves = np.zeros((self.leaves << SLOTS_LOG2, 32), np.uint8)
        for inner in range(2 * self.shape.layers + 2):
            program = self.program(inner)
            assert len(program) <= 1 << SLOTS_LOG2, "a program has more instructions than slots"
            for slot, instruction in enumerate((program[-1], *program[:-1])):
                leaves[(inner << SLOTS_LOG2) + slot] = np.frombuffer(instruction.leaf(), np.uint8)
        return levels_of(leaves)


class _Assembler:
    """Appends registers to one tape; each starts at a multiple of 32 cells."""

    def __init__(self, shape: ModelShape) -> None:
        self._shape = shape
        self._program: list[Instruction] = []
        self._end = 0
        self._end_per_position = 0

    def assemble(self, inner: int) -> list[Instruction]:
        shape = self._shape
        if inner == 0:
            self._token()
        elif inner == residual_leaf(0):
            tensors = self._tensors("embedding")
            x = self._add(
                Operation.EMBEDDING,
                shape.model_width // TILE,
                tensors=tensors,
                row=(RowMode.OWN, 0),
                parameters=(shape.residual_fraction,),
            )
            self._row_digest(x)
        elif inner % 2 == 0:
            self._key_values((inner - key_value_leaf(0)) // 2)
        else:
            self._layer((inner - residual_leaf(1)) // 2)
        return self._program

    def _add(
        self,
        operation: Operation,
        cells: int,
        operands: Sequence[Operand] = (),
        *,
        per_position: int = 0,
        width: int = 1,
        chained: bool = False,
        tensors: Sequence[int] = (),
        row: tuple[RowMode, int] = (RowMode.NONE, 0),
        parameters: Sequence[int] = (),
    ) -> Instruction:
        place = (self._end, self._end_per_position)
        size = (cells, per_position)
        made = Instruction(
            operation, *place, *size, width, chained, tuple(operands), tuple(tensors), *row, tuple(parameters)
        )
        assert per_position % TILE == 0, "registers stay aligned whatever the position"
        assert not cells or not per_position, "a register is fixed or grows, not both"
        self._end += pad32(cells)
        self._end_per_position += per_position
        self._program.append(made)
        return made

    def _tensors(self, name: str) -> tuple[int, ...]:
        """Leaves of weight, mantissa and exponent (and bias) of a linear layer or the embedding; of the rope tables."""
        shape = self._shape
        per_layer = 12 + shape.qkv_bias + 2 * shape.qk_norm
        if name == "embedding":
            first = 0
        elif name == "head":
            first = 3 + per_layer * shape.layers
        elif name == "rope":
            return tuple(FIRST_TENSOR + 6 + per_layer * shape.layers + i for i in range(2))
        else:
            _, layer, role = name.split(".")
            before = {"qkv": 0, "o": 3, "gate_up": 6, "down": 9}[role]
            first = 3 + per_layer * int(layer) + before + (per_layer - 12 if role != "qkv" else 0)
        count = 4 if name.endswith("qkv") and shape.qkv_bias else 3
        return tuple(FIRST_TENSOR + first + i for i in range(count))

    def _at(
        self, register: Instruction, *, outer: int = 0, inner: int = 0, log2_size: int = 0, skip: int = 0
    ) -> Operand:
        return Operand(register.start + skip, register.start_per_position, outer, inner, log2_size)

    def _last(self, register: Instruction, *, outer: int = 0, inner: int = 0) -> Operand:
        """The last cell of a fixed register, or the row of cells of the last position of one that grows."""
        if register.cells_per_position == 0:
            return self._at(register, skip=register.cells - 1)
        start = register.start - register.width
        assert start >= 0, "a register that grows stands behind others"
        return Operand(start, register.start_per_position + register.cells_per_position, outer, inner)

    def _magnitude(self, z: Instruction) -> Instruction:
        return self._add(Operation.ABSMAX, z.cells, [self._at(z, outer=1)], chained=True)

    def _normalised(self, x: Instruction, role: Role, name: str) -> Instruction:
        """A linear layer behind a norm, of residual tiles."""
        shape = self._shape
        a = self._magnitude(x)
        squares = self._add(Operation.SUM_OF_SQUARES, x.cells, [self._at(x, outer=1), self._last(a)], chained=True)
        constants = (shape.model_width, shape.epsilon_q48, shape.residual_fraction)
        scale = self._add(Operation.NORM_SCALE, 1, [self._last(a), self._last(squares)], parameters=constants)
        mode = 1 if role == "qkv" and shape.qkv_bias else 0
        return self._linear(x, a, scale, role, name, shape.output_fraction(role), mode)

    def _added(self, z: Instruction, fraction: int, role: Role, name: str, residual: Instruction) -> Instruction:
        """A linear layer of tiles z, added to residual tiles."""
        a = self._magnitude(z)
        scale = self._add(Operation.PLAIN_SCALE, 1, [self._last(a)], parameters=(fraction,))
        return self._linear(z, a, scale, role, name, self._shape.residual_fraction, 2, residual)

    def _linear(
        self,
        z: Instruction,
        a: Instruction,
        scale: Instruction,
        role: Role,
        name: str,
        fraction: int,
        mode: int,
        residual: Instruction | None = None,
    ) -> Instruction:
        bits, rows = self._shape.bits(role), self._rows(role)
        weight, *scales = self._tensors(name)
        q = self._add(Operation.QUANTISE, z.cells, [self._at(z, outer=1), self._last(a)], parameters=(bits,))
        chunks = chunks_of(TILE * z.cells)
        acc = self._add(
            Operation.DOT,
            chunks * rows,
            [self._at(q, outer=TILE, log2_size=5)],
            width=rows,
            chained=True,
            tensors=[weight],
            parameters=(rows, bits),
        )
        operands = [self._at(acc, outer=TILE, log2_size=5, skip=(chunks - 1) * rows), self._at(scale)]
        if residual is not None:
            operands.append(self._at(residual, outer=1))
        return self._add(Operation.RESCALE, rows // TILE, operands, tensors=scales, parameters=(fraction, mode))

    def _rows(self, role: Role) -> int:
        shape = self._shape
        heads = shape.heads + 2 * shape.key_value_heads
        return {
            "qkv": heads * shape.head_width,
            "o": shape.model_width,
            "gate_up": 2 * shape.feed_forward_width,
            "down": shape.model_width,
            "head": shape.vocabulary,
        }[role]

    def _residual(self, boundary: int, mode: RowMode = RowMode.OWN) -> Instruction:
        cells = self._shape.model_width // TILE
        return self._add(Operation.COPY_ROW, cells, row=(mode, residual_leaf(boundary)))

    def _heads(self, y: Instruction, first: int, count: int) -> Instruction:
        """Rotated heads `first` .. of the qkv projection, quantised."""
        shape = self._shape
        tiles = shape.head_width // TILE
        log2_size = depth_of(tiles)
        source = self._at(y, outer=tiles, log2_size=log2_size, skip=first * tiles)
        placed = self._add(Operation.ROTARY, count, [source], tensors=self._tensors("rope"))
        if shape.qk_hadamard:
            placed = self._add(Operation.HADAMARD, count, [self._at(placed, outer=1)])
        return self._add(Operation.QUANTISE_HEAD, count, [self._at(placed, outer=1)])

    def _row_digest(self, x: Instruction) -> None:
        groups = [self._at(x, log2_size=5, skip=skip) for skip in range(0, x.cells, TILE)]
        self._add(Operation.ROW_DIGEST, 1, groups)

    def _key_values(self, layer: int) -> None:
        shape = self._shape
        y = self._normalised(self._residual(layer), "qkv", f"layers.{layer}.qkv")
        groups, tiles = shape.key_value_heads, shape.head_width // TILE
        keys = self._heads(y, shape.heads, groups)
        skip = (shape.heads + groups) * tiles
        source = self._at(y, outer=tiles, log2_size=depth_of(tiles), skip=skip)
        values = self._add(Operation.QUANTISE_HEAD, groups, [source])
        both = [self._at(one, log2_size=depth_of(groups)) for one in (keys, values)]
        self._add(Operation.KEY_VALUE_DIGEST, 1, both, parameters=(shape.head_width + 4,))

    def _attention(self, layer: int, queries: Instruction) -> Instruction:
        shape = self._shape
        stride, tiles = pad32(shape.heads), shape.head_width // TILE
        sizes = (shape.heads, shape.heads // shape.key_value_heads, shape.head_width)
        row = (RowMode.EACH, key_value_leaf(layer))
        scores = self._add(
            Operation.SCORE,
            0,
            [self._at(queries, inner=1)],
            per_position=stride,
            width=stride,
            chained=True,
            row=row,
            parameters=(*sizes, shape.attention_mantissa, shape.attention_exponent),
        )
        sums = self._add(
            Operation.SUM,
            0,
            [self._at(scores, outer=stride, inner=1), self._last(scores, inner=1)],
            per_position=stride,
            width=stride,
            chained=True,
            row=row,
            parameters=sizes,
        )
        ends = [self._last(sums, outer=1), self._last(scores, outer=1)]
        return self._add(Operation.ATTENTION_OUTPUT, shape.heads * tiles, ends, width=tiles)

    def _layer(self, layer: int) -> None:
        shape, prefix = self._shape, f"layers.{layer}"
        x = self._residual(layer)
        y = self._normalised(x, "qkv", f"{prefix}.qkv")
        mixed = self._attention(layer, self._heads(y, 0, shape.heads))
        x = self._added(mixed, 16, "o", f"{prefix}.o", x)
        y = self._normalised(x, "gate_up", f"{prefix}.gate_up")
        tiles = shape.feed_forward_width // TILE
        both = [self._at(y, outer=1), self._at(y, outer=1, skip=tiles)]
        hidden = self._add(Operation.GATED_UNIT, tiles, both, parameters=(shape.hidden_fraction,))
        x = self._added(hidden, shape.hidden_fraction, "down", f"{prefix}.down", x)
        self._row_digest(x)

    def _token(self) -> None:
        logits = self._normalised(self._residual(self._shape.layers, RowMode.BEFORE), "head", "head")
        largest = self._add(Operation.LARGEST, logits.cells, [self._at(logits, outer=1)], chained=True)
        top = self._last(largest)
        weights = self._add(Operation.WEIGHTS, logits.cells, [self._at(logits, outer=1), top], chained=True)
        hinted = [self._at(logits, inner=1), top, self._at(weights, inner=1)]
        pick = self._add(Operation.PICK, 1, [self._last(weights), *hinted], parameters=(logits.cells,))
        self._add(Operation.TOKEN_DIGEST, 1, [top, self._at(pick)])
