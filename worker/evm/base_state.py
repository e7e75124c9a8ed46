"""The state that a batch reads: tables of accounts, slots and codes in native memory.

A *world* is one state among several in the same tables, so that unrelated states can be run side by side. Owns the
native tables' lifetime. Knows nothing of transactions.
"""

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.columns import Array, limbs_from_ints
from worker.evm import library
from worker.evm.layouts import ACCOUNT_RECORD, SLOT_RECORD, AccountFlag, World

__all__ = ["BaseState", "Changes", "pointer"]


def pointer(array: Array) -> int:
    """Address of a C-contiguous array's first byte."""
    assert array.flags.c_contiguous
    return int(array.ctypes.data)


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """What serial runs changed: account records before and after, hashes of codes after, slots, their old values."""

    before: Array
    after: Array
    code_hashes: Array
    records: Array
    slots: Array
    slots_before: Array


class BaseState:
    """Tables of known accounts, slots and codes. Numbers of accounts and codes stay valid as the tables grow.

    `version` grows with every change made through this object. With `accounts_complete`, an account that was never
    added does not exist; without, it is unknown, and a transaction that needs it parks with a request.
    """

    def __init__(self, *, accounts_complete: bool, single_step: bool = False) -> None:
        self._library = library.load()
        self.accounts_complete = accounts_complete
        self.single_step = single_step
        self.version = 0
        self.handle = ctypes.c_void_p(self._library.warpgrid_evm_base_create(single_step))

    def __del__(self) -> None:
        if handle := self.__dict__.pop("handle", None):
            self._library.warpgrid_evm_base_destroy(handle)

    def add_codes(self, codes: Sequence[bytes]) -> int:
        """Add codes; the number of the first. They are decoded for execution here. Number 0 is the empty code."""
        self.version += 1
        blob = np.frombuffer(b"".join(codes) or b"\0", "u1")
        offsets = np.cumsum([0, *map(len, codes)], dtype="<u8")
        return int(self._library.warpgrid_evm_base_add_codes(self.handle, len(codes), pointer(blob), pointer(offsets)))

    def add_accounts(
        self, worlds: Array, addresses: Array, nonces: Array, balances: Array, codes: Array, flags: Array
    ) -> Array:
        """Add or overwrite accounts, given as columns; u32[n] of their record numbers. Flags are AccountFlag."""
        self.version += 1
        columns = [
            np.ascontiguousarray(column, dtype)
            for column, dtype in zip(
                (worlds, addresses, nonces, balances, codes, flags),
                ("<u4", "u1", "<u8", "<u8", "<u4", "<u4"),
                strict=True,
            )
        ]
        records = np.zeros(len(columns[0]), "<u4")
        self._library.warpgrid_evm_base_add_accounts(
            self.handle, len(records), *(pointer(column) for column in columns), pointer(records)
        )
        return records

    def add_slots(self, accounts: Array, keys: Array, values: Array) -> None:
        """Add or overwrite slots: record numbers of their accounts, u64[n, 4] keys and values."""
        self.version += 1
        accounts, keys, values = (
            np.ascontiguousarray(column, dtype)
            for column, dtype in zip((accounts, keys, values), ("<u4", "<u8", "<u8"), strict=True)
        )
        self._library.warpgrid_evm_base_add_slots(
            self.handle, len(accounts), pointer(accounts), pointer(keys), pointer(values)
        )

    def add_account(
        self,
        address: bytes,
        *,
        world: int = 0,
        nonce: int = 0,
        balance: int = 0,
        code: int = 0,
        storage: Mapping[int, int] | None = None,
        flags: AccountFlag = AccountFlag.EXISTS,
    ) -> int:
        """Add one account with these slots; its record number. `code` is a number from `add_codes`."""
        record = self.add_accounts(
            np.array([world]),
            np.frombuffer(address, "u1").reshape(1, 20),
            np.array([nonce], "<u8"),
            limbs_from_ints([balance]),
            np.array([code]),
            np.array([int(flags)]),
        )
        if storage:
            owners = np.full(len(storage), record[0], "<u4")
            self.add_slots(owners, limbs_from_ints(storage.keys()), limbs_from_ints(storage.values()))
        return int(record[0])

    def put_account(self, address: bytes, nonce: int, balance: int, code: int, flags: int, *, world: int = 0) -> int:
        """`add_account` without slots, for one account at a time: ten times as quick."""
        self.version += 1
        wei = balance.to_bytes(32, "little")
        put = self._library.warpgrid_evm_base_put_account
        return int(put(self.handle, world, address, nonce, wei, code, flags))

    def put_slot(self, account: int, key: bytes, value: int) -> None:
        """`add_slots` for one slot; the key is 32 little-endian bytes."""
        self.version += 1
        self._library.warpgrid_evm_base_put_slot(self.handle, account, key, value.to_bytes(32, "little"))

    def add_block_hashes(self, hashes: Sequence[bytes]) -> int:
        """Add 32-byte block hashes, ascending; where the first of them is kept."""
        self.version += 1
        words = limbs_from_ints(int.from_bytes(one, "big") for one in hashes)
        return int(self._library.warpgrid_evm_base_add_block_hashes(self.handle, len(hashes), pointer(words)))

    def add_answer(self, key: Array, output: bytes, status: int) -> None:
        """Memoise the host's answer to a precompile request. `key` is u64[4], from the request."""
        self.version += 1
        key = np.ascontiguousarray(key, "<u8")
        self._library.warpgrid_evm_base_add_answer(self.handle, pointer(key), output, len(output), status)

    def credit(self, address: bytes, amount: int, world: int = 0) -> None:
        """Add wei to the balance of an account that was added before; counts as a change."""
        self.version += 1
        words = limbs_from_ints([amount])
        self._library.warpgrid_evm_base_credit(self.handle, world, address, pointer(words))

    def code(self, number: int) -> bytes:
        """The bytes of a code."""
        size = self._library.warpgrid_evm_base_code_size(self.handle, number)
        return ctypes.string_at(self._library.warpgrid_evm_base_code(self.handle, number), size) if size else b""

    def code_hash(self, number: int) -> bytes:
        """keccak256 of a code."""
        digest = ctypes.create_string_buffer(32)
        self._library.warpgrid_evm_base_code_hash(self.handle, number, digest)
        return digest.raw

    def view(self) -> tuple[World, tuple[int, int, int, int]]:
        """Pointers to the tables as they are now; how many codes, bytes of codes, bytes of answers, block hashes."""
        world, sizes = World(), (ctypes.c_uint64 * 4)()
        self._library.warpgrid_evm_base_view(self.handle, self.accounts_complete, ctypes.byref(world), sizes)
        return world, (sizes[0], sizes[1], sizes[2], sizes[3])

    def changes(self) -> Changes:
        """What serial runs changed since they were last accepted or undone."""
        accounts, slots = ctypes.c_uint64(), ctypes.c_uint64()
        self._library.warpgrid_evm_base_change_counts(self.handle, ctypes.byref(accounts), ctypes.byref(slots))
        changes = Changes(
            before=np.zeros(accounts.value, ACCOUNT_RECORD),
            after=np.zeros(accounts.value, ACCOUNT_RECORD),
            code_hashes=np.zeros((accounts.value, 32), "u1"),
            records=np.zeros(accounts.value, "<u4"),
            slots=np.zeros(slots.value, SLOT_RECORD),
            slots_before=np.zeros((slots.value, 4), "<u8"),
        )
        self._library.warpgrid_evm_base_changes(
            self.handle,
            *(pointer(getattr(changes, name)) for name in ("before", "after", "code_hashes", "records")),
            pointer(changes.slots),
            pointer(changes.slots_before),
        )
        return changes

    def accept_changes(self) -> None:
        """Start a new count of changes."""
        self._library.warpgrid_evm_base_forget_changes(self.handle)

    def undo_changes(self) -> None:
        """Go back to the state before the changes."""
        self.version += 1
        self._library.warpgrid_evm_base_undo_changes(self.handle)

    def clear_state(self) -> None:
        """Forget accounts and slots. Codes keep their numbers: a code is the same in every state."""
        self.version += 1
        self._library.warpgrid_evm_base_clear_state(self.handle)

    def clear_block_hashes(self) -> None:
        """Forget the block hashes of an earlier block."""
        self._library.warpgrid_evm_base_clear_block_hashes(self.handle)
