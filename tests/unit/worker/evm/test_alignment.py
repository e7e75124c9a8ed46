"""Columns are views of records and messages, which begin at any address."""

import numpy as np
import pytest

from core.transaction import TransactionColumns
from tests.differential.generator import generate
from worker.evm.native_executor import NativeExecutor

SEED = 20


@pytest.mark.parametrize("shift", [1, 4, 8])
def test_columns_at_any_address_give_the_same_outcome(shift: int) -> None:
    case = generate(SEED)
    raw = case.transactions.to_bytes()
    moved = np.frombuffer(bytes(shift) + raw + bytes(16), "u1")[shift : shift + len(raw)]
    displaced = TransactionColumns.from_bytes(memoryview(moved))  # type: ignore[arg-type]
    executor = NativeExecutor()
    expected = executor.execute_transactions(case.state, case.context, case.transactions)
    outcome = executor.execute_transactions(case.state, case.context, displaced)
    assert outcome.difference == expected.difference
    assert outcome.receipts == expected.receipts
