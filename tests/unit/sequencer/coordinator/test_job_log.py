"""The log of jobs: what was acknowledged comes back, a torn tail does not, and damage is named."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.errors import StoreCorrupt, StoreMismatch
from core.store.identity import ChainIdentity
from protos.job_messages import SignedReceipt
from sequencer.coordinator.job_log import (
    Assigned,
    AttemptFailed,
    Audited,
    BatchDone,
    BatchSent,
    Ended,
    Finished,
    JobLog,
    JobLogRecord,
    Submitted,
    Unpayable,
)
from sequencer.coordinator.job_table import JobTable, SettledBatch
from tests.sim.network.jobs import request
from tests.unit.market.scene import receipt_for

IDENTITY = ChainIdentity(7, b"\x07" * 32)
JOB, OTHER = b"\x01" * 32, b"\x02" * 32
WORKER = b"\x0b" * 20


def submitted(job_id: bytes) -> Submitted:
    return Submitted(
        job_id, request(), b"\x05" * 32, b"\x0c" * 20, bytes(20), b"\x06" * 32, b"\x07" * 32, 2**100, 2**50, 1
    )


RECORDS: list[JobLogRecord] = [
    submitted(JOB),
    Assigned(JOB, 1, WORKER, 2**70, 3, 2),
    AttemptFailed(JOB, 1, "gone", "the worker left", 3),
    Assigned(JOB, 2, WORKER, 1, 3, 4),
    Finished(JOB, 2, "schön 🙂", SignedReceipt(receipt_for(JOB), bytes(65)), "pending", 5),
    Audited(JOB, "agreed", "", 6),
    submitted(OTHER),
    Ended(OTHER, "failed", "too late", 7),
    Unpayable(OTHER, "refund", "nothing there", 8),
    BatchSent("settle", b"\x09" * 32, b"raw", (JOB,), 9),
    BatchDone(b"\x09" * 32, "succeeded", 10, 2**50, 3),
    BatchSent("collect", b"\x0a" * 32, b"raw", (JOB,), 11),
    BatchDone(b"\x0a" * 32, "succeeded", 12),
]


@pytest.fixture
def thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1)


async def write(folder: Path, thread: ThreadPoolExecutor, records: list[JobLogRecord]) -> None:
    log = JobLog(folder, IDENTITY, thread)
    assert list(log.replay()) == []
    for record in records:
        await log.append(record)
    log.close()


def read(folder: Path, thread: ThreadPoolExecutor) -> list[JobLogRecord]:
    log = JobLog(folder, IDENTITY, thread)
    records = list(log.replay())
    log.close()
    return records


async def test_every_record_comes_back(tmp_path: Path, thread: ThreadPoolExecutor) -> None:
    await write(tmp_path, thread, RECORDS)
    assert read(tmp_path, thread) == RECORDS
    table = JobTable()
    for record in RECORDS:
        table.apply(record)
    assert {job.state for job in table.jobs.values()} == {"settled", "failed"}
    assert table.jobs[JOB].batch == SettledBatch(3, (receipt_for(JOB),))
    assert table.open == {}
    assert table.jobs[JOB].transaction_hash == b"\x09" * 32


async def test_a_torn_tail_is_cut_at_every_byte(tmp_path: Path, thread: ThreadPoolExecutor) -> None:
    await write(tmp_path, thread, RECORDS[:2])
    (segment,) = tmp_path.glob("*.log")
    whole = segment.read_bytes()
    one = tmp_path / "one"
    await write(one, thread, RECORDS[:1])
    first_end = next(one.glob("*.log")).stat().st_size
    for size in range(first_end + 1, len(whole), 7):
        segment.write_bytes(whole[:size])
        assert read(tmp_path, thread) == RECORDS[:1]
        log = JobLog(tmp_path, IDENTITY, thread)
        assert list(log.replay()) == RECORDS[:1]
        await log.append(RECORDS[1])
        log.close()
        assert read(tmp_path, thread) == RECORDS[:2]


async def test_damage_and_another_chains_log_are_named(tmp_path: Path, thread: ThreadPoolExecutor) -> None:
    await write(tmp_path, thread, RECORDS)
    with pytest.raises(StoreMismatch):
        JobLog(tmp_path, ChainIdentity(8, IDENTITY.genesis_hash), thread)
    (segment,) = tmp_path.glob("*.log")
    damaged = bytearray(segment.read_bytes())
    damaged[200] ^= 1
    segment.write_bytes(damaged)
    with pytest.raises(StoreCorrupt):
        read(tmp_path, thread)


def test_the_table_forgets_the_oldest_closed_jobs() -> None:
    table = JobTable(closed_max=2)
    for number in range(4):
        job_id = bytes([number]) * 32
        table.apply(submitted(job_id))
        table.apply(Ended(job_id, "cancelled", "", 1))
        table.apply(Unpayable(job_id, "refund", "", 2))
    assert list(table.jobs) == [bytes([2]) * 32, bytes([3]) * 32]
