"""A sequencer and its workers, wired as the real ones are, over pipes."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.chain import SealedBlock
from core.chain_rules import next_context, seal_block
from core.execution import BlockContext, Executor
from core.genesis import Genesis, dev_genesis
from core.hashing import keccak256
from core.signature import recover_senders
from core.transaction import Transaction, TransactionColumns
from node.keys import IdentityKey
from protos.handshake import enrolment_digest
from protos.messages import Capabilities, EnrolRequest, Model
from sequencer.coordinator.block_execution import ExecutionConfig, FleetExecution
from sequencer.coordinator.catch_up import CatchUpConfig, CatchUpServer
from sequencer.coordinator.evidence import EvidenceStore
from sequencer.coordinator.findings import Findings
from sequencer.coordinator.fleet import DUTY_REPLICA, Fleet, FleetConfig
from sequencer.coordinator.membership import Membership
from tests.sim.network.executors import TransferExecutor
from tests.sim.network.pipes import PipeDialer
from tests.sim.network.virtual_time import InlineExecutor
from tests.unit.sequencer.fakes import CHAIN_ID, Wallet, transfer
from tests.unit.sequencer.memory_chain import MemoryChain
from worker.client import ClientConfig, SequencerClient, WorkerStatus
from worker.errors import CannotJoin, ChainRejected
from worker.replica import Replica

__all__ = ["FakeAuthority", "SimulatedWorker", "World", "capabilities", "genesis", "identity", "transfers"]

COINBASE = b"\x0c" * 20
START_MS = 1_700_000_000_000


@dataclass(frozen=True)
class _Issued:
    pem: bytes
    fingerprint: bytes


class FakeAuthority:
    """Implements `sequencer.coordinator.membership.CertificateAuthority` without cryptography."""

    fingerprint = keccak256(b"the sequencer's certificate")

    def issue(self, signing_request: bytes, address: bytes) -> _Issued:
        return _Issued(b"certificate", keccak256(signing_request))


def identity(number: int) -> IdentityKey:
    return IdentityKey(keccak256(b"identity %d" % number))


def genesis() -> Genesis:
    wallets = [Wallet(number) for number in range(4)]
    balances_wei = {wallet.address: 10**24 for wallet in wallets}
    return Genesis.from_geth(dev_genesis(CHAIN_ID, balances_wei, {}, timestamp=START_MS // 1000))


def transfers(wallet: Wallet, nonces: Sequence[int]) -> TransactionColumns:
    signed: list[Transaction] = [wallet.sign(transfer(nonce)) for nonce in nonces]
    return TransactionColumns.from_transactions(signed, recover_senders(signed))


def capabilities(*duties: str, models: Sequence[Model] = (), job_slots: int = 1) -> Capabilities:
    named = duties or (DUTY_REPLICA,)
    return Capabilities("warpgrid/0.1.0", named, "reference", "a cpu", 2, 2**34, 2**40, (), tuple(models), job_slots)


class SimulatedWorker:
    """A replica with the given executor."""

    def __init__(self, world: "World", number: int, executor: Executor, duties: Sequence[str]) -> None:
        self.signer = identity(number)
        self.chain = MemoryChain(world.genesis)
        request = b"signing request %d" % number
        digest = enrolment_digest(CHAIN_ID, FakeAuthority.fingerprint, request)

        def enrol() -> None:
            world.membership.enrol(EnrolRequest(self.signer.address, request, self.signer.sign(digest)))

        self.dialer = PipeDialer(
            lambda pipe: world.fleet.serve(pipe, keccak256(request)),
            enrol,
            FakeAuthority.fingerprint,
            keccak256(request),
        )
        self.client = SequencerClient(
            self.chain.identity,
            self.signer,
            self.dialer,
            ClientConfig(),
            capabilities=lambda: capabilities(*duties, models=self.models),
            status=lambda: WorkerStatus(self.replica.head, 0),
            now_ms=world.now_ms,
            jitter=random.Random(number),
        )
        self.replica = Replica(self.chain, executor, self.client, world.threads, monotonic_ns=lambda: 0)
        self.models: list[Model] = []
        self.failure: Exception | None = None

    async def run(self) -> None:
        """Until cancelled; an orderly failure is kept in `failure`."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.client.run())
                group.create_task(self.replica.run())
        except* (CannotJoin, ChainRejected) as error:
            self.failure = error.exceptions[0]


@dataclass
class World:
    """One sequencer with no workers yet. `folder` takes its files."""

    folder: Path
    execution_config: ExecutionConfig = field(
        default_factory=lambda: ExecutionConfig(answer_timeout_s=5.0, round_timeout_s=60.0)
    )
    fleet_config: FleetConfig = field(default_factory=lambda: FleetConfig(heartbeat_interval_ms=500))
    arbiter: Executor | None = None
    threads: InlineExecutor = field(default_factory=InlineExecutor)

    def __post_init__(self) -> None:
        self.genesis = genesis()
        self.chain = MemoryChain(self.genesis)
        self.membership = Membership(self.folder / "members.json", CHAIN_ID, FakeAuthority())
        numbers = iter(range(1, 10**9))
        self.fleet = Fleet(
            self.chain,
            self.membership,
            self.fleet_config,
            now_ms=self.now_ms,
            make_nonce=lambda: keccak256(b"nonce %d" % next(numbers)),
        )
        self.evidence = EvidenceStore(self.folder / "evidence")
        self.execution = FleetExecution(
            self.chain, self.fleet, self.evidence, self.execution_config, self.threads, self.arbiter
        )
        self.findings = Findings(
            self.chain, self.fleet, self.evidence, self.execution.vouchers, self.threads, now_ms=self.now_ms
        )
        self.catch_up = CatchUpServer(self.chain, self.fleet, CatchUpConfig(), self.threads)

    def now_ms(self) -> int:
        return START_MS + int(asyncio.get_running_loop().time() * 1000)

    def worker(self, number: int, executor: Executor | None = None, duties: Sequence[str] = ()) -> SimulatedWorker:
        return SimulatedWorker(self, number, executor or TransferExecutor(), duties)

    @contextlib.asynccontextmanager
    async def running(self, *workers: SimulatedWorker) -> AsyncIterator[None]:
        """Run workers until the block is left; all of them have joined when it is entered."""
        tasks = [asyncio.create_task(one.run()) for one in workers]
        try:
            await self.until(lambda: all(one.client.is_attached or one.failure for one in workers))
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            serving = [task for one in workers for task in one.dialer.serving]
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)

    async def until(self, holds: Callable[[], object], *, timeout_s: float = 300.0) -> None:
        """Let virtual time pass until `holds()`."""
        async with asyncio.timeout(timeout_s):
            while not holds():  # noqa: ASYNC110 - virtual time: each turn is free and nothing is missed
                await asyncio.sleep(0.01)

    def context(self) -> BlockContext:
        head = self.chain.head()
        return next_context(
            head.block.header,
            self.chain.config,
            self.hashes(),
            timestamp=head.block.header.timestamp,
            coinbase=COINBASE,
        )

    def hashes(self) -> list[bytes]:
        return [self.chain.block(number).hash for number in range(self.chain.head().number + 1)]  # type: ignore[union-attr]

    async def make_block(self, transactions: TransactionColumns) -> SealedBlock:
        """What the sequencer's production does: execute, seal, append, announce."""
        context = self.context()
        executed = await self.execution.execute(context, transactions)
        outcome = executed.outcome
        sealed = seal_block(self.chain.head(), context, transactions, outcome, executed.commitments)
        self.chain.append(sealed, outcome.receipts, outcome.difference)
        await self.execution.announce(sealed)
        return sealed
