"""Transactions that wait for a block."""

from sequencer.mempool.admission import Admission
from sequencer.mempool.entry import PooledTransaction
from sequencer.mempool.journal import Journal
from sequencer.mempool.limits import MempoolLimits
from sequencer.mempool.pool import Mempool, MempoolContent, MempoolCounts

__all__ = ["Admission", "Journal", "Mempool", "MempoolContent", "MempoolCounts", "MempoolLimits", "PooledTransaction"]
