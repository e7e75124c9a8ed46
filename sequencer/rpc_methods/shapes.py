"""The JSON of headers, blocks, transactions, receipts and logs, as geth writes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core import rlp
from core.block import Block, Header, encoded_size_bytes, header_hash
from core.chain import LogRecord, SealedBlock
from core.chain_rules import BLOB_GAS, blob_base_fee
from core.execution import Withdrawal
from core.fork import ChainConfig
from core.hashing import keccak256
from core.receipts import Log, ReceiptColumns, bloom_of_logs
from core.transaction import Transaction, TransactionType
from sequencer.jsonrpc.hexadecimal import data, quantity
from sequencer.jsonrpc.method import Json

__all__ = [
    "PENDING",
    "TransactionPlace",
    "block_json",
    "created_address",
    "header_json",
    "log_json",
    "log_records_json",
    "pending_transaction_json",
    "receipt_json",
    "receipts_json",
    "transaction_at",
    "transaction_json",
    "withdrawals_json",
]


@dataclass(frozen=True, slots=True)
class TransactionPlace:
    """Where a transaction stands, and the base fee there; all None while it waits."""

    block_hash: bytes | None = None
    block_number: int | None = None
    block_timestamp: int | None = None
    index: int | None = None
    base_fee: int | None = None

    @classmethod
    def in_block(cls, sealed: SealedBlock, index: int) -> "TransactionPlace":
        """Row `index` of a block."""
        header = sealed.block.header
        return cls(sealed.hash, header.number, header.timestamp, index, header.base_fee_per_gas)


PENDING = TransactionPlace()


def header_json(header: Header, block_hash: bytes) -> dict[str, Json]:
    """A header's members; those of later forks only where the header has them."""
    body: dict[str, Json] = {
        "difficulty": quantity(header.difficulty),
        "extraData": data(header.extra_data),
        "gasLimit": quantity(header.gas_limit),
        "gasUsed": quantity(header.gas_used),
        "hash": data(block_hash),
        "logsBloom": data(header.logs_bloom),
        "miner": data(header.coinbase),
        "mixHash": data(header.prev_randao),
        "nonce": data(header.nonce),
        "number": quantity(header.number),
        "parentHash": data(header.parent_hash),
        "receiptsRoot": data(header.receipts_root),
        "sha3Uncles": data(header.ommers_hash),
        "stateRoot": data(header.state_root),
        "timestamp": quantity(header.timestamp),
        "transactionsRoot": data(header.transactions_root),
    }
    quantities = {
        "baseFeePerGas": header.base_fee_per_gas,
        "blobGasUsed": header.blob_gas_used,
        "excessBlobGas": header.excess_blob_gas,
    }
    hashes = {
        "withdrawalsRoot": header.withdrawals_root,
        "parentBeaconBlockRoot": header.parent_beacon_block_root,
        "requestsHash": header.requests_hash,
    }
    body.update({name: quantity(value) for name, value in quantities.items() if value is not None})
    body.update({name: data(value) for name, value in hashes.items() if value is not None})
    return body


def block_json(sealed: SealedBlock, *, full_transactions: bool) -> dict[str, Json]:
    """A block with its transactions' hashes, or the whole transactions."""
    block = sealed.block
    rows = range(len(block.transactions))
    if full_transactions:
        transactions: list[Json] = [transaction_at(sealed, row) for row in rows]
    else:
        transactions = [data(one.tobytes()) for one in block.transactions.hash]
    return {
        **header_json(block.header, sealed.hash),
        **_body_json(block),
        "size": quantity(encoded_size_bytes(block)),
        "transactions": transactions,
    }


def _body_json(block: Block) -> dict[str, Json]:
    body: dict[str, Json] = {"uncles": [data(header_hash(ommer)) for ommer in block.ommers]}
    if block.withdrawals is not None:
        body["withdrawals"] = withdrawals_json(block.withdrawals)
    return body


def withdrawals_json(withdrawals: Sequence[Withdrawal]) -> list[Json]:
    """EIP-4895."""
    return [
        {
            "index": quantity(one.index),
            "validatorIndex": quantity(one.validator_index),
            "address": data(one.address),
            "amount": quantity(one.amount),
        }
        for one in withdrawals
    ]


def transaction_at(sealed: SealedBlock, row: int) -> dict[str, Json]:
    """The transaction in row `row` of a block."""
    columns = sealed.block.transactions
    place = TransactionPlace.in_block(sealed, row)
    tx = columns.transaction(row)
    return transaction_json(tx, columns.hash[row].tobytes(), columns.sender[row].tobytes(), place)


def pending_transaction_json(tx: Transaction, transaction_hash: bytes, sender: bytes) -> dict[str, Json]:
    """A transaction that waits in the mempool."""
    return transaction_json(tx, transaction_hash, sender, PENDING)


