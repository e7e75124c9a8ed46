"""A JSON-RPC dispatcher over a chain in memory, with an executor that is never asked, for tests of everything else."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from core.execution import Executor
from core.genesis import Genesis, dev_genesis
from sequencer.feed import Feed
from sequencer.jsonrpc import Dispatcher, DispatcherLimits
from sequencer.jsonrpc.method import Connection
from sequencer.mempool import Admission, Mempool, MempoolLimits
from sequencer.metrics import SequencerMetrics
from sequencer.production import NewHead
from sequencer.rpc_methods import MethodLimits, Services, TestingMethods, public_methods
from tests.unit.sequencer.fakes import CHAIN_ID, ManualClock, Wallet
from tests.unit.sequencer.memory_chain import MemoryChain
from worker.evm.reference import ReferenceExecutor

__all__ = ["ALICE", "BOB", "Caller", "RpcSetting"]

ALICE, BOB = Wallet(1), Wallet(2)


@dataclass
class Caller:
    """A connection that keeps what it is told."""

    can_notify: bool = False
    told: list[Mapping[str, Any]] = field(default_factory=list)
    subscriptions: dict[str, Callable[[Connection], Awaitable[None]]] = field(default_factory=dict)

    def start_notifying(self, subscription: str, notify: Callable[[Connection], Awaitable[None]]) -> None:
        self.subscriptions[subscription] = notify

    def stop_notifying(self, subscription: str) -> bool:
        return self.subscriptions.pop(subscription, None) is not None

    async def send(self, message: Mapping[str, Any]) -> None:
        self.told.append(message)


class RpcSetting:
    """A chain at genesis with two rich accounts, and everything that answers for it."""

    def __init__(
        self,
        *,
        limits: DispatcherLimits | None = None,
        methods: MethodLimits | None = None,
        executor: Executor | None = None,
    ) -> None:
        balances = {ALICE.address: 10**21, BOB.address: 10**21}
        genesis = Genesis.from_geth(dev_genesis(CHAIN_ID, balances, {}, timestamp=1_699_999_990))
        self.chain = MemoryChain(genesis)
        self.clock = ManualClock()
        self.mempool = Mempool(CHAIN_ID, self.chain.state(0), 60_000_000, MempoolLimits(), self.clock)
        self.heads: Feed[NewHead] = Feed()
        self.services = Services(
            chain=self.chain,
            executor=executor or ReferenceExecutor(),
            mempool=self.mempool,
            admission=Admission(self.mempool),
            heads=self.heads,
            clock=self.clock,
            client_version="warpgrid/test",
            limits=methods or MethodLimits(),
        )
        table = {**public_methods(self.services), **TestingMethods(self.services).methods()}
        self.method_names = sorted(table)
        self.registry = CollectorRegistry()
        self.dispatcher = Dispatcher(table, limits or DispatcherLimits(), SequencerMetrics(self.registry))
        self.caller = Caller()

    async def answer(self, raw: bytes) -> Any:
        """The parsed response to raw bytes; None for none."""
        response = await self.dispatcher.answer(raw, self.caller)
        return None if response is None else orjson.loads(response)

    async def call(self, method: str, *params: Any) -> Any:
        """The result; fails when there is an error."""
        response = await self.answer(orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
        assert "result" in response, response
        return response["result"]

    async def fail(self, method: str, *params: Any) -> tuple[int, str]:
        """Code and message of the error."""
        response = await self.answer(orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
        assert "error" in response, response
        return response["error"]["code"], response["error"]["message"]
