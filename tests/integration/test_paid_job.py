"""A paid job on a real chain: blocks by EELS in two workers, escrow opened, answered over gRPC, audited, settled, paid.

Everything is real but the language model: keys and TLS, gRPC, the stores, the contracts, the reference executor.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
from coincurve import PrivateKey
from grpc import aio
from prometheus_client import CollectorRegistry

from core.chain_rules import context_of
from core.execution import CallRequest
from core.genesis import Genesis, Predeploy, dev_genesis
from core.jobs.receipt import ReceiptDomain
from core.jobs.request import JobRequest, Message, Role, Sampling, Tier, decode_tokens, request_hash
from core.store import Replica
from core.transaction import Transaction, TransactionType
from market.contracts import (
    ESCROW_ADDRESS,
    JOB_ESCROW,
    REGISTRY_ADDRESS,
    WORKER_REGISTRY,
    EscrowStatus,
    MarketParameters,
    predeploys,
)
from market.receipt_tree import leaf_of, root_from_proof
from node.auditing import ModelAuditor
from node.keys import CertificateAuthority, IdentityKey, SequencerPin, WorkerTls
from protos.job_messages import AnswerOpened, JobEvent, JobQuery, JobRecord, SubmitJob
from protos.rpc import decode, encode
from sequencer.coordinator.challenges import Answered, Auditor
from sequencer.coordinator.disputes import Case, Prosecutor
from sequencer.coordinator.fleet import DUTY_INFERENCE, FleetConfig
from sequencer.coordinator.job_table import Job
from sequencer.coordinator.jobs import JobsConfig
from sequencer.coordinator.service import Coordinator, CoordinatorConfig
from sequencer.coordinator.settlement import SettlementConfig
from sequencer.mempool import Mempool, MempoolLimits
from sequencer.metrics import SequencerMetrics
from sequencer.ports import SystemClock
from sequencer.production import BlockProducer, ProductionSettings
from sequencer.rpc import ServerConfig
from tests.integration.network import FleetEvents
from tests.sim.network.jobs import ScriptedEngine, request
from tests.unit.market.bindings import signed_binding
from tests.unit.sequencer.fakes import CHAIN_ID, GWEI, Wallet
from tests.unit.worker.inference.exact_models import write_model
from worker.client import ClientConfig
from worker.evm.reference import ReferenceExecutor
from worker.inference.engine import Completion, ModelDescription, Piece
from worker.inference.exact.engine import ExactEngine, ExactSettings, load_exact
from worker.inference.exact.ordering import exact_terms
from worker.inference.proof_opener import AnswerOpener
from worker.inference.proof_trace import recording
from worker.jobs import OfferedModel
from worker.rpc import DialerConfig
from worker.service import Worker, WorkerSettings

ETHER = 10**18
PARAMETERS = MarketParameters(
    arbiter=b"\x0a" * 20,
    stake_min_wei=ETHER,
    challenge_seconds=1,
    exact_challenge_seconds=1,
    settlement_seconds=600,
    unbonding_seconds=3600,
)


def make_genesis(*funded: bytes) -> Genesis:
    contracts = {
        address: Predeploy(one.code, one.storage, one.balance_wei) for address, one in predeploys(PARAMETERS).items()
    }
    balances_wei = dict.fromkeys(funded, 1000 * ETHER)
    return Genesis.from_geth(dev_genesis(CHAIN_ID, balances_wei, contracts, timestamp=int(time.time())))


class KeyWallet(Wallet):
    """A wallet whose key is a node's."""

    def __init__(self, identity: IdentityKey) -> None:
        self._key = PrivateKey(identity.secret)
        self.address = identity.address


