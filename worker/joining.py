"""Where a worker's replica begins: with what is on disk, with the genesis block, or with a snapshot of the newest one.

A snapshot saves executing the chain from its beginning. It is believed as far as its block's roots go; that the block
is the chain's is the sequencer's word, which watchers re-check block by block.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol

import structlog

from core.block import decode_block, header_hash
from core.chain import SealedBlock
from core.genesis import Genesis
from core.state import StateDifference
from core.store import STATES_KEPT_DEFAULT, Replica
from protos.errors import PeerLost, UnexpectedMessage
from protos.messages import Description, SequencerMessage, SnapshotBase, SnapshotState

__all__ = ["BLOCKS_BEHIND_MAX", "SnapshotClient", "open_replica"]

BLOCKS_BEHIND_MAX = 4_096
"""A new replica that is further behind begins with a snapshot, as it does where the first blocks are not to be had."""

_log = structlog.get_logger(__name__)


class SnapshotClient(Protocol):
    """Asks the sequencer (`worker.rpc.GrpcDialer`)."""

    async def describe(self) -> Description: ...

    def snapshot(self) -> AsyncIterator[SequencerMessage]: ...


async def open_replica(
    path: Path,
    genesis: Genesis,
    client: SnapshotClient,
    *,
    states_kept: int | None = STATES_KEPT_DEFAULT,
    blocks_behind_max: int = BLOCKS_BEHIND_MAX,
) -> Replica:
    """The replica in the folder `path`, made where there is none. Begins with the genesis block when nobody answers.

    Raises PeerLost or ProtocolError when a snapshot is begun and does not come whole, BlockError when it is not what
    its block commits to, StoreError as `Replica.open` does.
    """
    if not Replica.exists(path):
        try:
            there = await client.describe()
        except PeerLost as error:
            _log.warning("beginning_without_sequencer", reason=str(error))
        else:
            if there.head.number > blocks_behind_max or there.first_block > 1:
                return await _join(path, genesis, client, states_kept)
    return await asyncio.to_thread(Replica.open, path, genesis, states_kept=states_kept)


async def _join(path: Path, genesis: Genesis, client: SnapshotClient, states_kept: int | None) -> Replica:
    messages = client.snapshot()
    base = await anext(messages)
    if not isinstance(base, SnapshotBase):
        raise UnexpectedMessage(f"a snapshot begins with SnapshotBase, not {type(base).__name__}")
    loop = asyncio.get_running_loop()

    def chunks() -> Iterator[StateDifference]:
        """The parts of the state, fetched one at a time for the thread that stores them."""
        while True:
            message = asyncio.run_coroutine_threadsafe(_next_state(messages), loop).result()
            if message.last:
                return
            yield message.difference

    def join() -> Replica:
        block = decode_block(base.block)
        sealed = SealedBlock(header_hash(block.header), block)
        _log.info("joining_at_snapshot", number=sealed.number)
        return Replica.join(path, genesis, sealed, base.receipts, base.headers, chunks(), states_kept=states_kept)

    return await asyncio.to_thread(join)


async def _next_state(messages: AsyncIterator[SequencerMessage]) -> SnapshotState:
    try:
        message = await anext(messages)
    except StopAsyncIteration:
        raise UnexpectedMessage("the snapshot ended before its last part") from None
    if not isinstance(message, SnapshotState):
        raise UnexpectedMessage(f"{type(message).__name__} came within a snapshot")
    return message
