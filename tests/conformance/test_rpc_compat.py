"""The shared JSON-RPC conformance tests, all but the listed ones, on a chain replayed by the same executor."""

from pathlib import Path

import pytest

from core.execution import Executor
from node.executors import EXECUTORS, make_executor
from tests.conformance.rpc_compat import (
    CompatCase,
    UnpackedFolder,
    find_cases,
    load_chain,
    load_dispatcher,
    run_cases,
)

VECTORS = Path(__file__).parents[2] / ".." / "shared" / "vectors" / "rpc_compat"
KNOWN_FAILURES = Path(__file__).with_name("rpc_compat_known_failures.txt")
SAMPLE_EVERY = 3


def known_failures() -> dict[str, str]:
    """Test name to reason."""
    lines = KNOWN_FAILURES.read_text().splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))


def sample(cases: list[CompatCase]) -> list[CompatCase]:
    """Everything but most of the simulations, which take the longest."""
    simulations = [case for case in cases if case.name.startswith("eth_simulateV1")]
    return [case for case in cases if case not in simulations] + simulations[::SAMPLE_EVERY]


async def failed_names(cases: list[CompatCase], folder: Path, executor: Executor) -> set[str]:
    dispatcher = load_dispatcher(load_chain(folder, executor), executor)
    failures = await run_cases(dispatcher, cases)
    dispatcher.close()
    return {failure.name for failure in failures}


@pytest.mark.skipif(not VECTORS.exists(), reason="../shared/vectors/rpc_compat is not there")
async def test_sample() -> None:
    with UnpackedFolder(VECTORS) as folder:
        cases = sample(find_cases(folder))
        assert len(cases) > 100
        failed = await failed_names(cases, folder, make_executor("cpu"))
        assert failed == known_failures().keys() & {case.name for case in cases}


@pytest.mark.conformance
@pytest.mark.skipif(not VECTORS.exists(), reason="../shared/vectors/rpc_compat is not there")
@pytest.mark.parametrize("name", EXECUTORS)
async def test_everything(name: str) -> None:
    with UnpackedFolder(VECTORS) as folder:
        cases = find_cases(folder)
        assert len(cases) >= 162
        assert await failed_names(cases, folder, make_executor(name)) == known_failures().keys()


def test_every_known_failure_has_a_reason() -> None:
    assert all(len(reason) > 20 for reason in known_failures().values())
