"""One simulated block: its calls run in order on a pretended state, then everything that a header commits to."""

from dataclasses import dataclass, replace

from core import rlp
from core.block import Header, encode_header, header_hash, withdrawal_item
from core.chain_rules import (
    BLOB_GAS,
    excess_blob_gas_after,
    next_base_fee,
    requests_hash_of,
    withdrawals_root_of,
)
from core.execution import BlockContext, CallResult, Executor, RejectionReason
from core.fork import ChainConfig, Fork
from core.hashing import EMPTY_LIST_HASH, keccak256
from core.overlay import OverlaidState
from core.receipts import Log, ReceiptColumns, bloom_union
from core.state import EMPTY_ACCOUNT, StateDifference, StateReader
from core.system_contracts import BEACON_ROOTS, HISTORY
from core.transaction import Transaction, TransactionColumns, TransactionType, encode_transaction
from core.trie import ordered_root
from sequencer.jsonrpc.errors import INTERNAL_ERROR, INVALID_PARAMS, RpcError
from sequencer.rpc_methods.call_arguments import CallArguments
from sequencer.rpc_methods.call_failures import rejection_message, rejection_reason
from sequencer.rpc_methods.node_info import active_precompiles
from sequencer.rpc_methods.overrides import overridden_state
from sequencer.rpc_methods.simulation.plan import SimulatedCalls
from sequencer.rpc_methods.simulation.transfers import NumberedLog, emitted_logs

__all__ = ["SimulatedBlock", "SimulatedCall", "Simulator"]

_BLOCK_GAS_LIMIT_REACHED = -38015
_REJECTION_CODES = {
    RejectionReason.NONCE_TOO_LOW: -38010,
    RejectionReason.NONCE_TOO_HIGH: -38011,
    RejectionReason.FEE_BELOW_BASE_FEE: -38012,
    RejectionReason.INTRINSIC_GAS: -38013,
    RejectionReason.INSUFFICIENT_FUNDS: -38014,
    RejectionReason.SENDER_NOT_EOA: -38024,
    RejectionReason.INITCODE_TOO_LARGE: -38025,
    RejectionReason.PRIORITY_FEE_ABOVE_MAX_FEE: INVALID_PARAMS,
}
_EMPTY = TransactionColumns.empty()


@dataclass(frozen=True, slots=True)
class SimulatedCall:
    """A call that ran, as the unsigned transaction that it would be.

    `emitted` are all its logs, undone ones too, with transfers when they were asked for.
    """

    transaction: Transaction
    raw: bytes
    hash: bytes
    sender: bytes
    result: CallResult
    emitted: list[NumberedLog]


@dataclass(frozen=True, slots=True)
class SimulatedBlock:
    """A finished block; `state` is the one after it."""

    header: Header
    hash: bytes
    size_bytes: int
    calls: tuple[SimulatedCall, ...]
    context: BlockContext
    state: StateReader


