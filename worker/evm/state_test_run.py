"""Running state tests and judging them: one at a time on an executor, or all at once as instances on an engine.

Owns what a test's result says (geth's form: name, pass, fork, stateRoot, error). Knows nothing of files or printing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from core import rlp
from core.errors import BlockError, TransactionError, WarpgridError
from core.execution import ExecutionOutcome, Executor, TransactionTrace
from core.hashing import keccak256
from core.receipts import Log
from core.signature import recover_sender
from core.transaction import TransactionColumns
from worker.evm.base_state import BaseState
from worker.evm.batch import Batch, Outcomes
from worker.evm.instance_batch import InstanceBatch
from worker.evm.instance_difference import difference_of_instance
from worker.evm.layouts import REJECTIONS, Status
from worker.evm.state_test_file import StateTestEntry

__all__ = ["InstanceEngine", "Verdict", "execute_entry", "judge", "judge_all", "judge_outcomes", "trace_entry"]


class InstanceEngine(Protocol):
    """`Engine` or `GpuEngine`: independent transactions, all at once."""

    def run(self, base: BaseState, batch: Batch) -> Outcomes: ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """A test's result; `error` is empty when it passed."""

    name: str
    fork: str
    state_root: bytes
    error: str

    def as_geth(self) -> dict[str, Any]:
        """The result as `geth evm statetest` prints it."""
        return {
            "name": self.name,
            "pass": not self.error,
            "fork": self.fork,
            "stateRoot": f"0x{self.state_root.hex()}",
            "error": self.error,
        }


def execute_entry(entry: StateTestEntry, executor: Executor) -> ExecutionOutcome | str:
    """The outcome, or why the transaction did not even reach the executor."""
    columns = _columns(entry)
    if isinstance(columns, str):
        return columns
    return executor.execute_transactions(entry.state(), entry.context, columns)


def trace_entry(entry: StateTestEntry, executor: Executor) -> TransactionTrace | None:
    """What the transaction did, instruction by instruction; None where it may not be included at all.

    A state test has no block around it: as in geth, no system call comes before the transaction.
    """
    columns = _columns(entry)
    if isinstance(columns, str):
        return None
    try:
        (trace,) = executor.trace_transactions(entry.state(), entry.context, columns, [0], struct_logs=True)
    except BlockError:
        return None
    return trace


def judge(entry: StateTestEntry, executor: Executor) -> Verdict:
    """Run one test on an executor."""
    state = entry.state()
    try:
        outcome = execute_entry(entry, executor)
    except WarpgridError as refused:
        return _verdict(entry, state.root, f"{refused.code}: {refused}")
    if isinstance(outcome, str):
        return _verdict(entry, state.root, "" if entry.must_reject else outcome)
    rejections = [one.reason.value for one in outcome.rejections]
    logs = [log for row in range(len(outcome.receipts)) for log in outcome.receipts.logs(row)]
    return _compared(entry, state.root_after(outcome.difference), rejections, logs)


def judge_all(entries: Sequence[StateTestEntry], engine: InstanceEngine) -> Iterator[Verdict]:
    """Run many tests in one go on an engine; the verdicts are in the order of `entries`."""
    batch = InstanceBatch.of(entries)
    outcomes = engine.run(batch.base, batch.batch) if batch.entries else None
    verdicts = {id(entry): verdict for entry, verdict in judge_outcomes(batch, outcomes)}
    return (verdicts[id(entry)] for entry in entries)


def judge_outcomes(batch: InstanceBatch, outcomes: Outcomes | None) -> Iterator[tuple[StateTestEntry, Verdict]]:
    """Judge a batch that has run. What no engine saw passes where the test wants it refused."""
    for entry, reason in batch.refused:
        yield entry, _verdict(entry, entry.state().root, "" if entry.must_reject else reason)
    for row, entry in enumerate(batch.entries):
        assert outcomes is not None
        state = entry.state()
        difference = difference_of_instance(outcomes, row, state, entry.context.coinbase)
        rejected = int(outcomes.results["status"][row]) == Status.REJECTED
        reason_of_native = REJECTIONS[int(outcomes.results["rejection"][row])]
        rejections = [reason_of_native.value] if rejected and reason_of_native is not None else []
        logs = [] if rejected else list(outcomes.logs(row))
        yield entry, _compared(entry, state.root_after(difference), rejections, logs)


def _columns(entry: StateTestEntry) -> TransactionColumns | str:
    try:
        tx = entry.transaction()
        return TransactionColumns.from_transactions([tx], [recover_sender(tx)])
    except TransactionError as error:
        return str(error)


def _compared(entry: StateTestEntry, root: bytes, rejections: list[str], logs: list[Log]) -> Verdict:
    error = ""
    logs_hash = keccak256(rlp.encode([[log.address, list(log.topics), log.data] for log in logs]))
    if bool(rejections) != entry.must_reject:
        error = f"rejections are {rejections}"
    elif logs_hash != entry.expected_logs_hash:
        error = f"post state logs hash mismatch: got {logs_hash.hex()}, want {entry.expected_logs_hash.hex()}"
    elif root != entry.expected_root:
        error = f"post state root mismatch: got {root.hex()}, want {entry.expected_root.hex()}"
    return _verdict(entry, root, error)


def _verdict(entry: StateTestEntry, root: bytes, error: str) -> Verdict:
    return Verdict(entry.name, entry.context.fork.name.capitalize(), root, error)
