"""The kernel that hashes traces, on threads of the host, behind the class that launches it: every root is the one that
docs/trace.md defines, however positions are dealt out to blocks. On a GPU the same is test_devices.py's.
"""

import ctypes
import os
import shutil
import subprocess
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core.hashing import keccak256
from core.native import SOURCE_ROOT
from tests.unit.worker.host_arrays import PinnedMemory, here
from tests.unit.worker.inference.random_models import BASE_HEADER
from worker.inference.exact.gpu_trace import TraceHasher

NATIVE = Path(__file__).parent / "native"
SOURCE = SOURCE_ROOT / "worker" / "inference" / "native" / "gpu" / "trace.cu"
DYNAMIC, NAMED = "extern __shared__ u64 nodes[];", "u64* const nodes = dynamic_shared.data();"
PROCESSORS = 3


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """trace.cu, compiled for this machine."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler (CXX, or c++ on the PATH)")
    folder = tmp_path_factory.mktemp("trace")
    text = SOURCE.read_text()
    assert text.count(DYNAMIC) == 1
    (folder / "trace.inc").write_text(text.replace(DYNAMIC, NAMED))
    options = ("-std=c++20", "-O1", "-fPIC", "-shared", "-pthread", "-Wno-unknown-pragmas", f"-I{SOURCE_ROOT}")
    define = f'-DTRACE_SOURCE="{folder}/trace.inc"'
    library = folder / "trace.so"
    command = [compiler, *options, define, "-o", str(library), str(NATIVE / "trace_on_threads.cpp")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return ctypes.CDLL(str(library)).trace_on_threads


@dataclass
class HostDevice:
    """A device of `PROCESSORS` multiprocessors whose kernel is `function`; keeps how each launch was asked for."""

    function: Any
    processors: int = PROCESSORS
    carveouts: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    preferred_shared_memory_carveout: int = -1

    @property
    def cupy(self) -> Any:
        event = SimpleNamespace(record=lambda *stream: None, synchronize=lambda: None)
        cuda = SimpleNamespace(
            Stream=lambda non_blocking: _Stream(),
            Event=lambda disable_timing: event,
            alloc_pinned_memory=PinnedMemory,
        )
        return SimpleNamespace(
            cuda=cuda,
            empty=lambda size, kind: here(np.full(size, 0x5A, kind)),
            zeros=lambda size, kind: here(np.zeros(size, kind)),
        )

    def kernels(self, source: Path, *, library: str) -> Any:
        assert (source, library) == (SOURCE, "warpgrid_exact")
        return SimpleNamespace(module=SimpleNamespace(get_function=lambda name: {"trace_roots": self}[name]))

    def __call__(self, grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...], shared_mem: int) -> None:
        self.carveouts.append(self.preferred_shared_memory_carveout)
        self.blocks.append(grid[0])
        given = [int(one) if isinstance(one, np.integer) else ctypes.c_void_p(one.data.ptr) for one in arguments]
        self.function(grid[0], block[0], shared_mem, *given)


class _Stream(nullcontext[None]):
    def wait_event(self, event: Any) -> None:
        pass

    def record(self, event: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass


def expected_roots(tokens: NDArray[np.int32], rows: NDArray[Any], kv_rows: NDArray[Any]) -> list[bytes]:
    """docs/trace.md, section 1."""
    count, boundaries = rows.shape[:2]
    leaves_each = 1 << (2 * boundaries - 1).bit_length()
    roots = []
    for position in range(count):
        leaves = [bytes(32)] * leaves_each
        leaves[0] = sha256(tokens[position].tobytes()).digest()
        leaves[1 : 2 * boundaries : 2] = [sha256(row.tobytes()).digest() for row in rows[position]]
        leaves[2 : 2 * boundaries - 1 : 2] = [sha256(row.tobytes()).digest() for row in kv_rows[position]]
        while len(leaves) > 1:
            leaves = [keccak256(left + right) for left, right in zip(leaves[::2], leaves[1::2], strict=True)]
        roots += leaves
    return roots


@pytest.mark.parametrize(
    ("layers", "kv_heads", "counts"),
    [
        (1, 1, (1, PROCESSORS - 1, PROCESSORS, PROCESSORS + 1, 200)),  # key-value rows of 40 bytes: one block
        (2, 2, (5, 300)),  # of 80 bytes, read 16 at a time
        (3, 3, (7,)),  # of 120 bytes: the padding is a block of its own
        (30, 1, (1, 8 * PROCESSORS, 8 * PROCESSORS + 1, 70)),  # 8 positions are climbed together, 256 nodes a level
        (40, 1, (4 * PROCESSORS + 2,)),  # 4 of them
        (256, 1, (PROCESSORS + 1,)),  # one, which takes more shared memory than others
    ],
)
def test_roots_are_those_of_the_definition(kernel: Any, layers: int, kv_heads: int, counts: tuple[int, ...]) -> None:
    header = replace(BASE_HEADER, layers=layers, model_width=32, heads=2 * kv_heads, key_value_heads=kv_heads)
    device = HostDevice(kernel)
    hasher = TraceHasher(header, device, max(counts))  # type: ignore[arg-type]
    generator = np.random.default_rng(layers)
    for count in counts:
        tokens = generator.integers(0, 50_000, count, dtype=np.int32)
        rows = generator.integers(-(2**31), 2**31, (count, layers + 1, header.model_width), dtype=np.int32)
        kv_rows = generator.integers(0, 256, (count, layers, hasher.kv_row_bytes), dtype=np.uint8)
        slot = hasher.take()
        hasher.grow(slot, count)
        for array, values in ((slot.inputs[0], tokens), (slot.boundaries, rows), (slot.kv_rows, kv_rows)):
            array[: values.size] = values.ravel()
        found = hasher.start(slot, count, _Stream()).wait()
        assert [root.tobytes() for root in found] == expected_roots(tokens, rows, kv_rows)
        assert device.blocks[-1] == min(count, PROCESSORS)


@pytest.mark.parametrize(("rows", "percent"), [(1, -1), (64, -1), (65, 100), (2048, 100)])
def test_memory_is_divided_for_the_products_that_follow(rows: int, percent: int) -> None:
    device = HostDevice(lambda *arguments: None)
    hasher = TraceHasher(BASE_HEADER, device, rows)  # type: ignore[arg-type]
    slot = hasher.take()
    hasher.grow(slot, rows)
    hasher.start(slot, rows, _Stream())
    assert device.carveouts == [percent]
