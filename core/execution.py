"""The executor seam: what goes into an execution, what comes out, and who may implement it.

Every executor (EELS as the reference, the native engine on CPU and GPU) gives the same bytes for the same input; the
conformance suite runs each of them through the same tests. An executor is a pure function of its arguments: it reads
the state through a `StateReader`, never writes it, and keeps no chain of its own.

Three kinds of result are kept apart. What an EVM program does (revert, out of gas, ...) is a status. A transaction that
may not be included is a `Rejection` with a reason. Anything else is a bug and raises.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from core.columns import Array
from core.fork import Fork
from core.receipts import Log, ReceiptColumns
from core.state import EMPTY_ACCOUNT, StateDifference, StateReader
from core.transaction import AccessListEntry, Authorization, Transaction, TransactionColumns, TransactionType

__all__ = [
    "BlockContext",
    "CallFrame",
    "CallRequest",
    "CallResult",
    "ExecutionOutcome",
    "Executor",
    "Halt",
    "Rejection",
    "RejectionReason",
    "StructLog",
    "TransactionTrace",
    "Withdrawal",
    "unsigned_transaction",
]


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """EIP-4895. `amount` is gwei."""

    index: int
    validator_index: int
    address: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class BlockContext:
    """All that an execution may know of its block.

    `block_hashes` are those of up to 256 ancestors, the parent's last. `timestamp` is seconds, `base_fee_per_gas` wei.
    Fields of forks that are not active are at their defaults. `ommers` are (number, beneficiary) pairs, before Paris.

    The last two serve simulation only (eth_call and eth_simulateV1 with overrides). `blob_base_fee_override` replaces
    the fee (wei) that follows from `excess_blob_gas`. Each of `precompile_moves` is (from, to): the precompiled
    contract of the first address answers at the second instead, or nowhere when that is None.
    """

    fork: Fork
    chain_id: int
    number: int
    timestamp: int
    gas_limit: int
    coinbase: bytes
    base_fee_per_gas: int = 0
    prev_randao: bytes = bytes(32)
    difficulty: int = 0
    excess_blob_gas: int = 0
    parent_beacon_block_root: bytes = bytes(32)
    block_hashes: tuple[bytes, ...] = ()
    withdrawals: tuple[Withdrawal, ...] = ()
    ommers: tuple[tuple[int, bytes], ...] = ()
    blob_base_fee_override: int | None = None
    precompile_moves: tuple[tuple[bytes, bytes | None], ...] = ()


class RejectionReason(StrEnum):
    """Why a transaction may not be included in this block at this place. Values are stable: they go over the wire."""

    TYPE_NOT_SUPPORTED = "type_not_supported"
    CHAIN_ID_MISMATCH = "chain_id_mismatch"
    SIGNATURE_INVALID = "signature_invalid"
    NONCE_TOO_LOW = "nonce_too_low"
    NONCE_TOO_HIGH = "nonce_too_high"
    NONCE_OVERFLOW = "nonce_overflow"
    SENDER_NOT_EOA = "sender_not_eoa"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    INTRINSIC_GAS = "intrinsic_gas"
    FLOOR_GAS = "floor_gas"
    INITCODE_TOO_LARGE = "initcode_too_large"
    TRANSACTION_GAS_LIMIT = "transaction_gas_limit"
    BLOCK_GAS_LIMIT = "block_gas_limit"
    FEE_BELOW_BASE_FEE = "fee_below_base_fee"
    PRIORITY_FEE_ABOVE_MAX_FEE = "priority_fee_above_max_fee"
    CREATION_NOT_ALLOWED = "creation_not_allowed"
    BLOB_COUNT = "blob_count"
    BLOB_HASH_VERSION = "blob_hash_version"
    BLOB_FEE_TOO_LOW = "blob_fee_too_low"
    BLOB_GAS_LIMIT = "blob_gas_limit"
    AUTHORIZATION_LIST_EMPTY = "authorization_list_empty"
    FEE_OVERFLOW = "fee_overflow"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Transaction `index` of the given columns was left out, and had no effect at all."""

    index: int
    reason: RejectionReason
    detail: str


