"""The worker as one object: replica, jobs, and the stream that both live on.

Wires the parts of this room together, runs them, and stops them in good order; decides nothing itself.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from core.execution import Executor
from core.jobs.receipt import ReceiptDomain
from protos.handshake import Signer
from protos.messages import Capabilities, Model
from worker.capabilities import Machine, describe, probe_machine
from worker.client import ClientConfig, SequencerClient, WorkerStatus
from worker.job_files import JobFiles
from worker.jobs import JobRunner, JobsConfig, OfferedModel
from worker.replica import Replica, ReplicaChain
from worker.rpc import DialerConfig, GrpcDialer, SequencerCertificate, WorkerCertificate

__all__ = ["DUTY_INFERENCE", "DUTY_REPLICA", "DUTY_WATCHER", "Worker", "WorkerSettings"]

DUTY_REPLICA = "replica"
DUTY_WATCHER = "watcher"
DUTY_INFERENCE = "inference"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """`duties` are DUTY_REPLICA or DUTY_WATCHER, one of them; DUTY_INFERENCE is added when there are models.

    `data_dir` takes the jobs in progress. `escrow` is the address (20 bytes) under which receipts count.
    """

    data_dir: Path
    dialer: DialerConfig
    escrow: bytes
    duty: str = DUTY_REPLICA
    software: str = "warpgrid/0.1.0"
    client: ClientConfig = field(default_factory=ClientConfig)
    jobs: JobsConfig = field(default_factory=JobsConfig)

    def __post_init__(self) -> None:
        assert self.duty in (DUTY_REPLICA, DUTY_WATCHER)


class Worker:
    """A replica that executes blocks, and runs jobs on the models that it is given.

    `tls` and `sequencer` are this worker's certificate and the sequencer's (`node.keys`).
    """

    def __init__(
        self,
        settings: WorkerSettings,
        chain: ReplicaChain,
        executor: Executor,
        signer: Signer,
        tls: WorkerCertificate,
        sequencer: SequencerCertificate,
        models: Sequence[OfferedModel] = (),
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        jitter: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._executor = executor
        self._models = tuple(models)
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self._machine: Machine = probe_machine(settings.data_dir)
        self._thread = ThreadPoolExecutor(1, "chain")
        self._stopping = asyncio.Event()
        chain_id = chain.config.chain_id
        self.client = SequencerClient(
            chain.identity,
            signer,
            GrpcDialer(settings.dialer, chain_id, signer, tls, sequencer),
            settings.client,
            capabilities=self.capabilities,
            status=lambda: WorkerStatus(self.replica.head, self.jobs.running),
            now_ms=now_ms,
            jitter=jitter or random.Random(signer.address),
        )
        self.replica = Replica(chain, executor, self.client, self._thread)
        self.jobs = JobRunner(
            self.client,
            JobFiles(settings.data_dir / "jobs"),
            self._models,
            signer,
            ReceiptDomain(chain_id, settings.escrow),
            settings.jobs,
            now_ms=now_ms,
        )

    def capabilities(self) -> Capabilities:
        """What the sequencer is told at each registration."""
        duties = [self._settings.duty] + ([DUTY_INFERENCE] if self._models else [])
        offered = [
            Model(
                name=one.engine.model.model_id,
                model_hash=one.engine.model.model_hash,
                tier=int(one.engine.model.tier),
                input_token_wei=one.input_token_wei,
                output_token_wei=one.output_token_wei,
                context_tokens_max=one.engine.model.context_tokens,
            )
            for one in self._models
        ]
        return describe(
            self._machine,
            software=self._settings.software,
            duties=duties,
            executor=self._executor.name,
            models=offered,
            job_slots=self._settings.jobs.slots if offered else 0,
        )

    def stop(self) -> None:
        """Leave in good order: take nothing more, finish what runs (within `client.drain_timeout_s`), and go.

        `run` returns then. For a signal handler of the event loop.
        """
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop` or cancellation.

        Raises an ExceptionGroup of CannotJoin or ChainRejected when the sequencer will not have this worker, or its
        chain breaks the rules.
        """
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.client.run()), group.create_task(self.replica.run())]
                await self._stopping.wait()
                await self._drain()
                for task in tasks:
                    task.cancel()
        finally:
            await self.jobs.cancel_all()
            for one in self._models:
                await one.engine.close()
            self._thread.shutdown()

    async def _drain(self) -> None:
        await self.client.leave("the worker was asked to stop")
        try:
            async with asyncio.timeout(self._settings.client.drain_timeout_s):
                await self.jobs.drain()
        except TimeoutError:
            _log.warning("jobs_cut_off", running=self.jobs.running)
            await self.jobs.cancel_all()
