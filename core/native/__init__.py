"""Finds and loads the native libraries; knows nothing of what they compute.

Each library is written once as C++/CUDA headers under `<room>/native` and built for the CPU by CMake. They carry no
Python ABI: callers declare argument types with ctypes and pass numpy arrays by pointer.
"""

import ctypes
from functools import cache
from pathlib import Path

from core.errors import NativeLibraryMissing

__all__ = ["LIBRARY_DIR", "SOURCE_ROOT", "load"]

SOURCE_ROOT = Path(__file__).resolve().parents[2]
LIBRARY_DIR = Path(__file__).resolve().parent / "lib"


@cache
def load(name: str) -> ctypes.CDLL:
    """Load `lib<name>.so`, once per process.

    Raises NativeLibraryMissing when it was not built, naming the command that builds it.
    """
    path = LIBRARY_DIR / f"lib{name}.so"
    if not path.exists():
        raise NativeLibraryMissing(f"{path} is missing: run `make native` in a checkout, or reinstall the wheel")
    return ctypes.CDLL(str(path))
