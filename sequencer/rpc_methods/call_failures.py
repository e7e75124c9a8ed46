"""Why a call could not start or did not succeed, in geth's words and codes."""

from collections.abc import Iterator

from core.chain_rules import BLOB_GAS, blob_base_fee
from core.execution import BlockContext, CallRequest, CallResult, Halt, Rejection, RejectionReason
from core.fork import Fork
from core.gas import INITCODE_BYTES_MAX, TRANSACTION_GAS_MAX, floor_gas, intrinsic_gas
from core.state import EMPTY_ACCOUNT, StateReader
from core.transaction import Transaction, TransactionType
from sequencer.jsonrpc.errors import REVERTED, SERVER_ERROR, RpcError
from sequencer.jsonrpc.hexadecimal import checksum_address, data

__all__ = ["failure_of", "is_short_of_gas", "rejection_message", "rejection_reason", "revert_message", "vm_message"]

_ERROR_SELECTOR = bytes.fromhex("08c379a0")
_PANIC_SELECTOR = bytes.fromhex("4e487b71")
_PANIC_REASONS = {
    0x00: "generic panic",
    0x01: "assert(false)",
    0x11: "arithmetic underflow or overflow",
    0x12: "division or modulo by zero",
    0x21: "enum overflow",
    0x22: "invalid encoded storage byte array accessed",
    0x31: "out-of-bounds array access; popping on an empty array",
    0x32: "out-of-bounds access of an array or bytesN",
    0x41: "out of memory",
    0x51: "uninitialized function",
}


def failure_of(result: CallResult) -> RpcError | None:
    """The error that a call which ran answers, or None when it succeeded."""
    if result.succeeded:
        return None
    if result.halt is Halt.REVERT:
        return RpcError(REVERTED, revert_message(result.output), data(result.output))
    return RpcError(SERVER_ERROR, vm_message(result.halt))


def vm_message(halt: Halt) -> str:
    """How a message ended other than by a revert."""
    return halt.value


def revert_message(output: bytes) -> str:
    """ "execution reverted", with the reason where Solidity's Error(string) or Panic(uint256) gives one."""
    reason = _revert_reason(output)
    return Halt.REVERT.value if reason is None else f"{Halt.REVERT.value}: {reason}"


def _revert_reason(output: bytes) -> str | None:
    selector, body = output[:4], output[4:]
    if selector == _PANIC_SELECTOR and len(body) >= 32:
        code = int.from_bytes(body[:32], "big")
        return _PANIC_REASONS.get(code, f"unknown panic code: {code:#x}")
    if selector != _ERROR_SELECTOR or len(body) < 64:
        return None
    start = int.from_bytes(body[:32], "big")
    length = int.from_bytes(body[start : start + 32], "big") if start + 32 <= len(body) else len(body)
    text = body[start + 32 : start + 32 + length]
    return text.decode(errors="replace") if len(text) == length else None


def rejection_reason(
    rejection: Rejection, state: StateReader, context: BlockContext, request: CallRequest
) -> RejectionReason:
    """The reason that geth would name: of all that is wrong, what it looks at first."""
    return next(_violations(state, context, request), rejection.reason)


def is_short_of_gas(reason: RejectionReason) -> bool:
    """Whether more gas might let the call start (for estimates)."""
    return reason in (RejectionReason.INTRINSIC_GAS, RejectionReason.FLOOR_GAS)


