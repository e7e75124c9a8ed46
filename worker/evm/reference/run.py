"""One block, or one call, run through EELS step by step.

Follows EELS's `apply_body`, with one difference: a transaction that may not be included is refused and leaves no trace,
where EELS would give up the whole block. Every step works on a State of its own (`WorkingState.open`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ethereum.exceptions import InvalidBlock, InvalidTransaction
from ethereum_types.bytes import Bytes20, Bytes32
from ethereum_types.numeric import Uint

from core.errors import BlockError
from core.execution import BlockContext, CallRequest, Halt, RejectionReason, unsigned_transaction
from core.fork import Fork
from core.receipts import Log
from core.state import StateReader
from core.transaction import AccessListEntry, Transaction, TransactionType
from worker.evm.reference.accesses import Accesses
from worker.evm.reference.rules import ForkRules, Refused, halt_of, logs_of, rebind
from worker.evm.reference.simulation import bent, rules_for
from worker.evm.reference.working_state import WorkingState

__all__ = ["BlockRun", "Effect"]

_UNLIMITED_GAS = Uint(2**64 - 1)
_NONCE_MAX = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Effect:
    """What one included transaction did. `gas_refunded` is already taken off `gas_used`.

    `post_state` is the state root after it, before Byzantium; else None. `accessed` is in order of address.
    """

    gas_used: int
    gas_refunded: int
    halt: Halt
    output: bytes
    logs: tuple[Log, ...]
    accessed: tuple[AccessListEntry, ...]
    post_state: bytes | None


class BlockRun:
    """A block being executed over a state. Its methods follow the order of a block: begin, transact..., finish."""

    def __init__(self, state: StateReader, context: BlockContext) -> None:
        self.rules: ForkRules = rules_for(context)
        self.working = WorkingState(state, self.rules)
        self._reader = state
        self._context = context
        self._environment = self.rules.block_environment(context)
        self._output = self.rules.vm.BlockOutput()
        self._included = 0

    @property
    def gas_used(self) -> int:
        """Gas of the transactions so far."""
        return int(self._output.block_gas_used)

    @property
    def blob_gas_used(self) -> int:
        """Blob gas of the transactions so far; 0 before Cancun."""
        return int(getattr(self._output, "blob_gas_used", 0))

    @property
    def requests(self) -> tuple[bytes, ...]:
        """EIP-7685 requests, once the block is finished; none before Prague."""
        return tuple(map(bytes, getattr(self._output, "requests", ())))

    def begin(self) -> None:
        """The system calls that open a block: EIP-4788 from Cancun, EIP-2935 from Prague.

        Where a fork's contract is not deployed, its call does nothing, as both EIPs say.
        """
        fork = self.rules.fork
        if self.rules.number >= Fork.CANCUN:
            self._system_call(fork.BEACON_ROOTS_ADDRESS, self._context.parent_beacon_block_root)
        if self.rules.number >= Fork.PRAGUE:
            assert self._context.block_hashes, "a block knows its parent's hash"
            self._system_call(fork.HISTORY_STORAGE_ADDRESS, self._context.block_hashes[-1])

    def finish(self) -> None:
        """What closes a block: rewards before Paris, withdrawals from Shanghai, requests from Prague.

        Raises BlockError where a request contract of Prague is missing or fails: EIP-7002 and EIP-7251 make every such
        block invalid.
        """
        fork, environment = self.rules.fork, self._environment
        if self.rules.number < Fork.PARIS:
            ommers = tuple(_Ommer(Uint(number), Bytes20(coinbase)) for number, coinbase in self._context.ommers)
            coinbase = environment.coinbase
            self._block_step(lambda: fork.pay_rewards(environment.state, environment.number, coinbase, ommers))
        if self.rules.number >= Fork.SHANGHAI:
            withdrawals = tuple(map(self.rules.withdrawal, self._context.withdrawals))
            self._block_step(lambda: fork.process_withdrawals(environment, self._output, withdrawals))
        if self.rules.number >= Fork.PRAGUE:
            self._block_step(lambda: fork.process_general_purpose_requests(environment, self._output))

    def transact(self, tx: Transaction, sender: bytes) -> Effect:
        """Include a signed transaction; raises Refused, with nothing changed, when it may not be included.

        `sender` was recovered from the signature by whoever made the columns.
        """
        self._check_chain_id(tx)
        check = rebind(self.rules.fork.check_transaction, recover_sender=lambda *_: Bytes20(sender))
        return self._process(tx, check_transaction=check)

    def call(self, request: CallRequest) -> Effect:
        """Run an unsigned message as a transaction; raises Refused like `transact`."""
        tx = unsigned_transaction(self._reader, self._context, request)
        if tx.nonce == _NONCE_MAX and request.to is None and not request.validate:
            raise Refused(RejectionReason.NONCE_OVERFLOW, "an account of nonce 2^64 - 1 cannot create a contract")
        return self._process(tx, **self._call_rules(request, Bytes20(request.sender)))

    def _call_rules(self, request: CallRequest, sender: Bytes20) -> dict[str, Callable[..., Any]]:
        """The names in EELS's process_transaction that mean something else for an unsigned message."""
        fork = self.rules.fork
        validate = rebind(self.rules.transactions.validate_transaction, TX_MAX_GAS_LIMIT=_UNLIMITED_GAS)
        changed: dict[str, Callable[..., Any]] = {
            "recover_sender": lambda *_: sender,
            "get_account": lambda state, address: self._codeless(fork.get_account(state, address)),
        }
        if request.validate:
            check = rebind(fork.check_transaction, **changed)
            return {"validate_transaction": validate, "check_transaction": check}
        names: dict[str, Callable[..., Any]] = {}
        if request.max_fee_per_blob_gas == 0:
            changed["calculate_blob_gas_price"] = lambda *_: Uint(0)
            names["calculate_data_fee"] = lambda *_: Uint(0)
        check = rebind(fork.check_transaction, **changed)

        def validate_transaction(tx: Any) -> Any:
            return validate(replace(tx, nonce=type(tx.nonce)(0)))

        def check_transaction(block_env: Any, block_output: Any, tx: Any) -> Any:
            return check(replace(block_env, block_gas_limit=_UNLIMITED_GAS), block_output, tx)

        return {
            **names,
            "validate_transaction": validate_transaction,
            "check_transaction": check_transaction,
            "increment_nonce": self._increment_wrapping,
        }

    def _increment_wrapping(self, state: Any, address: Bytes20) -> None:
        def increment(account: Any) -> None:
            account.nonce = Uint((int(account.nonce) + 1) % (_NONCE_MAX + 1))

        self.rules.state.modify_state(state, address, increment)

    def _codeless(self, account: Any) -> Any:
        return self.rules.account(account.nonce, account.balance, b"")

    def _process(self, tx: Transaction, **names: Callable[..., Any]) -> Effect:
        """EELS's process_transaction on a fresh State, with `names` bound anew, and what it did."""
        eels_tx = self.rules.transaction(tx)
        post_states: list[bytes] = []
        calls: list[tuple[Any, bytes]] = []
        accesses = Accesses()

        def process_message_call(message: Any) -> Any:
            if self.rules.number >= Fork.BERLIN:
                accesses.watch(message, self.rules.precompiles)
            calls.append(self._message_call(message))
            return calls[-1][0]

        def state_root(state: Any) -> Bytes32:
            self.working.fold(state)
            post_states.append(self._reader.root_after(self.working.difference()))
            return Bytes32(post_states[-1])

        process = rebind(
            self.rules.fork.process_transaction,
            process_message_call=process_message_call,
            state_root=state_root,
            # EELS encodes each transaction for a trie and a hash that nobody asks it for: a third of a transfer's time.
            encode_transaction=lambda tx: tx,
            get_transaction_hash=lambda _: None,
            **names,
        )
        gas_before = self.gas_used
        try:
            self._step(lambda: process(self._environment, self._output, eels_tx, Uint(self._included)))
        except (InvalidTransaction, InvalidBlock) as error:
            raise self.rules.refusal(error, tx) from error
        self._included += 1
        gas_used, ((result, output),) = self.gas_used - gas_before, calls
        return Effect(
            gas_used=gas_used,
            gas_refunded=max(0, tx.gas_limit - int(result.gas_left) - gas_used),
            halt=halt_of(result.error),
            output=output,
            logs=logs_of(result.logs),
            accessed=accesses.entries(),
            post_state=post_states[0] if post_states else None,
        )

    def _message_call(self, message: Any) -> tuple[Any, bytes]:
        """EELS's process_message_call, and the output of the message, which EELS keeps to itself before Prague."""
        outputs: list[bytes] = []

        def keeping_output(process: Callable[[Any], Any]) -> Callable[[Any], Any]:
            def processed(message: Any) -> Any:
                evm = process(message)
                outputs.append(bytes(evm.output))
                return evm

            return processed

        interpreter = self.rules.interpreter
        process_message_call = rebind(
            interpreter.process_message_call,
            process_message=keeping_output(interpreter.process_message),
            process_create_message=keeping_output(interpreter.process_create_message),
        )
        result = process_message_call(message)
        return result, outputs[0] if outputs else b""

    def _check_chain_id(self, tx: Transaction) -> None:
        if tx.chain_id is None:
            return
        if tx.type == TransactionType.LEGACY and self.rules.number < Fork.SPURIOUS_DRAGON:
            raise Refused(RejectionReason.SIGNATURE_INVALID, "EIP-155 signatures are not known yet in this fork")
        if tx.chain_id != self._context.chain_id:
            detail = f"signed for chain {tx.chain_id}, this is chain {self._context.chain_id}"
            raise Refused(RejectionReason.CHAIN_ID_MISMATCH, detail)

    def _system_call(self, target: Bytes20, data: bytes) -> None:
        call = self.rules.fork.process_unchecked_system_transaction
        self._block_step(lambda: call(block_env=self._environment, target_address=target, data=data))

    def _block_step(self, step: Callable[[], object]) -> None:
        try:
            self._step(step)
        except InvalidBlock as error:
            raise BlockError(f"block {self._context.number} cannot be executed: {error}") from error

    def _step(self, step: Callable[[], object]) -> None:
        """Run one step on a State of its own, and keep what it did unless it raises."""
        self._environment.state = self.working.open()
        with bent(self._context):
            step()
        self.working.fold(self._environment.state)


@dataclass(frozen=True, slots=True)
class _Ommer:
    """As much of an ommer's header as its reward needs."""

    number: Uint
    coinbase: Bytes20
