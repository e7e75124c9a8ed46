"""Names to executors: the one place that knows every implementation of `core.execution.Executor`."""

from collections.abc import Callable, Mapping

from core.execution import Executor
from node.errors import ConfigError
from worker.evm.native_executor import NativeExecutor
from worker.evm.reference import ReferenceExecutor

__all__ = ["EXECUTORS", "make_executor"]

EXECUTORS: Mapping[str, Callable[[], Executor]] = {
    "reference": ReferenceExecutor,
    "cpu": lambda: NativeExecutor(fallback=ReferenceExecutor()),
}


def make_executor(name: str) -> Executor:
    """The executor of this name. Raises ConfigError naming those that there are."""
    if name not in EXECUTORS:
        raise ConfigError(f"there is no executor `{name}`; this build has {', '.join(EXECUTORS)}")
    return EXECUTORS[name]()