@dataclass(frozen=True, slots=True)
class ExecutionOutcome:
    """What executing transactions in order did.

    `included` (u32[m], ascending) are the rows that were executed; receipt i belongs to row included[i]. `difference`
    holds the state after everything, system calls and withdrawals included. `requests` are EIP-7685 requests, each a
    type byte and its data.
    """

    included: Array
    rejections: tuple[Rejection, ...]
    receipts: ReceiptColumns
    difference: StateDifference
    gas_used: int
    blob_gas_used: int
    requests: tuple[bytes, ...] = ()


class Halt(StrEnum):
    """How a message ended. Values are the names that traces and errors show (geth's wording where it has one)."""

    NONE = ""
    REVERT = "execution reverted"
    OUT_OF_GAS = "out of gas"
    INVALID_OPCODE = "invalid opcode"
    INVALID_JUMP = "invalid jump destination"
    STACK_UNDERFLOW = "stack underflow"
    STACK_OVERFLOW = "stack limit reached 1024"
    WRITE_PROTECTION = "write protection"
    CALL_DEPTH = "max call depth exceeded"
    INSUFFICIENT_BALANCE = "insufficient balance for transfer"
    ADDRESS_COLLISION = "contract address collision"
    CODE_SIZE = "max code size exceeded"
    INITCODE_SIZE = "max initcode size exceeded"
    INVALID_CODE = "invalid code: must not begin with 0xef"
    RETURN_DATA_BOUNDS = "return data out of bounds"
    NONCE_OVERFLOW = "nonce uint64 overflow"
    PRECOMPILE = "precompile failed"


@dataclass(frozen=True, slots=True)
class CallRequest:
    """An unsigned message to run as a transaction would, for eth_call, gas estimation and simulation.

    With `validate`, nonce, balance and fees are checked and charged exactly as for a signed transaction. Without it the
    nonce is not checked (and wraps at 2^64), and a `max_fee_per_gas` of 0 runs free of charge with a base fee of 0 seen
    by nobody but the coinbase (geth's rule for eth_call). Never checked are whether the sender has code (EIP-3607) and
    the cap on one transaction's gas (EIP-7825). `to` None creates a contract.
    """

    sender: bytes
    to: bytes | None
    gas_limit: int
    value: int = 0
    data: bytes = b""
    nonce: int | None = None
    max_fee_per_gas: int = 0
    max_priority_fee_per_gas: int = 0
    access_list: tuple[AccessListEntry, ...] = ()
    max_fee_per_blob_gas: int = 0
    blob_versioned_hashes: tuple[bytes, ...] = ()
    authorizations: tuple[Authorization, ...] = ()
    validate: bool = False


@dataclass(frozen=True, slots=True)
class CallResult:
    """Outcome of a call. `output` is return or revert data, or the deployed code of a creation.

    `rejection` is set when the request could not start at all (then nothing else has meaning). `accessed` lists what
    was touched, for eth_createAccessList; `gas_refunded` is what refunds gave back, already taken off `gas_used`.
    """

    succeeded: bool
    halt: Halt
    output: bytes
    gas_used: int
    gas_refunded: int
    logs: tuple[Log, ...]
    difference: StateDifference
    accessed: tuple[AccessListEntry, ...]
    rejection: Rejection | None = None


@dataclass(frozen=True, slots=True)
class StructLog:
    """One executed instruction, as EIP-3155 and geth's struct logger show it.

    Stack values are bottom first, as before the instruction. `memory` is the whole memory before it. `storage` holds
    the slots of this account that this frame has read or written so far. `gas_cost` includes what a callee was given.
    """

    pc: int
    op: int
    op_name: str
    gas: int
    gas_cost: int
    depth: int
    refund: int
    stack: tuple[int, ...]
    memory: bytes
    return_data: bytes
    storage: dict[int, int]
    halt: Halt = Halt.NONE


