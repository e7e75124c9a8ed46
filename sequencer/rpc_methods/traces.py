"""debug_trace*: what transactions and calls did, instruction by instruction or message by message."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.chain import SealedBlock
from core.chain_rules import context_of
from core.execution import CallFrame, Halt, StructLog, TransactionTrace
from core.receipts import Log
from sequencer.jsonrpc.errors import SERVER_ERROR, RpcError, invalid_params
from sequencer.jsonrpc.hexadecimal import HexError, data, quantity
from sequencer.jsonrpc.method import Json, Method, heavy
from sequencer.jsonrpc.parameters import BlockReference, Parameters
from sequencer.rpc_methods.call_arguments import read_call_arguments
from sequencer.rpc_methods.call_failures import revert_message
from sequencer.rpc_methods.calls import call_environment
from sequencer.rpc_methods.overrides import read_block_overrides, read_state_overrides
from sequencer.rpc_methods.services import Services

__all__ = ["TraceMethods", "TraceOptions", "read_trace_options"]

_WORD = 32
_STORAGE_OPERATIONS = frozenset({"SLOAD", "SSTORE"})


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """geth's TraceConfig. `call_tracer` picks callTracer over the struct logger."""

    call_tracer: bool = False
    only_top_call: bool = False
    with_logs: bool = False
    with_stack: bool = True
    with_storage: bool = True
    with_memory: bool = False
    with_return_data: bool = False
    struct_logs_max: int = 0


def read_trace_options(value: Any) -> TraceOptions:
    """Decode a tracer's configuration. Raises HexError, or RpcError for a tracer that there is not."""
    if not isinstance(value, dict):
        raise HexError("json: cannot unmarshal non-object into Go value of type tracers.TraceConfig")
    tracer = value.get("tracer") or ""
    if tracer not in ("", "callTracer", "structLogger"):
        raise invalid_params(
            f"tracer {str(tracer)[:60]!r} is not supported; there are callTracer and the struct logger"
        )
    settings = value.get("tracerConfig") or {}
    if not isinstance(settings, dict):
        raise HexError("json: cannot unmarshal non-object into tracerConfig")
    limit = value.get("limit") or 0
    if not isinstance(limit, int) or limit < 0:
        raise HexError("json: cannot unmarshal limit into Go value of type int")
    return TraceOptions(
        call_tracer=tracer == "callTracer",
        only_top_call=settings.get("onlyTopCall") is True,
        with_logs=settings.get("withLog") is True,
        with_stack=value.get("disableStack") is not True,
        with_storage=value.get("disableStorage") is not True,
        with_memory=value.get("enableMemory") is True,
        with_return_data=value.get("enableReturnData") is True,
        struct_logs_max=limit,
    )


