"""One native executor for many threads: the same answers as for one."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from core.execution import BlockContext, CallRequest, CallResult, TransactionTrace
from core.fork import Fork
from core.memory_state import AccountContents, MemoryState
from core.state import StateReader
from core.transaction import Transaction, TransactionColumns, TransactionType
from worker.evm.native_executor import NativeExecutor

SENDER, CONTRACT = bytes([0xAA]) * 20, bytes([0xCC]) * 20
CONTEXT = BlockContext(Fork.CANCUN, 1, 10, 1000, 30_000_000, bytes([0xC0]) * 20, block_hashes=(bytes(32),) * 10)
# for (i = calldata[0]; i > 0; i--) slot 0 += i; return slot 0
SUM = bytes.fromhex("5f355b805f54015f556001900380600257" + "5f545f5260205ff3")
THREADS, ROUNDS = 4, 24


def state_with(count: int) -> MemoryState:
    return MemoryState({SENDER: AccountContents(balance=10**18), CONTRACT: AccountContents(1, 0, SUM, {0: count})})


def call(executor: NativeExecutor, turn: int) -> tuple[CallResult, TransactionTrace]:
    data = (turn % 7 + 1).to_bytes(32, "big")
    request = CallRequest(SENDER, CONTRACT, 1_000_000, data=data)
    state = state_with(turn % 3)
    trace = executor.trace_call(state, CONTEXT, request, struct_logs=True)
    return executor.call(state, CONTEXT, request), trace


def slot_after_block(executor: NativeExecutor, turn: int) -> int:
    data = (turn % 5 + 1).to_bytes(32, "big")
    message = Transaction(TransactionType.LEGACY, None, 0, 300_000, 0, 0, CONTRACT, 0, data, 0, 0, 0)
    columns = TransactionColumns.from_transactions([message], [SENDER])
    state = state_with(turn)
    outcome = executor.execute_block(state, CONTEXT, columns)
    executor.keep(outcome.difference, state.root_after(outcome.difference))
    return dict(outcome.difference.changes())[CONTRACT].storage[0]


def test_threads_that_share_an_executor_get_the_answers_of_one() -> None:
    shared = NativeExecutor()
    with ThreadPoolExecutor(THREADS) as threads:
        calls = [threads.submit(call, shared, turn) for turn in range(ROUNDS)]
        blocks = [threads.submit(slot_after_block, shared, turn) for turn in range(ROUNDS)]
        answers = [one.result() for one in calls]
        slots = [one.result() for one in blocks]
    alone = NativeExecutor()
    for turn, (result, trace) in enumerate(answers):
        expected, expected_trace = call(alone, turn)
        assert (result.output, result.gas_used, result.accessed) == (
            expected.output,
            expected.gas_used,
            expected.accessed,
        )
        total = turn % 3 + sum(range(1, turn % 7 + 2))
        assert result.output == trace.output == total.to_bytes(32, "big")
        assert trace == expected_trace
    assert slots == [turn + sum(range(1, turn % 5 + 2)) for turn in range(ROUNDS)]


def test_a_call_that_fails_costs_the_next_one_nothing() -> None:
    class Broken(MemoryState):
        def account(self, address: bytes) -> None:
            raise OSError("the disk is gone")

    executor = NativeExecutor()
    broken: StateReader = Broken({})
    with pytest.raises(OSError, match="the disk is gone"):
        executor.call(broken, CONTEXT, CallRequest(SENDER, CONTRACT, 1_000_000, nonce=0, data=bytes(31) + b"\1"))
    assert call(executor, 4)[0].output == call(NativeExecutor(), 4)[0].output
