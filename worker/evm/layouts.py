"""The structures shared with native code (worker/evm/native/types.hpp and arenas.hpp), as numpy and ctypes see them.

Owns names, offsets and the order of enumerations. `check_layouts` compares them with what a library was built with.
Knows nothing of what the fields are used for.
"""

import ctypes
from enum import IntEnum, IntFlag

import numpy as np

from core.execution import Halt, RejectionReason

__all__ = [
    "ACCOUNT_ENTRY",
    "ACCOUNT_RECORD",
    "ARENA_SECTIONS",
    "BLOCK_ENVIRONMENT",
    "CODE",
    "CODE_EMPTY",
    "CODE_HEADER",
    "CODE_PRIVATE",
    "CODE_UNKNOWN",
    "HALTS",
    "HALT_LATE",
    "LOG_HEADER",
    "NEAR_STACK_BYTES",
    "NONE",
    "PRECOMPILE_ANSWER",
    "REJECTIONS",
    "REQUEST",
    "RESULT",
    "SLOT_ENTRY",
    "SLOT_RECORD",
    "AccountFlag",
    "ArenaSizes",
    "EntryFlag",
    "LaunchArguments",
    "MessageKind",
    "NativeFork",
    "RequestKind",
    "Status",
    "Transactions",
    "World",
    "check_layouts",
    "offset_of",
]

NONE = 0xFFFFFFFF
CODE_EMPTY = 0
CODE_UNKNOWN = 0xFFFFFFFE
CODE_PRIVATE = 0x80000000

ACCOUNT_RECORD = np.dtype(
    [
        ("address", "u1", 20),
        ("world", "<u4"),
        ("nonce", "<u8"),
        ("balance", "<u8", 4),
        ("code", "<u4"),
        ("flags", "<u4"),
        ("padding", "<u8"),
    ]
)
SLOT_RECORD = np.dtype(
    [("key", "<u8", 4), ("value", "<u8", 4), ("account", "<u4"), ("flags", "<u4"), ("padding", "<u8")]
)
CODE = np.dtype(
    [
        ("bytes", "<u8"),
        ("records", "<u8"),
        ("jumps", "<u8"),
        ("constants", "<u8"),
        ("size", "<u4"),
        ("record_count", "<u4"),
        ("flags", "<u4"),
        ("padding", "<u4"),
        ("hash", "u1", 32),
    ]
)
PRECOMPILE_ANSWER = np.dtype([("key", "<u8", 4), ("output", "<u8"), ("size", "<u4"), ("status", "<u4")])
BLOCK_ENVIRONMENT = np.dtype(
    [
        ("base_fee", "<u8", 4),
        ("prev_randao", "<u8", 4),
        ("blob_base_fee", "<u8", 4),
        ("chain_id", "<u8"),
        ("number", "<u8"),
        ("timestamp", "<u8"),
        ("gas_limit", "<u8"),
        ("gas_available", "<u8"),
        ("blob_gas_available", "<u8"),
        ("block_hash_first", "<u8"),
        ("block_hash_offset", "<u4"),
        ("block_hash_count", "<u4"),
        ("coinbase", "u1", 20),
        ("fork", "<u4"),
        ("padding", "<u8"),
    ]
)
REQUEST = np.dtype(
    [
        ("key", "<u8", 4),
        ("address", "u1", 20),
        ("kind", "<u4"),
        ("precompile", "<u4"),
        ("padding", "<u4"),
        ("input_size", "<u8"),
        ("padding2", "<u8"),
    ]
)
RESULT = np.dtype(
    [
        ("coinbase_fee", "<u8", 4),
        ("gas_price", "<u8", 4),
        ("request", REQUEST),
        ("gas_used", "<u8"),
        ("gas_refunded", "<u8"),
        ("output", "<u8"),
        ("log_bytes", "<u8"),
        ("return_bytes", "<u8"),
        ("code_bytes", "<u8"),
        ("accounts", "<u4"),
        ("slots", "<u4"),
        ("logs", "<u4"),
        ("status", "<u4"),
        ("halt", "<u4"),
        ("rejection", "<u4"),
        ("created", "u1", 20),
        ("padding", "<u4"),
    ]
)
ACCOUNT_ENTRY = np.dtype(
    [
        ("address", "u1", 20),
        ("flags", "<u4"),
        ("nonce", "<u8"),
        ("balance", "<u8", 4),
        ("code", "<u4"),
        ("base", "<u4"),
        ("original_nonce", "<u8"),
        ("original_balance", "<u8", 4),
        ("original_code", "<u4"),
        ("hash", "<u4"),
        ("output_code", "<u8"),
    ]
)
SLOT_ENTRY = np.dtype(
    [
        ("key", "<u8", 4),
        ("value", "<u8", 4),
        ("original", "<u8", 4),
        ("account", "<u4"),
        ("flags", "<u4"),
        ("hash", "<u4"),
        ("base", "<u4"),
    ]
)
LOG_HEADER = np.dtype([("address", "u1", 20), ("topics", "<u4"), ("data_bytes", "<u8")])
CODE_HEADER = np.dtype([("bytes", "<u8"), ("padding", "<u8"), ("hash", "u1", 32)])


