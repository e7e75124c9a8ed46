"""A worker answers whoever challenges it: looks for challenges on chain and plays them from what it kept of its jobs.

Without this an honest worker would lose by silence. Blocks its thread; one game at a time.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping

import structlog

from core.contract import Event
from core.errors import InvalidInput
from core.jobs.request import decode_tokens
from market.contracts import ARBITER, ARBITER_ADDRESS
from node.client import RpcClient
from node.disputes.game import RpcGame, logs_of, play_seat
from node.errors import ServiceError, ServiceUnreachable
from node.wallet import Wallet
from protos.messages import AssignJob
from worker.inference.dispute_parties import DisputeParties
from worker.inference.exact.model import ExactModel
from worker.inference.exact.tokenizer import ChatTokenizer
from worker.inference.proof_trace import statement_of
from worker.job_files import JobFiles
from zk.contracts import DISPUTE, DISPUTE_ADDRESS
from zk.dispute import Terms, Turn, Worker

__all__ = ["Defender", "Stopped", "defend"]

POLL_INTERVAL_S = 2.0

_log = structlog.get_logger(__name__)


class Stopped(Exception):
    """The worker ends; a game in progress goes on when it is started again."""


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
            except ServiceError as error:  # what was not played is found again at the next turn
                _log.warning("defence_waits", reason=str(error))
            await asyncio.sleep(POLL_INTERVAL_S)
    finally:
        stopping.set()


class Defender:
    """`models` are those that the worker serves, by the hash that orders have."""

    def __init__(self, rpc: RpcClient, wallet: Wallet, files: JobFiles, models: Mapping[bytes, ExactModel]) -> None:
        self._rpc, self._wallet, self._files = rpc, wallet, files
        self._models = models
        self._next_block = 0

    def step(self, wait: Callable[[float], None]) -> int:
        """Play every game about this worker that is not over. `wait` passes seconds while the other party thinks.

        Returns how many challenges were new.
        """
        head = int(self._rpc.call("eth_blockNumber"), 16)
        if head < self._next_block:
            return 0
        logs = logs_of(self._rpc, ARBITER_ADDRESS, [ARBITER.event_topic("Challenged")], self._next_block, head)
        found = [event for log in logs if (event := ARBITER.decode_log(log)) is not None]
        mine = [one for one in found if one.arguments["worker"] == self._wallet.address]
        for challenged in mine:
            self._defend(challenged, wait)
        self._next_block = head + 1
        return len(mine)

    def _defend(self, challenged: Event, wait: Callable[[float], None]) -> None:
        job_id, game = challenged.arguments["jobId"], challenged.arguments["gameId"]
        terms = self._terms(game)
        played = RpcGame(self._rpc, self._wallet, terms)
        if played.turn() == Turn.OVER:
            return
        job = self._files.kept(job_id)
        if job is None or job.model_hash not in self._models:
            _log.error("cannot_defend", job=job_id.hex(), reason="the answer or its model is not here any more")
            return
        try:
            play_seat(played, terms, self._party(job), wait)
            played.resolve()
        except ServiceUnreachable:
            raise
        except (ServiceError, InvalidInput) as error:  # the contract refuses what cannot be proven: the game is lost
            _log.error("dispute_lost", job=job_id.hex(), reason=str(error))
        else:
            _log.info("dispute_over", job=job_id.hex(), won=played.winner() == self._wallet.address)

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
