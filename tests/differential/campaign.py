"""A long differential run in slices: seeds in order, progress in a file, any number of shards, stopped and gone on with
at will.

    python -m tests.differential.campaign --programs 100000 --progress build/differential [--shard 0/1] [--limit-s 60]

Compares the native engine with EELS until the progress files of all shards together tell of so many programs, or the
time is over. A program is a contract or an initialisation code of the generator's, each a different one. The last line
is `N programs, M transactions, K cases, D differences`; every difference stands in the progress file with its seed.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.execution import Executor
from core.fork import Fork
from tests.differential.generator import Case, compare, generate
from worker.evm.native_executor import NativeExecutor
from worker.evm.reference import ReferenceExecutor

__all__ = ["FORKS", "Tally", "programs_of", "run_slice"]

FORKS = (Fork.CANCUN, Fork.PRAGUE, Fork.OSAKA, Fork.BPO2)
SLICE_CASES = 100


@dataclass(frozen=True, slots=True)
class Tally:
    """What some cases held, and how the executors differed: (seed, fork, what)."""

    cases: int
    programs: int
    transactions: int
    differences: tuple[tuple[int, str, str], ...]


def programs_of(case: Case) -> int:
    """How many programs a case holds: codes in the state, and initialisation codes of transactions."""
    codes = sum(bool(account.code) for account in case.state.accounts.values())
    return codes + int(case.transactions.is_creation.sum())


def run_slice(first: int, count: int, left: Executor, right: Executor) -> Tally:
    """Compare two executors on the cases of these seeds, the forks taken in turn."""
    programs = transactions = 0
    differences = []
    for seed in range(first, first + count):
        fork = FORKS[seed % len(FORKS)]
        case = generate(seed, fork)
        programs += programs_of(case)
        transactions += len(case.transactions)
        difference = compare(case, left, right)
        if difference is not None:
            differences.append((seed, fork.name, difference))
    return Tally(count, programs, transactions, tuple(differences))


def _slices(shard: int, shards: int, done: set[int]) -> Iterator[int]:
    """First seeds of this shard's slices that are not done, without end."""
    first = shard * SLICE_CASES
    while True:
        if first not in done:
            yield first
        first += shards * SLICE_CASES


def _read_progress(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential.campaign", description=__doc__)
    parser.add_argument("--programs", type=int, default=100_000)
    parser.add_argument("--progress", type=Path, required=True)
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--limit-s", type=float, default=3_600)
    options = parser.parse_args(arguments)
    shard, shards = map(int, options.shard.split("/"))
    options.progress.mkdir(parents=True, exist_ok=True)
    native, reference = NativeExecutor(), ReferenceExecutor()
    deadline = time.monotonic() + options.limit_s
    known = _read_progress(options.progress)
    with (options.progress / f"{shard}-of-{shards}.jsonl").open("a") as progress:
        for first in _slices(shard, shards, {one["first"] for one in known}):
            if time.monotonic() > deadline or sum(one["programs"] for one in known) >= options.programs:
                break
            tally = run_slice(first, SLICE_CASES, reference, native)
            known.append({"first": first, **{name: getattr(tally, name) for name in Tally.__slots__}})
            progress.write(json.dumps(known[-1]) + "\n")
            progress.flush()
    known = _read_progress(options.progress)
    counts = [f"{sum(one[name] for one in known)} {name}" for name in ("programs", "transactions", "cases")]
    differences = sum(len(one["differences"]) for one in known)
    print(", ".join([*counts, f"{differences} differences"]))  # noqa: T201
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
