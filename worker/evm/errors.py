"""The errors of `worker.evm`.

WarpgridError
└── EvmError                    the engine cannot run this input here
    ├── ForkNotSupported        rules that the engine does not know; another executor may
    ├── EngineLimit             a transaction needs more memory than the engine was given
    └── KernelStandsStill       a GPU works on, and no row gets any further
"""

from core.errors import WarpgridError

__all__ = ["EngineLimit", "EvmError", "ForkNotSupported", "KernelStandsStill"]


class EvmError(WarpgridError):
    code = "evm"


class ForkNotSupported(EvmError):
    code = "fork_not_supported"


class EngineLimit(EvmError):
    code = "engine_limit"


class KernelStandsStill(EvmError):
    code = "kernel_stands_still"
