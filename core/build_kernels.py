"""Compiles every kernel source ahead of time, for the architectures of `core.gpu`, where nvcc is installed.

    python -m core.build_kernels [--architectures sm_90 ...] [SOURCE.cu ...]

Nobody needs it: a kernel without a cubin is compiled by NVRTC at first use. Sources are named from the tree's root.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from core.errors import GpuError
from core.gpu import ARCHITECTURES, build_ahead
from core.native import SOURCE_ROOT

__all__ = ["kernel_sources", "main"]


def kernel_sources() -> list[Path]:
    """The files with entry points of kernels, in all rooms."""
    return sorted(path for room in ("core", "worker") for path in (SOURCE_ROOT / room).glob("**/native/**/*.cu"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile what the command line names; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m core.build_kernels", description=__doc__)
    parser.add_argument("sources", nargs="*", type=Path, default=kernel_sources())
    parser.add_argument("--architectures", nargs="+", default=list(ARCHITECTURES))
    parser.add_argument("--nvcc", default="nvcc")
    options = parser.parse_args(arguments)
    for source in options.sources:
        for architecture in options.architectures:
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
