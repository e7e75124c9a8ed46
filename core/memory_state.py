"""A whole state held in dictionaries: the `StateReader` of tests, tools, simulations and genesis blocks.

A node's state is in `core.store`. Every version is immutable: `apply` makes a new one and leaves this one as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from core.hashing import EMPTY_CODE_HASH, EMPTY_TRIE_ROOT, keccak256
from core.state import Account, AccountChange, StateDifference
from core.state_trie import AccountProof, prove_account, update_state

__all__ = ["AccountContents", "MemoryState"]


@dataclass(frozen=True, slots=True)
class AccountContents:
    """Everything an account holds. `storage` maps slots to values; zeros mean nothing."""

    nonce: int = 0
    balance: int = 0
    code: bytes = b""
    storage: Mapping[int, int] = field(default_factory=dict)

    def as_change(self) -> AccountChange:
        """The change that makes an account of these contents out of nothing."""
        account = Account(self.nonce, self.balance, keccak256(self.code))
        nonzero = {slot: value for slot, value in self.storage.items() if value}
        return AccountChange(account, nonzero, code=self.code or None)


class MemoryState:
    """One version of a state.

    Accounts given explicitly exist even when they are empty, as some did before EIP-161.
    """

    __slots__ = ("_accounts", "_codes", "_nodes", "_root", "_slots")

    def __init__(self, accounts: Mapping[bytes, AccountContents] | None = None) -> None:
        self._root = EMPTY_TRIE_ROOT
        self._accounts: Mapping[bytes, Account] = {}
        self._slots: Mapping[bytes, Mapping[int, int]] = {}
        self._codes: Mapping[bytes, bytes] = {EMPTY_CODE_HASH: b""}
        self._nodes: Mapping[tuple[bytes, str], bytes] = {}
        if accounts:
            changes = {address: contents.as_change() for address, contents in accounts.items()}
            self._become(StateDifference.from_changes(changes))

    @property
    def root(self) -> bytes:
        return self._root

    @property
    def accounts(self) -> Mapping[bytes, AccountContents]:
        """Every account that exists, with its contents."""
        return {
            address: AccountContents(one.nonce, one.balance, self._codes[one.code_hash], self._slots.get(address, {}))
            for address, one in self._accounts.items()
        }

    def account(self, address: bytes) -> Account | None:
        return self._accounts.get(address)

    def storage(self, address: bytes, slot: int) -> int:
        return self._slots.get(address, {}).get(slot, 0)

    def code(self, code_hash: bytes) -> bytes:
        return self._codes[code_hash]

    def node(self, owner: bytes, path: str) -> bytes | None:
        return self._nodes.get((owner, path))

    def root_after(self, difference: StateDifference) -> bytes:
        return update_state(self, difference).root

    def proof(self, address: bytes, slots: list[int]) -> AccountProof:
        return prove_account(self, address, {slot: self.storage(address, slot) for slot in slots})

    def apply(self, difference: StateDifference) -> Self:
        """The state with `difference` applied."""
        following = type(self).__new__(type(self))
        for name in MemoryState.__slots__:
            setattr(following, name, getattr(self, name))
        following._become(difference)
        return following

    def _become(self, difference: StateDifference) -> None:
        """Replace every mapping by its successor; only `__init__` and `apply` may, on an object nobody else has yet."""
        update = update_state(self, difference)
        cleared = set(update.cleared)
        nodes = {key: raw for key, raw in self._nodes.items() if key[0] not in cleared}
        for key, raw in update.nodes.items():
            if raw is None:
                nodes.pop(key, None)
            else:
                nodes[key] = raw
        accounts, slots, codes = dict(self._accounts), dict(self._slots), dict(self._codes)
        for address, change in difference.changes():
            account = update.accounts[address]
            accounts.pop(address, None)
            before = {} if change.storage_cleared else slots.get(address, {})
            slots.pop(address, None)
            if account is None:
                continue
            accounts[address] = account
            slots[address] = {slot: value for slot, value in {**before, **change.storage}.items() if value}
            if change.code is not None:
                codes[keccak256(change.code)] = change.code
        self._root, self._accounts, self._slots, self._codes, self._nodes = update.root, accounts, slots, codes, nodes
