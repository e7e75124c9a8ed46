"""Waiting for a kernel, but not for ever.

A kernel gives up rows that take too long by itself; one that stands still (lanes that wait for each other, one endless
instruction) cannot. Nothing in CUDA ends it: who waited goes on without the GPU. Knows nothing of what the kernel does.
"""

import time
from collections.abc import Callable

from worker.evm.errors import KernelStandsStill

__all__ = ["await_kernel"]

_SPIN_NS = 2_000_000
"""So long a wait takes the processor: most kernels are done, and sleeping costs as much as they do."""

_PAUSE_S, _LONG_PAUSE_S = 0.0001, 0.005
_LONG_NS = 1_000_000_000


def await_kernel(
    is_done: Callable[[], bool],
    progress: Callable[[], int],
    still_ns_max: int,
    *,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Return once `is_done`. Raises KernelStandsStill when `progress` has not changed for `still_ns_max`."""
    began = moved = looked = clock_ns()
    seen = progress()
    while not is_done():
        now = clock_ns()
        if now - began < _SPIN_NS:
            continue
        if now - looked > still_ns_max // 4:
            looked, last = now, seen
            seen = progress()
            moved = now if seen != last else moved
            if now - moved > still_ns_max:
                raise KernelStandsStill(
                    f"no row was begun for {(now - moved) / 1e9:.3g} s in a kernel that does not end: this process can "
                    "use the GPU no longer; restart it to use it again, and report the rows that are named with this"
                )
        pause(_PAUSE_S if now - began < _LONG_NS else _LONG_PAUSE_S)
