"""What one transaction of instances mode did to the state, from its read and write sets.

Knows nothing of how it ran. Serial blocks get their difference from the base itself (`worker.evm.native_executor`).
"""

from core.columns import Array, int_from_limbs
from core.hashing import EMPTY_CODE_HASH, EMPTY_TRIE_ROOT
from core.state import EMPTY_ACCOUNT, Account, AccountChange, StateDifference, StateReader
from worker.evm.batch import Outcomes
from worker.evm.layouts import CODE_EMPTY, CODE_PRIVATE, EntryFlag, Status

__all__ = ["difference_of_instance"]

_EXECUTED = frozenset({Status.SUCCESS, Status.REVERTED, Status.HALTED})


def difference_of_instance(outcomes: Outcomes, row: int, state: StateReader, coinbase: bytes) -> StateDifference:
    """The difference that row `row` makes to `state`, on which it ran, fees to the coinbase included."""
    if Status(int(outcomes.results["status"][row])) not in _EXECUTED:
        return StateDifference.empty()
    entries = outcomes.accounts(row)
    changes = {one["address"].tobytes(): _account_change(outcomes, row, one, state) for one in entries}
    for slot in outcomes.slots(row):
        written = slot["flags"] & EntryFlag.WRITTEN and not slot["flags"] & EntryFlag.TRANSIENT
        if written and int_from_limbs(slot["value"]) != int_from_limbs(slot["original"]):
            change = changes[entries[int(slot["account"])]["address"].tobytes()]
            if change is not None and change.account is not None:
                change.storage[int_from_limbs(slot["key"])] = int_from_limbs(slot["value"])
    _pay(changes, state, coinbase, int_from_limbs(outcomes.results["coinbase_fee"][row]), entries)
    return StateDifference.from_changes(
        {address: change for address, change in changes.items() if change and _is_change(change, state, address)}
    )


def _account_change(outcomes: Outcomes, row: int, entry: Array, state: StateReader) -> AccountChange | None:
    """The account after the row; None where it was only read."""
    flags, code_number = int(entry["flags"]), int(entry["code"])
    if not flags & (EntryFlag.WRITTEN | EntryFlag.CREATED) and not flags & EntryFlag.LOADED:
        return None
    before = state.account(entry["address"].tobytes())
    if flags & EntryFlag.DESTROYED or not flags & EntryFlag.EXISTS:
        cleared = before is not None and before.storage_root != EMPTY_TRIE_ROOT
        return AccountChange(None, storage_cleared=cleared and bool(flags & EntryFlag.DESTROYED))
    code_hash, code = (before or EMPTY_ACCOUNT).code_hash, None
    if flags & EntryFlag.NEW_CODE and code_number & CODE_PRIVATE:
        code, code_hash = outcomes.code(row, entry)
    elif code_number == CODE_EMPTY:
        code_hash = EMPTY_CODE_HASH
    new_code = code if code_hash != (before or EMPTY_ACCOUNT).code_hash else None
    return AccountChange(Account(int(entry["nonce"]), int_from_limbs(entry["balance"]), code_hash), code=new_code)


def _pay(
    changes: dict[bytes, AccountChange | None], state: StateReader, coinbase: bytes, fee: int, entries: Array
) -> None:
    """Fees go to the coinbase last; if the row destroyed it, they go with it."""
    for entry in entries:
        if entry["address"].tobytes() == coinbase and entry["flags"] & EntryFlag.DESTROYED:
            return
    change = changes.get(coinbase)
    account = change.account if change else state.account(coinbase)
    account = account or EMPTY_ACCOUNT
    paid = Account(account.nonce, account.balance + fee, account.code_hash)
    empty = paid.nonce == 0 and paid.balance == 0 and paid.code_hash == EMPTY_CODE_HASH
    changes[coinbase] = change or AccountChange(None)
    change = changes[coinbase]
    assert change is not None
    change.account = None if empty else paid


def _is_change(change: AccountChange, state: StateReader, address: bytes) -> bool:
    before = state.account(address)
    if change.storage or change.storage_cleared or (before is None) != (change.account is None):
        return True
    if before is None or change.account is None:
        return False
    after = change.account
    return (before.nonce, before.balance, before.code_hash) != (after.nonce, after.balance, after.code_hash)
