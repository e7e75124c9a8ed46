"""The door to EELS: one fork's modules, and the translation between its types and ours.

EELS (the package `ethereum`) writes each fork out in full under `ethereum.forks.<name>`. Their functions are called
unchanged, except that `rebind` gives a function other meanings for some of the names it uses. Knows nothing of how a
block or a call is put together (`worker.evm.reference.run`).
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

from ethereum.exceptions import EthereumException, InvalidBlock
from ethereum_types.bytes import Bytes0, Bytes20, Bytes32
from ethereum_types.numeric import U8, U64, U256, Uint

from core.execution import BlockContext, Halt, RejectionReason, Withdrawal
from core.fork import Fork
from core.receipts import Log
from core.transaction import AccessListEntry, Authorization, Transaction, TransactionType

__all__ = ["ForkRules", "Refused", "halt_of", "logs_of", "rebind", "rules_of"]

_CLASS_NAMES = {
    TransactionType.LEGACY: ("LegacyTransaction", "Transaction"),
    TransactionType.ACCESS_LIST: ("AccessListTransaction",),
    TransactionType.FEE_MARKET: ("FeeMarketTransaction",),
    TransactionType.BLOB: ("BlobTransaction",),
    TransactionType.SET_CODE: ("SetCodeTransaction",),
}

_REASONS: Mapping[str, RejectionReason] = {
    "BlobCountExceededError": RejectionReason.BLOB_COUNT,
    "BlobGasLimitExceededError": RejectionReason.BLOB_GAS_LIMIT,
    "EmptyAuthorizationListError": RejectionReason.AUTHORIZATION_LIST_EMPTY,
    "GasUsedExceedsLimitError": RejectionReason.BLOCK_GAS_LIMIT,
    "InitCodeTooLargeError": RejectionReason.INITCODE_TOO_LARGE,
    "InsufficientBalanceError": RejectionReason.INSUFFICIENT_FUNDS,
    "InsufficientMaxFeePerBlobGasError": RejectionReason.BLOB_FEE_TOO_LOW,
    "InsufficientMaxFeePerGasError": RejectionReason.FEE_BELOW_BASE_FEE,
    "InvalidBlobVersionedHashError": RejectionReason.BLOB_HASH_VERSION,
    # The one place where a transaction makes EELS raise it bare is a gas price below the base fee.
    "InvalidBlock": RejectionReason.FEE_BELOW_BASE_FEE,
    "InvalidSenderError": RejectionReason.SENDER_NOT_EOA,
    "InvalidSignatureError": RejectionReason.SIGNATURE_INVALID,
    "NoBlobDataError": RejectionReason.BLOB_COUNT,
    "NonceOverflowError": RejectionReason.NONCE_OVERFLOW,
    "PriorityFeeGreaterThanMaxFeeError": RejectionReason.PRIORITY_FEE_ABOVE_MAX_FEE,
    "TransactionGasLimitExceededError": RejectionReason.TRANSACTION_GAS_LIMIT,
    "TransactionTypeContractCreationError": RejectionReason.CREATION_NOT_ALLOWED,
}

_HALTS: Mapping[str, Halt] = {
    "AddressCollision": Halt.ADDRESS_COLLISION,
    "ExceptionalHalt": Halt.PRECOMPILE,  # raised bare by MODEXP only (EIP-7823)
    "InvalidContractPrefix": Halt.INVALID_CODE,
    "InvalidJumpDestError": Halt.INVALID_JUMP,
    "InvalidOpcode": Halt.INVALID_OPCODE,
    "InvalidParameter": Halt.PRECOMPILE,
    "KZGProofError": Halt.PRECOMPILE,
    "OutOfBoundsRead": Halt.RETURN_DATA_BOUNDS,
    "OutOfGasError": Halt.OUT_OF_GAS,
    "Revert": Halt.REVERT,
    "StackDepthLimitError": Halt.CALL_DEPTH,
    "StackOverflowError": Halt.STACK_OVERFLOW,
    "StackUnderflowError": Halt.STACK_UNDERFLOW,
    "WriteInStaticContext": Halt.WRITE_PROTECTION,
}


class Refused(Exception):
    """A transaction may not be included. Never leaves this package: it becomes a `Rejection`."""

    def __init__(self, reason: RejectionReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def rebind(function: Callable[..., Any], **names: object) -> Callable[..., Any]:
    """`function` with other meanings for some of the global names in its body; the original is not touched."""
    assert isinstance(function, FunctionType)
    bound = FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__, function.__defaults__)
    bound.__kwdefaults__ = function.__kwdefaults__
    return bound


def halt_of(error: BaseException | None) -> Halt:
    """How a message ended that EELS ended with this error."""
    return Halt.NONE if error is None else _HALTS[type(error).__name__]


def logs_of(logs: tuple[Any, ...]) -> tuple[Log, ...]:
    """Our form of EELS's logs."""
    return tuple(Log(bytes(log.address), tuple(map(bytes, log.topics)), bytes(log.data)) for log in logs)


@cache
def rules_of(fork: Fork) -> "ForkRules":
    """The rules of one fork, loaded on first use."""
    return ForkRules(fork, f"ethereum.forks.{fork.name.lower()}")


