"""The coordinator as one object: what a sequencer starts to have workers, jobs and settlement.

Wires the parts of this package together and runs them; decides nothing itself.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from core.execution import Executor
from core.store.identity import ChainIdentity
from protos.handshake import Signer
from sequencer.coordinator.block_execution import ExecutionConfig, FleetExecution
from sequencer.coordinator.catch_up import CatchUpConfig, CatchUpServer, SnapshotServer, SnapshotSource
from sequencer.coordinator.challenges import Auditor
from sequencer.coordinator.disputes import Case, Disputes, Prosecutor
from sequencer.coordinator.escrow import EscrowReader
from sequencer.coordinator.evidence import EvidenceStore
from sequencer.coordinator.findings import Findings
from sequencer.coordinator.fleet import Fleet, FleetConfig
from sequencer.coordinator.job_log import JobLog
from sequencer.coordinator.jobs import JobCoordinator, JobsConfig
from sequencer.coordinator.membership import CertificateAuthority, Membership
from sequencer.coordinator.settlement import Settlement, SettlementConfig
from sequencer.feed import Feed, ListenerTooSlow
from sequencer.production import NewHead
from sequencer.rpc import NetworkServer, ServerConfig, ServerTls

__all__ = ["Coordinator", "CoordinatorConfig", "SequencerTls"]

_THREADS = 4

_log = structlog.get_logger(__name__)


class SequencerTls(ServerTls, CertificateAuthority, Protocol):
    """The sequencer's certificate, its key, and the right to issue workers' certificates (`node.keys`)."""


@dataclass(frozen=True, slots=True)
class CoordinatorConfig:
    """`data_dir` takes the register of workers, the log of jobs and the evidence."""

    data_dir: Path
    server: ServerConfig = field(default_factory=ServerConfig)
    fleet: FleetConfig = field(default_factory=FleetConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    catch_up: CatchUpConfig = field(default_factory=CatchUpConfig)
    jobs: JobsConfig = field(default_factory=JobsConfig)
    settlement: SettlementConfig = field(default_factory=SettlementConfig)


class Coordinator:
    """Everything that concerns workers and jobs.

    Give `execution` to the BlockProducer, then `run`. `executor` reads the market's contracts; `arbiter` decides
    disputes about blocks when no watcher is attached, None leaves them to a watcher. `auditor` checks exact answers,
    `prosecutor` disputes wrong ones on chain; without it they are refunded. `operator` is the account that
    orders name as their coordinator and that pays for settlements; `submit` hands its raw transactions to the mempool.
    """

    def __init__(
        self,
        config: CoordinatorConfig,
        chain: SnapshotSource,
        tls: SequencerTls,
        operator: Signer,
        executor: Executor,
        submit: Callable[[bytes], Awaitable[object]],
        *,
        arbiter: Executor | None = None,
        auditor: Auditor | None = None,
        prosecutor: Prosecutor | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        make_secret: Callable[[], bytes] = lambda: secrets.token_bytes(32),
    ) -> None:
        """Opens the files and replays the log of jobs. Raises StoreError when they are damaged or another chain's."""
        folder = config.data_dir
        genesis = chain.block(0)
        assert genesis is not None, "the genesis block is always there"
        self._threads = ThreadPoolExecutor(_THREADS, "coordinator")
        self._log_thread = ThreadPoolExecutor(1, "job-log")
        self._job_log = JobLog(folder / "jobs", ChainIdentity(chain.config.chain_id, genesis.hash), self._log_thread)
        market = EscrowReader(chain, executor)
        self.membership = Membership(folder / "workers.json", chain.config.chain_id, tls)
        self.fleet = Fleet(chain, self.membership, config.fleet, now_ms=now_ms, make_nonce=make_secret)
        self.evidence = EvidenceStore(folder / "evidence")
        self.execution = FleetExecution(chain, self.fleet, self.evidence, config.execution, self._threads, arbiter)
        self._findings = Findings(
            chain, self.fleet, self.evidence, self.execution.vouchers, self._threads, now_ms=now_ms
        )
        self._catch_up = CatchUpServer(chain, self.fleet, config.catch_up, self._threads)
        self.jobs = JobCoordinator(
            self.fleet,
            market,
            self._job_log,
            config.jobs,
            self._threads,
            operator=operator.address,
            audit_seed=make_secret(),
            now_ms=now_ms,
            auditor=auditor,
            would_win=lambda job: prosecutor is not None and prosecutor.would_win(Case.of(job)),
        )
        self._dispute_thread = ThreadPoolExecutor(1, "disputes")
        self._disputes: Disputes | None = None
        if prosecutor is not None:
            self._disputes = Disputes(self.jobs, prosecutor, self._dispute_thread, now_ms=now_ms)
        self._settlement = Settlement(
            self.jobs, chain, market, operator, submit, config.settlement, self._threads, now_ms=now_ms
        )
        snapshots = SnapshotServer(chain, config.catch_up, self._threads)
        self.server = NetworkServer(config.server, tls, self.fleet, self.membership, self.jobs, snapshots)

    async def start(self) -> None:
        """Listen; the ports are in `server` afterwards. Raises OSError when one is taken."""
        await self.server.start()

    async def run(self, heads: Feed[NewHead]) -> None:
        """Serve until cancelled, announcing every block of `heads`. `start` comes before."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._announce(heads))
                group.create_task(self.jobs.run())
                group.create_task(self._settlement.run())
                if self._disputes is not None:
                    group.create_task(self._disputes.run())
        finally:
            await self.server.stop()
            await self.jobs.finish_changes()
            self._dispute_thread.shutdown(wait=False, cancel_futures=True)  # it asks a chain that this loop serves
            self._threads.shutdown()
            self._log_thread.shutdown()
            self._job_log.close()

    async def _announce(self, heads: Feed[NewHead]) -> None:
        while True:
            listening = heads.listen()
            try:
                async for head in listening:
                    await self.execution.announce(head.sealed)
            except ListenerTooSlow:
                _log.warning("announcements_skipped")  # the next one makes workers catch up
            finally:
                listening.close()
