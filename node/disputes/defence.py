"""A worker answers whoever challenges it: looks for challenges on chain and plays them from what it kept of its jobs.

Without this an honest worker would lose by silence. So whatever fails is tried again until the move's time is over;
then the game is given up, and its state says so. Games are played side by side: who stalls in one cannot make the
worker late in another. Blocks its thread for a few moves at a time.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import structlog

from core.errors import InvalidInput
from core.jobs.request import decode_tokens
from market.contracts import ARBITER, ARBITER_ADDRESS
from node.client import RpcClient
from node.disputes.game import RpcGame, advance, logs_of
from node.errors import ServiceError
from node.wallet import Wallet
from protos.job_messages import AssignJob
from worker.inference.dispute_parties import DisputeParties
from worker.inference.exact.model import ExactModel
from worker.inference.exact.tokenizer import ChatTokenizer
from worker.inference.proof_trace import statement_of
from worker.job_files import JobFiles
from zk.contracts import DISPUTE, DISPUTE_ADDRESS
from zk.dispute import Seat, Terms, Turn, Worker

__all__ = ["Defence", "DefenceState", "Defender", "defend"]

POLL_INTERVAL_S = 2.0
PLAYING_INTERVAL_S = 0.5
_RETRY_S = (2.0, 4.0, 8.0, 16.0, 30.0)
"""After the first failure in a row, the second, ...; then always the last."""
_GRACE_S = 300.0
"""After a deadline the party that kept it ends the game; this may be it."""
_DEADLINE_UNKNOWN_S = 3600.0
"""For how long a game is tried whose clock could not be read once."""

_log = structlog.get_logger(__name__)


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
    table: tuple[RpcGame, Seat] | None = None


async def defend(defender: "Defender") -> None:
    """Look after challenges until cancelled."""
    while True:
        try:
            await asyncio.to_thread(defender.step)
        except ServiceError as error:  # what was not found is looked for again at the next turn
            _log.warning("defence_waits", reason=str(error))
        is_playing = defender.count(DefenceState.PLAYING) > 0
        await asyncio.sleep(PLAYING_INTERVAL_S if is_playing else POLL_INTERVAL_S)


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

    def step(self) -> int:
        """Look for challenges, and in every game about this worker make the moves that can be made now.

        Returns how many challenges were new. Raises ServiceError when they cannot be looked for; what fails in a game
        is in its `Defence`.
        """
        found = self._look()
        for defence in self.defences.values():
            if defence.state not in _FINAL and self._now_s() >= defence.retry_at_s:
                self._defend(defence)
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

    def _defend(self, defence: Defence) -> None:
        try:
            self._play(defence)
        except (ServiceError, InvalidInput) as error:
            defence.failures += 1
            defence.reason = str(error)
            defence.retry_at_s = self._now_s() + _RETRY_S[min(defence.failures, len(_RETRY_S)) - 1]
            out_of_time = self._now_s() > defence.deadline_s + _GRACE_S
            self._enter(defence, DefenceState.GIVEN_UP if out_of_time else DefenceState.WAITING)

    def _play(self, defence: Defence) -> None:
        terms = self._terms(defence.game_id) if defence.table is None else None
        game = RpcGame(self._rpc, self._wallet, terms) if terms is not None else defence.table[0]  # type: ignore[index]
        defence.deadline_s = game.deadline_s()
        if terms is not None and game.turn() != Turn.OVER:
            job = self._files.kept(defence.job_id)
            if job is None or job.model_hash not in self._models:
                defence.reason = "the answer or its model is not here any more"
                self._enter(defence, DefenceState.GIVEN_UP)
                return
            defence.table = game, Seat(game, terms, self._party(job))
        if defence.table is not None and not advance(*defence.table):
            defence.state, defence.failures = DefenceState.PLAYING, 0
            return
        game.resolve()
        defence.table = None
        won = game.winner() == self._wallet.address
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
