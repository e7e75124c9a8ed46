"""The doctor's findings, each with the sentence that mends it; and the probe of this machine."""

from pathlib import Path

import pytest

from core.errors import StoreCorrupt, WarpgridError
from node.errors import KeysError
from protos.errors import PeerLost
from protos.messages import BlockReference, Description, Gpu
from worker.capabilities import describe, probe_gpus, probe_machine
from worker.doctor import BLOCKS_BEHIND_WANTED, Doctor, DoctorSettings, Finding, Severity, report

NOW_MS = 1_700_000_000_000
GENESIS = b"\x01" * 32
HEAD = BlockReference(100, b"\x02" * 32)
A_GPU = Gpu("NVIDIA H200", "GPU-1", 141 * 2**30, 90, "580.0")


class Probe:
    def __init__(self, answer: Description | WarpgridError) -> None:
        self._answer = answer

    async def describe(self) -> Description:
        if isinstance(self._answer, WarpgridError):
            raise self._answer
        return self._answer


def description(**changes: object) -> Description:
    values: dict[str, object] = {
        "chain_id": 7,
        "genesis_hash": GENESIS,
        "head": HEAD,
        "at_ms": NOW_MS,
        "attach_port": 1,
        "workers": 2,
        "first_block": 0,
    }
    return Description(**{**values, **changes})  # type: ignore[arg-type]


async def examine(
    folder: Path,
    answer: Description | WarpgridError | None = None,
    *,
    executor: str = "reference",
    model: Path | None = None,
    gpus: tuple[Gpu, ...] = (),
    address: bytes | WarpgridError = bytes(20),
    head: BlockReference | WarpgridError | None = HEAD,
) -> dict[str, Finding]:
    def given(value: object) -> object:
        if isinstance(value, WarpgridError):
            raise value
        return value

    doctor = Doctor(
        DoctorSettings(folder, executor, "sequencer.example:8551", 7, GENESIS, model),
        Probe(answer or description()),
        load_address=lambda: given(address),  # type: ignore[arg-type, return-value]
        own_head=lambda: given(head),  # type: ignore[arg-type, return-value]
        now_ms=lambda: NOW_MS,
        find_gpus=lambda: gpus,
    )
    findings = await doctor.examine()
    assert all(bool(one.mend) == (one.severity != Severity.OK) for one in findings)
    return {one.check: one for one in findings}


async def test_a_healthy_worker(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(bytes(1024))
    found = await examine(tmp_path, model=model, gpus=(A_GPU,))
    assert list(found) == ["keys", "disk", "gpu", "model", "sequencer", "clock", "chain"]
    assert {name for name, one in found.items() if one.severity == Severity.FAIL} == set()
    assert "H200" in found["gpu"].detail
    written = report(list(found.values()))
    assert written["healthy"] is True
    assert written["findings"][0]["check"] == "keys"


@pytest.mark.parametrize(
    ("given", "check", "severity", "words"),
    [
        ({"address": KeysError("identity.key may be read by others")}, "keys", "fail", "mode"),
        ({"executor": "gpu"}, "gpu", "fail", "driver"),
        ({"model": Path("/nowhere/model.gguf")}, "model", "fail", "GGUF"),
        ({"answer": PeerLost("nobody answers")}, "sequencer", "fail", "firewall"),
        ({"answer": description(chain_id=8)}, "sequencer", "fail", "genesis file"),
        ({"answer": description(genesis_hash=bytes(32))}, "sequencer", "fail", "genesis file"),
        ({"answer": description(at_ms=NOW_MS - 2_000)}, "clock", "warn", "timedatectl"),
        ({"answer": description(at_ms=NOW_MS + 120_000)}, "clock", "fail", "timedatectl"),
        ({"head": BlockReference(99 - BLOCKS_BEHIND_WANTED, GENESIS)}, "chain", "warn", "caught up"),
        ({"head": BlockReference(100, GENESIS)}, "chain", "fail", "start anew"),
        ({"head": BlockReference(101, GENESIS)}, "chain", "fail", "start anew"),
        ({"head": StoreCorrupt("blocks-0.log is damaged")}, "chain", "fail", "start anew"),
    ],
)
async def test_what_is_wrong_is_found_and_how_to_mend_it(
    tmp_path: Path, given: dict[str, object], check: str, severity: str, words: str
) -> None:
    found = await examine(tmp_path, **given)  # type: ignore[arg-type]
    assert found[check].severity == severity
    assert words in found[check].mend
    assert report(list(found.values()))["healthy"] is (severity != "fail")


async def test_a_missing_folder_is_a_finding(tmp_path: Path) -> None:
    found = await examine(tmp_path / "missing")
    assert found["disk"].severity == Severity.FAIL


def test_the_probe_tells_what_the_machine_has(tmp_path: Path) -> None:
    machine = probe_machine(tmp_path)
    assert machine.cpu_cores >= 1
    assert machine.memory_bytes > 2**28
    assert machine.disk_free_bytes > 0
    assert machine.cpu_model
    assert machine.gpus == probe_gpus()
    told = describe(machine, software="s", duties=["replica"], executor="cpu", models=(), job_slots=0)
    assert (told.cpu_model, told.duties, told.job_slots) == (machine.cpu_model, ("replica",), 0)
