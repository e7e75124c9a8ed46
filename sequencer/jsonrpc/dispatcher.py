"""From a request's bytes to a response's bytes: JSON-RPC 2.0, batches, limits, errors.

Knows no method and no transport. Never raises for what a client sends: each fault has its answer. A method that raises
what it should not is answered with -32603 and logged; the server goes on.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import orjson
import structlog

from core.errors import InvalidInput, WarpgridError
from sequencer.jsonrpc.errors import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    LIMIT_EXCEEDED,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    RESPONSE_TOO_LARGE,
    SERVER_ERROR,
    TIMEOUT,
    RpcError,
)
from sequencer.jsonrpc.method import Connection, Json, Method, MethodCost
from sequencer.jsonrpc.parameters import Parameters
from sequencer.metrics import SequencerMetrics

__all__ = ["Dispatcher", "DispatcherLimits"]

log = structlog.get_logger()

_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class DispatcherLimits:
    """`heavy_waiting_max` counts heavy calls that wait for one of `heavy_threads`; one more is refused at once."""

    batch_calls_max: int = 1_000
    response_bytes_max: int = 25 * 1024 * 1024
    heavy_threads: int = 4
    heavy_waiting_max: int = 256
    heavy_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        assert self.batch_calls_max > 0
        assert self.heavy_threads > 0
        assert self.heavy_waiting_max > 0
        assert self.heavy_timeout_s > 0


class Dispatcher:
    """Answers requests from a table of methods."""

    def __init__(self, methods: Mapping[str, Method], limits: DispatcherLimits, metrics: SequencerMetrics) -> None:
        self._methods = methods
        self._limits = limits
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(limits.heavy_threads, thread_name_prefix="jsonrpc")
        self._heavy_running = 0

    def close(self) -> None:
        """Start no further heavy call and wait for those that run."""
        self._threads.shutdown(cancel_futures=True)

    async def answer(self, raw: bytes, connection: Connection) -> bytes | None:
        """The response to one message; None when it calls for none (only notifications)."""
        try:
            message = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return _encoded(_failure(None, RpcError(PARSE_ERROR, "parse error")))
        if isinstance(message, list):
            return await self._answer_batch(message, connection)
        response = await self._answer_call(message, connection)
        return None if response is None else self._bounded(response)

    async def _answer_batch(self, calls: Sequence[Any], connection: Connection) -> bytes | None:
        if not calls:
            return _encoded(_failure(None, RpcError(INVALID_REQUEST, "empty batch")))
        if len(calls) > self._limits.batch_calls_max:
            return _encoded(_failure(None, RpcError(INVALID_REQUEST, "batch too large")))
        responses: dict[int, bytes] = {}
        size = 0

        async def answer(index: int, call: Any) -> None:
            nonlocal size
            response = await self._answer_call(call, connection)
            if response is None:
                return
            if size > self._limits.response_bytes_max:
                response = _failure(response["id"], RpcError(RESPONSE_TOO_LARGE, "response too large"))
            responses[index] = self._bounded(response)
            size += len(responses[index])

        async with asyncio.TaskGroup() as group:
            for index, call in enumerate(calls):
                answering = group.create_task(answer(index, call))
                # Calls begin in their order. Those that wait for others (the disk, a block) wait together.
                await (asyncio.sleep(0) if self._waits(call) else answering)
        return b"[" + b",".join(responses[one] for one in sorted(responses)) + b"]" if responses else None

    def _waits(self, call: Any) -> bool:
        method = self._methods.get(str(call.get("method"))) if isinstance(call, dict) else None
        return method is not None and method.cost is MethodCost.CONNECTED

    async def _answer_call(self, call: Any, connection: Connection) -> dict[str, Json] | None:
        if not isinstance(call, dict):
            return _failure(None, RpcError(INVALID_REQUEST, "invalid request"))
        identifier = call.get("id")
        if isinstance(identifier, (list, dict, bool)) or not isinstance(call.get("method"), str):
            return _failure(None, RpcError(INVALID_REQUEST, "invalid request"))
        name: str = call["method"]
        started_s = perf_counter()
        outcome = "ok"
        try:
            response = {"jsonrpc": "2.0", "id": identifier, "result": await self._call(name, call, connection)}
        except RpcError as error:
            outcome = str(error.rpc_code)
            response = _failure(identifier, error)
        known = name if name in self._methods else _UNKNOWN
        self._metrics.requests.labels(known, outcome).inc()
        self._metrics.request_seconds.labels(known).observe(perf_counter() - started_s)
        return response if "id" in call else None

    async def _call(self, name: str, call: Mapping[str, Any], connection: Connection) -> Json:
        """Run one method; whatever goes wrong becomes an RpcError."""
        method = self._methods.get(name)
        if method is None:
            raise RpcError(METHOD_NOT_FOUND, f"the method {name[:100]} does not exist/is not available")
        values = call.get("params")
        if values is not None and not isinstance(values, list):
            raise RpcError(INVALID_PARAMS, "non-array args")
        parameters = Parameters(values or ())
        try:
            if method.cost is MethodCost.LIGHT:
                return method.function(parameters)
            if method.cost is MethodCost.HEAVY:
                return await self._call_heavy(method.function, parameters)
            return await method.function(parameters, connection)
        except RpcError:
            raise
        except InvalidInput as error:
            raise RpcError(INVALID_PARAMS, str(error)) from error
        except WarpgridError as error:
            raise RpcError(SERVER_ERROR, str(error)) from error
        except Exception as error:  # the edge between one call and the server
            log.exception("jsonrpc_method_failed", method=name)
            raise RpcError(INTERNAL_ERROR, "internal error") from error

    async def _call_heavy(self, function: Callable[[Parameters], Json], parameters: Parameters) -> Json:
        """Run on the pool. A call that outlasts its time is answered then; its thread is free when it ends."""
        if self._heavy_running >= self._limits.heavy_threads + self._limits.heavy_waiting_max:
            raise RpcError(LIMIT_EXCEEDED, "server busy: too many calls are waiting")
        future = asyncio.get_running_loop().run_in_executor(self._threads, function, parameters)
        self._heavy_running += 1
        future.add_done_callback(self._heavy_done)
        done, _ = await asyncio.wait({future}, timeout=self._limits.heavy_timeout_s)
        if not done:
            raise RpcError(TIMEOUT, f"execution aborted (timeout = {self._limits.heavy_timeout_s:g}s)")
        return future.result()

    def _heavy_done(self, future: asyncio.Future[Json]) -> None:
        self._heavy_running -= 1
        if not future.cancelled():
            future.exception()  # of a call that timed out: nobody else will look

    def _bounded(self, response: dict[str, Json]) -> bytes:
        encoded = _encoded(response)
        if len(encoded) > self._limits.response_bytes_max:
            return _encoded(_failure(response["id"], RpcError(RESPONSE_TOO_LARGE, "response too large")))
        return encoded


def _failure(identifier: Json, error: RpcError) -> dict[str, Json]:
    return {"jsonrpc": "2.0", "id": identifier, "error": error.to_json()}


def _encoded(response: dict[str, Json]) -> bytes:
    return orjson.dumps(response)
