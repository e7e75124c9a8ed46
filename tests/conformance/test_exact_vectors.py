"""The numpy reference against the vectors that the scalar specification made."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from worker.inference.exact import reference
from worker.inference.exact.model import ExactModel
from worker.inference.exact.sampling import Sampling, choose

VECTORS = Path(__file__).parent / "vectors" / "exact"


def cases(name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    loaded = [(case["in"], case["out"]) for case in json.loads((VECTORS / f"{name}.json").read_text())]
    assert len(loaded) >= 3
    return loaded


def row(values: list[Any]) -> reference.Ints:
    return np.array(values, dtype=np.int64)


def test_quantise() -> None:
    for given, expected in cases("quantise"):
        q, a = reference.quantise(row(given["z"]), given["bits"])
        assert (q.tolist(), a.tolist()) == (expected["q"], [expected["a"]])


def test_norm_scale() -> None:
    for given, expected in cases("norm_scale"):
        scale = reference.norm_scale(row(given["x"]), given["residual_fraction"], given["epsilon_q48"])
        assert (scale.mantissa.item(), scale.exponent.item()) == (expected["mantissa"], expected["exponent"])


def test_linear() -> None:
    for given, expected in cases("linear"):
        acc = reference.accumulate(np.array(given["weight"], dtype=np.int8), row(given["q"]))
        scale = reference.plain_scale(row([given["a"]]), given["input_fraction"])
        v = reference.rescale(acc, row(given["mantissa"]), row(given["exponent"]), scale, given["output_fraction"])
        assert v.tolist() == expected["v"]


def test_head_operations() -> None:
    for given, expected in cases("head_norm"):
        assert (
            reference.head_norm(row(given["z"]), row(given["weight"]), given["epsilon_q48"]).tolist() == expected["z"]
        )
    for given, expected in cases("rotary"):
        assert reference.rotary(row(given["z"]), row(given["cos"]), row(given["sin"])).tolist() == expected["z"]
    for given, expected in cases("head_hadamard"):
        assert reference.head_hadamard(row(given["z"])).tolist() == expected["z"]


def test_attention() -> None:
    for given, expected in cases("attention"):
        header: Any = SimpleNamespace(**{name: given[name] for name in ("attention_mantissa", "attention_exponent")})
        cached = reference.KeyValues(*(row(given[name]) for name in ("k", "ka", "v", "va")))
        position = row([len(given["ka"]) - 1])
        assert reference.attention(header, row([given["z"]]), position, cached).tolist() == [expected["z"]]


def test_gated_unit() -> None:
    for given, expected in cases("gated_unit"):
        out = reference.gated_unit(row(given["gate"]), row(given["up"]), given["hidden_fraction"])
        assert out.tolist() == expected["z"]


def test_sampling() -> None:
    for given, expected in cases("sampling"):
        logits, position = row(given.pop("logits")), given.pop("position")
        assert choose(logits, Sampling(**given), position) == expected["token"]


@pytest.mark.parametrize("name", ["plain", "every"])
@pytest.mark.parametrize("chunks", [(12,), (1,) * 12, (5, 1, 4, 2)])
def test_models(name: str, chunks: tuple[int, ...]) -> None:
    """The whole forward pass, however the tokens are divided between calls."""
    model = ExactModel(VECTORS / f"model_{name}")
    model.verify()
    expected = json.loads((VECTORS / f"model_{name}.json").read_text())
    assert model.root.hex() == expected["root"]

    cache = reference.Cache(model.header)
    tokens = iter(expected["tokens"])
    parts = [reference.forward(model, cache, [next(tokens) for _ in range(count)]) for count in chunks]
    assert np.concatenate([part.residuals for part in parts], axis=1).tolist() == expected["residuals"]
    assert np.concatenate([part.logits for part in parts]).tolist() == expected["logits"]
    for layer, layer_rows in enumerate(expected["key_values"]):
        assert [cache.row_bytes(layer, position).hex() for position in range(12)] == layer_rows
