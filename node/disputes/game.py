"""One dispute on a network, seen by a party over JSON-RPC."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from eth_abi.abi import encode

from core.contract import Event
from core.hashing import keccak256
from core.receipts import Log
from market.contracts import ARBITER, ARBITER_ADDRESS
from node.client import RpcClient
from node.errors import ServiceError
from node.wallet import Wallet
from zk.contracts import DISPUTE, DISPUTE_ADDRESS
from zk.dispute import Challenger, Seat, Terms, Turn, Worker

__all__ = ["RpcGame", "advance", "game_id", "logs_of", "play_seat"]

POLL_INTERVAL_S = 0.5
_TERMS_TYPE = (
    "(bytes32,bytes32,bytes32,bytes32,bytes32,uint256[5],uint256,uint256,uint256,bool,uint256,address,address,uint256)"
)


def game_id(terms: Terms) -> bytes:
    """The contract's name for a game."""
    return keccak256(encode([_TERMS_TYPE], [terms.solidity()]))


def logs_of(
    rpc: RpcClient, address: bytes, topics: Sequence[bytes | None], from_block: int = 0, to_block: int | None = None
) -> list[Log]:
    """A contract's logs from a block on, up to another or to the newest."""
    wanted = {
        "fromBlock": hex(from_block),
        "toBlock": "latest" if to_block is None else hex(to_block),
        "address": "0x" + address.hex(),
        "topics": [None if topic is None else "0x" + topic.hex() for topic in topics],
    }
    return [_log(one) for one in rpc.call("eth_getLogs", wanted)]


class RpcGame:
    """Implements `zk.dispute.DisputeChain` for the account of a wallet. `tell` hears of every move of its own."""

    def __init__(
        self, rpc: RpcClient, wallet: Wallet, terms: Terms, tell: Callable[[str, int], None] = lambda name, gas: None
    ) -> None:
        self._rpc, self._wallet, self._terms, self._tell = rpc, wallet, terms, tell
        self._id = game_id(terms)

    def move(self, sender: bytes, function: str, *arguments: object) -> None:
        assert sender == self._wallet.address, "a party moves for itself"
        self._tell(function, self._wallet.transact(DISPUTE, DISPUTE_ADDRESS, function, *arguments).gas_used)

    def turn(self) -> int:
        return int(self._read("turnOf", self._terms.solidity()))

    def events(self) -> list[Event]:
        logs = logs_of(self._rpc, DISPUTE_ADDRESS, [None, self._id])
        return [event for log in logs if (event := DISPUTE.decode_log(log)) is not None]

    def winner(self) -> bytes:
        """Who won, or zeros."""
        found: bytes = self._read("winnerOf", self._terms.solidity())
        return found

    def deadline_s(self) -> int:
        """The Unix time until which the next move must be made."""
        return int(self._read("games", self._id)[5])

    def is_overdue(self) -> bool:
        """Whether the next move may be timed out now."""
        return int(self._rpc.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16) > self.deadline_s()

    def time_out(self) -> None:
        """End the game over the other party's silence."""
        self.move(self._wallet.address, "timeout", self._terms.solidity())

    def resolve(self) -> None:
        """Have the arbiter do what the outcome asks for, unless the other party has."""
        if not self._is_unresolved():
            return
        try:
            self._wallet.transact(ARBITER, ARBITER_ADDRESS, "resolve", self._terms.solidity())
        except ServiceError:
            if self._is_unresolved():
                raise

    def _is_unresolved(self) -> bool:
        return any(self._wallet.read(ARBITER, ARBITER_ADDRESS, "jobOf", self._id))

    def _read(self, function: str, *arguments: object) -> Any:
        return self._wallet.read(DISPUTE, DISPUTE_ADDRESS, function, *arguments)


def advance(game: RpcGame, seat: Seat) -> bool:
    """Make every move that can be made now, and end the game over the other party's silence; whether it is over."""
    while (turn := game.turn()) != Turn.OVER:
        if seat.act() is not None:
            continue
        if turn in seat.turns or not game.is_overdue():
            return False
        game.time_out()
    return True


def play_seat(
    game: RpcGame, terms: Terms, party: Worker | Challenger, wait: Callable[[float], None] = time.sleep
) -> None:
    """Play one side until the game is over. `wait` passes seconds while the other party thinks."""
    seat = Seat(game, terms, party)
    while not advance(game, seat):
        wait(POLL_INTERVAL_S)


def _log(one: dict[str, Any]) -> Log:
    topics = tuple(bytes.fromhex(topic[2:]) for topic in one["topics"])
    return Log(bytes.fromhex(one["address"][2:]), topics, bytes.fromhex(one["data"][2:]))
