"""Gas-heavy blocks on every executor: those that the reference manages by default, all under `make conformance`."""

from dataclasses import replace

import pytest

from core.block import header_hash
from node.executors import EXECUTORS
from tests.conformance.benchmark_blocks import read_benchmarks, run
from tests.conformance.vectors import VECTORS, needs_vectors

BENCHMARK = VECTORS / "benchmark" / "benchmark.tar.gz"
# The reference takes about a minute for ten million gas of the cheapest instructions.
REFERENCE_GAS_MAX = 11_000_000


@needs_vectors
@pytest.mark.parametrize("match", ["empty_block", "sha256", "identity"])
@pytest.mark.parametrize("executor_name", EXECUTORS)
def test_small_blocks(executor_name: str, match: str) -> None:
    tests = list(read_benchmarks(BENCHMARK, REFERENCE_GAS_MAX, match))
    assert tests
    executor = EXECUTORS[executor_name]()
    assert [run(test, executor).failure for test in tests] == [None] * len(tests)


@needs_vectors
def test_a_wrong_header_fails() -> None:
    test = next(iter(read_benchmarks(BENCHMARK, match="empty_block")))
    first = test.blocks[0]
    header = replace(first.block.header, state_root=bytes(32))
    wrong = replace(test, blocks=(replace(first, hash=header_hash(header), block=replace(first.block, header=header)),))
    failure = run(wrong, EXECUTORS["reference"]()).failure
    assert failure is not None
    assert "state_root" in failure


@needs_vectors
@pytest.mark.conformance
@pytest.mark.parametrize("executor_name", EXECUTORS)
def test_every_block(executor_name: str) -> None:
    executor = EXECUTORS[executor_name]()
    gas_max = REFERENCE_GAS_MAX if executor_name == "reference" else None
    failures = {test.name: run(test, executor).failure for test in read_benchmarks(BENCHMARK, gas_max)}
    assert {name: failure for name, failure in failures.items() if failure} == {}
    assert len(failures) > 30
