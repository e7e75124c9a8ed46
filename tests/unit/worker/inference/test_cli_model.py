"""The commands as a user meets them, on small checkpoints."""

import json
from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from typer.testing import CliRunner

from tests.unit.worker.inference.float_checkpoints import random_checkpoint, write_folder
from worker.inference.cli_model import app
from worker.inference.errors import CheckpointError, ModelCorrupt, ModelNotFound


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "Tiny-Llama"
    folder.mkdir()
    write_folder(random_checkpoint(), folder)
    return folder


def run(*arguments: str | Path) -> str:
    """Standard output of a command. What it raises, it raises here (the process edge is node/cli.py)."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_life_of_a_model(checkpoint: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    assert "warpgrid model import" in run("list", "--models-dir", models)
    imported = json.loads(run("import", checkpoint, "--context", "32", "--json", "--models-dir", models))
    assert imported["name"] == "Tiny-Llama"
    assert (models / imported["root"]).is_dir()

    listed = json.loads(run("list", "--json", "--models-dir", models))
    assert [(row["name"], row["root"], row["context"]) for row in listed] == [("Tiny-Llama", imported["root"], 32)]
    assert "Tiny-Llama" in run("list", "--models-dir", models)
    shown = json.loads(run("show", "Tiny-Llama", "--models-dir", models))
    assert shown["header"]["context_max"] == 32
    assert shown["provenance"]["recipe"]["down_bits"] == 16
    assert "as committed" in run("verify", imported["root"][:8], "--models-dir", models)

    removed = json.loads(run("remove", "Tiny-Llama", "--json", "--models-dir", models))
    assert removed == {"removed": imported["root"]}
    assert json.loads(run("list", "--json", "--models-dir", models)) == []
    with pytest.raises(ModelNotFound):
        run("show", "Tiny-Llama", "--models-dir", models)


def test_a_damaged_model_is_listed_and_named(checkpoint: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    root = json.loads(run("import", checkpoint, "--name", "x", "--json", "--models-dir", models))["root"]
    weights = models / root / "weights.bin"
    data = bytearray(weights.read_bytes())
    data[5] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelCorrupt, match=r"embedding\.weight"):
        run("verify", "x", "--models-dir", models)
    assert json.loads(run("import", checkpoint, "--name", "y", "--json", "--models-dir", models))["root"] == root
    assert json.loads(run("verify", "y", "--json", "--models-dir", models)) == {
        "name": "y",
        "root": root,
        "intact": True,
    }
    with pytest.raises(ModelNotFound, match="model import"):
        run("verify", "x", "--models-dir", models)
    weights.write_bytes(data[:-1])
    (row,) = json.loads(run("list", "--json", "--models-dir", models))
    assert "weights.bin" in row["error"]


def test_hub_names(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fake_download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(checkpoint)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake_download)
    run("import", "someone/tiny", "--json", "--models-dir", tmp_path / "models")
    assert [name for name, _ in asked] == ["someone/tiny"]
    assert not any(pattern.endswith((".py", ".bin", ".pt", "*")) for pattern in asked[0][1])

    def unreachable(name: str, *, allow_patterns: list[str]) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(CheckpointError, match="cannot be reached"):
        run("import", "someone/tiny", "--models-dir", tmp_path / "models")


@pytest.mark.parametrize("source", ["nowhere", "../up/and/away", "a/../b", "/etc/hostname"])
def test_sources_that_are_none(source: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        run("import", source, "--models-dir", tmp_path / "models")
    assert not (tmp_path / "models").exists()
