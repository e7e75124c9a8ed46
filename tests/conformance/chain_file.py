"""A chain given as files (a genesis in geth's format, and concatenated RLP of blocks), executed block by block."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ethereum_rlp import rlp as codec

from core.block import decode_block, header_hash
from core.chain import SealedBlock
from core.chain_rules import check_block, context_of, validate_header
from core.execution import BlockContext, ExecutionOutcome
from core.genesis import Genesis
from core.memory_state import MemoryState
from core.state import StateReader
from core.transaction import TransactionColumns

__all__ = ["BlockExecutor", "ExecutedBlock", "read_blocks", "replay"]


class BlockExecutor(Protocol):
    """The part of an `Executor` that replaying uses."""

    def execute_block(
        self, state: StateReader, context: BlockContext, transactions: TransactionColumns
    ) -> ExecutionOutcome:
        """See `core.execution.Executor`."""


@dataclass(frozen=True, slots=True)
class ExecutedBlock:
    """A block, what executing it gave, and the state after it."""

    sealed: SealedBlock
    outcome: ExecutionOutcome
    state: MemoryState


def read_blocks(raw: bytes) -> Iterator[SealedBlock]:
    """The blocks of a file of concatenated RLP."""
    while raw:
        length = codec.decode_item_length(raw)
        block = decode_block(raw[:length])
        yield SealedBlock(header_hash(block.header), block)
        raw = raw[length:]


def replay(genesis: Genesis, blocks: Iterator[SealedBlock], executor: BlockExecutor) -> Iterator[ExecutedBlock]:
    """Execute `blocks` on `genesis`; raises BlockError at the first whose header does not say what came out."""
    state = MemoryState().apply(genesis.difference)
    parent, hashes = genesis.block, [genesis.block.hash]
    for sealed in blocks:
        block, header = sealed.block, sealed.block.header
        validate_header(header, parent.block.header, genesis.config)
        context = context_of(header, genesis.config, hashes, withdrawals=block.withdrawals or (), ommers=block.ommers)
        outcome = executor.execute_block(state, context, block.transactions)
        check_block(sealed, context, outcome, state)
        state = state.apply(outcome.difference)
        yield ExecutedBlock(sealed, outcome, state)
        parent = sealed
        hashes.append(sealed.hash)
