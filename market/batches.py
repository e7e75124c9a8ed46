"""Receipts settled together: their order, the root over them, and what the escrow is told of each.

On chain stand the root and, for every receipt, its job and what it pays (48 bytes; 22 more for each worker). Whoever
needs a receipt there shows it with its proof: the client that demands it, the worker that is asked for it, a challenger
that disputes it. market/contracts/JobEscrow.sol (`settleBatch`, `show`) is the twin. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from core.jobs.receipt import Receipt, ReceiptDomain
from core.jobs.request import Tier
from market.receipt_tree import leaf_of, proof_of, root_of
from protos.job_messages import Inclusion

__all__ = ["BATCH_RECEIPTS_MAX", "Batch"]

BATCH_RECEIPTS_MAX = 256
"""JobEscrow's constant: most receipts in one batch."""


@dataclass(frozen=True)
class Batch:
    """Receipts of one tier, each of another job, in the order of their leaves: workers one after another."""

    domain: ReceiptDomain
    receipts: tuple[Receipt, ...]

    def __post_init__(self) -> None:
        assert 0 < len(self.receipts) <= BATCH_RECEIPTS_MAX, "a batch has receipts, and no more than the escrow takes"
        assert len({one.tier for one in self.receipts}) == 1, "a batch waits out one challenge window"

    @classmethod
    def of(cls, domain: ReceiptDomain, receipts: Sequence[Receipt]) -> "Batch":
        """The batch of these receipts, in whatever order they come."""
        return cls(domain, tuple(sorted(receipts, key=lambda one: one.worker)))

    @property
    def tier(self) -> Tier:
        return self.receipts[0].tier

    @cached_property
    def root(self) -> bytes:
        """What is committed to."""
        return root_of(self._leaves)

    @property
    def payments(self) -> bytes:
        """What `settleBatch` takes: for each worker its address and number of receipts, then job and wei of each."""
        parts = []
        for worker, group in groupby(self.receipts, key=lambda one: one.worker):
            entries = [one.job_id + one.total_wei.to_bytes(16, "big") for one in group]
            parts += [worker, len(entries).to_bytes(2, "big"), *entries]
        return b"".join(parts)

    def inclusion(self, batch_id: int, job_id: bytes) -> Inclusion:
        """Where the receipt of a job of this batch is, once the escrow has given the batch its number."""
        index = next(place for place, one in enumerate(self.receipts) if one.job_id == job_id)
        return Inclusion(batch_id, index, proof_of(self._leaves, index))

    @cached_property
    def _leaves(self) -> list[bytes]:
        return [leaf_of(one.digest(self.domain)) for one in self.receipts]
