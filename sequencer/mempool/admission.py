"""The door of the mempool: a transaction is acknowledged once the mempool has taken it and the journal holds it."""

import structlog

from core.errors import TransactionError
from core.transaction import encode_transaction
from sequencer.errors import MempoolError
from sequencer.mempool.journal import Journal
from sequencer.mempool.pool import Mempool

__all__ = ["Admission"]

_log = structlog.get_logger(__name__)


class Admission:
    """Admits transactions to `mempool`. Without a journal (a node that promises nothing) admission is not durable."""

    def __init__(self, mempool: Mempool, journal: Journal | None = None) -> None:
        self._mempool = mempool
        self._journal = journal

    async def admit(self, raw: bytes) -> bytes:
        """The hash of the admitted transaction; from now on a crash does not lose it.

        Raises what `Mempool.add` raises, and OSError when the journal cannot be written.
        """
        transaction_hash = self._mempool.add(raw)
        if self._journal is not None:
            await self._journal.append(raw)
            if self._journal.wants_compaction:
                await self._journal.rewrite(self._wanted())
        return transaction_hash

    async def restore(self) -> int:
        """Take what the journal recovered back into the mempool; answers how many still wait for a block."""
        if self._journal is None:
            return 0
        restored = 0
        for raw in self._journal.recovered:
            try:
                self._mempool.add(raw)
                restored += 1
            except (MempoolError, TransactionError) as error:  # most often: a block has it already
                _log.debug("journalled transaction not wanted", reason=str(error))
        self._journal.recovered.clear()
        await self._journal.rewrite(self._wanted())
        return restored

    def _wanted(self) -> list[bytes]:
        entries = [one for content in self._mempool.content() for one in (*content.pending, *content.queued)]
        return [encode_transaction(one.transaction) for one in sorted(entries, key=lambda one: one.arrival)]
