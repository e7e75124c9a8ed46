"""eth_call, eth_estimateGas, eth_createAccessList: running messages that change nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from core.chain_rules import context_of, next_context
from core.execution import BlockContext, CallRequest, CallResult
from core.state import EMPTY_ACCOUNT, StateReader
from core.transaction import AccessListEntry
from sequencer.jsonrpc.errors import SERVER_ERROR, RpcError
from sequencer.jsonrpc.hexadecimal import data, quantity
from sequencer.jsonrpc.method import Json, Method, heavy
from sequencer.jsonrpc.parameters import BlockReference, Parameters
from sequencer.rpc_methods.call_arguments import CallArguments, read_call_arguments
from sequencer.rpc_methods.call_failures import failure_of, rejection_message
from sequencer.rpc_methods.gas_estimation import estimate_gas
from sequencer.rpc_methods.node_info import active_precompiles
from sequencer.rpc_methods.overrides import (
    BlockOverrides,
    StateOverrides,
    overridden_context,
    overridden_state,
    read_block_overrides,
    read_state_overrides,
)
from sequencer.rpc_methods.services import Services
from sequencer.rpc_methods.shapes import created_address

__all__ = ["CallEnvironment", "CallMethods", "call_environment"]

_ACCESS_LIST_ROUNDS_MAX = 16


@dataclass(frozen=True, slots=True)
class CallEnvironment:
    """The state and the block in which a call runs."""

    state: StateReader
    context: BlockContext


def call_environment(
    services: Services,
    reference: BlockReference,
    state_overrides: StateOverrides | None = None,
    block_overrides: BlockOverrides | None = None,
) -> CallEnvironment:
    """On top of a block's state, as if in that block (in the next one for "pending"), with overrides."""
    sealed = services.view.need(reference)
    header, config = sealed.block.header, services.chain.config
    state: StateReader = services.chain.state(sealed.number)
    if reference.tag == "pending":
        timestamp = max(header.timestamp, services.clock.time_s())
        hashes = services.hashes.before(header.number + 1)
        context = next_context(header, config, hashes, timestamp=timestamp, coinbase=header.coinbase)
    else:
        context = context_of(header, config, services.hashes.before(header.number))
    if block_overrides is not None:
        context = overridden_context(context, block_overrides, config)
    if state_overrides is not None:
        state, moves = overridden_state(state, state_overrides, active_precompiles(context.fork))
        context = replace(context, precompile_moves=moves)
    return CallEnvironment(state, context)


class CallMethods:
    """Runs single messages on the executor."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._gas_max = services.limits.call_gas_max

    def methods(self) -> Mapping[str, Method]:
        """Name to method."""
        return {
            "eth_call": heavy(self.call),
            "eth_estimateGas": heavy(self.estimate_gas),
            "eth_createAccessList": heavy(self.create_access_list),
        }

    def call(self, parameters: Parameters) -> Json:
        parameters.at_most(4)
        arguments, environment = self._read(parameters)
        request = arguments.request(self._gas_max)
        result = self._run(environment, request)
        failure = failure_of(result)
        if failure is not None:
            raise failure
        return data(result.output)

    def estimate_gas(self, parameters: Parameters) -> Json:
        parameters.at_most(4)
        arguments, environment = self._read(parameters)
        request = arguments.request(self._gas_max)
        state, context = environment.state, environment.context

        def run(gas: int) -> CallResult:
            return self._services.executor.call(state, context, replace(request, gas_limit=gas))

        return quantity(estimate_gas(state, context, request, self._gas_max, run))

    def create_access_list(self, parameters: Parameters) -> Json:
        """The list with which the call touches nothing unannounced: run until it stays the same."""
        parameters.at_most(3)
        arguments, environment = self._read(parameters)
        unlisted = self._unlisted(arguments, environment)
        access_list = arguments.access_list or ()
        for _ in range(_ACCESS_LIST_ROUNDS_MAX):
            request = arguments.with_access_list(access_list).request(self._gas_max)
            result = self._run(environment, request)
            found = _listed(result.accessed, unlisted, arguments.access_list or ())
            if found == access_list:
                break
            access_list = found
        body: dict[str, Json] = {
            "accessList": [
                {"address": data(entry.address), "storageKeys": [data(key) for key in entry.storage_keys]}
                for entry in access_list
            ],
            "gasUsed": quantity(result.gas_used),
        }
        failure = failure_of(result)
        if failure is not None:
            body["error"] = result.halt.value
        return body

    def _read(self, parameters: Parameters) -> tuple[CallArguments, CallEnvironment]:
        arguments = parameters.read(0, read_call_arguments)
        arguments.check(self._services.chain.config.chain_id)
        state_overrides = parameters.read_or(2, read_state_overrides, StateOverrides())
        block_overrides = parameters.read_or(3, read_block_overrides, BlockOverrides())
        environment = call_environment(self._services, parameters.block(1), state_overrides, block_overrides)
        return arguments, environment

    def _run(self, environment: CallEnvironment, request: CallRequest) -> CallResult:
        result = self._services.executor.call(environment.state, environment.context, request)
        if result.rejection is not None:
            message = rejection_message(result.rejection, environment.state, environment.context, request)
            raise RpcError(SERVER_ERROR, f"err: {message} (supplied gas {request.gas_limit})")
        return result

    def _unlisted(self, arguments: CallArguments, environment: CallEnvironment) -> frozenset[bytes]:
        """Addresses that are warm anyway: listing them would cost and save nothing."""
        context = environment.context
        sender = environment.state.account(arguments.sender) or EMPTY_ACCOUNT
        nonce = sender.nonce if arguments.nonce is None else arguments.nonce
        to = arguments.to or created_address(arguments.sender, nonce)
        return active_precompiles(context.fork) | {arguments.sender, to, context.coinbase}


def _listed(
    accessed: tuple[AccessListEntry, ...], unlisted: frozenset[bytes], given: tuple[AccessListEntry, ...]
) -> tuple[AccessListEntry, ...]:
    """What was touched and is worth listing, and what the caller listed, in ascending order."""
    slots: dict[bytes, set[bytes]] = {}
    for entry in (*accessed, *given):
        if entry.storage_keys or entry.address not in unlisted:
            slots.setdefault(entry.address, set()).update(entry.storage_keys)
    return tuple(AccessListEntry(address, tuple(sorted(slots[address]))) for address in sorted(slots))
