"""The rules that tie a block to its parent and to what its execution gave: fees, headers, commitments.

Pure functions over headers, columns and outcomes. What runs inside a block is an `Executor`'s business; whether a
transaction alone is well formed, `core.gas`'s. Two things differ from mainnet, and only these: blocks come several a
second, so a timestamp may equal its parent's; and before Paris neither proof of work nor the difficulty is checked
(those blocks are replayed by tests, never made here).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

from core import rlp
from core.block import Block, Header, encoded_size_bytes, header_hash, ommers_hash_of, withdrawal_item
from core.chain import SealedBlock
from core.errors import BlockError
from core.execution import BlockContext, ExecutionOutcome, Withdrawal
from core.fork import BLOB_PARAMETERS, ChainConfig, Fork
from core.hashing import EMPTY_LIST_HASH
from core.receipts import bloom_union
from core.state import StateReader
from core.transaction import TransactionColumns
from core.trie import ordered_root

__all__ = [
    "BLOB_GAS",
    "BLOCK_HASHES_MAX",
    "BLOCK_RLP_BYTES_MAX",
    "EXTRA_DATA_BYTES_MAX",
    "GAS_LIMIT_MIN",
    "INITIAL_BASE_FEE",
    "Commitments",
    "blob_base_fee",
    "check_block",
    "commitments_in",
    "commitments_of",
    "context_of",
    "excess_blob_gas_after",
    "make_block",
    "make_header",
    "next_base_fee",
    "next_context",
    "requests_hash_of",
    "seal_block",
    "validate_header",
    "withdrawals_root_of",
]

BLOB_GAS = 2**17
"""Gas a blob (EIP-4844)."""
BLOCK_HASHES_MAX = 256
BLOCK_RLP_BYTES_MAX = 8 * 2**20
"""EIP-7934: 10 MiB less 2 MiB of margin, from Osaka on."""
EXTRA_DATA_BYTES_MAX = 32
GAS_LIMIT_MIN = 5_000
INITIAL_BASE_FEE = 10**9

_GAS_LIMIT_BOUND_DIVISOR = 1_024
_ELASTICITY_MULTIPLIER = 2
_BASE_FEE_CHANGE_DENOMINATOR = 8
_BLOB_BASE_FEE_MIN = 1
_BLOB_BASE_COST = 2**13  # EIP-7918

assert _ELASTICITY_MULTIPLIER * GAS_LIMIT_MIN > _GAS_LIMIT_BOUND_DIVISOR


def next_base_fee(parent: Header) -> int:
    """EIP-1559: wei per gas in the block after `parent`; the initial fee when `parent` has none."""
    if parent.base_fee_per_gas is None:
        return INITIAL_BASE_FEE
    target = parent.gas_limit // _ELASTICITY_MULTIPLIER
    fee, difference = parent.base_fee_per_gas, parent.gas_used - target
    change = fee * abs(difference) // target // _BASE_FEE_CHANGE_DENOMINATOR
    return fee + max(change, 1) if difference > 0 else fee - change


def blob_base_fee(excess_blob_gas: int, fork: Fork) -> int:
    """EIP-4844: wei per blob gas: the exponential of the excess, by its Taylor series in integers."""
    fraction = BLOB_PARAMETERS[fork].base_fee_update_fraction
    term, total, i = _BLOB_BASE_FEE_MIN * fraction, 0, 1
    while term > 0:
        total += term
        term = term * excess_blob_gas // (fraction * i)
        i += 1
    return total // fraction


def excess_blob_gas_after(parent: Header, fork: Fork) -> int:
    """EIP-4844, and EIP-7918 from Osaka on: the excess of a block of `fork` on `parent`."""
    blobs = BLOB_PARAMETERS[fork]
    excess, used = parent.excess_blob_gas or 0, parent.blob_gas_used or 0
    target = blobs.target_blobs * BLOB_GAS
    if excess + used < target:
        return 0
    reserve_price = _BLOB_BASE_COST * (parent.base_fee_per_gas or 0)
    if fork >= Fork.OSAKA and reserve_price > BLOB_GAS * blob_base_fee(excess, fork):
        return excess + used * (blobs.max_blobs - blobs.target_blobs) // blobs.max_blobs
    return excess + used - target


def requests_hash_of(requests: Sequence[bytes]) -> bytes:
    """EIP-7685: SHA-256 over the SHA-256 of each request that holds more than its type byte."""
    return hashlib.sha256(b"".join(hashlib.sha256(one).digest() for one in requests if len(one) > 1)).digest()


def withdrawals_root_of(withdrawals: Sequence[Withdrawal]) -> bytes:
    """EIP-4895."""
    return ordered_root([rlp.encode(withdrawal_item(one)) for one in withdrawals])


def context_of(
    header: Header,
    config: ChainConfig,
    block_hashes: Sequence[bytes],
    *,
    withdrawals: Sequence[Withdrawal] = (),
    ommers: Sequence[Header] = (),
) -> BlockContext:
    """What executing the block of `header` may know of it; `block_hashes` are its ancestors', the parent's last."""
    fork = config.fork_at(header.number, header.timestamp)
    return BlockContext(
        fork=fork,
        chain_id=config.chain_id,
        number=header.number,
        timestamp=header.timestamp,
        gas_limit=header.gas_limit,
        coinbase=header.coinbase,
        base_fee_per_gas=header.base_fee_per_gas or 0,
        prev_randao=header.prev_randao if fork >= Fork.PARIS else bytes(32),
        difficulty=header.difficulty,
        excess_blob_gas=header.excess_blob_gas or 0,
        parent_beacon_block_root=header.parent_beacon_block_root or bytes(32),
        block_hashes=tuple(block_hashes[-BLOCK_HASHES_MAX:]),
        withdrawals=tuple(withdrawals),
        ommers=tuple((ommer.number, ommer.coinbase) for ommer in ommers),
    )


def next_context(
    parent: Header,
    config: ChainConfig,
    block_hashes: Sequence[bytes],
    *,
    timestamp: int,
    coinbase: bytes,
    gas_limit: int | None = None,
    prev_randao: bytes = bytes(32),
    parent_beacon_block_root: bytes = bytes(32),
    withdrawals: Sequence[Withdrawal] = (),
) -> BlockContext:
    """The context of a new block on `parent`, Paris or later. `gas_limit` None keeps the parent's.

    Raises BlockError when the schedule puts the block before Paris: such blocks need proof of work.
    """
    fork = config.fork_at(parent.number + 1, timestamp)
    if fork < Fork.PARIS:
        raise BlockError(f"block {parent.number + 1} would be under {fork.name} rules; blocks are made from PARIS on")
    return BlockContext(
        fork=fork,
        chain_id=config.chain_id,
        number=parent.number + 1,
        timestamp=timestamp,
        gas_limit=parent.gas_limit if gas_limit is None else gas_limit,
        coinbase=coinbase,
        base_fee_per_gas=next_base_fee(parent),
        prev_randao=prev_randao,
        excess_blob_gas=excess_blob_gas_after(parent, fork) if fork >= Fork.CANCUN else 0,
        parent_beacon_block_root=parent_beacon_block_root,
        block_hashes=tuple(block_hashes[-BLOCK_HASHES_MAX:]),
        withdrawals=tuple(withdrawals),
    )


@dataclass(frozen=True, slots=True)
class Commitments:
    """What a header says of its block's contents and their execution; names and meanings are the header's."""

    state_root: bytes
    transactions_root: bytes
    receipts_root: bytes
    logs_bloom: bytes
    gas_used: int
    withdrawals_root: bytes | None
    blob_gas_used: int | None
    requests_hash: bytes | None


def commitments_of(
    context: BlockContext, candidates: TransactionColumns, outcome: ExecutionOutcome, state: StateReader
) -> Commitments:
    """The commitments of the block of those `candidates` that `outcome`, of executing them on `state`, included."""
    transactions = _included(candidates, outcome)
    assert len(transactions) == len(outcome.receipts), "one receipt for each transaction of the block"
    fork = context.fork
    return Commitments(
        state_root=state.root_after(outcome.difference),
        transactions_root=ordered_root(transactions.encoded()),
        receipts_root=ordered_root(outcome.receipts.encoded()),
        logs_bloom=bloom_union(outcome.receipts.blooms()),
        gas_used=outcome.gas_used,
        withdrawals_root=withdrawals_root_of(context.withdrawals) if fork >= Fork.SHANGHAI else None,
        blob_gas_used=outcome.blob_gas_used if fork >= Fork.CANCUN else None,
        requests_hash=requests_hash_of(outcome.requests) if fork >= Fork.PRAGUE else None,
    )


def commitments_in(header: Header) -> Commitments:
    """What a header commits to."""
    return Commitments(**{field.name: getattr(header, field.name) for field in fields(Commitments)})


def _included(candidates: TransactionColumns, outcome: ExecutionOutcome) -> TransactionColumns:
    everything = len(outcome.included) == len(candidates)
    return candidates if everything else candidates.take(outcome.included)


def make_header(parent_hash: bytes, context: BlockContext, commitments: Commitments, extra_data: bytes = b"") -> Header:
    """The complete header of a new block, Paris or later."""
    fork = context.fork
    assert fork >= Fork.PARIS, "blocks before Paris need proof of work"
    return Header(
        parent_hash=parent_hash,
        ommers_hash=EMPTY_LIST_HASH,
        coinbase=context.coinbase,
        state_root=commitments.state_root,
        transactions_root=commitments.transactions_root,
        receipts_root=commitments.receipts_root,
        logs_bloom=commitments.logs_bloom,
        difficulty=0,
        number=context.number,
        gas_limit=context.gas_limit,
        gas_used=commitments.gas_used,
        timestamp=context.timestamp,
        extra_data=extra_data,
        prev_randao=context.prev_randao,
        nonce=bytes(8),
        base_fee_per_gas=context.base_fee_per_gas,
        withdrawals_root=commitments.withdrawals_root,
        blob_gas_used=commitments.blob_gas_used,
        excess_blob_gas=context.excess_blob_gas if fork >= Fork.CANCUN else None,
        parent_beacon_block_root=context.parent_beacon_block_root if fork >= Fork.CANCUN else None,
        requests_hash=commitments.requests_hash,
    )


def make_block(
    parent: SealedBlock,
    context: BlockContext,
    candidates: TransactionColumns,
    outcome: ExecutionOutcome,
    state: StateReader,
    extra_data: bytes = b"",
) -> SealedBlock:
    """The block on `parent` (whose state is `state`) of those `candidates` that `outcome` included."""
    commitments = commitments_of(context, candidates, outcome, state)
    return seal_block(parent, context, candidates, outcome, commitments, extra_data)


def seal_block(
    parent: SealedBlock,
    context: BlockContext,
    candidates: TransactionColumns,
    outcome: ExecutionOutcome,
    commitments: Commitments,
    extra_data: bytes = b"",
) -> SealedBlock:
    """The same block as `make_block`'s, where its commitments are known already."""
    header = make_header(parent.hash, context, commitments, extra_data)
    withdrawals = context.withdrawals if context.fork >= Fork.SHANGHAI else None
    return SealedBlock(header_hash(header), Block(header, _included(candidates, outcome), (), withdrawals))


