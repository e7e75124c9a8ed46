"""Tapes: every cell of a program, computed. What a party to a dispute makes when the game has reached a leaf.

`fill` runs a program for one leaf of a trace and keeps every cell's bytes. The values come from `ExactArithmetic`
where it has the operation; running maxima and sums, which only a dispute needs one by one, are made here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Final, Literal

import numpy as np

from core.crypto import keccak256_batch
from zk.arithmetic import ExactArithmetic, Ints, KeyValueRows, unpack_key_values
from zk.assembler import MANTISSAS_PER_CHUNK, chunks_of
from zk.audit import CommittedRows
from zk.choice import Choice
from zk.instruction import TILE, Instruction, Operation, RowMode
from zk.merkle import Digests, depth_of, levels_of, siblings_of
from zk.trace import Statement, key_value_leaf, residual_leaf, token_digest

__all__ = ["Tape", "fill"]

SCORE_MAX: Final = 1 << 30
RESIDUAL: Final = 3  # the operand of a rescaling that is added

Cells = list[bytes]


@dataclass(frozen=True)
class Tape:
    """The cells of one program at one position, by their place; absent ones pad."""

    size: int
    cells: dict[int, bytes]

    @cached_property
    def levels(self) -> list[Digests]:
        """The tree over keccak-256 of each cell, zeros for absent ones."""
        leaves = np.zeros((self.size, 32), np.uint8)
        ends = np.cumsum([0, *map(len, self.cells.values())], dtype=np.uint64)
        data = np.frombuffer(b"".join(self.cells.values()), np.uint8)
        leaves[list(self.cells)] = keccak256_batch(data, ends, threads=1)
        return levels_of(leaves)

    @property
    def depth(self) -> int:
        return depth_of(self.size)

    @property
    def root(self) -> bytes:
        return self.levels[-1].tobytes()

    def group(self, index: int, log2_size: int) -> tuple[bytes, int, tuple[bytes, ...]]:
        """2^log2_size cells: bytes of those present, their number, and the path of their common node."""
        present = [self.cells[i] for i in range(index, index + (1 << log2_size)) if i in self.cells]
        return b"".join(present), len(present), siblings_of(self.levels, index, log2_size)


class _Filler:
    """Values of registers as arrays, then as cells."""

    def __init__(
        self, arithmetic: ExactArithmetic, statement: Statement, rows: CommittedRows, position: int, inner: int
    ) -> None:
        self._arithmetic, self._statement, self._rows, self._position = arithmetic, statement, rows, position
        self._inner = inner
        self._values: dict[tuple[int, int], Ints] = {}
        self._program: tuple[Instruction, ...] = ()
        self._linear_name = ""
        self._choice: Choice | None = None

    def run(self, program: tuple[Instruction, ...], names: tuple[str, ...]) -> Tape:
        """`names` are the linear layers of the program, in order."""
        self._program = program
        pending = list(names)
        cells: dict[int, bytes] = {}
        positions = self._position + 1
        for instruction in program:
            if instruction.operation == Operation.DOT:
                self._linear_name = pending.pop(0)
            made = _MAKERS[instruction.operation](self, instruction)
            start = instruction.first(positions)
            cells.update((start + e, cell) for e, cell in enumerate(_spread(instruction, made)) if cell)
        return Tape(program[-1].first(positions) + 1, cells)

    def value(self, instruction: Instruction, operand: int) -> Ints:
        """The whole register that an operand lies in."""
        return self._values[_key(self.register(instruction, operand))]

    def register(self, instruction: Instruction, operand: int) -> Instruction:
        at = instruction.operands[operand]
        positions = self._position + 1
        first = at.start + at.per_position * positions
        return max(
            (one for one in self._program if one.first(positions) <= first), key=lambda one: one.first(positions)
        )

    def keep(self, instruction: Instruction, values: Ints) -> Ints:
        self._values[_key(instruction)] = values
        return values

    def tiles(self, instruction: Instruction, values: Ints, tile: int = TILE) -> Cells:
        raw = self.keep(instruction, values).reshape(-1).astype("<i4").tobytes()
        return [raw[at : at + 4 * tile] for at in range(0, len(raw), 4 * tile)]

    def scalars(self, instruction: Instruction, values: Ints) -> Cells:
        """Values [cells, n] as n int64, big-endian, a cell."""
        table = self.keep(instruction, values)
        return [row.astype(">i8").tobytes() for row in table.reshape(len(table), -1)]

    def copy_row(self, instruction: Instruction) -> Cells:
        position = self._position - (instruction.row_mode == RowMode.BEFORE)
        boundary = (instruction.row_leaf - 1) // 2
        return self.tiles(instruction, self._rows.boundaries[position, boundary].astype(np.int64))

    def absmax(self, instruction: Instruction) -> Cells:
        tiles = np.abs(self.value(instruction, 0).reshape(-1, TILE)).max(axis=1)
        return self.scalars(instruction, np.maximum.accumulate(np.maximum(tiles, 1)))

    def sum_of_squares(self, instruction: Instruction) -> Cells:
        k = max(int(self.value(instruction, 1)[-1]).bit_length() - 24, -16)
        x = self.value(instruction, 0)
        shifted = x >> k if k >= 0 else x << -k
        return self.scalars(instruction, np.cumsum(np.square(shifted).reshape(-1, TILE).sum(axis=1)))

    def norm_scale(self, instruction: Instruction) -> Cells:
        squares = self.register(instruction, 1)
        scale = self._arithmetic.norm_scale(self.value(squares, 0).reshape(-1))
        return self.scalars(instruction, np.array([[int(scale[0][0]), int(scale[1][0])]]))

    def plain_scale(self, instruction: Instruction) -> Cells:
        a = self.value(instruction, 0)[-1:]
        scale = self._arithmetic.plain_scale(a, instruction.parameters[0])
        return self.scalars(instruction, np.array([[int(scale[0][0]), int(scale[1][0])]]))

    def quantise(self, instruction: Instruction) -> Cells:
        bits = instruction.parameters[0]
        q, _ = self._arithmetic.quantise(self.value(instruction, 0).reshape(-1), bits)
        self.keep(instruction, q)
        if bits == 8:
            limbs = q.reshape(-1, 1, TILE)
        else:
            high = (q + 128) >> 8
            limbs = np.stack([high.reshape(-1, TILE), (q - 256 * high).reshape(-1, TILE)], axis=1)
        return [cell.astype(np.int8).tobytes() for cell in limbs]

    def dot(self, instruction: Instruction) -> Cells:
        q = self.value(instruction, 0)
        weight = self._arithmetic.linear(self._linear_name).weight
        partial = [
            self._arithmetic.accumulate(weight[:, at : at + 1024], q[at : at + 1024])
            for at in range(0, 1024 * chunks_of(len(q)), 1024)
        ]
        sums = self.keep(instruction, np.cumsum(partial, axis=0))
        raw = sums.astype(">i8").tobytes()
        return [raw[at : at + 8] for at in range(0, len(raw), 8)]

    def row_scales(self, instruction: Instruction) -> Cells:
        tile = instruction.parameters[1]
        linear = self._arithmetic.linear(self._linear_name)
        bias = np.zeros_like(linear.mantissas) if linear.bias is None else linear.bias
        raw = (bias << 32 | (linear.exponents & 0xFF) << 16 | linear.mantissas).astype(">i8").tobytes()
        return [raw[at : at + 8 * tile] for at in range(0, len(raw), 8 * tile)]

    def rescale(self, instruction: Instruction) -> Cells:
        linear = self._arithmetic.linear(self._linear_name)
        acc = self.value(instruction, 0)[-1]
        scale = self.value(instruction, 1)[0]
        pair = _Scale(scale[:1], scale[1:])
        v = self._arithmetic.rescale(acc, linear.mantissas, linear.exponents, pair, instruction.parameters[0])
        if linear.bias is not None:
            v = v + linear.bias
        if len(instruction.operands) > RESIDUAL:
            v = v + self.value(instruction, RESIDUAL).reshape(-1)
        tile = 1 << instruction.operands[0].log2_size
        return self.tiles(instruction, self._arithmetic.saturate(v), tile)

    def join(self, instruction: Instruction) -> Cells:
        return self.tiles(instruction, self.value(instruction, 0))

    def heads(self, instruction: Instruction) -> Ints:
        """The heads [count, h] that an instruction reads."""
        width = self._arithmetic.shape.head_width
        source = self.register(instruction, 0)
        first = (instruction.operands[0].start - source.start) // source.width
        values = self._values[_key(source)].reshape(-1, width)
        return values[first : first + instruction.cells]

    def head_norm(self, instruction: Instruction) -> Cells:
        kind: Literal["q", "k"] = "k" if self._inner % 2 == 0 else "q"
        layer = key_value_leaf(0) if kind == "k" else residual_leaf(1)
        normed = self._arithmetic.head_norm((self._inner - layer) // 2, kind, self.heads(instruction))
        return self._int32_heads(instruction, normed)

    def place(self, instruction: Instruction) -> Cells:
        return self._int32_heads(instruction, self._arithmetic.rotary(self._position, self.heads(instruction)))

    def hadamard(self, instruction: Instruction) -> Cells:
        return self._int32_heads(instruction, self._arithmetic.head_hadamard(self.heads(instruction)))

    def _int32_heads(self, instruction: Instruction, heads: Ints) -> Cells:
        return [head.astype("<i4").tobytes() for head in self.keep(instruction, heads)]

    def quantise_head(self, instruction: Instruction) -> Cells:
        q, a = self._arithmetic.quantise(self.heads(instruction), 8)
        self.keep(instruction, np.concatenate([q, a], axis=1))
        return [one.astype(np.int8).tobytes() + size.astype("<i4").tobytes() for one, size in zip(q, a, strict=True)]

    def key_value_digest(self, instruction: Instruction) -> Cells:
        keys, values = (self.value(instruction, i) for i in range(2))
        parts = []
        for pair in zip(keys, values, strict=True):
            parts += [one[:-1].astype(np.int8).tobytes() + one[-1:].astype("<i4").tobytes() for one in pair]
        return [sha256(b"".join(parts)).digest()]

    def row_digest(self, instruction: Instruction) -> Cells:
        return [sha256(self.value(instruction, 0).astype("<i4").tobytes()).digest()]

    def _key_values(self, instruction: Instruction) -> KeyValueRows:
        """The layer's rows, repeated for each query head: k and v [H, S, h], ka and va [H, S]."""
        shape = self._arithmetic.shape
        layer = (instruction.row_leaf - 2) // 2
        rows = unpack_key_values(shape, self._rows.kv_rows[: self._position + 1, layer])
        group = shape.heads // shape.key_value_heads
        return KeyValueRows(*(np.repeat(one, group, axis=0) for one in rows))

    def score(self, instruction: Instruction) -> Cells:
        queries = self.value(instruction, 0)
        rows = self._key_values(instruction)
        mantissa, exponent = instruction.parameters[2:]
        mq, eq = _mantissa(queries[:, -1:] * mantissa)
        mk, ek = _mantissa(rows.ka)
        dot = np.einsum("hd,hsd->hs", queries[:, :-1], rows.k)
        score = _round_shift(dot * mk * mq, -(eq + ek + exponent - 8))
        score = np.clip(score, -SCORE_MAX, SCORE_MAX)
        loudness = score + (_bit_length(rows.va) << 16)
        table = np.stack([score, np.maximum.accumulate(score, 1), np.maximum.accumulate(loudness, 1)], axis=2)
        return self._by_position(instruction, table.swapaxes(0, 1))

    def sums(self, instruction: Instruction) -> Cells:
        scores = self.value(instruction, 0)  # [S, H, 3]
        rows = self._key_values(instruction)
        top, loudest = scores[-1, :, 1], scores[-1, :, 2]
        delta = top - scores[:, :, 0]
        t = 5 + ((loudest - top + 65535) >> 16)
        p = self._arithmetic.exp2_table()[(delta & 65535) >> 4] >> np.minimum(delta >> 16, 63)
        w = np.minimum(32767, _round_shift(p * rows.va.T, t[None]))
        mixed = np.cumsum(w[..., None] * rows.v.swapaxes(0, 1), axis=0)
        return self._by_position(instruction, np.concatenate([np.cumsum(p, axis=0)[..., None], mixed], axis=2))

    def _by_position(self, instruction: Instruction, table: Ints) -> Cells:
        """Values [S, H, n]: a cell for each head at each position."""
        self.keep(instruction, table)
        return [head.tobytes() for row in table.astype(">i8") for head in row]

    def attention_output(self, instruction: Instruction) -> Cells:
        sums, scores = self.value(instruction, 0)[-1], self.value(instruction, 1)[-1]
        total, mixed = sums[:, :1], sums[:, 1:]
        t = 5 + ((scores[:, 2:] - scores[:, 1:2] + 65535) >> 16)
        b = _bit_length(total)
        reciprocal = (np.int64(1) << (b + 22)) // (127 * total)
        output = self._arithmetic.saturate(_round_shift(mixed * reciprocal, b + 18 - t))
        return self.tiles(instruction, output, instruction.parameters[0])

    def gated_unit(self, instruction: Instruction) -> Cells:
        gate, up = np.split(self.value(instruction, 0).reshape(-1), 2)
        return self.tiles(instruction, self._arithmetic.gated_unit(gate, up))

    def token_scale(self, instruction: Instruction) -> Cells:
        token = self._statement.tokens[self._position]
        linear = self._arithmetic.linear("embedding")
        is_mantissa = instruction.parameters[0] == MANTISSAS_PER_CHUNK
        values = linear.mantissas if is_mantissa else linear.exponents
        return self.scalars(instruction, np.array([[token, values[token]]]))

    def embedding(self, instruction: Instruction) -> Cells:
        token = self._statement.tokens[self._position]
        return self.tiles(instruction, self._arithmetic.embedding(np.array([token])))

    def token(self, instruction: Instruction) -> Cells:
        """The cells by which the next token is chosen: those of `zk.choice`."""
        if self._choice is None:
            logits = self._values[_key(self.register(instruction, 0))].reshape(-1)
            sampling = self._statement.sampling
            token = self._arithmetic.choose(logits, sampling, self._position)
            self._choice = Choice(logits, sampling, self._arithmetic.exp2_table(), token)
        return self.scalars(instruction, self._choice.cells(instruction))

    def token_digest(self, instruction: Instruction) -> Cells:
        assert self._choice is not None, "a token is chosen before it is hashed"
        return [token_digest(self._choice.token)]


