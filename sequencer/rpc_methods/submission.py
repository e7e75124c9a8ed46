"""eth_sendRawTransaction and what waits: txpool_."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from core.errors import TransactionError
from sequencer.errors import MempoolError
from sequencer.jsonrpc.errors import SERVER_ERROR, RpcError
from sequencer.jsonrpc.hexadecimal import checksum_address, data, quantity
from sequencer.jsonrpc.method import Connection, Json, Method, connected, light
from sequencer.jsonrpc.parameters import Parameters
from sequencer.mempool import MempoolContent, PooledTransaction
from sequencer.rpc_methods.services import Services
from sequencer.rpc_methods.shapes import pending_transaction_json, receipt_json

__all__ = ["SubmissionMethods"]

_TRANSACTION_SYNC_TIMEOUT = 4


class SubmissionMethods:
    """Admission to the mempool, and a look into it."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def methods(self) -> Mapping[str, Method]:
        """Name to method. Those that read the mempool run on the event loop, which owns it."""
        return {
            "eth_sendRawTransaction": connected(self.send_raw_transaction),
            "eth_sendRawTransactionSync": connected(self.send_raw_transaction_sync),
            "eth_pendingTransactions": light(self.pending_transactions),
            "txpool_content": light(self.content),
            "txpool_contentFrom": light(self.content_from),
            "txpool_inspect": light(self.inspect),
            "txpool_status": light(self.status),
        }

    async def send_raw_transaction(self, parameters: Parameters, _: Connection) -> Json:
        """Answered once the transaction is on disk."""
        parameters.at_most(1)
        return data(await self._submit(parameters.data(0)))

    async def send_raw_transaction_sync(self, parameters: Parameters, _: Connection) -> Json:
        """Submit, wait for the block, answer the receipt (EIP-7966)."""
        parameters.at_most(2)
        raw = parameters.data(0)
        longest_s = self._services.limits.receipt_wait_max_s
        asked_s = (parameters.quantity(1) / 1000) if len(parameters) > 1 else longest_s
        listening = self._services.heads.listen()
        try:
            transaction_hash = await self._submit(raw)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(asked_s, longest_s)):
                    async for head in listening:
                        place = self._services.chain.find_transaction(transaction_hash)
                        if place is not None and place.number == head.sealed.number:
                            return receipt_json(head.sealed, head.receipts, place.row, self._services.chain.config)
        finally:
            listening.close()
        message = "The transaction was added to the transaction pool but wasn't processed in time"
        raise RpcError(_TRANSACTION_SYNC_TIMEOUT, message, data(transaction_hash))

    def pending_transactions(self, parameters: Parameters) -> Json:
        """Of this node's own accounts, of which there are none."""
        parameters.at_most(0)
        return []

    def content(self, parameters: Parameters) -> Json:
        parameters.at_most(0)
        return self._by_part(_transactions_by_nonce)

    def content_from(self, parameters: Parameters) -> Json:
        parameters.at_most(1)
        content = self._services.mempool.content_from(parameters.address(0))
        return {"pending": _transactions_by_nonce(content.pending), "queued": _transactions_by_nonce(content.queued)}

    def inspect(self, parameters: Parameters) -> Json:
        parameters.at_most(0)
        return self._by_part(_summaries_by_nonce)

    def status(self, parameters: Parameters) -> Json:
        parameters.at_most(0)
        counts = self._services.mempool.counts()
        return {"pending": quantity(counts.pending), "queued": quantity(counts.queued)}

    async def _submit(self, raw: bytes) -> bytes:
        try:
            return await self._services.admission.admit(raw)
        except (MempoolError, TransactionError) as error:
            raise RpcError(SERVER_ERROR, str(error)) from error

    def _by_part(self, describe: Any) -> Json:
        parts: dict[str, dict[str, Json]] = {"pending": {}, "queued": {}}
        for one in self._services.mempool.content():
            for part, entries in _parts(one).items():
                if entries:
                    parts[part][checksum_address(one.sender)] = describe(entries)
        return parts


def _parts(content: MempoolContent) -> dict[str, tuple[PooledTransaction, ...]]:
    return {"pending": content.pending, "queued": content.queued}


def _transactions_by_nonce(entries: tuple[PooledTransaction, ...]) -> dict[str, Json]:
    return {str(one.nonce): pending_transaction_json(one.transaction, one.hash, one.sender) for one in entries}


def _summaries_by_nonce(entries: tuple[PooledTransaction, ...]) -> dict[str, Json]:
    return {str(one.nonce): _summary(one) for one in entries}


def _summary(entry: PooledTransaction) -> str:
    tx = entry.transaction
    to = "contract creation" if tx.to is None else checksum_address(tx.to)
    return f"{to}: {tx.value} wei + {tx.gas_limit} gas × {tx.max_fee_per_gas} wei"
