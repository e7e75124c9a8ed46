"""State tests on every executor: a fixed random sample by default, everything under `make conformance`."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.executors import EXECUTORS
from tests.conformance.state_tests import StateTest, outcome_of, read_state_tests
from tests.conformance.vectors import VECTORS, needs_vectors, read

STATE_TESTS = VECTORS / "state_tests"
ARCHIVES = ("cancun", "cancun_ethtests", "osaka", "prague")
CHUNKS = 8
SAMPLE_SEED = 20261122
SAMPLE_FILES_PER_ARCHIVE = 75
# Families made to burn gas: seconds to minutes each under the reference. They run with everything else, not here.
SLOW_FAMILIES = ("stTimeConsuming", "vmPerformance", "QuadraticComplexity", "Call50000", "CannotBeDosd", "Call20Kbytes")

KNOWN_FAILURES = {
    line
    for line in (Path(__file__).parent / "known_failures.txt").read_text().splitlines()
    if line and not line.startswith("#")
}


def run_all(tests: Iterator[StateTest], executor_name: str) -> int:
    """Run the tests, fail with every unexpected result, and return how many there were."""
    executor = EXECUTORS[executor_name]()
    unexpected, count = [], 0
    for count, test in enumerate(tests, 1):  # noqa: B007 - the number of tests is the result
        failure = outcome_of(test, executor)
        if (failure is not None) != (f"{executor_name} {test.name}" in KNOWN_FAILURES):
            unexpected.append(f"{test.name}: {failure or 'passes: take it off known_failures.txt'}")
    assert not unexpected, "\n".join(unexpected)
    return count


def sampled(archive: str) -> Iterator[StateTest]:
    """One test of each of some files, the same ones every time."""
    choose = random.Random(f"{SAMPLE_SEED} {archive}")
    files = list(read(STATE_TESTS / f"{archive}.tar.gz"))
    quick = [(name, raw) for name, raw in files if not any(family in name for family in SLOW_FAMILIES)]
    for name, raw in choose.sample(quick, SAMPLE_FILES_PER_ARCHIVE):
        yield choose.choice(list(read_state_tests(name, raw)))


def chunk_of(archive: str, chunk: int) -> Iterator[StateTest]:
    for index, (name, raw) in enumerate(read(STATE_TESTS / f"{archive}.tar.gz")):
        if index % CHUNKS == chunk:
            yield from read_state_tests(name, raw)


@needs_vectors
@pytest.mark.parametrize("archive", ARCHIVES)
@pytest.mark.parametrize("executor_name", EXECUTORS)
def test_sample(executor_name: str, archive: str) -> None:
    assert run_all(sampled(archive), executor_name) == SAMPLE_FILES_PER_ARCHIVE


@needs_vectors
@pytest.mark.conformance
@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("archive", ARCHIVES)
@pytest.mark.parametrize("executor_name", EXECUTORS)
def test_everything(executor_name: str, archive: str, chunk: int) -> None:
    assert run_all(chunk_of(archive, chunk), executor_name) > 0
