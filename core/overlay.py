"""A state with changes laid over it: pending blocks, simulations, and the state overrides of eth_call.

Knows nothing of where the state below comes from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from core.hashing import EMPTY_CODE_HASH, EMPTY_TRIE_ROOT, keccak256
from core.memory_state import AccountContents, MemoryState
from core.state import EMPTY_ACCOUNT, Account, AccountChange, StateDifference, StateReader

__all__ = ["AccountOverride", "OverlaidState", "override_accounts"]


@dataclass(frozen=True, slots=True)
class AccountOverride:
    """What eth_call's third parameter may say of one account; None leaves a field as it is.

    `state` replaces the whole storage, `state_difference` only the slots that it names. Not both.
    """

    balance: int | None = None
    nonce: int | None = None
    code: bytes | None = None
    state: Mapping[int, int] | None = None
    state_difference: Mapping[int, int] | None = None

    def __post_init__(self) -> None:
        assert self.state is None or self.state_difference is None, "callers refuse an override with both"


class OverlaidState:
    """`base` with `changes` applied, as a `StateReader`. Immutable; overlaying an overlay does not nest.

    One thing a `StateReader` cannot tell: where some slots of an account's stored state change, `account` reports the
    storage root that `base` has (not empty either way). `root` and `root_after` are exact.
    """

    def __init__(self, base: StateReader, changes: Mapping[bytes, AccountChange] | StateDifference) -> None:
        if isinstance(changes, StateDifference):
            changes = dict(changes.changes())
        self._base: StateReader = base._base if isinstance(base, OverlaidState) else base
        below: Mapping[bytes, AccountChange] = base._changes if isinstance(base, OverlaidState) else {}
        self._changes: dict[bytes, AccountChange] = _merge(below, changes)
        self._codes = {
            change.account.code_hash: change.code
            for change in self._changes.values()
            if change.account is not None and change.code is not None
        }

    @property
    def root(self) -> bytes:
        return self._base.root_after(self.difference())

    def difference(self) -> StateDifference:
        """All that lies over the base. Entries that change nothing are kept."""
        return StateDifference.from_changes(self._changes)

    def account(self, address: bytes) -> Account | None:
        change = self._changes.get(address)
        if change is None:
            return self._base.account(address)
        if change.account is None:
            return None
        return replace(change.account, storage_root=self._storage_root(address, change))

    def storage(self, address: bytes, slot: int) -> int:
        change = self._changes.get(address)
        if change is not None:
            if slot in change.storage:
                return change.storage[slot]
            if change.storage_cleared or change.account is None:
                return 0
        return self._base.storage(address, slot)

    def code(self, code_hash: bytes) -> bytes:
        code = self._codes.get(code_hash)
        return self._base.code(code_hash) if code is None else code

    def root_after(self, difference: StateDifference) -> bytes:
        merged = _merge(self._changes, dict(difference.changes()))
        return self._base.root_after(StateDifference.from_changes(merged))

    def _storage_root(self, address: bytes, change: AccountChange) -> bytes:
        below = None if change.storage_cleared else self._base.account(address)
        if below is None or below.storage_root == EMPTY_TRIE_ROOT:
            alone = MemoryState({address: AccountContents(storage=change.storage)}).account(address)
            return EMPTY_TRIE_ROOT if alone is None else alone.storage_root
        return below.storage_root


def _merge(below: Mapping[bytes, AccountChange], above: Mapping[bytes, AccountChange]) -> dict[bytes, AccountChange]:
    """`above` after `below`, neither of which is touched."""
    merged = dict(below)
    for address, change in above.items():
        under = below.get(address)
        if under is None:
            merged[address] = change
        elif change.account is None:
            merged[address] = AccountChange(None, storage_cleared=True)
        else:
            replaced = change.storage_cleared or under.account is None
            code = change.code
            if code is None and under.account is not None and under.account.code_hash == change.account.code_hash:
                code = under.code
            merged[address] = AccountChange(
                account=change.account,
                storage=dict(change.storage) if replaced else {**under.storage, **change.storage},
                storage_cleared=change.storage_cleared or under.storage_cleared,
                code=code,
            )
    return merged


def override_accounts(base: StateReader, overrides: Mapping[bytes, AccountOverride]) -> OverlaidState:
    """`base` as a call with these state overrides sees it (geth's eth_call, third parameter)."""
    return OverlaidState(base, {address: _change(base, address, one) for address, one in overrides.items()})


def _change(base: StateReader, address: bytes, override: AccountOverride) -> AccountChange:
    before = base.account(address) or EMPTY_ACCOUNT
    code_hash, code = before.code_hash, override.code
    if code is not None:
        code_hash = keccak256(code) if code else EMPTY_CODE_HASH
    slots = override.state if override.state is not None else override.state_difference
    return AccountChange(
        account=Account(
            nonce=before.nonce if override.nonce is None else override.nonce,
            balance=before.balance if override.balance is None else override.balance,
            code_hash=code_hash,
        ),
        storage=dict(slots or {}),
        storage_cleared=override.state is not None,
        code=code,
    )
