"""Transactions that wait for a block."""

from sequencer.mempool.entry import PooledTransaction
from sequencer.mempool.limits import MempoolLimits
from sequencer.mempool.pool import Mempool, MempoolContent, MempoolCounts

__all__ = ["Mempool", "MempoolContent", "MempoolCounts", "MempoolLimits", "PooledTransaction"]