class PaidNetwork:
    """Sequencer, two workers with engines (`offered` each), and a client with money. Every answer is audited."""

    def __init__(
        self,
        folder: Path,
        offered: Sequence[OfferedModel],
        auditor: Auditor | None = None,
        prosecutor: Prosecutor | None = None,
    ) -> None:
        self.folder = folder
        self.offered = offered
        self.client = Wallet(0)
        self.operator = IdentityKey.load_or_create(folder / "operator.key")
        self.identities = [IdentityKey.load_or_create(folder / f"worker-{n}" / "identity.key") for n in range(2)]
        funded = (self.client.address, self.operator.address, *(one.address for one in self.identities))
        self.genesis = make_genesis(*funded)
        self.chain = Replica.open(folder / "sequencer", self.genesis)
        head = self.chain.head()
        clock = SystemClock()
        self.mempool = Mempool(CHAIN_ID, self.chain.state(0), 60_000_000, MempoolLimits(), clock)
        self.authority = CertificateAuthority.load_or_create(folder / "sequencer-keys")
        config = CoordinatorConfig(
            folder / "coordinator",
            server=ServerConfig(attach_port=0, service_port=0, stop_grace_s=0.5),
            fleet=FleetConfig(heartbeat_interval_ms=200),
            jobs=JobsConfig(audit_percent=100),
            settlement=SettlementConfig(interval_s=0.05),
        )
        self.coordinator = Coordinator(
            config,
            self.chain,
            self.authority,
            self.operator,
            ReferenceExecutor(),
            self._submit,
            auditor=auditor,
            prosecutor=prosecutor,
        )
        self.events = FleetEvents(self.coordinator.fleet)
        settings = ProductionSettings(coinbase=b"\x0c" * 20, interval_s=0.05, empty_interval_s=60.0)
        self.producer = BlockProducer(
            self.chain, self.coordinator.execution, self.mempool, clock, settings, SequencerMetrics(CollectorRegistry())
        )
        assert head.number == 0

    async def _submit(self, raw: bytes) -> None:
        self.mempool.add(raw)

    def worker(self, number: int) -> Worker:
        folder = self.folder / f"worker-{number}"
        settings = WorkerSettings(
            folder,
            DialerConfig("127.0.0.1", self.coordinator.server.service_port),
            ESCROW_ADDRESS,
            client=ClientConfig(backoff_min_s=0.05),
        )
        return Worker(
            settings,
            Replica.open(folder / "chain", self.genesis),
            ReferenceExecutor(),
            self.identities[number],
            WorkerTls.load_or_create(folder),
            SequencerPin(folder / "sequencer.crt"),
            [self.offered[number]],
            jitter=random.Random(number),
        )

    def call(self, wallet: Wallet, to: bytes, data: bytes, value: int = 0) -> bytes:
        """Send a transaction from a wallet; its hash."""
        tx = Transaction(
            type=TransactionType.FEE_MARKET,
            chain_id=CHAIN_ID,
            nonce=self.mempool.next_nonce(wallet.address),
            gas_limit=1_500_000,
            max_fee_per_gas=20 * GWEI,
            max_priority_fee_per_gas=GWEI,
            to=to,
            value=value,
            data=data,
            y_parity=0,
            r=0,
            s=0,
        )
        return self.mempool.add(wallet.raw(tx))

    async def mined(self, transaction_hash: bytes) -> bool:
        """Whether a transaction succeeded, once it is in a block."""
        await self.events.until(lambda: self.chain.find_transaction(transaction_hash))
        place = self.chain.find_transaction(transaction_hash)
        assert place is not None
        return bool(self.chain.receipts(place.number).succeeded[place.row])

    def read(self, function: str, *arguments: object) -> Any:
        head = self.chain.head()
        context = context_of(head.block.header, self.chain.config, (head.block.header.parent_hash,))
        data = JOB_ESCROW.encode_call(function, *arguments)
        result = ReferenceExecutor().call(
            self.chain.state(head.number), context, CallRequest(bytes(20), ESCROW_ADDRESS, 10**7, data=data)
        )
        return JOB_ESCROW.decode_result(function, result.output)

    async def stake(self, identity: IdentityKey) -> None:
        """Register a worker that signs for itself."""
        binding = signed_binding(identity.address, identity.secret, CHAIN_ID)
        member = (identity.address, bytes(32), bytes(32), "")
        data = WORKER_REGISTRY.encode_call("register", member, binding)
        assert await self.mined(self.call(KeyWallet(identity), REGISTRY_ADDRESS, data, value=2 * ETHER))

    async def open(self, nonce: int, asked: JobRequest) -> SubmitJob:
        """Fund a job in the escrow."""
        salt = bytes([nonce]) * 32
        order = (
            self.operator.address,
            bytes(20),
            int(asked.tier),
            int(time.time()) + 60,
            10_000,
            self.offered[0].engine.model.model_hash,
            request_hash(asked, salt),
            nonce,
        )
        data = JOB_ESCROW.encode_call("open", order)
        assert await self.mined(self.call(self.client, ESCROW_ADDRESS, data, value=10_000))
        return SubmitJob(self.read("jobIdOf", self.client.address, nonce), asked, salt)