def _spread(instruction: Instruction, cells: Cells) -> Cells:
    """Cells with the absent ones of a register in between."""
    present, missing = instruction.present, [b""] * (instruction.width - instruction.present)
    if not missing:
        return cells
    groups = (cells[at : at + present] for at in range(0, len(cells), present))
    return [cell for group in groups for cell in [*group, *missing]]


def _key(register: Instruction) -> tuple[int, int]:
    return register.start, register.start_per_position


class _Scale(tuple[Ints, Ints]):
    """(mantissa, exponent), by position and by name, as the arithmetic takes it."""

    def __new__(cls, mantissa: Ints, exponent: Ints) -> "_Scale":
        return super().__new__(cls, (mantissa, exponent))

    @property
    def mantissa(self) -> Ints:
        return self[0]

    @property
    def exponent(self) -> Ints:
        return self[1]


_MAKERS: Final[dict[Operation, Callable[[_Filler, Instruction], Cells]]] = {
    Operation.COPY_ROW: _Filler.copy_row,
    Operation.ABSMAX: _Filler.absmax,
    Operation.SUM_OF_SQUARES: _Filler.sum_of_squares,
    Operation.NORM_SCALE: _Filler.norm_scale,
    Operation.PLAIN_SCALE: _Filler.plain_scale,
    Operation.QUANTISE: _Filler.quantise,
    Operation.DOT: _Filler.dot,
    Operation.ROW_SCALES: _Filler.row_scales,
    Operation.RESCALE: _Filler.rescale,
    Operation.HEAD_NORM: _Filler.head_norm,
    Operation.ROTARY: _Filler.place,
    Operation.HADAMARD: _Filler.hadamard,
    Operation.QUANTISE_HEAD: _Filler.quantise_head,
    Operation.KEY_VALUE_DIGEST: _Filler.key_value_digest,
    Operation.ROW_DIGEST: _Filler.row_digest,
    Operation.SCORE: _Filler.score,
    Operation.SUM: _Filler.sums,
    Operation.ATTENTION_OUTPUT: _Filler.attention_output,
    Operation.JOIN: _Filler.join,
    Operation.GATED_UNIT: _Filler.gated_unit,
    Operation.TOKEN_SCALE: _Filler.token_scale,
    Operation.EMBEDDING: _Filler.embedding,
    Operation.LARGEST: _Filler.token,
    Operation.SEARCH: _Filler.token,
    Operation.THRESHOLD: _Filler.token,
    Operation.ABOVE: _Filler.token,
    Operation.CUT: _Filler.token,
    Operation.DRAW: _Filler.token,
    Operation.PICK: _Filler.token,
    Operation.TOKEN_DIGEST: _Filler.token_digest,
}


