"""The least gas with which a call succeeds: geth's search, over any way to run a call."""

from collections.abc import Callable
from dataclasses import replace

from core.execution import BlockContext, CallRequest, CallResult, Halt
from core.fork import Fork
from core.gas import TRANSACTION_GAS_MAX
from core.hashing import EMPTY_CODE_HASH
from core.state import EMPTY_ACCOUNT, StateReader
from sequencer.jsonrpc.errors import SERVER_ERROR, RpcError
from sequencer.rpc_methods.call_failures import failure_of, is_short_of_gas, rejection_message, rejection_reason

__all__ = ["estimate_gas"]

_TRANSFER_GAS = 21_000
_CALL_STIPEND = 2_300
_ACCEPTED_EXCESS_PERMILLE = 15  # geth stops when the bounds are within 1.5 %
_BLOB_GAS = 2**17

Run = Callable[[int], CallResult]


def estimate_gas(state: StateReader, context: BlockContext, request: CallRequest, gas_max: int, run: Run) -> int:
    """Gas with which `run(gas)`, which runs `request` with that limit, succeeds; at most 1.5 % more than the least.

    Raises RpcError when it succeeds with no amount that is allowed, or cannot start at all.
    """
    highest = _highest(state, context, request, gas_max)
    may_be_transfer = highest >= _TRANSFER_GAS and _is_plain_transfer(state, request)
    if may_be_transfer and _succeeds(run(_TRANSFER_GAS)):
        return _TRANSFER_GAS
    result = run(highest)
    _check_started(result, state, context, replace(request, gas_limit=highest))
    if not _succeeds(result):
        failure = None if result.rejection else failure_of(result)
        if failure is not None and result.halt is not Halt.OUT_OF_GAS:
            raise failure
        raise RpcError(SERVER_ERROR, f"gas required exceeds allowance ({highest})")
    lowest = result.gas_used - 1
    likely = (result.gas_used + result.gas_refunded + _CALL_STIPEND) * 64 // 63
    if likely < highest:
        lowest, highest = (lowest, likely) if _succeeds(run(likely)) else (likely, highest)
    while lowest + 1 < highest and (highest - lowest) * 1_000 >= highest * _ACCEPTED_EXCESS_PERMILLE:
        middle = min((lowest + highest) // 2, 2 * lowest)  # most calls need little more than they use
        if _succeeds(run(middle)):
            highest = middle
        else:
            lowest = middle
    return highest


def _highest(state: StateReader, context: BlockContext, request: CallRequest, gas_max: int) -> int:
    """The most gas that the block, the sender's balance and the node allow."""
    highest = request.gas_limit if request.gas_limit >= _TRANSFER_GAS else context.gas_limit
    if context.fork >= Fork.OSAKA:
        highest = min(highest, TRANSACTION_GAS_MAX)
    if request.max_fee_per_gas:
        available = (state.account(request.sender) or EMPTY_ACCOUNT).balance
        if request.value >= available > 0 or (request.value and not available):
            raise RpcError(SERVER_ERROR, "insufficient funds for transfer")
        available -= request.value
        available -= _BLOB_GAS * len(request.blob_versioned_hashes) * request.max_fee_per_blob_gas
        if available < 0:
            raise RpcError(SERVER_ERROR, "insufficient funds for gas * price + value")
        highest = min(highest, available // request.max_fee_per_gas)
    return min(highest, gas_max)


def _is_plain_transfer(state: StateReader, request: CallRequest) -> bool:
    if request.to is None or request.data:
        return False
    account = state.account(request.to)
    return account is None or account.code_hash == EMPTY_CODE_HASH


def _succeeds(result: CallResult) -> bool:
    return result.rejection is None and result.succeeded


def _check_started(result: CallResult, state: StateReader, context: BlockContext, request: CallRequest) -> None:
    """Raise RpcError when the call could not start for a reason that another amount of gas would not mend."""
    if result.rejection is None:
        return
    if not is_short_of_gas(rejection_reason(result.rejection, state, context, request)):
        message = rejection_message(result.rejection, state, context, request)
        raise RpcError(SERVER_ERROR, f"failed with {request.gas_limit} gas: {message}")
