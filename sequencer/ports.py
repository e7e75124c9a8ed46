"""The seams between the sequencer and everything outside it.

Owns no behaviour: a block is executed by somebody (`BlockExecution`: the workers over gRPC, or an executor in a thread
of this process), and time comes from somewhere (`Clock`). Knows neither workers nor protobuf.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from core.chain import ChainReader
from core.chain_rules import Commitments, commitments_of
from core.errors import WarpgridError
from core.execution import BlockContext, ExecutionOutcome, Executor
from core.transaction import TransactionColumns

__all__ = [
    "BlockExecution",
    "Clock",
    "ExecutedBlock",
    "ExecutionUnavailable",
    "LocalExecution",
    "SystemClock",
]


class ExecutionUnavailable(WarpgridError):
    """Nobody can execute this block now, or those asked do not agree. The same block may be asked for again later."""

    code = "execution_unavailable"


@dataclass(frozen=True, slots=True)
class ExecutedBlock:
    """An outcome that may be sealed, and what the block's header will say of it, computed in this process."""

    outcome: ExecutionOutcome
    commitments: Commitments


class BlockExecution(Protocol):
    """Executes blocks on top of the head, and answers only with an outcome that may be sealed."""

    async def execute(self, context: BlockContext, transactions: TransactionColumns) -> ExecutedBlock:
        """Run a block on the state after block `context.number - 1`.

        `context.block_hashes[-1]` is that parent's hash. Transactions that may not be included are in the outcome's
        rejections; they are no reason to fail. Raises ExecutionUnavailable when no agreed outcome can be had now; the
        sequencer keeps the transactions and asks again. Cancelling it has no effect on the chain.
        """


class Clock(Protocol):
    """Where time comes from. Tests and simulations bring their own."""

    def time_s(self) -> int:
        """Seconds since the Unix epoch, for block timestamps."""

    def monotonic_s(self) -> float:
        """A clock that never goes back, for intervals and expiry."""

    async def sleep(self, duration_s: float) -> None:
        """Return after this long."""


class SystemClock:
    """The machine's clock."""

    def time_s(self) -> int:
        return int(time.time())

    def monotonic_s(self) -> float:
        return time.monotonic()

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s)


class LocalExecution:
    """Executes blocks by an executor in one thread of this process, so that the event loop stays free."""

    def __init__(self, chain: ChainReader, executor: Executor) -> None:
        self._chain = chain
        self._executor = executor
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="block-execution")

    async def execute(self, context: BlockContext, transactions: TransactionColumns) -> ExecutedBlock:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, context, transactions)

    def close(self) -> None:
        """Wait for the block in work, then release the thread."""
        self._thread.shutdown()

    def _run(self, context: BlockContext, transactions: TransactionColumns) -> ExecutedBlock:
        state = self._chain.state(context.number - 1)
        outcome = self._executor.execute_block(state, context, transactions)
        return ExecutedBlock(outcome, commitments_of(context, transactions, outcome, state))
