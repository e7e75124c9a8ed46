"""Finds and loads the native libraries; knows nothing of what they compute.

Each library is written once as C++/CUDA headers under `<room>/native` and built for the CPU by CMake. They carry no
Python ABI: callers declare argument types with ctypes and pass numpy arrays by pointer.
"""

import ctypes
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from core.errors import NativeLibraryMissing

__all__ = ["LIBRARY_DIR", "SOURCE_ROOT", "built_from", "load"]

SOURCE_ROOT = Path(__file__).resolve().parents[2]
LIBRARY_DIR = Path(__file__).resolve().parent / "lib"


@cache
def load(name: str) -> ctypes.CDLL:
    """Load `lib<name>.so`, once per process: the build for BMI2 and ADX where there is one and this CPU has both.

    Raises NativeLibraryMissing when it was not built, naming the command that builds it.
    """
    path = LIBRARY_DIR / f"lib{name}.so"
    adx_path = LIBRARY_DIR / "adx" / f"lib{name}.so"
    if adx_path.exists() and {"bmi1", "bmi2", "adx"} <= _cpu_flags():
        path = adx_path
    if not path.exists():
        raise NativeLibraryMissing(f"{path} is missing: run `make native` in a checkout, or reinstall the wheel")
    return ctypes.CDLL(str(path))


@cache
def built_from(name: str) -> Mapping[str, str]:
    """SHA-256, as hex, of each header of the rooms that a library was built from, by its path from the source root.

    Empty for a library that does not tell. Raises NativeLibraryMissing as `load` does.
    """
    try:
        told = load(name).warpgrid_sources
    except AttributeError:
        return {}
    told.restype = ctypes.c_char_p
    lines = told().decode().splitlines()
    return {path: digest for path, digest in (line.split(" ") for line in lines)}


@cache
def _cpu_flags() -> frozenset[str]:
    """What Linux says the processor can do; empty where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())
