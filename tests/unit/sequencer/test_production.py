"""Blocks from the mempool: order, limits, refusals, empty blocks, and what happens when nobody can execute."""

import asyncio
from dataclasses import dataclass, field

import numpy as np
from prometheus_client import CollectorRegistry

from core.chain_rules import commitments_of, validate_header
from core.execution import BlockContext, ExecutionOutcome, Rejection, RejectionReason
from core.genesis import Genesis, dev_genesis
from core.receipts import ReceiptColumns
from core.state import Account, AccountChange, StateDifference
from core.transaction import TransactionColumns
from sequencer.mempool import Mempool, MempoolLimits
from sequencer.metrics import SequencerMetrics
from sequencer.ports import ExecutedBlock, ExecutionUnavailable
from sequencer.production import BlockProducer, NewHead, ProductionSettings, next_gas_limit
from tests.unit.sequencer.fakes import CHAIN_ID, GWEI, ManualClock, Wallet, transfer
from tests.unit.sequencer.memory_chain import MemoryChain

ALICE, BOB = Wallet(1), Wallet(2)
COINBASE = b"\xc0" * 20


@dataclass
class ScriptedExecution:
    """Includes what it is not told to refuse; what is included raises its sender's nonce and uses all its gas."""

    chain: MemoryChain
    refused: dict[bytes, RejectionReason] = field(default_factory=dict)
    is_available: bool = True
    contexts: list[BlockContext] = field(default_factory=list)
    third_call: asyncio.Event = field(default_factory=asyncio.Event)

    async def execute(self, context: BlockContext, transactions: TransactionColumns) -> ExecutedBlock:
        self.contexts.append(context)
        if len(self.contexts) >= 3:
            self.third_call.set()
        await asyncio.sleep(0)
        if not self.is_available:
            raise ExecutionUnavailable("0 of 0 workers")
        hashes = [one.tobytes() for one in transactions.hash]
        included = [row for row, one in enumerate(hashes) if one not in self.refused]
        state = self.chain.state(context.number - 1)
        changes: dict[bytes, AccountChange] = {}
        for row in included:
            sender = transactions.sender[row].tobytes()
            account = state.account(sender)
            assert account is not None
            changes[sender] = AccountChange(Account(int(transactions.nonce[row]) + 1, account.balance - 1))
        gas = [int(transactions.gas_limit[row]) for row in included]
        outcome = ExecutionOutcome(
            included=np.array(included, "<u4"),
            rejections=tuple(
                Rejection(row, self.refused[one], "scripted") for row, one in enumerate(hashes) if one in self.refused
            ),
            receipts=ReceiptColumns.from_rows([(2, True, used, ()) for used in gas]),
            difference=StateDifference.from_changes(changes),
            gas_used=sum(gas),
            blob_gas_used=0,
        )
        return ExecutedBlock(outcome, commitments_of(context, transactions, outcome, state))


@dataclass
class Setting:
    """Everything around one producer."""

    settings: ProductionSettings = field(default_factory=lambda: ProductionSettings(COINBASE))

    def __post_init__(self) -> None:
        balances = {ALICE.address: 10**20, BOB.address: 10**20}
        genesis = Genesis.from_geth(dev_genesis(CHAIN_ID, balances, {}, timestamp=1_699_999_990))
        self.chain = MemoryChain(genesis)
        self.clock = ManualClock()
        self.mempool = Mempool(CHAIN_ID, self.chain.state(0), 60_000_000, MempoolLimits(), self.clock)
        self.execution = ScriptedExecution(self.chain)
        self.registry = CollectorRegistry()
        metrics = SequencerMetrics(self.registry)
        self.producer = BlockProducer(self.chain, self.execution, self.mempool, self.clock, self.settings, metrics)


async def test_a_block_takes_what_waits_and_is_announced_once_it_is_in_the_chain() -> None:
    setting = Setting()
    listening = setting.producer.heads.listen()
    hashes = [setting.mempool.add(ALICE.raw(transfer(nonce))) for nonce in range(3)]
    sealed = await setting.producer.produce(allow_empty=False)
    assert sealed is not None
    assert [one.tobytes() for one in sealed.block.transactions.hash] == hashes
    assert setting.chain.head().hash == sealed.hash
    assert len(setting.mempool) == 0
    assert [head.sealed.hash for head in listening.taken()] == [sealed.hash]
    genesis = setting.chain.block(0)
    assert genesis is not None
    validate_header(sealed.block.header, genesis.block.header, setting.chain.config)
    assert sealed.block.header.coinbase == COINBASE


