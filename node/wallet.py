"""Sends transactions from one account over JSON-RPC and waits until they are in a block.

Knows signing and fees; what a transaction is for is its caller's business. Blocks its thread.
"""

import time
from dataclasses import dataclass
from typing import Any

from core.contract import Artifact
from core.signature import attach_signature
from core.transaction import Transaction, TransactionType, encode_transaction, signing_hash
from node.client import RpcClient
from node.errors import ServiceError
from protos.handshake import Signer

__all__ = ["Mined", "Wallet", "read_contract"]

RECEIPT_TIMEOUT_S = 60.0
_POLL_INTERVAL_S = 0.05
_BASE_FEE_HEADROOM = 2  # a block can raise the base fee by an eighth; twice covers six in a row
_PRIORITY_FEE_WEI = 10**9


@dataclass(frozen=True, slots=True)
class Mined:
    """A transaction that is in a block and succeeded."""

    hash: bytes
    block_number: int
    gas_used: int


class Wallet:
    """An account and the node that it talks to."""

    def __init__(self, signer: Signer, rpc: RpcClient) -> None:
        self._signer = signer
        self._rpc = rpc

    @property
    def address(self) -> bytes:
        return self._signer.address

    def read(self, contract: Artifact, address: bytes, function: str, *arguments: object) -> Any:
        """As `read_contract`."""
        return read_contract(self._rpc, contract, address, function, *arguments)

    def transact(
        self, contract: Artifact, address: bytes, function: str, *arguments: object, value_wei: int = 0
    ) -> Mined:
        """Call a function in a transaction and wait until it is mined.

        Raises ServiceError when it would revert (nothing was sent then, and the contract's error is named), when it
        reverted, or when it was not mined in time.
        """
        data = contract.encode_call(function, *arguments)
        call = {"from": _hex(self.address), "to": _hex(address), "data": _hex(data), "value": hex(value_wei)}
        try:
            gas = int(self._rpc.call("eth_estimateGas", call), 16)
        except ServiceError as error:
            reason = contract.decode_error(error.data) if error.data else None
            raise ServiceError(f"{contract.name}.{function} would fail: {reason or error}") from error
        return self._wait(self._send(address, data, value_wei, gas + gas // 4))

    def _send(self, to: bytes, data: bytes, value_wei: int, gas_limit: int) -> bytes:
        base_fee = int(self._rpc.call("eth_getBlockByNumber", "latest", False)["baseFeePerGas"], 16)
        tx = Transaction(
            type=TransactionType.FEE_MARKET,
            chain_id=int(self._rpc.call("eth_chainId"), 16),
            nonce=int(self._rpc.call("eth_getTransactionCount", _hex(self.address), "pending"), 16),
            gas_limit=gas_limit,
            max_fee_per_gas=_BASE_FEE_HEADROOM * base_fee + _PRIORITY_FEE_WEI,
            max_priority_fee_per_gas=_PRIORITY_FEE_WEI,
            to=to,
            value=value_wei,
            data=data,
            y_parity=0,
            r=0,
            s=0,
        )
        signed = attach_signature(tx, self._signer.sign(signing_hash(tx)))
        return bytes.fromhex(self._rpc.call("eth_sendRawTransaction", _hex(encode_transaction(signed)))[2:])

    def _wait(self, transaction_hash: bytes) -> Mined:
        deadline = time.monotonic() + RECEIPT_TIMEOUT_S
        while time.monotonic() < deadline:
            receipt = self._rpc.call("eth_getTransactionReceipt", _hex(transaction_hash))
            if receipt is not None:
                if receipt["status"] != "0x1":
                    raise ServiceError(f"transaction {_hex(transaction_hash)} reverted")
                return Mined(transaction_hash, int(receipt["blockNumber"], 16), int(receipt["gasUsed"], 16))
            time.sleep(_POLL_INTERVAL_S)
        raise ServiceError(f"transaction {_hex(transaction_hash)} is not in a block after {RECEIPT_TIMEOUT_S:.0f} s")


def read_contract(rpc: RpcClient, contract: Artifact, address: bytes, function: str, *arguments: object) -> Any:
    """What a view function returns now. Raises ServiceError with the contract's error when it reverts."""
    call = {"to": _hex(address), "data": _hex(contract.encode_call(function, *arguments))}
    return contract.decode_result(function, bytes.fromhex(rpc.call("eth_call", call, "latest")[2:]))


def _hex(raw: bytes) -> str:
    return "0x" + raw.hex()
