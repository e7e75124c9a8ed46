"""The native engine's traces against the reference's, instruction by instruction and message by message.

Some things are told as geth tells them where EELS differs: what an instruction that failed would have cost (EELS adds
up charges in another order), refunds of EIP-7702 authorizations (geth counts them from the first instruction on), the
account whose code DELEGATECALL and CALLCODE run (EELS names the one that it delegates to), and why a precompiled
contract failed.
"""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from core.errors import BlockError, TransactionError
from core.execution import CallFrame, Executor, Halt, StructLog, TransactionTrace
from core.memory_state import MemoryState
from core.signature import recover_sender
from core.transaction import TransactionColumns, decode_transaction
from tests.conformance.state_tests import StateTest, context_of, read_accounts, read_state_tests
from tests.conformance.test_state_tests import ARCHIVES, SLOW_FAMILIES, STATE_TESTS
from tests.conformance.vectors import needs_vectors, read
from tests.differential.generator import generate
from worker.evm.native_executor import NativeExecutor
from worker.evm.reference import ReferenceExecutor

SAMPLE_SEED = 20261122
SAMPLE_FILES, ALL_FILES = 12, 300
FILE_BYTES_MAX = 3 << 20
GAS_MAX = 3_000_000
GENERATED_CASES = 40

NATIVE, REFERENCE = NativeExecutor(), ReferenceExecutor()


def sampled(archive: str, count: int) -> Iterator[StateTest]:
    choose = random.Random(f"traces {SAMPLE_SEED} {archive}")
    files = [
        (name, raw)
        for name, raw in read(STATE_TESTS / f"{archive}.tar.gz")
        if len(raw) < FILE_BYTES_MAX and not any(family in name for family in SLOW_FAMILIES)
    ]
    for name, raw in choose.sample(files, count):
        yield choose.choice(list(read_state_tests(name, raw)))


def trace_of(executor: Executor, test: StateTest, columns: TransactionColumns) -> TransactionTrace | None:
    state = MemoryState(read_accounts(test.test["pre"]))
    try:
        return executor.trace(state, context_of(test), columns, [0], struct_logs=True)[0]
    except BlockError:
        return None


def comparable_frame(frame: CallFrame) -> CallFrame:
    failed = frame.to is not None and int.from_bytes(frame.to, "big") < 0x200 and frame.halt == Halt.OUT_OF_GAS
    return replace(
        frame,
        to=None if frame.kind in ("DELEGATECALL", "CALLCODE") else frame.to,
        halt=Halt.PRECOMPILE if failed else frame.halt,
        calls=tuple(comparable_frame(call) for call in frame.calls),
    )


def comparable_log(log: StructLog, refund_before: int) -> StructLog:
    cost = 0 if log.halt != Halt.NONE else log.gas_cost
    failed_load = log.op_name == "SLOAD" and log.halt != Halt.NONE
    return replace(log, gas_cost=cost, refund=log.refund - refund_before, storage={} if failed_load else log.storage)


def assert_same(name: str, native: TransactionTrace, reference: TransactionTrace) -> int:
    refund_before = native.struct_logs[0].refund if native.struct_logs else 0
    assert len(native.struct_logs) == len(reference.struct_logs), name
    for place, (one, other) in enumerate(zip(native.struct_logs, reference.struct_logs, strict=True)):
        assert comparable_log(one, refund_before) == comparable_log(other, 0), f"{name}, instruction {place}"
    assert comparable_frame(native.frame) == comparable_frame(reference.frame), name
    for member in ("hash", "gas_used", "succeeded", "output"):
        assert getattr(native, member) == getattr(reference, member), name
    return len(native.struct_logs)


def compare_state_tests(archive: str, count: int) -> int:
    """The number of instructions compared."""
    instructions = 0
    for test in sampled(archive, count):
        try:
            tx = decode_transaction(bytes.fromhex(test.post["txbytes"][2:]))
            columns = TransactionColumns.from_transactions([tx], [recover_sender(tx)])
        except TransactionError:
            continue
        if tx.gas_limit > GAS_MAX:
            continue
        native, reference = (trace_of(executor, test, columns) for executor in (NATIVE, REFERENCE))
        assert (native is None) == (reference is None), test.name
        if native is not None and reference is not None:
            instructions += assert_same(test.name, native, reference)
    return instructions


@needs_vectors
@pytest.mark.parametrize("archive", ARCHIVES)
def test_sample(archive: str) -> None:
    assert compare_state_tests(archive, SAMPLE_FILES) > 20


@needs_vectors
@pytest.mark.conformance
@pytest.mark.parametrize("archive", ARCHIVES)
def test_many(archive: str) -> None:
    assert compare_state_tests(archive, ALL_FILES) > 20_000


def test_generated_programs() -> None:
    instructions = 0
    for seed in range(GENERATED_CASES):
        case = generate(seed)
        executed = REFERENCE.execute_transactions(case.state, case.context, case.transactions)
        rows = executed.included.tolist()
        traces = [
            executor.trace(case.state, case.context, case.transactions, rows, struct_logs=True)
            for executor in (NATIVE, REFERENCE)
        ]
        for native, reference in zip(*traces, strict=True):
            instructions += assert_same(f"seed {seed}", native, reference)
    assert instructions > 1_000