class TraceMethods:
    """Runs again what was run, and tells."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def methods(self) -> Mapping[str, Method]:
        """Name to method."""
        return {
            "debug_traceTransaction": heavy(self.trace_transaction),
            "debug_traceBlockByNumber": heavy(self.trace_block_by_number),
            "debug_traceBlockByHash": heavy(self.trace_block_by_hash),
            "debug_traceCall": heavy(self.trace_call),
        }

    def trace_transaction(self, parameters: Parameters) -> Json:
        parameters.at_most(2)
        transaction_hash = parameters.hash(0)
        options = parameters.read_or(1, read_trace_options, TraceOptions())
        place = self._services.chain.find_transaction(transaction_hash)
        if place is None:
            raise RpcError(SERVER_ERROR, "transaction not found")
        sealed = self._services.chain.block(place.number)
        assert sealed is not None
        (trace,) = self._trace(sealed, [place.row], options)
        return self._shown(trace, options)

    def trace_block_by_number(self, parameters: Parameters) -> Json:
        parameters.at_most(2)
        return self._trace_block(parameters.required_number(0), parameters)

    def trace_block_by_hash(self, parameters: Parameters) -> Json:
        parameters.at_most(2)
        return self._trace_block(BlockReference(hash=parameters.hash(0)), parameters)

    def trace_call(self, parameters: Parameters) -> Json:
        parameters.at_most(3)
        arguments = parameters.read(0, read_call_arguments)
        arguments.check(self._services.chain.config.chain_id)
        parameters.optional_mapping(2)  # refuses what is no object before its members are looked at
        options = parameters.read_or(2, read_trace_options, TraceOptions())
        environment = call_environment(
            self._services,
            parameters.block(1),
            parameters.read_or(2, lambda config: read_state_overrides(config.get("stateOverrides")), None),
            parameters.read_or(2, lambda config: read_block_overrides(config.get("blockOverrides")), None),
        )
        trace = self._services.executor.trace_call(
            environment.state,
            environment.context,
            arguments.request(self._services.limits.call_gas_max),
            struct_logs=not options.call_tracer,
        )
        return self._shown(trace, options)

    def _trace_block(self, reference: BlockReference, parameters: Parameters) -> Json:
        options = parameters.read_or(1, read_trace_options, TraceOptions())
        sealed = self._services.view.find(reference)
        if sealed is None:
            name = f"#{reference.number}" if reference.hash is None else data(reference.hash)
            raise RpcError(SERVER_ERROR, f"block {name} not found")
        traces = self._trace(sealed, range(len(sealed.block.transactions)), options)
        return [{"txHash": data(trace.hash), "result": self._shown(trace, options)} for trace in traces]

    def _trace(self, sealed: SealedBlock, rows: Sequence[int], options: TraceOptions) -> tuple[TransactionTrace, ...]:
        if sealed.number == 0:
            raise RpcError(SERVER_ERROR, "genesis is not traceable")
        block = sealed.block
        context = context_of(
            block.header,
            self._services.chain.config,
            self._services.hashes.before(sealed.number),
            withdrawals=block.withdrawals or (),
            ommers=block.ommers,
        )
        state = self._services.chain.state(sealed.number - 1)
        struct_logs = not options.call_tracer
        return self._services.executor.trace(state, context, block.transactions, rows, struct_logs=struct_logs)

    def _shown(self, trace: TransactionTrace, options: TraceOptions) -> Json:
        if options.call_tracer:
            return _frame_json(trace.frame, options, gas_used=trace.gas_used)
        limit = self._services.limits.struct_logs_max
        if options.struct_logs_max:
            limit = min(limit, options.struct_logs_max)
        return {
            "gas": trace.gas_used,
            "failed": not trace.succeeded,
            "returnValue": data(trace.output),
            "structLogs": [_struct_log_json(one, options) for one in trace.struct_logs[:limit]],
        }


def _struct_log_json(one: StructLog, options: TraceOptions) -> Json:
    body: dict[str, Json] = {
        "pc": one.pc,
        "op": one.op_name,
        "gas": one.gas,
        "gasCost": one.gas_cost,
        "depth": one.depth,
    }
    if one.halt is not Halt.NONE:
        body["error"] = one.halt.value
    if options.with_stack:
        body["stack"] = [quantity(value) for value in one.stack]
    if options.with_memory:
        body["memory"] = [data(one.memory[at : at + _WORD]) for at in range(0, len(one.memory), _WORD)]
    if options.with_return_data and one.return_data:
        body["returnData"] = data(one.return_data)
    if options.with_storage and one.op_name in _STORAGE_OPERATIONS:
        body["storage"] = {
            data(slot.to_bytes(_WORD, "big")): data(value.to_bytes(_WORD, "big")) for slot, value in one.storage.items()
        }
    if one.refund:
        body["refund"] = one.refund
    return body


def _frame_json(frame: CallFrame, options: TraceOptions, *, gas_used: int | None = None, undone: bool = False) -> Json:
    """A message as callTracer shows it; the outermost one's gas is the whole transaction's.

    `undone` says that a message above it failed, so that its logs never came to be.
    """
    undone = undone or frame.halt is not Halt.NONE
    body: dict[str, Json] = {
        "from": data(frame.sender),
        "gas": quantity(frame.gas),
        "gasUsed": quantity(frame.gas_used if gas_used is None else gas_used),
        "to": None if frame.to is None else data(frame.to),
        "input": data(frame.data),
        "type": frame.kind,
    }
    if frame.kind not in ("DELEGATECALL", "STATICCALL"):
        body["value"] = quantity(frame.value)
    if frame.output:
        body["output"] = data(frame.output)
    if frame.halt is not Halt.NONE:
        body["error"] = frame.halt.value
        if frame.halt is Halt.REVERT and revert_message(frame.output) != Halt.REVERT.value:
            body["revertReason"] = revert_message(frame.output).removeprefix(f"{Halt.REVERT.value}: ")
    if options.with_logs and frame.logs and not undone:
        body["logs"] = [
            _frame_log_json(log, position) for log, position in zip(frame.logs, _positions(frame), strict=True)
        ]
    if frame.calls and not options.only_top_call:
        body["calls"] = [_frame_json(call, options, undone=undone) for call in frame.calls]
    return body


def _positions(frame: CallFrame) -> Sequence[int]:
    return frame.log_positions or (0,) * len(frame.logs)


def _frame_log_json(log: Log, position: int) -> Json:
    return {
        "address": data(log.address),
        "topics": [data(topic) for topic in log.topics],
        "data": data(log.data),
        "position": quantity(position),
    }
