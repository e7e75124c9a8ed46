"""What the client tests and the throughput benchmark share: a token, many signed transfers, and EELS' opinion."""

import json
from pathlib import Path
from typing import Any

from eth_account.signers.local import LocalAccount
from web3 import Web3

from core.block import decode_block, header_hash
from core.chain import SealedBlock
from tests.conformance.chain_file import replay
from tests.integration.local_sequencer import CHAIN_ID, genesis
from worker.evm.reference import ReferenceExecutor

__all__ = [
    "GWEI",
    "RECEIVER",
    "SUPPLY",
    "check_with_eels",
    "connect",
    "deploy_token",
    "send",
    "send_all",
    "signed_transfers",
]

SUPPLY = 10**24
RECEIVER = Web3.to_checksum_address("0x" + "ab" * 20)
GWEI = 10**9
_ARTIFACT = json.loads((Path(__file__).parent / "contracts" / "artifacts" / "TestToken.json").read_text())
_BATCH = 100


def connect(url: str) -> Web3:
    """web3.py over HTTP."""
    return Web3(Web3.HTTPProvider(url))


def send(web3: Web3, account: LocalAccount, transaction: dict[str, Any]) -> Any:
    """Sign, send, and wait for the receipt."""
    transaction = {"from": account.address, "chainId": CHAIN_ID, **transaction}
    transaction.setdefault("nonce", web3.eth.get_transaction_count(account.address, "pending"))
    signed = account.sign_transaction(transaction)
    sent = web3.eth.send_raw_transaction(signed.raw_transaction)
    return web3.eth.wait_for_transaction_receipt(sent, poll_latency=0.02)


def deploy_token(web3: Web3, account: LocalAccount) -> Any:
    """OpenZeppelin's ERC-20, by web3.py's own means."""
    factory = web3.eth.contract(abi=_ARTIFACT["abi"], bytecode=_ARTIFACT["bytecode"])
    nonce = web3.eth.get_transaction_count(account.address)
    transaction = factory.constructor(SUPPLY).build_transaction({"from": account.address, "nonce": nonce})
    receipt = send(web3, account, dict(transaction))
    assert receipt["status"] == 1
    return web3.eth.contract(address=receipt["contractAddress"], abi=_ARTIFACT["abi"])


def signed_transfers(web3: Web3, account: LocalAccount, token: Any, *, plain: int, calls: int) -> list[bytes]:
    """`plain` transfers of one wei, then `calls` of one token unit, all to `RECEIVER`."""
    nonce = web3.eth.get_transaction_count(account.address)
    common = {"chainId": CHAIN_ID, "maxFeePerGas": 10 * GWEI, "maxPriorityFeePerGas": 1, "type": 2}
    data = token.encode_abi("transfer", args=[RECEIVER, 1])
    of_wei = {**common, "to": RECEIVER, "value": 1, "gas": 21_000}
    of_token = {**common, "to": token.address, "value": 0, "gas": 60_000, "data": data}
    transactions = [of_wei] * plain + [of_token] * calls
    return [account.sign_transaction({**one, "nonce": nonce + i}).raw_transaction for i, one in enumerate(transactions)]


def send_all(web3: Web3, raws: list[bytes]) -> list[Any]:
    """Send in batches and wait until the last one is mined; the hashes."""
    hashes: list[Any] = []
    for start in range(0, len(raws), _BATCH):
        calls = [("eth_sendRawTransaction", ["0x" + raw.hex()]) for raw in raws[start : start + _BATCH]]
        answers = web3.provider.make_batch_request(calls)  # type: ignore[attr-defined]
        hashes += [answer["result"] for answer in answers]
    web3.eth.wait_for_transaction_receipt(hashes[-1], timeout=120, poll_latency=0.05)
    return hashes


def check_with_eels(web3: Web3) -> None:
    """Execute the chain again from genesis; `replay` raises unless every header says what came out."""
    head = web3.eth.block_number
    sealed = []
    for number in range(1, head + 1):
        raw = web3.manager.request_blocking("debug_getRawBlock", [hex(number)])  # type: ignore[arg-type]
        block = decode_block(bytes.fromhex(raw[2:]))
        sealed.append(SealedBlock(header_hash(block.header), block))
    executed = list(replay(genesis(), iter(sealed), ReferenceExecutor()))
    assert len(executed) == head
    for one in executed:
        shown = web3.manager.request_blocking("debug_getRawReceipts", [hex(one.sealed.number)])  # type: ignore[arg-type]
        assert [bytes.fromhex(raw[2:]) for raw in shown] == one.outcome.receipts.encoded()
