"""Ethereum's state tests (EEST and ethereum/tests) against any executor.

    python -m tests.conformance.state_tests PATH... --executor reference

A PATH is a JSON file, an archive or a folder of either. The last line is `N passed, M failed`; the exit status is 0
when nothing failed. One test is one post entry: one transaction, whose state root and logs must be as expected, or
which must be rejected without any effect.
"""

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import orjson

from core import rlp
from core.errors import TransactionError
from core.execution import BlockContext, Executor
from core.fork import Fork
from core.hashing import keccak256
from core.memory_state import AccountContents, MemoryState
from core.receipts import Log
from core.signature import recover_sender
from core.transaction import Transaction, TransactionColumns, decode_transaction
from node.executors import EXECUTORS
from tests.conformance.vectors import read

__all__ = ["StateTest", "TestTimeout", "failure_of", "outcome_of", "read_accounts", "read_state_tests", "time_limit"]

TEST_TIME_LIMIT_S = 600
PROGRESS_INTERVAL_S = 10


@dataclass(frozen=True, slots=True)
class StateTest:
    """One post entry of a state test file; `test` is the whole test and `post` the entry, as parsed."""

    name: str
    fork: Fork
    test: dict[str, Any]
    post: dict[str, Any]


class TestTimeout(Exception):
    """A test took longer than its limit."""

    __test__ = False


def read_state_tests(file_name: str, raw: bytes) -> Iterator[StateTest]:
    """Every post entry of one file, in the file's order."""
    for key, test in orjson.loads(raw).items():
        for fork_name, entries in test["post"].items():
            for index, post in enumerate(entries):
                yield StateTest(f"{file_name}::{key}::{fork_name}[{index}]", Fork[fork_name.upper()], test, post)


def failure_of(test: StateTest, executor: Executor) -> str | None:
    """Why `executor` fails this test, or None when it passes. Raises whatever the executor raises."""
    state = MemoryState(read_accounts(test.test["pre"]))
    expected_root, expected_logs = _bytes(test.post["hash"]), _bytes(test.post["logs"])
    must_reject = "expectException" in test.post
    raw = _bytes(test.post["txbytes"])
    try:
        tx = decode_transaction(raw)
        sender = recover_sender(tx)
    except TransactionError as error:
        if not must_reject:
            return f"the transaction does not decode: {error}"
        return None if state.root == expected_root else "the expected state is not the one before"
    columns = TransactionColumns.from_transactions([tx], [sender])
    if columns.encoded() != [raw] or not _matches(tx, sender, test):
        return "the transaction's bytes do not say what the test says"
    outcome = executor.execute_transactions(state, context_of(test), columns)
    if bool(outcome.rejections) != must_reject:
        reasons = [f"{one.reason}: {one.detail}" for one in outcome.rejections]
        return f"expected {test.post.get('expectException', 'no exception')}, rejections are {reasons}"
    if must_reject and len(outcome.difference):
        return "a rejected transaction changed the state"
    logs = tuple(log for row in range(len(outcome.receipts)) for log in outcome.receipts.logs(row))
    if _logs_hash(logs) != expected_logs:
        return f"the logs differ: {len(logs)} logs"
    root = state.root_after(outcome.difference)
    if root != expected_root:
        return f"state root {root.hex()}, expected {expected_root.hex()}{_first_difference(test, state, outcome)}"
    return None


def _matches(tx: Transaction, sender: bytes, test: StateTest) -> bool:
    fields, indexes = test.test["transaction"], test.post["indexes"]
    to = _bytes(fields["to"]) or None
    expected = (
        _int(fields["nonce"]),
        _int(fields["gasLimit"][indexes["gas"]]),
        _int(fields["value"][indexes["value"]]),
        _bytes(fields["data"][indexes["data"]]),
        to,
        _bytes(fields["sender"]),
    )
    return expected == (tx.nonce, tx.gas_limit, tx.value, tx.data, tx.to, sender)


def read_accounts(accounts: dict[str, Any]) -> dict[bytes, AccountContents]:
    """Accounts as the test formats write them."""
    return {
        _bytes(address): AccountContents(
            nonce=_int(one["nonce"]),
            balance=_int(one["balance"]),
            code=_bytes(one["code"]),
            storage={_int(slot): _int(value) for slot, value in one["storage"].items()},
        )
        for address, one in accounts.items()
    }


def context_of(test: StateTest) -> BlockContext:
    env = test.test["env"]
    number = _int(env["currentNumber"])
    return BlockContext(
        fork=test.fork,
        chain_id=_int(test.test.get("config", {}).get("chainid", "0x1")),
        number=number,
        timestamp=_int(env["currentTimestamp"]),
        gas_limit=_int(env["currentGasLimit"]),
        coinbase=_bytes(env["currentCoinbase"]),
        base_fee_per_gas=_int(env.get("currentBaseFee", "0x0")),
        prev_randao=_bytes(env["currentRandom"]),
        excess_blob_gas=_int(env.get("currentExcessBlobGas", "0x0")),
        # The convention of state tests, which have no chain: the hash of a block is that of its number in decimal.
        block_hashes=tuple(keccak256(str(one).encode()) for one in range(max(0, number - 256), number)),
    )


def _first_difference(test: StateTest, state: MemoryState, outcome: Any) -> str:
    if "state" not in test.post:
        return ""
    expected, actual = read_accounts(test.post["state"]), state.apply(outcome.difference).accounts
    for address in sorted(expected.keys() | actual.keys()):
        if expected.get(address) != actual.get(address):
            return f"; account {address.hex()} is {actual.get(address)}, expected {expected.get(address)}"
    return "; every account is as expected"


def _logs_hash(logs: tuple[Log, ...]) -> bytes:
    return keccak256(rlp.encode([[log.address, list(log.topics), log.data] for log in logs]))


def _int(text: str) -> int:
    return int(text, 16)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TestTimeout in this (main) thread when the block takes longer; native code is interrupted on its return."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TestTimeout(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome_of(test: StateTest, executor: Executor, limit_s: float = TEST_TIME_LIMIT_S) -> str | None:
    """`failure_of` under a time limit, with an executor's crash told as a failure."""
    try:
        with time_limit(limit_s):
            return failure_of(test, executor)
    except TestTimeout as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - the edge where one test's crash must not hide the others' results
        return f"{type(error).__name__}: {error}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.state_tests", description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--executor", choices=sorted(EXECUTORS), default="reference")
    parser.add_argument("--time-limit-s", type=float, default=TEST_TIME_LIMIT_S)
    options = parser.parse_args(arguments)
    executor = EXECUTORS[options.executor]()
    passed = failed = 0
    started = told = time.monotonic()
    for path in options.paths:
        for name, raw in read(path):
            for test in read_state_tests(name, raw):
                failure = outcome_of(test, executor, options.time_limit_s)
                passed, failed = passed + (failure is None), failed + (failure is not None)
                if failure is not None:
                    print(f"FAILED {test.name}: {failure}", flush=True)  # noqa: T201
                if time.monotonic() - told > PROGRESS_INTERVAL_S:
                    told = time.monotonic()
                    print(f"{told - started:.0f} s: {passed} passed, {failed} failed, at {name}", file=sys.stderr)  # noqa: T201
    print(f"{time.monotonic() - started:.1f} s")  # noqa: T201
    print(f"{passed} passed, {failed} failed")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
