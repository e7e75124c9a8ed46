"""The mempool's rules one by one, with geth's messages."""

import pytest

from core.errors import TransactionError
from core.gas import TRANSACTION_GAS_MAX
from core.memory_state import AccountContents, MemoryState
from core.transaction import TransactionType
from sequencer.errors import (
    AlreadyKnown,
    InsufficientFunds,
    NonceTooLow,
    ReplacementUnderpriced,
    SenderLimitExceeded,
    TransactionRefused,
    TransactionUnderpriced,
)
from sequencer.mempool import Mempool, MempoolLimits
from tests.unit.sequencer.fakes import CHAIN_ID, GWEI, ManualClock, Wallet, transfer

ALICE, BOB, CAROL = Wallet(1), Wallet(2), Wallet(3)
BLOCK_GAS = 30_000_000


def funded(nonces: dict[Wallet, int] | None = None, balance: int = 10**18) -> MemoryState:
    nonces = nonces or {}
    return MemoryState({one.address: AccountContents(nonces.get(one, 0), balance) for one in (ALICE, BOB, CAROL)})


def pool(
    limits: MempoolLimits | None = None, state: MemoryState | None = None, clock: ManualClock | None = None
) -> Mempool:
    return Mempool(CHAIN_ID, state or funded(), BLOCK_GAS, limits or MempoolLimits(), clock or ManualClock())


def chosen_nonces(mempool: Mempool, base_fee: int = GWEI) -> list[tuple[bytes, int]]:
    return [
        (one.sender, one.nonce) for one in mempool.best(base_fee, gas_max=BLOCK_GAS, count_max=1000, bytes_max=10**6)
    ]


def test_gaps_wait_until_they_are_filled() -> None:
    mempool = pool()
    mempool.add(ALICE.raw(transfer(1)))
    assert (mempool.counts().pending, mempool.counts().queued) == (0, 1)
    assert chosen_nonces(mempool) == []
    assert mempool.next_nonce(ALICE.address) == 0
    mempool.add(ALICE.raw(transfer(0)))
    assert (mempool.counts().pending, mempool.counts().queued) == (2, 0)
    assert chosen_nonces(mempool) == [(ALICE.address, 0), (ALICE.address, 1)]
    assert mempool.next_nonce(ALICE.address) == 2


def test_best_tip_first_and_each_sender_in_order() -> None:
    mempool = pool()
    mempool.add(ALICE.raw(transfer(0, max_priority_fee_per_gas=1)))
    mempool.add(ALICE.raw(transfer(1, max_priority_fee_per_gas=9 * GWEI)))
    mempool.add(BOB.raw(transfer(0, max_priority_fee_per_gas=5)))
    mempool.add(CAROL.raw(transfer(0, max_fee_per_gas=GWEI, max_priority_fee_per_gas=GWEI)))
    assert chosen_nonces(mempool, GWEI) == [
        (BOB.address, 0),
        (ALICE.address, 0),
        (ALICE.address, 1),
        (CAROL.address, 0),
    ]
    assert chosen_nonces(mempool, GWEI + 1)[-1] == (ALICE.address, 1), "Carol cannot pay this base fee"


def test_count_and_gas_limits_of_a_block() -> None:
    mempool = pool()
    for nonce in range(5):
        mempool.add(ALICE.raw(transfer(nonce)))
    mempool.add(BOB.raw(transfer(0, gas_limit=100_000, max_priority_fee_per_gas=2 * GWEI)))
    assert len(mempool.best(GWEI, gas_max=BLOCK_GAS, count_max=3, bytes_max=10**6)) == 3
    assert (
        sum(one.transaction.gas_limit for one in mempool.best(GWEI, gas_max=65_000, count_max=9, bytes_max=10**6))
        == 63_000
    )


def test_replacement_needs_ten_percent_more_on_both_fees() -> None:
    mempool = pool()
    first = mempool.add(ALICE.raw(transfer(0)))
    for fee, tip in ((11 * GWEI - 1, 2 * GWEI), (20 * GWEI, GWEI), (10 * GWEI, GWEI)):
        with pytest.raises(ReplacementUnderpriced, match=r"^replacement transaction underpriced$"):
            mempool.add(ALICE.raw(transfer(0, max_fee_per_gas=fee, max_priority_fee_per_gas=tip, value=2)))
    second = mempool.add(ALICE.raw(transfer(0, max_fee_per_gas=11 * GWEI, max_priority_fee_per_gas=11 * GWEI // 10)))
    assert first not in mempool
    assert second in mempool
    assert len(mempool) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"chain_id": 5}, f"invalid sender: invalid chain id for signer: have 5 want {CHAIN_ID}"),
        ({"gas_limit": 20_999}, "intrinsic gas too low: gas 20999, minimum needed 21000"),
        (
            {"gas_limit": 21_500, "data": b"\1" * 30},
            "insufficient gas for floor data gas cost: gas 21500, minimum needed 22200",
        ),
        ({"gas_limit": TRANSACTION_GAS_MAX + 1}, "transaction gas limit too high (cap: 16777216, tx: 16777217)"),
        ({"max_priority_fee_per_gas": 11 * GWEI}, "max priority fee per gas higher than max fee per gas"),
        ({"nonce": 2**64 - 1}, "nonce has max value"),
        (
            {"to": None, "data": b"\0" * 49_153, "gas_limit": 10**6},
            "max initcode size exceeded: code size 49153, limit 49152",
        ),
        ({"data": b"\0" * 131_072, "gas_limit": 10**7}, "oversized data: transaction size 131"),
        (
            {"type": TransactionType.SET_CODE, "gas_limit": 50_000},
            "set code tx must have at least one authorization tuple",
        ),
    ],
)
def test_refusals(fields: dict[str, object], message: str) -> None:
    mempool = pool()
    with pytest.raises(TransactionRefused) as refusal:
        mempool.add(ALICE.raw(transfer(**{"nonce": 0, **fields})))  # type: ignore[arg-type]
    assert message in str(refusal.value)
    assert len(mempool) == 0


