"""What a transaction must satisfy to be admitted, whatever else is waiting: Osaka's rules with geth's messages.

Owns stateless admission (types, sizes, gas, fees). Nonces, balances and competition are `sequencer.mempool.pool`'s.
"""

from core.errors import TransactionError
from core.signature import recover_sender
from core.transaction import Transaction, TransactionType, decode_transaction
from sequencer.errors import TransactionRefused, TransactionUnderpriced
from sequencer.mempool.limits import MempoolLimits

__all__ = ["TRANSACTION_GAS_MAX", "check_transaction", "decode_pooled", "floor_gas", "intrinsic_gas", "sender_of"]

TRANSACTION_GAS_MAX = 1 << 24  # EIP-7825
_INITCODE_BYTES_MAX = 49_152  # EIP-3860

_BASE_GAS = 21_000
_CREATION_GAS = 32_000
_INITCODE_WORD_GAS = 2
_TOKEN_GAS = 4
_FLOOR_TOKEN_GAS = 10
_NONZERO_TOKENS = 4
_ACCESS_ADDRESS_GAS = 2_400
_ACCESS_KEY_GAS = 1_900
_AUTHORIZATION_GAS = 25_000


def decode_pooled(raw: bytes, limits: MempoolLimits) -> Transaction:
    """Decode what a wallet sent. Raises TransactionRefused, or TransactionError for what is not a transaction."""
    if raw[:1] == bytes([TransactionType.BLOB]):
        raise TransactionRefused("transaction type not supported: blob transactions (type 3) are refused on this L2")
    if len(raw) > limits.transaction_bytes_max:
        limit = limits.transaction_bytes_max
        raise TransactionRefused(f"oversized data: transaction size {len(raw)}, limit {limit}")
    return decode_transaction(raw)


def sender_of(tx: Transaction, chain_id: int) -> bytes:
    """Who signed it. Raises TransactionRefused for another chain's transaction or a bad signature."""
    if tx.chain_id is not None and tx.chain_id != chain_id:
        raise TransactionRefused(f"invalid sender: invalid chain id for signer: have {tx.chain_id} want {chain_id}")
    try:
        return recover_sender(tx)
    except TransactionError as error:
        raise TransactionRefused(f"invalid sender: {error}") from error


def check_transaction(tx: Transaction, block_gas_limit: int, limits: MempoolLimits) -> None:
    """Raise TransactionRefused or TransactionUnderpriced for what could be in no block at all."""
    if tx.to is None and len(tx.data) > _INITCODE_BYTES_MAX:
        raise TransactionRefused(f"max initcode size exceeded: code size {len(tx.data)}, limit {_INITCODE_BYTES_MAX}")
    if tx.gas_limit > TRANSACTION_GAS_MAX:
        raise TransactionRefused(f"transaction gas limit too high (cap: {TRANSACTION_GAS_MAX}, tx: {tx.gas_limit})")
    if tx.gas_limit > block_gas_limit:
        raise TransactionRefused("exceeds block gas limit")
    if tx.max_fee_per_gas < tx.max_priority_fee_per_gas:
        raise TransactionRefused(
            "max priority fee per gas higher than max fee per gas: "
            f"maxPriorityFeePerGas: {tx.max_priority_fee_per_gas}, maxFeePerGas: {tx.max_fee_per_gas}"
        )
    if tx.nonce >= 2**64 - 1:
        raise TransactionRefused("nonce has max value")
    if tx.type == TransactionType.SET_CODE and not tx.authorizations:
        raise TransactionRefused("set code tx must have at least one authorization tuple")
    needed = intrinsic_gas(tx)
    if tx.gas_limit < needed:
        raise TransactionRefused(f"intrinsic gas too low: gas {tx.gas_limit}, minimum needed {needed}")
    floor = floor_gas(tx.data)
    if tx.gas_limit < floor:
        raise TransactionRefused(
            f"insufficient gas for floor data gas cost: gas {tx.gas_limit}, minimum needed {floor}"
        )
    if tx.max_priority_fee_per_gas < limits.tip_min_wei:
        raise TransactionUnderpriced(
            f"transaction underpriced: gas tip cap {tx.max_priority_fee_per_gas}, minimum needed {limits.tip_min_wei}"
        )


def intrinsic_gas(tx: Transaction) -> int:
    """Gas taken before the first instruction (EIP-2028, 2930, 3860, 7702)."""
    gas = _BASE_GAS + _TOKEN_GAS * _tokens(tx.data)
    if tx.to is None:
        gas += _CREATION_GAS + _INITCODE_WORD_GAS * ((len(tx.data) + 31) // 32)
    gas += _ACCESS_ADDRESS_GAS * len(tx.access_list)
    gas += _ACCESS_KEY_GAS * sum(len(entry.storage_keys) for entry in tx.access_list)
    return gas + _AUTHORIZATION_GAS * len(tx.authorizations)


def floor_gas(data: bytes) -> int:
    """The least that a transaction with this calldata pays (EIP-7623)."""
    return _BASE_GAS + _FLOOR_TOKEN_GAS * _tokens(data)


def _tokens(data: bytes) -> int:
    zeros = data.count(0)
    return zeros + _NONZERO_TOKENS * (len(data) - zeros)
