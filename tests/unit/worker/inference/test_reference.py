"""The numpy reference against the scalar specification, where overflow would show; and the rules of whole passes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance import exact_scalar as scalar
from worker.inference.errors import ContextExceeded, TokenOutOfRange
from worker.inference.exact import reference
from worker.inference.exact.model import ExactModel

VECTORS = Path(__file__).parents[3] / "conformance" / "vectors" / "exact"
INT32 = 2**31 - 1

int32 = st.one_of(st.integers(-INT32, INT32), st.integers(-300, 300), st.sampled_from([INT32, -INT32, 0, 1, -1]))
int8 = st.integers(-127, 127)


def rows(width: int) -> st.SearchStrategy[list[int]]:
    return st.lists(int32, min_size=width, max_size=width)


def row(values: list[int]) -> reference.Ints:
    return np.array(values, dtype=np.int64)


@given(z=rows(32), bits=st.sampled_from([8, 16]))
def test_quantise_agrees_and_stays_on_its_grid(z: list[int], bits: int) -> None:
    q, a = reference.quantise(row(z), bits)
    assert (q.tolist(), a.item()) == scalar.quantise(z, bits)
    assert abs(q).max() <= (127 if bits == 8 else 32639)
    high = (q + 128) >> 8
    assert abs(high).max() <= 127
    assert (q - 256 * high).min() >= -128
    assert (q - 256 * high).max() <= 127


@given(x=rows(32), fraction=st.integers(8, 16), epsilon=st.integers(0, 2**32))
def test_norm_scale_agrees_and_is_bounded(x: list[int], fraction: int, epsilon: int) -> None:
    scale = reference.norm_scale(row(x), fraction, epsilon)
    assert (scale.mantissa.item(), scale.exponent.item()) == scalar.norm_scale(x, fraction, epsilon)
    assert scale.exponent.item() <= -8 or not any(x)


@pytest.mark.parametrize("value", [INT32, -INT32, 255, 1])
@pytest.mark.parametrize("fraction", [8, 16])
def test_norm_scale_at_the_widest_model(value: int, fraction: int) -> None:
    """Sixteen thousand equal extremes: the sum of squares at its bound, with the largest epsilon beside it."""
    x = [value] * 16_384
    scale = reference.norm_scale(row(x), fraction, 2**32)
    assert (scale.mantissa.item(), scale.exponent.item()) == scalar.norm_scale(x, fraction, 2**32)


@given(
    acc=st.one_of(st.integers(-(2**38), 2**38), st.sampled_from([-(2**38), 2**38])),
    mantissa=st.integers(2**15, 2**16 - 1),
    exponent=st.integers(-128, -25),
    scale=st.tuples(st.integers(2**15, 2**16 - 1), st.integers(-50, -1)),
    fraction=st.integers(8, 16),
)
def test_rescale_agrees_at_the_largest_accumulators(
    acc: int, mantissa: int, exponent: int, scale: tuple[int, int], fraction: int
) -> None:
    given_scale = reference.Scale(row([scale[0]]), row([scale[1]]))
    v = reference.rescale(row([acc]), row([mantissa]), row([exponent]), given_scale, fraction)
    assert v.item() == scalar.rescale(acc, mantissa, exponent, scale, fraction)


@given(z=rows(16), weight=rows(16), epsilon=st.integers(0, 2**32))
def test_head_norm_agrees(z: list[int], weight: list[int], epsilon: int) -> None:
    assert reference.head_norm(row(z), row(weight), epsilon).tolist() == scalar.head_norm(z, weight, epsilon)


@given(z=rows(16), cos=st.lists(st.integers(-(2**15), 2**15 - 1), min_size=8, max_size=8))
def test_rotary_agrees_for_every_table_value(z: list[int], cos: list[int]) -> None:
    sin = cos[::-1]
    assert reference.rotary(row(z), row(cos), row(sin)).tolist() == scalar.rotary(z, cos, sin)


@given(z=rows(16))
def test_hadamard_agrees(z: list[int]) -> None:
    assert reference.head_hadamard(row(z)).tolist() == scalar.head_hadamard(z)


@given(z=rows(16), data=st.data(), count=st.integers(1, 20))
@settings(max_examples=60)
def test_attention_agrees(z: list[int], data: st.DataObject, count: int) -> None:
    def table(values: st.SearchStrategy[int], width: int) -> list[list[int]]:
        return data.draw(st.lists(st.lists(values, min_size=width, max_size=width), min_size=count, max_size=count))

    k, v = table(int8, 16), table(int8, 16)
    absmax = st.one_of(st.integers(1, INT32), st.integers(1, 20_000))
    ka, va = (
        column[0] for column in (list(zip(*table(absmax, 1), strict=True)), list(zip(*table(absmax, 1), strict=True)))
    )
    constant = (48022, -32)
    header: Any = SimpleNamespace(attention_mantissa=constant[0], attention_exponent=constant[1])
    cached = reference.KeyValues(row(k), row(list(ka)), row(v), row(list(va)))  # type: ignore[arg-type]
    out = reference.attention(header, row([z]), row([count - 1]), cached)  # type: ignore[list-item]
    assert out.tolist() == [scalar.attention(constant, z, k, ka, v, va)]


@given(gate=int32, up=int32, fraction=st.integers(8, 16))
def test_gated_unit_agrees(gate: int, up: int, fraction: int) -> None:
    assert reference.gated_unit(row([gate]), row([up]), fraction).item() == scalar.gated_unit(gate, up, fraction)


def test_gated_unit_is_silu() -> None:
    x = np.linspace(-20, 20, 4001)
    gate = np.rint(x * 4096).astype(np.int64)
    out = reference.gated_unit(gate, np.full_like(gate, 4096), 16)
    assert np.abs(out / 65536 - x / (1 + np.exp(-x))).max() < 5e-4


def test_positions_after_a_query_do_not_exist() -> None:
    """Logits of a prefix do not depend on what follows it."""
    model = ExactModel(VECTORS / "model_plain")
    whole = reference.forward(model, reference.Cache(model.header), [5, 9, 33, 2, 60])
    prefix = reference.forward(model, reference.Cache(model.header), [5, 9, 33])
    assert np.array_equal(whole.logits[:3], prefix.logits)


@pytest.mark.parametrize(
    ("tokens", "error"), [([64], TokenOutOfRange), ([-1], TokenOutOfRange), ([1] * 65, ContextExceeded)]
)
def test_a_refused_request_leaves_the_cache_alone(tokens: list[int], error: type[Exception]) -> None:
    model = ExactModel(VECTORS / "model_plain")
    cache = reference.Cache(model.header)
    first = reference.forward(model, cache, [1, 2, 3])
    with pytest.raises(error):
        reference.forward(model, cache, tokens)
    assert cache.length == 3
    again = reference.forward(model, reference.Cache(model.header), [1, 2, 3, 4])
    assert np.array_equal(reference.forward(model, cache, [4]).logits[0], again.logits[3])
    assert np.array_equal(first.logits, again.logits[:3])
