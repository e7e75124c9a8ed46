"""`warpgrid inference replay|audit` on a small model: what they say, and the status they end with."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from core.errors import InvalidInput
from tests.unit.worker.inference.exact_models import write_answer, write_model
from worker.inference.cli_proofs import app
from worker.inference.errors import ModelNotFound
from worker.inference.exact.model import ExactModel

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ExactModel:
    store = tmp_path_factory.mktemp("models")
    made = write_model(store / "new", 5)
    return ExactModel(made.directory.rename(store / made.root.hex()))


@pytest.fixture
def answer(model: ExactModel, tmp_path: Path) -> Path:
    return write_answer(model, tmp_path / "answer.json", (5, 6, 7, 8, 9), 6)


def run(model: ExactModel, *arguments: str) -> tuple[int, str]:
    result = RUNNER.invoke(app, [*arguments, "--models-dir", str(model.directory.parent)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def changed(file: Path, **changes: Any) -> str:
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps(content))
    return str(file)


def test_an_honest_answer_passes_both(model: ExactModel, answer: Path) -> None:
    content = json.loads(answer.read_text())
    assert content["model"] == model.root.hex()
    assert content["prompt"] == [5, 6, 7, 8, 9]
    status, said = run(model, "replay", str(answer))
    assert (status, said.splitlines()[-1].split(" (")[0]) == (0, "every row and token is equal")
    status, said = run(model, "audit", str(answer), "--draws", "6")
    assert (status, said.splitlines()[-1].split(":")[0]) == (0, "every unit is exact")


def test_outcomes_as_json(model: ExactModel, answer: Path) -> None:
    status, said = run(model, "replay", str(answer), "--json")
    assert (status, json.loads(said)["accepted"]) == (0, True)
    status, said = run(model, "audit", str(answer), "--draws", "3", "--json")
    assert (status, json.loads(said)["accepted"], json.loads(said)["units"]) == (0, True, 3)
    status, said = run(model, "replay", changed(answer, trace_root="11" * 32), "--json")
    assert (status, json.loads(said)["accepted"]) == (1, False)
    assert "the trace root is not that of this model" in json.loads(said)["reason"]


def test_a_changed_token_is_named(model: ExactModel, answer: Path) -> None:
    tokens = json.loads(answer.read_text())["answer"]
    wrong = [*tokens[:-1], (tokens[-1] + 1) % 258]
    status, said = run(model, "replay", changed(answer, answer=wrong))
    assert status == 1
    assert f"is {wrong[-1]}; this model chooses {tokens[-1]}" in said
    status, said = run(model, "audit", str(answer), "--draws", "2")
    assert status == 1
    assert "the commitment is not to this model" in said


def test_another_root_or_request_is_refused(model: ExactModel, answer: Path) -> None:
    original = json.loads(answer.read_text())
    for change in ({"trace_root": "11" * 32}, {"request_hash": "11" * 32}, {"sampling": [0, 0, 65536, 1, 0]}):
        status, said = run(model, "replay", changed(answer, **{**original, **change}))
        assert status == 1
        assert "the trace root is not that of this model" in said


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"model": "zz"}, "no answer file"),
        ({"prompt_prefix": "00"}, "32 bytes"),
        ({"prompt": "abc"}, "no answer file"),
        ({"prompt": []}, "at least one token"),
        ({"answer": [2**32]}, "out of range"),
        ({"answer": [-1]}, "out of range"),
        ({"answer": [258, 1]}, "vocabulary"),
        ({"answer": [1] * 300}, "context"),
        ({"sampling": [1, 0, 65536, 0, 0]}, "temperature"),
        ({"sampling": [0, 0]}, "five integers"),
        ({"trace_root": None}, "no answer file"),
    ],
)
@pytest.mark.parametrize("command", ["replay", "audit"])
def test_files_that_hold_no_answer(
    model: ExactModel, answer: Path, command: str, change: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidInput, match=problem):
        run(model, command, changed(answer, **change))


def test_a_model_that_is_not_here(model: ExactModel, answer: Path) -> None:
    with pytest.raises(ModelNotFound):
        run(model, "replay", changed(answer, model="22" * 32))
    with pytest.raises(InvalidInput, match=r"cannot read .*No such file"):
        run(model, "replay", str(answer.with_name("absent.json")))
    answer.write_text("{}")
    with pytest.raises(InvalidInput, match="it has no 'model'"):
        run(model, "replay", str(answer))
