"""The coordinator disputes wrong answers that it has found: implements `sequencer.coordinator.disputes.Prosecutor`.

It plays as any challenger does, over JSON-RPC, with an account and a bond of its own; several games side by side, so
that none is lost over another's slow opponent. For one thread, which it blocks for a few moves at a time.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import structlog

from core.errors import InvalidInput
from market.contracts import ARBITER, ARBITER_ADDRESS, ESCROW_ADDRESS, JOB_ESCROW, EscrowStatus
from market.verification import JobState
from node.client import RpcClient
from node.disputes.challenge import Dispute, dispute_of, open_dispute, settled_receipt
from node.disputes.game import RpcGame, advance
from node.errors import ServiceError
from node.jobs.records import ClientJob
from node.wallet import Wallet, read_contract
from sequencer.coordinator.disputes import Case
from worker.inference.errors import InferenceError
from worker.inference.exact.model import ExactModel
from worker.inference.exact.ordering import model_hash
from zk.dispute import Seat

__all__ = ["LadderProsecutor"]

_GAS_RESERVE_WEI = 10**17
"""What a game's transactions may cost beside the bond."""

_log = structlog.get_logger(__name__)


class LadderProsecutor:
    """Disputes answers of these models, from the account of a wallet that must be funded. At most `games_max` at once:
    each must be opened within the challenge window, and every move made in time."""

    def __init__(self, rpc: RpcClient, wallet: Wallet, models: Iterable[ExactModel], games_max: int = 4) -> None:
        self._rpc, self._wallet, self._games_max = rpc, wallet, games_max
        self._models = {model_hash(model.root, model.header): model for model in models}
        self._underway: set[bytes] = set()
        self._prepared: dict[bytes, Dispute] = {}
        self._games: dict[bytes, tuple[RpcGame, Seat]] = {}

    def would_win(self, case: Case) -> bool:
        try:
            if len(self._underway - {case.job_id}) >= self._games_max:
                raise ServiceError(f"{len(self._underway)} disputes are on their way already")
            dispute = self._dispute(case)
            self._require_funds()
        except (ServiceError, InvalidInput, InferenceError) as error:
            _log.warning("not_disputed", job=case.job_id.hex(), reason=str(error))
            return False
        self._underway.add(case.job_id)
        self._prepared[case.job_id] = dispute
        return True

    def advance(self, case: Case) -> bool | None:
        values = read_contract(self._rpc, JOB_ESCROW, ESCROW_ADDRESS, "jobOf", case.job_id)
        status = JobState.from_solidity(values).status
        if status in (EscrowStatus.REJECTED, EscrowStatus.PAID):  # played before a restart, or come too late
            _log.info("dispute_ended_before", job=case.job_id.hex(), status=status.name)
            return self._ended(case, status == EscrowStatus.REJECTED)
        game, seat = self._games.get(case.job_id) or self._open(case)
        if not advance(game, seat):
            return None
        game.resolve()
        return self._ended(case, game.winner() == self._wallet.address)

    def _open(self, case: Case) -> tuple[RpcGame, Seat]:
        dispute = self._prepared.pop(case.job_id, None)  # a party remembers what it saw: each is for one seat
        if dispute is None or dispute.receipt != case.signed.receipt:
            dispute = self._dispute(case)
        job = ClientJob(case.job_id, case.request, case.salt, 0, 0, signed=case.signed, inclusion=case.inclusion)
        dispute = replace(dispute, showing=settled_receipt(self._rpc, job)[1])
        tell = partial(_log.info, "dispute_move", job=case.job_id.hex())
        game = open_dispute(self._rpc, self._wallet, dispute, lambda line: tell(move=line.strip()))
        self._games[case.job_id] = game, Seat(game, dispute.terms, dispute.challenger)
        return self._games[case.job_id]

    def _ended(self, case: Case, has_lost: bool) -> bool:
        self._games.pop(case.job_id, None)
        self._prepared.pop(case.job_id, None)
        self._underway.discard(case.job_id)
        return has_lost

    def _dispute(self, case: Case) -> Dispute:
        """Raises ServiceError where there is nothing to win."""
        receipt = case.signed.receipt
        model = self._models.get(receipt.model_hash)
        if model is None:
            raise ServiceError(f"the model 0x{receipt.model_hash.hex()} is not here")
        job = ClientJob(case.job_id, case.request, case.salt, 0, 0)
        return dispute_of(job, receipt, model, self._wallet.address)

    def _require_funds(self) -> None:
        address = self._wallet.address
        balance_wei = int(self._rpc.call("eth_getBalance", "0x" + address.hex(), "latest"), 16)
        needed_wei = self._wallet.read(ARBITER, ARBITER_ADDRESS, "bondWei") + _GAS_RESERVE_WEI
        if balance_wei < needed_wei:
            raise ServiceError(f"0x{address.hex()} has {balance_wei} wei; a dispute takes {needed_wei}: fund it")