def validate_header(header: Header, parent: Header, config: ChainConfig) -> None:
    """Raise BlockError naming the first field of `header` that may not follow `parent`."""
    fork = config.fork_at(header.number, header.timestamp)
    _expect("parent_hash", header.parent_hash, header_hash(parent))
    _expect("number", header.number, parent.number + 1)
    if header.timestamp < parent.timestamp:
        raise BlockError(f"timestamp {header.timestamp} is before the parent's, {parent.timestamp}")
    if len(header.extra_data) > EXTRA_DATA_BYTES_MAX:
        raise BlockError(f"extra_data has {len(header.extra_data)} bytes, at most {EXTRA_DATA_BYTES_MAX} are allowed")
    if header.gas_used > header.gas_limit:
        raise BlockError(f"gas_used {header.gas_used} is above gas_limit {header.gas_limit}")
    _validate_gas_limit(header, parent, fork)
    _validate_fork_fields(header, fork)
    if fork >= Fork.LONDON:
        _expect("base_fee_per_gas", header.base_fee_per_gas, next_base_fee(parent))
    if fork >= Fork.PARIS:
        _expect("difficulty", header.difficulty, 0)
        _expect("nonce", header.nonce, bytes(8))
        _expect("ommers_hash", header.ommers_hash, EMPTY_LIST_HASH)
    if fork >= Fork.CANCUN:
        _expect("excess_blob_gas", header.excess_blob_gas, excess_blob_gas_after(parent, fork))


