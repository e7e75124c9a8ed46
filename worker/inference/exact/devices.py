"""Where an exact model runs: on the CPU, or on a GPU where there is one that can.

Owns the choice and the reasons for it. The bytes are the same everywhere (docs/exact-inference.md), so the choice is
one of speed alone.
"""

from enum import StrEnum
from pathlib import Path
from typing import Final

from core.errors import GpuError
from core.gpu import Device
from worker.inference.errors import EngineUnavailable
from worker.inference.exact.batching import Executor
from worker.inference.exact.gpu import GpuEngine
from worker.inference.exact.native import NativeEngine
from worker.inference.exact.reference import Weights

__all__ = ["CPU_ROWS_MAX", "GPU_ROWS_MAX", "KERNELS_DIR", "DeviceChoice", "open_executor"]

CPU_ROWS_MAX: Final = 128
GPU_ROWS_MAX: Final = 2_048
KERNELS_DIR: Final = Path(".warpgrid/kernels")
"""Where kernels that were compiled at first use are kept."""


class DeviceChoice(StrEnum):
    """AUTO takes a GPU that can run the exact kernels and has room for the model, else the CPU."""

    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"


def open_executor(
    weights: Weights,
    choice: DeviceChoice,
    *,
    threads: int = 0,
    rows_max: int = 0,
    pages: int,
    device: Device | None = None,
) -> Executor:
    """The model, ready to run. `rows_max` 0 takes what suits the device; `device` is the first GPU if left out.

    Raises EngineUnavailable, saying why, when what was chosen cannot run it: for GPU no driver, no cupy, no GPU,
    another architecture, a driver that cannot load the kernels, or too little memory.
    """
    if choice != DeviceChoice.CPU:
        gpu = device or Device(0, KERNELS_DIR)
        try:
            return GpuEngine(weights, gpu, rows_max=rows_max or GPU_ROWS_MAX, pages=pages)
        except (GpuError, EngineUnavailable) as error:
            if choice == DeviceChoice.GPU:
                raise EngineUnavailable(f"no exact engine on the GPU: {error}; `cpu` runs anywhere") from error
    return NativeEngine(weights, threads=threads, rows_max=rows_max or CPU_ROWS_MAX, pages=pages)
