"""What a transaction must satisfy to be admitted, whatever else is waiting: Osaka's rules with geth's messages.

Owns stateless admission (types, sizes, gas, fees). Nonces, balances and competition are `sequencer.mempool.pool`'s.
"""

from core.errors import TransactionError
from core.fork import Fork
from core.gas import INITCODE_BYTES_MAX, TRANSACTION_GAS_MAX, floor_gas, intrinsic_gas
from core.signature import recover_sender
from core.transaction import Transaction, TransactionType, decode_transaction
from sequencer.errors import TransactionRefused, TransactionUnderpriced
from sequencer.mempool.limits import MempoolLimits

__all__ = ["check_transaction", "decode_pooled", "sender_of"]

_RULES = Fork.OSAKA


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
    if tx.to is None and len(tx.data) > INITCODE_BYTES_MAX:
        raise TransactionRefused(f"max initcode size exceeded: code size {len(tx.data)}, limit {INITCODE_BYTES_MAX}")
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
    needed = intrinsic_gas(tx, _RULES)
    if tx.gas_limit < needed:
        raise TransactionRefused(f"intrinsic gas too low: gas {tx.gas_limit}, minimum needed {needed}")
    floor = floor_gas(tx, _RULES)
    if tx.gas_limit < floor:
        raise TransactionRefused(
            f"insufficient gas for floor data gas cost: gas {tx.gas_limit}, minimum needed {floor}"
        )
    if tx.max_priority_fee_per_gas < limits.tip_min_wei:
        raise TransactionUnderpriced(
            f"transaction underpriced: gas tip cap {tx.max_priority_fee_per_gas}, minimum needed {limits.tip_min_wei}"
        )
