"""Blocks and states as JSON-RPC names them: by tag, number or hash."""

from core.chain import ChainReader, SealedBlock
from core.state import StateReader
from sequencer.jsonrpc.errors import SERVER_ERROR, RpcError
from sequencer.jsonrpc.parameters import BlockReference

__all__ = ["ChainView"]


class ChainView:
    """Resolves block references on a chain without reorganisations.

    One sequencer orders, and a block is announced once it is on disk: so "latest", "safe" and "finalized" are the same
    block here. "pending" is that block too where a finished block is asked for; what is still waiting has no state.
    """

    def __init__(self, chain: ChainReader) -> None:
        self.chain = chain

    def find(self, reference: BlockReference) -> SealedBlock | None:
        """The block, or None when there is no such block."""
        if reference.hash is not None:
            return self.chain.block_by_hash(reference.hash)
        if reference.number is not None:
            return self.chain.block(reference.number)
        return self.chain.block(0) if reference.tag == "earliest" else self.chain.head()

    def need(self, reference: BlockReference) -> SealedBlock:
        """The block; an RpcError in geth's words when there is none."""
        sealed = self.find(reference)
        if sealed is None:
            raise RpcError(SERVER_ERROR, "header not found" if reference.hash is None else "header for hash not found")
        return sealed

    def state(self, reference: BlockReference) -> StateReader:
        """The state after the block. Raises RpcError, or StatePruned when it is no longer kept."""
        return self.chain.state(self.need(reference).number)
