"""The one place in `core` that touches a GPU: finds a device, compiles and caches kernels, loads and launches them.

A kernel source is a .cu file of entry points that includes headers from the source tree. Its cubin is looked for among
those built ahead of time (`build_ahead`, shipped in wheels), then in the caller's cache, and is else compiled by NVRTC,
which needs no CUDA toolkit. The name of a cubin holds a hash of the source with everything it includes, so a stale one
is never loaded; and kernels are loaded only beside a CPU library that was built from the same headers. cupy is imported
only when a device is asked for.
"""

import hashlib
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import GpuError, GpuUnavailable, SourcesDiffer
from core.native import LIBRARY_DIR, SOURCE_ROOT, built_from

__all__ = ["ARCHITECTURES", "CUBIN_DIR", "Device", "Kernels", "build_ahead", "check_same_sources", "kernel_hash"]

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
"""What is compiled ahead of time; any other architecture compiles at first use."""

CUBIN_DIR = LIBRARY_DIR / "cubin"

_OPTIONS = ("-std=c++20", "-default-device", "--device-int128", f"-I{SOURCE_ROOT}")
# nvcc makes a tree of comparisons of a large switch unless told that sparse jump tables will do; NVRTC has no such
# option, and kernels compiled at first use keep the tree (3-6 % of the EVM's speed).
_AHEAD_OPTIONS = ("-std=c++20", "-cubin", "-Xcicc", "--Xllc=-jump-table-density=1")
_THREADS_PER_BLOCK = 128
_INSUFFICIENT_DRIVER = 35  # cudaErrorInsufficientDriver
_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def kernel_hash(source: Path, definitions: Sequence[str] = ()) -> str:
    """Hash of a kernel source, all files that it includes (by paths from the source root), and -D definitions."""
    digest = hashlib.sha256()
    for path in _files_of(source):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update("\0".join(definitions).encode())
    return digest.hexdigest()[:16]


