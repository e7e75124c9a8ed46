"""Fees, headers and commitments, against the specification where it has the same function."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from ethereum.forks.bpo1.vm import gas as eels_bpo1
from ethereum.forks.osaka import fork as eels
from ethereum.forks.osaka.vm import gas as eels_gas
from ethereum_types.numeric import U64, Uint
from hypothesis import assume, given
from hypothesis import strategies as st

from core.block import Block, Header, header_hash
from core.chain import SealedBlock
from core.chain_rules import (
    BLOB_GAS,
    BLOCK_RLP_BYTES_MAX,
    blob_base_fee,
    check_block,
    context_of,
    excess_blob_gas_after,
    make_block,
    next_base_fee,
    next_context,
    requests_hash_of,
    validate_header,
)
from core.errors import BlockError
from core.execution import BlockContext, ExecutionOutcome, Rejection, RejectionReason, Withdrawal
from core.fork import ChainConfig, Fork
from core.memory_state import MemoryState
from core.receipts import Log, ReceiptColumns
from core.state import Account, AccountChange, StateDifference
from core.transaction import TransactionColumns, decode_transaction
from tests.unit.core.store.chains import ADDRESSES, make_genesis
from tests.unit.core.test_transaction import FEES, signed

GENESIS = make_genesis()
PARENT = GENESIS.block.block.header
WITHDRAWALS = (Withdrawal(1, 2, ADDRESSES[1], 3),)


@given(st.integers(5_000, 2**40), st.integers(0, 2**40), st.integers(7, 2**60))
def test_base_fee_is_the_specifications(gas_limit: int, gas_used: int, fee: int) -> None:
    assume(gas_used <= gas_limit)
    parent = replace(PARENT, gas_limit=gas_limit, gas_used=gas_used, base_fee_per_gas=fee)
    expected = eels.calculate_base_fee_per_gas(Uint(gas_limit), Uint(gas_limit), Uint(gas_used), Uint(fee))
    assert next_base_fee(parent) == int(expected)


@given(st.integers(0, 200), st.integers(0, 9), st.integers(1, 10**12))
def test_blob_fees_are_the_specifications(excess_blobs: int, used_blobs: int, fee: int) -> None:
    excess, used = excess_blobs * BLOB_GAS, used_blobs * BLOB_GAS
    assert blob_base_fee(excess, Fork.OSAKA) == int(eels_gas.calculate_blob_gas_price(U64(excess)))
    assert blob_base_fee(excess, Fork.BPO1) == int(eels_bpo1.calculate_blob_gas_price(U64(excess)))
    parent = replace(PARENT, excess_blob_gas=excess, blob_gas_used=used, base_fee_per_gas=fee)
    stand_in = object.__new__(eels.Header)
    for name, value in (
        ("excess_blob_gas", U64(excess)),
        ("blob_gas_used", U64(used)),
        ("base_fee_per_gas", Uint(fee)),
    ):
        object.__setattr__(stand_in, name, value)
    assert excess_blob_gas_after(parent, Fork.OSAKA) == int(eels_gas.calculate_excess_blob_gas(stand_in))


def test_requests() -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert requests_hash_of(()).hex() == requests_hash_of((b"\0", b"\1")).hex() == empty
    assert requests_hash_of((b"\0a",)) != requests_hash_of((b"\1a",))


def made() -> tuple[SealedBlock, BlockContext, ExecutionOutcome, MemoryState]:
    """A block on the genesis of one of two candidates, with a log, a request and a withdrawal."""
    state = MemoryState().apply(GENESIS.difference)
    context = next_context(
        PARENT,
        GENESIS.config,
        [GENESIS.block.hash],
        timestamp=PARENT.timestamp,
        coinbase=ADDRESSES[0],
        withdrawals=WITHDRAWALS,
    )
    candidates = TransactionColumns.from_transactions(
        [decode_transaction(signed(type=2, **FEES, nonce=nonce)) for nonce in range(2)], [ADDRESSES[0]] * 2
    )
    outcome = ExecutionOutcome(
        included=np.array([1], "<u4"),
        rejections=(Rejection(0, RejectionReason.NONCE_TOO_LOW, "because"),),
        receipts=ReceiptColumns.from_rows([(2, True, 30_000, (Log(ADDRESSES[2], (b"t" * 32,), b"d"),))]),
        difference=StateDifference.from_changes({ADDRESSES[0]: AccountChange(Account(1, 5))}),
        gas_used=30_000,
        blob_gas_used=0,
        requests=(b"\0r",),
    )
    return make_block(GENESIS.block, context, candidates, outcome, state), context, outcome, state


def test_a_made_block_follows_its_parent_and_its_outcome() -> None:
    sealed, context, outcome, state = made()
    header = sealed.block.header
    validate_header(header, PARENT, GENESIS.config)
    assert len(sealed.block.transactions) == 1
    assert sealed.block.transactions.nonce.tolist() == [1]
    assert header.base_fee_per_gas == next_base_fee(PARENT) == 875_000_000
    again = context_of(header, GENESIS.config, [GENESIS.block.hash], withdrawals=WITHDRAWALS)
    assert again == context
    check_block(sealed, context, replace(outcome, rejections=()), state)


WRONG_HEADERS: list[tuple[str, Callable[[Header], Header]]] = [
    ("parent_hash", lambda header: replace(header, parent_hash=bytes(32))),
    ("number", lambda header: replace(header, number=2)),
    ("timestamp", lambda header: replace(header, timestamp=0)),
    ("extra_data", lambda header: replace(header, extra_data=bytes(33))),
    ("gas_used", lambda header: replace(header, gas_used=header.gas_limit + 1)),
    ("gas_limit", lambda header: replace(header, gas_limit=header.gas_limit + header.gas_limit // 1024)),
    ("gas_limit", lambda header: replace(header, gas_limit=header.gas_limit - header.gas_limit // 1024)),
    ("base_fee_per_gas", lambda header: replace(header, base_fee_per_gas=875_000_001)),
    ("difficulty", lambda header: replace(header, difficulty=1)),
    ("nonce", lambda header: replace(header, nonce=b"\1" * 8)),
    ("ommers_hash", lambda header: replace(header, ommers_hash=bytes(32))),
    ("excess_blob_gas", lambda header: replace(header, excess_blob_gas=1)),
    ("requests_hash", lambda header: replace(header, requests_hash=None)),
]


@pytest.mark.parametrize(("field", "change"), WRONG_HEADERS)
def test_a_header_that_may_not_follow(field: str, change: Callable[[Header], Header]) -> None:
    header = made()[0].block.header
    with pytest.raises(BlockError, match=f"^{field} "):
        validate_header(change(header), PARENT, GENESIS.config)


@pytest.mark.parametrize(
    "field",
    ["state_root", "transactions_root", "receipts_root", "logs_bloom", "gas_used", "withdrawals_root", "requests_hash"],
)
def test_a_block_that_is_not_what_execution_gave(field: str) -> None:
    sealed, context, outcome, state = made()
    wrong = 1 if field == "gas_used" else bytes(256 if field == "logs_bloom" else 32)
    header = replace(sealed.block.header, **{field: wrong})
    lying = SealedBlock(header_hash(header), replace(sealed.block, header=header))
    with pytest.raises(BlockError, match=f"^{field} is "):
        check_block(lying, context, replace(outcome, rejections=()), state)


def test_other_reasons_to_refuse_a_block() -> None:
    sealed, context, outcome, state = made()
    with pytest.raises(BlockError, match="transaction 0 may not be included: nonce_too_low: because"):
        check_block(sealed, context, outcome, state)
    outcome = replace(outcome, rejections=())
    with pytest.raises(BlockError, match=r"^hash is "):
        check_block(SealedBlock(bytes(32), sealed.block), context, outcome, state)
    ommer = replace(sealed.block, ommers=(sealed.block.header,))
    with pytest.raises(BlockError, match=r"^ommers_hash is "):
        check_block(SealedBlock(sealed.hash, ommer), context, outcome, state)
    huge = decode_transaction(signed(type=2, **FEES, data=bytes(BLOCK_RLP_BYTES_MAX)))
    header = sealed.block.header
    block = Block(header, TransactionColumns.from_transactions([huge], [ADDRESSES[0]]), (), WITHDRAWALS)
    with pytest.raises(BlockError, match="EIP-7934"):
        check_block(SealedBlock(header_hash(header), block), context, outcome, state)


def test_blocks_before_paris_are_not_made() -> None:
    config = ChainConfig.from_geth({"chainId": 1, "londonBlock": 0})
    with pytest.raises(BlockError, match="LONDON"):
        next_context(PARENT, config, (), timestamp=5, coinbase=bytes(20))
