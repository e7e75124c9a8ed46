"""Many state tests as one batch of instances mode: every entry a world of its own, in one run.

Owns the building of such a batch. Knows nothing of engines or of what the entries expect.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.columns import limbs_from_ints
from core.crypto import recover_batch
from core.errors import TransactionError
from core.memory_state import AccountContents
from core.transaction import Transaction, TransactionColumns, signing_hash
from worker.evm.base_state import BaseState
from worker.evm.batch import Batch, block_environments
from worker.evm.layouts import AccountFlag
from worker.evm.state_test_file import StateTestEntry

__all__ = ["InstanceBatch"]


@dataclass(frozen=True, slots=True, eq=False)
class InstanceBatch:
    """Row i of `batch` is `entries[i]`. What reaches no engine is in `refused`, with the reason."""

    entries: tuple[StateTestEntry, ...]
    refused: tuple[tuple[StateTestEntry, str], ...]
    base: BaseState
    batch: Batch

    @classmethod
    def of(cls, entries: Sequence[StateTestEntry]) -> "InstanceBatch":
        """Decode, recover the senders, and fill a base. Raises ForkNotSupported as `block_environments` does."""
        kept: list[tuple[StateTestEntry, Transaction, bytes]] = []
        refused: list[tuple[StateTestEntry, str]] = []
        decoded = []
        for entry in entries:
            try:
                decoded.append((entry, entry.transaction()))
            except TransactionError as error:
                refused.append((entry, str(error)))
        senders = _recover([tx for _, tx in decoded])
        for (entry, tx), sender in zip(decoded, senders, strict=True):
            if sender is None:
                refused.append((entry, "the signature names no sender"))
            else:
                kept.append((entry, tx, sender))
        base = BaseState(accounts_complete=True)
        fill_worlds(base, [entry.accounts for entry, _, _ in kept])
        columns = TransactionColumns.from_transactions([tx for _, tx, _ in kept], [sender for *_, sender in kept])
        blocks = block_environments([entry.context for entry, _, _ in kept], base)
        numbers = np.arange(len(kept), dtype="<u4")
        batch = Batch.of(columns, blocks, numbers, numbers)
        return cls(tuple(entry for entry, _, _ in kept), tuple(refused), base, batch)


def fill_worlds(base: BaseState, states: Sequence[Mapping[bytes, AccountContents]]) -> None:
    """World i holds `states[i]`. Every slot that exists is given, so whatever is not there is zero."""
    rows = [(world, address, one) for world, state in enumerate(states) for address, one in state.items()]
    codes = sorted({one.code for _, _, one in rows})
    first = base.add_codes(codes)
    numbers = {code: first + i if code else 0 for i, code in enumerate(codes)}
    stored = [{slot: value for slot, value in one.storage.items() if value} for _, _, one in rows]
    flags = AccountFlag.EXISTS | AccountFlag.STORAGE_COMPLETE
    records = base.add_accounts(
        np.fromiter((world for world, _, _ in rows), "<u4"),
        np.frombuffer(b"".join(address for _, address, _ in rows), "u1").reshape(-1, 20),
        np.fromiter((one.nonce for _, _, one in rows), "<u8"),
        limbs_from_ints(one.balance for _, _, one in rows),
        np.fromiter((numbers[one.code] for _, _, one in rows), "<u4"),
        np.fromiter((int(flags | AccountFlag.HAS_STORAGE if slots else flags) for slots in stored), "<u4"),
    )
    base.add_slots(
        np.repeat(records, [len(slots) for slots in stored]),
        limbs_from_ints(slot for slots in stored for slot in slots),
        limbs_from_ints(value for slots in stored for value in slots.values()),
    )


def _recover(transactions: Sequence[Transaction]) -> list[bytes | None]:
    """The sender of each, or None where the signature is not valid."""
    if not transactions:
        return []
    signed = recover_batch(
        np.frombuffer(b"".join(signing_hash(tx) for tx in transactions), "u1").reshape(-1, 32),
        np.frombuffer(b"".join(_signature(tx) for tx in transactions), "u1").reshape(-1, 64),
        np.fromiter((tx.y_parity for tx in transactions), "u1"),
    )
    return [address.tobytes() if valid else None for address, valid in zip(signed.addresses, signed.valid, strict=True)]


def _signature(tx: Transaction) -> bytes:
    return tx.r.to_bytes(32, "big") + tx.s.to_bytes(32, "big")
