"""Imports of every family, held against a float decoder; and what an import refuses."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.worker.inference.float_checkpoints import MemoryCheckpoint, float_logits, random_checkpoint
from worker.inference.errors import CheckpointError, ModelCorrupt, ModelUnsupported
from worker.inference.exact.checkpoint import inverse_frequencies, linear_divisors, llama3_divisors
from worker.inference.exact.convert import Recipe, attention_constant, import_checkpoint
from worker.inference.exact.model import ExactModel, ModelStore
from worker.inference.exact.quantise import quantise_rows, row_scales
from worker.inference.exact.reference import Cache, forward
from worker.inference.exact.rotary_tables import rotary_tables
from worker.inference.exact.rotation import Rotation
from worker.inference.exact.tokenizer import byte_pair_tokenizer


def imported(checkpoint: MemoryCheckpoint, folder: Path, recipe: Recipe = Recipe()) -> ExactModel:  # noqa: B008
    store = ModelStore(folder)
    model = ExactModel(store.folder / import_checkpoint(checkpoint, store, "test", recipe).hex())
    model.verify()
    return model


@pytest.mark.parametrize(
    ("changes", "recipe"),
    [
        ({}, Recipe()),
        ({"tied_head": False}, Recipe()),
        ({"qkv_bias": True}, Recipe()),
        ({"qk_norm": True}, Recipe(qk_hadamard=False)),
        ({"heads": 8, "key_value_heads": 1, "head_width": 16, "rotary_divisors": (Decimal(8),) * 8}, Recipe()),
        ({}, Recipe(qkv_bits=16, o_bits=16, gate_up_bits=16, head_bits=16, residual_fraction=13, hidden_fraction=14)),
    ],
)
def test_an_exact_model_computes_what_its_checkpoint_does(
    changes: dict[str, Any], recipe: Recipe, tmp_path: Path
) -> None:
    checkpoint = random_checkpoint(3, **changes)
    model = imported(checkpoint, tmp_path, recipe)
    tokens = np.random.Generator(np.random.PCG64(1)).integers(0, 120, 24).tolist()
    expected = float_logits(checkpoint, tokens)
    logits = forward(model, Cache(model.header), tokens).logits / 65536
    error = np.sqrt(np.square(logits - expected).mean()) / expected.std()
    assert error < 0.05  # sixteen matrices and their inputs, rounded to eight bits


def test_without_rotation_the_loud_channels_drown_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason for rotating, and evidence that the comparison above can fail."""
    checkpoint = random_checkpoint(3, loudness=40.0)
    tokens = list(range(24))
    expected = float_logits(checkpoint, tokens)

    def relative_error(model: ExactModel) -> float:
        logits = forward(model, Cache(model.header), tokens).logits / 65536
        return float(np.sqrt(np.square(logits - expected).mean()) / expected.std())

    rotated = relative_error(imported(checkpoint, tmp_path / "rotated"))
    monkeypatch.setattr(Rotation, "apply", lambda self, rows: np.asarray(rows, dtype=np.float64))
    plain = relative_error(imported(checkpoint, tmp_path / "plain"))
    assert plain > 1.4 * rotated


