"""A device's memory that is the host's: numpy arrays and page-locked memory with the members of cupy's."""

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np

from core.columns import Array

__all__ = ["HostArray", "PinnedMemory", "here"]


class PinnedMemory(bytearray):
    """Memory of cupy's `alloc_pinned_memory`."""

    @property
    def ptr(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self))


class HostArray(np.ndarray):
    """A numpy array with the members of cupy's."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(
            ptr=self.ctypes.data, copy_to_host=self._copy_to_host, copy_to_host_async=self._copy_to_host
        )

    def set(self, values: Array) -> None:
        assert values.dtype == self.dtype
        self[...] = values

    def _copy_to_host(self, to: ctypes.c_void_p | int, size: int) -> None:
        assert size <= self.nbytes
        ctypes.memmove(to, self.ctypes.data, size)


def here(array: Any) -> HostArray:
    return np.ascontiguousarray(array).view(HostArray)
