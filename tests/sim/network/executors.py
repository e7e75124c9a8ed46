"""Executors simple enough that a test knows what they must answer."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from core.execution import (
    BlockContext,
    CallRequest,
    CallResult,
    ExecutionOutcome,
    Rejection,
    RejectionReason,
    TransactionTrace,
)
from core.receipts import ReceiptColumns
from core.state import EMPTY_ACCOUNT, AccountChange, StateDifference, StateReader
from core.transaction import TransactionColumns

__all__ = ["LyingExecutor", "TransferExecutor"]

_TRANSFER_GAS = 21_000


class TransferExecutor:
    """Moves values and counts nonces; charges nothing. Enough to make states that differ when anything differs."""

    name = "transfers"

    def execute_block(
        self, state: StateReader, context: BlockContext, transactions: TransactionColumns
    ) -> ExecutionOutcome:
        accounts = {}
        included, rejections, rows = [], [], []
        for row in range(len(transactions)):
            tx = transactions.transaction(row)
            sender = transactions.sender[row].tobytes()
            for address in (sender, tx.to or sender):
                accounts.setdefault(address, state.account(address) or EMPTY_ACCOUNT)
            if accounts[sender].balance < tx.value or accounts[sender].nonce != tx.nonce:
                rejections.append(Rejection(row, RejectionReason.INSUFFICIENT_FUNDS, "cannot pay"))
                continue
            before = accounts[sender]
            accounts[sender] = replace(before, nonce=before.nonce + 1, balance=before.balance - tx.value)
            to = tx.to or sender
            accounts[to] = replace(accounts[to], balance=accounts[to].balance + tx.value)
            included.append(row)
            rows.append((int(tx.type), True, _TRANSFER_GAS, ()))
        changes = {
            address: AccountChange(account)
            for address, account in accounts.items()
            if account != (state.account(address) or EMPTY_ACCOUNT)
        }
        return ExecutionOutcome(
            np.array(included, "<u4"),
            tuple(rejections),
            ReceiptColumns.from_rows(rows),
            StateDifference.from_changes(changes),
            gas_used=_TRANSFER_GAS * len(included),
            blob_gas_used=0,
        )

    def execute_transactions(
        self, state: StateReader, context: BlockContext, transactions: TransactionColumns
    ) -> ExecutionOutcome:
        return self.execute_block(state, context, transactions)

    def call(self, state: StateReader, context: BlockContext, request: CallRequest) -> CallResult:
        raise AssertionError("no test calls")

    def trace(
        self,
        state: StateReader,
        context: BlockContext,
        transactions: TransactionColumns,
        rows: Sequence[int],
        *,
        struct_logs: bool,
    ) -> tuple[TransactionTrace, ...]:
        raise AssertionError("no test traces")

    def trace_transactions(
        self,
        state: StateReader,
        context: BlockContext,
        transactions: TransactionColumns,
        rows: Sequence[int],
        *,
        struct_logs: bool,
    ) -> tuple[TransactionTrace, ...]:
        raise AssertionError("no test traces")

    def trace_call(
        self, state: StateReader, context: BlockContext, request: CallRequest, *, struct_logs: bool
    ) -> TransactionTrace:
        raise AssertionError("no test traces")


class LyingExecutor(TransferExecutor):
    """Gives itself a coin from block `from_block` on."""

    name = "liar"

    def __init__(self, from_block: int = 0) -> None:
        self._from_block = from_block

    def execute_block(
        self, state: StateReader, context: BlockContext, transactions: TransactionColumns
    ) -> ExecutionOutcome:
        outcome = super().execute_block(state, context, transactions)
        if context.number < self._from_block:
            return outcome
        changes = dict(outcome.difference.changes())
        thief = b"\x66" * 20
        account = state.account(thief) or EMPTY_ACCOUNT
        changes[thief] = AccountChange(replace(account, balance=account.balance + 1))
        return replace(outcome, difference=StateDifference.from_changes(changes))
