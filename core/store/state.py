"""The state in LMDB: flat accounts and slots for execution, trie nodes for roots and proofs, code; versioned by block.

Owns the layout of these tables. Which block is the head, and what the log holds, is `core.store.replica`'s business.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.errors import StatePruned
from core.hashing import EMPTY_CODE_HASH, EMPTY_TRIE_ROOT, keccak256
from core.state import Account, AccountChange, StateDifference
from core.state_trie import ACCOUNTS_OWNER, AccountProof, StateUpdate, prove_account, update_state
from core.store.environment import Environment, Transaction
from core.store.versions import VersionedTables

__all__ = ["STATE_TABLES", "StateTables", "StateView", "StoredState"]

_VERSIONED = ("accounts", "slots", "nodes")
STATE_TABLES = (*_VERSIONED, "journal", "code", "kept")

_OLDEST = b"oldest"
_NUMBER = struct.Struct(">Q")


class StateTables:
    """Reads and writes of state inside a transaction of the caller's."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self._versions = VersionedTables(environment, _VERSIONED, "journal")
        self._code = environment.table("code")
        self._kept = environment.table("kept")

    def account(self, transaction: Transaction, number: int, address: bytes) -> Account | None:
        raw = self._versions.get(transaction, "accounts", address, number)
        return None if raw is None else _account_from_row(raw)

    def storage(self, transaction: Transaction, number: int, address: bytes, slot: int) -> int:
        raw = self._versions.get(transaction, "slots", _slot_key(address, slot), number)
        return 0 if raw is None else int.from_bytes(raw, "big")

    def node(self, transaction: Transaction, number: int, owner: bytes, path: str) -> bytes | None:
        return self._versions.get(transaction, "nodes", _node_key(owner, path), number)

    def root(self, transaction: Transaction, number: int) -> bytes:
        """The root of the accounts trie."""
        raw = self.node(transaction, number, ACCOUNTS_OWNER, "")
        return EMPTY_TRIE_ROOT if raw is None else keccak256(raw)

    def code(self, transaction: Transaction, code_hash: bytes) -> bytes | None:
        return self._code.get(transaction, code_hash)

    def accounts_from(self, transaction: Transaction, number: int, first: bytes) -> Iterator[tuple[bytes, Account]]:
        """Every account from address `first` on, ascending."""
        for address, raw in self._versions.keys_from(transaction, "accounts", first, b"", number):
            yield address, _account_from_row(raw)

    def slots_from(
        self, transaction: Transaction, number: int, address: bytes, first: int
    ) -> Iterator[tuple[int, int]]:
        """Every slot of an account from `first` on, ascending, with its value."""
        for key, raw in self._versions.keys_from(transaction, "slots", _slot_key(address, first), address, number):
            yield int.from_bytes(key[20:], "big"), int.from_bytes(raw, "big")

    def oldest(self, transaction: Transaction) -> int:
        """The number of the oldest state that can be read."""
        raw = self._kept.get(transaction, _OLDEST)
        return 0 if raw is None else int(_NUMBER.unpack(raw)[0])

    def apply(
        self,
        transaction: Transaction,
        number: int,
        difference: StateDifference,
        update: StateUpdate,
        *,
        journal: bool = True,
    ) -> None:
        """Write the state after block `number`: `update` is what `difference` does to the state before it."""
        writes: dict[str, dict[bytes, bytes]] = {"accounts": {}, "slots": {}, "nodes": {}}
        for address, account in update.accounts.items():
            writes["accounts"][address] = b"" if account is None else _account_row(account)
        cleared = set(update.cleared)
        for owner in cleared:
            gone = self._versions.keys_from(transaction, "nodes", _owner_key(owner), _owner_key(owner), number)
            writes["nodes"].update((key, b"") for key, _ in gone)
        for (owner, path), raw in update.nodes.items():
            writes["nodes"][_node_key(owner, path)] = raw or b""
        for address, change in difference.changes():
            if cleared and keccak256(address) in cleared:
                gone = self._versions.keys_from(transaction, "slots", address, address, number)
                writes["slots"].update((key, b"") for key, _ in gone)
            for slot, value in change.storage.items():
                writes["slots"][_slot_key(address, slot)] = value.to_bytes((value.bit_length() + 7) // 8, "big")
            if change.code is not None:
                self._code.put(transaction, keccak256(change.code), change.code)
        self._versions.put(transaction, number, writes, journal=journal)

    def keep_from(self, transaction: Transaction, number: int) -> None:
        """Drop every state before block `number`."""
        for pruned in range(self.oldest(transaction), number + 1):
            self._versions.prune(transaction, pruned)
        self.set_oldest(transaction, number)

    def set_oldest(self, transaction: Transaction, number: int) -> None:
        """Say that states from block `number` on can be read."""
        self._kept.put(transaction, _OLDEST, _NUMBER.pack(number))


@dataclass(frozen=True, slots=True)
class StateView:
    """A state inside one open transaction, for work that reads much; see `core.state_trie.StateNodes`."""

    tables: StateTables
    transaction: Transaction
    number: int

    def account(self, address: bytes) -> Account | None:
        return self.tables.account(self.transaction, self.number, address)

    def storage(self, address: bytes, slot: int) -> int:
        return self.tables.storage(self.transaction, self.number, address, slot)

    def node(self, owner: bytes, path: str) -> bytes | None:
        return self.tables.node(self.transaction, self.number, owner, path)


class StoredState:
    """The state after one block, a `core.state_trie.ProvableState`.

    It holds no transaction, so it may be kept as long as one likes. Once the store has dropped it, reads raise
    StatePruned; they never answer from another version.
    """

    def __init__(self, tables: StateTables, number: int, root: bytes) -> None:
        self.number = number
        self._tables = tables
        self._root = root
        self._newest_update: tuple[StateDifference, StateUpdate] | None = None

    @property
    def root(self) -> bytes:
        return self._root

    def account(self, address: bytes) -> Account | None:
        with self._tables.environment.read() as transaction:
            return self._view(transaction).account(address)

    def storage(self, address: bytes, slot: int) -> int:
        with self._tables.environment.read() as transaction:
            return self._view(transaction).storage(address, slot)

    def code(self, code_hash: bytes) -> bytes:
        if code_hash == EMPTY_CODE_HASH:
            return b""
        with self._tables.environment.read() as transaction:
            code = self._tables.code(transaction, code_hash)
        if code is None:
            raise KeyError(f"no account here has code with hash 0x{code_hash.hex()}")
        return code

    def root_after(self, difference: StateDifference) -> bytes:
        return self.update(difference).root

    def update(self, difference: StateDifference) -> StateUpdate:
        """What applying `difference` changes. The newest result is kept: sealing and appending a block ask the same."""
        newest = self._newest_update
        if newest is not None and newest[0] is difference:
            return newest[1]
        with self._tables.environment.read() as transaction:
            result = update_state(self._view(transaction), difference)
        self._newest_update = (difference, result)
        return result

    def proof(self, address: bytes, slots: Sequence[int]) -> AccountProof:
        with self._tables.environment.read() as transaction:
            view = self._view(transaction)
            return prove_account(view, address, {slot: view.storage(address, slot) for slot in slots})

    def chunks(self, chunk_bytes: int) -> Iterator[StateDifference]:
        """The whole state in order of address, in tables of about `chunk_bytes`, for a replica that joins.

        An account whose slots do not fit into one table continues in the next. Applied one after the other to an empty
        state, the tables give this state.
        """
        address, slot = bytes(20), 0
        while True:
            with self._tables.environment.read() as transaction:
                changes, following = self._chunk(transaction, address, slot, chunk_bytes)
            if changes:
                yield StateDifference.from_changes(changes)
            if following is None:
                return
            address, slot = following

    def _chunk(
        self, transaction: Transaction, first_address: bytes, first_slot: int, chunk_bytes: int
    ) -> tuple[dict[bytes, AccountChange], tuple[bytes, int] | None]:
        """Accounts and slots from here on until the chunk is full, and where the next chunk begins."""
        self._view(transaction)
        changes: dict[bytes, AccountChange] = {}
        size = 0
        for address, account in self._tables.accounts_from(transaction, self.number, first_address):
            if size >= chunk_bytes:
                return changes, (address, 0)
            code = None
            if account.code_hash != EMPTY_CODE_HASH:
                code = self._tables.code(transaction, account.code_hash)
            change = changes[address] = AccountChange(account, code=code)
            size += _ACCOUNT_BYTES + len(code or b"")
            if account.storage_root == EMPTY_TRIE_ROOT:
                continue
            start = first_slot if address == first_address else 0
            for slot, value in self._tables.slots_from(transaction, self.number, address, start):
                if size >= chunk_bytes:
                    return changes, (address, slot)
                change.storage[slot] = value
                size += _SLOT_BYTES
        return changes, None

    def _view(self, transaction: Transaction) -> StateView:
        oldest = self._tables.oldest(transaction)
        if self.number < oldest:
            raise StatePruned(f"the state of block {self.number} is no longer kept; the oldest is that of {oldest}")
        return StateView(self._tables, transaction, self.number)


_ACCOUNT_BYTES = 128
_SLOT_BYTES = 64


def _account_row(account: Account) -> bytes:
    """Nonce and balance, then the hashes where the account has code or storage."""
    row = account.nonce.to_bytes(8, "big") + account.balance.to_bytes(32, "big")
    if account.code_hash == EMPTY_CODE_HASH and account.storage_root == EMPTY_TRIE_ROOT:
        return row
    return row + account.code_hash + account.storage_root


def _account_from_row(row: bytes) -> Account:
    nonce, balance = int.from_bytes(row[:8], "big"), int.from_bytes(row[8:40], "big")
    return Account(nonce, balance, row[40:72], row[72:]) if len(row) > 40 else Account(nonce, balance)


def _slot_key(address: bytes, slot: int) -> bytes:
    return address + slot.to_bytes(32, "big")


def _owner_key(owner: bytes) -> bytes:
    return b"\0" if owner == ACCOUNTS_OWNER else b"\1" + owner


def _node_key(owner: bytes, path: str) -> bytes:
    return _owner_key(owner) + path.encode() + b"\0"
