"""HTTP and WebSocket on one port, over a real socket."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import httpx
import orjson
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from core.receipts import ReceiptColumns
from sequencer.jsonrpc import ApplicationLimits, JsonRpcApplication, JsonRpcServer
from sequencer.production import NewHead
from tests.unit.sequencer.fakes import transfer
from tests.unit.sequencer.rpc_setting import ALICE, RpcSetting

BLOCK_NUMBER = {"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": []}


class Served:
    """A setting and the server in front of it."""

    def __init__(self) -> None:
        self.setting = RpcSetting()
        limits = ApplicationLimits(
            request_bytes_max=10_000, subscriptions_max=2, origins=("https://app.example",), in_flight_max=4
        )
        self.is_well = True
        application = JsonRpcApplication(self.setting.dispatcher, limits, lambda: (self.is_well, {"head": 0}))
        self.server = JsonRpcServer(application, limits, "127.0.0.1", 0)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    one = Served()
    running = asyncio.create_task(one.server.run())
    await one.server.started()
    yield one
    one.server.stop()
    await running


async def test_http(served: Served) -> None:
    async with httpx.AsyncClient(base_url=served.server.url) as client:
        answer = await client.post("/", json=BLOCK_NUMBER)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["result"] == "0x0"
        unknown = await client.post("/", json={**BLOCK_NUMBER, "method": "anvil_nodeInfo"})
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (200, -32601)
        assert (await client.get("/")).status_code == 405
        assert (await client.post("/", content=b"x" * 10_001)).status_code == 413


async def test_a_body_without_a_declared_length_is_bounded_too() -> None:
    read = 0
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"x" * 1_000, "more_body": True}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    limits = ApplicationLimits(request_bytes_max=10_000)
    application = JsonRpcApplication(RpcSetting().dispatcher, limits, lambda: (True, {}))
    await application({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send)
    assert sent[0]["status"] == 413
    assert read == 11, "it stops reading where the limit is passed"


async def test_health(served: Served) -> None:
    async with httpx.AsyncClient(base_url=served.server.url) as client:
        assert (await client.get("/health")).json() == {"head": 0}
        served.is_well = False
        assert (await client.get("/health")).status_code == 503


async def test_browsers_may_call_from_the_given_origins_only(served: Served) -> None:
    async with httpx.AsyncClient(base_url=served.server.url) as client:
        allowed = await client.options("/", headers={"origin": "https://app.example"})
        assert allowed.headers["access-control-allow-origin"] == "https://app.example"
        other = await client.post("/", json=BLOCK_NUMBER, headers={"origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers


def web_socket_url(served: Served) -> str:
    return served.server.url.replace("http", "ws")


async def test_web_socket_calls_and_subscriptions(served: Served) -> None:
    setting = served.setting
    async with connect(web_socket_url(served)) as socket:
        await socket.send(orjson.dumps([BLOCK_NUMBER, BLOCK_NUMBER]))
        assert [one["result"] for one in orjson.loads(await socket.recv())] == ["0x0", "0x0"]
        names = {}
        for identifier, kind in enumerate(("newHeads", "newPendingTransactions")):
            request = {"jsonrpc": "2.0", "id": identifier, "method": "eth_subscribe", "params": [kind]}
            await socket.send(orjson.dumps(request))
            names[orjson.loads(await socket.recv())["result"]] = kind
        await socket.send(orjson.dumps({"id": 9, "method": "eth_subscribe", "params": ["newHeads"]}))
        assert "at most 2 subscriptions" in orjson.loads(await socket.recv())["error"]["message"]
        sent = setting.mempool.add(ALICE.raw(transfer(0)))
        setting.heads.publish(NewHead(setting.chain.head(), ReceiptColumns.empty()))
        told = [orjson.loads(await socket.recv())["params"] for _ in range(2)]
        results = {names[one["subscription"]]: one["result"] for one in told}
        assert results["newPendingTransactions"] == "0x" + sent.hex()
        assert results["newHeads"]["number"] == "0x0"
        for name in names:
            await socket.send(orjson.dumps({"id": 3, "method": "eth_unsubscribe", "params": [name]}))
            assert orjson.loads(await socket.recv())["result"] is True
    assert len(setting.heads) == 0, "nothing listens any more"


async def test_a_closed_socket_ends_its_subscriptions(served: Served) -> None:
    async with connect(web_socket_url(served)) as socket:
        await socket.send(orjson.dumps({"id": 1, "method": "eth_subscribe", "params": ["newHeads"]}))
        await socket.recv()
        assert len(served.setting.heads) == 1
    async with connect(web_socket_url(served)) as socket:  # once this one is served, the other has been taken down
        await socket.send(orjson.dumps(BLOCK_NUMBER))
        await socket.recv()
    assert len(served.setting.heads) == 0


async def test_web_sockets_from_other_origins_are_refused(served: Served) -> None:
    with pytest.raises(Exception, match="403"):
        await connect(web_socket_url(served), origin="https://other.example")  # type: ignore[arg-type]


async def test_oversized_web_socket_messages_close_it(served: Served) -> None:
    async with connect(web_socket_url(served)) as socket:
        await socket.send(b"x" * 20_000)
        with pytest.raises(ConnectionClosed):
            await socket.recv()


async def test_subscriptions_need_a_web_socket(served: Served) -> None:
    assert await served.setting.fail("eth_subscribe", "newHeads") == (-32000, "notifications not supported")
