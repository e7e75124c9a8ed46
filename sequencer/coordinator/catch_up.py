"""Serves the chain to workers that are behind: blocks by number, or the newest block with its whole state.

Knows nothing of execution: a worker executes what it is sent and believes only what comes out.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor as ThreadExecutor
from dataclasses import dataclass
from typing import Protocol

from core.block import Header, encode_block
from core.chain import ChainReader
from core.state import StateDifference
from protos.errors import UnexpectedMessage
from protos.messages import BLOCKS_MAX, Blocks, GetBlocks, SnapshotBase, SnapshotState
from sequencer.coordinator.errors import QueueFull
from sequencer.coordinator.fleet import Fleet, Member

__all__ = ["CatchUpConfig", "CatchUpServer", "SnapshotServer", "SnapshotSource"]

_SNAPSHOT_RETRY_MS = 5_000


@dataclass(frozen=True, slots=True)
class CatchUpConfig:
    """A message holds as many blocks as fit into `message_bytes_max`, and at least one."""

    message_bytes_max: int = 4 * 1024 * 1024
    served_at_once_max: int = 4
    snapshots_at_once_max: int = 2


class CatchUpServer:
    """Answers GetBlocks. One request of a worker at a time, a few workers at once."""

    def __init__(self, chain: ChainReader, fleet: Fleet, config: CatchUpConfig, threads: ThreadExecutor) -> None:
        self._chain = chain
        self._fleet = fleet
        self._config = config
        self._threads = threads
        self._slots = asyncio.Semaphore(config.served_at_once_max)
        self._serving: dict[bytes, asyncio.Task[None]] = {}
        fleet.on(GetBlocks, self._on_get_blocks)

    async def _on_get_blocks(self, member: Member, request: GetBlocks) -> None:
        if not 1 <= request.count_max <= BLOCKS_MAX:
            raise UnexpectedMessage(f"count_max is {request.count_max}, expected 1 to {BLOCKS_MAX}")
        if member.address in self._serving:
            raise UnexpectedMessage("blocks were asked for before the last request was answered")
        task = asyncio.create_task(self._serve(member, request))
        self._serving[member.address] = task
        task.add_done_callback(lambda _: self._serving.pop(member.address, None))

    async def _serve(self, member: Member, request: GetBlocks) -> None:
        async with self._slots:
            loop = asyncio.get_running_loop()
            blocks = await loop.run_in_executor(self._threads, self._read, request.first, request.count_max)
        await member.post(Blocks(request.request_id, blocks, self._fleet.head()))

    def _read(self, first: int, count_max: int) -> tuple[bytes, ...]:
        blocks: list[bytes] = []
        size = 0
        for number in range(first, first + count_max):
            sealed = self._chain.block(number)
            if sealed is None:
                break
            raw = encode_block(sealed.block)
            size += len(raw)
            if blocks and size > self._config.message_bytes_max:
                break
            blocks.append(raw)
        return tuple(blocks)


class SnapshotSource(ChainReader, Protocol):
    """A chain that can give a whole state away (`core.store`)."""

    def ancestors(self, number: int) -> tuple[Header, ...]:
        """The headers of up to 256 blocks below block `number`, its parent's last."""

    def snapshot(self, number: int) -> Iterator[StateDifference]:
        """The state of a block in tables below 1 MiB. Raises StatePruned, also on the way."""


class SnapshotServer:
    """Sends the newest block and its state to whoever begins a replica."""

    def __init__(self, chain: SnapshotSource, config: CatchUpConfig, threads: ThreadExecutor) -> None:
        self._chain = chain
        self._config = config
        self._threads = threads
        self._serving = 0

    async def messages(self) -> AsyncIterator[SnapshotBase | SnapshotState]:
        """A snapshot's messages, read as fast as they are taken.

        Raises QueueFull when enough are being sent, StatePruned when the reader is slower than the states are kept.
        """
        if self._serving >= self._config.snapshots_at_once_max:
            raise QueueFull(f"{self._serving} snapshots are being sent; try again later", _SNAPSHOT_RETRY_MS)
        self._serving += 1
        loop = asyncio.get_running_loop()
        try:
            base, states = await loop.run_in_executor(self._threads, self._begin)
            yield base
            while (state := await loop.run_in_executor(self._threads, next, states, None)) is not None:
                yield SnapshotState(state, last=False)
            yield SnapshotState(StateDifference.empty(), last=True)
        finally:
            self._serving -= 1

    def _begin(self) -> tuple[SnapshotBase, Iterator[StateDifference]]:
        head = self._chain.head()
        number = head.number
        base = SnapshotBase(encode_block(head.block), self._chain.receipts(number), self._chain.ancestors(number))
        return base, self._chain.snapshot(number)
