"""JSON-RPC over HTTP and WebSocket on one port: a raw ASGI application (uvicorn runs it).

Owns transport: request sizes, CORS, health, connections and their subscriptions. Knows nothing of methods.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import orjson

from sequencer.feed import ListenerTooSlow
from sequencer.jsonrpc.dispatcher import Dispatcher
from sequencer.jsonrpc.errors import LIMIT_EXCEEDED, RpcError
from sequencer.jsonrpc.method import Connection, Json

__all__ = ["ApplicationLimits", "JsonRpcApplication"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_JSON = (b"content-type", b"application/json")
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_CLOSE_TOO_SLOW = 1013


@dataclass(frozen=True, slots=True)
class ApplicationLimits:
    """`origins` may call from a browser ("*" is any). `in_flight_max` messages of one WebSocket run at once."""

    request_bytes_max: int = 5 * 1024 * 1024
    connections_max: int = 1_024
    subscriptions_max: int = 128
    in_flight_max: int = 64
    origins: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        assert min(self.request_bytes_max, self.connections_max, self.subscriptions_max, self.in_flight_max) > 0


class JsonRpcApplication:
    """The ASGI callable. `health` answers what GET /health shows, and whether it is well."""

    def __init__(
        self, dispatcher: Dispatcher, limits: ApplicationLimits, health: Callable[[], tuple[bool, Mapping[str, Json]]]
    ) -> None:
        self._dispatcher = dispatcher
        self._limits = limits
        self._health = health
        self._web_sockets = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._serve_http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._serve_web_socket(scope, receive, send)
        else:
            await _serve_lifespan(receive, send)

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        cors = self._cors_headers(scope)
        if scope["method"] == "OPTIONS":
            await _respond(send, 204, b"", cors)
        elif scope["method"] == "GET" and scope["path"] == "/health":
            is_well, body = self._health()
            await _respond(send, 200 if is_well else 503, orjson.dumps(body), [_JSON, *cors])
        elif scope["method"] != "POST":
            await _respond(send, 405, b"JSON-RPC calls are POSTed\n", [_TEXT, (b"allow", b"POST, OPTIONS"), *cors])
        else:
            body_bytes = await self._read_body(scope, receive)
            if body_bytes is None:
                message = f"content length too large (limit {self._limits.request_bytes_max})\n"
                await _respond(send, 413, message.encode(), [_TEXT, (b"connection", b"close"), *cors])
                return
            response = await self._dispatcher.answer(body_bytes, _HTTP)
            await _respond(send, 200, response or b"", [_JSON, *cors])

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The request's body, or None when it is larger than allowed."""
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._limits.request_bytes_max:
            return None
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._limits.request_bytes_max:
                return None
            chunks.append(chunk)
            if not message.get("more_body"):
                return b"".join(chunks)

    def _cors_headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        origin = dict(scope["headers"]).get(b"origin", b"")
        if not origin or not self._may_call(origin):
            return []
        allowed = b"*" if "*" in self._limits.origins else origin
        return [
            (b"access-control-allow-origin", allowed),
            (b"access-control-allow-methods", b"POST, GET, OPTIONS"),
            (b"access-control-allow-headers", b"content-type"),
            (b"access-control-max-age", b"600"),
            (b"vary", b"origin"),
        ]

    def _may_call(self, origin: bytes) -> bool:
        return "*" in self._limits.origins or origin.decode("latin-1") in self._limits.origins

    async def _serve_web_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        origin = dict(scope["headers"]).get(b"origin", b"")
        if (origin and not self._may_call(origin)) or self._web_sockets >= self._limits.connections_max:
            await send({"type": "websocket.close", "code": 1008})
            return
        await send({"type": "websocket.accept"})
        self._web_sockets += 1
        connection = _WebSocket(send, self._limits)
        try:
            await connection.serve(receive, self._dispatcher)
        finally:
            self._web_sockets -= 1


class _HttpCall:
    """A call over HTTP: nothing can follow its response."""

    can_notify = False

    def start_notifying(self, subscription: str, notify: Callable[[Connection], Awaitable[None]]) -> None:
        raise AssertionError("callers look at can_notify")

    def stop_notifying(self, subscription: str) -> bool:
        return False

    async def send(self, message: Mapping[str, Json]) -> None:
        raise AssertionError("callers look at can_notify")


_HTTP = _HttpCall()


class _WebSocket:
    """One WebSocket with its subscriptions; everything that it started ends with it."""

    can_notify = True

    def __init__(self, send: Send, limits: ApplicationLimits) -> None:
        self._send = send
        self._limits = limits
        self._sending = asyncio.Lock()
        self._room = asyncio.Semaphore(limits.in_flight_max)
        self._calls: set[asyncio.Task[None]] = set()
        self._subscriptions: dict[str, asyncio.Task[None]] = {}

    async def serve(self, receive: Receive, dispatcher: Dispatcher) -> None:
        try:
            while (message := await receive())["type"] == "websocket.receive":
                raw = message.get("bytes") or (message.get("text") or "").encode()
                await self._room.acquire()
                task = asyncio.create_task(self._answer(raw, dispatcher))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)
        finally:
            tasks = [*self._calls, *self._subscriptions.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, raw: bytes, dispatcher: Dispatcher) -> None:
        try:
            response = await dispatcher.answer(raw, self)
            if response is not None:
                await self._send_text(response)
        finally:
            self._room.release()

    def start_notifying(self, subscription: str, notify: Callable[[Connection], Awaitable[None]]) -> None:
        if len(self._subscriptions) >= self._limits.subscriptions_max:
            raise RpcError(LIMIT_EXCEEDED, f"at most {self._limits.subscriptions_max} subscriptions per connection")
        self._subscriptions[subscription] = asyncio.create_task(self._notify(notify))

    def stop_notifying(self, subscription: str) -> bool:
        task = self._subscriptions.pop(subscription, None)
        if task is None:
            return False
        task.cancel()
        return True

    async def send(self, message: Mapping[str, Json]) -> None:
        await self._send_text(orjson.dumps(message))

    async def _notify(self, notify: Callable[[Connection], Awaitable[None]]) -> None:
        try:
            await notify(self)
        except ListenerTooSlow as error:
            await self._send({"type": "websocket.close", "code": _CLOSE_TOO_SLOW, "reason": str(error)})

    async def _send_text(self, raw: bytes) -> None:
        async with self._sending:
            await self._send({"type": "websocket.send", "text": raw.decode()})


async def _respond(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def _serve_lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