def transaction_json(
    tx: Transaction, transaction_hash: bytes, sender: bytes, place: TransactionPlace
) -> dict[str, Json]:
    """A transaction and its place. `gasPrice` is what it paid; while it waits, the most that it would pay."""
    body: dict[str, Json] = {
        "blockHash": None if place.block_hash is None else data(place.block_hash),
        "blockNumber": _optional(place.block_number),
        "blockTimestamp": _optional(place.block_timestamp),
        "from": data(sender),
        "gas": quantity(tx.gas_limit),
        "gasPrice": quantity(_price_paid(tx, place.base_fee)),
        "hash": data(transaction_hash),
        "input": data(tx.data),
        "nonce": quantity(tx.nonce),
        "to": None if tx.to is None else data(tx.to),
        "transactionIndex": _optional(place.index),
        "value": quantity(tx.value),
        "type": quantity(tx.type),
        "v": quantity(_signature_v(tx)),
        "r": quantity(tx.r),
        "s": quantity(tx.s),
    }
    if tx.chain_id is not None:
        body["chainId"] = quantity(tx.chain_id)
    if tx.type != TransactionType.LEGACY:
        body["yParity"] = quantity(tx.y_parity)
        body["accessList"] = [
            {"address": data(entry.address), "storageKeys": [data(key) for key in entry.storage_keys]}
            for entry in tx.access_list
        ]
    if tx.type >= TransactionType.FEE_MARKET:
        body["maxFeePerGas"] = quantity(tx.max_fee_per_gas)
        body["maxPriorityFeePerGas"] = quantity(tx.max_priority_fee_per_gas)
    if tx.type == TransactionType.BLOB:
        body["maxFeePerBlobGas"] = quantity(tx.max_fee_per_blob_gas)
        body["blobVersionedHashes"] = [data(one) for one in tx.blob_versioned_hashes]
    if tx.type == TransactionType.SET_CODE:
        body["authorizationList"] = _authorizations_json(tx)
    return body


def _authorizations_json(tx: Transaction) -> list[Json]:
    return [
        {
            "chainId": quantity(one.chain_id),
            "address": data(one.address),
            "nonce": quantity(one.nonce),
            "yParity": quantity(one.y_parity),
            "r": quantity(one.r),
            "s": quantity(one.s),
        }
        for one in tx.authorizations
    ]


def _price_paid(tx: Transaction, base_fee: int | None) -> int:
    if base_fee is None or tx.type < TransactionType.FEE_MARKET:
        return tx.max_fee_per_gas
    return min(tx.max_fee_per_gas, base_fee + tx.max_priority_fee_per_gas)


def _signature_v(tx: Transaction) -> int:
    if tx.type != TransactionType.LEGACY or tx.r == tx.s == 0:
        return tx.y_parity
    return 27 + tx.y_parity if tx.chain_id is None else 35 + 2 * tx.chain_id + tx.y_parity


def _optional(value: int | None) -> str | None:
    return None if value is None else quantity(value)


def log_json(log: Log, place: TransactionPlace, transaction_hash: bytes, log_index: int) -> dict[str, Json]:
    """One log and its place; `log_index` counts within the block."""
    return {
        "address": data(log.address),
        "topics": [data(topic) for topic in log.topics],
        "data": data(log.data),
        "blockNumber": _optional(place.block_number),
        "transactionHash": data(transaction_hash),
        "transactionIndex": _optional(place.index),
        "blockHash": None if place.block_hash is None else data(place.block_hash),
        "blockTimestamp": _optional(place.block_timestamp),
        "logIndex": quantity(log_index),
        "removed": False,
    }


def log_records_json(records: Sequence[LogRecord], blocks: Mapping[int, SealedBlock]) -> list[Json]:
    """Found logs; `blocks` holds every block that they are in."""
    found: list[Json] = []
    for record in records:
        sealed = blocks[record.number]
        place = TransactionPlace.in_block(sealed, record.row)
        transaction_hash = sealed.block.transactions.hash[record.row].tobytes()
        found.append(log_json(record.log, place, transaction_hash, record.log_index))
    return found


def receipts_json(sealed: SealedBlock, receipts: ReceiptColumns, config: ChainConfig) -> list[Json]:
    """All receipts of a block."""
    return [receipt_json(sealed, receipts, row, config) for row in range(len(receipts))]


def receipt_json(sealed: SealedBlock, receipts: ReceiptColumns, row: int, config: ChainConfig) -> dict[str, Json]:
    """The receipt of row `row`."""
    header, columns = sealed.block.header, sealed.block.transactions
    tx = columns.transaction(row)
    sender, transaction_hash = columns.sender[row].tobytes(), columns.hash[row].tobytes()
    place = TransactionPlace.in_block(sealed, row)
    logs = receipts.logs(row)
    first_log = int(receipts.log_offsets[row])
    body: dict[str, Json] = {
        "blockHash": data(sealed.hash),
        "blockNumber": quantity(header.number),
        "contractAddress": data(created_address(sender, tx.nonce)) if tx.to is None else None,
        "cumulativeGasUsed": quantity(int(receipts.cumulative_gas_used()[row])),
        "effectiveGasPrice": quantity(_price_paid(tx, header.base_fee_per_gas)),
        "from": data(sender),
        "gasUsed": quantity(int(receipts.gas_used[row])),
        "logs": [log_json(log, place, transaction_hash, first_log + i) for i, log in enumerate(logs)],
        "logsBloom": data(bloom_of_logs(logs)),
        "to": None if tx.to is None else data(tx.to),
        "transactionHash": data(transaction_hash),
        "transactionIndex": quantity(row),
        "type": quantity(tx.type),
    }
    if len(receipts.post_state):
        body["root"] = data(receipts.post_state[row].tobytes())
    else:
        body["status"] = quantity(int(receipts.succeeded[row]))
    if tx.type == TransactionType.BLOB:
        fork = config.fork_at(header.number, header.timestamp)
        body["blobGasUsed"] = quantity(BLOB_GAS * len(tx.blob_versioned_hashes))
        body["blobGasPrice"] = quantity(blob_base_fee(header.excess_blob_gas or 0, fork))
    return body


def created_address(sender: bytes, nonce: int) -> bytes:
    """The address of the contract that a creating transaction makes."""
    return keccak256(rlp.encode([sender, rlp.encode_int(nonce)]))[12:]