class Simulator:
    """Makes simulated blocks one after the other. `gas_left` is what all calls together may still use."""

    def __init__(
        self, executor: Executor, config: ChainConfig, *, gas_max: int, validate: bool, trace_transfers: bool
    ) -> None:
        self._executor = executor
        self._config = config
        self._gas_left = gas_max
        self._validate = validate
        self._trace_transfers = trace_transfers

    def run(
        self, wanted: SimulatedCalls, parent: Header, hashes: tuple[bytes, ...], state: StateReader
    ) -> SimulatedBlock:
        """The block that `wanted` describes on `parent`; `hashes` are its ancestors', `state` the parent's.

        Raises RpcError when a call may not start.
        """
        context = self._context(wanted, parent, hashes)
        state, moves = overridden_state(state, wanted.state, active_precompiles(context.fork))
        if wanted.calls:
            state = OverlaidState(state, self._opening(state, context))
            context = replace(context, precompile_moves=moves)
        calls: list[SimulatedCall] = []
        for arguments in wanted.calls:
            call = self._call(arguments, state, context, calls)
            self._gas_left -= call.result.gas_used
            state = OverlaidState(state, call.result.difference)
            calls.append(call)
        closing = self._executor.execute_block(state, replace(context, precompile_moves=()), _EMPTY)
        after = OverlaidState(state, closing.difference)
        header = _header(parent, hashes[-1], context, tuple(calls), after.root, closing.requests)
        return SimulatedBlock(
            header, header_hash(header), _size_bytes(header, calls, context), tuple(calls), context, after
        )

    def _context(self, wanted: SimulatedCalls, parent: Header, hashes: tuple[bytes, ...]) -> BlockContext:
        block = wanted.block
        assert block.number is not None, "the plan gave it a number"
        assert block.timestamp is not None, "the plan gave it a timestamp"
        fork = self._config.fork_at(block.number, block.timestamp)
        base_fee = 0
        if fork >= Fork.LONDON and block.base_fee_per_gas is not None:
            base_fee = block.base_fee_per_gas
        elif fork >= Fork.LONDON and self._validate:
            base_fee = next_base_fee(parent)
        return BlockContext(
            fork=fork,
            chain_id=self._config.chain_id,
            number=block.number,
            timestamp=block.timestamp,
            gas_limit=parent.gas_limit if block.gas_limit is None else block.gas_limit,
            coinbase=parent.coinbase if block.coinbase is None else block.coinbase,
            base_fee_per_gas=base_fee,
            prev_randao=block.prev_randao or bytes(32),
            difficulty=parent.difficulty if block.difficulty is None or fork >= Fork.PARIS else block.difficulty,
            excess_blob_gas=excess_blob_gas_after(parent, fork) if fork >= Fork.CANCUN else 0,
            parent_beacon_block_root=block.parent_beacon_block_root or bytes(32),
            block_hashes=hashes,
            withdrawals=block.withdrawals or (),
            blob_base_fee_override=block.blob_base_fee,
        )

    def _opening(self, state: StateReader, context: BlockContext) -> StateDifference:
        """What the system calls at a block's start do: those at its end are run when its calls are done."""
        outcome = self._executor.execute_block(state, replace(context, withdrawals=()), _EMPTY)
        opened = (BEACON_ROOTS.address, HISTORY.address)
        rows = [row for row, address in enumerate(outcome.difference.address) if address.tobytes() in opened]
        return outcome.difference.take(rows)

    def _call(
        self, arguments: CallArguments, state: StateReader, context: BlockContext, done: list[SimulatedCall]
    ) -> SimulatedCall:
        """Run the call that follows those that are `done` in the block."""
        arguments.check(self._config.chain_id)
        block_gas_left = context.gas_limit - sum(call.result.gas_used for call in done)
        first_log = sum(len(call.emitted) for call in done)
        gas = block_gas_left if arguments.gas is None else arguments.gas
        if gas > block_gas_left:
            message = f"block gas limit reached: remaining: {block_gas_left}, required: {gas}"
            raise RpcError(_BLOCK_GAS_LIMIT_REACHED, message)
        gas = min(gas, self._gas_left)
        nonce = arguments.nonce
        if nonce is None:
            nonce = (state.account(arguments.sender) or EMPTY_ACCOUNT).nonce
        request = replace(arguments.request(gas, validate=self._validate), nonce=nonce, gas_limit=gas)
        result = self._executor.call(state, context, request)
        if result.rejection is not None:
            reason = rejection_reason(result.rejection, state, context, request)
            message = rejection_message(result.rejection, state, context, request)
            raise RpcError(_REJECTION_CODES.get(reason, INTERNAL_ERROR), f"err: {message} (supplied gas {gas})")
        frame = self._executor.trace_call(state, context, request, struct_logs=False).frame
        emitted = emitted_logs(frame, first_log, with_transfers=self._trace_transfers)
        transaction = arguments.unsigned_transaction(nonce, gas, self._config.chain_id)
        raw = _encode_unsigned(transaction)
        return SimulatedCall(transaction, raw, keccak256(raw), arguments.sender, result, emitted)


def _encode_unsigned(tx: Transaction) -> bytes:
    """Canonical bytes with v = r = s = 0."""
    raw = encode_transaction(tx)
    if tx.type != TransactionType.LEGACY:
        return raw
    fields = rlp.read_list(rlp.decode(raw), "transaction")
    return rlp.encode([*fields[:6], b"", b"", b""])


def _header(
    parent: Header,
    parent_hash: bytes,
    context: BlockContext,
    calls: tuple[SimulatedCall, ...],
    state_root: bytes,
    requests: tuple[bytes, ...],
) -> Header:
    fork = context.fork
    receipts = ReceiptColumns.from_rows([_receipt_row(call) for call in calls])
    blobs = sum(len(call.transaction.blob_versioned_hashes) for call in calls)
    return Header(
        parent_hash=parent_hash,
        ommers_hash=EMPTY_LIST_HASH,
        coinbase=context.coinbase,
        state_root=state_root,
        transactions_root=ordered_root([call.raw for call in calls]),
        receipts_root=ordered_root(receipts.encoded()),
        logs_bloom=bloom_union(receipts.blooms()),
        difficulty=context.difficulty,
        number=context.number,
        gas_limit=context.gas_limit,
        gas_used=sum(call.result.gas_used for call in calls),
        timestamp=context.timestamp,
        extra_data=b"",
        prev_randao=context.prev_randao,
        nonce=bytes(8),
        base_fee_per_gas=context.base_fee_per_gas if fork >= Fork.LONDON else None,
        withdrawals_root=withdrawals_root_of(context.withdrawals) if fork >= Fork.SHANGHAI else None,
        blob_gas_used=BLOB_GAS * blobs if fork >= Fork.CANCUN else None,
        excess_blob_gas=context.excess_blob_gas if fork >= Fork.CANCUN else None,
        parent_beacon_block_root=context.parent_beacon_block_root if fork >= Fork.CANCUN else None,
        requests_hash=requests_hash_of(requests) if fork >= Fork.PRAGUE else None,
    )


def _receipt_row(call: SimulatedCall) -> tuple[int, bool, int, tuple[Log, ...]]:
    logs = call.result.logs if call.result.succeeded else ()
    return int(call.transaction.type), call.result.succeeded, call.result.gas_used, logs


def _size_bytes(header: Header, calls: list[SimulatedCall], context: BlockContext) -> int:
    items: list[rlp.Item] = [
        rlp.decode(encode_header(header)),
        [rlp.decode(call.raw) if call.raw[0] >= 0xC0 else call.raw for call in calls],
        [],
    ]
    if context.fork >= Fork.SHANGHAI:
        items.append([withdrawal_item(one) for one in context.withdrawals])
    return len(rlp.encode(items))
