"""The sequencer role, put together: replica, mempool, block production, workers and jobs, JSON-RPC.

Wires and runs; decides nothing. Stops on SIGTERM and SIGINT with everything acknowledged on disk.
"""

import asyncio
import signal
from contextlib import ExitStack
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from core.genesis import load_genesis
from core.store.replica import Replica
from node.config import SequencerConfig
from node.executors import make_executor
from node.keys import CertificateAuthority, IdentityKey
from node.metrics import serving
from node.paths import chain_dir, identity_file, keys_dir
from node.status import StatusMethods
from sequencer.coordinator.block_execution import ExecutionConfig
from sequencer.coordinator.jobs import JobsConfig
from sequencer.coordinator.service import Coordinator, CoordinatorConfig
from sequencer.coordinator.settlement import SettlementConfig
from sequencer.jsonrpc.application import ApplicationLimits, JsonRpcApplication
from sequencer.jsonrpc.dispatcher import Dispatcher, DispatcherLimits
from sequencer.jsonrpc.server import JsonRpcServer
from sequencer.mempool import Admission, Journal, Mempool, MempoolLimits
from sequencer.metrics import SequencerMetrics
from sequencer.ports import SystemClock
from sequencer.production import BlockProducer, ProductionSettings
from sequencer.rpc import ServerConfig
from sequencer.rpc_methods import Services, public_methods

__all__ = ["VERSION", "SequencerNode", "run_sequencer"]

VERSION = "warpgrid/0.1.0"

_log = structlog.get_logger(__name__)


def run_sequencer(config: SequencerConfig) -> None:
    """Run until a signal. Raises WarpgridError when it cannot start."""
    registry = CollectorRegistry()
    with serving(registry, config.metrics_port), ExitStack() as resources:
        asyncio.run(SequencerNode(config, registry, resources).run())


class SequencerNode:
    """One sequencer. Files and threads are opened into `resources` and closed with it."""

    def __init__(self, config: SequencerConfig, registry: CollectorRegistry, resources: ExitStack) -> None:
        self._config = config
        self._metrics = SequencerMetrics(registry)
        self._clock = SystemClock()
        data_dir = config.data_dir
        data_dir.mkdir(parents=True, exist_ok=True)
        self._identity = IdentityKey.load_or_create(identity_file(data_dir))
        self._authority = CertificateAuthority.load_or_create(keys_dir(data_dir))
        genesis = load_genesis(config.genesis)
        self.chain = Replica.open(chain_dir(data_dir), genesis, states_kept=config.states_kept or None)
        resources.callback(self.chain.close)
        head = self.chain.head()
        self.mempool = Mempool(
            genesis.config.chain_id,
            self.chain.state(head.number),
            head.block.header.gas_limit,
            MempoolLimits(),
            self._clock,
        )
        self._journal_path: Path = data_dir / "mempool.journal"

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        journal = Journal(self._journal_path)
        try:
            await self._serve(Admission(self.mempool, journal))
        finally:
            journal.close()

    async def _serve(self, admission: Admission) -> None:
        config = self._config

        async def submit(raw: bytes) -> None:
            await admission.admit(raw)

        executor = make_executor("reference")
        coordinator = Coordinator(
            self._coordinator_config(), self.chain, self._authority, self._identity, executor, submit
        )
        producer = BlockProducer(
            self.chain, coordinator.execution, self.mempool, self._clock, self._production_settings(), self._metrics
        )
        restored = await admission.restore()
        rpc = self._json_rpc(admission, producer, coordinator)
        await coordinator.start()
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, stopping.set)
        _log.info(
            "sequencer started",
            head=self.chain.head().number,
            restored_transactions=restored,
            rpc=rpc.url,
            grpc=f"{config.grpc_host}:{coordinator.server.service_port}",
            fingerprint=self._authority.fingerprint.hex(),
        )
        async with asyncio.TaskGroup() as group:
            coordinating = group.create_task(coordinator.run(producer.heads))
            group.create_task(producer.run())
            group.create_task(rpc.run())
            await stopping.wait()
            _log.info("sequencer stopping", head=self.chain.head().number)
            producer.stop()
            rpc.stop()
            coordinating.cancel()

    def _coordinator_config(self) -> CoordinatorConfig:
        config = self._config
        timeout_s = config.execution_timeout_ms / 1000
        return CoordinatorConfig(
            data_dir=config.data_dir / "coordinator",
            server=ServerConfig(config.grpc_host, config.attach_port, config.grpc_port),
            execution=ExecutionConfig(config.executors_wanted, timeout_s, 3 * timeout_s),
            jobs=JobsConfig(audit_percent=config.audit_percent),
            settlement=SettlementConfig(interval_s=config.settlement_interval_ms / 1000),
        )

    def _production_settings(self) -> ProductionSettings:
        config = self._config
        empty_interval_s = config.empty_block_interval_ms / 1000 if config.empty_block_interval_ms else None
        return ProductionSettings(
            coinbase=self._identity.address,
            interval_s=config.block_interval_ms / 1000,
            empty_interval_s=empty_interval_s,
            transactions_max=config.block_transactions_max,
        )

    def _json_rpc(self, admission: Admission, producer: BlockProducer, coordinator: Coordinator) -> JsonRpcServer:
        services = Services(
            chain=self.chain,
            executor=make_executor("reference"),
            mempool=self.mempool,
            admission=admission,
            heads=producer.heads,
            clock=self._clock,
            client_version=VERSION,
            states_kept=self._config.states_kept,
        )
        status = StatusMethods(self.chain, self.mempool, coordinator, self._identity.address, self._clock)
        dispatcher = Dispatcher({**public_methods(services), **status.methods()}, DispatcherLimits(), self._metrics)
        limits = ApplicationLimits()
        application = JsonRpcApplication(dispatcher, limits, status.health)
        return JsonRpcServer(application, limits, self._config.rpc_host, self._config.rpc_port)