def rejection_message(rejection: Rejection, state: StateReader, context: BlockContext, request: CallRequest) -> str:
    """geth's message for `rejection_reason`, with its figures."""
    reason = rejection_reason(rejection, state, context, request)
    account = state.account(request.sender) or EMPTY_ACCOUNT
    sender = checksum_address(request.sender)
    tx = _as_transaction(request)
    needed, floor = intrinsic_gas(tx, context.fork), floor_gas(tx, context.fork)
    messages = {
        RejectionReason.NONCE_TOO_LOW: f"nonce too low: address {sender}, tx: {request.nonce} state: {account.nonce}",
        RejectionReason.NONCE_TOO_HIGH: f"nonce too high: address {sender}, tx: {request.nonce} state: {account.nonce}",
        RejectionReason.NONCE_OVERFLOW: f"nonce has max value: address {sender}, nonce: {account.nonce}",
        RejectionReason.SENDER_NOT_EOA: f"sender not an eoa: address {sender}",
        RejectionReason.PRIORITY_FEE_ABOVE_MAX_FEE: (
            f"max priority fee per gas higher than max fee per gas: address {sender}, "
            f"maxPriorityFeePerGas: {request.max_priority_fee_per_gas}, maxFeePerGas: {request.max_fee_per_gas}"
        ),
        RejectionReason.FEE_BELOW_BASE_FEE: (
            f"max fee per gas less than block base fee: address {sender}, "
            f"maxFeePerGas: {request.max_fee_per_gas}, baseFee: {context.base_fee_per_gas}"
        ),
        RejectionReason.INSUFFICIENT_FUNDS: (
            f"insufficient funds for gas * price + value: address {sender} "
            f"have {account.balance} want {_most_taken(request)}"
        ),
        RejectionReason.INTRINSIC_GAS: f"intrinsic gas too low: have {request.gas_limit}, want {needed}",
        RejectionReason.FLOOR_GAS: (
            f"insufficient gas for floor data gas cost: have {request.gas_limit}, want {floor}"
        ),
        RejectionReason.INITCODE_TOO_LARGE: (
            f"max initcode size exceeded: code size {len(request.data)} limit {INITCODE_BYTES_MAX}"
        ),
        RejectionReason.TRANSACTION_GAS_LIMIT: (
            f"transaction gas limit too high (cap: {TRANSACTION_GAS_MAX}, tx: {request.gas_limit})"
        ),
        RejectionReason.BLOCK_GAS_LIMIT: "gas limit reached",
        RejectionReason.BLOB_COUNT: "blob transaction missing blob hashes",
        RejectionReason.BLOB_FEE_TOO_LOW: (
            f"max fee per blob gas less than block blob gas fee: address {sender} "
            f"blobGasFeeCap: {request.max_fee_per_blob_gas}, blobBaseFee: {_blob_fee(context)}"
        ),
        RejectionReason.AUTHORIZATION_LIST_EMPTY: f"EIP-7702 transaction with empty auth list (sender {sender})",
        RejectionReason.CREATION_NOT_ALLOWED: (
            f"EIP-7702 transaction cannot be used to create contract (sender {sender})"
            if request.authorizations
            else "blob transaction of type create"
        ),
    }
    return messages.get(reason, rejection.detail)


def _violations(state: StateReader, context: BlockContext, request: CallRequest) -> Iterator[RejectionReason]:
    """All that geth's state transition checks before it runs a message, in its order."""
    account = state.account(request.sender) or EMPTY_ACCOUNT
    if request.validate and request.nonce is not None:
        if request.nonce > account.nonce:
            yield RejectionReason.NONCE_TOO_HIGH
        if request.nonce < account.nonce:
            yield RejectionReason.NONCE_TOO_LOW
        if request.nonce == 2**64 - 1:
            yield RejectionReason.NONCE_OVERFLOW
    pays = request.validate or request.max_fee_per_gas or request.max_priority_fee_per_gas
    if pays and context.fork >= Fork.LONDON:
        if request.max_fee_per_gas < request.max_priority_fee_per_gas:
            yield RejectionReason.PRIORITY_FEE_ABOVE_MAX_FEE
        if request.max_fee_per_gas < context.base_fee_per_gas:
            yield RejectionReason.FEE_BELOW_BASE_FEE
    if request.blob_versioned_hashes:
        if request.to is None:
            yield RejectionReason.CREATION_NOT_ALLOWED
        if (request.validate or request.max_fee_per_blob_gas) and request.max_fee_per_blob_gas < _blob_fee(context):
            yield RejectionReason.BLOB_FEE_TOO_LOW
    if request.authorizations and request.to is None:
        yield RejectionReason.CREATION_NOT_ALLOWED
    if account.balance < _most_taken(request):
        yield RejectionReason.INSUFFICIENT_FUNDS
    tx = _as_transaction(request)
    if request.gas_limit < intrinsic_gas(tx, context.fork):
        yield RejectionReason.INTRINSIC_GAS
    if request.gas_limit < floor_gas(tx, context.fork):
        yield RejectionReason.FLOOR_GAS
    if request.to is None and context.fork >= Fork.SHANGHAI and len(request.data) > INITCODE_BYTES_MAX:
        yield RejectionReason.INITCODE_TOO_LARGE


def _blob_fee(context: BlockContext) -> int:
    if context.blob_base_fee_override is not None:
        return context.blob_base_fee_override
    return blob_base_fee(context.excess_blob_gas, context.fork)


def _most_taken(request: CallRequest) -> int:
    blobs = BLOB_GAS * len(request.blob_versioned_hashes) * request.max_fee_per_blob_gas
    return request.gas_limit * request.max_fee_per_gas + request.value + blobs


def _as_transaction(request: CallRequest) -> Transaction:
    """Enough of a transaction to reckon its gas."""
    return Transaction(
        type=TransactionType.FEE_MARKET,
        chain_id=1,
        nonce=0,
        gas_limit=request.gas_limit,
        max_fee_per_gas=0,
        max_priority_fee_per_gas=0,
        to=request.to,
        value=0,
        data=request.data,
        y_parity=0,
        r=0,
        s=0,
        access_list=request.access_list,
        authorizations=request.authorizations,
    )
