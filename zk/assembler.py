"""Puts the registers of one tape together: what is computed from what, for one leaf of a trace's position.

docs/exact-inference.md section 4 is the order of work, docs/trace.md the operations. Owns layout only: no values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from zk.arithmetic import ModelShape, Role
from zk.instruction import TILE, Instruction, Operand, Operation, RowMode, pad32
from zk.merkle import depth_of
from zk.trace import key_value_leaf, residual_leaf

__all__ = ["BY_COUNT", "BY_WEIGHT", "MANTISSAS_PER_CHUNK", "SEARCH_PASSES", "assemble", "chunks_of", "tile_of_head"]

CHUNK: Final = 1024
MANTISSAS_PER_CHUNK: Final = 512
EXPONENTS_PER_CHUNK: Final = 1024
FIRST_TENSOR: Final = 3  # the model's tree starts with header, tokenizer and chat template
SEARCH_PASSES: Final = 32  # one for each bit of a logit
BY_COUNT: Final = 0
BY_WEIGHT: Final = 1


def assemble(shape: ModelShape, inner: int) -> list[Instruction]:
    """The instructions for leaf `inner` of a position, in order of the tape."""
    return _Assembler(shape).assemble(inner)


def chunks_of(columns: int) -> int:
    """Chunks of a row of int8."""
    return -(-columns // CHUNK)


def tile_of_head(head_width: int) -> int:
    """Entries of a tile of a head: a head is whole tiles."""
    return TILE if head_width % TILE == 0 else TILE // 2


@dataclass(frozen=True)
class _Rows:
    """How a linear layer's rows lie in tiles of `tile` rows: `groups` groups of `per_group` rows each, `width` cells
    (a power of two) to a group, so that a group's cells can be opened by one path."""

    rows: int
    groups: int
    per_group: int
    tile: int

    @property
    def tiles(self) -> int:
        return -(-self.per_group // self.tile)

    @property
    def width(self) -> int:
        return 1 << depth_of(self.tiles)

    @classmethod
    def plain(cls, rows: int) -> "_Rows":
        return cls(rows, -(-rows // TILE), TILE, TILE)


class _Assembler:
    """Appends registers to one tape; each starts at a multiple of 32 cells."""

    def __init__(self, shape: ModelShape) -> None:
        self._shape = shape
        self._program: list[Instruction] = []
        self._end = 0
        self._end_per_position = 0

    def assemble(self, inner: int) -> list[Instruction]:
        if inner == 0:
            self._token()
        elif inner == residual_leaf(0):
            self._embedding()
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
        present: int = 0,
        chain: int = 0,
        tensors: Sequence[int] = (),
        row: tuple[RowMode, int] = (RowMode.NONE, 0),
        parameters: Sequence[int] = (),
    ) -> Instruction:
        place = (self._end, self._end_per_position, cells, per_position)
        form = (width, present or width, chain)
        made = Instruction(operation, *place, *form, tuple(operands), tuple(tensors), *row, tuple(parameters))
        assert per_position % TILE == 0, "registers stay aligned whatever the position"
        assert not cells or not per_position, "a register is fixed or grows, not both"
        self._end += pad32(cells)
        self._end_per_position += per_position
        self._program.append(made)
        return made

    def _tensors(self, name: str) -> tuple[int, ...]:
        """Leaves of weight, mantissa and exponent (and bias) of a linear layer or the embedding; of the rope tables; of
        a layer's norms of queries and keys (`layers.3.norms`)."""
        shape = self._shape
        per_layer = 12 + shape.qkv_bias + 2 * shape.qk_norm
        if name == "embedding":
            first = 0
        elif name == "head":
            first = 3 + per_layer * shape.layers
        elif name == "rope":
            return tuple(FIRST_TENSOR + 6 + per_layer * shape.layers + i for i in range(2))
        else:
            _, layer, part = name.split(".")
            first = FIRST_TENSOR + 3 + per_layer * int(layer)
            if part == "norms":
                return tuple(first + 3 + shape.qkv_bias + i for i in range(2))
            before = {"qkv": 0, "o": 3, "gate_up": 6, "down": 9}[part] + (per_layer - 12 if part != "qkv" else 0)
            first += before - FIRST_TENSOR
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

    # Linear layers

    def _magnitude(self, z: Instruction) -> Instruction:
        return self._add(Operation.ABSMAX, z.cells, [self._at(z, outer=1)], chain=1)

    def _normalised(self, x: Instruction, role: Role, name: str, rows: _Rows) -> Instruction:
        """A linear layer behind a norm, of residual tiles."""
        shape = self._shape
        a = self._magnitude(x)
        squares = self._add(Operation.SUM_OF_SQUARES, x.cells, [self._at(x, outer=1), self._last(a)], chain=1)
        constants = (shape.model_width, shape.epsilon_q48, shape.residual_fraction)
        scale = self._add(Operation.NORM_SCALE, 1, [self._last(a), self._last(squares)], parameters=constants)
        return self._linear(x, a, scale, role, name, rows)

    def _added(self, z: Instruction, fraction: int, role: Role, name: str, residual: Instruction) -> Instruction:
        """A linear layer of tiles z, added to residual tiles."""
        a = self._magnitude(z)
        scale = self._add(Operation.PLAIN_SCALE, 1, [self._last(a)], parameters=(fraction,))
        return self._linear(z, a, scale, role, name, _Rows.plain(self._shape.model_width), residual)

    def _linear(
        self,
        z: Instruction,
        a: Instruction,
        scale: Instruction,
        role: Role,
        name: str,
        rows: _Rows,
        residual: Instruction | None = None,
    ) -> Instruction:
        bits = self._shape.bits(role)
        weight, *scales = self._tensors(name)
        q = self._add(Operation.QUANTISE, z.cells, [self._at(z, outer=1), self._last(a)], parameters=(bits,))
        chunks, width = chunks_of(TILE * z.cells), pad32(rows.rows)
        acc = self._add(
            Operation.DOT,
            chunks * width,
            [self._at(q, outer=TILE, log2_size=5)],
            width=width,
            present=rows.rows,
            chain=width,
            tensors=[weight],
            parameters=(bits,),
        )
        of_rows = self._add(
            Operation.ROW_SCALES,
            rows.groups * rows.width,
            tensors=scales,
            parameters=(rows.per_group, rows.tile, rows.rows),
            width=rows.width,
            present=rows.tiles,
        )
        sums = Operand(
            acc.start + (chunks - 1) * width, acc.start_per_position, rows.per_group, rows.tile, depth_of(rows.tile)
        )
        operands = [sums, self._at(scale), self._at(of_rows, outer=rows.width, inner=1)]
        if residual is not None:
            operands.append(self._at(residual, outer=1))
        fraction = (self._shape.output_fraction(role),)
        return self._add(
            Operation.RESCALE,
            of_rows.cells,
            operands,
            width=rows.width,
            present=rows.tiles,
            parameters=fraction,
        )

    def _residual(self, boundary: int, mode: RowMode = RowMode.OWN) -> Instruction:
        cells = self._shape.model_width // TILE
        return self._add(Operation.COPY_ROW, cells, row=(mode, residual_leaf(boundary)))

    def _row_digest(self, x: Instruction) -> None:
        groups = [self._at(x, log2_size=5, skip=skip) for skip in range(0, x.cells, TILE)]
        self._add(Operation.ROW_DIGEST, 1, groups)

    def _embedding(self) -> None:
        weight, mantissas, exponents = self._tensors("embedding")
        scales = [
            self._add(Operation.TOKEN_SCALE, 1, tensors=[tensor], row=(RowMode.OWN, 0), parameters=(entries,))
            for tensor, entries in ((mantissas, MANTISSAS_PER_CHUNK), (exponents, EXPONENTS_PER_CHUNK))
        ]
        x = self._add(
            Operation.EMBEDDING,
            self._shape.model_width // TILE,
            [self._at(scale) for scale in scales],
            tensors=[weight],
            parameters=(self._shape.residual_fraction,),
        )
        self._row_digest(x)

    # Layers

    def _projected(self, layer: int) -> tuple[Instruction, Instruction]:
        """The residual at a layer's beginning, and its queries, keys and values, by heads."""
        shape = self._shape
        heads = shape.heads + 2 * shape.key_value_heads
        rows = _Rows(heads * shape.head_width, heads, shape.head_width, tile_of_head(shape.head_width))
        x = self._residual(layer)
        return x, self._normalised(x, "qkv", f"layers.{layer}.qkv", rows)

    def _source(self, y: Instruction, first: int) -> Operand:
        """Heads from number `first` on, one for each cell."""
        return self._at(y, outer=y.width, log2_size=depth_of(y.width), skip=first * y.width)

    def _placed(self, y: Instruction, layer: int, kind: Literal["q", "k"]) -> Instruction:
        """Queries or keys: normed, rotated, transformed, quantised."""
        shape = self._shape
        first, count = (0, shape.heads) if kind == "q" else (shape.heads, shape.key_value_heads)
        source = self._source(y, first)
        if shape.qk_norm:
            tensor = self._tensors(f"layers.{layer}.norms")[kind == "k"]
            normed = self._add(Operation.HEAD_NORM, count, [source], tensors=[tensor], parameters=(shape.epsilon_q48,))
            source = self._at(normed, outer=1)
        placed = self._add(Operation.ROTARY, count, [source], tensors=self._tensors("rope"))
        if shape.qk_hadamard:
            placed = self._add(Operation.HADAMARD, count, [self._at(placed, outer=1)])
        return self._add(Operation.QUANTISE_HEAD, count, [self._at(placed, outer=1)])

    def _key_values(self, layer: int) -> None:
        shape = self._shape
        _, y = self._projected(layer)
        groups = shape.key_value_heads
        keys = self._placed(y, layer, "k")
        values = self._add(Operation.QUANTISE_HEAD, groups, [self._source(y, shape.heads + groups)])
        parts = [
            self._at(one, log2_size=depth_of(min(groups - skip, TILE)), skip=skip)
            for skip in range(0, groups, TILE)
            for one in (keys, values)
        ]
        self._add(Operation.KEY_VALUE_DIGEST, 1, parts, parameters=(shape.head_width + 4,))

    def _attention(self, layer: int, queries: Instruction) -> Instruction:
        shape = self._shape
        stride, tile = pad32(shape.heads), tile_of_head(shape.head_width)
        sizes = (shape.heads // shape.key_value_heads, shape.head_width)
        row = (RowMode.EACH, key_value_leaf(layer))
        scores = self._add(
            Operation.SCORE,
            0,
            [self._at(queries, inner=1)],
            per_position=stride,
            width=stride,
            present=shape.heads,
            chain=stride,
            row=row,
            parameters=(*sizes, shape.attention_mantissa, shape.attention_exponent),
        )
        sums = self._add(
            Operation.SUM,
            0,
            [self._at(scores, outer=stride, inner=1), self._last(scores, inner=1)],
            per_position=stride,
            width=stride,
            present=shape.heads,
            chain=stride,
            row=row,
            parameters=sizes,
        )
        ends = [self._last(sums, outer=1), self._last(scores, outer=1)]
        tiles = shape.head_width // tile
        mixed = self._add(Operation.ATTENTION_OUTPUT, shape.heads * tiles, ends, width=tiles, parameters=(tile,))
        if tile == TILE:
            return mixed
        return self._add(Operation.JOIN, mixed.cells // 2, [self._at(mixed, outer=2, log2_size=1)])

    def _layer(self, layer: int) -> None:
        shape, prefix = self._shape, f"layers.{layer}"
        x, y = self._projected(layer)
        mixed = self._attention(layer, self._placed(y, layer, "q"))
        x = self._added(mixed, 16, "o", f"{prefix}.o", x)
        rows = _Rows.plain(2 * shape.feed_forward_width)
        y = self._normalised(x, "gate_up", f"{prefix}.gate_up", rows)
        tiles = shape.feed_forward_width // TILE
        both = [self._at(y, outer=1), self._at(y, outer=1, skip=tiles)]
        hidden = self._add(Operation.GATED_UNIT, tiles, both, parameters=(shape.hidden_fraction,))
        x = self._added(hidden, shape.hidden_fraction, "down", f"{prefix}.down", x)
        self._row_digest(x)

    # The next token

    def _token(self) -> None:
        x = self._residual(self._shape.layers, RowMode.BEFORE)
        logits = self._normalised(x, "head", "head", _Rows.plain(self._shape.vocabulary))
        each = self._at(logits, outer=1)
        largest = self._add(Operation.LARGEST, logits.cells, [each], chain=1)
        top = self._last(largest)
        by_count = self._cut(logits, top, None)
        cut = self._at(self._cut(logits, top, by_count))
        drawn = self._add(Operation.DRAW, logits.cells, [each, top, cut], chain=1)
        hinted = [self._at(logits, inner=1), top, cut, self._at(drawn, inner=1)]
        pick = self._add(Operation.PICK, 1, hinted, parameters=(logits.cells,))
        self._add(Operation.TOKEN_DIGEST, 1, [top, self._at(pick)])

    def _cut(self, logits: Instruction, top: Operand, earlier: Instruction | None) -> Instruction:
        """Where the order of logits is cut off: by top_k, or by top_p within what the `earlier` cut keeps."""
        kind = (BY_COUNT if earlier is None else BY_WEIGHT,)
        within = [] if earlier is None else [self._at(earlier)]
        tile = self._at(logits, inner=1)
        search = self._add(
            Operation.SEARCH,
            SEARCH_PASSES * logits.cells,
            [tile, top, *within],
            width=logits.cells,
            chain=1,
            parameters=kind,
        )
        threshold = self._add(Operation.THRESHOLD, 1, [self._last(search), *within], parameters=kind)
        each = self._at(logits, outer=1)
        above = self._add(Operation.ABOVE, logits.cells, [each, top, self._at(threshold)], chain=1, parameters=kind)
        return self._add(Operation.CUT, 1, [self._last(above), top, self._at(threshold), *within], parameters=kind)
