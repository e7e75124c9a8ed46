"""Making blocks: when, of what, and what follows from one.

Owns the block loop. What a valid block is, `core.chain_rules` says; who executes it, `BlockExecution`; who waits for
it, the `heads` feed. Nothing here looks inside a transaction.

Blocks come several a second while Ethereum's timestamps are whole seconds. The L2's header rule is therefore
timestamp >= the parent's (Ethereum's is >): a block carries the clock's second, as may several in a row. No execution
rule compares the two, so executors, EELS among them, need not know.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from core.block import Header
from core.chain import Chain, SealedBlock
from core.chain_rules import BLOCK_RLP_BYTES_MAX, GAS_LIMIT_MIN, next_context, seal_block
from core.execution import BlockContext, ExecutionOutcome, RejectionReason
from core.hashing import keccak256
from core.receipts import ReceiptColumns
from core.state import StateReader
from core.transaction import TransactionColumns
from sequencer.block_hashes import BlockHashes
from sequencer.feed import Feed
from sequencer.mempool import Mempool, PooledTransaction
from sequencer.metrics import SequencerMetrics
from sequencer.ports import BlockExecution, Clock, ExecutedBlock, ExecutionUnavailable

__all__ = ["BlockProducer", "NewHead", "ProductionSettings", "next_gas_limit"]

log = structlog.get_logger()

_GAS_LIMIT_BOUND_DIVISOR = 1_024
_BLOCK_OVERHEAD_BYTES_MAX = 64 * 1024
_RETRY_S = 0.25
_FOREVER_S = 3_600.0
# Refused here, but valid once an earlier transaction of the sender is in, or the base fee has fallen.
_KEPT = frozenset({RejectionReason.NONCE_TOO_HIGH, RejectionReason.FEE_BELOW_BASE_FEE})


@dataclass(frozen=True, slots=True)
class ProductionSettings:
    """When blocks are made and how large they may be.

    `interval_s` is the time between blocks while there are transactions; None makes one as soon as a transaction
    arrives. After `empty_interval_s` without any, an empty block is made, so that clients which wait for time or
    confirmations move on; None makes no empty blocks.
    """

    coinbase: bytes
    interval_s: float | None = 0.25
    empty_interval_s: float | None = 2.0
    transactions_max: int = 10_000
    gas_limit_target: int = 60_000_000
    extra_data: bytes = b"warpgrid"

    def __post_init__(self) -> None:
        assert len(self.coinbase) == 20
        assert self.interval_s is None or self.interval_s > 0
        assert self.empty_interval_s is None or self.empty_interval_s >= (self.interval_s or 0)
        assert self.transactions_max > 0
        assert self.gas_limit_target >= GAS_LIMIT_MIN


@dataclass(frozen=True, slots=True)
class NewHead:
    """A block that was sealed and is on disk, with its receipts."""

    sealed: SealedBlock
    receipts: ReceiptColumns


class BlockProducer:
    """Turns waiting transactions into blocks, one after the other.

    `heads` announces each block once it is durable. A transaction that executors refuse leaves the mempool and is
    counted; the block is made of the others. When nobody can execute now, the transactions stay and are tried again,
    and `waits_because` says why.
    """

    def __init__(
        self,
        chain: Chain,
        execution: BlockExecution,
        mempool: Mempool,
        clock: Clock,
        settings: ProductionSettings,
        metrics: SequencerMetrics,
    ) -> None:
        self.heads: Feed[NewHead] = Feed()
        self.settings = settings
        self._chain = chain
        self._execution = execution
        self._mempool = mempool
        self._clock = clock
        self._metrics = metrics
        self._hashes = BlockHashes(chain)
        self._one_at_a_time = asyncio.Lock()
        self._sealing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sealing")
        self._wake = asyncio.Event()
        self._stopping = False
        self.waits_because: str | None = None
        self._newest_s = clock.monotonic_s()
        mempool.on_admitted.append(lambda _: self._wake.set())

    async def run(self) -> None:
        """Make blocks until `stop`."""
        while not self._stopping:
            started_s = self._clock.monotonic_s()
            try:
                await self.produce(allow_empty=self._empty_is_due())
                self.waits_because = None
            except ExecutionUnavailable as error:
                self._metrics.unavailable.inc()
                if str(error) != self.waits_because:
                    log.warning("execution_unavailable", reason=str(error))
                self.waits_because = str(error)
                await self._clock.sleep(_RETRY_S)
            self._mempool.expire()
            await self._pause(started_s)
        self._sealing.shutdown()

    def stop(self) -> None:
        """Make no further block; `run` returns once the current one is finished."""
        self._stopping = True
        self._wake.set()

    async def produce(self, *, allow_empty: bool) -> SealedBlock | None:
        """Make one block now. None when there is nothing to include and `allow_empty` is not set.

        Raises ExecutionUnavailable; nothing has changed then.
        """
        async with self._one_at_a_time:
            parent = self._chain.head()
            context = self._next_context(parent)
            chosen = self._choose(context)
            if not chosen and not allow_empty:
                return None
            loop = asyncio.get_running_loop()
            candidates = await loop.run_in_executor(self._sealing, _columns_of, chosen)
            with self._metrics.execution_seconds.time():
                executed = await self._execution.execute(context, candidates)
            outcome = executed.outcome
            self._drop_rejected(chosen, outcome)
            if not len(outcome.included) and not allow_empty:
                return None
            with self._metrics.sealing_seconds.time():
                sealed, state = await loop.run_in_executor(
                    self._sealing, self._seal, parent, context, candidates, executed
                )
            self._announce(sealed, outcome, state)
            return sealed

    def _choose(self, context: BlockContext) -> list[PooledTransaction]:
        return self._mempool.best(
            context.base_fee_per_gas,
            gas_max=context.gas_limit,
            count_max=self.settings.transactions_max,
            bytes_max=BLOCK_RLP_BYTES_MAX - _BLOCK_OVERHEAD_BYTES_MAX,
        )

    def _next_context(self, parent: SealedBlock) -> BlockContext:
        header = parent.block.header
        return next_context(
            header,
            self._chain.config,
            self._hashes.before(header.number + 1),
            timestamp=max(header.timestamp, self._clock.time_s()),
            coinbase=self.settings.coinbase,
            gas_limit=next_gas_limit(header, self.settings.gas_limit_target),
            # Known to the sequencer before anybody else: unique for each block, but no source of randomness.
            prev_randao=keccak256(parent.hash),
        )

    def _seal(
        self, parent: SealedBlock, context: BlockContext, candidates: TransactionColumns, executed: ExecutedBlock
    ) -> tuple[SealedBlock, StateReader]:
        outcome = executed.outcome
        sealed = seal_block(parent, context, candidates, outcome, executed.commitments, self.settings.extra_data)
        self._chain.append(sealed, outcome.receipts, outcome.difference)
        return sealed, self._chain.state(sealed.number)

    def _drop_rejected(self, chosen: Sequence[PooledTransaction], outcome: ExecutionOutcome) -> None:
        for rejection in outcome.rejections:
            self._metrics.rejections.labels(rejection.reason.value).inc()
            if rejection.reason not in _KEPT:
                self._mempool.drop(chosen[rejection.index].hash)

    def _announce(self, sealed: SealedBlock, outcome: ExecutionOutcome, state: StateReader) -> None:
        self._mempool.follow(state, (address.tobytes() for address in outcome.difference.address))
        self._newest_s = self._clock.monotonic_s()
        self._metrics.blocks.inc()
        self._metrics.head.set(sealed.number)
        self._metrics.transactions.inc(len(outcome.included))
        self._metrics.gas.inc(outcome.gas_used)
        counts = self._mempool.counts()
        self._metrics.pending.set(counts.pending)
        self._metrics.queued.set(counts.queued)
        self.heads.publish(NewHead(sealed, outcome.receipts))

    def _empty_is_due(self) -> bool:
        empty_s = self.settings.empty_interval_s
        return empty_s is not None and self._clock.monotonic_s() - self._newest_s >= empty_s

    async def _pause(self, started_s: float) -> None:
        """Until the next block is due: the interval's end, or without one the next admission or empty block."""
        interval_s = self.settings.interval_s
        if interval_s is not None:
            await self._clock.sleep(max(0.0, started_s + interval_s - self._clock.monotonic_s()))
            return
        self._wake.clear()
        if self._stopping or self._choose(self._next_context(self._chain.head())):
            await self._clock.sleep(0)
            return
        timer = asyncio.ensure_future(self._clock.sleep(self.settings.empty_interval_s or _FOREVER_S))
        waker = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({timer, waker}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            waker.cancel()


def _columns_of(chosen: Sequence[PooledTransaction]) -> TransactionColumns:
    return TransactionColumns.from_transactions(
        [entry.transaction for entry in chosen], [entry.sender for entry in chosen]
    )


def next_gas_limit(parent: Header, target: int) -> int:
    """The gas limit after `parent` on the way to `target`: at most 1/1024 of the parent's away from it."""
    step = parent.gas_limit // _GAS_LIMIT_BOUND_DIVISOR - 1
    if parent.gas_limit < target:
        return min(parent.gas_limit + step, target)
    return max(parent.gas_limit - step, target)
