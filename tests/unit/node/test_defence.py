"""A worker that looks for challenges, against a chain that is a table of answers."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import encode

from market.contracts import ARBITER, ARBITER_ADDRESS
from node.client import RpcClient
from node.disputes.defence import DefenceState, Defender, defend
from node.disputes.game import game_id
from node.keys import IdentityKey
from node.wallet import Wallet
from tests.unit.node.fake_rpc import Refusal, serving
from worker.job_files import JobFiles
from zk.contracts import DISPUTE, DISPUTE_ADDRESS
from zk.dispute import Terms, Turn

KEY = IdentityKey(b"\x11" * 32)
JOB = b"\x22" * 32
CHALLENGER = b"\x0c" * 20
TERMS_TYPE = (
    "(bytes32,bytes32,bytes32,bytes32,bytes32,uint256[5],uint256,uint256,uint256,bool,uint256,address,address,uint256)"
)
TERMS = Terms(*(bytes([n]) * 32 for n in range(5)), (0, 0, 65_536, 0, 0), 3, 4, 5, True, 2, KEY.address, CHALLENGER, 7)
DEADLINE_S = 1_000


class Chain:
    """One game about an answer of this worker. `failures` are how often the game cannot be read; -1 for always."""

    def __init__(self, failures: int = 0, turn: int = Turn.OVER, winner: bytes = KEY.address) -> None:
        self.failures, self.turn, self.winner, self.head = failures, turn, winner, 1
        self.reads = 0

    @contextmanager
    def defender(self, folder: Path, clock: list[float]) -> Iterator[Defender]:
        methods = {
            "eth_blockNumber": lambda: hex(self.head),
            "eth_getLogs": self._logs,
            "eth_call": self._call,
            "eth_getBlockByNumber": lambda *_: {"timestamp": hex(int(clock[0]))},
        }
        with serving(methods) as url:
            rpc = RpcClient(url)
            yield Defender(rpc, Wallet(KEY, rpc), JobFiles(folder), {}, now_s=lambda: clock[0])

    def _logs(self, wanted: dict[str, Any]) -> list[Any]:
        address = bytes.fromhex(wanted["address"][2:])
        if address == ARBITER_ADDRESS:
            topics = [ARBITER.event_topic("Challenged"), JOB, game_id(TERMS), CHALLENGER.rjust(32, b"\0")]
            return [_log(address, topics, encode(["address"], [KEY.address]))]
        return [
            _log(address, [DISPUTE.event_topic("Opened"), game_id(TERMS)], encode([TERMS_TYPE], [TERMS.solidity()]))
        ]

    def _call(self, call: dict[str, str], _: str) -> str:
        self.reads += 1
        if self.failures:
            self.failures -= 1
            raise Refusal(-32000, "the state is not here")
        to, data = bytes.fromhex(call["to"][2:]), bytes.fromhex(call["data"][2:])
        if to != DISPUTE_ADDRESS:
            return "0x" + bytes(32).hex()  # no game of the arbiter's is open any more
        function, _arguments = DISPUTE.decode_call(data)
        word = {"turnOf": self.turn, "winnerOf": int.from_bytes(self.winner, "big")}
        if function != "games":
            return "0x" + word[function].to_bytes(32, "big").hex()
        return "0x" + b"".join((DEADLINE_S if n == 5 else 0).to_bytes(32, "big") for n in range(12)).hex()


def _log(address: bytes, topics: list[bytes], data: bytes) -> dict[str, Any]:
    return {"address": "0x" + address.hex(), "topics": ["0x" + one.hex() for one in topics], "data": "0x" + data.hex()}


def only(defender: Defender) -> DefenceState:
    (defence,) = defender.defences.values()
    return defence.state


def test_what_fails_is_tried_again(tmp_path: Path) -> None:
    clock, chain = [10.0], Chain(failures=2)
    with chain.defender(tmp_path, clock) as defender:
        assert defender.step() == 1
        assert only(defender) == DefenceState.WAITING
        reads = chain.reads
        defender.step()
        assert chain.reads == reads, "not at once"
        clock[0] += 2
        assert defender.step() == 0
        assert only(defender) == DefenceState.WAITING
        clock[0] += 3
        defender.step()
        assert (only(defender), chain.reads - reads) == (DefenceState.WAITING, 1), "longer each time"
        clock[0] += 1
        defender.step()
        assert only(defender) == DefenceState.WON
        assert [defender.count(state) for state in DefenceState] == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("failures", [-1, 3])
def test_a_game_is_given_up_when_its_time_is_over_and_not_before(tmp_path: Path, failures: int) -> None:
    clock, chain = [10.0], Chain(failures)
    with chain.defender(tmp_path, clock) as defender:
        for _ in range(1_500):
            defender.step()
            if only(defender) not in (DefenceState.WAITING, DefenceState.PLAYING):
                break
            clock[0] += 3 if failures < 0 else 15
        (defence,) = defender.defences.values()
        if failures == 3:
            assert (defence.state, clock[0] < 100) == (DefenceState.WON, True)
            return
        assert defence.state == DefenceState.GIVEN_UP
        assert "the state is not here" in defence.reason
        assert 3_900 < clock[0] < 4_000, "for as long as the game's clock could not be read"
        reads = chain.reads
        clock[0] += 1_000
        defender.step()
        assert chain.reads == reads, "for good"


def test_without_the_answer_a_game_is_given_up_at_once(tmp_path: Path) -> None:
    with Chain(turn=Turn.STATES).defender(tmp_path, [10.0]) as defender:
        defender.step()
        (defence,) = defender.defences.values()
        assert (defence.state, defence.reason) == (
            DefenceState.GIVEN_UP,
            "the answer or its model is not here any more",
        )


def test_a_lost_game_is_seen_as_lost(tmp_path: Path) -> None:
    with Chain(winner=CHALLENGER).defender(tmp_path, [10.0]) as defender:
        defender.step()
        assert only(defender) == DefenceState.LOST


async def test_it_stops_when_it_is_told_to() -> None:
    """Cancelled in the middle of a step: that one ends by itself, and there is no other."""
    began, go_on = threading.Event(), threading.Event()
    steps: list[str] = []

    class Slow(Defender):
        def __init__(self) -> None:
            """Asks nobody."""
            self.defences = {}

        def step(self) -> int:
            began.set()
            assert go_on.wait(10)
            steps.append("ended")
            return 0

    task = asyncio.create_task(defend(Slow()))
    assert await asyncio.to_thread(began.wait, 10)
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.get_running_loop().shutdown_default_executor()
    assert steps == ["ended"]
