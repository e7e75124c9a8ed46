"""Takes newer instructions from the native library, so that what does without them is tested on any machine."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from core import native

__all__ = ["newer_instructions"]


@contextmanager
def newer_instructions(allowed: bool) -> Iterator[None]:
    """Inside, libwarpgrid_core uses them (where this processor has them) or does without; afterwards it uses them."""
    use = native.load("warpgrid_core").warpgrid_use_newer_instructions
    use.argtypes, use.restype = [ctypes.c_uint32], None
    use(int(allowed))
    try:
        yield
    finally:
        use(1)
