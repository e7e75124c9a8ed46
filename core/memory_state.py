"""A whole state held in memory: what tests, tools and small simulations put under an executor.

Owns nothing but dictionaries; a node's state is in `core.store`. Every version is immutable: `apply` makes a new one
that shares what did not change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from core import rlp, trie
from core.hashing import keccak256
from core.state import Account, AccountChange, StateDifference
from core.state_trie import ACCOUNTS_OWNER, AccountProof, encode_account, prove_account

__all__ = ["AccountContents", "MemoryState"]


@dataclass(frozen=True)
class AccountContents:
    """Everything an account holds. `storage` maps slots to values; zeros are not kept."""

    nonce: int = 0
    balance: int = 0
    code: bytes = b""
    storage: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(self.storage.values()):
            nonzero = {slot: value for slot, value in self.storage.items() if value}
            object.__setattr__(self, "storage", nonzero)

    @cached_property
    def account(self) -> Account:
        """The account as the state trie stores it."""
        return Account(self.nonce, self.balance, keccak256(self.code), self._storage_trie.root)

    def node(self, path: str) -> bytes | None:
        """The node at `path` of the storage trie."""
        return self._storage_trie.nodes.get(path)

    @cached_property
    def _storage_trie(self) -> trie.TrieUpdate:
        return _secure_trie(
            {slot.to_bytes(32, "big"): rlp.encode_bytes(rlp.encode_int(value)) for slot, value in self.storage.items()}
        )

    def changed(self, change: AccountChange) -> "AccountContents":
        """These contents after `change`, which does not remove the account."""
        assert change.account is not None
        storage = {**({} if change.storage_cleared else self.storage), **change.storage}
        code = self.code if change.code is None else change.code
        if change.account.code_hash == keccak256(b""):
            code = b""
        return AccountContents(change.account.nonce, change.account.balance, code, storage)


class MemoryState:
    """A `StateReader` over a mapping of 20-byte addresses to contents.

    Accounts given explicitly exist even when they are empty, as some did before EIP-161.
    """

    def __init__(self, accounts: Mapping[bytes, AccountContents] | None = None) -> None:
        self.accounts: Mapping[bytes, AccountContents] = dict(accounts or {})

    @property
    def root(self) -> bytes:
        return self._accounts_trie.root

    @cached_property
    def _accounts_trie(self) -> trie.TrieUpdate:
        return _secure_trie({address: encode_account(one.account) for address, one in self.accounts.items()})

    @cached_property
    def _addresses(self) -> dict[bytes, bytes]:
        return {keccak256(address): address for address in self.accounts}

    @cached_property
    def _codes(self) -> dict[bytes, bytes]:
        return {one.account.code_hash: one.code for one in self.accounts.values()} | {keccak256(b""): b""}

    def account(self, address: bytes) -> Account | None:
        contents = self.accounts.get(address)
        return contents.account if contents else None

    def storage(self, address: bytes, slot: int) -> int:
        contents = self.accounts.get(address)
        return contents.storage.get(slot, 0) if contents else 0

    def code(self, code_hash: bytes) -> bytes:
        return self._codes[code_hash]

    def node(self, owner: bytes, path: str) -> bytes | None:
        """The node at `path` of the trie of `owner` (`core.state_trie.StateNodes`)."""
        if owner == ACCOUNTS_OWNER:
            return self._accounts_trie.nodes.get(path)
        address = self._addresses.get(owner)
        return None if address is None else self.accounts[address].node(path)

    def proof(self, address: bytes, slots: Sequence[int]) -> AccountProof:
        return prove_account(self, address, {slot: self.storage(address, slot) for slot in slots})

    def root_after(self, difference: StateDifference) -> bytes:
        return self.apply(difference).root

    def apply(self, difference: StateDifference) -> "MemoryState":
        """The state once `difference` is applied."""
        accounts = dict(self.accounts)
        for address, change in difference.changes():
            if change.account is None:
                accounts.pop(address, None)
            else:
                accounts[address] = accounts.get(address, AccountContents()).changed(change)
        return MemoryState(accounts)


def _secure_trie(items: Mapping[bytes, bytes]) -> trie.TrieUpdate:
    return trie.update(lambda _path: None, {keccak256(key): value for key, value in items.items()})
