"""The executors that the conformance suites run: one line each."""

from collections.abc import Callable, Mapping

from core.execution import Executor
from worker.evm.native_executor import NativeExecutor
from worker.evm.reference import ReferenceExecutor

__all__ = ["EXECUTORS"]

EXECUTORS: Mapping[str, Callable[[], Executor]] = {
    "reference": ReferenceExecutor,
    "cpu": lambda: NativeExecutor(fallback=ReferenceExecutor()),
}
