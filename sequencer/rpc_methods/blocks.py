"""eth_: blocks, headers, transactions and receipts by number, hash and index; debug_getRaw*."""

from collections.abc import Mapping

from core.block import encode_block, encode_header
from core.chain import SealedBlock
from core.transaction import encode_transaction
from sequencer.jsonrpc.errors import SERVER_ERROR, RpcError
from sequencer.jsonrpc.hexadecimal import data, quantity
from sequencer.jsonrpc.method import Json, Method, heavy, light
from sequencer.jsonrpc.parameters import BlockReference, Parameters
from sequencer.rpc_methods.services import Services
from sequencer.rpc_methods.shapes import (
    block_json,
    header_json,
    pending_transaction_json,
    receipt_json,
    receipts_json,
    transaction_at,
)

__all__ = ["BlockMethods"]


class BlockMethods:
    """Look-ups in the chain, and in the mempool for transactions that wait."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._view = services.view

    def methods(self) -> Mapping[str, Method]:
        """Name to method."""
        return {
            "eth_blockNumber": light(self.block_number),
            "eth_getBlockByNumber": light(self.block_by_number),
            "eth_getBlockByHash": light(self.block_by_hash),
            "eth_getHeaderByNumber": light(self.header_by_number),
            "eth_getHeaderByHash": light(self.header_by_hash),
            "eth_getBlockReceipts": heavy(self.block_receipts),
            "eth_getBlockTransactionCountByNumber": light(self.transaction_count),
            "eth_getBlockTransactionCountByHash": light(self.transaction_count),
            "eth_getUncleCountByBlockNumber": light(self.uncle_count),
            "eth_getUncleCountByBlockHash": light(self.uncle_count),
            "eth_getUncleByBlockNumberAndIndex": light(self.uncle),
            "eth_getUncleByBlockHashAndIndex": light(self.uncle),
            "eth_getTransactionByHash": light(self.transaction_by_hash),
            "eth_getTransactionByBlockNumberAndIndex": light(self.transaction_by_index),
            "eth_getTransactionByBlockHashAndIndex": light(self.transaction_by_index),
            "eth_getTransactionReceipt": light(self.transaction_receipt),
            "eth_getRawTransactionByHash": light(self.raw_transaction),
            "eth_getRawTransactionByBlockNumberAndIndex": light(self.raw_transaction_by_index),
            "eth_getRawTransactionByBlockHashAndIndex": light(self.raw_transaction_by_index),
            "debug_getRawBlock": heavy(self.raw_block),
            "debug_getRawHeader": light(self.raw_header),
            "debug_getRawReceipts": heavy(self.raw_receipts),
            "debug_getRawTransaction": light(self.raw_transaction),
        }

    def block_number(self, parameters: Parameters) -> Json:
        parameters.at_most(0)
        return quantity(self._services.chain.head().number)

    def block_by_number(self, parameters: Parameters) -> Json:
        parameters.at_most(2)
        return self._block(parameters.required_number(0), full=parameters.boolean(1))

    def block_by_hash(self, parameters: Parameters) -> Json:
        parameters.at_most(2)
        return self._block(BlockReference(hash=parameters.hash(0)), full=parameters.boolean(1))

    def header_by_number(self, parameters: Parameters) -> Json:
        parameters.at_most(1)
        return self._header(parameters.required_number(0))

    def header_by_hash(self, parameters: Parameters) -> Json:
        parameters.at_most(1)
        return self._header(BlockReference(hash=parameters.hash(0)))

    def block_receipts(self, parameters: Parameters) -> Json:
        parameters.at_most(1)
        sealed = self._view.find(parameters.required_block(0))
        if sealed is None:
            return None
        return receipts_json(sealed, self._services.chain.receipts(sealed.number), self._services.chain.config)

    def transaction_count(self, parameters: Parameters) -> Json:
        parameters.at_most(1)
        sealed = self._view.find(parameters.required_block(0))
        return None if sealed is None else quantity(len(sealed.block.transactions))

    def uncle_count(self, parameters: Parameters) -> Json:
        parameters.at_most(1)
        sealed = self._view.find(parameters.required_block(0))
        return None if sealed is None else quantity(len(sealed.block.ommers))

    def uncle(self, parameters: Parameters) -> Json:
        parameters.at_most(2)
        parameters.required_block(0)
        parameters.quantity(1)
        return None  # no block that this chain makes has any

    def transaction_by_hash(self, parameters: Parameters) -> Json:
        parameters.at_most(1)
        transaction_hash = parameters.hash(0)
        place = self._services.chain.find_transaction(transaction_hash)
        if place is not None:
            return transaction_at(self._sealed(place.number), place.row)
        entry = self._services.mempool.get(transaction_hash)
        return entry and pending_transaction_json(entry.transaction, entry.hash, entry.sender)

    def transaction_by_index(self, parameters: Parameters) -> Json:
        parameters.at_most(2)
        sealed, row = self._view.find(parameters.required_block(0)), parameters.quantity(1)
        if sealed is None or row >= len(sealed.block.transactions):
            return None
        return transaction_at(sealed, row)

    def transaction_receipt(self, parameters: Parameters) -> Json:
        parameters.at_most(1)
        place = self._services.chain.find_transaction(parameters.hash(0))
        if place is None:
            return None
        chain = self._services.chain
        return receipt_json(self._sealed(place.number), chain.receipts(place.number), place.row, chain.config)

    def raw_transaction(self, parameters: Parameters) -> Json:
        parameters.at_most(1)
        transaction_hash = parameters.hash(0)
        place = self._services.chain.find_transaction(transaction_hash)
        if place is not None:
            return data(encode_transaction(self._sealed(place.number).block.transactions.transaction(place.row)))
        entry = self._services.mempool.get(transaction_hash)
        return data(encode_transaction(entry.transaction) if entry else b"")

    def raw_transaction_by_index(self, parameters: Parameters) -> Json:
        parameters.at_most(2)
        sealed, row = self._view.find(parameters.required_block(0)), parameters.quantity(1)
        if sealed is None or row >= len(sealed.block.transactions):
            return data(b"")
        return data(encode_transaction(sealed.block.transactions.transaction(row)))

    def raw_block(self, parameters: Parameters) -> Json:
        parameters.at_most(1)
        return data(encode_block(self._need(parameters.required_block(0), "block").block))

    def raw_header(self, parameters: Parameters) -> Json:
        parameters.at_most(1)
        return data(encode_header(self._need(parameters.required_block(0), "header").block.header))

    def raw_receipts(self, parameters: Parameters) -> Json:
        parameters.at_most(1)
        sealed = self._need(parameters.required_block(0), "block")
        return [data(raw) for raw in self._services.chain.receipts(sealed.number).encoded()]

    def _block(self, reference: BlockReference, *, full: bool) -> Json:
        sealed = self._view.find(reference)
        return None if sealed is None else block_json(sealed, full_transactions=full)

    def _header(self, reference: BlockReference) -> Json:
        sealed = self._view.find(reference)
        return None if sealed is None else header_json(sealed.block.header, sealed.hash)

    def _need(self, reference: BlockReference, what: str) -> SealedBlock:
        sealed = self._view.find(reference)
        if sealed is None:
            name = f"#{reference.number}" if reference.hash is None else data(reference.hash)
            raise RpcError(SERVER_ERROR, f"{what} {name} not found")
        return sealed

    def _sealed(self, number: int) -> SealedBlock:
        sealed = self._services.chain.block(number)
        assert sealed is not None, "the transaction index names blocks of the chain"
        return sealed
