"""Wrong exact answers, taken to the contracts: their receipts are settled in order to be disputed at once.

The coordinator does it itself, with a bond of its own, and only where it has run the answer again and can prove every
step: so a cheat pays with its stake, and nobody is slashed for another's word. Playing is a `Prosecutor`'s, in a thread
of its own, a few moves of each game at a time; after a crash it goes on where the chain says that a game stands.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor as ThreadExecutor
from dataclasses import dataclass
from typing import Protocol

import structlog

from core.errors import WarpgridError
from core.jobs.request import JobRequest
from protos.job_messages import Inclusion, SignedReceipt
from sequencer.coordinator.job_log import Judged
from sequencer.coordinator.job_table import Job
from sequencer.coordinator.jobs import JobCoordinator

__all__ = ["Case", "Disputes", "Prosecutor"]

_INTERVAL_S = 0.5

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Case:
    """A receipt that is wrong, and what its job was. `inclusion` is None while it is not settled."""

    job_id: bytes
    request: JobRequest
    salt: bytes
    signed: SignedReceipt
    inclusion: Inclusion | None = None

    @classmethod
    def of(cls, job: Job, inclusion: Inclusion | None = None) -> "Case":
        """A finished job's."""
        assert job.signed is not None, "only finished jobs have receipts"
        return cls(job.terms.job_id, job.terms.request, job.terms.salt, job.signed, inclusion)


class Prosecutor(Protocol):
    """Whoever can dispute a receipt (`node.disputes.prosecution`). Methods block; they may run in any thread."""

    def would_win(self, case: Case) -> bool:
        """Whether the contracts would find this receipt wrong, and a bond is at hand."""

    def advance(self, case: Case) -> bool | None:
        """Dispute a settled receipt: open the game, or make the moves that can be made now. Whether its worker lost, or
        None while the game goes on. Raises WarpgridError for what may be tried again."""


class Disputes:
    """Runs beside a JobCoordinator whose table says what is to be disputed."""

    def __init__(
        self,
        coordinator: JobCoordinator,
        prosecutor: Prosecutor,
        thread: ThreadExecutor,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        self._now_ms = now_ms
        self._coordinator = coordinator
        self._prosecutor = prosecutor
        self._thread = thread

    async def run(self) -> None:
        """Dispute until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(_INTERVAL_S)

    async def step(self) -> None:
        """Go on with every dispute. A chain that does not answer is asked again at the next step."""
        for job in self._coordinator.table.to_dispute():
            case = Case.of(job, self._coordinator.inclusion(job))
            try:
                has_lost = await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._prosecutor.advance, case
                )
            except WarpgridError as error:
                _log.warning("dispute_waits", job=case.job_id.hex(), reason=str(error))
                continue
            if has_lost is not None:
                _log.info("dispute_over", job=case.job_id.hex(), worker=job.worker.hex(), has_lost=has_lost)
                await self._coordinator.record(Judged(case.job_id, "lost" if has_lost else "won", self._now_ms()))
