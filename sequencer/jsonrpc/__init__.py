"""JSON-RPC 2.0 over HTTP and WebSocket: transport, limits, errors and parameter reading, without any method."""

from sequencer.jsonrpc.application import ApplicationLimits, JsonRpcApplication
from sequencer.jsonrpc.dispatcher import Dispatcher, DispatcherLimits
from sequencer.jsonrpc.errors import RpcError
from sequencer.jsonrpc.server import JsonRpcServer

__all__ = [
    "ApplicationLimits",
    "Dispatcher",
    "DispatcherLimits",
    "JsonRpcApplication",
    "JsonRpcServer",
    "RpcError",
]
