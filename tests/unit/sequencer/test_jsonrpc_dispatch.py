"""JSON-RPC 2.0 itself: batches, notifications, errors, limits."""

import asyncio
import threading
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from core.errors import StatePruned
from sequencer.jsonrpc import Dispatcher, DispatcherLimits
from sequencer.jsonrpc.errors import RpcError
from sequencer.jsonrpc.method import Connection, Method, connected, heavy, light
from sequencer.jsonrpc.parameters import Parameters
from sequencer.metrics import SequencerMetrics
from tests.unit.sequencer.rpc_setting import Caller


def pruned(_: Parameters) -> Any:
    raise StatePruned("the state of block 1 is no longer kept")


def broken(_: Parameters) -> Any:
    raise KeyError("a bug")


async def echo(parameters: Parameters, _: Connection) -> Any:
    return parameters.string(0)


METHODS = {
    "add": light(lambda parameters: parameters.quantity(0) + parameters.quantity(1)),
    "long": light(lambda _: "x" * 2_000),
    "pruned": light(pruned),
    "broken": light(broken),
    "echo": connected(echo),
    "slow": heavy(lambda parameters: parameters.quantity(0)),
}


def dispatcher(methods: dict[str, Method] | None = None, **limits: Any) -> Dispatcher:
    return Dispatcher(methods or METHODS, DispatcherLimits(**limits), SequencerMetrics(CollectorRegistry()))


async def exchange(server: Dispatcher, message: Any) -> Any:
    raw = message if isinstance(message, bytes) else orjson.dumps(message)
    response = await server.answer(raw, Caller())
    return None if response is None else orjson.loads(response)


def call(method: str, *params: Any, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params), **more}


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        (b"", -32700, "parse error"),
        (b"{", -32700, "parse error"),
        (b"[]", -32600, "empty batch"),
        (b"1", -32600, "invalid request"),
        ({"id": 1}, -32600, "invalid request"),
        ({"id": {}, "method": "add"}, -32600, "invalid request"),
        (call("nope"), -32601, "the method nope does not exist/is not available"),
        ({**call("add"), "params": {"a": 1}}, -32602, "non-array args"),
        (call("add", "0x1"), -32602, "missing value for required argument 1"),
        (call("add", "0x1", None), -32602, "missing value for required argument 1"),
        (call("add", "1", "0x1"), -32602, "invalid argument 0: hex string without 0x prefix"),
        (call("add", "0x01", "0x1"), -32602, "invalid argument 0: hex number with leading zero digits"),
        (call("add", "0x1", "0x1" + "0" * 16), -32602, "invalid argument 1: hex number > 64 bits"),
        (call("pruned"), -32000, "the state of block 1 is no longer kept"),
        (call("broken"), -32603, "internal error"),
    ],
)
async def test_errors(message: Any, code: int, text: str) -> None:
    response = await exchange(dispatcher(), message)
    assert response["jsonrpc"] == "2.0"
    assert response["error"] == {"code": code, "message": text}


async def test_results_and_identifiers() -> None:
    server = dispatcher()
    for identifier in (1, "one", None, 2**53):
        response = await exchange(server, {**call("add", "0x1", "0x2"), "id": identifier})
        assert response == {"jsonrpc": "2.0", "id": identifier, "result": 3}
    assert (await exchange(server, call("echo", "hello")))["result"] == "hello"


async def test_batches_answer_in_order_and_leave_notifications_out() -> None:
    server = dispatcher()
    notification = {"jsonrpc": "2.0", "method": "add", "params": ["0x1", "0x1"]}
    response = await exchange(server, [{**call("add", "0x1", "0x1"), "id": 5}, notification, {**call("nope"), "id": 6}])
    assert [one["id"] for one in response] == [5, 6]
    assert await exchange(server, [notification]) is None
    assert await exchange(server, notification) is None


async def test_calls_of_a_batch_wait_together_and_begin_in_order() -> None:
    begun: list[int] = []
    all_begun = asyncio.Event()

    async def wait_for_all(parameters: Parameters, _: Connection) -> Any:
        begun.append(parameters.quantity(0))
        if len(begun) == 3:
            all_begun.set()
        await all_begun.wait()
        return len(begun)

    server = dispatcher({"wait": connected(wait_for_all), "begun": light(lambda _: list(begun))})
    batch = [call("wait", "0x1"), call("begun"), call("wait", "0x2"), call("wait", "0x3"), call("begun")]
    async with asyncio.timeout(10):
        answers = [one["result"] for one in await exchange(server, batch)]
    assert answers == [3, [1], 3, 3, [1, 2, 3]], "each call saw those before it begun, and none after it"


async def test_batch_and_response_limits() -> None:
    server = dispatcher(batch_calls_max=3, response_bytes_max=1_000)
    assert (await exchange(server, [call("add", "0x1", "0x1")] * 4))["error"]["message"] == "batch too large"
    assert (await exchange(server, call("long")))["error"]["code"] == -32003
    responses = await exchange(dispatcher(response_bytes_max=2_500), [call("long")] * 3)
    assert [one.get("error", {}).get("code") for one in responses] == [None, None, -32003]


async def test_heavy_calls_are_bounded_in_number_and_time() -> None:
    release = threading.Event()
    methods = {"wait": heavy(lambda _: release.wait(30))}
    server = dispatcher(methods, heavy_threads=1, heavy_waiting_max=1, heavy_timeout_s=0.05)
    answers = await asyncio.gather(*(exchange(server, call("wait")) for _ in range(4)))
    assert sorted(one["error"]["code"] for one in answers) == [-32005, -32005, -32002, -32002]
    release.set()
    server.close()


async def test_error_data_is_passed_on() -> None:
    def revert(_: Parameters) -> Any:
        raise RpcError(3, "execution reverted", "0x1234")

    response = await exchange(dispatcher({"revert": light(revert)}), call("revert"))
    assert response["error"] == {"code": 3, "message": "execution reverted", "data": "0x1234"}