async def test_a_job_is_paid(tmp_path: Path) -> None:
    network = PaidNetwork(tmp_path, [OfferedModel(ScriptedEngine(pace_s=0.001), 3, 5) for _ in range(2)])
    finished = await run_one_job(network, request())
    assert finished.signed is not None
    assert finished.signed.receipt.total_wei == 7 * 3 + 4 * 5
    assert finished.output == "The answer is 42."


class CountingAuditor(ModelAuditor):
    """Counts the openings that it found right."""

    opened = 0

    def check(self, answered: Answered, units: bytes, opened: AnswerOpened) -> str | None:
        wrong = super().check(answered, units, opened)
        self.opened += wrong is None
        return wrong


async def test_an_exact_job_is_opened_checked_again_and_paid(tmp_path: Path) -> None:
    """Two engines of one small model: the first answers and opens, the second is told the tokens and finds the root."""
    model = write_model(tmp_path / "bytes", 5)
    settings = ExactSettings(model.directory, "bytes", 2**30, cache_tokens=1024, rows_max=32, running_max=8, threads=1)
    engines = [await load_exact(settings, recording(model)) for _ in range(2)]
    auditor = CountingAuditor([model], 8)
    network = PaidNetwork(tmp_path, [OfferedModel(one, 3, 5, AnswerOpener(model, one)) for one in engines], auditor)
    asked = JobRequest("bytes", (Message(Role.USER, "What?"),), Sampling(tokens_max=12), Tier.EXACT)
    finished = await run_one_job(network, asked)
    assert auditor.opened == 1
    assert finished.signed is not None
    receipt = finished.signed.receipt
    tokens = decode_tokens(finished.answer)
    assert (receipt.tier, receipt.output_tokens) == (Tier.EXACT, len(tokens))
    assert [one.free_pages for one in engines] == [16, 16], "the workers closed them with every page back"
    apart = await load_exact(settings, recording(model))
    again = [part async for part in apart.generate(asked, b"\x01" * 32)][-1]
    await apart.close()
    assert isinstance(again, Completion)
    assert (again.trace_root, again.tokens) == (receipt.trace_root, tokens)


@asynccontextmanager
async def working(network: PaidNetwork) -> AsyncIterator[aio.Channel]:
    """The network with its workers attached and bonded, and a channel to its coordinator; ended in good order."""
    await network.coordinator.start()
    workers = [network.worker(number) for number in range(2)]
    running = [
        asyncio.create_task(network.coordinator.run(network.producer.heads)),
        asyncio.create_task(network.producer.run()),
        *(asyncio.create_task(worker.run()) for worker in workers),
    ]
    options = [("grpc.ssl_target_name_override", "sequencer.warpgrid")]
    target = f"127.0.0.1:{network.coordinator.server.service_port}"
    credentials = grpc.ssl_channel_credentials(network.authority.certificate_pem)
    try:
        await network.events.until(lambda: len(network.coordinator.fleet.members(DUTY_INFERENCE)) == 2)
        for identity in network.identities:
            await network.stake(identity)
        async with aio.secure_channel(target, credentials, options=options) as channel:
            yield channel
        head = network.chain.head().number
        await network.events.until(lambda: all(worker.replica.head.number >= head for worker in workers))
        assert not network.coordinator.fleet.refusals
    finally:
        for worker in workers:
            worker.stop()
        network.producer.stop()
        await asyncio.wait(running[1:], timeout=20)
        for task in running:
            task.cancel()
        results = await asyncio.gather(*running, return_exceptions=True)
    assert [one for one in results[1:] if one is not None] == []


