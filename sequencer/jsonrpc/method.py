"""What a JSON-RPC method is to the dispatcher: a name, a function of its parameters, and where it may run."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from sequencer.jsonrpc.parameters import Parameters

__all__ = ["Connection", "Json", "Method", "MethodCost", "connected", "heavy", "light"]

Json = Any
"""Whatever orjson writes: None, bool, int, str, list, dict."""


class MethodCost(Enum):
    """Where a method runs: on the event loop, on the bounded thread pool, or as a coroutine of its own."""

    LIGHT = "light"
    HEAVY = "heavy"
    CONNECTED = "connected"


class Connection(Protocol):
    """The other end of a call: only a WebSocket can be told of things later."""

    @property
    def can_notify(self) -> bool:
        """Whether `start_notifying` may be used."""

    def start_notifying(self, subscription: str, notify: Callable[["Connection"], Awaitable[None]]) -> None:
        """Run `notify` beside the connection until it ends, `stop_notifying`, or the connection closes.

        Raises RpcError when the connection has too many subscriptions.
        """

    def stop_notifying(self, subscription: str) -> bool:
        """End a subscription of this connection; whether there was one."""

    async def send(self, message: Mapping[str, Json]) -> None:
        """Send one notification."""


@dataclass(frozen=True, slots=True)
class Method:
    """`function` takes `Parameters` (and the `Connection` when it is CONNECTED) and answers JSON or raises RpcError."""

    cost: MethodCost
    function: Callable[..., Any]


def light(function: Callable[[Parameters], Json]) -> Method:
    """A method that takes microseconds."""
    return Method(MethodCost.LIGHT, function)


def heavy(function: Callable[[Parameters], Json]) -> Method:
    """A method that executes code or reads a lot."""
    return Method(MethodCost.HEAVY, function)


def connected(function: Callable[[Parameters, Connection], Awaitable[Json]]) -> Method:
    """A method that waits, or that uses its connection."""
    return Method(MethodCost.CONNECTED, function)
