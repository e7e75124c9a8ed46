"""The market's contracts on an executor: a chain of calls without signatures, blocks or fees, and a clock to set."""

from dataclasses import dataclass
from typing import Any

from coincurve import PrivateKey
from ethereum.forks.osaka.fork_types import Account as EelsAccount
from ethereum.forks.osaka.fork_types import Address
from ethereum.forks.osaka.state import (
    State,
    TransientStorage,
    get_account,
    set_account,
    set_account_balance,
    set_code,
    set_storage,
)
from ethereum.forks.osaka.vm import BlockEnvironment, Message, TransactionEnvironment
from ethereum.forks.osaka.vm.interpreter import process_message_call
from ethereum_types.bytes import Bytes32
from ethereum_types.numeric import U64, U256, Uint

from core.contract import Artifact, ContractError, Event
from core.hashing import keccak256
from core.receipts import Log

CHAIN_ID = 5747
GENESIS_TIME = 1_800_000_000
ETHER = 10**18


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

    def __init__(self) -> None:
        self.now = GENESIS_TIME
        self._state = State()
        self._artifacts: dict[bytes, Artifact] = {}

    def fund(self, address: bytes, amount_wei: int) -> None:
        set_account_balance(self._state, Address(address), U256(amount_wei))

    def place(self, address: bytes, artifact: Artifact, storage: dict[int, int]) -> None:
        """Put a contract where it stands from genesis on."""
        set_account(self._state, Address(address), EelsAccount(Uint(1), U256(0), b""))
        set_code(self._state, Address(address), artifact.deployed_code)
        for slot, word in storage.items():
            set_storage(self._state, Address(address), Bytes32(slot.to_bytes(32, "big")), U256(word))
        self._artifacts[address] = artifact

    def balance(self, address: bytes) -> int:
        return int(get_account(self._state, Address(address)).balance)

    def send(self, sender: bytes, to: bytes, function: str, *arguments: object, value: int = 0) -> Sent:
        """Call a contract and keep what it changed; raises Reverted, and then nothing changed."""
        artifact = self._artifacts[to]
        output = self._message(sender, to, artifact.encode_call(function, *arguments), value)
        if output.error is not None:
            raise Reverted(artifact.decode_error(bytes(output.return_data)))
        logs = [Log(bytes(log.address), tuple(map(bytes, log.topics)), bytes(log.data)) for log in output.logs]
        events = tuple(event for log in logs if (event := self._artifacts[log.address].decode_log(log)))
        result = artifact.decode_result(function, bytes(output.return_data))
        return Sent(result, events, 30_000_000 - int(output.gas_left))

    def read(self, to: bytes, function: str, *arguments: object) -> Any:
        """What a view function returns."""
        return self.send(bytes(20), to, function, *arguments).result

    def _message(self, sender: bytes, to: bytes, data: bytes, value: int) -> Any:
        env = BlockEnvironment(
            U64(CHAIN_ID),
            self._state,
            Uint(30_000_000),
            [],
            Address(bytes(20)),
            Uint(1),
            Uint(0),
            U256(self.now),
            Bytes32(bytes(32)),
            U64(0),
            Bytes32(bytes(32)),
        )
        tx = TransactionEnvironment(
            Address(sender), Uint(0), Uint(30_000_000), set(), set(), TransientStorage(), (), (), None, None
        )
        code = get_account(self._state, Address(to)).code
        return process_message_call(
            Message(
                env,
                tx,
                Address(sender),
                Address(to),
                Address(to),
                Uint(30_000_000),
                U256(value),
                data,
                Address(to),
                code,
                Uint(0),
                True,
                False,
                {Address(to)},
                set(),
                False,
                None,
            )
        )
