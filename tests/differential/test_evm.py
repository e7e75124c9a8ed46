"""The native engine against EELS on random cases: same receipts, logs, gas, rejections and state difference.

`make conformance` compares 100,000 programs; tests.differential.campaign does it in slices, for any number more.
"""

import pytest

from tests.differential.campaign import run_slice
from worker.evm.native_executor import NativeExecutor
from worker.evm.reference import ReferenceExecutor

SAMPLE_CASES = 120
CONFORMANCE_CHUNKS, CHUNK_CASES, CHUNK_PROGRAMS_MIN = 50, 560, 2_000


def test_sample() -> None:
    tally = run_slice(0, SAMPLE_CASES, ReferenceExecutor(), NativeExecutor())
    assert tally.differences == ()
    assert tally.programs > 3 * SAMPLE_CASES


@pytest.mark.conformance
@pytest.mark.parametrize("chunk", range(CONFORMANCE_CHUNKS))
def test_many(chunk: int) -> None:
    first = SAMPLE_CASES + chunk * CHUNK_CASES
    tally = run_slice(first, CHUNK_CASES, ReferenceExecutor(), NativeExecutor())
    assert tally.differences == ()
    assert tally.programs >= CHUNK_PROGRAMS_MIN
