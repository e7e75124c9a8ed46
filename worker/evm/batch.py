"""Batches of transactions for the engine, and what comes back.

Owns the join of `core.transaction.TransactionColumns` with what native code needs besides, and the reading of results.
Knows nothing of where a batch runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from core.chain_rules import blob_base_fee
from core.columns import Array, limbs_from_int
from core.errors import TransactionError
from core.execution import BlockContext
from core.fork import BLOB_PARAMETERS, Fork
from core.receipts import Log
from core.signature import recover_authority
from core.transaction import TransactionColumns
from worker.evm.base_state import BaseState, pointer
from worker.evm.errors import ForkNotSupported
from worker.evm.layouts import (
    ACCOUNT_ENTRY,
    BLOCK_ENVIRONMENT,
    CODE_HEADER,
    LOG_HEADER,
    RESULT,
    SLOT_ENTRY,
    MessageKind,
    NativeFork,
    Transactions,
)

__all__ = ["Batch", "Outcomes", "block_environments", "is_supported"]

_ALIGNMENT_BYTES = 16  # of u256 in core/native/u256.hpp
_BLOB_GAS = 1 << 17
_UNLIMITED_GAS = 2**64 - 1
_FORKS = {
    Fork.CANCUN: NativeFork.CANCUN,
    Fork.PRAGUE: NativeFork.PRAGUE,
    Fork.OSAKA: NativeFork.OSAKA,
    Fork.BPO1: NativeFork.OSAKA,
    Fork.BPO2: NativeFork.OSAKA,
}


def is_supported(context: BlockContext) -> bool:
    """Does native code know the rules of this block?"""
    return context.fork in _FORKS and not context.precompile_moves


def block_environments(contexts: Sequence[BlockContext], base: BaseState) -> Array:
    """BLOCK_ENVIRONMENT[n] of these contexts; their block hashes are added to `base`.

    Raises ForkNotSupported where `is_supported` says no.
    """
    environments = np.zeros(len(contexts), BLOCK_ENVIRONMENT)
    for row, context in enumerate(contexts):
        if not is_supported(context):
            raise ForkNotSupported(
                f"the native engine knows Cancun to BPO2 with all precompiles in their places, not {context.fork.name}"
            )
        environment = environments[row]
        environment["base_fee"] = limbs_from_int(context.base_fee_per_gas)
        environment["prev_randao"] = limbs_from_int(int.from_bytes(context.prev_randao, "big"))
        fee = context.blob_base_fee_override
        fee = blob_base_fee(context.excess_blob_gas, context.fork) if fee is None else fee
        environment["blob_base_fee"] = limbs_from_int(fee)
        environment["chain_id"] = context.chain_id
        environment["number"] = context.number
        environment["timestamp"] = context.timestamp
        environment["gas_limit"] = environment["gas_available"] = min(context.gas_limit, _UNLIMITED_GAS)
        environment["blob_gas_available"] = BLOB_PARAMETERS[context.fork].max_blobs * _BLOB_GAS
        # An ancestor whose hash nobody told us reads as zero, as in EELS.
        untold = min(256, context.number) - len(context.block_hashes)
        hashes = (*[bytes(32)] * untold, *context.block_hashes)
        environment["block_hash_first"] = context.number - len(hashes)
        environment["block_hash_offset"] = base.add_block_hashes(hashes)
        environment["block_hash_count"] = len(hashes)
        environment["coinbase"] = np.frombuffer(context.coinbase, "u1")
        environment["fork"] = _FORKS[context.fork]
    return environments


@dataclass(frozen=True, eq=False)
class Batch:
    """Transactions and where each belongs: row i runs on world `worlds[i]` in block `blocks[block_numbers[i]]`.

    `kinds` are MessageKind. `authorities` are the addresses recovered from EIP-7702 authorizations, zero where
    `authority_valid` is 0.
    """

    transactions: TransactionColumns
    blocks: Array
    worlds: Array
    block_numbers: Array
    kinds: Array
    authorities: Array
    authority_valid: Array

    @classmethod
    def of(
        cls,
        transactions: TransactionColumns,
        blocks: Array,
        worlds: Array | None = None,
        block_numbers: Array | None = None,
        kind: MessageKind = MessageKind.TRANSACTION,
    ) -> "Batch":
        """A batch with one kind of message; by default in world 0 and block 0. Recovers the authorities."""
        count = len(transactions)
        authorities, valid = _recover_authorities(transactions)
        return cls(
            transactions=transactions,
            blocks=blocks,
            worlds=np.zeros(count, "<u4") if worlds is None else np.ascontiguousarray(worlds, "<u4"),
            block_numbers=np.zeros(count, "<u4")
            if block_numbers is None
            else np.ascontiguousarray(block_numbers, "<u4"),
            kinds=np.full(count, int(kind), "u1"),
            authorities=authorities,
            authority_valid=valid,
        )

    def __len__(self) -> int:
        return len(self.transactions)

    def take(self, rows: Array) -> "Batch":
        """These rows, in this order, in the same blocks."""
        taken = Batch.of(self.transactions.take(rows), self.blocks, self.worlds[rows], self.block_numbers[rows])
        return replace(taken, kinds=np.ascontiguousarray(self.kinds[rows]))

    @cached_property
    def columns(self) -> dict[str, Array]:
        """The arrays that native `Transactions` points to, by its names."""
        own = {
            "authority": self.authorities,
            "authority_valid": self.authority_valid,
            "world": self.worlds,
            "block": self.block_numbers,
            "kind": self.kinds,
            "blocks": self.blocks,
        }
        return {
            name: _aligned(own[name] if name in own else getattr(self.transactions, name))
            for name in Transactions.COLUMNS
        }

    def native(self) -> Transactions:
        """Pointers into the columns; valid as long as this batch lives."""
        return Transactions(len(self), *(pointer(column) for column in self.columns.values()))


def _aligned(array: Array) -> Array:
    """The array where native code may read it: 256-bit numbers are read 16 bytes at a time, and columns that are views
    of a record on disk or of a message begin anywhere."""
    contiguous = np.ascontiguousarray(array)
    return contiguous.copy() if contiguous.ctypes.data % _ALIGNMENT_BYTES else contiguous


def _recover_authorities(transactions: TransactionColumns) -> tuple[Array, Array]:
    count = len(transactions.authorization_nonce)
    authorities, valid = np.zeros((count, 20), "u1"), np.zeros(count, "u1")
    if not count:
        return authorities, valid
    for row in range(len(transactions)):
        first, last = transactions.authorization_offsets[row : row + 2].tolist()
        if first == last:
            continue
        for at, one in zip(range(first, last), transactions.transaction(row).authorizations, strict=True):
            try:
                authorities[at] = np.frombuffer(recover_authority(one), "u1")
            except TransactionError:
                continue  # an authorization that nobody signed is skipped, by EIP-7702
            valid[at] = 1
    return authorities, valid


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """RESULT[n] by row of the batch, and the arena that holds their sections."""

    results: Array
    arena: Array

    def accounts(self, row: int) -> Array:
        """ACCOUNT_ENTRY[]: every account that row `row` touched, with the values it saw and those it left."""
        result = self.results[row]
        return self._view(int(result["output"]), int(result["accounts"]), ACCOUNT_ENTRY)

    def slots(self, row: int) -> Array:
        """SLOT_ENTRY[]: every slot that row `row` touched; `account` is a row of `accounts`."""
        result = self.results[row]
        start = int(result["output"]) + int(result["accounts"]) * ACCOUNT_ENTRY.itemsize
        return self._view(start, int(result["slots"]), SLOT_ENTRY)

    def logs(self, row: int) -> tuple[Log, ...]:
        """The logs of row `row`, in order."""
        at, logs = self._logs_start(row), []
        for _ in range(int(self.results["logs"][row])):
            header = self._view(at, 1, LOG_HEADER)[0]
            topics, size = int(header["topics"]), int(header["data_bytes"])
            at += LOG_HEADER.itemsize
            raw = self.arena[at : at + 32 * topics + size].tobytes()
            words = tuple(raw[32 * i : 32 * i + 32] for i in range(topics))
            logs.append(Log(header["address"].tobytes(), words, raw[32 * topics :]))
            at += 32 * topics + _padded(size)
        return tuple(logs)

    def output(self, row: int) -> bytes:
        """Return or revert data of a row; the deployed code of a creation; the input of a parked precompile call."""
        start = self._logs_start(row) + int(self.results["log_bytes"][row])
        return self.arena[start : start + int(self.results["return_bytes"][row])].tobytes()

    def sections(self, row: int) -> bytes:
        """Everything that row `row` wrote: accounts, slots, logs, output, codes."""
        result = self.results[row]
        codes = self._logs_start(row) + int(result["log_bytes"]) + _padded(int(result["return_bytes"]))
        start, end = int(result["output"]), codes + int(result["code_bytes"])
        return self.arena[start:end].tobytes()

    def section_bytes(self) -> Array:
        """u64[n]: how many bytes each row wrote into the arena."""
        results = self.results
        entries = results["accounts"] * np.uint64(ACCOUNT_ENTRY.itemsize) + results["slots"] * np.uint64(
            SLOT_ENTRY.itemsize
        )
        padded = (results["return_bytes"] + np.uint64(15)) & ~np.uint64(15)
        total: Array = entries + results["log_bytes"] + padded + results["code_bytes"]
        return total

    def code(self, row: int, entry: Array) -> tuple[bytes, bytes]:
        """(bytes, hash) of the new code of one of this row's accounts."""
        result = self.results[row]
        codes = self._logs_start(row) + int(result["log_bytes"]) + _padded(int(result["return_bytes"]))
        at = codes + int(entry["output_code"])
        header = self._view(at, 1, CODE_HEADER)[0]
        at += CODE_HEADER.itemsize
        return self.arena[at : at + int(header["bytes"])].tobytes(), header["hash"].tobytes()

    def _logs_start(self, row: int) -> int:
        result = self.results[row]
        entries = int(result["accounts"]) * ACCOUNT_ENTRY.itemsize + int(result["slots"]) * SLOT_ENTRY.itemsize
        return int(result["output"]) + entries

    def _view(self, start: int, count: int, dtype: np.dtype) -> Array:
        return self.arena[start : start + count * dtype.itemsize].view(dtype)


def _padded(size: int) -> int:
    return (size + 15) & ~15


assert RESULT.itemsize == 240
