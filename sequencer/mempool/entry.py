"""One waiting transaction with what the mempool needs to know of it."""

from dataclasses import dataclass

from core.transaction import Transaction

__all__ = ["PooledTransaction"]


@dataclass(frozen=True, slots=True)
class PooledTransaction:
    """`cost` is the most it can take from its sender (wei); `arrival` counts admissions; `received_s` is monotonic."""

    transaction: Transaction
    hash: bytes
    sender: bytes
    size_bytes: int
    cost: int
    arrival: int
    received_s: float

    @property
    def nonce(self) -> int:
        return self.transaction.nonce

    def tip_at(self, base_fee: int) -> int:
        """Wei per gas that the block's producer gets; negative when it cannot pay the base fee."""
        tx = self.transaction
        return min(tx.max_fee_per_gas - base_fee, tx.max_priority_fee_per_gas)

    def outbids(self, other: "PooledTransaction", bump_percent: int) -> bool:
        """Whether it may replace `other`: both fees are higher, by `bump_percent` at least (rounded down, as geth)."""
        mine, theirs = self.transaction, other.transaction
        pairs = (
            (mine.max_fee_per_gas, theirs.max_fee_per_gas),
            (mine.max_priority_fee_per_gas, theirs.max_priority_fee_per_gas),
        )
        return all(new > old and new >= old * (100 + bump_percent) // 100 for new, old in pairs)
