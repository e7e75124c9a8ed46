"""Sending transactions, and the worker's registration, against a chain that is a table of answers."""

from collections.abc import Callable
from typing import Any

import pytest
from eth_abi import encode

from core.signature import recover_sender
from core.transaction import Transaction, decode_transaction
from market.contracts import REGISTRY_ADDRESS, WORKER_REGISTRY
from node.client import RpcClient
from node.errors import ServiceError, ServiceUnreachable
from node.keys import IdentityKey
from node.registration import ensure_registered
from node.wallet import Wallet
from tests.unit.node.fake_rpc import Refusal, serving

KEY = IdentityKey(b"\x11" * 32)
CHAIN_ID = 31_337
STAKE_WEI = 10**18
TLS_KEY = b"der"
CAPABILITIES_HASH = b"\x22" * 32


class Chain:
    """Mines what it is sent at the second look, unless told otherwise."""

    def __init__(self) -> None:
        self.sent: list[Transaction] = []
        self.looks = 0
        self.status = "0x1"
        self.registered = False
        self.estimate_refusal: Refusal | None = None
        self.registers_at_refusal = False

    def methods(self) -> dict[str, Callable[..., Any]]:
        return {
            "eth_chainId": lambda: hex(CHAIN_ID),
            "eth_getBlockByNumber": lambda *_: {"baseFeePerGas": hex(7)},
            "eth_getTransactionCount": lambda *_: hex(5),
            "eth_estimateGas": self.estimate,
            "eth_sendRawTransaction": self.send,
            "eth_getTransactionReceipt": self.receipt,
            "eth_call": self.read,
        }

    def estimate(self, call: dict[str, str]) -> str:
        if self.estimate_refusal is not None:
            self.registered |= self.registers_at_refusal
            raise self.estimate_refusal
        return hex(100_000)

    def send(self, raw: str) -> str:
        self.sent.append(decode_transaction(bytes.fromhex(raw[2:])))
        return "0x" + "aa" * 32

    def receipt(self, _: str) -> dict[str, str] | None:
        self.looks += 1
        if self.looks < 2:
            return None
        self.registered = True
        return {"status": self.status, "blockNumber": "0x9", "gasUsed": "0x5208"}

    def read(self, call: dict[str, str], _: str) -> str:
        function, _ = WORKER_REGISTRY.decode_call(bytes.fromhex(call["data"][2:]))
        if function == "stakeMinWei":
            return "0x" + encode(["uint256"], [STAKE_WEI]).hex()
        if function == "workerOf":
            named = WORKER_REGISTRY.decode_call(self.sent[-1].data)[1]["identity"]
            return "0x" + encode(["(uint128,uint64,(address,bytes32,bytes32,string))"], [(STAKE_WEI, 0, named)]).hex()
        assert function == "signerOf"
        return "0x" + encode(["address"], [KEY.address if self.registered else bytes(20)]).hex()


def register(chain: Chain, capabilities_hash: bytes = CAPABILITIES_HASH) -> None:
    with serving(chain.methods()) as url:
        ensure_registered(Wallet(KEY, RpcClient(url)), KEY, CHAIN_ID, TLS_KEY, capabilities_hash)


def test_registration_stakes_once() -> None:
    chain = Chain()
    register(chain)
    [tx] = chain.sent
    assert recover_sender(tx) == KEY.address
    assert (tx.chain_id, tx.nonce, tx.to, tx.value) == (CHAIN_ID, 5, REGISTRY_ADDRESS, STAKE_WEI)
    assert tx.gas_limit == 125_000
    assert tx.max_fee_per_gas >= 2 * 7 + tx.max_priority_fee_per_gas
    assert WORKER_REGISTRY.decode_call(tx.data)[0] == "register"
    register(chain)
    assert len(chain.sent) == 1, "who is registered does not pay again"
    register(chain, capabilities_hash=b"\x33" * 32)
    assert WORKER_REGISTRY.decode_call(chain.sent[-1].data)[0] == "changeIdentity"
    assert chain.sent[-1].value == 0, "other capabilities are named without paying again"


def test_who_cannot_pay_is_told_what_to_do() -> None:
    chain = Chain()
    chain.estimate_refusal = Refusal(-32000, "insufficient funds for transfer")
    with pytest.raises(ServiceError, match=r"cannot stake 1000000000000000000 wei.*insufficient funds.*Send it"):
        register(chain)
    assert chain.sent == []


def test_a_registration_that_another_try_made_counts() -> None:
    chain = Chain()
    chain.estimate_refusal = Refusal(3, "execution reverted", "0x")
    chain.registers_at_refusal = True
    register(chain)
    assert chain.sent == []


def test_a_transaction_that_reverted_is_said() -> None:
    chain = Chain()
    chain.status = "0x0"
    with serving(chain.methods()) as url, pytest.raises(ServiceError, match=r"transaction 0xaaaa.* reverted"):
        Wallet(KEY, RpcClient(url)).transact(WORKER_REGISTRY, REGISTRY_ADDRESS, "addStake", KEY.address, value_wei=1)


def test_a_transaction_that_is_not_mined_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.wallet.RECEIPT_TIMEOUT_S", 0.0)
    with serving(Chain().methods()) as url, pytest.raises(ServiceError, match="is not in a block after 0 s"):
        Wallet(KEY, RpcClient(url)).transact(WORKER_REGISTRY, REGISTRY_ADDRESS, "addStake", KEY.address, value_wei=1)


def test_a_chain_that_is_away_is_another_error() -> None:
    with serving({}) as url:
        pass
    with pytest.raises(ServiceUnreachable):
        ensure_registered(Wallet(KEY, RpcClient(url)), KEY, CHAIN_ID, TLS_KEY, CAPABILITIES_HASH)
