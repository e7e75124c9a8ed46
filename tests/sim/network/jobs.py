"""What jobs need beyond the bare network: an escrow in a dictionary, engines that answer as told, and their wiring."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from core.hashing import keccak256
from core.jobs.receipt import ReceiptDomain
from core.jobs.request import JobRequest, Message, Role, Sampling, Tier, request_hash
from core.store.identity import ChainIdentity
from market.contracts import JOB_ESCROW
from protos.job_messages import JobEvent, SubmitJob
from protos.messages import Model
from sequencer.coordinator.challenges import Auditor
from sequencer.coordinator.escrow import CallFailed, EscrowStatus, JobTerms, MarketChain, Settled, Standing
from sequencer.coordinator.fleet import DUTY_INFERENCE, DUTY_REPLICA
from sequencer.coordinator.job_log import JobLog
from sequencer.coordinator.job_table import Job
from sequencer.coordinator.jobs import JobCoordinator, JobsConfig
from tests.sim.network.world import SimulatedWorker, World, identity
from tests.unit.sequencer.fakes import CHAIN_ID
from worker.inference.engine import Completion, FinishReason, ModelDescription, Piece
from worker.job_files import JobFiles
from worker.jobs import JobRunner, OfferedModel
from worker.jobs import JobsConfig as RunnerConfig

__all__ = ["FakeMarket", "JobWorld", "ScriptedEngine", "jobs_in", "request"]

MODEL_HASH = keccak256(b"the model")
OPERATOR_KEY = identity(1000)
OPERATOR = OPERATOR_KEY.address
INPUT_WEI, OUTPUT_WEI = 1, 2


def jobs_in(payments: bytes) -> list[bytes]:
    """The jobs that a batch pays (`settleBatch`)."""
    jobs, at = [], 0
    while at < len(payments):
        end = at + 22 + 48 * int.from_bytes(payments[at + 20 : at + 22], "big")
        jobs += [payments[start : start + 32] for start in range(at + 22, end, 48)]
        at = end
    return jobs


def request(prompt: str = "What?", tokens_max: int = 16) -> JobRequest:
    return JobRequest("a model", (Message(Role.USER, prompt),), Sampling(tokens_max=tokens_max), Tier.FLOAT)


class FakeMarket:
    """Implements `sequencer.coordinator.escrow.MarketChain`. Every worker signs for itself and is bonded."""

    domain = ReceiptDomain(CHAIN_ID, b"\x57" * 20)

    def __init__(self) -> None:
        self.jobs: dict[bytes, JobTerms] = {}
        self.unbonded: set[bytes] = set()
        self.unpayable: set[bytes] = set()
        self.release_at_s = 0
        self.demanded: set[bytes] = set()
        self.gas_each = 0

    def terms(self, job_id: bytes) -> JobTerms | None:
        return self.jobs.get(job_id)

    def standing(self, worker: bytes) -> Standing:
        return Standing(worker, 0 if worker in self.unbonded else 2**62)

    def settled(self, job_id: bytes) -> Settled:
        return Settled(7, self.release_at_s)

    def is_demanded(self, job_id: bytes) -> bool:
        return job_id in self.demanded

    def check(self, sender: bytes, data: bytes) -> int:
        function, arguments = JOB_ESCROW.decode_call(data)
        if function == "show":
            named = [arguments["receipt"][0]]
        else:
            named = [arguments["jobId"]] if function == "refund" else jobs_in(arguments["payments"])
        if self.unpayable & set(named):
            raise CallFailed("JobEscrow", None)
        return 100_000 + self.gas_each * len(named)


@dataclass
class ScriptedEngine:
    """Answers every request with the same words, one a step. `pace_s` is the time between two of them.

    With `hangs_after` it makes that many words and then none; with `error` it raises before the first.
    """

    words: tuple[str, ...] = ("The ", "answer ", "is ", "42.")
    pace_s: float = 0.1
    hangs_after: int | None = None
    error: Exception | None = None
    served: int = 0
    model: ModelDescription = field(
        default_factory=lambda: ModelDescription("a model", MODEL_HASH, Tier.FLOAT, 2048, 100)
    )

    async def generate(
        self, request: JobRequest, salt: bytes | None = None, expected: Sequence[int] = ()
    ) -> AsyncGenerator[Piece | Completion, None]:
        self.served += 1
        if self.error is not None:
            raise self.error
        for index, word in enumerate(self.words):
            if index == self.hangs_after:
                await asyncio.Event().wait()
            await asyncio.sleep(self.pace_s)
            yield Piece(word)
        yield Completion(FinishReason.STOP, 7, len(self.words))

    async def close(self) -> None:
        return None


class JobWorld(World):
    """A World whose coordinator takes jobs."""

    def __init__(
        self,
        folder: Path,
        config: JobsConfig | None = None,
        market: MarketChain | None = None,
        auditor: Auditor | None = None,
        would_win: Callable[[Job], bool] = lambda job: False,
    ) -> None:
        super().__init__(folder)
        self.market: Any = market or FakeMarket()
        self.log = JobLog(folder / "jobs", ChainIdentity.of(self.genesis), self.threads)
        self.coordinator = JobCoordinator(
            self.fleet,
            self.market,
            self.log,
            config or JobsConfig(audit_percent=0),
            self.threads,
            operator=OPERATOR,
            audit_seed=b"seed",
            now_ms=self.now_ms,
            auditor=auditor,
            would_win=would_win,
        )

    def job_worker(self, number: int, engine: ScriptedEngine, folder: Path | None = None) -> SimulatedWorker:
        worker = self.worker(number, None, (DUTY_REPLICA, DUTY_INFERENCE))
        worker.models = [Model("a model", MODEL_HASH, 0, INPUT_WEI, OUTPUT_WEI, 2048)]
        worker.jobs = JobRunner(  # type: ignore[attr-defined]
            worker.client,
            JobFiles(folder or self.folder / f"worker-{number}-jobs"),
            [OfferedModel(engine, INPUT_WEI, OUTPUT_WEI)],
            worker.signer,
            self.market.domain,
            RunnerConfig(),
            now_ms=self.now_ms,
        )
        return worker

    def fund(self, number: int, *, seconds: int = 120, **changes: object) -> SubmitJob:
        """Open a job in the escrow, and what its client then hands in."""
        job_id, salt = keccak256(b"job %d" % number), keccak256(b"salt %d" % number)
        asked = request()
        terms = JobTerms(
            client=b"\x0a" * 20,
            coordinator=OPERATOR,
            worker=bytes(20),
            tier=Tier.FLOAT,
            deadline_ms=self.now_ms() + seconds * 1000,
            price_max_wei=10**6,
            model_hash=MODEL_HASH,
            request_hash=request_hash(asked, salt),
            status=EscrowStatus.FUNDED,
        )
        self.market.jobs[job_id] = replace(terms, **changes)  # type: ignore[arg-type]
        return SubmitJob(job_id, asked, salt)

    async def follow(self, submit: SubmitJob) -> list[JobEvent]:
        """Hand a job in and read its events to the end."""
        return [event async for event in self.coordinator.submit(submit)]
