"""The JSON-RPC methods: one module for each kind, and the table that a dispatcher serves."""

from collections.abc import Mapping

from sequencer.jsonrpc.method import Method
from sequencer.rpc_methods.accounts import AccountMethods
from sequencer.rpc_methods.blocks import BlockMethods
from sequencer.rpc_methods.calls import CallMethods
from sequencer.rpc_methods.fees import FeeMethods
from sequencer.rpc_methods.log_queries import LogQueryMethods
from sequencer.rpc_methods.node_info import NodeInfoMethods
from sequencer.rpc_methods.services import MethodLimits, Services
from sequencer.rpc_methods.simulation import SimulationMethods
from sequencer.rpc_methods.submission import SubmissionMethods
from sequencer.rpc_methods.testing import TestingMethods
from sequencer.rpc_methods.traces import TraceMethods

__all__ = ["MethodLimits", "Services", "TestingMethods", "public_methods"]


def public_methods(services: Services) -> dict[str, Method]:
    """Every method that a node serves, by name."""
    tables: list[Mapping[str, Method]] = [
        kind(services).methods()
        for kind in (
            AccountMethods,
            BlockMethods,
            CallMethods,
            FeeMethods,
            LogQueryMethods,
            NodeInfoMethods,
            SimulationMethods,
            SubmissionMethods,
            TraceMethods,
        )
    ]
    methods = {name: method for table in tables for name, method in table.items()}
    assert len(methods) == sum(map(len, tables)), "no method is defined twice"
    return methods
