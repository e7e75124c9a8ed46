"""Acknowledged transactions on disk, until blocks hold them: what a crash must not lose (design.md, section 7).

Owns one append-only file. A frame is the transaction's length (u32), the first 16 bytes of its BLAKE3, and the bytes.
Knows nothing of what is in a transaction or why it is still wanted.
"""

import asyncio
import os
import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blake3 import blake3

__all__ = ["Journal"]

_LENGTH = struct.Struct("<I")
_CHECKSUM_BYTES = 16
_FRAME_BYTES = _LENGTH.size + _CHECKSUM_BYTES
COMPACTION_BYTES_MIN = 16 * 2**20
COMPACTION_GROWTH = 4


class Journal:
    """Appends are grouped: all that arrive while one write is being synced go into the next.

    Open it once, in the event loop's thread; `recovered` is what an earlier process had acknowledged, in order. A torn
    tail (nothing in it was acknowledged) is cut.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.exists() else b""
        self.recovered, end = _read(content)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._file, end)
        os.lseek(self._file, end, os.SEEK_SET)
        self._size_bytes = self._compacted_bytes = end
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mempool-journal")

    @property
    def wants_compaction(self) -> bool:
        """Whether it has grown enough for `rewrite` to be worth it."""
        return self._size_bytes > max(COMPACTION_BYTES_MIN, COMPACTION_GROWTH * self._compacted_bytes)

    async def append(self, raw: bytes) -> None:
        """Return once `raw` is on disk. Raises OSError when it cannot be written."""
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((raw, written))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_waiting())
        await written

    async def rewrite(self, wanted: Iterable[bytes]) -> None:
        """Replace the content by `wanted`, atomically. What is appended meanwhile comes after."""
        frames = b"".join(map(_frame, wanted))
        self._compacted_bytes = max(self._size_bytes, len(frames))  # so that nobody asks again meanwhile
        await asyncio.get_running_loop().run_in_executor(self._thread, self._replace, frames)

    def close(self) -> None:
        """Finish what is being written and close the file."""
        self._thread.shutdown()
        os.close(self._file)

    async def _write_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                frames = b"".join(_frame(raw) for raw, _ in group)
                await loop.run_in_executor(self._thread, self._write, frames)
            except OSError as error:
                for _, written in group:
                    if not written.done():
                        written.set_exception(error)
            else:
                for _, written in group:
                    if not written.done():
                        written.set_result(None)

    def _write(self, frames: bytes) -> None:
        os.pwrite(self._file, frames, self._size_bytes)
        os.fdatasync(self._file)
        self._size_bytes += len(frames)

    def _replace(self, frames: bytes) -> None:
        fresh = self._path.with_suffix(".new")
        file = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.pwrite(file, frames, 0)
        os.fsync(file)
        os.rename(fresh, self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        os.close(self._file)
        self._file, self._size_bytes, self._compacted_bytes = file, len(frames), len(frames)


def _frame(raw: bytes) -> bytes:
    return _LENGTH.pack(len(raw)) + blake3(raw).digest(_CHECKSUM_BYTES) + raw


def _read(content: bytes) -> tuple[list[bytes], int]:
    """The whole frames from the beginning, and where they end."""
    found: list[bytes] = []
    position = 0
    while position + _FRAME_BYTES <= len(content):
        (length,) = _LENGTH.unpack_from(content, position)
        start = position + _FRAME_BYTES
        raw = content[start : start + length]
        checksum = content[position + _LENGTH.size : start]
        if len(raw) < length or blake3(raw).digest(_CHECKSUM_BYTES) != checksum:
            break
        found.append(raw)
        position = start + length
    return found, position
