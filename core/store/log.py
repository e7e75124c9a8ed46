"""The block log: an append-only file of records, one a block, that is on disk before a block is acknowledged.

Owns framing, checksums, segments, the torn tail and the search for corruption. What a record holds is
`core.store.record`'s business. A segment is `blocks-<first number>.log`: a header, then frames.

    segment header  80 bytes  magic, format version, chain identity, number of the first record, checksum
    frame           40 bytes  magic, length of the payload, number of the record, checksum; then the payload

Checksums are BLAKE3 cut to 16 bytes and cover everything before them in their header, and the payload.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from blake3 import blake3

from core.errors import StoreCorrupt, StoreError, StoreMismatch
from core.store.identity import IDENTITY_BYTES, ChainIdentity

__all__ = ["FORMAT_VERSION", "SEGMENT_BYTES_MAX", "BlockLog", "Position"]

FORMAT_VERSION = 1
SEGMENT_BYTES_MAX = 256 * 2**20

_SEGMENT_MAGIC = b"warpgrid"
_SEGMENT_HEADER = struct.Struct(f"<8sI{IDENTITY_BYTES}sQ")
_SEGMENT_HEADER_BYTES = 80
_FRAME_MAGIC = b"\xb1\x0c\xf0\x0d"
_FRAME = struct.Struct("<4s4xQQ")
_CHECKSUM_BYTES = 16
_FRAME_BYTES = _FRAME.size + _CHECKSUM_BYTES

assert _SEGMENT_HEADER.size + _CHECKSUM_BYTES <= _SEGMENT_HEADER_BYTES


@dataclass(frozen=True, slots=True)
class Position:
    """Where a record stands: the number of its segment's first record, and its frame's offset in bytes there."""

    segment: int
    offset: int


class BlockLog:
    """Records with consecutive numbers. One process appends, any number read; `append` returns once it is on disk."""

    def __init__(self, directory: Path, identity: ChainIdentity, *, writable: bool, segment_bytes_max: int) -> None:
        self._directory = directory
        self._identity = identity
        self._writable = writable
        self._segment_bytes_max = segment_bytes_max
        self._files: dict[int, int] = {}
        self._end: Position | None = None
        self._next_number: int | None = None

    @classmethod
    def open(
        cls,
        directory: Path,
        identity: ChainIdentity,
        *,
        writable: bool = True,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
    ) -> Self:
        """Open the log in `directory`; a new one is empty. Raises StoreMismatch for another chain's or version's."""
        log = cls(directory, identity, writable=writable, segment_bytes_max=segment_bytes_max)
        segments = log.segments()
        if segments and log._size(segments[-1]) < _SEGMENT_HEADER_BYTES:
            # The writer is beginning it, or died while it did: nothing in it was acknowledged.
            unfinished = segments.pop()
            os.close(log._files.pop(unfinished))
            if writable:
                log._path(unfinished).unlink()
        for segment in segments:
            log._check_segment(segment)
        return log

    def close(self) -> None:
        """Close the files. Nothing is lost without it."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def segments(self) -> list[int]:
        """The numbers of the first records of the segments, ascending."""
        return sorted(int(path.stem.removeprefix("blocks-")) for path in self._directory.glob("blocks-*.log"))

    def recover(self, start: Position | None, number: int, acknowledged: int) -> Iterator[tuple[Position, int, bytes]]:
        """Every record from `start` (None: the first) on, whose number is `number`; afterwards the log can grow.

        An incomplete record at the end is cut off when its number is above `acknowledged`. Raises StoreCorrupt, naming
        file, offset and block, when any other record is damaged or missing.
        """
        segments = [segment for segment in self.segments() if start is None or segment >= start.segment]
        end = start
        for segment in segments:
            offset = start.offset if start is not None and segment == start.segment else _SEGMENT_HEADER_BYTES
            end = Position(segment, offset)
            if segment != number and end != start:
                raise StoreCorrupt(f"{self._path(segment)} begins with block {segment}, expected block {number}")
            for position, payload in self._frames(end, number, acknowledged, last=segment == segments[-1]):
                yield position, number, payload
                number += 1
                end = Position(segment, position.offset + _FRAME_BYTES + len(payload))
        if number <= acknowledged:
            raise StoreCorrupt(f"the log in {self._directory} ends before block {number}, which was acknowledged")
        self._end, self._next_number = end, number

    def append(self, number: int, payload: bytes) -> Position:
        """Add a record and wait until it is on disk. Raises StoreError when that fails; the log is then as before."""
        assert self._writable, "this log was opened for reading"
        assert self._next_number in (None, number), f"record {number} does not follow {self._next_number}"
        frame = _framed(number, payload)
        if self._end is None or self._end.offset + len(frame) > max(
            self._segment_bytes_max, _SEGMENT_HEADER_BYTES + len(frame)
        ):
            self._end = self._begin_segment(number)
        position = self._end
        descriptor = self._file(position.segment)
        try:
            _write_at(descriptor, frame, position.offset)
            os.fdatasync(descriptor)
        except OSError as error:
            os.ftruncate(descriptor, position.offset)  # should this fail too, the next start cuts it
            raise StoreError(f"cannot write block {number} to {self._path(position.segment)}: {error}") from error
        self._end = Position(position.segment, position.offset + len(frame))
        self._next_number = number + 1
        return position

    def read(self, position: Position, number: int) -> bytes:
        """The payload of one record. Raises StoreCorrupt naming file, offset and block when it is damaged."""
        payload = self._frame(position, number, self._size(position.segment))
        if payload is None:
            raise self._corrupt(position, number)
        return payload

    def verify(self, last: int) -> int:
        """Read every record up to number `last`; return how many there are. Raises StoreCorrupt at a damaged one."""
        segments = self.segments()
        count = 0
        for segment, following in zip(segments, [*segments[1:], last + 1], strict=True):
            position = Position(segment, _SEGMENT_HEADER_BYTES)
            for number in range(segment, min(following, last + 1)):
                payload = self.read(position, number)
                position = Position(segment, position.offset + _FRAME_BYTES + len(payload))
                count += 1
        return count

    def _frames(
        self, start: Position, number: int, acknowledged: int, *, last: bool
    ) -> Iterator[tuple[Position, bytes]]:
        position, size = start, self._size(start.segment)
        while position.offset < size:
            payload = self._frame(position, number, size)
            if payload is None:
                if not last or number <= acknowledged or self._valid_frame_after(position, number, size):
                    raise self._corrupt(position, number)
                self._cut(position)
                return
            yield position, payload
            position = Position(position.segment, position.offset + _FRAME_BYTES + len(payload))
            number += 1

    def _frame(self, position: Position, number: int, size: int) -> bytes | None:
        """The payload of the frame at `position`, or None when it is incomplete, damaged, or not record `number`."""
        descriptor = self._file(position.segment)
        head = os.pread(descriptor, _FRAME_BYTES, position.offset)
        if len(head) < _FRAME_BYTES:
            return None
        magic, length, found = _FRAME.unpack_from(head)
        if magic != _FRAME_MAGIC or found != number or length > size - position.offset - _FRAME_BYTES:
            return None
        payload = os.pread(descriptor, length, position.offset + _FRAME_BYTES)
        return payload if _checksum(head[: _FRAME.size] + payload) == head[_FRAME.size :] else None

    def _valid_frame_after(self, position: Position, number: int, size: int) -> bool:
        """Whether a sound record of a later number follows: then what is at `position` was once whole."""
        rest = os.pread(self._file(position.segment), size - position.offset, position.offset)
        at = rest.find(_FRAME_MAGIC, 1)
        while 0 <= at <= len(rest) - _FRAME_BYTES:
            _, _, found = _FRAME.unpack_from(rest, at)
            candidate = Position(position.segment, position.offset + at)
            if found > number and self._frame(candidate, found, size) is not None:
                return True
            at = rest.find(_FRAME_MAGIC, at + 1)
        return False

    def _cut(self, position: Position) -> None:
        if self._writable:
            descriptor = self._file(position.segment)
            os.ftruncate(descriptor, position.offset)
            os.fsync(descriptor)

    def _corrupt(self, position: Position, number: int) -> StoreCorrupt:
        return StoreCorrupt(f"{self._path(position.segment)} is damaged at byte {position.offset}, in block {number}")

    def _begin_segment(self, number: int) -> Position:
        head = _SEGMENT_HEADER.pack(_SEGMENT_MAGIC, FORMAT_VERSION, self._identity.to_bytes(), number)
        head = (head + _checksum(head)).ljust(_SEGMENT_HEADER_BYTES, b"\0")
        path = self._path(number)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            self._files[number] = descriptor
            _write_at(descriptor, head, 0)
            os.fsync(descriptor)
            directory = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise StoreError(f"cannot begin {path}: {error}") from error
        return Position(number, _SEGMENT_HEADER_BYTES)

    def _check_segment(self, segment: int) -> None:
        path = self._path(segment)
        head = os.pread(self._file(segment), _SEGMENT_HEADER_BYTES, 0)
        body = head[: _SEGMENT_HEADER.size]
        checksum = head[_SEGMENT_HEADER.size : _SEGMENT_HEADER.size + _CHECKSUM_BYTES]
        if len(head) < _SEGMENT_HEADER_BYTES or checksum != _checksum(body):
            raise StoreCorrupt(f"{path} is damaged at byte 0, in its header")
        magic, version, identity, number = _SEGMENT_HEADER.unpack(body)
        if magic != _SEGMENT_MAGIC or version != FORMAT_VERSION:
            raise StoreMismatch(f"{path} has format version {version}; this program reads {FORMAT_VERSION}")
        if identity != self._identity.to_bytes():
            raise StoreMismatch(f"{path} belongs to {ChainIdentity.from_bytes(identity)}, not to {self._identity}")
        if number != segment:
            raise StoreCorrupt(f"{path} holds blocks from {number} on, which is not what its name says")

    def _path(self, segment: int) -> Path:
        return self._directory / f"blocks-{segment:012d}.log"

    def _file(self, segment: int) -> int:
        descriptor = self._files.get(segment)
        if descriptor is None:
            try:
                descriptor = os.open(self._path(segment), os.O_RDWR if self._writable else os.O_RDONLY)
            except OSError as error:
                raise StoreCorrupt(f"cannot open {self._path(segment)}: {error.strerror}") from error
            self._files[segment] = descriptor
        return descriptor

    def _size(self, segment: int) -> int:
        return os.fstat(self._file(segment)).st_size


def _framed(number: int, payload: bytes) -> bytes:
    head = _FRAME.pack(_FRAME_MAGIC, len(payload), number)
    return head + _checksum(head + payload) + payload


def _checksum(data: bytes) -> bytes:
    return blake3(data).digest(_CHECKSUM_BYTES)


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