def test_block_gas_limit() -> None:
    mempool = Mempool(CHAIN_ID, funded(), 50_000, MempoolLimits(), ManualClock())
    with pytest.raises(TransactionRefused, match=r"^exceeds block gas limit$"):
        mempool.add(ALICE.raw(transfer(0, gas_limit=50_001)))


def test_blob_transactions_are_refused_in_both_their_forms() -> None:
    with pytest.raises(TransactionRefused, match="transaction type not supported"):
        pool().add(b"\x03\xc0")


def test_garbage_is_a_typed_error() -> None:
    for raw in (b"", b"\x05", b"\xc1\x80", b"\x02\xc0", bytes(100)):
        with pytest.raises(TransactionError):
            pool().add(raw)


def test_known_and_used() -> None:
    mempool = pool(state=funded({ALICE: 3}))
    mempool.add(ALICE.raw(transfer(3)))
    with pytest.raises(AlreadyKnown, match=r"^already known$"):
        mempool.add(ALICE.raw(transfer(3)))
    with pytest.raises(NonceTooLow, match=r"^nonce too low: next nonce 3, tx nonce 2$"):
        mempool.add(ALICE.raw(transfer(2)))


def test_funds_must_cover_all_that_waits() -> None:
    cost = 21_000 * 10 * GWEI + 1
    mempool = pool(state=funded(balance=2 * cost))
    with pytest.raises(InsufficientFunds, match=rf"balance {2 * cost}, tx cost {2 * cost + 1}, overshot 1"):
        mempool.add(ALICE.raw(transfer(0, value=cost + 2)))
    mempool.add(ALICE.raw(transfer(0)))
    mempool.add(ALICE.raw(transfer(1)))
    with pytest.raises(InsufficientFunds, match=f"queued cost {2 * cost}, tx cost {cost}, overshot {cost}"):
        mempool.add(ALICE.raw(transfer(2)))
    with pytest.raises(InsufficientFunds, match="tx bumped"):
        mempool.add(ALICE.raw(transfer(1, max_fee_per_gas=11 * GWEI, max_priority_fee_per_gas=2 * GWEI)))


def test_sender_limits() -> None:
    limits = MempoolLimits(sender_transactions_max=3, sender_gapped_max=1)
    mempool = pool(limits)
    mempool.add(ALICE.raw(transfer(5)))
    with pytest.raises(SenderLimitExceeded):
        mempool.add(ALICE.raw(transfer(6)))
    mempool.add(ALICE.raw(transfer(0)))
    mempool.add(ALICE.raw(transfer(1)))
    with pytest.raises(SenderLimitExceeded, match="pooled 3 txs"):
        mempool.add(ALICE.raw(transfer(2)))


def test_full_pool_evicts_the_cheapest_and_refuses_what_is_cheaper() -> None:
    mempool = pool(MempoolLimits(transactions_max=2, sender_transactions_max=2, sender_gapped_max=1))
    cheap = mempool.add(ALICE.raw(transfer(0, max_fee_per_gas=2 * GWEI)))
    mempool.add(BOB.raw(transfer(0)))
    with pytest.raises(TransactionUnderpriced, match=r"^transaction underpriced$"):
        mempool.add(CAROL.raw(transfer(0, max_fee_per_gas=2 * GWEI)))
    assert cheap in mempool
    dear = mempool.add(CAROL.raw(transfer(0, max_fee_per_gas=3 * GWEI)))
    assert cheap not in mempool
    assert dear in mempool
    assert len(mempool) == 2


def test_follow_drops_what_was_done_or_cannot_be_paid() -> None:
    mempool = pool()
    for nonce in range(3):
        mempool.add(ALICE.raw(transfer(nonce)))
    after = funded({ALICE: 1})
    mempool.follow(after, [ALICE.address, BOB.address])
    assert chosen_nonces(mempool) == [(ALICE.address, 1), (ALICE.address, 2)]
    mempool.follow(funded({ALICE: 1}, balance=1), [ALICE.address])
    assert len(mempool) == 0
    assert list(mempool.content()) == []
    assert mempool.size_bytes == 0


def test_drop_leaves_later_ones_gapped() -> None:
    mempool = pool()
    hashes = [mempool.add(ALICE.raw(transfer(nonce))) for nonce in range(3)]
    mempool.drop(hashes[1])
    mempool.drop(bytes(32))
    assert chosen_nonces(mempool) == [(ALICE.address, 0)]
    content = mempool.content_from(ALICE.address)
    assert [one.nonce for one in content.queued] == [2]


def test_gapped_ones_expire_by_the_given_clock() -> None:
    clock = ManualClock()
    mempool = pool(MempoolLimits(gapped_lifetime_s=60), clock=clock)
    mempool.add(ALICE.raw(transfer(0)))
    mempool.add(ALICE.raw(transfer(2)))
    clock.now_s += 59
    assert mempool.expire() == 0
    clock.now_s += 1
    assert mempool.expire() == 1
    assert (mempool.counts().pending, mempool.counts().queued) == (1, 0)


def test_listeners_hear_of_admitted_ones_only() -> None:
    mempool = pool()
    heard: list[bytes] = []
    mempool.on_admitted.append(lambda entry: heard.append(entry.hash))
    admitted = mempool.add(ALICE.raw(transfer(0)))
    with pytest.raises(AlreadyKnown):
        mempool.add(ALICE.raw(transfer(0)))
    assert heard == [admitted]
