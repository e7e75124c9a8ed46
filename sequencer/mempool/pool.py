"""The mempool: transactions that wait for a block, under Ethereum's rules and geth's messages.

Owns admission against the state, replacement, eviction, expiry and the order in which a block takes them. Knows nothing
of JSON-RPC, of execution, or of how blocks are made. Used from one thread (the event loop's).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace

from core.hashing import keccak256
from core.state import EMPTY_ACCOUNT, StateReader
from core.transaction import Transaction, encode_transaction
from sequencer.errors import (
    AlreadyKnown,
    InsufficientFunds,
    NonceTooLow,
    ReplacementUnderpriced,
    SenderLimitExceeded,
    TransactionUnderpriced,
)
from sequencer.mempool.entry import PooledTransaction
from sequencer.mempool.limits import MempoolLimits
from sequencer.mempool.rules import check_transaction, decode_pooled, sender_of
from sequencer.mempool.sender_queue import SenderQueue
from sequencer.ports import Clock

__all__ = ["Mempool", "MempoolContent", "MempoolCounts"]

_STALE_BIDS_FACTOR = 2
_STALE_BIDS_MIN = 1_024

_Bid = tuple[int, int, int, bytes]


@dataclass(frozen=True, slots=True)
class MempoolCounts:
    """`pending` can be executed now, `queued` lies beyond a nonce gap."""

    pending: int
    queued: int


@dataclass(frozen=True, slots=True)
class MempoolContent:
    """One sender's transactions, each part by nonce."""

    sender: bytes
    pending: tuple[PooledTransaction, ...]
    queued: tuple[PooledTransaction, ...]


