"""The market's contracts on an executor: a chain of calls without signatures, blocks or fees, and a clock to set."""

from dataclasses import dataclass
from typing import Any

from coincurve import PrivateKey

from core.contract import Artifact, ContractError, Event
from core.execution import BlockContext, CallRequest, CallResult, Executor
from core.fork import Fork
from core.hashing import keccak256
from core.memory_state import AccountContents, MemoryState
from core.receipts import Log

CHAIN_ID = 5747
GENESIS_TIME = 1_800_000_000
ETHER = 10**18
GAS_LIMIT = 16_777_216  # a transaction's highest (EIP-7825)


def key_of(name: str) -> PrivateKey:
    """The private key of a named test account."""
    return PrivateKey(keccak256(b"test key " + name.encode()))


def address_of(name: str) -> bytes:
    """The address of a named test account."""
    return keccak256(key_of(name).public_key.format(compressed=False)[1:])[12:]


class Reverted(Exception):
    """A call that the contract refused; `error` says why."""

    def __init__(self, error: ContractError | None) -> None:
        super().__init__(str(error))
        self.error = error
        self.name = error.name if error else None


@dataclass(frozen=True)
class Sent:
    """What a successful call gave back."""

    result: Any
    events: tuple[Event, ...]
    gas_used: int

    def event(self, name: str) -> Event:
        """The only event of this name."""
        (found,) = (event for event in self.events if event.name == name)
        return found


class Ledger:
    """Accounts and contracts that calls change one after another. `now` is the block's timestamp in seconds."""

    def __init__(
        self, executor: Executor, accounts: dict[bytes, AccountContents], artifacts: dict[bytes, Artifact]
    ) -> None:
        """`artifacts` says which contract stands at which address."""
        self.now = GENESIS_TIME
        self._executor = executor
        self._artifacts = artifacts
        self._state = MemoryState(accounts)
        self.logs: list[Log] = []

    @property
    def state(self) -> MemoryState:
        """Everything that stands now."""
        return self._state

    def balance(self, address: bytes) -> int:
        account = self._state.account(address)
        return account.balance if account else 0

    def send(self, sender: bytes, to: bytes, function: str, *arguments: object, value: int = 0) -> Sent:
        """Call a contract and keep what it changed; raises Reverted, and then nothing changed."""
        artifact = self._artifacts[to]
        outcome = self.call(sender, to, artifact.encode_call(function, *arguments), value)
        if not outcome.succeeded:
            raise Reverted(artifact.decode_error(outcome.output))
        self._state = self._state.apply(outcome.difference)
        self.logs += outcome.logs
        events = tuple(event for log in outcome.logs if (event := self._artifacts[log.address].decode_log(log)))
        return Sent(artifact.decode_result(function, outcome.output), events, outcome.gas_used)

    def read(self, to: bytes, function: str, *arguments: object) -> Any:
        """What a view function returns."""
        artifact = self._artifacts[to]
        outcome = self.call(bytes(20), to, artifact.encode_call(function, *arguments))
        assert outcome.succeeded, f"{function} failed: {outcome.halt}"
        return artifact.decode_result(function, outcome.output)

    def variable(self, contract: bytes, name: str, key: bytes | None = None) -> int:
        """A state variable straight from storage, or a mapping's value at an address: cheaper than a call."""
        slot, _, _ = self._artifacts[contract].storage[name]
        if key is not None:
            slot = int.from_bytes(keccak256(key.rjust(32, b"\0") + slot.to_bytes(32, "big")), "big")
        return self._state.storage(contract, slot)

    def call(self, sender: bytes, to: bytes, data: bytes, value: int = 0) -> CallResult:
        """The outcome of a call; nothing of it is kept."""
        context = BlockContext(Fork.OSAKA, CHAIN_ID, 1, self.now, gas_limit=60_000_000, coinbase=b"\xfe" * 20)
        outcome = self._executor.call(self._state, context, CallRequest(sender, to, GAS_LIMIT, value, data))
        assert outcome.rejection is None, outcome.rejection
        return outcome