def _validate_gas_limit(header: Header, parent: Header, fork: Fork) -> None:
    first_of_london = fork >= Fork.LONDON and parent.base_fee_per_gas is None
    basis = parent.gas_limit * (_ELASTICITY_MULTIPLIER if first_of_london else 1)
    if abs(header.gas_limit - basis) >= basis // _GAS_LIMIT_BOUND_DIVISOR and header.gas_limit != basis:
        raise BlockError(f"gas_limit {header.gas_limit} is too far from {basis}: less than 1/1024 of it is allowed")
    if header.gas_limit < GAS_LIMIT_MIN:
        raise BlockError(f"gas_limit {header.gas_limit} is below {GAS_LIMIT_MIN}")


_FIELD_FORKS = {
    "base_fee_per_gas": Fork.LONDON,
    "withdrawals_root": Fork.SHANGHAI,
    "blob_gas_used": Fork.CANCUN,
    "excess_blob_gas": Fork.CANCUN,
    "parent_beacon_block_root": Fork.CANCUN,
    "requests_hash": Fork.PRAGUE,
}


def _validate_fork_fields(header: Header, fork: Fork) -> None:
    for name, since in _FIELD_FORKS.items():
        present = getattr(header, name) is not None
        if present != (fork >= since):
            raise BlockError(f"{name} is {'set' if present else 'missing'} in a block under {fork.name} rules")


