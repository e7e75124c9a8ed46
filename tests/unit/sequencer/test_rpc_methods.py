"""JSON-RPC methods on a small chain: what the shared conformance vectors do not touch."""

from typing import Any

import numpy as np
import orjson
import pytest

from core.chain_rules import make_block, next_context
from core.execution import ExecutionOutcome
from core.receipts import Log, ReceiptColumns
from core.state import StateDifference
from core.transaction import TransactionColumns, decode_transaction
from sequencer.production import NewHead
from sequencer.rpc_methods import MethodLimits
from tests.unit.sequencer.fakes import CHAIN_ID, GWEI, transfer
from tests.unit.sequencer.rpc_setting import ALICE, BOB, Caller, RpcSetting

TOPIC = bytes(31) + b"\x07"
EMITTER = b"\xee" * 20
TO = "0x" + "22" * 20


def address(raw: bytes) -> str:
    return "0x" + raw.hex()


def mine(setting: RpcSetting, *raws: bytes, logs: tuple[Log, ...] = ()) -> NewHead:
    """A block of these transactions, each with `logs`, whose execution changes nothing."""
    transactions = [decode_transaction(raw) for raw in raws]
    columns = TransactionColumns.from_transactions(transactions, [ALICE.address] * len(raws))
    parent = setting.chain.head()
    context = next_context(
        parent.block.header, setting.chain.config, [parent.hash], timestamp=setting.clock.time_s(), coinbase=bytes(20)
    )
    receipts = ReceiptColumns.from_rows([(2, True, 21_000, logs)] * len(raws))
    outcome = ExecutionOutcome(
        np.arange(len(raws), dtype="<u4"), (), receipts, StateDifference.from_changes({}), 21_000 * len(raws), 0
    )
    sealed = make_block(parent, context, columns, outcome, setting.chain.state(parent.number))
    setting.chain.append(sealed, receipts, outcome.difference)
    head = NewHead(sealed, receipts)
    setting.heads.publish(head)
    return head


async def test_pending_and_mined_transactions() -> None:
    setting = RpcSetting()
    raw = ALICE.raw(transfer(0))
    sent = await setting.call("eth_sendRawTransaction", address(raw))
    waiting = await setting.call("eth_getTransactionByHash", sent)
    assert waiting["blockHash"] is None
    assert waiting["from"] == address(ALICE.address)
    assert await setting.call("eth_getTransactionCount", address(ALICE.address), "pending") == "0x1"
    assert await setting.call("eth_getTransactionCount", address(ALICE.address), "latest") == "0x0"
    assert await setting.call("eth_getTransactionReceipt", sent) is None
    assert await setting.call("eth_getRawTransactionByHash", sent) == address(raw)
    head = mine(setting, raw)
    mined = await setting.call("eth_getTransactionByHash", sent)
    assert mined["blockHash"] == address(head.sealed.hash)
    receipt = await setting.call("eth_getTransactionReceipt", sent)
    assert (receipt["status"], receipt["transactionIndex"]) == ("0x1", "0x0")
    by_index = await setting.call("eth_getTransactionByBlockHashAndIndex", address(head.sealed.hash), "0x0")
    assert by_index == mined
    assert await setting.call("eth_getTransactionByBlockNumberAndIndex", "latest", "0x1") is None


async def test_refusals_carry_geths_messages() -> None:
    setting = RpcSetting()
    for tx, message in (
        (transfer(0, chain_id=1), f"invalid sender: invalid chain id for signer: have 1 want {CHAIN_ID}"),
        (transfer(0, gas_limit=1), "intrinsic gas too low: gas 1, minimum needed 21000"),
    ):
        assert await setting.fail("eth_sendRawTransaction", address(ALICE.raw(tx))) == (-32000, message)
    assert (await setting.fail("eth_sendRawTransaction", "0x03c0"))[1].startswith("transaction type not supported")
    assert await setting.fail("eth_sendRawTransaction", "0x1") == (
        -32602,
        "invalid argument 0: json: cannot unmarshal hex string of odd length into Go value of type hexutil.Bytes",
    )


async def test_the_pool_by_sender() -> None:
    setting = RpcSetting()
    for nonce in (0, 2):
        await setting.call("eth_sendRawTransaction", address(ALICE.raw(transfer(nonce))))
    assert await setting.call("txpool_status") == {"pending": "0x1", "queued": "0x1"}
    content = await setting.call("txpool_contentFrom", address(ALICE.address))
    assert (list(content["pending"]), list(content["queued"])) == (["0"], ["2"])
    (summary,) = (await setting.call("txpool_inspect"))["pending"].values()
    assert summary["0"] == f"0x2222222222222222222222222222222222222222: 1 wei + 21000 gas × {10 * GWEI} wei"


