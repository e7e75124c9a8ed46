"""Ethereum's JSON-RPC conformance tests (ethereum/execution-apis): .io files against a chain replayed from files.

    python -m tests.conformance.rpc_compat DIR [--executor cpu|reference] [--verbose]

DIR holds genesis.json, chain.rlp and <method>/<test>.io files; it may also be a .tar.gz of such a folder. The chain is
executed by the executor, `cpu` as in a sequencer unless told, and each request is answered by the sequencer's own
dispatcher on it. Responses compare as JSON; a file with a `speconly:` comment is compared by shape. The last line is
"N passed, M failed"; failures are named before it.
"""

import argparse
import asyncio
import json
import re
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from core.execution import Executor
from core.genesis import Genesis
from node.executors import EXECUTORS
from sequencer.feed import Feed
from sequencer.jsonrpc import Dispatcher, DispatcherLimits
from sequencer.jsonrpc.method import Connection
from sequencer.mempool import Admission, Mempool, MempoolLimits
from sequencer.metrics import SequencerMetrics
from sequencer.ports import SystemClock
from sequencer.rpc_methods import MethodLimits, Services, TestingMethods, public_methods
from tests.conformance.chain_file import read_blocks, replay
from tests.unit.sequencer.memory_chain import MemoryChain

__all__ = ["CompatCase", "CompatFailure", "UnpackedFolder", "find_cases", "load_chain", "load_dispatcher", "run_cases"]

# Members that the specification lets a node leave out: history that is never deleted has no strategy of deletion.
_OPTIONAL_MEMBERS = frozenset({"deleteStrategy"})
_KEY = re.compile(r"^(0x[0-9a-fA-F]+|\d+)$")


@dataclass(frozen=True, slots=True)
class CompatCase:
    """One .io file: its name, and request-response pairs as text."""

    name: str
    shape_only: bool
    exchanges: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class CompatFailure:
    """Where a response differs, and how."""

    name: str
    difference: str


def find_cases(folder: Path) -> list[CompatCase]:
    """Every .io file under `folder`, by name."""
    return [_read_case(path, folder) for path in sorted(folder.rglob("*.io"))]


def _read_case(path: Path, folder: Path) -> CompatCase:
    lines = path.read_text().splitlines()
    requests = [line[2:].strip() for line in lines if line.startswith(">>")]
    responses = [line[2:].strip() for line in lines if line.startswith("<<")]
    shape_only = any(line.startswith("//") and "speconly:" in line for line in lines)
    return CompatCase(str(path.relative_to(folder)), shape_only, tuple(zip(requests, responses, strict=True)))


def load_chain(folder: Path, executor: Executor) -> MemoryChain:
    """Execute chain.rlp on genesis.json; raises BlockError unless every root is as the headers say."""
    genesis = Genesis.from_geth(json.loads((folder / "genesis.json").read_text()))
    chain = MemoryChain(genesis)
    for executed in replay(genesis, read_blocks((folder / "chain.rlp").read_bytes()), executor):
        chain.append(executed.sealed, executed.outcome.receipts, executed.outcome.difference)
    return chain


def load_dispatcher(chain: MemoryChain, executor: Executor) -> Dispatcher:
    """The sequencer's JSON-RPC over this chain."""
    head = chain.head()
    clock = SystemClock()
    mempool = Mempool(
        chain.config.chain_id, chain.state(head.number), head.block.header.gas_limit, MempoolLimits(), clock
    )
    services = Services(
        chain=chain,
        executor=executor,
        mempool=mempool,
        admission=Admission(mempool),
        heads=Feed(),
        clock=clock,
        client_version="warpgrid/conformance",
        limits=MethodLimits(),
    )
    methods = {**public_methods(services), **TestingMethods(services).methods()}
    limits = DispatcherLimits(heavy_threads=1, heavy_timeout_s=120)
    return Dispatcher(methods, limits, SequencerMetrics(CollectorRegistry()))


