"""What this machine can do: processors, memory, disk, GPUs. Asks the machine; promises nothing.

GPUs are asked through NVML (nvidia-ml-py). A machine without an NVIDIA driver has none, which is no error.
"""

import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pynvml  # type: ignore[import-untyped]

from protos.messages import Capabilities, Gpu, Model

__all__ = ["Machine", "describe", "probe_gpus", "probe_machine"]

_CPU_INFO = Path("/proc/cpuinfo")
_NAME_CHARACTERS_MAX = 256


@dataclass(frozen=True, slots=True)
class Machine:
    """What was found. `disk_free_bytes` is where the data directory lies."""

    cpu_model: str
    cpu_cores: int
    memory_bytes: int
    disk_free_bytes: int
    gpus: tuple[Gpu, ...]


def probe_machine(data_dir: Path) -> Machine:
    """Ask the machine. `data_dir` must exist."""
    return Machine(
        cpu_model=_cpu_model(),
        cpu_cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        disk_free_bytes=shutil.disk_usage(data_dir).free,
        gpus=probe_gpus(),
    )


def probe_gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs that the driver knows; none where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        return tuple(_gpu(index, driver) for index in range(pynvml.nvmlDeviceGetCount()))
    finally:
        pynvml.nvmlShutdown()


def describe(
    machine: Machine,
    *,
    software: str,
    duties: Sequence[str],
    executor: str,
    models: Sequence[Model],
    job_slots: int,
) -> Capabilities:
    """What the sequencer is told."""
    return Capabilities(
        software=software,
        duties=tuple(duties),
        executor=executor,
        cpu_model=machine.cpu_model,
        cpu_cores=machine.cpu_cores,
        memory_bytes=machine.memory_bytes,
        disk_free_bytes=machine.disk_free_bytes,
        gpus=machine.gpus,
        models=tuple(models),
        job_slots=job_slots,
    )


def _gpu(index: int, driver: str) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        compute_capability=10 * major + minor,
        driver=driver,
    )


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _cpu_model() -> str:
    if _CPU_INFO.exists():
        for line in _CPU_INFO.read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()[:_NAME_CHARACTERS_MAX]
    return platform.processor() or platform.machine()
