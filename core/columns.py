"""Struct-of-arrays tables: the form of a block inside a node (design.md D1).

A table is a frozen dataclass of numpy arrays described by one LAYOUT. Rows come in groups: the first group is the
table's own (one row a transaction, say); an *offsets* column of one group cuts another group into runs, so that row i
owns rows offsets[i] .. offsets[i+1] of it. A group that nothing cuts is optional: it has one row for each row of the
first group, or none at all. The same layout drives validation, the byte form that goes to disk and over
the wire, selection and concatenation; concrete tables (transactions, receipts, state differences) only declare it.

Integers are little-endian. A 256-bit integer is four u64 limbs, least significant first: u64[n, 4].
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from core.errors import InvalidInput

__all__ = ["Array", "Column", "Columns", "ColumnsError", "int_from_limbs", "limbs_from_int", "limbs_from_ints"]

Array = npt.NDArray[Any]

_ALIGNMENT_BYTES = 8


class ColumnsError(InvalidInput):
    """A table's bytes or arrays do not have the shape that its layout demands."""

    code = "invalid_columns"


@dataclass(frozen=True, slots=True)
class Column:
    """One array: `rows` names its group, `width` is its shape after the row axis.

    With `cuts`, the column is an offsets column: u64[rows + 1], ascending from 0 to the number of rows of group `cuts`.
    """

    name: str
    rows: str
    dtype: str = "<u8"
    width: tuple[int, ...] = ()
    cuts: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Base of every table. Arrays are read-only by convention and C-contiguous; `validate` holds on construction."""

    LAYOUT: ClassVar[tuple[Column, ...]]

    def __post_init__(self) -> None:
        self.validate()

    def __len__(self) -> int:
        return self._row_counts()[self.LAYOUT[0].rows]

    def __eq__(self, other: object) -> bool:
        """Equal when every array is equal byte for byte."""
        if type(other) is not type(self):
            return NotImplemented
        return self.to_bytes() == other.to_bytes()

    __hash__ = None  # type: ignore[assignment]

    def arrays(self) -> list[Array]:
        """The arrays in layout order."""
        return [getattr(self, column.name) for column in self.LAYOUT]

    def validate(self) -> None:
        """Raise ColumnsError naming the first array whose type, shape or offsets are wrong."""
        counts = self._row_counts()
        for group in self._optional_groups():
            if counts[group] not in (0, len(self)):
                raise ColumnsError(f"{type(self).__name__}: {counts[group]} rows of {group} beside {len(self)}")
        for column, array in zip(self.LAYOUT, self.arrays(), strict=True):
            expected = (counts[column.rows] + bool(column.cuts), *column.width)
            if array.dtype != np.dtype(column.dtype) or array.shape != expected or not array.flags.c_contiguous:
                raise ColumnsError(
                    f"{type(self).__name__}.{column.name} is {array.dtype}{list(array.shape)}, "
                    f"expected {column.dtype}{list(expected)}, contiguous"
                )
            if column.cuts and (array[0] != 0 or array[-1] != counts[column.cuts] or np.any(array[1:] < array[:-1])):
                raise ColumnsError(
                    f"{type(self).__name__}.{column.name} must ascend from 0 to {counts[column.cuts]} rows"
                )

    @classmethod
    def empty(cls) -> Self:
        """The table with no rows."""
        return cls(*(np.zeros((int(bool(c.cuts)), *c.width), c.dtype) for c in cls.LAYOUT))

    def to_bytes(self) -> bytes:
        """Row counts of the groups, then every array in layout order, each padded to 8 bytes."""
        counts = self._row_counts()
        parts = [np.array([counts[group] for group in self._groups()], "<u8").tobytes()]
        for array in self.arrays():
            raw = array.tobytes()
            parts += [raw, bytes(-len(raw) % _ALIGNMENT_BYTES)]
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """The inverse of `to_bytes`, without copying: the arrays are read-only views of `raw`.

        Raises ColumnsError when `raw` is too short, too long, not padded with zeros, or breaks the layout.
        """
        groups = cls._groups()
        position = 8 * len(groups)
        if len(raw) < position:
            raise ColumnsError(f"{cls.__name__}: {len(raw)} bytes are too few for the row counts")
        counts = dict(zip(groups, np.frombuffer(raw, "<u8", len(groups)).tolist(), strict=True))
        arrays = []
        for column in cls.LAYOUT:
            rows = counts[column.rows] + bool(column.cuts)
            items = rows * int(np.prod(column.width, dtype=np.int64))
            size = items * np.dtype(column.dtype).itemsize
            padding = -size % _ALIGNMENT_BYTES
            if size + padding > len(raw) - position:
                raise ColumnsError(f"{cls.__name__}.{column.name}: {rows} rows do not fit into {len(raw)} bytes")
            arrays.append(np.frombuffer(raw, column.dtype, items, position).reshape(rows, *column.width))
            position += size
            if any(raw[position : position + padding]):
                raise ColumnsError(f"{cls.__name__}.{column.name}: padding is not zero")
            position += padding
        if position != len(raw):
            raise ColumnsError(f"{cls.__name__}: {len(raw) - position} bytes too many")
        return cls(*arrays)

    def take(self, indices: Sequence[int] | Array) -> Self:
        """The table of these rows of the first group, in this order, with all that they own."""
        picked = {self.LAYOUT[0].rows: np.asarray(indices, np.int64)}
        counts = self._row_counts()
        for group in self._optional_groups():
            picked[group] = picked[self.LAYOUT[0].rows][: None if counts[group] else 0]
        for column in self.LAYOUT:
            if column.cuts:
                offsets = getattr(self, column.name).astype(np.int64)
                rows = picked[column.rows]
                runs = [np.arange(offsets[row], offsets[row + 1]) for row in rows.tolist()]
                picked[column.cuts] = np.concatenate(runs) if runs else np.zeros(0, np.int64)
        arrays = []
        for column in self.LAYOUT:
            array, rows = getattr(self, column.name), picked[column.rows]
            if column.cuts:
                lengths = array[1:][rows] - array[:-1][rows]
                arrays.append(np.concatenate([np.zeros(1, "<u8"), np.cumsum(lengths, dtype="<u8")]))
            else:
                arrays.append(np.ascontiguousarray(array[rows]))
        return type(self)(*arrays)

    @classmethod
    def concatenate(cls, tables: Iterable[Self]) -> Self:
        """One table with the rows of all, in order."""
        tables = list(tables) or [cls.empty()]
        arrays = []
        for column in cls.LAYOUT:
            parts = [getattr(table, column.name) for table in tables]
            if column.cuts:
                starts = np.cumsum([0, *(int(part[-1]) for part in parts)], dtype="<u8")
                shifted = [part[1:] + start for part, start in zip(parts, starts, strict=False)]
                parts = [np.zeros(1, "<u8"), *shifted]
            arrays.append(np.ascontiguousarray(np.concatenate(parts)))
        return cls(*arrays)

    @classmethod
    def _groups(cls) -> list[str]:
        return list(dict.fromkeys(column.rows for column in cls.LAYOUT))

    @classmethod
    def _optional_groups(cls) -> list[str]:
        cut = {column.cuts for column in cls.LAYOUT}
        return [group for group in cls._groups()[1:] if group not in cut]

    def _row_counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for column in self.LAYOUT:
            counts.setdefault(column.rows, len(getattr(self, column.name)) - bool(column.cuts))
        return counts


def limbs_from_ints(values: Iterable[int]) -> Array:
    """u64[n, 4] of integers in [0, 2^256)."""
    raw = b"".join(value.to_bytes(32, "little") for value in values)
    return np.frombuffer(raw, "<u8").reshape(-1, 4)


def limbs_from_int(value: int) -> Array:
    """u64[4] of one integer in [0, 2^256)."""
    return np.frombuffer(value.to_bytes(32, "little"), "<u8")


def int_from_limbs(limbs: Array) -> int:
    """The inverse of `limbs_from_int`."""
    return int.from_bytes(limbs.tobytes(), "little")
