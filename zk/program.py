"""Programs: how each leaf of a trace is computed from earlier ones, as a tape of small cells.

A program is a list of instructions (`zk.instruction`). Every model of one header has the same programs, so their root
follows from the header, and an order names it. `zk/contracts/Steps.sol` recomputes any one cell from its operands;
`zk.tape` fills a whole tape. docs/trace.md lists the operations. Owns layout only: no values.
"""

from functools import cached_property
from typing import Final

import numpy as np

from core.hashing import keccak256
from zk.arithmetic import ModelShape
from zk.assembler import assemble
from zk.instruction import Instruction
from zk.merkle import Digests, depth_of, levels_of, siblings_of

__all__ = ["Programs", "program_root"]

SLOTS_LOG2: Final = 6


def program_root(layers: int, tree_root: bytes) -> bytes:
    """The program root of a model of so many layers."""
    return keccak256(layers.to_bytes(32, "big") + tree_root)


class Programs:
    """All programs of a model's header, and their tree."""

    def __init__(self, shape: ModelShape) -> None:
        self.shape = shape
        self.leaves = 1 << depth_of(2 * shape.layers + 2)
        self._programs: dict[int, tuple[Instruction, ...]] = {}

    def program(self, inner: int) -> tuple[Instruction, ...]:
        """The instructions for a leaf of a position, in order of the tape."""
        if inner not in self._programs:
            self._programs[inner] = tuple(assemble(self.shape, inner))
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
    def tree_root(self) -> bytes:
        return self._levels[-1].tobytes()

    @property
    def root(self) -> bytes:
        """What an order names: keccak-256 of the number of layers (32 bytes, big-endian) and the tree's root."""
        return program_root(self.shape.layers, self.tree_root)

    @cached_property
    def _levels(self) -> list[Digests]:
        leaves = np.zeros((self.leaves << SLOTS_LOG2, 32), np.uint8)
        for inner in range(2 * self.shape.layers + 2):
            program = self.program(inner)
            assert len(program) <= 1 << SLOTS_LOG2, "a program has more instructions than slots"
            for slot, instruction in enumerate((program[-1], *program[:-1])):
                leaves[(inner << SLOTS_LOG2) + slot] = np.frombuffer(instruction.leaf(), np.uint8)
        return levels_of(leaves)
