"""Moves the money: settles finished jobs in batches, collects their payments, refunds failed jobs; as the operator.

A batch puts one root and 48 bytes a receipt on chain (`market.batches`), however long the answers are.

One transaction is on its way at a time. It is written to the log, with its bytes, before it is sent; so after a crash
the same bytes are sent again, and no job is paid twice. Which jobs are due is the job table's to say.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor as ThreadExecutor
from dataclasses import dataclass
from typing import TypeVar

import structlog

from core.chain import ChainReader
from core.chain_rules import next_base_fee
from core.errors import WarpgridError
from core.gas import TRANSACTION_GAS_MAX
from core.jobs.request import Tier
from core.signature import attach_signature
from core.transaction import (
    Transaction,
    TransactionType,
    decode_transaction,
    encode_transaction,
    signing_hash,
    transaction_hash,
)
from market.batches import BATCH_RECEIPTS_MAX, Batch
from market.contracts import ESCROW_ADDRESS, JOB_ESCROW
from protos.handshake import Signer
from sequencer.coordinator.escrow import CallFailed, MarketChain
from sequencer.coordinator.job_log import BatchDone, BatchSent, Unpayable
from sequencer.coordinator.job_table import Job
from sequencer.coordinator.jobs import JobCoordinator

__all__ = ["Settlement", "SettlementConfig"]

_GAS_MARGIN = 30_000
_GAS_MAX = 15_000_000
"""What a call may be measured to use: the rest, up to a transaction's limit, is for a state that has changed."""
_PAY_GAS = 60_000
"""An account that is credited. Not measured on the head's state: there, the challenge window may not be over yet."""
_BLOCK_TIME_MARGIN_MS = 1_000
"""Blocks carry whole seconds: one made now may be this far behind the clock."""

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SettlementConfig:
    """Every `interval_s` it is seen what is due. A batch is settled when it has `batch_max` receipts, or when its first
    was finished `wait_s` ago: the longer it waits, the fewer bytes a receipt costs. What is not mined is resent every
    `resend_s`."""

    interval_s: float = 2.0
    batch_max: int = BATCH_RECEIPTS_MAX
    wait_s: float = 0.0
    resend_s: float = 10.0
    priority_fee_wei: int = 10**9