class _Client:
    """The other end of a call in this process: it cannot be notified."""

    can_notify = False

    def start_notifying(self, subscription: str, notify: Any) -> None:
        raise AssertionError("nothing subscribes here")

    def stop_notifying(self, subscription: str) -> bool:
        return False

    async def send(self, message: Any) -> None:
        raise AssertionError("nothing subscribes here")


async def run_cases(dispatcher: Dispatcher, cases: list[CompatCase]) -> list[CompatFailure]:
    """Send every request in order; what differs, by case."""
    client: Connection = _Client()
    failures: list[CompatFailure] = []
    for case in cases:
        for request, expected in case.exchanges:
            answer = await dispatcher.answer(request.encode(), client)
            difference = _difference(json.loads(expected), json.loads(answer or b"null"), case.shape_only, "")
            if difference:
                failures.append(CompatFailure(case.name, difference))
                break
    return failures


def _difference(expected: Any, actual: Any, shape_only: bool, where: str) -> str:
    """The first difference, or an empty string. By shape: the same members and kinds, whatever the values."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return _object_difference(expected, actual, shape_only, where)
    if isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual) and not shape_only:
            return f"{where}: {len(actual)} items, expected {len(expected)}"
        pairs = zip(expected, actual, strict=False)
        differences = (_difference(want, got, shape_only, f"{where}[{i}]") for i, (want, got) in enumerate(pairs))
        return next(filter(None, differences), "")
    agree = type(expected) is type(actual) if shape_only else expected == actual
    return "" if agree else f"{where}: {_shown(actual)}, expected {_shown(expected)}"


def _object_difference(expected: dict[str, Any], actual: dict[str, Any], shape_only: bool, where: str) -> str:
    if shape_only and where.endswith(".error"):
        return "" if {"code", "message"} <= actual.keys() else f"{where}: {_shown(actual)}"
    missing, more = expected.keys() - actual.keys(), actual.keys() - expected.keys()
    is_excused = shape_only and (_are_values(expected, actual) or (missing | more) <= _OPTIONAL_MEMBERS)
    if (missing or more) and not is_excused:
        return f"{where}: missing {sorted(missing)}, unexpected {sorted(more)}; {_shown(actual)}"
    common = [name for name in expected if name in actual]
    differences = (_difference(expected[name], actual[name], shape_only, f"{where}.{name}") for name in common)
    return next(filter(None, differences), "")


def _are_values(*objects: dict[str, Any]) -> bool:
    """Whether the keys are data (addresses, slots, nonces) and not names."""
    return all(_KEY.match(key) for one in objects for key in one)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 300 else text[:300] + "..."


class UnpackedFolder:
    """The folder at `path`, or what a .tar.gz there holds, UnpackedFolder for as long as the block lasts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Path:
        if self._path.is_dir() and not (self._path / "chain.rlp").exists():
            archives = sorted(self._path.glob("*.tar.gz"))
            self._path = archives[0] if archives else self._path
        if self._path.is_dir():
            return self._path
        self._temporary = tempfile.TemporaryDirectory()
        with tarfile.open(self._path) as archive:
            archive.extractall(self._temporary.name, filter="data")
        return next(_chain_folders(Path(self._temporary.name)))

    def __exit__(self, *_: object) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()


def _chain_folders(root: Path) -> Iterator[Path]:
    return (path.parent for path in sorted(root.rglob("chain.rlp")))


def main(arguments: list[str]) -> int:
    """Run a folder; 0 when nothing failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.rpc_compat", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--executor", choices=EXECUTORS, default="cpu")
    parser.add_argument("--verbose", action="store_true", help="say how a response differs")
    options = parser.parse_args(arguments)
    executor = EXECUTORS[options.executor]()
    with UnpackedFolder(options.folder) as folder:
        cases = find_cases(folder)
        dispatcher = load_dispatcher(load_chain(folder, executor), executor)
        failures = asyncio.run(run_cases(dispatcher, cases))
        dispatcher.close()
    for failure in failures:
        detail = f": {failure.difference}" if options.verbose else ""
        sys.stdout.write(f"FAILED {failure.name}{detail}\n")
    sys.stdout.write(f"{len(cases) - len(failures)} passed, {len(failures)} failed\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
