"""Many state tests as one batch of instances mode: every test a world of its own, in one launch.

    python -m tests.conformance.mixed_batch PATH... --engine cpu|gpu [--like-cpu]

Checks every test's root and logs; with --like-cpu instead that every byte of the outcome is the CPU engine's. The last
line is `N passed, M failed`.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from core.gpu import Device
from tests.conformance.vectors import read
from worker.evm.comparison import differing_rows
from worker.evm.engine import Engine
from worker.evm.gpu_engine import GpuEngine
from worker.evm.instance_batch import InstanceBatch
from worker.evm.state_test_file import StateTestEntry, read_state_test_file
from worker.evm.state_test_run import judge_all

__all__: list[str] = []


def _unlike_cpu(entries: Sequence[StateTestEntry], engine: Engine | GpuEngine) -> list[str]:
    batch = InstanceBatch.of(entries)
    print(f"{len(batch.entries)} in the batch, {len(batch.refused)} reach no engine", flush=True)  # noqa: T201
    outcomes = engine.run(batch.base, batch.batch)
    rows = differing_rows(outcomes, Engine().run(batch.base, batch.batch))
    return [f"{batch.entries[row].name}: {outcomes.results[row]}" for row in rows.tolist()]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.mixed_batch", description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--engine", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--like-cpu", action="store_true")
    parser.add_argument("--skip", action="append", default=[], help="leave out tests whose name contains this")
    options = parser.parse_args(arguments)
    entries = [entry for path in options.paths for _, raw in read(path) for entry in read_state_test_file(raw)]
    entries = [entry for entry in entries if not any(word in entry.name for word in options.skip)]
    engine = GpuEngine(Device(0, Path("build/kernels"))) if options.engine == "gpu" else Engine()
    print(f"{len(entries)} tests", flush=True)  # noqa: T201
    started = time.monotonic()
    if options.like_cpu:
        failures = _unlike_cpu(entries, engine)
    else:
        failures = [f"{one.name}: {one.error}" for one in judge_all(entries, engine) if one.error]
    print(f"{engine.name}: {time.monotonic() - started:.2f} s with judging", flush=True)  # noqa: T201
    if isinstance(engine, GpuEngine):
        print(engine.kernel_ms, flush=True)  # noqa: T201
    for failure in failures[:40]:
        print(f"FAILED {failure}")  # noqa: T201
    print(f"{len(entries) - len(failures)} passed, {len(failures)} failed")  # noqa: T201
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