@dataclass(frozen=True, slots=True)
class CallFrame:
    """One message and the messages it sent, as geth's callTracer shows them.

    `kind` is CALL, STATICCALL, DELEGATECALL, CALLCODE, CREATE, CREATE2 or SELFDESTRUCT. `logs` are all that
    this frame emitted, also when it or the one that called it failed and they never came to be; `log_positions[i]` is
    how many of `calls` had been sent when it emitted `logs[i]`.
    """

    kind: str
    sender: bytes
    to: bytes | None
    value: int
    gas: int
    gas_used: int
    data: bytes
    output: bytes
    halt: Halt
    logs: tuple[Log, ...]
    calls: tuple["CallFrame", ...]
    log_positions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TransactionTrace:
    """Everything there is to tell of one transaction; `struct_logs` is empty unless it was asked for."""

    hash: bytes
    gas_used: int
    succeeded: bool
    output: bytes
    frame: CallFrame
    struct_logs: tuple[StructLog, ...]


class Executor(Protocol):
    """Executes transactions against a state. Threads may share one.

    Implementations: `worker.evm.reference`, `worker.evm.native_executor`.
    """

    name: str

    def execute_block(
        self, state: StateReader, context: BlockContext, transactions: TransactionColumns
    ) -> ExecutionOutcome:
        """Run a whole block: system calls, the transactions in order, withdrawals, rewards, requests.

        A transaction that may not be included is rejected and skipped; those after it see the state without it.
        """

    def execute_transactions(
        self, state: StateReader, context: BlockContext, transactions: TransactionColumns
    ) -> ExecutionOutcome:
        """Run only the transactions in order, with none of the block's own steps (as state tests want it)."""

    def call(self, state: StateReader, context: BlockContext, request: CallRequest) -> CallResult:
        """Run one unsigned message."""

    def trace(
        self,
        state: StateReader,
        context: BlockContext,
        transactions: TransactionColumns,
        rows: Sequence[int],
        *,
        struct_logs: bool,
    ) -> tuple[TransactionTrace, ...]:
        """Run the block as `execute_block` does and tell what the transactions of `rows` did."""

    def trace_transactions(
        self,
        state: StateReader,
        context: BlockContext,
        transactions: TransactionColumns,
        rows: Sequence[int],
        *,
        struct_logs: bool,
    ) -> tuple[TransactionTrace, ...]:
        """`trace`, but as `execute_transactions` runs them: without the system calls that open a block."""

    def trace_call(
        self, state: StateReader, context: BlockContext, request: CallRequest, *, struct_logs: bool
    ) -> TransactionTrace:
        """Run one unsigned message and tell what it did (debug_traceCall, eth_simulateV1's traceTransfers)."""


def unsigned_transaction(state: StateReader, context: BlockContext, request: CallRequest) -> Transaction:
    """The request as a transaction of the newest type that it needs and the fork knows; its signature is empty."""
    nonce = request.nonce
    if nonce is None or not request.validate:
        nonce = (state.account(request.sender) or EMPTY_ACCOUNT).nonce
    kind = _type_of(request, context.fork)
    return Transaction(
        type=kind,
        chain_id=None if kind == TransactionType.LEGACY else context.chain_id,
        nonce=nonce,
        gas_limit=request.gas_limit,
        max_fee_per_gas=request.max_fee_per_gas,
        max_priority_fee_per_gas=request.max_priority_fee_per_gas,
        to=request.to,
        value=request.value,
        data=request.data,
        y_parity=0,
        r=0,
        s=0,
        access_list=request.access_list,
        max_fee_per_blob_gas=request.max_fee_per_blob_gas,
        blob_versioned_hashes=request.blob_versioned_hashes,
        authorizations=request.authorizations,
    )


def _type_of(request: CallRequest, fork: Fork) -> TransactionType:
    if request.authorizations:
        return TransactionType.SET_CODE
    if request.blob_versioned_hashes:
        return TransactionType.BLOB
    if fork >= Fork.LONDON:
        return TransactionType.FEE_MARKET
    return TransactionType.ACCESS_LIST if request.access_list else TransactionType.LEGACY
