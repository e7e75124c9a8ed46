"""The CLI's JSON-RPC client: whatever answers, or does not, the caller sees a ServiceError."""

import pytest

from node.client import RpcClient
from node.errors import ServiceError, ServiceUnreachable
from tests.unit.node.fake_rpc import Refusal, serving


def refuse(*_: object) -> None:
    raise Refusal(3, "execution reverted", "0x08c379a0")


def test_results_and_refusals() -> None:
    with serving({"add": lambda a, b: a + b, "revert": refuse, "none": lambda: None}) as url:
        client = RpcClient(url)
        assert client.call("add", 2, 3) == 5
        assert client.call("none") is None
        with pytest.raises(ServiceError, match=r"revert: execution reverted \(code 3\)") as refused:
            client.call("revert")
        assert refused.value.data == bytes.fromhex("08c379a0")


@pytest.mark.parametrize("data", [None, 7, "0xzz", "0x123", {"a": 1}])
def test_a_refusal_may_carry_anything(data: object) -> None:
    def odd() -> None:
        raise Refusal(-32000, "no", data)

    with serving({"odd": odd}) as url, pytest.raises(ServiceError, match="no") as refused:
        RpcClient(url).call("odd")
    assert refused.value.data == b""


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[]", b"7", b"{}", b'{"error": 7}', b"null"])
def test_what_is_not_json_rpc_is_said(raw: bytes) -> None:
    with serving({"x": lambda: 1}, raw) as url, pytest.raises(ServiceError, match="did not answer with JSON"):
        RpcClient(url).call("x")


@pytest.mark.parametrize("url", ["", "foo", "127.0.0.1:8545", "nosuch://x"])
def test_what_is_no_url_is_said(url: str) -> None:
    with pytest.raises(ServiceError):
        RpcClient(url).call("x")


def test_nobody_answers() -> None:
    with serving({}) as url:
        pass
    with pytest.raises(ServiceUnreachable, match="Does the network run"):
        RpcClient(url).call("x")
