"""What the native executor keeps from block to block: never wrong, and not brought twice."""

from dataclasses import replace

import pytest

from core.execution import BlockContext, ExecutionOutcome
from core.fork import Fork
from core.memory_state import AccountContents, MemoryState
from core.overlay import OverlaidState
from core.state import Account, AccountChange
from core.transaction import Transaction, TransactionColumns, TransactionType
from worker.evm.native_executor import NativeExecutor

SENDER, CONTRACT, COINBASE = bytes([0xAA]) * 20, bytes([0xCC]) * 20, bytes([0xC0]) * 20
CONTEXT = BlockContext(
    Fork.CANCUN, 1, 10, 1000, 30_000_000, COINBASE, base_fee_per_gas=7, block_hashes=(bytes(32),) * 10
)
# slot 0 += 1; return slot 0
COUNTER = bytes.fromhex("5f54600101805f555f5260205ff3")
# for (i = 40; i > 0; i--) BALANCE(i + 2^128) : forty accounts that nobody knows
MANY_ACCOUNTS = bytes.fromhex("60285b700100000000000000000000000000000000810131506001900380600257" + "00")


def state_with(code: bytes, count: int = 0) -> MemoryState:
    return MemoryState({SENDER: AccountContents(balance=10**18), CONTRACT: AccountContents(1, 0, code, {0: count})})


def execute(executor: NativeExecutor, state: MemoryState, nonce: int = 0) -> ExecutionOutcome:
    message = Transaction(TransactionType.LEGACY, None, nonce, 300_000, 10, 10, CONTRACT, 0, b"", 0, 0, 0)
    return executor.execute_block(state, CONTEXT, TransactionColumns.from_transactions([message], [SENDER]))


def slot_after(outcome: ExecutionOutcome) -> int:
    return dict(outcome.difference.changes())[CONTRACT].storage[0]


def test_a_sibling_starts_from_the_parent() -> None:
    executor, state = NativeExecutor(), state_with(COUNTER, 41)
    first, second = execute(executor, state), execute(executor, state)
    assert slot_after(first) == slot_after(second) == 42
    assert state.root_after(first.difference) == state.root_after(second.difference)


def test_a_kept_block_is_the_next_ones_parent() -> None:
    executor, state = NativeExecutor(), state_with(COUNTER, 41)
    for nonce in range(3):
        outcome = execute(executor, state, nonce)
        assert slot_after(outcome) == 42 + nonce
        state = state.apply(outcome.difference)
        executor.keep(outcome.difference, state.root)


def test_a_block_that_was_not_kept_is_forgotten() -> None:
    executor, state = NativeExecutor(), state_with(COUNTER, 41)
    following = state.apply(execute(executor, state).difference)
    assert slot_after(execute(executor, following, 1)) == 43  # nobody said that this root is the one it made
    reorganised = state_with(COUNTER, 6)
    assert slot_after(execute(executor, reorganised)) == 7


def test_only_the_last_difference_can_be_kept() -> None:
    executor, state = NativeExecutor(), state_with(COUNTER, 41)
    first = execute(executor, state)
    other = execute(executor, state_with(COUNTER, 6))
    following = state.apply(first.difference)
    executor.keep(first.difference, following.root)
    assert slot_after(execute(executor, following, 1)) == 43
    assert slot_after(other) == 7


def test_an_overlay_is_read_anew() -> None:
    executor, state = NativeExecutor(), state_with(COUNTER, 41)
    account = state.account(CONTRACT)
    assert account is not None
    overlaid = OverlaidState(state, {CONTRACT: AccountChange(replace(account), storage={0: 99})})
    message = Transaction(TransactionType.LEGACY, None, 0, 300_000, 10, 10, CONTRACT, 0, b"", 0, 0, 0)
    columns = TransactionColumns.from_transactions([message], [SENDER])
    for state_seen, expected in ((state, 42), (overlaid, 100), (state, 42)):
        assert slot_after(executor.execute_block(state_seen, CONTEXT, columns)) == expected


def test_an_account_is_brought_once_and_no_transaction_runs_twice_for_it() -> None:
    asked: list[bytes] = []

    class Counting(MemoryState):
        def account(self, address: bytes) -> Account | None:
            asked.append(address)
            return super().account(address)

    contents = {SENDER: AccountContents(balance=10**18), CONTRACT: AccountContents(1, 0, MANY_ACCOUNTS)}
    executor, state = NativeExecutor(), Counting(contents)
    asked.clear()
    outcome = execute(executor, state)
    unknown = [address for address in asked if address[:4] == bytes([0, 0, 0, 1])]
    assert (len(unknown), len(set(unknown))) == (40, 40)
    assert len(asked) == len(set(asked))
    asked.clear()
    assert execute(executor, state).gas_used == outcome.gas_used
    assert asked == []


def test_what_a_reader_raises_comes_through() -> None:
    class Broken(MemoryState):
        def storage(self, address: bytes, slot: int) -> int:
            raise OSError("the disk is gone")

    contents = {SENDER: AccountContents(balance=10**18), CONTRACT: AccountContents(1, 0, COUNTER, {0: 1})}
    executor = NativeExecutor()
    with pytest.raises(OSError, match="the disk is gone"):
        execute(executor, Broken(contents))
    assert slot_after(execute(executor, state_with(COUNTER, 41))) == 42
