"""Columns: bytes and back, selection, concatenation, and hostile bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.columns import Columns, ColumnsError, int_from_limbs, limbs_from_int, limbs_from_ints
from core.receipts import Log, ReceiptColumns
from core.state import Account, AccountChange, StateDifference
from core.transaction import TransactionColumns
from tests.unit.core.strategies import addresses, transactions, u64s, u256s, words

logs = st.builds(Log, addresses, st.lists(words, max_size=4).map(tuple), st.binary(max_size=40))
receipts = st.lists(
    st.tuples(st.integers(0, 4), st.booleans(), u64s, st.lists(logs, max_size=3).map(tuple)), max_size=5
)
changes = st.builds(
    AccountChange,
    st.none() | st.builds(Account, u64s, u256s, words),
    st.dictionaries(u256s, u256s, max_size=4),
    st.booleans(),
    st.none() | st.binary(min_size=1, max_size=40),
)

transaction_tables = st.lists(transactions, max_size=5).flatmap(
    lambda txs: st.lists(addresses, min_size=len(txs), max_size=len(txs)).map(
        lambda senders: TransactionColumns.from_transactions(txs, senders)
    )
)
receipt_tables = receipts.map(ReceiptColumns.from_rows)
difference_tables = st.dictionaries(addresses, changes, max_size=5).map(StateDifference.from_changes)
tables = st.one_of(transaction_tables, receipt_tables, difference_tables)


@given(tables)
def test_bytes_and_back(table: Columns) -> None:
    raw = table.to_bytes()
    again = type(table).from_bytes(raw)
    assert again == table
    assert again.to_bytes() == raw
    assert len(again) == len(table)
    for ours, theirs in zip(table.arrays(), again.arrays(), strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)


@given(st.lists(transactions, max_size=5), st.data())
def test_rows_are_the_objects(txs: list, data: st.DataObject) -> None:  # type: ignore[type-arg]
    table = TransactionColumns.from_transactions(txs, [bytes(20)] * len(txs))
    assert [table.transaction(row) for row in range(len(txs))] == txs
    picked = data.draw(st.lists(st.integers(0, len(txs) - 1), max_size=6)) if txs else []
    assert [one for one in map(table.take(picked).transaction, range(len(picked)))] == [txs[row] for row in picked]
    cut = data.draw(st.integers(0, len(txs)))
    first, second = table.take(range(cut)), table.take(range(cut, len(txs)))
    assert TransactionColumns.concatenate([first, second]) == table


@given(receipts, st.data())
def test_receipts_are_their_rows(rows: list, data: st.DataObject) -> None:  # type: ignore[type-arg]
    table = ReceiptColumns.from_rows(rows)
    assert [table.logs(row) for row in range(len(rows))] == [own for *_, own in rows]
    picked = data.draw(st.permutations(range(len(rows))))
    assert table.take(picked) == ReceiptColumns.from_rows([rows[row] for row in picked])


@given(st.dictionaries(addresses, changes, max_size=5))
def test_a_difference_is_its_changes(held: dict[bytes, AccountChange]) -> None:
    for address, change in StateDifference.from_changes(held).changes():
        expected = held.pop(address)
        assert (change.storage, change.storage_cleared, change.code) == (
            expected.storage,
            expected.storage_cleared,
            expected.code,
        )
        if expected.account is None:
            assert change.account is None
        else:
            assert change.account is not None
            assert (change.account.nonce, change.account.balance, change.account.code_hash) == (
                expected.account.nonce,
                expected.account.balance,
                expected.account.code_hash,
            )
    assert not held


@given(tables, st.data())
def test_hostile_bytes_are_refused_or_mean_one_table(table: Columns, data: st.DataObject) -> None:
    """Flipping, cutting or adding bytes gives ColumnsError, or another table that is exactly these bytes."""
    raw = bytearray(table.to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    hostile = bytes(raw) + data.draw(st.sampled_from([b"", b"\0", bytes(8)]))
    try:
        again = type(table).from_bytes(hostile)
    except ColumnsError:
        return
    assert again.to_bytes() == hostile


@given(st.binary(max_size=400), st.sampled_from([TransactionColumns, ReceiptColumns, StateDifference]))
def test_noise_is_refused_or_means_one_table(raw: bytes, kind: type[Columns]) -> None:
    try:
        again = kind.from_bytes(raw)
    except ColumnsError:
        return
    assert again.to_bytes() == raw


def test_row_counts_beyond_memory_are_refused_at_once() -> None:
    for huge in (2**63, 2**64 - 1, 2**61, 2**40):
        counts = np.full(len(StateDifference._groups()), huge, "<u8").tobytes()
        with pytest.raises(ColumnsError):
            StateDifference.from_bytes(counts + bytes(64))


def test_an_optional_group_has_a_row_each_or_none() -> None:
    rows = [(0, True, 5, ()), (0, False, 6, ())]
    table = ReceiptColumns.from_rows(rows, [b"a" * 32, b"b" * 32])
    assert [root.tobytes() for root in table.take([1, 0]).post_state] == [b"b" * 32, b"a" * 32]
    with pytest.raises(ColumnsError, match="1 rows of post_state beside 2"):
        ReceiptColumns.from_rows(rows, [b"a" * 32])


def test_arrays_of_the_wrong_shape_are_named() -> None:
    good = ReceiptColumns.from_rows([(2, True, 5, ())])
    arrays = dict(zip([column.name for column in ReceiptColumns.LAYOUT], good.arrays(), strict=True))
    for name, wrong in {
        "gas_used": np.zeros(1, "<u4"),
        "succeeded": np.zeros(2, "u1"),
        "log_offsets": np.array([0, 1], "<u8"),
        "topic": np.zeros((0, 31), "u1"),
    }.items():
        with pytest.raises(ColumnsError, match=f"ReceiptColumns.{name}"):
            ReceiptColumns(**{**arrays, name: wrong})


@given(st.lists(u256s))
def test_limbs(values: list[int]) -> None:
    limbs = limbs_from_ints(values)
    assert [int_from_limbs(row) for row in limbs] == values
    assert all(np.array_equal(limbs_from_int(value), row) for value, row in zip(values, limbs, strict=True))
