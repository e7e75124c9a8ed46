"""Many state tests as one batch of instances mode: every test a world of its own, in one launch.

    python -m tests.conformance.mixed_batch PATH... --engine cpu|gpu [--like-cpu]

Checks every test's root and logs; with --like-cpu instead that every byte of the outcome is the CPU engine's. The last
line is `N passed, M failed`.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core import rlp
from core.columns import limbs_from_ints
from core.crypto import recover_batch
from core.errors import TransactionError
from core.gpu import Device
from core.hashing import keccak256
from core.memory_state import AccountContents, MemoryState
from core.transaction import Transaction, TransactionColumns, decode_transaction, signing_hash
from tests.conformance.state_tests import StateTest, context_of, read_accounts, read_state_tests
from tests.conformance.vectors import read
from worker.evm.base_state import BaseState
from worker.evm.batch import Batch, Outcomes, block_environments
from worker.evm.comparison import differing_rows
from worker.evm.engine import Engine
from worker.evm.gpu_engine import GpuEngine
from worker.evm.instance_difference import difference_of_instance
from worker.evm.layouts import AccountFlag, Status

__all__ = ["MixedBatch"]


@dataclass(frozen=True, slots=True, eq=False)
class MixedBatch:
    """State tests that decode, row by row, and the base with a world for each."""

    tests: tuple[StateTest, ...]
    base: BaseState
    batch: Batch

    @classmethod
    def of(cls, tests: Sequence[StateTest]) -> "MixedBatch":
        """Tests whose transaction does not decode or has no valid signature are left out: they reach no engine."""
        decoded = [(test, tx) for test in tests if (tx := _decoded(test)) is not None]
        signed = recover_batch(
            np.frombuffer(b"".join(signing_hash(tx) for _, tx in decoded), "u1").reshape(-1, 32),
            np.frombuffer(b"".join(_signature(tx) for _, tx in decoded), "u1").reshape(-1, 64),
            np.fromiter((tx.y_parity for _, tx in decoded), "u1"),
        )
        keep = [row for row in range(len(decoded)) if signed.valid[row]]
        tests = [decoded[row][0] for row in keep]
        base = BaseState(accounts_complete=True)
        _fill(base, [read_accounts(test.test["pre"]) for test in tests])
        columns = TransactionColumns.from_transactions(
            [decoded[row][1] for row in keep], [signed.addresses[row].tobytes() for row in keep]
        )
        blocks = block_environments([context_of(test) for test in tests], base)
        numbers = np.arange(len(tests), dtype="<u4")
        return cls(tuple(tests), base, Batch.of(columns, blocks, numbers, numbers))

    def failures(self, outcomes: Outcomes) -> Iterator[tuple[str, str]]:
        """(name, reason) of each test whose outcome is not the expected one."""
        for row, test in enumerate(self.tests):
            reason = self._failure(test, outcomes, row)
            if reason is not None:
                yield test.name, reason

    def _failure(self, test: StateTest, outcomes: Outcomes, row: int) -> str | None:
        must_reject = "expectException" in test.post
        if (int(outcomes.results["status"][row]) == Status.REJECTED) != must_reject:
            return f"status {Status(int(outcomes.results['status'][row])).name}, reject: {must_reject}"
        logs = [] if must_reject else outcomes.logs(row)
        digest = keccak256(rlp.encode([[log.address, list(log.topics), log.data] for log in logs]))
        if digest != bytes.fromhex(test.post["logs"][2:]):
            return "the logs differ"
        state = MemoryState(read_accounts(test.test["pre"]))
        difference = difference_of_instance(outcomes, row, state, context_of(test).coinbase)
        root = state.root_after(difference)
        return None if root == bytes.fromhex(test.post["hash"][2:]) else f"the state root is {root.hex()}"


def _decoded(test: StateTest) -> Transaction | None:
    try:
        return decode_transaction(bytes.fromhex(test.post["txbytes"][2:]))
    except TransactionError:
        return None


def _signature(tx: Transaction) -> bytes:
    return tx.r.to_bytes(32, "big") + tx.s.to_bytes(32, "big")


def _fill(base: BaseState, states: list[dict[bytes, AccountContents]]) -> None:
    """One world for each state. Every slot that exists is given, so whatever is not there is zero."""
    rows = [(world, address, one) for world, state in enumerate(states) for address, one in state.items()]
    codes = sorted({one.code for _, _, one in rows})
    first = base.add_codes(codes)
    numbers = {code: first + i if code else 0 for i, code in enumerate(codes)}
    stored = [{slot: value for slot, value in one.storage.items() if value} for _, _, one in rows]
    flags = AccountFlag.EXISTS | AccountFlag.STORAGE_COMPLETE
    records = base.add_accounts(
        np.fromiter((world for world, _, _ in rows), "<u4"),
        np.frombuffer(b"".join(address for _, address, _ in rows), "u1").reshape(-1, 20),
        np.fromiter((one.nonce for _, _, one in rows), "<u8"),
        limbs_from_ints(one.balance for _, _, one in rows),
        np.fromiter((numbers[one.code] for _, _, one in rows), "<u4"),
        np.fromiter((int(flags | AccountFlag.HAS_STORAGE if slots else flags) for slots in stored), "<u4"),
    )
    base.add_slots(
        np.repeat(records, [len(slots) for slots in stored]),
        limbs_from_ints(slot for slots in stored for slot in slots),
        limbs_from_ints(value for slots in stored for value in slots.values()),
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.mixed_batch", description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--engine", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--like-cpu", action="store_true")
    parser.add_argument("--skip", action="append", default=[], help="leave out tests whose name contains this")
    options = parser.parse_args(arguments)
    tests = [test for path in options.paths for name, raw in read(path) for test in read_state_tests(name, raw)]
    tests = [test for test in tests if not any(word in test.name for word in options.skip)]
    mixed = MixedBatch.of(tests)
    print(f"{len(tests)} tests, {len(mixed.tests)} in the batch", flush=True)  # noqa: T201
    engine = GpuEngine(Device(0, Path("build/kernels"))) if options.engine == "gpu" else Engine()
    started = time.monotonic()
    outcomes = engine.run(mixed.base, mixed.batch)
    print(f"{engine.name}: {time.monotonic() - started:.2f} s", flush=True)  # noqa: T201
    if isinstance(engine, GpuEngine):
        print(engine.kernel_ms, flush=True)  # noqa: T201
    if options.like_cpu:
        rows = differing_rows(outcomes, Engine().run(mixed.base, mixed.batch))
        failures = [(mixed.tests[row].name, str(outcomes.results[row])) for row in rows.tolist()]
    else:
        failures = list(mixed.failures(outcomes))
    for name, reason in failures[:40]:
        print(f"FAILED {name}: {reason}")  # noqa: T201
    print(f"{len(mixed.tests) - len(failures)} passed, {len(failures)} failed")  # noqa: T201
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