def test_the_same_recipe_gives_the_same_model(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(5)
    first = imported(checkpoint, tmp_path / "a")
    second = imported(checkpoint, tmp_path / "b")
    other = imported(checkpoint, tmp_path / "c", Recipe(rotation_seed=2))
    assert first.root == second.root != other.root


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("layers.1.mlp.down_proj.weight", lambda t: t * np.nan, "NaN"),
        ("layers.0.self_attn.q_proj.weight", lambda t: t + np.inf, "NaN or infinity"),
        ("layers.0.input_layernorm.weight", lambda t: t * np.nan, "layers.0.input_layernorm.weight holds NaN"),
        ("layers.1.mlp.gate_proj.weight", lambda t: t[:, :-1], "shape"),
        ("norm.weight", lambda t: t[:-1], "shape"),
        ("layers.0.self_attn.o_proj.weight", lambda t: t * 1e9, "more than the arithmetic can carry"),
    ],
)
def test_bad_tensors_are_named_and_leave_nothing(name: str, change: Any, message: str, tmp_path: Path) -> None:
    checkpoint = random_checkpoint()
    checkpoint.tensors[name] = change(checkpoint.tensors[name])
    with pytest.raises(CheckpointError, match=message):
        imported(checkpoint, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_shapes_beyond_the_specification_are_refused(tmp_path: Path) -> None:
    checkpoint = random_checkpoint()
    checkpoint.config = replace(checkpoint.config, model_width=100)
    with pytest.raises(ModelUnsupported, match="model_width"):
        imported(checkpoint, tmp_path)


def test_a_tokenizer_must_fit_the_vocabulary(tmp_path: Path) -> None:
    tokenizer = byte_pair_tokenizer([chr(500 + i) for i in range(121)], [], "default", [], [])
    with pytest.raises(CheckpointError, match="knows 121 tokens, the model 120"):
        imported(replace(random_checkpoint(), tokenizer=tokenizer), tmp_path)


def test_an_unreadable_tokenizer_or_template_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt, match="tokenizer"):
        imported(replace(random_checkpoint(), tokenizer=b"{}"), tmp_path)
    with pytest.raises(ModelUnsupported, match="chat template"):
        imported(replace(random_checkpoint(), chat_template="{% for %}"), tmp_path)


@pytest.mark.parametrize("width", [32, 96, 576, 896])
def test_rotation_is_orthogonal(width: int) -> None:
    rotation = Rotation(width, seed=4)
    matrix = rotation.apply(np.eye(width))
    assert np.allclose(matrix @ matrix.T, np.eye(width), atol=1e-12)
    columns = np.random.Generator(np.random.PCG64(0)).standard_normal((width, 5))
    assert np.allclose(rotation.apply_transposed(columns), matrix.T @ columns)
    assert not np.allclose(matrix, Rotation(width, seed=5).apply(np.eye(width)))


def test_quantised_rows_are_within_half_a_step_of_what_was_not_clipped() -> None:
    rows = np.random.Generator(np.random.PCG64(0)).standard_normal((20, 300)) * np.logspace(-6, 1, 20)[:, None]
    quantised = quantise_rows(rows, 127, -13, "test")
    step = row_scales(quantised, 127)[:, None]
    inside = np.abs(rows) <= 127 * step
    assert inside.mean() > 0.99
    assert (np.abs(rows - quantised.weight * step)[inside] <= (0.5 * step * np.ones_like(rows))[inside] * 1.0001).all()
    assert quantised.weight.min() >= -127
    assert quantised.mantissa.min() >= 2**15


def test_rows_of_zeros_and_dust_quantise() -> None:
    quantised = quantise_rows(np.array([[0.0, 0.0], [1e-300, 0.0]]), 127, -13, "test")
    assert quantised.weight.tolist() == [[0, 0], [0, 0]]
    assert quantised.mantissa.tolist() == [2**15] * 2
    assert quantised.exponent.tolist() == [-60] * 2


def test_rotary_tables_are_correctly_rounded() -> None:
    frequencies = inverse_frequencies(Decimal(500_000), linear_divisors(16, Decimal(1)))
    cos, sin = rotary_tables(frequencies, 3000)
    angles = np.outer(np.arange(3000), [float(f) for f in frequencies])
    assert np.abs(cos - np.cos(angles) * 16384).max() < 0.5 + 1e-6
    assert np.abs(sin - np.sin(angles) * 16384).max() < 0.5 + 1e-6


def test_llama3_scaling_keeps_high_frequencies_and_divides_low_ones() -> None:
    divisors = llama3_divisors(
        64, Decimal(500_000), factor=Decimal(8), low=Decimal(1), high=Decimal(4), original_context=Decimal(8192)
    )
    assert divisors[0] == 1
    assert divisors[-1] == 8
    assert list(divisors) == sorted(divisors)
    assert 1 < divisors[30] < 8


def test_attention_constant() -> None:
    assert attention_constant(64, hadamard=False) == attention_constant(64, hadamard=True) == (48022, -32)
    for width, hadamard in ((16, False), (128, True), (256, False)):
        mantissa, exponent = attention_constant(width, hadamard=hadamard)
        expected = np.log2(np.e) / width**0.5 / 127**2 * (0.5 if hadamard else 1)
        assert 2**15 <= mantissa < 2**16
        assert abs(mantissa * 2.0**exponent / expected - 1) < 2**-16
