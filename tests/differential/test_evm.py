"""The native engine against EELS on random cases: same receipts, logs, gas, rejections and state difference.

    python -m tests.differential.test_evm FIRST_SEED COUNT

runs more than the tests do and ends with what differs.
"""

import sys

import pytest

from core.fork import Fork
from tests.differential.generator import compare, generate
from worker.evm.native_executor import NativeExecutor
from worker.evm.reference import ReferenceExecutor

FORKS = (Fork.CANCUN, Fork.PRAGUE, Fork.OSAKA, Fork.BPO2)
SAMPLE_CASES = 120
CONFORMANCE_CASES = 100_000
CONFORMANCE_CHUNKS = 50


def differing(first: int, count: int) -> list[str]:
    """What differs in the cases of these seeds, the forks taken in turn."""
    native, reference = NativeExecutor(), ReferenceExecutor()
    wrong = []
    for seed in range(first, first + count):
        fork = FORKS[seed % len(FORKS)]
        difference = compare(generate(seed, fork), native, reference)
        if difference is not None:
            wrong.append(f"seed {seed} ({fork.name}): {difference}")
    return wrong


def test_sample() -> None:
    assert differing(0, SAMPLE_CASES) == []


@pytest.mark.conformance
@pytest.mark.parametrize("chunk", range(CONFORMANCE_CHUNKS))
def test_many(chunk: int) -> None:
    size = CONFORMANCE_CASES // CONFORMANCE_CHUNKS
    assert differing(SAMPLE_CASES + chunk * size, size) == []


if __name__ == "__main__":
    wrong = differing(int(sys.argv[1]), int(sys.argv[2]))
    print("\n".join(wrong[:20]))  # noqa: T201
    print(f"{len(wrong)} of {sys.argv[2]} cases differ")  # noqa: T201
