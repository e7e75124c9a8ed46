"""A client's own files about its jobs: private, whole, and named when they are broken."""

from dataclasses import replace
from pathlib import Path

import pytest

from core.jobs.request import JobRequest, Message, Role, Sampling
from node.errors import ServiceError
from node.jobs.records import ClientJob, JobRecords
from protos.job_messages import Inclusion, SignedReceipt
from tests.unit.market.scene import receipt_for

REQUEST = JobRequest(
    "smollm2",
    (Message(Role.SYSTEM, "be brief"), Message(Role.USER, "¿Qué?\n\0 \N{GRINNING FACE}")),
    Sampling(5, 700, seed=9, stop=("a", "b")),
)
JOB = ClientJob(b"\x01" * 32, REQUEST, b"\x02" * 32, 10**30, 7)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    records = JobRecords(tmp_path / "jobs")
    assert records.ids() == []
    assert records.load(JOB.job_id) is None
    records.save(JOB)
    assert records.load(JOB.job_id) == JOB
    answered = replace(JOB, output="Paris. \N{GRINNING FACE}")
    records.save(answered)
    assert records.load(JOB.job_id) == answered
    signed = SignedReceipt(receipt_for(JOB.job_id), b"\x03" * 65)
    settled = replace(answered, signed=signed, inclusion=Inclusion(2**40, 3, (b"\x04" * 32, b"\x05" * 32)))
    records.save(settled)
    assert records.load(JOB.job_id) == settled
    records.save(replace(JOB, job_id=b"\xff" * 32))
    assert records.ids() == [JOB.job_id, b"\xff" * 32]
    files = list((tmp_path / "jobs").iterdir())
    assert len(files) == 2, "nothing half-written stays behind"
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_a_torn_file_is_named_at_every_cut(tmp_path: Path) -> None:
    records = JobRecords(tmp_path)
    records.save(JOB)
    path = next(tmp_path.glob("*.json"))
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ServiceError, match="is not a job's file"):
            records.load(JOB.job_id)


@pytest.mark.parametrize("content", ["[]", "7", "null", '{"request": {}}', '{"request": 7}'])
def test_json_of_another_shape_is_named(tmp_path: Path, content: str) -> None:
    records = JobRecords(tmp_path)
    (tmp_path / f"{JOB.job_id.hex()}.json").write_text(content)
    with pytest.raises(ServiceError, match="is not a job's file"):
        records.load(JOB.job_id)


def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    records = JobRecords(tmp_path)
    records.save(JOB)
    (tmp_path / f"{JOB.job_id.hex()}.new").write_text('{"half')
    assert records.load(JOB.job_id) == JOB
    assert records.ids() == [JOB.job_id]
    records.save(replace(JOB, opened_at_block=8))
    assert records.load(JOB.job_id) == replace(JOB, opened_at_block=8)
