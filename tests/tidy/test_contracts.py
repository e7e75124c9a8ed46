"""Committed contract artifacts belong to the sources beside them. Runs without node; `make contracts` recompiles."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from core.native import SOURCE_ROOT

ROOMS = ("market", "zk", "sequencer", "tests/unit/market")
SOURCES = sorted(path for room in ROOMS for path in (SOURCE_ROOT / room / "contracts").glob("*.sol"))
ARTIFACTS = sorted(path for room in ROOMS for path in (SOURCE_ROOT / room / "contracts/artifacts").glob("*.json"))


def relative(path: Path) -> str:
    return path.relative_to(SOURCE_ROOT).as_posix()


@pytest.mark.parametrize("path", ARTIFACTS, ids=relative)
def test_artifact_was_compiled_from_the_sources_as_they_are(path: Path) -> None:
    artifact = json.loads(path.read_text())
    assert artifact["compiler"].startswith("0.8.37+")
    assert artifact["settings"]["metadata"]["bytecodeHash"] == "none"
    assert artifact["sourceName"] in artifact["sourcesSha256"]
    own = {name: digest for name, digest in artifact["sourcesSha256"].items() if not name.startswith("@")}
    for name, digest in own.items():
        source = SOURCE_ROOT / name
        assert source.exists(), f"{name} is gone: run `make contracts`"
        assert hashlib.sha256(source.read_bytes()).hexdigest() == digest, f"{name} changed: run `make contracts`"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_source_has_its_artifact(path: Path) -> None:
    declares_contract = re.search(rf"^contract {path.stem}\b", path.read_text(), re.MULTILINE)
    artifact = path.parent / "artifacts" / f"{path.stem}.json"
    assert artifact.exists() == bool(declares_contract)


def test_lock_file_names_no_registry() -> None:
    lock = json.loads((SOURCE_ROOT / "deploy/contracts/package-lock.json").read_text())
    assert all("resolved" not in package for package in lock["packages"].values())
    manifest = json.loads((SOURCE_ROOT / "deploy/contracts/package.json").read_text())
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in manifest["dependencies"].values())