class Mempool:
    """Transactions waiting for a block.

    `add` admits or raises; `best` answers what the next block should take; `follow` is told of each new block.
    Whoever is in `on_admitted` hears of each admitted transaction.
    """

    def __init__(
        self, chain_id: int, state: StateReader, block_gas_limit: int, limits: MempoolLimits, clock: Clock
    ) -> None:
        self.limits = limits
        self.on_admitted: list[Callable[[PooledTransaction], None]] = []
        self._chain_id = chain_id
        self._state = state
        self._block_gas_limit = block_gas_limit
        self._clock = clock
        self._by_hash: dict[bytes, PooledTransaction] = {}
        self._senders: dict[bytes, SenderQueue] = {}
        self._cheapest: list[_Bid] = []
        self._size_bytes = 0
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._by_hash)

    def __contains__(self, transaction_hash: bytes) -> bool:
        return transaction_hash in self._by_hash

    def get(self, transaction_hash: bytes) -> PooledTransaction | None:
        """The waiting transaction of this hash."""
        return self._by_hash.get(transaction_hash)

    @property
    def size_bytes(self) -> int:
        """Encoded bytes of all that waits."""
        return self._size_bytes

    def add(self, raw: bytes) -> bytes:
        """Admit one encoded transaction and answer its hash.

        Raises MempoolError (see `sequencer.errors`), or TransactionError when `raw` is no transaction. Nothing has
        changed then.
        """
        tx = decode_pooled(raw, self.limits)
        transaction_hash = keccak256(raw)
        if transaction_hash in self._by_hash:
            raise AlreadyKnown("already known")
        check_transaction(tx, self._block_gas_limit, self.limits)
        sender = sender_of(tx, self._chain_id)
        assert encode_transaction(tx) == raw, "decoding is canonical"
        entry = PooledTransaction(
            transaction=tx,
            hash=transaction_hash,
            sender=sender,
            size_bytes=len(raw),
            cost=_cost(tx),
            arrival=self._arrivals,
            received_s=self._clock.monotonic_s(),
        )
        self._check_sender(entry)
        self._make_room(entry)
        self._insert(entry)
        for listener in self.on_admitted:
            listener(entry)
        return transaction_hash

    def next_nonce(self, sender: bytes) -> int:
        """The nonce that the sender's next transaction needs, after all that can be executed now."""
        queue = self._senders.get(sender)
        return queue.run_end if queue else (self._state.account(sender) or EMPTY_ACCOUNT).nonce

    def best(self, base_fee: int, *, gas_max: int, count_max: int, bytes_max: int) -> list[PooledTransaction]:
        """What the next block should take, in order: best tip first, each sender by nonce, arrival breaking ties.

        Gas limits sum up to at most `gas_max` and sizes to `bytes_max`, so that no chosen one can fail to fit.
        """
        runs = ((queue.run(), sender) for sender, queue in self._senders.items())
        heads = [
            (-first.tip_at(base_fee), first.arrival, sender, first, run)
            for run, sender in runs
            if (first := next(run, None)) and first.tip_at(base_fee) >= 0
        ]
        heapify(heads)
        chosen: list[PooledTransaction] = []
        while heads and len(chosen) < count_max:
            _, _, sender, entry, run = heads[0]
            if entry.transaction.gas_limit > gas_max or entry.size_bytes > bytes_max:
                heappop(heads)  # a smaller one of another sender may still fit
                continue
            gas_max -= entry.transaction.gas_limit
            bytes_max -= entry.size_bytes
            chosen.append(entry)
            following = next(run, None)
            if following and following.tip_at(base_fee) >= 0:
                heapreplace(heads, (-following.tip_at(base_fee), following.arrival, sender, following, run))
            else:
                heappop(heads)
        return chosen

    def drop(self, transaction_hash: bytes) -> None:
        """Take one out, if it is there (an executor refused it); those after it wait beyond the gap."""
        entry = self._by_hash.get(transaction_hash)
        if entry:
            self._senders[entry.sender].remove(entry.nonce)
            self._forget([entry])

    def follow(self, state: StateReader, changed: Iterable[bytes]) -> None:
        """Take over the state after a new block, in which the accounts `changed` are not what they were."""
        self._state = state
        for sender in changed:
            queue = self._senders.get(sender)
            if queue:
                self._forget(queue.rebase(state.account(sender) or EMPTY_ACCOUNT))
                self._release(sender)

    def expire(self) -> int:
        """Drop what has waited beyond a gap for too long; answers how many."""
        oldest_s = self._clock.monotonic_s() - self.limits.gapped_lifetime_s
        late = [entry for queue in self._senders.values() for entry in queue.gapped() if entry.received_s <= oldest_s]
        for entry in late:
            self.drop(entry.hash)
        return len(late)

    def counts(self) -> MempoolCounts:
        """How many wait, by whether they can be executed now."""
        queued = sum(queue.gapped_count for queue in self._senders.values())
        return MempoolCounts(len(self._by_hash) - queued, queued)

    def content(self) -> Iterator[MempoolContent]:
        """All that waits, by sender."""
        return (self.content_from(sender) for sender in sorted(self._senders))

    def content_from(self, sender: bytes) -> MempoolContent:
        """What this sender has waiting."""
        queue = self._senders.get(sender)
        if queue is None:
            return MempoolContent(sender, (), ())
        return MempoolContent(sender, tuple(queue.run()), tuple(queue.gapped()))

    def _check_sender(self, entry: PooledTransaction) -> None:
        account = self._state.account(entry.sender) or EMPTY_ACCOUNT
        if entry.nonce < account.nonce:
            raise NonceTooLow(f"nonce too low: next nonce {account.nonce}, tx nonce {entry.nonce}")
        balance, cost = account.balance, entry.cost
        if balance < cost:
            raise InsufficientFunds(
                "insufficient funds for gas * price + value: "
                f"balance {balance}, tx cost {cost}, overshot {cost - balance}"
            )
        queue = self._senders.get(entry.sender)
        if queue is None:
            return
        old = queue.get(entry.nonce)
        needed = queue.total_cost + cost - (old.cost if old else 0)
        if balance < needed:
            share = f"tx bumped {cost - old.cost}" if old else f"tx cost {cost}"
            raise InsufficientFunds(
                "insufficient funds for gas * price + value: "
                f"balance {balance}, queued cost {queue.total_cost}, {share}, overshot {needed - balance}"
            )
        if old and not entry.outbids(old, self.limits.price_bump_percent):
            raise ReplacementUnderpriced("replacement transaction underpriced")
        is_gapped = entry.nonce > queue.run_end
        if not old and (
            len(queue) >= self.limits.sender_transactions_max
            or (is_gapped and queue.gapped_count >= self.limits.sender_gapped_max)
        ):
            raise SenderLimitExceeded(f"account limit exceeded: pooled {len(queue)} txs")

    def _make_room(self, entry: PooledTransaction) -> None:
        """Evict the cheapest until `entry` fits. Nothing is evicted when it does not outbid them all."""
        queue = self._senders.get(entry.sender)
        replaced = queue.get(entry.nonce) if queue else None
        count = len(self._by_hash) + 1 - bool(replaced)
        size = self._size_bytes + entry.size_bytes - (replaced.size_bytes if replaced else 0)
        victims: list[PooledTransaction] = []
        taken: list[_Bid] = []
        while count > self.limits.transactions_max or size > self.limits.bytes_max:
            if not self._cheapest or self._cheapest[0] >= _bid(entry):
                for bid in taken:
                    heappush(self._cheapest, bid)
                raise TransactionUnderpriced("transaction underpriced")
            bid = heappop(self._cheapest)
            victim = self._by_hash.get(bid[3])
            if victim is None:
                continue
            taken.append(bid)
            if victim is not replaced:
                victims.append(victim)
                count, size = count - 1, size - victim.size_bytes
        for victim in victims:
            self.drop(victim.hash)

    def _insert(self, entry: PooledTransaction) -> None:
        queue = self._senders.get(entry.sender)
        if queue is None:
            account = self._state.account(entry.sender) or EMPTY_ACCOUNT
            queue = self._senders[entry.sender] = SenderQueue(account.nonce)
        replaced = queue.put(entry)
        if replaced:
            del self._by_hash[replaced.hash]
            self._size_bytes -= replaced.size_bytes
        self._by_hash[entry.hash] = entry
        self._size_bytes += entry.size_bytes
        self._arrivals += 1
        heappush(self._cheapest, _bid(entry))
        if len(self._cheapest) > _STALE_BIDS_FACTOR * len(self._by_hash) + _STALE_BIDS_MIN:
            self._cheapest = [_bid(one) for one in self._by_hash.values()]
            heapify(self._cheapest)

    def _forget(self, entries: list[PooledTransaction]) -> None:
        for entry in entries:
            del self._by_hash[entry.hash]
            self._size_bytes -= entry.size_bytes
            self._release(entry.sender)

    def _release(self, sender: bytes) -> None:
        queue = self._senders.get(sender)
        if queue is not None and not len(queue):
            del self._senders[sender]


def _cost(tx: Transaction) -> int:
    return tx.gas_limit * tx.max_fee_per_gas + tx.value


def _bid(entry: PooledTransaction) -> _Bid:
    # Cheapest first; of equals the newest, so that a newcomer never displaces an equal bid.
    tx = entry.transaction
    return (tx.max_fee_per_gas, tx.max_priority_fee_per_gas, -entry.arrival, entry.hash)
