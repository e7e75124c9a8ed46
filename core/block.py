"""Headers and blocks: fields, canonical bytes, hashes (Yellow Paper, 4.3; EIP-1559, 4895, 4844, 4788, 7685).

A block holds its transactions as columns. Whether a block is valid is decided in `core.chain_rules`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from core import rlp
from core.errors import BlockError, RlpError
from core.execution import Withdrawal
from core.hashing import keccak256
from core.receipts import BLOOM_BYTES
from core.signature import recover_senders
from core.transaction import Transaction, TransactionColumns, decode_transaction

__all__ = [
    "Block",
    "Header",
    "decode_block",
    "decode_envelope",
    "decode_header",
    "encode_block",
    "encode_envelope",
    "encode_header",
    "encoded_size_bytes",
    "header_hash",
    "ommers_hash_of",
    "withdrawal_item",
]


@dataclass(frozen=True, slots=True)
class Header:
    """A block header. Hashes are 32 bytes, `timestamp` is seconds, `base_fee_per_gas` wei.

    The fields from `base_fee_per_gas` on are None before the fork that brought them; once one is None, all later are.
    """

    parent_hash: bytes
    ommers_hash: bytes
    coinbase: bytes
    state_root: bytes
    transactions_root: bytes
    receipts_root: bytes
    logs_bloom: bytes
    difficulty: int
    number: int
    gas_limit: int
    gas_used: int
    timestamp: int
    extra_data: bytes
    prev_randao: bytes
    nonce: bytes
    base_fee_per_gas: int | None = None
    withdrawals_root: bytes | None = None
    blob_gas_used: int | None = None
    excess_blob_gas: int | None = None
    parent_beacon_block_root: bytes | None = None
    requests_hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """A header and what it commits to. `withdrawals` is None before Shanghai."""

    header: Header
    transactions: TransactionColumns
    ommers: tuple[Header, ...] = ()
    withdrawals: tuple[Withdrawal, ...] | None = None


_Reader = Callable[[rlp.Item, str], int | bytes]


def _fixed(size: int) -> _Reader:
    return lambda item, name: rlp.read_fixed(item, name, size)


def _number(bits: int) -> _Reader:
    return lambda item, name: rlp.read_int(item, name, bits)


_HASH, _U64, _U256 = _fixed(32), _number(64), _number(256)

_HEADER_READERS: dict[str, _Reader] = {
    "parent_hash": _HASH,
    "ommers_hash": _HASH,
    "coinbase": _fixed(20),
    "state_root": _HASH,
    "transactions_root": _HASH,
    "receipts_root": _HASH,
    "logs_bloom": _fixed(BLOOM_BYTES),
    "difficulty": _U256,
    "number": _U64,
    "gas_limit": _U64,
    "gas_used": _U64,
    "timestamp": _U64,
    "extra_data": rlp.read_bytes,
    "prev_randao": _HASH,
    "nonce": _fixed(8),
    "base_fee_per_gas": _U256,
    "withdrawals_root": _HASH,
    "blob_gas_used": _U64,
    "excess_blob_gas": _U64,
    "parent_beacon_block_root": _HASH,
    "requests_hash": _HASH,
}
_HEADER_FIELDS_MIN = 15
assert [field.name for field in fields(Header)] == list(_HEADER_READERS)


def _header_item(header: Header) -> list[rlp.Item]:
    values = [getattr(header, name) for name in _HEADER_READERS]
    present = [value for value in values if value is not None]
    assert values[: len(present)] == present, "a header field is missing before one that is set"
    return [rlp.encode_int(value) if isinstance(value, int) else value for value in present]


def _read_header(item: rlp.Item) -> Header:
    lengths = range(_HEADER_FIELDS_MIN, len(_HEADER_READERS) + 1)
    items = rlp.read_list(item, "header", lengths)
    values = [read(one, name) for (name, read), one in zip(_HEADER_READERS.items(), items, strict=False)]
    return Header(*values)  # type: ignore[arg-type]


def encode_header(header: Header) -> bytes:
    """Canonical bytes."""
    return rlp.encode(_header_item(header))


def header_hash(header: Header) -> bytes:
    """The block hash."""
    return keccak256(encode_header(header))


def ommers_hash_of(ommers: Sequence[Header]) -> bytes:
    """What a header says of its block's ommers."""
    return keccak256(rlp.encode([_header_item(ommer) for ommer in ommers]))