class AccountFlag(IntFlag):
    EXISTS = 1
    HAS_STORAGE = 2
    STORAGE_COMPLETE = 4
    DIRTY = 8
    CLEARED = 16


class EntryFlag(IntFlag):
    LOADED = 1
    WARM = 2
    EXISTS = 4
    EXISTED = 8
    WRITTEN = 16
    CREATED = 32
    DESTROYED = 64
    TRANSIENT = 128
    STORAGE = 256
    NEW_CODE = 512
    ASKED = 1024


class Status(IntEnum):
    PENDING = 0
    SUCCESS = 1
    REVERTED = 2
    HALTED = 3
    REJECTED = 4
    PARKED = 5
    OVERFLOW = 6


class RequestKind(IntEnum):
    NONE = 0
    ACCOUNT = 1
    SLOT = 2
    CODE = 3
    BLOCK_HASH = 4
    PRECOMPILE = 5


class MessageKind(IntEnum):
    TRANSACTION = 0
    SIMULATION = 1
    SYSTEM = 2
    CHECKED_CALL = 3


class NativeFork(IntEnum):
    """warpgrid::Fork: the rule sets that native code knows. Blob parameters are data of the block."""

    CANCUN = 0
    PRAGUE = 1
    OSAKA = 2


# By number: what native halts and rejections are called outside. The last two halts are no EVM outcomes.
HALTS = (
    Halt.NONE,
    Halt.NONE,
    Halt.NONE,
    Halt.NONE,
    Halt.REVERT,
    Halt.OUT_OF_GAS,
    Halt.INVALID_OPCODE,
    Halt.INVALID_JUMP,
    Halt.STACK_UNDERFLOW,
    Halt.STACK_OVERFLOW,
    Halt.WRITE_PROTECTION,
    Halt.CALL_DEPTH,
    Halt.INSUFFICIENT_BALANCE,
    Halt.ADDRESS_COLLISION,
    Halt.CODE_SIZE,
    Halt.INITCODE_SIZE,
    Halt.INVALID_CODE,
    Halt.RETURN_DATA_BOUNDS,
    Halt.NONCE_OVERFLOW,
    Halt.PRECOMPILE,
)
REJECTIONS = (
    None,
    RejectionReason.TYPE_NOT_SUPPORTED,
    RejectionReason.CHAIN_ID_MISMATCH,
    RejectionReason.NONCE_TOO_LOW,
    RejectionReason.NONCE_TOO_HIGH,
    RejectionReason.NONCE_OVERFLOW,
    RejectionReason.SENDER_NOT_EOA,
    RejectionReason.INSUFFICIENT_FUNDS,
    RejectionReason.INTRINSIC_GAS,
    RejectionReason.FLOOR_GAS,
    RejectionReason.INITCODE_TOO_LARGE,
    RejectionReason.TRANSACTION_GAS_LIMIT,
    RejectionReason.BLOCK_GAS_LIMIT,
    RejectionReason.FEE_BELOW_BASE_FEE,
    RejectionReason.PRIORITY_FEE_ABOVE_MAX_FEE,
    RejectionReason.CREATION_NOT_ALLOWED,
    RejectionReason.BLOB_COUNT,
    RejectionReason.BLOB_HASH_VERSION,
    RejectionReason.BLOB_FEE_TOO_LOW,
    RejectionReason.BLOB_GAS_LIMIT,
    RejectionReason.AUTHORIZATION_LIST_EMPTY,
)

