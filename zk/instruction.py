"""Instructions: the registers that a tape is made of, and the bytes that a contract reads them from.

An instruction says where a register stands, how many cells it has (both may grow with the number n of positions),
which operation makes a cell, and which cells, tensors and trace rows that reads. `zk.program` puts them together;
`zk/contracts/Instructions.sol` is the twin of the byte form. Owns layout only: no values.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from core.hashing import keccak256

__all__ = ["TILE", "Instruction", "Operand", "Operation", "RowMode", "pad32"]

TILE: Final = 32


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
    DRAW = 21
    PICK = 22
    ROW_SCALES = 23
    TOKEN_SCALE = 24
    HEAD_NORM = 25
    SEARCH = 26
    THRESHOLD = 27
    ABOVE = 28
    CUT = 29
    JOIN = 30


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

    Cells e with e mod width >= `present` are absent. Where `chain` is not 0, cell e reads cell e - chain too, if there
    is one. `tensors` are leaves of the model's tree. `parameters` are the operation's.
    """

    operation: Operation
    start: int
    start_per_position: int
    cells: int
    cells_per_position: int
    width: int
    present: int
    chain: int
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

    def encode(self) -> bytes:
        """Big-endian int64 words: thirteen fields, then five for each operand, the tensors and the parameters."""
        place = (self.start, self.start_per_position, self.cells, self.cells_per_position)
        form = (self.width, self.present, self.chain, self.row_mode, self.row_leaf)
        counts = (len(self.operands), len(self.tensors), len(self.parameters))
        operands = [word for o in self.operands for word in (o.start, o.per_position, o.outer, o.inner, o.log2_size)]
        words = (self.operation, *place, *form, *counts, *operands, *self.tensors, *self.parameters)
        return struct.pack(f">{len(words)}q", *words)

    def leaf(self) -> bytes:
        """keccak-256 of the byte form: its leaf in the programs' tree."""
        return keccak256(self.encode())


def pad32(count: int) -> int:
    return -(-count // TILE) * TILE
