"""The sequencer role, put together: replica, mempool, block production, workers and jobs, JSON-RPC.

Wires and runs; decides nothing. Stops on SIGTERM and SIGINT with everything acknowledged on disk.
"""

import asyncio
import signal
from contextlib import ExitStack
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Gauge

from core.genesis import load_genesis
from core.store.replica import Replica
from node.auditing import ModelAuditor
from node.client import RpcClient
from node.config import SequencerConfig
from node.disputes.prosecution import LadderProsecutor
from node.errors import ConfigError
from node.executors import make_executor
from node.keys import CertificateAuthority, IdentityKey
from node.metrics import serving
from node.paths import chain_dir, challenger_file, identity_file, keys_dir
from node.status import StatusMethods
from node.wallet import Wallet
from sequencer.coordinator.block_execution import ExecutionConfig
from sequencer.coordinator.fleet import FleetConfig
from sequencer.coordinator.jobs import JobsConfig
from sequencer.coordinator.service import Coordinator, CoordinatorConfig
from sequencer.coordinator.settlement import SettlementConfig
from sequencer.mempool import Journal
from sequencer.ports import SystemClock
from sequencer.production import ProductionSettings
from sequencer.rpc import ServerConfig
from sequencer.service import Sequencer, SequencerSettings
from worker.inference.exact.model import ExactModel, ModelStore

__all__ = ["VERSION", "SequencerNode", "run_sequencer"]

VERSION = "warpgrid/0.1.0"
_STOP_GRACE_S = 5.0  # process managers, ours among them, kill after ten seconds

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
        self._registry = registry
        config.data_dir.mkdir(parents=True, exist_ok=True)
        self._identity = IdentityKey.load_or_create(identity_file(config.data_dir))
        self._authority = CertificateAuthority.load_or_create(keys_dir(config.data_dir))
        genesis = load_genesis(config.genesis)
        folder = config.audit_models
        self._models = [ExactModel(path) for path in ModelStore(Path(folder)).models()] if folder else []
        self._chain = Replica.open(chain_dir(config.data_dir), genesis, states_kept=config.states_kept or None)
        resources.callback(self._chain.close)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        clock = SystemClock()
        executor = make_executor("cpu")
        journal = Journal(self._config.data_dir / "mempool.journal")
        coordinator = Coordinator(
            self._coordinator_config(),
            self._chain,
            self._authority,
            self._identity,
            executor,
            lambda raw: sequencer.admission.admit(raw),
            auditor=self._auditor(),
            prosecutor=self._prosecutor(),
        )
        halted = Gauge("warpgrid_sealing_halted", "1 while a watcher's finding halts sealing", registry=self._registry)
        halted.set_function(lambda: coordinator.evidence.halt() is not None)
        found = Gauge("warpgrid_block_findings", "Sealed blocks that a replica found wrong", registry=self._registry)
        found.set_function(lambda: len(coordinator.evidence.findings))
        status = StatusMethods(self._chain, coordinator, self._identity.address, clock)
        sequencer = Sequencer(
            self._chain,
            coordinator.execution,
            executor,
            clock,
            self._settings(),
            self._registry,
            journal,
            status.methods(),
        )
        try:
            await coordinator.start()
            await self._serve(sequencer, coordinator)
        finally:
            journal.close()

    async def _serve(self, sequencer: Sequencer, coordinator: Coordinator) -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, stopping.set)
        _log.info(
            "sequencer started",
            head=self._chain.head().number,
            rpc=sequencer.url,
            grpc=f"{self._config.grpc_host}:{coordinator.server.service_port}",
            fingerprint=self._authority.fingerprint.hex(),
        )
        async with asyncio.TaskGroup() as group:
            coordinating = group.create_task(coordinator.run(sequencer.producer.heads))
            running = group.create_task(sequencer.run())
            await stopping.wait()
            _log.info("sequencer stopping", head=self._chain.head().number)
            sequencer.stop()
            coordinating.cancel()
            await asyncio.wait({running}, timeout=_STOP_GRACE_S)
            running.cancel()  # a block that waits for workers which do not come is nothing that was promised to anybody

    def _auditor(self) -> ModelAuditor | None:
        return ModelAuditor(self._models, self._config.audit_units) if self._models else None

    def _prosecutor(self) -> LadderProsecutor | None:
        """Disputes from an account of its own: the operator's nonces are the settlement's."""
        if not self._models or not self._config.rpc_port:
            return None
        rpc = RpcClient(f"http://{self._config.rpc_host}:{self._config.rpc_port}")
        key = IdentityKey.load_or_create(challenger_file(self._config.data_dir))
        return LadderProsecutor(rpc, Wallet(key, rpc), self._models)

    def _coordinator_config(self) -> CoordinatorConfig:
        config = self._config
        timeout_s = config.execution_timeout_ms / 1000
        return CoordinatorConfig(
            data_dir=config.data_dir / "coordinator",
            server=ServerConfig(config.grpc_host, config.attach_port, config.grpc_port),
            fleet=FleetConfig(watchers=_addresses(config.watchers)),
            execution=ExecutionConfig(config.executors_wanted, timeout_s, 3 * timeout_s),
            jobs=JobsConfig(audit_percent=config.audit_percent),
            settlement=SettlementConfig(
                interval_s=config.settlement_interval_ms / 1000, wait_s=config.settlement_wait_ms / 1000
            ),
        )

    def _settings(self) -> SequencerSettings:
        config = self._config
        empty_interval_s = config.empty_block_interval_ms / 1000 if config.empty_block_interval_ms else None
        production = ProductionSettings(
            coinbase=self._identity.address,
            interval_s=config.block_interval_ms / 1000,
            empty_interval_s=empty_interval_s,
            transactions_max=config.block_transactions_max,
        )
        return SequencerSettings(production, config.rpc_host, config.rpc_port, VERSION, config.states_kept)


def _addresses(text: str) -> frozenset[bytes]:
    """Addresses separated by commas. Raises ConfigError."""
    try:
        found = frozenset(bytes.fromhex(one.strip().removeprefix("0x")) for one in text.split(",") if one.strip())
    except ValueError as error:
        raise ConfigError(f"`watchers` must be addresses separated by commas, not {text!r}") from error
    if any(len(one) != 20 for one in found):
        raise ConfigError(f"`watchers` must be addresses of 20 bytes, not {text!r}")
    return found
