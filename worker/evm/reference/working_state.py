"""A state as EELS wants it, loaded on demand from a `StateReader`, and what became of it.

EELS keeps its state in dictionaries that it copies at every call. Here those dictionaries load an entry when it is
first read, and live for one transaction only, so that they stay small; `WorkingState` collects what each left.
Knows nothing of blocks or transactions.
"""

from collections.abc import Mapping
from typing import Any

from ethereum_types.bytes import Bytes20, Bytes32
from ethereum_types.numeric import U256, Uint

from core.hashing import EMPTY_CODE_HASH, EMPTY_TRIE_ROOT, keccak256
from core.state import Account, AccountChange, StateDifference, StateReader
from worker.evm.reference.rules import ForkRules

__all__ = ["WorkingState"]


class WorkingState:
    """`reader` and everything done to it so far. `open` lends a State to EELS, `fold` takes it back."""

    def __init__(self, reader: StateReader, rules: ForkRules) -> None:
        self._reader = reader
        self._rules = rules
        self._originals: dict[Bytes20, Account | None] = {}
        self._codes: dict[bytes, bytes] = {EMPTY_CODE_HASH: b""}
        self._accounts: dict[Bytes20, Any] = {}
        self._slots: dict[Bytes20, dict[Bytes32, U256]] = {}
        self._cleared: set[Bytes20] = set()

    def open(self) -> Any:
        """A State of the fork that shows this state; what is done to it counts once it is folded."""
        state = self._rules.state.State(
            _main_trie=self._rules.trie.Trie(True, None, _Accounts(self)), _storage_tries=_Storages(self)
        )
        state._snapshots = _Snapshots(self, state)
        return state

    def fold(self, state: Any) -> None:
        """Keep what was done to a State from `open`. Folding it once more changes nothing."""
        assert not state._snapshots, "a transaction is still open"
        self._accounts.update(state._main_trie._data)
        for address in state._storage_tries.cleared:
            self._cleared.add(address)
            self._slots[address] = {}
        for address, trie in state._storage_tries.items():
            self._slots.setdefault(address, {}).update(trie._data)

    def account(self, address: Bytes20) -> Any:
        """EELS's Account at this address, or None."""
        if address in self._accounts:
            return self._accounts[address]
        original = self._original(address)
        if original is None:
            return None
        return self._rules.account(Uint(original.nonce), U256(original.balance), self._code(original.code_hash))

    def storage(self, address: Bytes20, key: Bytes32) -> U256:
        """The value of a slot."""
        value = self._slots.get(address, {}).get(key)
        return U256(self._stored(address, key)) if value is None else value

    def has_storage(self, address: Bytes20) -> bool:
        """Whether anything is stored under this account.

        Where a block set every slot of a stored account to zero this still says yes. It is asked to find out whether a
        contract can be created at an address, and an account without code and nonce cannot have changed its storage.
        """
        if any(int(value) for value in self._slots.get(address, {}).values()):
            return True
        original = self._original(address)
        return address not in self._cleared and original is not None and original.storage_root != EMPTY_TRIE_ROOT

    def difference(self) -> StateDifference:
        """Every real change since `reader`, in canonical form."""
        changes = {}
        for address, account in self._accounts.items():
            change = self._change(address, account)
            if change is not None:
                changes[bytes(address)] = change
        return StateDifference.from_changes(changes)

    def _change(self, address: Bytes20, account: Any) -> AccountChange | None:
        before = self._original(address)
        had_storage = before is not None and before.storage_root != EMPTY_TRIE_ROOT
        cleared = had_storage and address in self._cleared
        if account is None:
            return None if before is None else AccountChange(None, storage_cleared=cleared)
        storage = {
            int.from_bytes(key, "big"): int(value)
            for key, value in self._slots.get(address, {}).items()
            if int(value) != self._stored(address, key)
        }
        new_code = None if before is not None and account.code == self._code(before.code_hash) else account.code
        code_hash = keccak256(account.code) if before is None or new_code is not None else before.code_hash
        after = Account(int(account.nonce), int(account.balance), code_hash)
        same = before is not None and (before.nonce, before.balance) == (after.nonce, after.balance)
        if same and new_code is None and not storage and not cleared:
            return None
        return AccountChange(after, storage, cleared, new_code or None)

    def _original(self, address: Bytes20) -> Account | None:
        if address not in self._originals:
            self._originals[address] = self._reader.account(bytes(address))
        return self._originals[address]

    def _stored(self, address: Bytes20, key: Bytes32) -> int:
        if address in self._cleared:
            return 0
        return self._reader.storage(bytes(address), int.from_bytes(key, "big"))

    def _code(self, code_hash: bytes) -> bytes:
        if code_hash not in self._codes:
            self._codes[code_hash] = self._reader.code(code_hash)
        return self._codes[code_hash]

    def new_storage_trie(self, address: Bytes20) -> Any:
        """EELS's Trie of what is stored under an account that has storage."""
        return self._rules.trie.Trie(True, U256(0), _Slots(self, address))


