"""A sequencer in one piece: mempool, block production and JSON-RPC over a chain that its owner opened.

Owns only the wiring. The owner passes the chain, who executes blocks, who executes calls, the clock and the metrics
registry, and runs it. Coordination of workers and settlement are other services beside it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from core.chain import Chain
from core.execution import Executor
from sequencer.jsonrpc import ApplicationLimits, Dispatcher, DispatcherLimits, JsonRpcApplication, JsonRpcServer
from sequencer.jsonrpc.method import Json, Method
from sequencer.mempool import Admission, Journal, Mempool, MempoolLimits
from sequencer.metrics import SequencerMetrics
from sequencer.ports import BlockExecution, Clock
from sequencer.production import BlockProducer, ProductionSettings
from sequencer.rpc_methods import MethodLimits, Services, public_methods

__all__ = ["Sequencer", "SequencerSettings"]


@dataclass(frozen=True, slots=True)
class SequencerSettings:
    """Everything that an operator may set. `states_kept` is what the chain was opened with, 0 for all."""

    production: ProductionSettings
    host: str = "127.0.0.1"
    port: int = 8545
    client_version: str = "warpgrid/0.1.0"
    states_kept: int = 0
    mempool: MempoolLimits = field(default_factory=MempoolLimits)
    methods: MethodLimits = field(default_factory=MethodLimits)
    dispatcher: DispatcherLimits = field(default_factory=DispatcherLimits)
    application: ApplicationLimits = field(default_factory=ApplicationLimits)


class Sequencer:
    """Orders transactions and answers clients. The socket is open from the start; `run` serves it and makes blocks.

    `calls` executes what JSON-RPC asks for; `execution` executes blocks. With a `journal`, a transaction is
    acknowledged once it is on disk, and what an earlier process had acknowledged waits again before the first call is
    answered. `methods` are served beside the public ones.
    """

    def __init__(
        self,
        chain: Chain,
        execution: BlockExecution,
        calls: Executor,
        clock: Clock,
        settings: SequencerSettings,
        registry: CollectorRegistry,
        journal: Journal | None = None,
        methods: Mapping[str, Method] | None = None,
    ) -> None:
        metrics = SequencerMetrics(registry)
        head = chain.head()
        gas_limit = settings.production.gas_limit_target
        self.mempool = Mempool(chain.config.chain_id, chain.state(head.number), gas_limit, settings.mempool, clock)
        self.admission = Admission(self.mempool, journal)
        self.producer = BlockProducer(chain, execution, self.mempool, clock, settings.production, metrics)
        self.services = Services(
            chain=chain,
            executor=calls,
            mempool=self.mempool,
            admission=self.admission,
            heads=self.producer.heads,
            clock=clock,
            client_version=settings.client_version,
            limits=settings.methods,
            states_kept=settings.states_kept,
        )
        self._dispatcher = Dispatcher(
            {**public_methods(self.services), **(methods or {})}, settings.dispatcher, metrics
        )
        application = JsonRpcApplication(self._dispatcher, settings.application, self.health)
        self._server = JsonRpcServer(application, settings.application, settings.host, settings.port)

    @property
    def url(self) -> str:
        """Where JSON-RPC is served."""
        return self._server.url

    def health(self) -> tuple[bool, Mapping[str, Json]]:
        """Whether blocks can be made, and where the chain and the mempool stand."""
        counts = self.mempool.counts()
        reason = self.producer.waits_because
        return reason is None, {
            "status": "ok" if reason is None else "waiting for execution",
            "reason": reason,
            "head": self.services.chain.head().number,
            "pending": counts.pending,
            "queued": counts.queued,
        }

    async def run(self) -> None:
        """Serve and make blocks until `stop`. Raises what breaks either; the other ends then too."""
        await self.admission.restore()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._server.run())
                tasks.create_task(self.producer.run())
        finally:
            self._dispatcher.close()

    async def started(self) -> None:
        """Return once calls are answered."""
        await self._server.started()

    def stop(self) -> None:
        """Finish the current block and the calls in work; `run` returns then."""
        self.producer.stop()
        self._server.stop()