def check_block(sealed: SealedBlock, context: BlockContext, outcome: ExecutionOutcome, state: StateReader) -> None:
    """Raise BlockError unless executing the block on `state` (its parent's) gave what its header commits to.

    `context` is `context_of` the block. The header itself is checked against its parent by `validate_header`.
    """
    block, header = sealed.block, sealed.block.header
    _expect("hash", sealed.hash, header_hash(header))
    if outcome.rejections:
        first = outcome.rejections[0]
        raise BlockError(f"transaction {first.index} may not be included: {first.reason}: {first.detail}")
    size = encoded_size_bytes(block) if context.fork >= Fork.OSAKA else 0
    if size > BLOCK_RLP_BYTES_MAX:
        raise BlockError(f"the block has {size} bytes, more than {BLOCK_RLP_BYTES_MAX} (EIP-7934)")
    _expect("ommers_hash", header.ommers_hash, ommers_hash_of(block.ommers))
    expected, actual = commitments_of(context, block.transactions, outcome, state), commitments_in(header)
    for field in fields(Commitments):
        _expect(field.name, getattr(actual, field.name), getattr(expected, field.name))


def _expect(name: str, actual: object, expected: object) -> None:
    if actual != expected:
        raise BlockError(f"{name} is {_shown(actual)}, expected {_shown(expected)}")


def _shown(value: object) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)