class _Accounts(dict[Bytes20, Any]):
    """The data of EELS's main trie: None stands for an account that does not exist."""

    def __init__(self, working: WorkingState) -> None:
        super().__init__()
        self._working = working

    def __missing__(self, address: Bytes20) -> Any:
        account = self[address] = self._working.account(address)
        return account

    def get(self, address: Bytes20, default: Any = None) -> Any:
        account = self[address]
        return default if account is None else account

    def __contains__(self, address: object) -> bool:
        return self[address] is not None  # type: ignore[index]

    def __delitem__(self, address: Bytes20) -> None:
        self[address] = None

    def __copy__(self) -> "_Accounts":
        copied = _Accounts(self._working)
        copied.update(self)
        return copied


class _Slots(dict[Bytes32, U256]):
    """The data of one storage trie whose account has storage below: every key is there, absent ones are zero."""

    def __init__(self, working: WorkingState, address: Bytes20) -> None:
        super().__init__()
        self._working = working
        self._address = address

    def __missing__(self, key: Bytes32) -> U256:
        value = self[key] = self._working.storage(self._address, key)
        return value

    def get(self, key: Bytes32, default: Any = None) -> U256:
        return self[key]

    def __contains__(self, key: object) -> bool:
        return True

    def __delitem__(self, key: Bytes32) -> None:
        self[key] = U256(0)

    def __eq__(self, other: object) -> bool:
        # EELS drops a trie that equals {}; how much is stored below is not known here, so this one is never dropped.
        return self is other

    def __copy__(self) -> "_Slots":
        copied = _Slots(self._working, self._address)
        copied.update(self)
        return copied


class _Storages(dict[Bytes20, Any]):
    """EELS's storage tries by address; `cleared` are the accounts whose storage below no longer counts."""

    def __init__(self, working: WorkingState, tries: Mapping[Bytes20, Any] | None = None) -> None:
        super().__init__(tries or {})
        self._working = working
        self.cleared: set[Bytes20] = set()

    def get(self, address: Bytes20, default: Any = None) -> Any:
        trie = super().get(address)
        if trie is None and address not in self.cleared and self._working.has_storage(address):
            trie = self[address] = self._working.new_storage_trie(address)
        return default if trie is None else trie

    def __contains__(self, address: object) -> bool:
        return self.get(address) is not None  # type: ignore[arg-type]

    def __delitem__(self, address: Bytes20) -> None:
        super().__delitem__(address)
        self.cleared.add(address)


class _Snapshots(list[Any]):
    """EELS's stack of snapshots. It copies the storage tries into a plain dictionary, which is made ours again here."""

    def __init__(self, working: WorkingState, state: Any) -> None:
        super().__init__()
        self._working = working
        self._state = state

    def append(self, snapshot: Any) -> None:
        main, tries = snapshot
        storages = _Storages(self._working, tries)
        storages.cleared = set(self._state._storage_tries.cleared)
        super().append((main, storages))
