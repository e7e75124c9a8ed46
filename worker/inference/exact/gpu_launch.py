"""Launching kernels that may start before the one ahead of them has ended (programmatic dependent launch).

Owns the driver's launch structures. A kernel launched here is queued behind its predecessor in the stream as ever, but
the device may start its blocks as soon as all of the predecessor's have allowed it (pipeline.cuh); what it reads of the
predecessor's results it must wait for itself. A stream that captures turns such a launch into a programmatic edge of
its graph. cupy has no such launch.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from core.errors import GpuError

__all__ = ["DependentLaunch", "Launcher"]

_DRIVER: Final = "libcuda.so.1"
_ATTRIBUTE_CLUSTER_DIMENSION: Final = 4
_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION: Final = 6
_ARGUMENT_MASK: Final = (1 << 64) - 1


class _Attribute(ctypes.Structure):
    """CUlaunchAttribute."""

    _fields_ = (("id", ctypes.c_int), ("padding", ctypes.c_int), ("value", ctypes.c_int * 16))


class _Configuration(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("attribute_count", ctypes.c_uint),
    )


def _attribute(kind: int, *values: int) -> _Attribute:
    return _Attribute(kind, 0, (ctypes.c_int * 16)(*values))


class DependentLaunch(NamedTuple):
    """One kernel with everything that its launch needs; may be launched any number of times."""

    kernel: Any
    configuration: _Configuration
    parameters: ctypes.Array[ctypes.c_void_p]
    kept: tuple[Any, ...]
    """What the driver is given the address of: the values of arguments, and the arrays that some of them point to."""


class Launcher:
    """Launches kernels into one stream, given by its handle. Raises GpuError where the driver cannot be loaded."""

    def __init__(self, stream: int) -> None:
        self._stream = stream
        try:
            self._launch: Callable[..., int] = ctypes.CDLL(_DRIVER).cuLaunchKernelEx
        except (OSError, AttributeError) as error:
            raise GpuError(f"{_DRIVER} has no cuLaunchKernelEx: update the NVIDIA driver ({error})") from error

    def prepare(
        self,
        kernel: Any,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        shared_bytes: int,
        cluster: int,
    ) -> DependentLaunch:
        """`kernel` is cupy's; arguments are cupy arrays or numpy integers of at most 64 bits.

        `cluster` blocks of the grid's last axis go together (1: as the kernel was compiled).
        """
        values = (ctypes.c_uint64 * len(arguments))(*map(_argument, arguments))
        first = ctypes.addressof(values)
        parameters = (ctypes.c_void_p * len(arguments))(*(first + 8 * index for index in range(len(arguments))))
        sizes = [(ctypes.c_uint * 3)(*shape, *(1,) * (3 - len(shape))) for shape in (grid, block)]
        wanted = [_attribute(_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, 1)]
        if cluster > 1:
            wanted.append(_attribute(_ATTRIBUTE_CLUSTER_DIMENSION, 1, 1, cluster))
        attributes = (_Attribute * len(wanted))(*wanted)
        configuration = _Configuration(*sizes, shared_bytes, self._stream, attributes, len(wanted))
        return DependentLaunch(kernel, configuration, parameters, (values, attributes, *arguments))

    def launch(self, prepared: DependentLaunch) -> None:
        """Queue the kernel. Raises GpuError with the driver's status when it refuses."""
        handle = ctypes.c_void_p(prepared.kernel.kernel.ptr)
        status = self._launch(ctypes.byref(prepared.configuration), handle, prepared.parameters, None)
        if status != 0:
            raise GpuError(f"the driver refused to launch {prepared.kernel.name} (status {status})")


def _argument(value: Any) -> int:
    """The eight bytes, little-endian, that hold an argument: an array's address, or a number (padded)."""
    return int(value) & _ARGUMENT_MASK if isinstance(value, np.integer) else int(value.data.ptr)
