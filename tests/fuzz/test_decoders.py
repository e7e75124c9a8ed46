"""The fuzz targets on a few hundred inputs each, drawn by hypothesis: damaged seeds, and any bytes at all.

`make fuzz` runs the same targets for hundreds of thousands of inputs, guided by coverage.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS


@st.composite
def damaged(draw: st.DrawFn, seed: bytes) -> bytes:
    """A seed that is cut, stretched, or has a run of bytes replaced."""
    start = draw(st.integers(0, len(seed)))
    end = draw(st.integers(start, min(len(seed), start + 12)))
    middle = draw(st.binary(max_size=12))
    tail = draw(st.sampled_from((seed[end:], b"")))
    return seed[:start] + middle + tail


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_refused_or_mean_one_thing(name: str) -> None:
    target = TARGETS[name]
    inputs = st.one_of(st.binary(max_size=200), *(damaged(seed) for seed in target.seeds))

    @settings(max_examples=150)
    @given(inputs)
    def check(raw: bytes) -> None:
        target.check(raw)

    for seed in target.seeds:
        target.check(seed)
    check()
