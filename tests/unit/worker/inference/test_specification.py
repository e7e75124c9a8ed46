from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conformance.exact_vectors import tiny_header
from worker.inference.errors import ModelUnsupported
from worker.inference.exact.specification import Header, exp2_table, sigmoid_table, tensor_specs
from worker.inference.exact.tables import generate


def test_tables_are_what_exact_arithmetic_gives(tmp_path: Path) -> None:
    generate.main(tmp_path)
    assert np.fromfile(tmp_path / "exp2.bin", "<i4").tolist() == exp2_table().tolist()
    assert np.fromfile(tmp_path / "sigmoid.bin", "<i4").tolist() == sigmoid_table().tolist()


def test_tables_are_close_to_their_functions() -> None:
    steps = (np.arange(4096) + 0.5) / 4096
    assert np.abs(exp2_table() - 2.0 ** (20 - steps)).max() <= 0.501
    x = np.arange(4097) / 128 - 16
    assert np.abs(sigmoid_table() - 65536 / (1 + np.exp(-x))).max() <= 0.501


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layers", 0),
        ("layers", 257),
        ("model_width", 48),
        ("model_width", 16_416),
        ("key_value_heads", 3),
        ("head_width", 24),
        ("feed_forward_width", 65_568),
        ("vocabulary", 262_145),
        ("context_max", 131_073),
        ("residual_fraction", 17),
        ("hidden_fraction", 7),
        ("epsilon_q48", 2**32 + 1),
        ("attention_mantissa", 2**15 - 1),
        ("attention_exponent", -30),
        ("down_bits", 12),
        ("end_tokens", (7, 0)),
        ("end_tokens", (64,)),
    ],
)
def test_headers_beyond_the_limits_are_refused(field: str, value: object) -> None:
    with pytest.raises(ModelUnsupported):
        replace(tiny_header(every=True), **{field: value})  # type: ignore[arg-type]


def test_a_hadamard_needs_a_power_of_two() -> None:
    with pytest.raises(ModelUnsupported, match="power of two"):
        replace(tiny_header(every=True), head_width=48, heads=2, key_value_heads=1)


@pytest.mark.parametrize("fraction", [8, 12, 16])
def test_no_rescaling_shift_falls_below_one(fraction: int) -> None:
    """The bound on row exponents, against the largest scales that a vector can have (section 8)."""
    header: Header = replace(tiny_header(every=False), residual_fraction=fraction, hidden_fraction=fraction)
    largest = {"qkv": -8, "gate_up": -8, "head": -8, "o": 31 - 16 - 16, "down": 31 - 16 - fraction}
    for role, scale_exponent in largest.items():
        exponent = header.exponent_max(role)  # type: ignore[arg-type]
        assert -(8 + exponent + scale_exponent + header.output_fraction(role)) == 1  # type: ignore[arg-type]


def test_tensor_order_is_canonical() -> None:
    names = [spec.name for spec in tensor_specs(tiny_header(every=True))]
    assert names[:3] == ["embedding.weight", "embedding.mantissa", "embedding.exponent"]
    assert names[3:9] == [
        "layers.0.qkv.weight",
        "layers.0.qkv.mantissa",
        "layers.0.qkv.exponent",
        "layers.0.qkv.bias",
        "layers.0.q_norm",
        "layers.0.k_norm",
    ]
    assert names[-5:] == ["head.weight", "head.mantissa", "head.exponent", "rope.cos", "rope.sin"]
    assert len(names) == len(set(names)) == 3 + 2 * (3 + 3 + 3 * 3) + 5
