"""A worker as a replica: follows the chain, executes what is proposed, and answers with what came out.

Everything that touches the chain runs in one thread of its own, in the order in which the sequencer sent it, so that
heartbeats go on while a block is executed. Believes nothing: transactions' senders are recovered anew, and every block
is executed before it is appended.
"""

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor as ThreadExecutor
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeVar

import structlog

from core.block import decode_block, header_hash
from core.chain import Chain, SealedBlock
from core.chain_rules import (
    BLOCK_HASHES_MAX,
    Commitments,
    check_block,
    commitments_of,
    context_of,
    seal_block,
    validate_header,
)
from core.errors import BlockError, TransactionError
from core.execution import BlockContext, ExecutionOutcome, Executor
from core.signature import recover_senders
from core.store.identity import ChainIdentity
from core.transaction import TransactionColumns, transaction_hash
from protos.messages import (
    BLOCKS_MAX,
    AnnounceBlock,
    BlockAnswer,
    BlockBody,
    BlockFinding,
    BlockReference,
    BlockRefusal,
    Blocks,
    ExecuteBlock,
    FindingKept,
    GetBlocks,
    WorkerMessage,
)
from worker.client import SequencerClient
from worker.errors import ChainRejected
from worker.evm.native_executor import NativeExecutor

__all__ = ["Replica", "ReplicaChain"]

_INBOX_MAX = 64
_EXECUTIONS_REMEMBERED = 4
_TESTIMONY_TIMEOUT_S = 60.0

_log = structlog.get_logger(__name__)
_Message = ExecuteBlock | AnnounceBlock | Blocks | FindingKept | BlockReference  # the last: attached, at this head
_A = TypeVar("_A")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Execution:
    """A proposal that was executed on the block of `parent_hash`."""

    parent_hash: bytes
    context: BlockContext
    transactions: TransactionColumns
    outcome: ExecutionOutcome
    commitments: Commitments


class ReplicaChain(Chain, Protocol):
    """A chain that can say which one it is (`core.store`)."""

    @property
    def identity(self) -> ChainIdentity: ...


