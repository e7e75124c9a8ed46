"""`warpgrid inference dispute-demo` on a small model, as a user calls it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.unit.worker.inference.exact_models import write_answer, write_model
from worker.inference.cli_proofs import app
from zk.dispute import MOVES_MAX


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with one model, and an answer of it in `answer.json`."""
    models = tmp_path_factory.mktemp("models")
    model = write_model(models / "model", 5, head_width=48, qk_norm=1)
    write_answer(model, models / "answer.json", (60, 61, 62, 63, 64), 6)
    model.directory.rename(models / model.root.hex())
    return models


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def test_a_dispute_is_shown_move_by_move(folder: Path) -> None:
    lines = run("dispute-demo", folder / "answer.json", "--models-dir", folder).splitlines()
    moves = [line.split() for line in lines if line.endswith(" gas")]
    assert [move[1] for move in moves[:3]] == ["open", "state", "reveal"]
    assert moves[-1][:2] == ["challenger", "timeout"]
    assert len(moves) <= MOVES_MAX
    spent = sum(int(move[2].replace(",", "")) for move in moves)
    assert lines[-1] == f"the challenger wins, {spent:,} gas in all"
    assert 500_000 < spent < 2_000_000
    assert "refuses the worker's proof: CellNotProven" in lines[-3]
    told = json.loads(run("dispute-demo", folder / "answer.json", "--json", "--models-dir", folder))
    assert (told["winner"], told["gas"]) == ("challenger", spent)
    assert [move["move"] for move in told["moves"]] == [move[1] for move in moves]
