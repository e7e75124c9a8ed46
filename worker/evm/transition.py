"""Executing a transition file's block, and its outcome in the form of geth's `evm t8n`: result and alloc.

Knows nothing of files or command lines.
"""

from collections.abc import Iterator
from typing import Any

from core import rlp
from core.chain_rules import blob_base_fee, commitments_of
from core.execution import ExecutionOutcome, Executor
from core.fork import Fork
from core.hashing import keccak256
from core.memory_state import AccountContents, MemoryState
from core.receipts import Log, bloom_of_logs
from core.transaction import TransactionColumns, transaction_hash
from worker.evm.trace_lines import trace_lines
from worker.evm.transition_file import Transition

__all__ = ["alloc_of", "run_transition", "trace_transition"]


def run_transition(
    transition: Transition, executor: Executor, *, whole_block: bool = True
) -> tuple[dict[str, Any], MemoryState, TransactionColumns]:
    """(result as geth's t8n writes it, the state after, the transactions that reached the executor).

    With `whole_block`, system calls, withdrawals and requests are part of it; then a Prague or later state must hold
    the request contracts, or the executor raises BlockError. Without, the transactions alone are run.
    """
    state = MemoryState(transition.accounts)
    rows = [row for row, one in enumerate(transition.transactions) if one.transaction is not None]
    valid = [transition.transactions[row] for row in rows]
    columns = TransactionColumns.from_transactions(
        [one.transaction for one in valid if one.transaction is not None], [one.sender for one in valid]
    )
    execute = executor.execute_block if whole_block else executor.execute_transactions
    outcome = execute(state, transition.context, columns)
    refused = {row: one.error for row, one in enumerate(transition.transactions) if one.transaction is None}
    refused |= {rows[one.index]: f"{one.reason.value}: {one.detail}" for one in outcome.rejections}
    return _result(transition, columns, outcome, state, refused), state.apply(outcome.difference), columns


def trace_transition(
    transition: Transition, executor: Executor, columns: TransactionColumns, *, whole_block: bool = True
) -> Iterator[tuple[int, Iterator[str]]]:
    """(row of `columns`, lines of its trace) of each transaction that `run_transition` includes, run alike."""
    state = MemoryState(transition.accounts)
    execute = executor.execute_block if whole_block else executor.execute_transactions
    rejected = {one.index for one in execute(state, transition.context, columns).rejections}
    rows = [row for row in range(len(columns)) if row not in rejected]
    tell = executor.trace if whole_block else executor.trace_transactions
    traces = tell(state, transition.context, columns, rows, struct_logs=True)
    return ((row, trace_lines(trace)) for row, trace in zip(rows, traces, strict=True))


def alloc_of(state: MemoryState) -> dict[str, Any]:
    """Every account of a state, as geth's alloc files write them."""
    return {_hex(address): _account(one) for address, one in sorted(state.accounts.items())}


def _result(
    transition: Transition,
    columns: TransactionColumns,
    outcome: ExecutionOutcome,
    state: MemoryState,
    refused: dict[int, str],
) -> dict[str, Any]:
    context = transition.context
    included = columns.take(outcome.included)
    commitments = commitments_of(context, included, outcome, state)
    logs = [log for row in range(len(outcome.receipts)) for log in outcome.receipts.logs(row)]
    result: dict[str, Any] = {
        "stateRoot": _hex(commitments.state_root),
        "txRoot": _hex(commitments.transactions_root),
        "receiptsRoot": _hex(commitments.receipts_root),
        "logsHash": _hex(keccak256(rlp.encode([[log.address, list(log.topics), log.data] for log in logs]))),
        "logsBloom": _hex(commitments.logs_bloom),
        "receipts": _receipts(context.base_fee_per_gas, included, outcome),
        "gasUsed": hex(commitments.gas_used),
        "currentDifficulty": hex(context.difficulty) if context.fork < Fork.PARIS else None,
        "currentBaseFee": hex(context.base_fee_per_gas) if context.fork >= Fork.LONDON else None,
    }
    if refused:
        result["rejected"] = [{"index": index, "error": error} for index, error in sorted(refused.items())]
    if commitments.withdrawals_root is not None:
        result["withdrawalsRoot"] = _hex(commitments.withdrawals_root)
    if commitments.blob_gas_used is not None:
        result["currentExcessBlobGas"] = hex(context.excess_blob_gas)
        result["blobGasUsed"] = hex(commitments.blob_gas_used)
        result["currentBlobGasPrice"] = hex(blob_base_fee(context.excess_blob_gas, context.fork))
    if commitments.requests_hash is not None:
        result["requestsHash"] = _hex(commitments.requests_hash)
        result["requests"] = [_hex(one) for one in outcome.requests]
    return result


def _receipts(base_fee: int, included: TransactionColumns, outcome: ExecutionOutcome) -> list[dict[str, Any]]:
    receipts, log_index = [], 0
    cumulative = outcome.receipts.cumulative_gas_used().tolist()
    for row, total in enumerate(cumulative):
        tx, logs = included.transaction(row), outcome.receipts.logs(row)
        identity = transaction_hash(tx)
        sender = included.sender[row].tobytes()
        created = _created(sender, tx.nonce) if tx.to is None else bytes(20)
        receipts.append(
            {
                "type": hex(tx.type),
                "root": "0x",
                "status": hex(int(outcome.receipts.succeeded[row])),
                "cumulativeGasUsed": hex(total),
                "logsBloom": _hex(bloom_of_logs(logs)),
                "logs": [_log(log, log_index + place, row, identity) for place, log in enumerate(logs)] or None,
                "transactionHash": _hex(identity),
                "contractAddress": _hex(created),
                "gasUsed": hex(int(outcome.receipts.gas_used[row])),
                "effectiveGasPrice": hex(min(tx.max_fee_per_gas, base_fee + tx.max_priority_fee_per_gas)),
                "blockHash": _hex(bytes(32)),
                "transactionIndex": hex(row),
            }
        )
        log_index += len(logs)
    return receipts


def _log(log: Log, index: int, row: int, identity: bytes) -> dict[str, Any]:
    return {
        "address": _hex(log.address),
        "topics": [_hex(topic) for topic in log.topics],
        "data": _hex(log.data),
        "transactionHash": _hex(identity),
        "transactionIndex": hex(row),
        "logIndex": hex(index),
        "blockHash": _hex(bytes(32)),
        "removed": False,
    }


def _created(sender: bytes, nonce: int) -> bytes:
    return keccak256(rlp.encode([sender, rlp.encode_int(nonce)]))[12:]


def _account(one: AccountContents) -> dict[str, Any]:
    account: dict[str, Any] = {"balance": hex(one.balance)}
    if one.nonce:
        account["nonce"] = hex(one.nonce)
    if one.code:
        account["code"] = _hex(one.code)
    storage = {_word(slot): _word(value) for slot, value in sorted(one.storage.items()) if value}
    return account | ({"storage": storage} if storage else {})


def _word(value: int) -> str:
    return f"0x{value:064x}"


def _hex(raw: bytes) -> str:
    return f"0x{raw.hex()}"
