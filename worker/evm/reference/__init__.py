"""The reference EVM: EELS, the Ethereum Foundation's executable specification, as an executor."""

from worker.evm.reference.executor import ReferenceExecutor

__all__ = ["ReferenceExecutor"]