async def test_nothing_waits_nothing_is_made_unless_asked() -> None:
    setting = Setting()
    assert await setting.producer.produce(allow_empty=False) is None
    assert setting.execution.contexts == []
    sealed = await setting.producer.produce(allow_empty=True)
    assert sealed is not None
    assert len(sealed.block.transactions) == 0


async def test_timestamps_never_go_back_and_may_repeat() -> None:
    setting = Setting()
    times = []
    for step_s in (0.0, 0.25, 0.25, 1.0, -5.0):
        setting.clock.now_s += step_s
        sealed = await setting.producer.produce(allow_empty=True)
        assert sealed is not None
        times.append(sealed.block.header.timestamp)
    assert times == [1_700_000_000] * 3 + [1_700_000_001] * 2


async def test_a_refused_transaction_leaves_the_block_and_the_mempool() -> None:
    setting = Setting()
    good = setting.mempool.add(ALICE.raw(transfer(0)))
    bad = setting.mempool.add(BOB.raw(transfer(0)))
    after_bad = setting.mempool.add(BOB.raw(transfer(1)))
    setting.execution.refused = {
        bad: RejectionReason.SENDER_NOT_EOA,
        after_bad: RejectionReason.NONCE_TOO_HIGH,
    }
    sealed = await setting.producer.produce(allow_empty=False)
    assert sealed is not None
    assert [one.tobytes() for one in sealed.block.transactions.hash] == [good]
    assert bad not in setting.mempool
    assert after_bad in setting.mempool, "it only came too early"
    assert setting.mempool.counts().queued == 1
    assert setting.registry.get_sample_value("warpgrid_rejections_total", {"reason": "sender_not_eoa"}) == 1


async def test_only_refused_transactions_make_no_block_and_do_not_stop_the_chain() -> None:
    setting = Setting()
    setting.execution.refused = {setting.mempool.add(ALICE.raw(transfer(0))): RejectionReason.SENDER_NOT_EOA}
    assert await setting.producer.produce(allow_empty=False) is None
    assert len(setting.mempool) == 0
    setting.mempool.add(BOB.raw(transfer(0)))
    assert await setting.producer.produce(allow_empty=False) is not None


async def test_without_execution_transactions_stay() -> None:
    setting = Setting()
    setting.mempool.add(ALICE.raw(transfer(0)))
    setting.execution.is_available = False
    task = asyncio.create_task(setting.producer.run())
    await setting.execution.third_call.wait()
    assert setting.producer.waits_because == "0 of 0 workers"
    assert len(setting.mempool) == 1
    setting.execution.is_available = True
    listening = setting.producer.heads.listen()
    async for head in listening:
        assert len(head.sealed.block.transactions) == 1
        break
    setting.producer.stop()
    await task
    assert setting.producer.waits_because is None


async def test_blocks_on_arrival_and_empty_ones_after_a_while() -> None:
    setting = Setting(ProductionSettings(COINBASE, interval_s=None, empty_interval_s=5))
    heads: list[NewHead] = []
    listening = setting.producer.heads.listen()
    task = asyncio.create_task(setting.producer.run())
    setting.mempool.add(ALICE.raw(transfer(0)))
    async for head in listening:
        heads.append(head)
        if len(heads) == 3:
            break
    setting.producer.stop()
    await task
    assert [len(head.sealed.block.transactions) for head in heads] == [1, 0, 0]
    times = [head.sealed.block.header.timestamp for head in heads]
    assert times[1] - times[0] >= 5
    assert times[2] - times[1] >= 5


async def test_count_limit() -> None:
    setting = Setting(ProductionSettings(COINBASE, transactions_max=2))
    for nonce in range(3):
        setting.mempool.add(ALICE.raw(transfer(nonce)))
    sealed = await setting.producer.produce(allow_empty=False)
    assert sealed is not None
    assert len(sealed.block.transactions) == 2
    assert len(setting.mempool) == 1


async def test_base_fee_follows_the_parent() -> None:
    setting = Setting()
    setting.mempool.add(ALICE.raw(transfer(0)))
    await setting.producer.produce(allow_empty=True)
    await setting.producer.produce(allow_empty=True)
    first, second = (context.base_fee_per_gas for context in setting.execution.contexts)
    assert first == GWEI * 7 // 8
    assert second < first


def test_gas_limit_moves_towards_its_target() -> None:
    header = Setting().chain.head().block.header
    assert next_gas_limit(header, 60_000_000) == 60_000_000
    assert next_gas_limit(header, 90_000_000) == 60_000_000 + 60_000_000 // 1_024 - 1
    assert next_gas_limit(header, 30_000_000) == 60_000_000 - 60_000_000 // 1_024 + 1
    assert next_gas_limit(header, 60_000_010) == 60_000_010
