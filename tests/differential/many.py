"""Two engines on very many mutated programs, in large mixed batches, every byte of every outcome compared.

    python -m tests.differential.many --programs 1000000 --right gpu [--seed 1] [--worlds 16384] [--threads 0]

The left engine is the CPU's. On the right stands the GPU's, or the CPU's own with codes decoded an instruction a block
(`single-step`), which tests blocks, fused instructions and this program where there is no GPU; there only effects are
compared, since a block that must fail reads less of the state. The last line is `N programs, M transactions, D differ`;
each difference is printed with its seed, by which its batch is made again.
"""

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.columns import Array
from core.gpu import Device
from tests.differential.mutation import Corpus
from worker.evm.batch import Outcomes
from worker.evm.comparison import differing_rows
from worker.evm.engine import Engine
from worker.evm.gpu_engine import GpuEngine
from worker.evm.layouts import CODE_PRIVATE, EntryFlag, Status

__all__ = ["Tally", "compare_engines"]

CORPUS_CASES = 3_000
SHOWN_MAX = 5
PROGRESS_INTERVAL_S = 10


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """One batch: what it held, how its transactions ended, and the rows that differ."""

    programs: int
    statuses: Counter[str]
    different: list[tuple[int, str]]


def compare_engines(corpus: Corpus, seed: int, worlds: int, left: Engine, right: Engine | GpuEngine) -> Tally:
    """Run one batch on both; a right engine of the CPU runs an instruction a block."""
    mutated = corpus.batch(seed, worlds)
    expected = left.run(mutated.base, mutated.batch)
    if isinstance(right, Engine):
        actual = right.run(corpus.batch(seed, worlds, single_step=True).base, mutated.batch)
        rows = [
            row for row in differing_rows(expected, actual).tolist() if _effects(expected, row) != _effects(actual, row)
        ]
    else:
        actual = right.run(mutated.base, mutated.batch)
        rows = differing_rows(expected, actual).tolist()
    names, counts = np.unique(expected.results["status"], return_counts=True)
    statuses = Counter({Status(int(name)).name: int(count) for name, count in zip(names, counts, strict=True)})
    return Tally(mutated.programs, statuses, [(row, _told(expected, actual, row)) for row in rows])


def _effects(outcomes: Outcomes, row: int) -> tuple[object, ...]:
    """What a row did, without what it merely read; the reason for which a frame failed may be one of several."""
    result = outcomes.results[row]
    accounts = outcomes.accounts(row)
    written_accounts = {
        one["address"].tobytes(): (int(one["nonce"]), one["balance"].tobytes(), _code(outcomes, row, one))
        for one in accounts
        if one["flags"] & (EntryFlag.WRITTEN | EntryFlag.CREATED)
    }
    written_slots = {
        (accounts[int(one["account"])]["address"].tobytes(), one["key"].tobytes()): one["value"].tobytes()
        for one in outcomes.slots(row)
        if one["flags"] & EntryFlag.WRITTEN and not one["flags"] & EntryFlag.TRANSIENT
    }
    figures = tuple(
        result[name].tobytes() for name in ("status", "rejection", "gas_used", "gas_refunded", "coinbase_fee")
    )
    return figures, outcomes.logs(row), outcomes.output(row), written_accounts, written_slots


def _code(outcomes: Outcomes, row: int, entry: Array) -> bytes:
    new = entry["flags"] & EntryFlag.NEW_CODE and int(entry["code"]) & CODE_PRIVATE
    return outcomes.code(row, entry)[0] if new else entry["code"].tobytes()


def _told(one: Outcomes, other: Outcomes, row: int) -> str:
    assert one.results.dtype.names is not None
    fields = [
        f"{name}: {one.results[name][row]} and {other.results[name][row]}"
        for name in one.results.dtype.names
        if name != "output" and not np.array_equal(one.results[name][row], other.results[name][row])
    ]
    return "; ".join(fields) or "equal results, other accounts, slots, logs, output or codes"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential.many", description=__doc__)
    parser.add_argument("--programs", type=int, default=1_000_000)
    parser.add_argument("--right", choices=("gpu", "single-step"), required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worlds", type=int, default=16_384)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--corpus", type=int, default=CORPUS_CASES, help="cases to mutate")
    parser.add_argument("--limit-s", type=float, default=3_600)
    options = parser.parse_args(arguments)
    started = time.monotonic()
    corpus = Corpus.of(options.seed * 1_000_000, options.corpus)
    left = Engine(options.threads or None)
    right = (
        GpuEngine(Device(0, Path("build/kernels")), left) if options.right == "gpu" else Engine(options.threads or None)
    )
    programs, differ, statuses, seed, told = 0, 0, Counter[str](), options.seed, started
    while programs < options.programs and time.monotonic() - started < options.limit_s:
        tally = compare_engines(corpus, seed, options.worlds, left, right)
        programs, differ, statuses = programs + tally.programs, differ + len(tally.different), statuses + tally.statuses
        for row, difference in tally.different[:SHOWN_MAX]:
            print(f"seed {seed}, row {row}: {difference}", flush=True)  # noqa: T201
        seed += 1
        if time.monotonic() - told > PROGRESS_INTERVAL_S:
            told = time.monotonic()
            print(f"{told - started:.0f} s: {programs} programs, {differ} differ", file=sys.stderr, flush=True)  # noqa: T201
    print(f"{time.monotonic() - started:.1f} s, {dict(statuses)}")  # noqa: T201
    print(f"{programs} programs, {sum(statuses.values())} transactions, {differ} differ")  # noqa: T201
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
