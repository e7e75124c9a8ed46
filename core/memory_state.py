"""A state held in dictionaries: the `StateReader` of tests, simulations and genesis blocks."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.hashing import EMPTY_CODE_HASH, EMPTY_TRIE_ROOT, keccak256
from core.state import Account, AccountChange, StateDifference
from core.state_trie import AccountProof, prove_account, update_state

__all__ = ["MemoryState"]


@dataclass(frozen=True, slots=True)
class MemoryState:
    """One version of a state; `after` gives the next one and leaves this one as it is."""

    root: bytes = EMPTY_TRIE_ROOT
    accounts: Mapping[bytes, Account] = field(default_factory=dict)
    slots: Mapping[bytes, Mapping[int, int]] = field(default_factory=dict)
    codes: Mapping[bytes, bytes] = field(default_factory=dict)
    nodes: Mapping[tuple[bytes, str], bytes] = field(default_factory=dict)

    @classmethod
    def from_changes(cls, changes: Mapping[bytes, AccountChange]) -> "MemoryState":
        """The state that holds exactly these accounts."""
        return cls().after(StateDifference.from_changes(changes))

    def account(self, address: bytes) -> Account | None:
        return self.accounts.get(address)

    def storage(self, address: bytes, slot: int) -> int:
        return self.slots.get(address, {}).get(slot, 0)

    def code(self, code_hash: bytes) -> bytes:
        return b"" if code_hash == EMPTY_CODE_HASH else self.codes[code_hash]

    def node(self, owner: bytes, path: str) -> bytes | None:
        return self.nodes.get((owner, path))

    def root_after(self, difference: StateDifference) -> bytes:
        return update_state(self, difference).root

    def proof(self, address: bytes, slots: list[int]) -> AccountProof:
        return prove_account(self, address, {slot: self.storage(address, slot) for slot in slots})

    def after(self, difference: StateDifference) -> "MemoryState":
        """The state once `difference` is applied."""
        update = update_state(self, difference)
        cleared = set(update.cleared)
        nodes = {key: raw for key, raw in self.nodes.items() if key[0] not in cleared}
        for key, raw in update.nodes.items():
            if raw is None:
                nodes.pop(key, None)
            else:
                nodes[key] = raw
        accounts, slots, codes = dict(self.accounts), dict(self.slots), dict(self.codes)
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
        return MemoryState(update.root, accounts, slots, codes, nodes)
