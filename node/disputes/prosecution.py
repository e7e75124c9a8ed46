"""The coordinator disputes wrong answers that it has found: implements `sequencer.coordinator.disputes.Prosecutor`.

It plays as any challenger does, over JSON-RPC, with an account and a bond of its own. Blocks its thread.
"""

from collections.abc import Callable, Iterable
from functools import partial

import structlog

from core.errors import InvalidInput
from market.contracts import ARBITER, ARBITER_ADDRESS, ESCROW_ADDRESS, JOB_ESCROW, EscrowStatus
from market.verification import JobState
from node.client import RpcClient
from node.disputes.challenge import Dispute, dispute_of, play_dispute, settled_receipt
from node.errors import ServiceError
from node.jobs.records import ClientJob
from node.wallet import Wallet, read_contract
from sequencer.coordinator.disputes import Case
from worker.inference.errors import InferenceError
from worker.inference.exact.model import ExactModel
from worker.inference.exact.ordering import model_hash

__all__ = ["LadderProsecutor"]

_GAS_RESERVE_WEI = 10**17
"""What a game's transactions may cost beside the bond."""

_log = structlog.get_logger(__name__)


class LadderProsecutor:
    """Disputes answers of these models, from the account of a wallet that must be funded."""

    def __init__(self, rpc: RpcClient, wallet: Wallet, models: Iterable[ExactModel]) -> None:
        self._rpc, self._wallet = rpc, wallet
        self._models = {model_hash(model.root, model.header): model for model in models}

    def would_win(self, case: Case) -> bool:
        try:
            self._dispute(case)
            return self._has_funds()
        except (ServiceError, InvalidInput, InferenceError) as error:
            _log.warning("not_disputed", job=case.job_id.hex(), reason=str(error))
            return False

    def prosecute(self, case: Case, wait: Callable[[float], None]) -> bool:
        arguments = read_contract(self._rpc, JOB_ESCROW, ESCROW_ADDRESS, "jobOf", case.job_id)
        status = JobState.from_solidity(arguments).status
        if status in (EscrowStatus.REJECTED, EscrowStatus.PAID):  # played before a restart, or come too late
            _log.info("dispute_ended_before", job=case.job_id.hex(), status=status.name)
            return status == EscrowStatus.REJECTED
        dispute = self._dispute(case)
        tell = partial(_log.info, "dispute_move", job=case.job_id.hex())
        return play_dispute(self._rpc, self._wallet, dispute, lambda line: tell(move=line.strip()), wait)

    def _dispute(self, case: Case) -> Dispute:
        """Raises ServiceError where there is nothing to win."""
        receipt = case.signed.receipt
        model = self._models.get(receipt.model_hash)
        if model is None:
            raise ServiceError(f"the model 0x{receipt.model_hash.hex()} is not here")
        job = ClientJob(case.job_id, case.request, case.salt, 0, 0, signed=case.signed, inclusion=case.inclusion)
        dispute = dispute_of(job, receipt, model, self._wallet.address)
        if case.inclusion is None:
            return dispute
        return Dispute(receipt, dispute.terms, dispute.challenger, settled_receipt(self._rpc, job)[1])

    def _has_funds(self) -> bool:
        address = self._wallet.address
        balance_wei = int(self._rpc.call("eth_getBalance", "0x" + address.hex(), "latest"), 16)
        needed_wei = self._wallet.read(ARBITER, ARBITER_ADDRESS, "bondWei") + _GAS_RESERVE_WEI
        if balance_wei < needed_wei:
            raise ServiceError(f"0x{address.hex()} has {balance_wei} wei; a dispute takes {needed_wei}: fund it")
        return True