class Settlement:
    """Runs beside a JobCoordinator.

    `submit` hands a raw transaction to the mempool, and raises WarpgridError when it is refused.
    """

    def __init__(
        self,
        coordinator: JobCoordinator,
        chain: ChainReader,
        market: MarketChain,
        operator: Signer,
        submit: Callable[[bytes], Awaitable[object]],
        config: SettlementConfig,
        threads: ThreadExecutor,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        self._coordinator = coordinator
        self._chain = chain
        self._market = market
        self._operator = operator
        self._submit = submit
        self._config = config
        self._threads = threads
        self._now_ms = now_ms
        self._sent_at_s: dict[bytes, float] = {}

    async def run(self) -> None:
        """Settle until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(self._config.interval_s)

    async def step(self) -> None:
        """Look after the transaction on its way, or begin the next one."""
        table = self._coordinator.table
        if table.batches:
            for sent in list(table.batches.values()):
                await self._follow(sent)
            return
        for tier in Tier:
            due = self._due(table.to_settle(), tier)
            if due:
                await self._begin("settle", due)
                return
        await self._in_thread(self._notice_demands)
        for job in table.to_show()[:1]:
            await self._begin("show", [job])
            return
        if not await self._pay():
            for job in table.to_refund()[:1]:
                await self._begin("refund", [job])

    async def _pay(self) -> bool:
        """Send one transaction for what may be paid now, if there is anything."""
        table, due_ms = self._coordinator.table, self._now_ms() - _BLOCK_TIME_MARGIN_MS
        payable = table.to_collect(due_ms)
        if payable:
            owners = sorted({job.terms.client for job in payable} | {job.worker for job in payable})
            await self._sign_and_send("collect", payable, _collect_call(payable, owners), _PAY_GAS * len(owners))
            return True
        shown = table.to_release(due_ms)[: self._config.batch_max]
        if shown:
            await self._sign_and_send("release", shown, _release_call(shown), 2 * _PAY_GAS * len(shown))
        return bool(shown)

    def _notice_demands(self) -> None:
        for job in list(self._coordinator.table.settled()):
            job.is_demanded = job.is_demanded or self._market.is_demanded(job.terms.job_id)

    def _due(self, finished: Sequence[Job], tier: Tier) -> list[Job]:
        """The next batch, in its order; none while it is worth waiting for more."""
        jobs = [job for job in finished if job.terms.request.tier == tier][: self._config.batch_max]
        if not jobs:
            return []
        oldest_ms = min(job.finished_at_ms for job in jobs)
        is_full = len(jobs) == self._config.batch_max
        if not is_full and self._now_ms() < oldest_ms + 1000 * self._config.wait_s:
            return []
        return sorted(jobs, key=lambda job: job.worker)

    async def _begin(self, purpose: str, jobs: Sequence[Job]) -> None:
        """Send one transaction for these jobs; where it would revert, for each of them alone, or end that job."""
        data = self._call(purpose, jobs)
        try:
            gas = await self._in_thread(lambda: self._market.check(self._operator.address, data))
        except CallFailed as error:
            if len(jobs) > 1:
                for job in jobs:
                    if not self._coordinator.table.batches:
                        await self._begin(purpose, [job])
            else:
                await self._give_up(purpose, jobs[0], str(error))
            return
        if gas > _GAS_MAX and len(jobs) > 1:  # every job another client's, say: the others come with the next batch
            await self._begin(purpose, jobs[: len(jobs) // 2])
            return
        await self._sign_and_send(purpose, jobs, data, gas)

    async def _sign_and_send(self, purpose: str, jobs: Sequence[Job], data: bytes, gas: int) -> None:
        raw, name = await self._in_thread(lambda: self._signed(data, gas))
        ids = tuple(job.terms.job_id for job in jobs)
        sent = BatchSent(purpose, name, raw, ids, self._now_ms())
        await self._coordinator.record(sent)
        await self._send(sent)

    async def _give_up(self, purpose: str, job: Job, reason: str) -> None:
        """A job whose transaction cannot succeed: an unsettled one is refunded next, an unrefunded one is left."""
        _log.error("unpayable", job=job.terms.job_id.hex(), purpose=purpose, reason=reason)
        await self._coordinator.record(Unpayable(job.terms.job_id, purpose, reason[:512], self._now_ms()))

    async def _follow(self, sent: BatchSent) -> None:
        done = await self._in_thread(lambda: self._outcome(sent))
        if done is not None:
            _log.info("batch_done", purpose=sent.purpose, outcome=done.outcome, jobs=len(sent.job_ids))
            self._sent_at_s.pop(sent.transaction_hash, None)
            await self._coordinator.record(done)
            return
        age_s = asyncio.get_running_loop().time() - self._sent_at_s.get(sent.transaction_hash, float("-inf"))
        if age_s >= self._config.resend_s:
            await self._send(sent)

    def _outcome(self, sent: BatchSent) -> BatchDone | None:
        """What became of a transaction, or None while it may still be mined."""
        name, now_ms = sent.transaction_hash, self._now_ms()
        # The nonce first: a transaction that is mined in between must not seem lost.
        is_nonce_used = self._account_nonce() > decode_transaction(sent.raw).nonce
        place = self._chain.find_transaction(name)
        if place is None:
            return BatchDone(name, "lost", now_ms) if is_nonce_used else None
        if not self._chain.receipts(place.number).succeeded[place.row]:
            return BatchDone(name, "reverted", now_ms)
        if sent.purpose not in ("settle", "show"):
            return BatchDone(name, "succeeded", now_ms)
        settled = self._market.settled(sent.job_ids[0])
        return BatchDone(name, "succeeded", now_ms, 1000 * settled.release_at_s, settled.batch_id)

    async def _send(self, sent: BatchSent) -> None:
        self._sent_at_s[sent.transaction_hash] = asyncio.get_running_loop().time()
        try:
            await self._submit(sent.raw)
        except WarpgridError as error:
            _log.warning("transaction_refused", purpose=sent.purpose, code=error.code, reason=str(error))

    def _signed(self, data: bytes, gas: int) -> tuple[bytes, bytes]:
        """The operator's transaction, raw, and its hash."""
        header = self._chain.head().block.header
        tx = Transaction(
            type=TransactionType.FEE_MARKET,
            chain_id=self._chain.config.chain_id,
            nonce=self._account_nonce(),
            gas_limit=min(gas + gas // 4 + _GAS_MARGIN, TRANSACTION_GAS_MAX),
            max_fee_per_gas=16 * next_base_fee(header) + self._config.priority_fee_wei,
            max_priority_fee_per_gas=self._config.priority_fee_wei,
            to=ESCROW_ADDRESS,
            value=0,
            data=data,
            y_parity=0,
            r=0,
            s=0,
        )
        signed = attach_signature(tx, self._operator.sign(signing_hash(tx)))
        return encode_transaction(signed), transaction_hash(signed)

    def _call(self, purpose: str, jobs: Sequence[Job]) -> bytes:
        if purpose == "settle":
            return self._settle_call(jobs)
        return self._show_call(jobs[0]) if purpose == "show" else _refund_call(jobs[0])

    def _show_call(self, job: Job) -> bytes:
        inclusion = self._coordinator.inclusion(job)
        assert inclusion is not None, "a demanded receipt was settled"
        assert job.signed is not None, "a settled job has a receipt"
        signed = (job.signed.receipt.solidity(), job.signed.signature)
        return JOB_ESCROW.encode_call("show", *signed, list(inclusion.proof))

    def _settle_call(self, jobs: Sequence[Job]) -> bytes:
        receipts = tuple(job.signed.receipt for job in jobs if job.signed is not None)
        assert len(receipts) == len(jobs), "a finished job has a receipt"
        batch = Batch(self._market.domain, receipts)
        return JOB_ESCROW.encode_call("settleBatch", int(batch.tier), batch.root, batch.payments)

    def _account_nonce(self) -> int:
        account = self._chain.state(self._chain.head().number).account(self._operator.address)
        return account.nonce if account is not None else 0

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _collect_call(jobs: Sequence[Job], owners: Sequence[bytes]) -> bytes:
    batch = jobs[0].batch
    assert batch is not None, "a settled job has its batch"
    return JOB_ESCROW.encode_call("collect", batch.batch_id, owners)


def _release_call(jobs: Sequence[Job]) -> bytes:
    return JOB_ESCROW.encode_call("release", [job.terms.job_id for job in jobs])


def _refund_call(job: Job) -> bytes:
    return JOB_ESCROW.encode_call("refund", job.terms.job_id)
