"""What the mempool holds at most, each limit with its unit and its relation to the others."""

from dataclasses import dataclass

__all__ = ["MempoolLimits"]

_TRANSACTION_BYTES_MAX = 128 * 1024  # geth's txMaxSize: four slots of 32 KiB


@dataclass(frozen=True, slots=True)
class MempoolLimits:
    """Defaults suit one machine. `price_bump_percent` is what a replacement must add to both of its fees.

    `transactions_max` counts everything waiting. `sender_transactions_max` is one sender's share of it, of which
    `sender_gapped_max` may lie beyond a nonce gap. Gapped transactions are dropped after `gapped_lifetime_s`.
    """

    transactions_max: int = 65_536
    bytes_max: int = 256 * 1024 * 1024
    sender_transactions_max: int = 8_192
    sender_gapped_max: int = 1_024
    transaction_bytes_max: int = _TRANSACTION_BYTES_MAX
    price_bump_percent: int = 10
    tip_min_wei: int = 0
    gapped_lifetime_s: float = 3 * 60 * 60

    def __post_init__(self) -> None:
        assert 0 < self.sender_gapped_max <= self.sender_transactions_max <= self.transactions_max
        assert 0 < self.transaction_bytes_max <= self.bytes_max
        assert self.price_bump_percent > 0
        assert self.tip_min_wei >= 0
        assert self.gapped_lifetime_s > 0