def decode_header(raw: bytes) -> Header:
    """Raises BlockError naming the field that is wrong."""
    try:
        return _read_header(rlp.decode(raw))
    except RlpError as error:
        raise BlockError(f"header: {error}") from error


def _transaction_items(transactions: TransactionColumns) -> list[rlp.Item]:
    # Inside a block a legacy transaction is a list, a typed one the string of its envelope.
    return [raw if raw[0] < 0xC0 else rlp.decode(raw) for raw in transactions.encoded()]


def withdrawal_item(one: Withdrawal) -> list[rlp.Item]:
    """The RLP item of a withdrawal (EIP-4895)."""
    return [
        rlp.encode_int(one.index),
        rlp.encode_int(one.validator_index),
        one.address,
        rlp.encode_int(one.amount),
    ]


def encode_block(block: Block) -> bytes:
    """Canonical bytes of a block, as devp2p and debug_getRawBlock have them."""
    item: list[rlp.Item] = [
        _header_item(block.header),
        _transaction_items(block.transactions),
        [_header_item(ommer) for ommer in block.ommers],
    ]
    if block.withdrawals is not None:
        item.append([withdrawal_item(one) for one in block.withdrawals])
    return rlp.encode(item)


def encoded_size_bytes(block: Block) -> int:
    """The length of `encode_block(block)`, without encoding the whole."""
    transactions = 0
    for raw in block.transactions.encoded():
        transactions += len(raw) if raw[0] >= 0xC0 else _framed_size(len(raw))
    size = len(encode_header(block.header)) + _framed_size(transactions)
    size += len(rlp.encode([_header_item(ommer) for ommer in block.ommers]))
    if block.withdrawals is not None:
        size += len(rlp.encode([withdrawal_item(one) for one in block.withdrawals]))
    return _framed_size(size)


def _framed_size(payload_size: int) -> int:
    """The size of an RLP item that is longer than one byte."""
    return payload_size + (1 if payload_size < 56 else 1 + (payload_size.bit_length() + 7) // 8)


def decode_block(raw: bytes) -> Block:
    """Decode a block and recover its senders.

    Raises BlockError or TransactionError naming what is wrong.
    """
    try:
        parts = rlp.read_list(rlp.decode(raw), "block", range(3, 5))
        header = _read_header(parts[0])
        transactions = [_read_transaction(item) for item in rlp.read_list(parts[1], "transactions")]
        ommers = tuple(_read_header(item) for item in rlp.read_list(parts[2], "ommers"))
        withdrawals = _read_withdrawals(parts[3]) if len(parts) > 3 else None
    except RlpError as error:
        raise BlockError(f"block: {error}") from error
    senders = recover_senders(transactions)
    return Block(header, TransactionColumns.from_transactions(transactions, senders), ommers, withdrawals)


def encode_envelope(block: Block) -> bytes:
    """RLP of a block without its transactions: header, ommers, withdrawals. For records that hold columns beside it."""
    item: list[rlp.Item] = [_header_item(block.header), [_header_item(ommer) for ommer in block.ommers]]
    if block.withdrawals is not None:
        item.append([withdrawal_item(one) for one in block.withdrawals])
    return rlp.encode(item)


def decode_envelope(raw: bytes, transactions: TransactionColumns) -> Block:
    """The block of an envelope and its transactions. Raises BlockError."""
    try:
        parts = rlp.read_list(rlp.decode(raw), "envelope", range(2, 4))
        ommers = tuple(_read_header(item) for item in rlp.read_list(parts[1], "ommers"))
        withdrawals = _read_withdrawals(parts[2]) if len(parts) > 2 else None
        return Block(_read_header(parts[0]), transactions, ommers, withdrawals)
    except RlpError as error:
        raise BlockError(f"block: {error}") from error


def _read_transaction(item: rlp.Item) -> Transaction:
    return decode_transaction(bytes(item) if isinstance(item, bytes) else rlp.encode(item))


def _read_withdrawals(item: rlp.Item) -> tuple[Withdrawal, ...]:
    withdrawals = []
    for entry in rlp.read_list(item, "withdrawals"):
        index, validator, address, amount = rlp.read_list(entry, "withdrawal", range(4, 5))
        withdrawals.append(
            Withdrawal(
                rlp.read_int(index, "withdrawal index", 64),
                rlp.read_int(validator, "withdrawal validator", 64),
                rlp.read_fixed(address, "withdrawal address", 20),
                rlp.read_int(amount, "withdrawal amount", 64),
            )
        )
    return tuple(withdrawals)
