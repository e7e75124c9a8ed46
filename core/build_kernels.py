"""Compiles every kernel source ahead of time, for the architectures of `core.gpu`, where nvcc is installed.

    python -m core.build_kernels [--architectures sm_90 ...] [SOURCE.cu ...]

Nobody needs it: a kernel without a cubin is compiled by NVRTC at first use. Sources are named from the tree's root. One
that other GPUs cannot run says so in a line of its own: `// only: sm_90a`.
"""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from core.errors import GpuError
from core.gpu import ARCHITECTURES, build_ahead
from core.native import SOURCE_ROOT

__all__ = ["architectures_of", "kernel_sources", "main"]

_ONLY = re.compile(r"^// only: (.+)$", re.MULTILINE)


def kernel_sources() -> list[Path]:
    """The files with entry points of kernels, in all rooms."""
    return sorted(path for room in ("core", "worker") for path in (SOURCE_ROOT / room).glob("**/native/**/*.cu"))


def architectures_of(source: Path) -> list[str]:
    """What a source is compiled for."""
    only = _ONLY.search(source.read_text())
    return only[1].split() if only else list(ARCHITECTURES)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile what the command line names; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m core.build_kernels", description=__doc__)
    parser.add_argument("sources", nargs="*", type=Path, default=kernel_sources())
    parser.add_argument("--architectures", nargs="+", help="default: all that a source can run on")
    parser.add_argument("--nvcc", default="nvcc")
    options = parser.parse_args(arguments)
    for source in options.sources:
        for architecture in options.architectures or architectures_of(source):
            started = time.monotonic()
            try:
                (built,) = build_ahead(source, [architecture], nvcc=options.nvcc)
            except GpuError as error:
                print(error, file=sys.stderr)  # noqa: T201
                return 1
            print(f"{built.name}  {time.monotonic() - started:.0f} s", flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
