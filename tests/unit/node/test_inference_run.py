"""`warpgrid inference run` on a small model: what it prints, and the file that it leaves for whoever checks."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.errors import InvalidInput
from node.inference.cli import app
from node.inference.server import listen
from tests.unit.worker.inference.exact_models import write_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one model."""
    folder = tmp_path_factory.mktemp("models")
    model = write_model(folder / "new", 5)
    model.directory.rename(folder / model.root.hex())
    return folder


def run(models: Path, *arguments: object) -> str:
    words = [*(str(one) for one in arguments), "--models-dir", str(models)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_an_answer_is_printed_saved_and_replayed(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "answer.json"
    drawn = ("--max-tokens", 12, "--temperature", 0.8, "--seed", 7, "--threads", 1)
    said = run(models, "run", "bytes", "hello", *drawn, "--save", file)
    saved = json.loads(file.read_text())
    assert said == saved["text"] + "\n"
    told = json.loads(run(models, "run", "bytes", "hello", *drawn, "--json"))
    assert told["text"] == saved["text"]
    assert told["output_tokens"] == len(saved["answer"])
    assert told["trace_root"] != saved["trace_root"]  # each request has a salt of its own
    assert "every row and token is equal" in run(models, "replay", file)
    assert "every unit is exact" in run(models, "audit", file, "--draws", 4)


def test_instructions_are_part_of_the_prompt(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "answer.json"
    run(models, "run", "bytes", "hello", "--system", "be brief", "--max-tokens", 2, "--threads", 1, "--save", file)
    text = bytes(token - 2 for token in json.loads(file.read_text())["prompt"] if token >= 2)
    assert text == b"system\nbe briefuser\nhelloassistant"


def test_a_file_that_cannot_be_saved_is_told_before_the_answer(models: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no folder"):
        run(models, "run", "bytes", "hello", "--save", tmp_path / "absent" / "answer.json")


def test_a_taken_port_is_told_before_the_model_is_loaded(models: Path) -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(InvalidInput, match="choose another --host or --port"):
        run(models, "serve", "bytes", "--port", taken.getsockname()[1])
