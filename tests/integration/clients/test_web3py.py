"""web3.py, unchanged, against a running sequencer: deploy, write, read, logs, WebSocket heads, a thousand transfers.

What was mined is executed a second time with EELS here, block by block, and every root must be the header's.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount
from web3 import AsyncWeb3, Web3
from web3.exceptions import ContractLogicError, Web3RPCError
from web3.providers.persistent import WebSocketProvider

from tests.integration.clients.token_transfers import (
    GWEI,
    RECEIVER,
    SUPPLY,
    check_with_eels,
    connect,
    deploy_token,
    send,
    send_all,
    signed_transfers,
)
from tests.integration.local_sequencer import CHAIN_ID, DEV_ACCOUNTS, DEV_KEYS, RunningSequencer, running_sequencer


@pytest.fixture(scope="module")
def sequencer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSequencer]:
    with running_sequencer(tmp_path_factory.mktemp("sequencer")) as running:
        yield running


@pytest.fixture(scope="module")
def web3(sequencer: RunningSequencer) -> Web3:
    return connect(sequencer.url)


@pytest.fixture(scope="module")
def account() -> LocalAccount:
    return Account.from_key(DEV_KEYS[0])


@pytest.fixture(scope="module")
def token(web3: Web3, account: LocalAccount) -> Any:
    return deploy_token(web3, account)


def test_chain(web3: Web3) -> None:
    assert web3.is_connected()
    assert web3.eth.chain_id == CHAIN_ID
    assert web3.client_version.startswith("warpgrid/")
    assert web3.eth.get_balance(DEV_ACCOUNTS[1]) == 10_000 * 10**18
    history = web3.eth.fee_history(4, "latest", [25, 75])
    assert len(history["baseFeePerGas"]) == len(history["gasUsedRatio"]) + 1


def test_token(web3: Web3, account: LocalAccount, token: Any) -> None:
    assert token.functions.balanceOf(account.address).call() == SUPPLY
    transaction = token.functions.transfer(RECEIVER, 5).build_transaction(
        {"from": account.address, "nonce": web3.eth.get_transaction_count(account.address)}
    )
    receipt = send(web3, account, dict(transaction))
    assert token.functions.balanceOf(RECEIVER).call() == 5
    (event,) = token.events.Transfer().process_receipt(receipt)
    assert event["args"]["value"] == 5
    found = token.events.Transfer().get_logs(from_block=receipt["blockNumber"])
    assert [one["transactionHash"] for one in found] == [receipt["transactionHash"]]
    assert web3.eth.get_storage_at(token.address, 2) == SUPPLY.to_bytes(32, "big")
    proof = web3.eth.get_proof(token.address, [2], "latest")
    assert proof["storageProof"][0]["value"] == SUPPLY.to_bytes(10, "big")


def test_reverts_and_refusals(web3: Web3, account: LocalAccount, token: Any) -> None:
    poor = Account.from_key("0x" + "11" * 32)
    with pytest.raises(ContractLogicError):
        token.functions.transfer(RECEIVER, 1).call({"from": poor.address})
    unpaid = {"to": RECEIVER, "value": 1, "gas": 21_000, "maxFeePerGas": GWEI, "maxPriorityFeePerGas": 1}
    with pytest.raises(Web3RPCError, match="insufficient funds for gas"):
        send(web3, poor, {**unpaid, "nonce": 0})
    with pytest.raises(Web3RPCError, match="nonce too low: next nonce"):
        send(web3, account, {**unpaid, "nonce": 0})
    with pytest.raises(Web3RPCError, match="does not exist/is not available"):
        web3.manager.request_blocking("hardhat_metadata", [])  # type: ignore[arg-type]


async def test_web_socket_heads_and_logs(
    sequencer: RunningSequencer, web3: Web3, account: LocalAccount, token: Any
) -> None:
    async with AsyncWeb3(WebSocketProvider(sequencer.web_socket_url)) as socket:
        heads = await socket.eth.subscribe("newHeads")
        logs = await socket.eth.subscribe("logs", {"address": token.address})
        nonce = await socket.eth.get_transaction_count(account.address, "pending")
        transaction = await _token_transfer(socket, token, account, nonce)
        sent = await socket.eth.send_raw_transaction(account.sign_transaction(transaction).raw_transaction)
        seen_heads, seen_logs = 0, []
        async for message in socket.socket.process_subscriptions():
            if message["subscription"] == heads:
                seen_heads += 1
            else:
                assert message["subscription"] == logs
                seen_logs.append(message["result"]["transactionHash"])
            if seen_heads and seen_logs:
                break
        assert seen_logs == [sent]
        assert await socket.eth.unsubscribe(heads)


async def _token_transfer(socket: Any, token: Any, account: LocalAccount, nonce: int) -> dict[str, Any]:
    data = token.encode_abi("transfer", args=[RECEIVER, 7])
    fields = {"to": token.address, "data": data, "gas": 80_000, "nonce": nonce, "chainId": CHAIN_ID, "value": 0}
    price = await socket.eth.gas_price
    return {**fields, "maxFeePerGas": 2 * price, "maxPriorityFeePerGas": 1}


@pytest.mark.parametrize(("plain", "calls"), [(60, 20), pytest.param(1_000, 200, marks=pytest.mark.soak)])
def test_many_transfers_as_eels_has_them(web3: Web3, account: LocalAccount, token: Any, plain: int, calls: int) -> None:
    before = web3.eth.get_balance(RECEIVER)
    hashes = send_all(web3, signed_transfers(web3, account, token, plain=plain, calls=calls))
    receipts = [web3.eth.get_transaction_receipt(one) for one in hashes]
    assert all(receipt["status"] == 1 for receipt in receipts)
    assert web3.eth.get_balance(RECEIVER) == before + plain
    check_with_eels(web3)
