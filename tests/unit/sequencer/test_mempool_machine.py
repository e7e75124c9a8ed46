"""Any sequence of admissions, blocks, drops and expiries keeps the mempool's invariants (hypothesis, stateful)."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from core.memory_state import AccountContents, MemoryState
from sequencer.errors import MempoolError
from sequencer.mempool import Mempool, MempoolLimits
from tests.unit.sequencer.fakes import CHAIN_ID, GWEI, ManualClock, Wallet, transfer

WALLETS = [Wallet(number) for number in range(3)]
LIMITS = MempoolLimits(transactions_max=6, sender_transactions_max=4, sender_gapped_max=2, gapped_lifetime_s=30)
BLOCK_GAS = 100_000


class MempoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.accounts = {one.address: AccountContents(0, 10**16) for one in WALLETS}
        self.mempool = Mempool(CHAIN_ID, MemoryState(self.accounts), BLOCK_GAS, LIMITS, self.clock)

    @rule(
        wallet=st.sampled_from(WALLETS),
        ahead=st.integers(-1, 5),
        fee=st.integers(1, 40),
        tip=st.integers(1, 40),
        gas=st.sampled_from([21_000, 60_000, 100_000]),
    )
    def submit(self, wallet: Wallet, ahead: int, fee: int, tip: int, gas: int) -> None:
        nonce = max(0, self.accounts[wallet.address].nonce + ahead)
        tx = transfer(nonce, max_fee_per_gas=fee * GWEI, max_priority_fee_per_gas=min(tip, fee) * GWEI, gas_limit=gas)
        before = {entry.hash for one in self.mempool.content() for entry in (*one.pending, *one.queued)}
        try:
            admitted = self.mempool.add(wallet.raw(tx))
        except MempoolError:
            after = {entry.hash for one in self.mempool.content() for entry in (*one.pending, *one.queued)}
            assert after == before, "a refusal changes nothing"
        else:
            assert admitted in self.mempool

    @rule(base_fee=st.integers(0, 20), count=st.integers(1, 4))
    def make_block(self, base_fee: int, count: int) -> None:
        chosen = self.mempool.best(base_fee * GWEI, gas_max=BLOCK_GAS, count_max=count, bytes_max=10**6)
        for entry in chosen:
            contents = self.accounts[entry.sender]
            assert entry.nonce == contents.nonce, "a block takes each sender's nonces in order, without a gap"
            self.accounts[entry.sender] = AccountContents(contents.nonce + 1, contents.balance - entry.cost)
        self.mempool.follow(MemoryState(self.accounts), {entry.sender for entry in chosen})
        assert all(entry.hash not in self.mempool for entry in chosen)

    @rule(wallet=st.sampled_from(WALLETS), balance=st.integers(0, 10**16))
    def rebalance(self, wallet: Wallet, balance: int) -> None:
        self.accounts[wallet.address] = AccountContents(self.accounts[wallet.address].nonce, balance)
        self.mempool.follow(MemoryState(self.accounts), [wallet.address])

    @rule(wallet=st.sampled_from(WALLETS), place=st.integers(0, 3))
    def refuse(self, wallet: Wallet, place: int) -> None:
        content = self.mempool.content_from(wallet.address)
        waiting = (*content.pending, *content.queued)
        if place < len(waiting):
            self.mempool.drop(waiting[place].hash)

    @rule(elapsed_s=st.integers(1, 40))
    def pass_time(self, elapsed_s: int) -> None:
        self.clock.now_s += elapsed_s
        self.mempool.expire()
        oldest_s = self.clock.now_s - LIMITS.gapped_lifetime_s
        assert all(entry.received_s > oldest_s for one in self.mempool.content() for entry in one.queued)

    @invariant()
    def limits_hold(self) -> None:
        assert len(self.mempool) <= LIMITS.transactions_max
        for one in self.mempool.content():
            assert len(one.pending) + len(one.queued) <= LIMITS.sender_transactions_max
            assert one.pending or one.queued, "no empty sender is kept"

    @invariant()
    def parts_agree(self) -> None:
        contents = list(self.mempool.content())
        entries = [entry for one in contents for entry in (*one.pending, *one.queued)]
        assert len(entries) == len(self.mempool)
        assert sum(entry.size_bytes for entry in entries) == self.mempool.size_bytes
        counts = self.mempool.counts()
        assert counts.pending == sum(len(one.pending) for one in contents)
        assert counts.queued == sum(len(one.queued) for one in contents)
        for one in contents:
            account = self.accounts[one.sender]
            first = account.nonce
            assert [entry.nonce for entry in one.pending] == list(range(first, first + len(one.pending)))
            assert all(entry.nonce > first + len(one.pending) for entry in one.queued)
            assert all(entry.cost <= account.balance for entry in (*one.pending, *one.queued))
            assert self.mempool.next_nonce(one.sender) == first + len(one.pending)

    @invariant()
    def order_is_by_tip(self) -> None:
        base_fee = 3 * GWEI
        chosen = self.mempool.best(base_fee, gas_max=10**9, count_max=100, bytes_max=10**6)
        heads: dict[bytes, int] = {}
        for entry in chosen:
            assert entry.tip_at(base_fee) >= 0
            heads.setdefault(entry.sender, entry.tip_at(base_fee))
        assert list(heads.values()) == sorted(heads.values(), reverse=True), "first of each sender, best tip first"


TestMempool = MempoolMachine.TestCase
TestMempool.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