async def test_log_queries_and_polled_filters() -> None:
    setting = RpcSetting()
    wanted = await setting.call("eth_newFilter", {"address": address(EMITTER), "topics": [None]})
    other = await setting.call("eth_newFilter", {"topics": [address(bytes(32))]})
    blocks = await setting.call("eth_newBlockFilter")
    pending = await setting.call("eth_newPendingTransactionFilter")
    raw = ALICE.raw(transfer(0))
    sent = await setting.call("eth_sendRawTransaction", address(raw))
    head = mine(setting, raw, logs=(Log(EMITTER, (TOPIC,), b"\1"), Log(EMITTER, (), b"")))
    (found,) = await setting.call("eth_getFilterChanges", wanted)
    assert (found["topics"], found["logIndex"], found["transactionHash"]) == ([address(TOPIC)], "0x0", sent)
    assert await setting.call("eth_getFilterChanges", wanted) == []
    assert await setting.call("eth_getFilterChanges", other) == []
    assert await setting.call("eth_getFilterChanges", blocks) == [address(head.sealed.hash)]
    assert await setting.call("eth_getFilterChanges", pending) == [sent]
    everything = await setting.call("eth_getLogs", {"fromBlock": "earliest", "toBlock": "latest"})
    assert [one["logIndex"] for one in everything] == ["0x0", "0x1"]
    assert await setting.call("eth_uninstallFilter", wanted) is True
    assert await setting.call("eth_uninstallFilter", wanted) is False
    assert await setting.fail("eth_getFilterChanges", wanted) == (-32000, "filter not found")


async def test_filters_are_forgotten_when_nobody_polls_them() -> None:
    setting = RpcSetting(methods=MethodLimits(filters_max=1, filter_lifetime_s=60))
    first = await setting.call("eth_newBlockFilter")
    assert (await setting.fail("eth_newBlockFilter"))[0] == -32005
    setting.clock.now_s += 61
    assert await setting.fail("eth_getFilterChanges", first) == (-32000, "filter not found")
    await setting.call("eth_newBlockFilter")


async def test_log_limits() -> None:
    setting = RpcSetting(methods=MethodLimits(log_records_max=1))
    mine(setting, ALICE.raw(transfer(0)), logs=(Log(EMITTER, (), b""), Log(EMITTER, (), b"")))
    assert (await setting.fail("eth_getLogs", {"fromBlock": "0x0"}))[0] == -32005
    assert await setting.fail("eth_getLogs", {"topics": [None] * 5}) == (-32602, "exceed max topics")
    assert await setting.fail("eth_getLogs", {"blockHash": address(bytes(32))}) == (-32000, "unknown block")


async def test_log_subscriptions_show_matching_logs() -> None:
    setting = RpcSetting()
    setting.caller = Caller(can_notify=True)
    name = await setting.call("eth_subscribe", "logs", {"address": [address(EMITTER)]})
    notify = setting.caller.subscriptions[name]
    mine(setting, ALICE.raw(transfer(0)), logs=(Log(b"\1" * 20, (), b""), Log(EMITTER, (TOPIC,), b"")))
    for listening in list(setting.heads._listeners):
        listening.close()
    await notify(setting.caller)
    (message,) = setting.caller.told
    assert message["method"] == "eth_subscription"
    assert message["params"]["result"]["logIndex"] == "0x1"
    assert (await setting.fail("eth_subscribe", "nonsense"))[0] == -32601
    assert await setting.call("eth_unsubscribe", name) is True


