"""Many state tests as one batch of instances mode: every test a world of its own, in one launch.

    python -m tests.conformance.mixed_batch PATH... --engine cpu|gpu

Checks every test's root and logs, and with a GPU also that every byte of every outcome is the CPU engine's. A test
whose transaction does not decode or names no sender reaches no engine: it passes where refusing is what it expects. The
last line is `N passed, M failed`.
"""

import argparse
import sys
import time
from pathlib import Path

from core.gpu import Device
from tests.conformance.vectors import read
from worker.evm.batch import Outcomes
from worker.evm.comparison import differing_rows
from worker.evm.engine import Engine
from worker.evm.gpu_engine import GpuEngine
from worker.evm.instance_batch import InstanceBatch
from worker.evm.state_test_file import read_state_test_file
from worker.evm.state_test_run import judge_outcomes

__all__ = ["failures"]

SHOWN_MAX = 40


def failures(batch: InstanceBatch, outcomes: Outcomes, expected: Outcomes | None) -> list[tuple[str, str]]:
    """(name, reason) of each test with another root or logs, or whose bytes are not those of `expected`."""
    found = [(entry.name, verdict.error) for entry, verdict in judge_outcomes(batch, outcomes) if verdict.error]
    if expected is not None:
        rows = differing_rows(outcomes, expected).tolist()
        found += [(batch.entries[row].name, f"not the CPU's bytes: {outcomes.results[row]}") for row in rows]
    return found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.mixed_batch", description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--engine", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--files", type=int, help="only so many files of each path, from its beginning")
    parser.add_argument("--row-seconds", type=float, default=20.0, help="a GPU leaves to the CPU what takes longer")
    options = parser.parse_args(arguments)
    files = [raw for path in options.paths for _, (_, raw) in zip(range(options.files or 1 << 30), read(path))]  # noqa: B905 - the shorter one ends
    entries = [entry for raw in files for entry in read_state_test_file(raw)]
    batch = InstanceBatch.of(entries)
    print(f"{len(entries)} tests, {len(batch.entries)} in the batch", flush=True)  # noqa: T201
    engine: Engine | GpuEngine = Engine()
    if options.engine == "gpu":
        engine = GpuEngine(Device(0, Path("build/kernels")), row_seconds_max=options.row_seconds)
    started = time.monotonic()
    outcomes = engine.run(batch.base, batch.batch)
    print(f"{engine.name}: {time.monotonic() - started:.2f} s", flush=True)  # noqa: T201
    expected = None
    if isinstance(engine, GpuEngine):
        for incident in engine.incidents:
            named = ", ".join(batch.entries[row].name for row in incident.rows)
            print(f"finished on the CPU ({incident.reason}): {named}", flush=True)  # noqa: T201
        expected = Engine().run(batch.base, batch.batch)
    failed = failures(batch, outcomes, expected)
    for name, reason in failed[:SHOWN_MAX]:
        print(f"FAILED {name}: {reason}")  # noqa: T201
    print(f"{len(entries) - len({name for name, _ in failed})} passed, {len(failed)} failed")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
