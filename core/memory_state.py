"""A whole state held in memory: what tests, tools and small simulations put under an executor.

Owns nothing but dictionaries; a node's state is in `core.store`. Every version is immutable: `apply` makes a new one
that shares what did not change.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ethereum.forks.osaka.trie import Trie
from ethereum.forks.osaka.trie import root as eels_root
from ethereum_types.bytes import Bytes

from core import rlp
from core.hashing import EMPTY_TRIE_ROOT, keccak256
from core.state import Account, AccountChange, StateDifference

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
        items = {slot.to_bytes(32, "big"): rlp.encode(rlp.encode_int(value)) for slot, value in self.storage.items()}
        return Account(self.nonce, self.balance, keccak256(self.code), _secure_root(items))

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

    @cached_property
    def root(self) -> bytes:
        return _secure_root({address: _encode(one.account) for address, one in self.accounts.items()})

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


def _encode(account: Account) -> bytes:
    numbers = [rlp.encode_int(account.nonce), rlp.encode_int(account.balance)]
    return rlp.encode([*numbers, account.storage_root, account.code_hash])


def _secure_root(items: Mapping[bytes, bytes]) -> bytes:
    if not items:
        return EMPTY_TRIE_ROOT
    trie: Trie[Bytes, Bytes] = Trie(secured=True, default=b"")
    trie._data.update(items)
    return bytes(eels_root(trie))