def check_same_sources(source: Path, library: str, built: Mapping[str, str]) -> None:
    """Raise SourcesDiffer unless each header that a kernel shares with a native library is the one this was built from.

    `built` holds the library's headers (`core.native.built_from`). What the two exchange in memory has no other
    witness: a pair of different sources gives wrong results, or reads where it must not.
    """
    hashes = {
        path.relative_to(SOURCE_ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in _files_of(source)
    }
    shared = hashes.keys() & built.keys()
    different = sorted(path for path in shared if hashes[path] != built[path])
    if different or not shared:
        named = ", ".join(different[:3]) or "headers that it does not tell"
        raise SourcesDiffer(
            f"the native library {library} was built from other sources than the GPU kernels of {source.name} "
            f"({named}): run `make native`, and `make cubins` where kernels are compiled ahead"
        )


def _files_of(source: Path) -> list[Path]:
    """A source and all files that it includes, sorted."""
    pending, seen = [source.resolve()], set()
    while pending:
        path = pending.pop()
        if path in seen:
            continue
        seen.add(path)
        pending += [(SOURCE_ROOT / name).resolve() for name in _INCLUDE.findall(path.read_text())]
    return sorted(seen)


def build_ahead(source: Path, architectures: Sequence[str] = ARCHITECTURES, *, nvcc: str = "nvcc") -> list[Path]:
    """Compile a kernel source with nvcc into CUBIN_DIR, one cubin an architecture; returns the files.

    Raises GpuError with the compiler's words when it fails or is not installed.
    """
    CUBIN_DIR.mkdir(parents=True, exist_ok=True)
    built = []
    for architecture in architectures:
        target = CUBIN_DIR / _cubin_name(source, architecture, ())
        command = [nvcc, *_AHEAD_OPTIONS, f"-arch={architecture}", f"-I{SOURCE_ROOT}", str(source)]
        try:
            run = subprocess.run([*command, "-o", str(target)], capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise GpuError(f"{nvcc} is not installed: leave the kernels to be compiled at first use") from error
        if run.returncode != 0:
            raise GpuError(f"{nvcc} could not compile {source.name} for {architecture}:\n{run.stderr}")
        if target.name != _cubin_name(source, architecture, ()):
            target.unlink()
            raise GpuError(f"{source.name}, or what it includes, changed while {nvcc} compiled it: run it again")
        built.append(target)
    return built


@dataclass(frozen=True, slots=True)
class Kernels:
    """The entry points of one loaded source on one device."""

    device: "Device"
    module: Any

    def launch(self, name: str, items: int, *arguments: Any, threads_per_block: int = _THREADS_PER_BLOCK) -> None:
        """Queue `name` with at least one thread for each of `items`. Arrays are cupy's; integers are passed as u64."""
        if items == 0:
            return
        values = tuple(np.uint64(value) if isinstance(value, int) else value for value in arguments)
        blocks = -(-items // threads_per_block)
        self.module.get_function(name)((blocks,), (threads_per_block,), values)


@dataclass(frozen=True)
class Device:
    """One CUDA device, with the folder (made when needed) where kernels compiled here are kept."""

    index: int
    cache_dir: Path
    _loaded: dict[str, Kernels] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def cupy(self) -> Any:
        """The cupy module, with this device made current.

        Raises GpuUnavailable, saying what to do, when cupy, the driver or the device is missing.
        """
        try:
            import cupy  # noqa: PLC0415 - optional and heavy
        except ImportError as error:
            raise GpuUnavailable("cupy is not installed: pip install 'warpgrid[gpu]'") from error
        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            if error.status == _INSUFFICIENT_DRIVER:
                raise GpuUnavailable(
                    f"the NVIDIA driver is too old for CUDA {cupy.cuda.runtime.runtimeGetVersion() // 1000}: "
                    "update it (`nvidia-smi` shows which one is installed)"
                ) from error
            raise GpuUnavailable(f"the NVIDIA driver does not answer ({error}); try `nvidia-smi`") from error
        if self.index >= count:
            raise GpuUnavailable(f"there is no GPU number {self.index}: this machine has {count}")
        cupy.cuda.Device(self.index).use()
        return cupy

    @cached_property
    def architecture(self) -> str:
        """As compilers name it, sm_90 for an H200."""
        return f"sm_{self.cupy.cuda.Device(self.index).compute_capability}"

    @cached_property
    def processors(self) -> int:
        """Streaming multiprocessors."""
        return int(self.cupy.cuda.Device(self.index).attributes["MultiProcessorCount"])

    @cached_property
    def name(self) -> str:
        """As the driver names it."""
        return str(self.cupy.cuda.runtime.getDeviceProperties(self.index)["name"].decode())

    def kernels(
        self, source: Path, definitions: Sequence[str] = (), *, library: str, architecture: str = ""
    ) -> Kernels:
        """The kernels of a source file, from a cubin where there is one, compiled (seconds to minutes) where not.

        `library` names the native library that computes the same on the CPU; raises SourcesDiffer unless both come from
        the same sources. `architecture` is the device's if left out; sm_90a, for one, allows instructions that sm_90
        does not.
        """
        key = f"{source}:{kernel_hash(source, definitions)}"
        if key not in self._loaded:
            check_same_sources(source, library, built_from(library))
            cubin = self._cubin(source, definitions, architecture or self.architecture)
            self._loaded[key] = Kernels(self, self.cupy.RawModule(path=str(cubin)))
        return self._loaded[key]

    def _cubin(self, source: Path, definitions: Sequence[str], architecture: str) -> Path:
        name = _cubin_name(source, architecture, definitions)
        ahead = CUBIN_DIR / name
        if ahead.exists():
            return ahead
        nvrtc = self.cupy.cuda.nvrtc
        major, minor = nvrtc.getVersion()
        kept = self.cache_dir / f"nvrtc-{major}.{minor}" / name
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            half_written = kept.with_suffix(".partial")
            half_written.write_bytes(_compile(nvrtc, source, architecture, definitions))
            half_written.replace(kept)
        return kept


def _cubin_name(source: Path, architecture: str, definitions: Sequence[str]) -> str:
    return f"{source.stem}-{architecture}-{kernel_hash(source, definitions)}.cubin"


def _compile(nvrtc: Any, source: Path, architecture: str, definitions: Sequence[str]) -> bytes:
    """NVRTC's cubin of a source file. Raises GpuError with the compiler's log."""
    program = nvrtc.createProgram(source.read_text(), source.name, (), ())
    options = [*_OPTIONS, f"-arch={architecture}", *(f"-D{definition}" for definition in definitions)]
    try:
        nvrtc.compileProgram(program, options)
        return bytes(nvrtc.getCUBIN(program))
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program)
        raise GpuError(f"NVRTC could not compile {source.name} for {architecture}:\n{log}") from error
    finally:
        nvrtc.destroyProgram(program)
