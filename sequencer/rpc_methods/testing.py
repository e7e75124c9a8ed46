"""testing_buildBlockV1: what block would come of these transactions, without keeping it. Only where it is asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

from core.block import Header
from core.chain import SealedBlock
from core.chain_rules import make_block, next_context
from core.errors import TransactionError
from core.execution import BlockContext, CallRequest, ExecutionOutcome
from core.signature import recover_senders
from core.state import StateReader
from core.transaction import Transaction, TransactionColumns, decode_transaction
from sequencer.jsonrpc.errors import SERVER_ERROR, RpcError, invalid_argument
from sequencer.jsonrpc.hexadecimal import HexError, data, quantity, read_data, read_fixed, read_quantity
from sequencer.jsonrpc.method import Json, Method, heavy
from sequencer.jsonrpc.parameters import BlockReference, Parameters
from sequencer.production import next_gas_limit
from sequencer.rpc_methods.call_failures import rejection_message
from sequencer.rpc_methods.fees import effective_tips
from sequencer.rpc_methods.overrides import read_withdrawals
from sequencer.rpc_methods.services import Services
from sequencer.rpc_methods.shapes import withdrawals_json

__all__ = ["TestingMethods"]

_GAS_LIMIT_TARGET = 60_000_000


class TestingMethods:
    """The "testing" namespace of the execution APIs."""

    __test__ = False  # not a test class, whatever its name begins with

    def __init__(self, services: Services) -> None:
        self._services = services

    def methods(self) -> Mapping[str, Method]:
        """Name to method."""
        return {"testing_buildBlockV1": heavy(self.build_block)}

    def build_block(self, parameters: Parameters) -> Json:
        """(parent hash, payload attributes, raw transactions or null for the mempool's, extra data)."""
        parameters.at_most(4)
        parent = self._services.view.find(BlockReference(hash=parameters.hash(0)))
        if parent is None:
            raise RpcError(SERVER_ERROR, "unknown parent")
        context = self._context(parent, parameters.mapping(1))
        transactions = self._transactions(parameters, context)
        state = self._services.chain.state(parent.number)
        try:
            columns = TransactionColumns.from_transactions(transactions, recover_senders(transactions))
        except TransactionError as error:
            raise RpcError(SERVER_ERROR, str(error)) from error
        outcome = self._services.executor.execute_block(state, context, columns)
        if outcome.rejections and len(parameters) > 2:
            raise RpcError(SERVER_ERROR, _first_rejection(outcome, columns, state, context))
        sealed = make_block(parent, context, columns, outcome, state, parameters.read_or(3, read_data, b""))
        return _envelope(sealed, outcome)

    def _context(self, parent: SealedBlock, attributes: Mapping[str, Any]) -> BlockContext:
        try:
            return next_context(
                parent.block.header,
                self._services.chain.config,
                self._services.hashes.before(parent.number + 1),
                timestamp=read_quantity(attributes.get("timestamp")),
                coinbase=read_fixed(attributes.get("suggestedFeeRecipient"), 20),
                gas_limit=next_gas_limit(parent.block.header, _GAS_LIMIT_TARGET),
                prev_randao=read_fixed(attributes.get("prevRandao"), 32),
                parent_beacon_block_root=read_fixed(attributes.get("parentBeaconBlockRoot", "0x" + "00" * 32), 32),
                withdrawals=read_withdrawals(attributes.get("withdrawals") or []),
            )
        except HexError as error:
            raise invalid_argument(1, str(error)) from error

    def _transactions(self, parameters: Parameters, context: BlockContext) -> list[Transaction]:
        raws: list[bytes] | None = parameters.read_or(2, _read_raws, None)
        if raws is not None:
            try:
                return [decode_transaction(raw) for raw in raws]
            except TransactionError as error:
                raise RpcError(SERVER_ERROR, str(error)) from error
        chosen = self._services.mempool.best(
            context.base_fee_per_gas, gas_max=context.gas_limit, count_max=10_000, bytes_max=2**23
        )
        return [entry.transaction for entry in chosen]


def _read_raws(value: Any) -> list[bytes]:
    if not isinstance(value, list):
        raise HexError("json: cannot unmarshal non-array into Go value of type []hexutil.Bytes")
    return [read_data(one) for one in value]


def _first_rejection(
    outcome: ExecutionOutcome, columns: TransactionColumns, state: StateReader, context: BlockContext
) -> str:
    rejection = outcome.rejections[0]
    tx = columns.transaction(rejection.index)
    request = CallRequest(
        sender=columns.sender[rejection.index].tobytes(),
        to=tx.to,
        gas_limit=tx.gas_limit,
        value=tx.value,
        data=tx.data,
        nonce=tx.nonce,
        max_fee_per_gas=tx.max_fee_per_gas,
        max_priority_fee_per_gas=tx.max_priority_fee_per_gas,
        access_list=tx.access_list,
        max_fee_per_blob_gas=tx.max_fee_per_blob_gas,
        blob_versioned_hashes=tx.blob_versioned_hashes,
        authorizations=tx.authorizations,
        validate=True,
    )
    return rejection_message(rejection, state, context, request)


def _envelope(sealed: SealedBlock, outcome: ExecutionOutcome) -> Json:
    """The Engine API's payload envelope."""
    tips = effective_tips(sealed.block)
    value = sum(tip * gas for tip, gas in zip(tips, outcome.receipts.gas_used.tolist(), strict=True))
    return {
        "executionPayload": _payload(sealed),
        "blockValue": quantity(value),
        "blobsBundle": {"commitments": [], "proofs": [], "blobs": []},
        "executionRequests": [data(one) for one in outcome.requests if len(one) > 1],
        "shouldOverrideBuilder": False,
    }


def _payload(sealed: SealedBlock) -> Json:
    header: Header = sealed.block.header
    raws: Sequence[bytes] = sealed.block.transactions.encoded()
    return {
        "parentHash": data(header.parent_hash),
        "feeRecipient": data(header.coinbase),
        "stateRoot": data(header.state_root),
        "receiptsRoot": data(header.receipts_root),
        "logsBloom": data(header.logs_bloom),
        "prevRandao": data(header.prev_randao),
        "blockNumber": quantity(header.number),
        "gasLimit": quantity(header.gas_limit),
        "gasUsed": quantity(header.gas_used),
        "timestamp": quantity(header.timestamp),
        "extraData": data(header.extra_data),
        "baseFeePerGas": quantity(header.base_fee_per_gas or 0),
        "blockHash": data(sealed.hash),
        "transactions": [data(raw) for raw in raws],
        "withdrawals": withdrawals_json(sealed.block.withdrawals or ()),
        "blobGasUsed": quantity(header.blob_gas_used or 0),
        "excessBlobGas": quantity(header.excess_blob_gas or 0),
    }
