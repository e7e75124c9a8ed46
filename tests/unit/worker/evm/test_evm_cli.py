"""`warpgrid evm` by hand: exit statuses and output formats."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.conformance.vectors import VECTORS, needs_vectors, read
from worker.evm.cli import app


@pytest.fixture(scope="module")
def state_test(tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, raw = next(iter(read(VECTORS / "state_tests" / "osaka.tar.gz")))
    path = tmp_path_factory.mktemp("tests") / Path(name).name
    path.write_bytes(raw)
    return path


@needs_vectors
def test_statetest_ends_with_counts(state_test: Path) -> None:
    result = CliRunner().invoke(app, ["statetest", str(state_test), "--json"])
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert lines[-1] == {"passed": len(lines) - 1, "failed": 0, "names": []}
    assert {"name", "pass", "fork", "stateRoot", "error"} == set(lines[0])


@needs_vectors
def test_a_wrong_root_fails(state_test: Path, tmp_path: Path) -> None:
    tests = json.loads(state_test.read_text())
    for test in tests.values():
        for entries in test["post"].values():
            for entry in entries:
                entry["hash"] = "0x" + "11" * 32
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(tests))
    result = CliRunner().invoke(app, ["statetest", str(wrong)])
    assert result.exit_code == 1
    assert "root mismatch" in result.stdout


@needs_vectors
def test_run_shows_what_happened(state_test: Path) -> None:
    result = CliRunner().invoke(app, ["run", str(state_test), "--json"])
    report = json.loads(result.stdout.splitlines()[0])
    assert result.exit_code == 0
    assert report["gasUsed"] >= 0
    assert report["stateRoot"].startswith("0x")


@pytest.mark.parametrize("text", ["{", "[]", '{"a": {}}', '{"a": {"post": {"Atlantis": []}, "pre": {}}}'])
def test_bad_files_are_refused_with_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    result = CliRunner().invoke(app, ["statetest", str(path)])
    assert result.exit_code == 2
    assert str(path) in result.output


def test_disasm() -> None:
    assert "PUSH1 0x01" in CliRunner().invoke(app, ["disasm", "0x6001"]).stdout
    assert CliRunner().invoke(app, ["disasm", "zz"]).exit_code == 2