class Replica:
    """Keeps `chain` at the sequencer's head. `thread` must run one thing at a time.

    `monotonic_ns` times executions. Both `run` and the client's `run` must be running.
    """

    def __init__(
        self,
        chain: ReplicaChain,
        executor: Executor,
        client: SequencerClient,
        thread: ThreadExecutor,
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._chain = chain
        self._executor = executor
        self._client = client
        self._thread = thread
        self._monotonic_ns = monotonic_ns
        self._inbox: asyncio.Queue[_Message] = asyncio.Queue(_INBOX_MAX)
        self._executions: deque[_Execution] = deque(maxlen=_EXECUTIONS_REMEMBERED)
        self._request_ids = itertools.count(1)
        self._requested: int | None = None
        self._head = chain.head()
        self._hashes = deque(chain.block_hashes(self._head.number + 1), BLOCK_HASHES_MAX)
        client.on(ExecuteBlock, self._inbox.put)
        client.on(AnnounceBlock, self._inbox.put)
        client.on(Blocks, self._inbox.put)
        client.on(FindingKept, self._inbox.put)
        client.on_attached(self._on_attached)

    @property
    def head(self) -> BlockReference:
        """The newest block of this replica."""
        return BlockReference(self._head.number, self._head.hash)

    async def run(self) -> None:
        """Follow the sequencer until cancelled. Raises ChainRejected when its chain breaks the rules."""
        while True:
            message = await self._inbox.get()
            match message:
                case ExecuteBlock():
                    await self._client.post(await self._in_thread(self._answer, message))
                case AnnounceBlock():
                    await self._on_announcement(message)
                case Blocks():
                    await self._on_blocks(message)
                case BlockReference():
                    self._requested = None
                    await self._request_missing(message)

    async def _on_attached(self, sequencer_head: BlockReference) -> None:
        await self._inbox.put(sequencer_head)

    async def _in_thread(self, work: Callable[[_A], _T], argument: _A) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, argument)

    async def _on_announcement(self, announcement: AnnounceBlock) -> None:
        if announcement.header.number <= self._head.number:
            return
        if await self._in_thread(self._append_executed, announcement):
            await self._client.beat()
        else:
            await self._request_missing(BlockReference(announcement.header.number, announcement.hash))

    async def _on_blocks(self, message: Blocks) -> None:
        if message.request_id != self._requested:
            return
        self._requested = None
        for raw in message.blocks:
            finding = await self._in_thread(self._replay, raw)
            if finding is not None:
                await self._testify(finding)
        if message.blocks:
            await self._client.beat()
        elif message.head.number > self._head.number:
            raise ChainRejected(
                f"the sequencer does not have block {self._head.number + 1} any more: "
                "remove this replica's folder, and it begins anew with a snapshot"
            )
        await self._request_missing(message.head)

    async def _testify(self, finding: BlockFinding) -> NoReturn:
        """Tell the sequencer what is wrong with its chain, again whenever the stream stands anew, and go no further."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TESTIMONY_TIMEOUT_S):
                await self._client.testify(finding)
                while not isinstance(message := await self._inbox.get(), FindingKept):
                    if isinstance(message, BlockReference):
                        await self._client.testify(finding)
        raise ChainRejected(f"block {finding.block.number} of the sequencer: {finding.reason}")

    async def _request_missing(self, sequencer_head: BlockReference) -> None:
        if sequencer_head.number <= self._head.number or self._requested is not None:
            return
        self._requested = next(self._request_ids)
        await self._client.post(GetBlocks(self._requested, self._head.number + 1, BLOCKS_MAX))

    def _answer(self, proposal: ExecuteBlock) -> WorkerMessage:
        """The answer to a proposal, or why there is none."""
        if proposal.parent_hash != self._head.hash:
            detail = f"this replica is at block {self._head.number}"
            return BlockRefusal(proposal.proposal_id, "not_at_parent", detail, self.head)
        started_ns = self._monotonic_ns()
        execution = self._find_execution(proposal)
        if execution is None:
            try:
                _check_senders(proposal.transactions)
            except TransactionError as error:
                return BlockRefusal(proposal.proposal_id, "transactions_invalid", str(error)[:256], self.head)
            execution = self._execute(proposal)
            self._executions.append(execution)
        elapsed_us = (self._monotonic_ns() - started_ns) // 1000
        body = BlockBody.of(execution.outcome) if proposal.wants_body else None
        return BlockAnswer(proposal.proposal_id, execution.commitments, body, elapsed_us)

    def _find_execution(self, proposal: ExecuteBlock) -> _Execution | None:
        context = proposal.environment.context(tuple(self._hashes))
        for one in self._executions:
            same_question = (one.parent_hash, one.context) == (proposal.parent_hash, context)
            if same_question and one.transactions == proposal.transactions:
                return one
        return None

    def _execute(self, proposal: ExecuteBlock) -> _Execution:
        context = proposal.environment.context(tuple(self._hashes))
        transactions = proposal.transactions
        state = self._chain.state(self._head.number)
        outcome = self._executor.execute_block(state, context, transactions)
        commitments = commitments_of(context, transactions, outcome, state)
        return _Execution(proposal.parent_hash, context, transactions, outcome, commitments)

    def _append_executed(self, announcement: AnnounceBlock) -> bool:
        """Append the announced block if it is one that was executed here; False if it is not."""
        header = announcement.header
        for one in self._executions:
            if one.parent_hash != self._head.hash or header.parent_hash != one.parent_hash:
                continue
            sealed = seal_block(
                self._head, one.context, one.transactions, one.outcome, one.commitments, header.extra_data
            )
            if sealed.hash == announcement.hash:
                self._append(sealed, one.outcome)
                return True
        return False

    def _replay(self, raw: bytes) -> BlockFinding | None:
        """Append a block that the sequencer sent if its execution gave what its header says; what is wrong if not."""
        try:
            block = decode_block(raw)
        except (BlockError, TransactionError) as error:
            raise ChainRejected(f"block {self._head.number + 1} of the sequencer: {error}") from error
        sealed = SealedBlock(header_hash(block.header), block)
        if sealed.number <= self._head.number:
            return None
        commitments: Commitments | None = None
        try:
            validate_header(block.header, self._head.block.header, self._chain.config)
            context = context_of(
                block.header, self._chain.config, tuple(self._hashes), withdrawals=block.withdrawals or ()
            )
            state = self._chain.state(self._head.number)
            outcome = self._executor.execute_block(state, context, block.transactions)
            commitments = commitments_of(context, block.transactions, outcome, state)
            check_block(sealed, context, outcome, state)
        except (BlockError, TransactionError) as error:
            _log.error("block_rejected", number=sealed.number, reason=str(error))
            reference = BlockReference(sealed.number, sealed.hash)
            return BlockFinding(reference, str(error)[:256], commitments, self._executor.name)
        self._append(sealed, outcome)
        return None

    def _append(self, sealed: SealedBlock, outcome: ExecutionOutcome) -> None:
        self._chain.append(sealed, outcome.receipts, outcome.difference)
        if isinstance(self._executor, NativeExecutor):
            self._executor.keep(outcome.difference, sealed.block.header.state_root)
        self._head = sealed
        self._hashes.append(sealed.hash)
        self._executions.clear()


def _check_senders(transactions: TransactionColumns) -> None:
    """Raise TransactionError unless senders and hashes are those that the signatures give."""
    rows = [transactions.transaction(row) for row in range(len(transactions))]
    for row, sender in enumerate(recover_senders(rows)):
        if transactions.sender[row].tobytes() != sender:
            raise TransactionError(f"transaction {row}: the sender is not the one that signed")
        if transactions.hash[row].tobytes() != transaction_hash(rows[row]):
            raise TransactionError(f"transaction {row}: the hash is not the transaction's")
