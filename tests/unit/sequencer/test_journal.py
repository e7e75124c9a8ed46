"""The mempool's journal: what was acknowledged is there again, whatever happened to the file's end."""

import asyncio
from pathlib import Path

import pytest

from sequencer.mempool.journal import Journal

ENTRIES = [b"first", b"", b"third" * 100, b"fourth"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mempool.journal"


async def written(path: Path, entries: list[bytes]) -> bytes:
    journal = Journal(path)
    await asyncio.gather(*(journal.append(one) for one in entries))
    journal.close()
    return path.read_bytes()


def recovered(path: Path) -> list[bytes]:
    journal = Journal(path)
    journal.close()
    return journal.recovered


async def test_what_was_appended_is_recovered_in_order(path: Path) -> None:
    await written(path, ENTRIES)
    assert recovered(path) == ENTRIES
    await written(path, [b"later"])
    assert recovered(path) == [*ENTRIES, b"later"]


async def test_a_tail_torn_at_any_byte_is_cut(path: Path) -> None:
    content = await written(path, ENTRIES)
    for size in range(len(content)):
        path.write_bytes(content[:size])
        found = recovered(path)
        assert found == ENTRIES[: len(found)]
        assert path.stat().st_size <= size
        assert recovered(path) == found


async def test_a_flipped_byte_ends_what_is_believed(path: Path) -> None:
    content = await written(path, ENTRIES)
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        found = recovered(path)
        assert found == ENTRIES[: len(found)]
        assert len(found) < len(ENTRIES)


async def test_rewriting_keeps_what_is_wanted_and_what_comes_meanwhile(path: Path) -> None:
    journal = Journal(path)
    for one in ENTRIES:
        await journal.append(one)
    await asyncio.gather(journal.rewrite([b"first", b"fourth"]), journal.append(b"meanwhile"))
    journal.close()
    assert recovered(path) == [b"first", b"fourth", b"meanwhile"]
