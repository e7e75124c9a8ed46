"""The EVM: one native source for CPUs and GPUs, and Ethereum's own specification as the reference.

`Engine` runs batches of independent transactions, or a block's one after the other; `BaseState` is what they read.
"""

from worker.evm.base_state import BaseState
from worker.evm.batch import Batch, Outcomes, block_environments
from worker.evm.engine import Engine
from worker.evm.native_executor import NativeExecutor

__all__ = ["BaseState", "Batch", "Engine", "NativeExecutor", "Outcomes", "block_environments"]