async def answered(network: PaidNetwork, channel: aio.Channel, asked: JobRequest) -> Job:
    """Order and hand in one job; the coordinator's record once it is answered."""
    submit = await network.open(1, asked)
    stream = channel.unary_stream("/warpgrid.v1.Jobs/Submit")(encode(submit), timeout=60)
    events = [decode(JobEvent, raw) async for raw in stream]
    job = network.coordinator.jobs.table.jobs[submit.job_id]
    assert "".join(event.text for event in events) == job.output
    assert (events[-1].state, events[-1].answer) == ("finished", job.answer)
    return job


async def run_one_job(network: PaidNetwork, asked: JobRequest) -> Job:
    """From the workers' start to the payment; the coordinator's record of the job."""
    async with working(network) as channel:
        job = await answered(network, channel, asked)
        await network.events.until(lambda: job.state == "settled", timeout_s=60)
        query = encode(JobQuery(job.terms.job_id, b""))
        record = decode(JobRecord, await channel.unary_unary("/warpgrid.v1.Jobs/Status")(query))
        assert (record.state, record.audit, record.output) == ("settled", "agreed", None)
        assert record.receipt is not None
        paid_wei = record.receipt.receipt.total_wei
        await network.events.until(lambda: network.read("creditWei", record.worker), timeout_s=60)
        assert network.read("creditWei", record.worker) == paid_wei
        assert network.read("creditWei", network.client.address) == 10_000 - paid_wei
    return job


@dataclass
class LyingEngine:
    """An exact engine's answers, under a trace root that is not theirs."""

    honest: ExactEngine

    @property
    def model(self) -> ModelDescription:
        return self.honest.model

    async def generate(
        self, request: JobRequest, salt: bytes | None = None, expected: Sequence[int] = ()
    ) -> AsyncGenerator[Piece | Completion, None]:
        async for part in self.honest.generate(request, salt, expected):
            yield replace(part, trace_root=b"\x0b" * 32) if isinstance(part, Completion) else part

    async def close(self) -> None:
        await self.honest.close()


class RecordingProsecutor:
    """Takes every case, and says that it won."""

    def __init__(self) -> None:
        self.cases: list[Case] = []

    def would_win(self, case: Case) -> bool:
        return True

    def advance(self, case: Case) -> bool:
        self.cases.append(case)
        return True


async def test_a_wrong_exact_answer_is_settled_to_be_disputed(tmp_path: Path) -> None:
    """The coordinator's own way, over gRPC: openings that do not fit the root, a verdict, a settled receipt, a case
    whose receipt and proof are those on chain. The dispute itself is played in test_dispute.py."""
    model = write_model(tmp_path / "model", 5)
    settings = ExactSettings(model.directory, "bytes", 2**30, cache_tokens=1024, rows_max=32, running_max=8, threads=1)
    engines = [await load_exact(settings, recording(model)) for _ in range(2)]
    prosecutor = RecordingProsecutor()
    offered = [OfferedModel(LyingEngine(one), 3, 5, AnswerOpener(model, one)) for one in engines]
    network = PaidNetwork(tmp_path, offered, ModelAuditor([model], 8), prosecutor)
    asked = JobRequest("bytes", (Message(Role.USER, "What?"),), Sampling(tokens_max=6), Tier.EXACT)
    asked = replace(asked, exact=exact_terms(model, asked, b"\x01" * 32))
    async with working(network) as channel:
        job = await answered(network, channel, asked)
        await network.events.until(lambda: job.state == "refunded", timeout_s=60)
        ((case,), read) = prosecutor.cases, network.read
        assert case.inclusion is not None
        leaf = leaf_of(case.signed.receipt.digest(ReceiptDomain(CHAIN_ID, ESCROW_ADDRESS)))
        root, _, size, _ = read("batches", case.inclusion.batch_id)
        assert root_from_proof(leaf, case.inclusion.index, size, case.inclusion.proof) == root
        assert read("jobOf", job.terms.job_id)[3] in (EscrowStatus.SETTLING, EscrowStatus.PAID)
        assert (job.audit, network.coordinator.jobs.table.reliability[job.worker].contradicted) == ("disagreed", 1)