class ForkRules:
    """One fork's modules, found in `package`, and the constructors of its types."""

    def __init__(self, fork: Fork, package: str) -> None:
        self.number = fork
        self._package = package
        self.fork = self.module("fork")
        self.vm = self.module("vm")
        self.interpreter = self.module("vm.interpreter")
        self.state = self.module("state")
        self.trie = self.module("trie")
        self.transactions = self.module("transactions")
        self.blocks = self.module("blocks")
        self.account = self.module("fork_types").Account

    def module(self, name: str) -> ModuleType:
        """A module of the fork, by its name within the fork."""
        return import_module(f"{self._package}.{name}")

    @property
    def precompiles(self) -> frozenset[bytes]:
        """The addresses of this fork's precompiled contracts."""
        return frozenset(self.module("vm.precompiled_contracts.mapping").PRE_COMPILED_CONTRACTS)

    def block_environment(self, context: BlockContext) -> Any:
        """EELS's BlockEnvironment of this block, without a state yet."""
        hashes = [Bytes32(one) for one in context.block_hashes[-256:]]
        missing = min(256, context.number) - len(hashes)
        values = {
            "chain_id": U64(context.chain_id),
            "state": None,
            "block_gas_limit": Uint(context.gas_limit),
            # BLOCKHASH counts from the end; an ancestor that nobody told us reads as zero.
            "block_hashes": [Bytes32(bytes(32))] * missing + hashes,
            "coinbase": Bytes20(context.coinbase),
            "number": Uint(context.number),
            "base_fee_per_gas": Uint(context.base_fee_per_gas),
            "time": U256(context.timestamp),
            "prev_randao": Bytes32(context.prev_randao),
            "difficulty": Uint(context.difficulty),
            "excess_blob_gas": U64(context.excess_blob_gas),
            "parent_beacon_block_root": Bytes32(context.parent_beacon_block_root),
        }
        kind = self.vm.BlockEnvironment
        return kind(**{field.name: values[field.name] for field in fields(kind)})

    def transaction(self, tx: Transaction) -> Any:
        """EELS's object of this transaction. Raises Refused where the fork has no such type."""
        names = [name for name in _CLASS_NAMES[tx.type] if hasattr(self.transactions, name)]
        if not names:
            fork = self.number.name.lower()
            raise Refused(RejectionReason.TYPE_NOT_SUPPORTED, f"{fork} has no transactions of type {int(tx.type)}")
        kind = getattr(self.transactions, names[0])
        values = self._transaction_values(tx)
        return kind(**{field.name: values[field.name] for field in fields(kind)})

    def _transaction_values(self, tx: Transaction) -> dict[str, object]:
        v = 27 + tx.y_parity if tx.chain_id is None else 35 + 2 * tx.chain_id + tx.y_parity
        values: dict[str, object] = {
            "chain_id": U64(tx.chain_id or 0),
            "nonce": U64(tx.nonce) if tx.type == TransactionType.SET_CODE else U256(tx.nonce),
            "gas_price": Uint(tx.max_fee_per_gas),
            "max_fee_per_gas": Uint(tx.max_fee_per_gas),
            "max_priority_fee_per_gas": Uint(tx.max_priority_fee_per_gas),
            "gas": Uint(tx.gas_limit),
            "to": Bytes0(b"") if tx.to is None else Bytes20(tx.to),
            "value": U256(tx.value),
            "data": tx.data,
            "max_fee_per_blob_gas": U256(tx.max_fee_per_blob_gas),
            "blob_versioned_hashes": tuple(map(Bytes32, tx.blob_versioned_hashes)),
            "v": U256(v),
            "y_parity": U256(tx.y_parity),
            "r": U256(tx.r),
            "s": U256(tx.s),
        }
        if tx.type != TransactionType.LEGACY:
            values["access_list"] = tuple(map(self._access, tx.access_list))
        if tx.type == TransactionType.SET_CODE:
            values["authorizations"] = tuple(map(self._authorization, tx.authorizations))
        return values

    def _access(self, entry: AccessListEntry) -> Any:
        return self.transactions.Access(Bytes20(entry.address), tuple(map(Bytes32, entry.storage_keys)))

    def _authorization(self, one: Authorization) -> Any:
        return self.module("fork_types").Authorization(
            chain_id=U256(one.chain_id),
            address=Bytes20(one.address),
            nonce=U64(one.nonce),
            y_parity=U8(one.y_parity),
            r=U256(one.r),
            s=U256(one.s),
        )

    def withdrawal(self, one: Withdrawal) -> Any:
        """EELS's object of this withdrawal; its amount stays in gwei."""
        return self.blocks.Withdrawal(U64(one.index), U64(one.validator_index), Bytes20(one.address), U256(one.amount))

    def refusal(self, error: EthereumException, tx: Transaction) -> Refused:
        """Why EELS would not include `tx` when it raised this error."""
        name = type(error).__name__
        detail = str(error) or (
            f"fee {tx.max_fee_per_gas} is below the base fee" if isinstance(error, InvalidBlock) else name
        )
        if name == "NonceMismatchError":
            low = detail == "nonce too low"
            return Refused(RejectionReason.NONCE_TOO_LOW if low else RejectionReason.NONCE_TOO_HIGH, detail)
        if name == "InsufficientTransactionGasError":
            return self._gas_refusal(tx)
        return Refused(_REASONS[name], detail)

    def _gas_refusal(self, tx: Transaction) -> Refused:
        cost = self.transactions.calculate_intrinsic_cost(self.transaction(tx))
        intrinsic, floor = map(int, cost if isinstance(cost, tuple) else (cost, 0))
        if intrinsic > tx.gas_limit:
            return Refused(RejectionReason.INTRINSIC_GAS, f"intrinsic gas is {intrinsic}, the limit {tx.gas_limit}")
        return Refused(RejectionReason.FLOOR_GAS, f"floor gas is {floor}, the limit {tx.gas_limit} (EIP-7623)")