_POINTER, _U64, _U32 = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32


class World(ctypes.Structure):
    """Pointers to a base state's tables."""

    _fields_ = (
        *((name, _POINTER) for name in ("accounts", "account_index", "slots", "slot_index", "codes", "code_blob")),
        *((name, _POINTER) for name in ("block_hashes", "answers", "answer_blob")),
        *((name, _U64) for name in ("account_index_mask", "slot_index_mask")),
        *((name, _U32) for name in ("account_count", "slot_count", "answer_count", "accounts_complete")),
    )


class Transactions(ctypes.Structure):
    """Pointers to columns, in the order of native `Transactions`."""

    COLUMNS = (
        *("type", "chain_id", "nonce", "gas_limit", "max_fee_per_gas", "max_priority_fee_per_gas", "to"),
        *("is_creation", "value", "data_offsets", "sender", "access_offsets", "max_fee_per_blob_gas"),
        *("blob_hash_offsets", "authorization_offsets", "data", "access_address", "access_key_offsets"),
        *("access_key", "blob_hash", "authorization_chain_id", "authorization_address", "authorization_nonce"),
        *("authority", "authority_valid", "world", "block", "kind", "blocks"),
    )
    _fields_ = (("count", _U64), *((name, _POINTER) for name in COLUMNS))


class ArenaSizes(ctypes.Structure):
    """How much private memory one transaction in flight gets (native arenas.hpp)."""

    _fields_ = tuple(
        (name, _U64)
        for name in (
            *("stack_words", "memory_bytes", "return_bytes", "accounts", "slots", "index_entries"),
            *("journal_entries", "log_bytes", "frames", "region_bytes", "codes"),
        )
    )


ARENA_SECTIONS = 15


class LaunchArguments(ctypes.Structure):
    """What a kernel is given (native kernel.hpp)."""

    _fields_ = (
        ("world", World),
        ("batch", Transactions),
        *((name, _POINTER) for name in ("results", "arena", "used")),
        ("capacity", _U64),
        ("sizes", ArenaSizes),
        ("layout", _U64 * ARENA_SECTIONS),
        ("rows", _POINTER),
        ("count", _U64),
        *((name, _POINTER) for name in ("next_row", "lanes", "regions")),
        *((name, _U64) for name in ("warp_bytes", "region_stride", "row_ns_max")),
        ("begun_rows", _POINTER),
    )


NEAR_STACK_BYTES = 6 * 32
"""Shared memory of a thread: the lowest words of the running frame's stack (native stack.hpp)."""

HALT_LATE = 22
"""Native `Halt::Late`: beside Status.OVERFLOW, a row that took longer than a kernel may."""

assert ctypes.sizeof(LaunchArguments) == 656


def check_layouts(library: ctypes.CDLL) -> None:
    """Assert that this module and the library agree on every shared structure."""
    expected = [
        *(ACCOUNT_RECORD.itemsize, SLOT_RECORD.itemsize, CODE.itemsize, ctypes.sizeof(World)),
        *(BLOCK_ENVIRONMENT.itemsize, ctypes.sizeof(Transactions), RESULT.itemsize, REQUEST.itemsize),
        *(ctypes.sizeof(ArenaSizes), ACCOUNT_ENTRY.itemsize, SLOT_ENTRY.itemsize, LOG_HEADER.itemsize),
        CODE_HEADER.itemsize,
        *(offset_of(RESULT, "status"), offset_of(RESULT, "gas_used"), offset_of(BLOCK_ENVIRONMENT, "coinbase")),
        *(offset_of(ACCOUNT_ENTRY, "original_balance"), NEAR_STACK_BYTES),
    ]
    actual = (ctypes.c_uint64 * len(expected))()
    library.warpgrid_evm_layout(actual)
    assert list(actual) == expected, (
        f"native structures {list(actual)} differ from Python's {expected}: run `make native`"
    )


def offset_of(dtype: np.dtype, field: str) -> int:
    """Where a field of a record begins, in bytes."""
    assert dtype.fields is not None
    return int(dtype.fields[field][1])