def fill(
    arithmetic: ExactArithmetic,
    statement: Statement,
    rows: CommittedRows,
    program: tuple[Instruction, ...],
    position: int,
    inner: int,
) -> Tape:
    """The tape of leaf `inner` of a position, from the rows before it."""
    layer = (inner - 2) // 2 if inner % 2 == 0 else (inner - 3) // 2
    if inner == 0:
        names: tuple[str, ...] = ("head",)
    elif inner % 2 == 0:
        names = (f"layers.{layer}.qkv",)
    else:
        names = tuple(f"layers.{layer}.{role}" for role in ("qkv", "o", "gate_up", "down"))
    return _Filler(arithmetic, statement, rows, position, inner).run(program, names)


def _bit_length(x: Ints) -> Ints:
    return np.frexp(x.astype(np.float64))[1].astype(np.int64)


def _round_shift(x: Ints, count: Ints) -> Ints:
    """rsh(x, count) for |x| < 2^62."""
    count = np.minimum(count, 63)
    half = np.where(count >= 1, np.int64(1) << np.maximum(count - 1, 0), 0)
    raised = x + half
    return np.where(count >= 0, raised >> np.clip(count, 0, 63), raised << np.clip(-count, 0, 63))


def _mantissa(a: Ints) -> tuple[Ints, Ints]:
    exponent = _bit_length(a) - 16
    return np.where(exponent >= 0, a >> np.clip(exponent, 0, 63), a << np.clip(-exponent, 0, 63)), exponent
