"""What an executor reads before a block and what it changes: the narrow seam between stores and executors.

A `StateReader` is one immutable version of the state. A `StateDifference` is what a block did to it, as columns.
Knows nothing of databases (`core.store`) or of the EVM.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from core.columns import Array, Column, Columns, limbs_from_ints
from core.hashing import EMPTY_CODE_HASH, EMPTY_TRIE_ROOT

__all__ = [
    "EMPTY_ACCOUNT",
    "Account",
    "AccountChange",
    "StateDifference",
    "StateReader",
]


@dataclass(frozen=True, slots=True)
class Account:
    """An account as the state trie stores it. `balance` is wei."""

    nonce: int
    balance: int
    code_hash: bytes = EMPTY_CODE_HASH
    storage_root: bytes = EMPTY_TRIE_ROOT


EMPTY_ACCOUNT = Account(0, 0)


class StateReader(Protocol):
    """One version of the state, read-only; stays consistent however long it is held.

    Addresses are 20 bytes; slots and values are integers in [0, 2^256).
    """

    @property
    def root(self) -> bytes:
        """The state trie's root, 32 bytes."""

    def account(self, address: bytes) -> Account | None:
        """The account, or None where there is none (EIP-161: empty accounts are absent)."""

    def storage(self, address: bytes, slot: int) -> int:
        """The value in a storage slot; 0 where nothing was written or the account does not exist."""

    def code(self, code_hash: bytes) -> bytes:
        """The code with this hash. A hash that some account names is always there; any other is a KeyError."""

    def root_after(self, difference: "StateDifference") -> bytes:
        """The root that the state has once `difference` is applied. Changes nothing."""


@dataclass(slots=True)
class AccountChange:
    """One account after a block, for building a difference.

    `storage` maps each written slot to its last value (0 removes it). `storage_cleared` says that everything stored
    before this block is gone (the account was destroyed, EIP-6780 or earlier). `account` is None when the account no
    longer exists; its `storage_root` is not read. `code` is set when the code is new in this block.
    """

    account: Account | None
    storage: dict[int, int] = field(default_factory=dict)
    storage_cleared: bool = False
    code: bytes | None = None


@dataclass(frozen=True, slots=True, eq=False)
class StateDifference(Columns):
    """Every account that a block changed, in ascending order of address, with its changed slots ascending.

    Only real changes count: an account or slot whose value after the block equals the one before is left out, so two
    executors that agree produce the same bytes. `storage_cleared` is set only where the account was destroyed and had
    storage before; then every slot that is not zero now is listed. `code` rows are the contracts deployed by the
    account of that row: `code_offsets` cuts `code` per account (empty where the code did not change).
    """

    address: Array
    exists: Array
    nonce: Array
    balance: Array
    code_hash: Array
    storage_cleared: Array
    slot_offsets: Array
    code_offsets: Array
    slot: Array
    value: Array
    code: Array

    LAYOUT: ClassVar[tuple[Column, ...]] = (
        Column("address", "account", "u1", (20,)),
        Column("exists", "account", "u1"),
        Column("nonce", "account"),
        Column("balance", "account", width=(4,)),
        Column("code_hash", "account", "u1", (32,)),
        Column("storage_cleared", "account", "u1"),
        Column("slot_offsets", "account", cuts="slot"),
        Column("code_offsets", "account", cuts="code"),
        Column("slot", "slot", width=(4,)),
        Column("value", "slot", width=(4,)),
        Column("code", "code", "u1"),
    )

    @classmethod
    def from_changes(cls, changes: Mapping[bytes, AccountChange]) -> "StateDifference":
        """Columns of these changes, brought into canonical order. The caller has left out what did not change."""
        rows = sorted(changes.items())
        accounts = [change.account or EMPTY_ACCOUNT for _, change in rows]
        slots = [sorted(change.storage.items()) for _, change in rows]
        codes = [change.code or b"" for _, change in rows]
        return cls(
            address=np.frombuffer(b"".join(address for address, _ in rows), "u1").reshape(-1, 20),
            exists=np.fromiter((change.account is not None for _, change in rows), "u1"),
            nonce=np.fromiter((account.nonce for account in accounts), "<u8"),
            balance=limbs_from_ints(account.balance for account in accounts),
            code_hash=np.frombuffer(b"".join(one.code_hash for one in accounts), "u1").reshape(-1, 32),
            storage_cleared=np.fromiter((change.storage_cleared for _, change in rows), "u1"),
            slot_offsets=np.cumsum([0, *map(len, slots)], dtype="<u8"),
            code_offsets=np.cumsum([0, *map(len, codes)], dtype="<u8"),
            slot=limbs_from_ints(slot for run in slots for slot, _ in run),
            value=limbs_from_ints(value for run in slots for _, value in run),
            code=np.frombuffer(b"".join(codes), "u1"),
        )

    def changes(self) -> Iterator[tuple[bytes, AccountChange]]:
        """The inverse of `from_changes`: address and change, ascending."""
        # Whole columns become Python objects at once: one array access an item would be ten times as slow.
        addresses, code_hashes, code = self.address.tobytes(), self.code_hash.tobytes(), self.code.tobytes()
        balances, slots, values = map(_ints_from_limbs, (self.balance, self.slot, self.value))
        nonces, exists, cleared = self.nonce.tolist(), self.exists.tolist(), self.storage_cleared.tolist()
        slot_offsets, code_offsets = self.slot_offsets.tolist(), self.code_offsets.tolist()
        for row in range(len(self)):
            run = slice(slot_offsets[row], slot_offsets[row + 1])
            account = Account(nonces[row], balances[row], code_hashes[32 * row : 32 * row + 32])
            yield (
                addresses[20 * row : 20 * row + 20],
                AccountChange(
                    account=account if exists[row] else None,
                    storage=dict(zip(slots[run], values[run], strict=True)),
                    storage_cleared=bool(cleared[row]),
                    code=code[code_offsets[row] : code_offsets[row + 1]] or None,
                ),
            )


def _ints_from_limbs(limbs: Array) -> list[int]:
    raw = limbs.tobytes()
    return [int.from_bytes(raw[at : at + 32], "little") for at in range(0, len(raw), 32)]
