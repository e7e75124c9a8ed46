"""A worker answers whoever challenges it: looks for challenges on chain and plays them from what it kept of its jobs.

Without this an honest worker would lose by silence. So whatever fails is tried again until the move's time is over;
then the game is given up, and its state says so. Blocks its thread; one game at a time.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import structlog

from core.errors import InvalidInput
from core.jobs.request import decode_tokens
from market.contracts import ARBITER, ARBITER_ADDRESS
from node.client import RpcClient
from node.disputes.game import RpcGame, logs_of, play_seat
from node.errors import ServiceError
from node.wallet import Wallet
from protos.messages import AssignJob
from worker.inference.dispute_parties import DisputeParties
from worker.inference.exact.model import ExactModel
from worker.inference.exact.tokenizer import ChatTokenizer
from worker.inference.proof_trace import statement_of
from worker.job_files import JobFiles
from zk.contracts import DISPUTE, DISPUTE_ADDRESS
from zk.dispute import Terms, Turn, Worker

__all__ = ["Defence", "DefenceState", "Defender", "Stopped", "defend"]

POLL_INTERVAL_S = 2.0
_RETRY_S = (2.0, 4.0, 8.0, 16.0, 30.0)
"""After the first failure in a row, the second, ...; then always the last."""
_GRACE_S = 300.0
"""After a deadline the party that kept it ends the game; this may be it."""
_DEADLINE_UNKNOWN_S = 3600.0
"""For how long a game is tried whose clock could not be read once."""

_log = structlog.get_logger(__name__)


class Stopped(Exception):
    """The worker ends; a game in progress goes on when it is started again."""


class DefenceState(StrEnum):
    """How the worker stands in a game. The last three are final."""

    PLAYING = "playing"
    WAITING = "waiting"  # something failed, and is tried again
    WON = "won"
    LOST = "lost"
    GIVEN_UP = "given up"  # out of time, or without what it takes to answer


_FINAL = frozenset({DefenceState.WON, DefenceState.LOST, DefenceState.GIVEN_UP})


@dataclass(slots=True)
class Defence:
    """One game about an answer of this worker. `deadline_s` (Unix time) is that of the current move, as far as known;
    `reason` is what failed last, after `failures` failures in a row."""

    job_id: bytes
    game_id: bytes
    deadline_s: float
    state: DefenceState = DefenceState.PLAYING
    reason: str = ""
    failures: int = 0
    retry_at_s: float = 0.0


async def defend(defender: "Defender") -> None:
    """Look after challenges until cancelled."""
    stopping = threading.Event()

    def wait(seconds: float) -> None:
        if stopping.wait(seconds):
            raise Stopped

    try:
        while True:
            try:
                await asyncio.to_thread(defender.step, wait)
            except ServiceError as error:  # what was not found is looked for again at the next turn
                _log.warning("defence_waits", reason=str(error))
            await asyncio.sleep(POLL_INTERVAL_S)
    finally:
        stopping.set()


class Defender:
    """`models` are those that the worker serves, by the hash that orders have. `defences` are all games so far, by
    their ids; `now_s` tells the Unix time."""

    def __init__(
        self,
        rpc: RpcClient,
        wallet: Wallet,
        files: JobFiles,
        models: Mapping[bytes, ExactModel],
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._rpc, self._wallet, self._files = rpc, wallet, files
        self._models = models
        self._now_s = now_s
        self._next_block = 0
        self.defences: dict[bytes, Defence] = {}

    def count(self, state: DefenceState) -> int:
        """How many games stand so."""
        return sum(one.state == state for one in self.defences.values())

    def step(self, wait: Callable[[float], None]) -> int:
        """Look for challenges, and play every game about this worker that is not over. `wait` passes seconds while the
        other party thinks.

        Returns how many challenges were new. Raises ServiceError when they cannot be looked for; what fails in a game
        is in its `Defence`.
        """
        found = self._look()
        for defence in self.defences.values():
            if defence.state not in _FINAL and self._now_s() >= defence.retry_at_s:
                self._defend(defence, wait)
        return found

    def _look(self) -> int:
        head = int(self._rpc.call("eth_blockNumber"), 16)
        if head < self._next_block:
            return 0
        logs = logs_of(self._rpc, ARBITER_ADDRESS, [ARBITER.event_topic("Challenged")], self._next_block, head)
        found = [event.arguments for log in logs if (event := ARBITER.decode_log(log)) is not None]
        mine = [one for one in found if one["worker"] == self._wallet.address and one["gameId"] not in self.defences]
        for one in mine:
            deadline_s = self._now_s() + _DEADLINE_UNKNOWN_S
            self.defences[one["gameId"]] = Defence(one["jobId"], one["gameId"], deadline_s)
        self._next_block = head + 1
        return len(mine)

    def _defend(self, defence: Defence, wait: Callable[[float], None]) -> None:
        defence.state = DefenceState.PLAYING
        try:
            self._play(defence, wait)
        except (ServiceError, InvalidInput) as error:
            defence.failures += 1
            defence.reason = str(error)
            defence.retry_at_s = self._now_s() + _RETRY_S[min(defence.failures, len(_RETRY_S)) - 1]
            out_of_time = self._now_s() > defence.deadline_s + _GRACE_S
            self._enter(defence, DefenceState.GIVEN_UP if out_of_time else DefenceState.WAITING)

    def _play(self, defence: Defence, wait: Callable[[float], None]) -> None:
        terms = self._terms(defence.game_id)
        played = RpcGame(self._rpc, self._wallet, terms)
        defence.deadline_s = played.deadline_s()
        if played.turn() != Turn.OVER:
            job = self._files.kept(defence.job_id)
            if job is None or job.model_hash not in self._models:
                defence.reason = "the answer or its model is not here any more"
                self._enter(defence, DefenceState.GIVEN_UP)
                return

            def think(seconds: float) -> None:
                defence.deadline_s, defence.failures = played.deadline_s(), 0
                wait(seconds)

            play_seat(played, terms, self._party(job), think)
        played.resolve()
        won = played.winner() == self._wallet.address
        self._enter(defence, DefenceState.WON if won else DefenceState.LOST)

    def _enter(self, defence: Defence, state: DefenceState) -> None:
        defence.state = state
        tell = _log.info if state == DefenceState.WON else _log.warning if state not in _FINAL else _log.error
        tell("defence", job=defence.job_id.hex(), state=state.value, failures=defence.failures, reason=defence.reason)

    def _terms(self, game: bytes) -> Terms:
        (opened,) = logs_of(self._rpc, DISPUTE_ADDRESS, [DISPUTE.event_topic("Opened"), game])
        event = DISPUTE.decode_log(opened)
        assert event is not None, "the topic is that of the event"
        return Terms(*event.arguments["terms"])

    def _party(self, job: AssignJob) -> Worker:
        model = self._models[job.model_hash]
        prompt = ChatTokenizer(model.tokenizer, model.chat_template).encode_chat(job.request.messages)
        statement = statement_of(model, job.request, job.salt, prompt, decode_tokens(job.expected))
        return DisputeParties(model).worker(statement)
