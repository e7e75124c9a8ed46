"""A sequencer's network half and its workers in one process, over real gRPC and TLS on loopback."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from core.execution import Executor
from node.keys import CertificateAuthority, IdentityKey, SequencerPin, WorkerTls
from sequencer.coordinator.block_execution import ExecutionConfig, FleetExecution
from sequencer.coordinator.catch_up import CatchUpConfig, CatchUpServer
from sequencer.coordinator.evidence import EvidenceStore
from sequencer.coordinator.findings import Findings
from sequencer.coordinator.fleet import DUTY_REPLICA, Fleet, FleetConfig, Member
from sequencer.coordinator.membership import Membership
from sequencer.rpc import NetworkServer, ServerConfig
from tests.sim.network.executors import TransferExecutor
from tests.sim.network.world import capabilities, genesis
from tests.unit.sequencer.fakes import CHAIN_ID
from tests.unit.sequencer.memory_chain import MemoryChain
from worker.client import ClientConfig, SequencerClient, WorkerStatus
from worker.replica import Replica
from worker.rpc import DialerConfig, GrpcDialer

__all__ = ["FleetEvents", "GrpcWorker", "GrpcWorld"]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class GrpcWorld:
    """A sequencer on free ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.genesis = genesis()
        self.chain = MemoryChain(self.genesis)
        self.threads = ThreadPoolExecutor(2)
        self.authority = CertificateAuthority.load_or_create(folder / "keys")
        self.membership = Membership(folder / "members.json", CHAIN_ID, self.authority)
        self.fleet = Fleet(self.chain, self.membership, FleetConfig(heartbeat_interval_ms=200), now_ms=now_ms)
        self.events = FleetEvents(self.fleet)
        self.evidence = EvidenceStore(folder / "evidence")
        self.execution = FleetExecution(
            self.chain,
            self.fleet,
            self.evidence,
            ExecutionConfig(answer_timeout_s=10, round_timeout_s=30),
            self.threads,
            TransferExecutor(),
        )
        self.findings = Findings(
            self.chain, self.fleet, self.evidence, self.execution.vouchers, self.threads, now_ms=now_ms
        )
        self.catch_up = CatchUpServer(self.chain, self.fleet, CatchUpConfig(), self.threads)
        config = ServerConfig(attach_port=0, service_port=0, stop_grace_s=0.5)
        self.server = NetworkServer(config, self.authority, self.fleet, self.membership)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        await self.server.start()
        try:
            yield
        finally:
            await self.server.stop()
            self.threads.shutdown()


class GrpcWorker:
    """A worker with its own keys, thread and chain."""

    def __init__(
        self, world: GrpcWorld, number: int, executor: Executor | None = None, duties: Sequence[str] = (DUTY_REPLICA,)
    ) -> None:
        folder = world.folder / f"worker-{number}"
        self.signer = IdentityKey.load_or_create(folder / "identity.key")
        self.chain = MemoryChain(world.genesis)
        self.dialer = GrpcDialer(
            DialerConfig("127.0.0.1", world.server.service_port),
            CHAIN_ID,
            self.signer,
            WorkerTls.load_or_create(folder),
            SequencerPin(folder / "sequencer.crt", world.authority.fingerprint.hex()),
        )
        self.thread = ThreadPoolExecutor(1)
        self.client = SequencerClient(
            self.chain.identity,
            self.signer,
            self.dialer,
            ClientConfig(backoff_min_s=0.05, backoff_max_s=0.2),
            capabilities=lambda: capabilities(*duties),
            status=lambda: WorkerStatus(self.replica.head, 0),
            now_ms=now_ms,
            jitter=random.Random(number),
        )
        self.replica = Replica(self.chain, executor or TransferExecutor(), self.client, self.thread)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["asyncio.Task[None]"]:
        """Yields the task of the client, whose failure a test may want to see."""
        tasks = [asyncio.create_task(self.client.run()), asyncio.create_task(self.replica.run())]
        try:
            yield tasks[0]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.thread.shutdown()


class FleetEvents:
    """Wakes a test at everything that happens to a fleet: arrivals, departures, heartbeats (one after every block)."""

    def __init__(self, fleet: Fleet) -> None:
        self._happened = asyncio.Event()
        fleet.observe(self)

    async def joined(self, member: Member) -> None:
        self._happened.set()

    async def left(self, member: Member, reason: str) -> None:
        self._happened.set()

    async def heard(self, member: Member) -> None:
        self._happened.set()

    async def until(self, holds: Callable[[], object], timeout_s: float = 30.0) -> None:
        """Wait for a condition, looking again after every event."""
        async with asyncio.timeout(timeout_s):
            while not holds():
                self._happened.clear()
                await self._happened.wait()
