"""A replica that begins with a snapshot, over real gRPC between real stores; and snapshots that are not whole."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from core.chain_rules import make_block, next_context
from core.errors import BlockError
from core.execution import BlockContext
from core.store import Replica
from core.transaction import TransactionColumns
from node.keys import CertificateAuthority, IdentityKey, SequencerPin, WorkerTls
from protos.errors import PeerLost, UnexpectedMessage
from protos.messages import BlockReference, Description, SequencerMessage, SnapshotState
from sequencer.coordinator.catch_up import CatchUpConfig, SnapshotServer
from sequencer.coordinator.errors import QueueFull
from sequencer.coordinator.fleet import Fleet, FleetConfig
from sequencer.coordinator.membership import Membership
from sequencer.mempool import Mempool, MempoolLimits
from sequencer.metrics import SequencerMetrics
from sequencer.ports import ExecutedBlock, LocalExecution
from sequencer.production import BlockProducer, ProductionSettings
from sequencer.rpc import NetworkServer, ServerConfig
from tests.integration.network import now_ms
from tests.sim.network.executors import TransferExecutor
from tests.sim.network.virtual_time import InlineExecutor
from tests.sim.network.world import COINBASE, genesis, transfers
from tests.unit.sequencer.fakes import CHAIN_ID, ManualClock, Wallet
from worker.joining import open_replica
from worker.rpc import DialerConfig, GrpcDialer

BLOCKS = 6


def grow(chain: Replica, count: int) -> None:
    """Add blocks with a transfer each."""
    for _ in range(count):
        head = chain.head()
        number = head.number
        context = next_context(
            head.block.header,
            chain.config,
            chain.block_hashes(number + 1),
            timestamp=head.block.header.timestamp,
            coinbase=COINBASE,
        )
        transactions = transfers(Wallet(0), [number])
        state = chain.state(number)
        outcome = TransferExecutor().execute_block(state, context, transactions)
        chain.append(make_block(head, context, transactions, outcome, state), outcome.receipts, outcome.difference)


async def described(chain: Replica) -> Description:
    head = chain.head()
    return Description(CHAIN_ID, bytes(32), BlockReference(head.number, head.hash), 0, 0, 0, chain.first())


class Recording:
    """Executes blocks, and keeps what it was told of them."""

    def __init__(self, chain: Replica) -> None:
        self.chain = chain
        self.contexts: list[BlockContext] = []
        self._local = LocalExecution(chain, TransferExecutor())

    async def execute(self, context: BlockContext, transactions: TransactionColumns) -> ExecutedBlock:
        self.contexts.append(context)
        return await self._local.execute(context, transactions)


class Source:
    """A sequencer's end without gRPC; `spoil` changes its messages."""

    def __init__(self, chain: Replica) -> None:
        self._chain = chain
        self.server = SnapshotServer(chain, CatchUpConfig(snapshots_at_once_max=1), InlineExecutor())

    async def describe(self) -> Description:
        raise PeerLost("only snapshots here")

    async def spoil(self, messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for message in messages:
            yield message

    def snapshot(self) -> AsyncIterator[SequencerMessage]:
        return self.spoil(self.server.messages())


async def test_a_new_replica_begins_at_the_sequencers_block(tmp_path: Path) -> None:
    chain = Replica.open(tmp_path / "sequencer", genesis())
    grow(chain, BLOCKS)
    authority = CertificateAuthority.load_or_create(tmp_path / "keys")
    membership = Membership(tmp_path / "workers.json", CHAIN_ID, authority)
    fleet = Fleet(chain, membership, FleetConfig(), now_ms=now_ms)
    config = ServerConfig(attach_port=0, service_port=0, stop_grace_s=0.5)
    snapshots = SnapshotServer(chain, CatchUpConfig(), InlineExecutor())
    server = NetworkServer(config, authority, fleet, membership, None, snapshots)
    await server.start()
    dialer = GrpcDialer(
        DialerConfig("127.0.0.1", server.service_port),
        CHAIN_ID,
        IdentityKey.load_or_create(tmp_path / "identity.key"),
        WorkerTls.load_or_create(tmp_path / "worker"),
        SequencerPin(tmp_path / "sequencer.crt"),
    )
    try:
        joined = await open_replica(tmp_path / "joined", genesis(), dialer, blocks_behind_max=BLOCKS - 1)
        whole = await open_replica(tmp_path / "whole", genesis(), dialer, blocks_behind_max=BLOCKS)
    finally:
        await server.stop()
    assert joined.head().hash == chain.head().hash
    assert joined.state(BLOCKS).root == chain.state(BLOCKS).root
    assert joined.block_hashes(BLOCKS + 1) == chain.block_hashes(BLOCKS + 1)
    assert whole.head().number == 0
    grow(joined, 1)
    grow(chain, 1)
    assert joined.head().hash == chain.head().hash
    for one in (joined, whole, chain):
        one.close()


async def test_a_sequencer_that_joined_by_snapshot_goes_on_and_lets_others_join(tmp_path: Path) -> None:
    chain = Replica.open(tmp_path / "whole", genesis())
    grow(chain, BLOCKS)
    source = Source(chain)
    source.describe = lambda: described(chain)  # type: ignore[method-assign]
    joined = await open_replica(tmp_path / "joined", genesis(), source, blocks_behind_max=0)
    assert (joined.first(), joined.block(1), chain.first()) == (BLOCKS, None, 0)
    assert joined.block(0) == chain.block(0)

    whole_execution, joined_execution = Recording(chain), Recording(joined)
    for execution in (whole_execution, joined_execution):
        producer = BlockProducer(
            execution.chain,
            execution,
            Mempool(CHAIN_ID, execution.chain.state(BLOCKS), 60_000_000, MempoolLimits(), ManualClock()),
            ManualClock(),
            ProductionSettings(COINBASE),
            SequencerMetrics(CollectorRegistry()),
        )
        for _ in range(2):
            await producer.produce(allow_empty=True)
    assert joined_execution.contexts == whole_execution.contexts
    assert len(joined_execution.contexts[0].block_hashes) == BLOCKS + 1, "BLOCKHASH knows every ancestor"
    assert joined.head().hash == chain.head().hash

    second = Source(joined)
    second.describe = lambda: described(joined)  # type: ignore[method-assign]
    third = await open_replica(tmp_path / "third", genesis(), second, blocks_behind_max=10**6)
    assert third.head().hash == chain.head().hash, "blocks before the first are not to be had: it joined, too"
    assert third.block_hashes(BLOCKS + 3) == chain.block_hashes(BLOCKS + 3)
    for one in (third, joined, chain):
        one.close()


@pytest.mark.parametrize(
    ("spoiled", "failure"),
    [("cut", UnexpectedMessage), ("headless", UnexpectedMessage), ("forged", BlockError), ("empty", BlockError)],
)
async def test_a_snapshot_that_is_not_whole_leaves_nothing(
    tmp_path: Path, spoiled: str, failure: type[Exception]
) -> None:
    chain = Replica.open(tmp_path / "sequencer", genesis())
    grow(chain, BLOCKS)
    source = Source(chain)

    async def spoil(messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
        index = 0
        async for message in messages:
            index += 1
            if spoiled == "headless" and index == 1:
                continue
            if isinstance(message, SnapshotState):
                if spoiled == "cut" and message.last:
                    return
                if not message.last:
                    if spoiled == "empty":
                        continue
                    if spoiled == "forged":
                        balance = message.difference.balance.copy()
                        balance[0, 0] += 1
                        message = replace(message, difference=replace(message.difference, balance=balance))
            yield message

    source.describe = lambda: described(chain)  # type: ignore[method-assign]
    source.spoil = spoil  # type: ignore[method-assign, assignment]
    with pytest.raises(failure):
        await open_replica(tmp_path / "joined", genesis(), source, blocks_behind_max=0)
    # What was left behind is no obstacle to trying again.
    honest = Source(chain)
    honest.describe = lambda: described(chain)  # type: ignore[method-assign]
    joined = await open_replica(tmp_path / "joined", genesis(), honest, blocks_behind_max=0)
    assert joined.head().hash == chain.head().hash
    joined.close()
    chain.close()


async def test_without_a_sequencer_a_replica_begins_at_genesis(tmp_path: Path) -> None:
    chain = Replica.open(tmp_path / "sequencer", genesis())
    begun = await open_replica(tmp_path / "begun", genesis(), Source(chain), blocks_behind_max=0)
    assert begun.head().hash == genesis().block.hash
    begun.close()
    chain.close()


async def test_too_many_snapshots_at_once_are_refused(tmp_path: Path) -> None:
    chain = Replica.open(tmp_path / "sequencer", genesis())
    server = Source(chain).server
    first = server.messages()
    await anext(first)
    with pytest.raises(QueueFull):
        await anext(server.messages())
    await first.aclose()  # type: ignore[attr-defined]
    await asyncio.wait_for(anext(server.messages()), 10)
    chain.close()