async def test_calls_with_overrides() -> None:
    setting = RpcSetting()
    number_and_balance = "0x43600052" + "47602052" + "60406000f3"
    overrides = {TO: {"code": number_and_balance, "balance": "0x5"}}
    result = await setting.call("eth_call", {"to": TO}, "latest", overrides, {"number": "0x64"})
    assert (int(result[2:66], 16), int(result[66:], 16)) == (100, 5)
    stored = {TO: {"code": "0x60005460005260206000f3", "stateDiff": {address(bytes(32)): address(TOPIC)}}}
    assert await setting.call("eth_call", {"to": TO}, "latest", stored) == address(TOPIC)
    both = {TO: {"state": {}, "stateDiff": {}}}
    assert "has both 'state' and 'stateDiff'" in (await setting.fail("eth_call", {"to": TO}, "latest", both))[1]
    assert await setting.fail("eth_call", {"to": TO}, "0x64") == (-32000, "header not found")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("0x60006000fd", {"code": 3, "message": "execution reverted", "data": "0x"}),
        ("0xfe", {"code": -32000, "message": "invalid opcode: INVALID"}),
        ("0x5b600056", {"code": -32000, "message": "out of gas"}),
        (
            "0x634e487b7160e01b6000526011600452" + "60246000fd",
            {
                "code": 3,
                "message": "execution reverted: arithmetic underflow or overflow",
                "data": "0x4e487b71" + "00" * 31 + "11",
            },
        ),
    ],
)
async def test_how_calls_fail(code: str, error: dict[str, Any]) -> None:
    setting = RpcSetting()
    call = {"to": TO, "gas": hex(100_000)}
    request = {"jsonrpc": "2.0", "id": 1, "method": "eth_call", "params": [call, "latest", {TO: {"code": code}}]}
    response = await setting.answer(orjson.dumps(request))
    assert response["error"]["code"] == error["code"]
    assert response["error"]["message"].split(":")[0] == error["message"].split(":")[0]
    if "data" in error:
        assert response["error"] == error


async def test_estimates() -> None:
    setting = RpcSetting()
    plain = {"from": address(ALICE.address), "to": address(BOB.address), "value": "0x1"}
    assert await setting.call("eth_estimateGas", plain) == hex(21_000)
    store = {TO: {"code": "0x600160005500"}}
    used = 21_000 + 2 * 3 + 22_100
    estimate = int(await setting.call("eth_estimateGas", {"to": TO}, "latest", store), 16)
    assert used <= estimate <= used * 1.05
    greedy = {**plain, "value": hex(10**22), "maxFeePerGas": hex(GWEI)}
    assert await setting.fail("eth_estimateGas", greedy) == (-32000, "insufficient funds for transfer")
    endless = {TO: {"code": "0x5b600056"}}
    code, message = await setting.fail("eth_estimateGas", {"to": TO, "gas": hex(60_000)}, "latest", endless)
    assert (code, message) == (-32000, "gas required exceeds allowance (60000)")


async def test_what_the_node_says_of_itself() -> None:
    setting = RpcSetting()
    assert await setting.call("web3_clientVersion") == "warpgrid/test"
    assert await setting.call("web3_sha3", "0x68656c6c6f20776f726c64") == (
        "0x47173285a8d7341e5e972fc677286384f802f8ef42a5ec5f03bbfa254cb01fad"
    )
    assert await setting.call("net_version") == str(CHAIN_ID)
    config = await setting.call("eth_config")
    assert config["current"]["chainId"] == hex(CHAIN_ID)
    assert config["current"]["precompiles"]["P256VERIFY"].endswith("0100")
    assert config["next"] is None
    assert await setting.call("eth_syncing") is False


async def test_fee_history_bounds() -> None:
    setting = RpcSetting()
    mine(setting, ALICE.raw(transfer(0)))
    history = await setting.call("eth_feeHistory", "0x5", "latest", [10, 90])
    assert history["oldestBlock"] == "0x0"
    assert len(history["baseFeePerGas"]) == 3
    assert history["reward"][1] == [hex(GWEI)] * 2
    assert (await setting.fail("eth_feeHistory", "0x1", "latest", [90, 10]))[1].startswith("invalid reward percentile")
    assert await setting.fail("eth_feeHistory", "0x1", "0x9", []) == (
        -32000,
        "request beyond head block: requested 9, head 1",
    )


async def test_traced_calls() -> None:
    setting = RpcSetting()
    callee = "0x" + "33" * 20
    calls_and_logs = "0x6000600060006000600173" + callee[2:] + "5af15060006000a000"
    overrides = {TO: {"code": calls_and_logs, "balance": "0x1"}, callee: {"code": "0x60006000fd"}}
    config = {"stateOverrides": overrides, "tracer": "callTracer", "tracerConfig": {"withLog": True}}
    frame = await setting.call("debug_traceCall", {"to": TO}, "latest", config)
    assert (frame["type"], frame["to"], [log["position"] for log in frame["logs"]]) == ("CALL", TO, ["0x1"])
    (inner,) = frame["calls"]
    assert (inner["to"], inner["value"], inner["error"]) == (callee, "0x1", "execution reverted")
    steps = await setting.call("debug_traceCall", {"to": TO}, "latest", {"stateOverrides": overrides, "limit": 3})
    assert [one["op"] for one in steps["structLogs"]] == ["PUSH1"] * 3
    assert (await setting.fail("debug_traceCall", {"to": TO}, "latest", {"tracer": "noSuchTracer"}))[0] == -32602
