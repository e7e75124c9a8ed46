"""The waiting transactions of one sender, by nonce: a run that can be executed now, and what lies beyond a gap."""

from collections.abc import Iterator

from core.state import Account
from sequencer.mempool.entry import PooledTransaction

__all__ = ["SenderQueue"]


class SenderQueue:
    """Keeps at most one transaction for each nonce from the account's on.

    `account_nonce` is the chain's; nonces in [account_nonce, run_end) are all present and make the executable run.
    """

    __slots__ = ("_by_nonce", "account_nonce", "run_end", "total_cost")

    def __init__(self, account_nonce: int) -> None:
        self._by_nonce: dict[int, PooledTransaction] = {}
        self.account_nonce = account_nonce
        self.run_end = account_nonce
        self.total_cost = 0

    def __len__(self) -> int:
        return len(self._by_nonce)

    @property
    def gapped_count(self) -> int:
        """How many lie beyond a gap."""
        return len(self._by_nonce) - (self.run_end - self.account_nonce)

    def get(self, nonce: int) -> PooledTransaction | None:
        """The transaction waiting under this nonce."""
        return self._by_nonce.get(nonce)

    def put(self, entry: PooledTransaction) -> PooledTransaction | None:
        """Add `entry`; answers the one of the same nonce that it replaced."""
        assert entry.nonce >= self.account_nonce, "used nonces are refused before"
        replaced = self._by_nonce.get(entry.nonce)
        self._by_nonce[entry.nonce] = entry
        self.total_cost += entry.cost - (replaced.cost if replaced else 0)
        self._extend_run()
        return replaced

    def remove(self, nonce: int) -> None:
        """Take one out; those after it in the run are then beyond a gap."""
        entry = self._by_nonce.pop(nonce)
        self.total_cost -= entry.cost
        if self.account_nonce <= nonce < self.run_end:
            self.run_end = nonce

    def rebase(self, account: Account) -> list[PooledTransaction]:
        """Follow the chain: take out and answer what this account has done already or can no longer pay for."""
        gone = [
            entry for entry in self._by_nonce.values() if entry.nonce < account.nonce or entry.cost > account.balance
        ]
        for entry in gone:
            del self._by_nonce[entry.nonce]
            self.total_cost -= entry.cost
        self.account_nonce = self.run_end = account.nonce
        self._extend_run()
        return gone

    def run(self) -> Iterator[PooledTransaction]:
        """The executable ones, by nonce."""
        return (self._by_nonce[nonce] for nonce in range(self.account_nonce, self.run_end))

    def gapped(self) -> list[PooledTransaction]:
        """Those beyond a gap, by nonce."""
        return [self._by_nonce[nonce] for nonce in sorted(self._by_nonce) if nonce >= self.run_end]

    def _extend_run(self) -> None:
        while self.run_end in self._by_nonce:
            self.run_end += 1
