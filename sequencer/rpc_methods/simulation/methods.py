"""eth_simulateV1: the method, and the JSON of what it answers."""

from collections.abc import Mapping

from core.chain_rules import BLOCK_HASHES_MAX
from core.execution import Halt
from core.state import StateReader
from sequencer.jsonrpc.errors import REVERTED
from sequencer.jsonrpc.hexadecimal import data, quantity
from sequencer.jsonrpc.method import Json, Method, heavy
from sequencer.jsonrpc.parameters import Parameters
from sequencer.rpc_methods.call_failures import revert_message, vm_message
from sequencer.rpc_methods.services import Services
from sequencer.rpc_methods.shapes import TransactionPlace, header_json, log_json, transaction_json, withdrawals_json
from sequencer.rpc_methods.simulation.block import SimulatedBlock, SimulatedCall, Simulator
from sequencer.rpc_methods.simulation.plan import in_order, read_plan

__all__ = ["SimulationMethods"]

_VM_ERROR = -32015


class SimulationMethods:
    """Answers with blocks that nobody will make."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def methods(self) -> Mapping[str, Method]:
        """Name to method."""
        return {"eth_simulateV1": heavy(self.simulate)}

    def simulate(self, parameters: Parameters) -> Json:
        parameters.at_most(2)
        services = self._services
        plan = parameters.read(0, read_plan)
        base = services.view.need(parameters.block(1))
        simulator = Simulator(
            services.executor,
            services.chain.config,
            gas_max=services.limits.call_gas_max,
            validate=plan.validate,
            trace_transfers=plan.trace_transfers,
        )
        parent = base.block.header
        hashes = (*services.hashes.before(base.number), base.hash)
        state: StateReader = services.chain.state(base.number)
        blocks: list[Json] = []
        for wanted in in_order(
            plan.blocks,
            base_number=base.number,
            base_timestamp=parent.timestamp,
            blocks_max=services.limits.simulated_blocks_max,
        ):
            block = simulator.run(wanted, parent, hashes[-BLOCK_HASHES_MAX:], state)
            blocks.append(_block_json(block, full_transactions=plan.full_transactions))
            parent, state, hashes = block.header, block.state, (*hashes, block.hash)
        return blocks


def _block_json(block: SimulatedBlock, *, full_transactions: bool) -> Json:
    header = block.header
    places = [
        TransactionPlace(block.hash, header.number, header.timestamp, index, header.base_fee_per_gas)
        for index in range(len(block.calls))
    ]
    if full_transactions:
        transactions: list[Json] = [
            transaction_json(call.transaction, call.hash, call.sender, place)
            for call, place in zip(block.calls, places, strict=True)
        ]
    else:
        transactions = [data(call.hash) for call in block.calls]
    body: dict[str, Json] = {
        **header_json(header, block.hash),
        "size": quantity(block.size_bytes),
        "transactions": transactions,
        "uncles": [],
        "calls": [_call_json(call, place) for call, place in zip(block.calls, places, strict=True)],
    }
    if header.withdrawals_root is not None:
        body["withdrawals"] = withdrawals_json(block.context.withdrawals)
    return body


def _call_json(call: SimulatedCall, place: TransactionPlace) -> Json:
    result = call.result
    body: dict[str, Json] = {
        "returnData": data(result.output if result.succeeded else b""),
        "logs": [log_json(one.log, place, call.hash, one.index) for one in call.emitted if one.stands],
        "gasUsed": quantity(result.gas_used),
        "maxUsedGas": quantity(result.gas_used + result.gas_refunded),
        "status": quantity(int(result.succeeded)),
    }
    if result.halt is Halt.REVERT:
        body["error"] = {"code": REVERTED, "message": revert_message(result.output), "data": data(result.output)}
    elif not result.succeeded:
        body["error"] = {"code": _VM_ERROR, "message": vm_message(result.halt)}
    return body
