"""Whatever a client sends is answered as JSON-RPC 2.0 says, with a typed error where it is wrong; nothing breaks."""

import asyncio
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sequencer.jsonrpc.errors import INTERNAL_ERROR
from tests.unit.sequencer.rpc_setting import ALICE, BOB, RpcSetting

SETTING = RpcSetting()
METHODS = st.sampled_from(SETTING.method_names)

hex_strings = st.one_of(
    st.sampled_from(["0x", "0x0", "0x00", "0X1", "latest", "pending", "earliest", "safe", "0x-1", "0xg", " 0x1"]),
    st.binary(max_size=40).map(lambda raw: "0x" + raw.hex()),
    st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex()),
    st.binary(min_size=32, max_size=32).map(lambda raw: "0x" + raw.hex()),
    st.integers(0, 10**6).map(hex),
    st.integers(0, 2**300).map(hex),
    st.sampled_from(["0x" + ALICE.address.hex(), "0x" + BOB.address.hex(), "0x" + "00" * 32]),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    hex_strings,
)
NAMES = [
    *("from", "to", "gas", "gasPrice", "maxFeePerGas", "maxPriorityFeePerGas", "value", "nonce", "data", "input"),
    *("accessList", "chainId", "address", "topics", "fromBlock", "toBlock", "blockHash", "blockNumber", "storageKeys"),
    *(
        "blockStateCalls",
        "calls",
        "stateOverrides",
        "blockOverrides",
        "number",
        "time",
        "validation",
        "balance",
        "code",
    ),
    *("traceTransfers", "state", "stateDiff", "movePrecompileToAddress", "tracer", "tracerConfig", "withdrawals"),
    *("blobVersionedHashes", "authorizationList", "timestamp", "prevRandao", "gasLimit", "baseFeePerGas"),
]
keys = st.one_of(st.sampled_from(NAMES), hex_strings, st.text(max_size=5))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=5)),
    max_leaves=20,
)


def check_response(response: Any) -> None:
    """The shape of one JSON-RPC 2.0 response, and no internal error in it."""
    assert response["jsonrpc"] == "2.0"
    assert "id" in response
    assert ("result" in response) != ("error" in response)
    if "error" in response:
        error = response["error"]
        assert isinstance(error["code"], int)
        assert isinstance(error["message"], str)
        assert not (error["code"] == INTERNAL_ERROR and error["message"] == "internal error"), response


def exchange(raw: bytes) -> Any:
    return asyncio.run(SETTING.answer(raw))


def test_a_call_works_at_all() -> None:
    """Also loads the executor: its first call sets the interpreter's recursion limit, which hypothesis watches."""
    request = {"jsonrpc": "2.0", "id": 1, "method": "eth_call", "params": [{}]}
    assert exchange(orjson.dumps(request)) == {"jsonrpc": "2.0", "id": 1, "result": "0x"}


@given(method=METHODS, params=st.lists(values, max_size=4))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_parameters(method: str, params: list[Any]) -> None:
    check_response(exchange(orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})))


@given(
    call=st.fixed_dictionaries(
        {},
        optional={
            "from": hex_strings,
            "to": hex_strings,
            "gas": hex_strings,
            "data": hex_strings,
            "value": hex_strings,
            "nonce": values,
            "accessList": values,
            "authorizationList": values,
            "blobVersionedHashes": values,
            "maxFeePerGas": hex_strings,
        },
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_call_object(call: dict[str, Any]) -> None:
    for method in ("eth_call", "eth_estimateGas", "eth_createAccessList", "debug_traceCall"):
        check_response(exchange(orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": [call]})))
    simulated = {"blockStateCalls": [{"calls": [call]}]}
    check_response(
        exchange(orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_simulateV1", "params": [simulated]}))
    )


@given(message=values)
@settings(max_examples=300, deadline=None)
def test_any_message(message: Any) -> None:
    response = exchange(orjson.dumps(message))
    for one in response if isinstance(response, list) else [response]:
        if one is not None:
            check_response(one)


@given(raw=st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes(raw: bytes) -> None:
    response = exchange(raw)
    if isinstance(response, dict):
        check_response(response)


@given(raw=st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_raw_transaction(raw: bytes) -> None:
    request = {"jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction", "params": ["0x" + raw.hex()]}
    response = exchange(orjson.dumps(request))
    check_response(response)
    assert "error" in response


def test_deep_nesting_and_huge_numbers() -> None:
    for raw in (
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"id":1,"method":"eth_call","params":[' + b"[" * 900 + b"]" * 900 + b"]}",
    ):
        response = exchange(raw)
        for one in response if isinstance(response, list) else [response]:
            check_response(one)
    big = b'{"jsonrpc":"2.0","id":1,"method":"eth_getBalance","params":[' + b"9" * 10_000 + b"]}"
    check_response(exchange(big))
