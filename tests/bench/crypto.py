"""Rates of hashing, signature recovery and every precompile: this machine's CPU, and its GPU where there is one.

Each figure is the best of several runs, after the results were checked; on one thread by processor time, else by the
clock. For a precompile, `flood_s` is how long one core works on a block of 30 million gas that holds nothing but the
dearest of its vectors, and `on_gpu` who computes it there: the device, or this host, while the transaction waits.
`python -m tests.bench.crypto` prints all and appends JSON lines to tests/bench/results/crypto.jsonl.
"""

import argparse
import itertools
import json
import os
import platform
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core import crypto
from core.crypto_gpu import GpuCrypto
from core.errors import GpuUnavailable
from core.fork import Fork
from core.gpu import Device

__all__ = ["main", "signed_batch"]

RESULTS = Path(__file__).parent / "results" / "crypto.jsonl"
VECTORS = Path(__file__).parents[3] / "shared/vectors/precompiles/precompiles.tar.gz"
REPEATS = 5
FLOOD_GAS = 30_000_000
PRECOMPILE_S_MIN = 50e-9
CALL_GAS = 100
"""What a call costs beside the precompile's own price, which for BLAKE2b may be 0."""
ANSWERED_BY_HOST = range(0x0A, 0x12)
"""Precompiles that a GPU parks (core/native/crypto/precompiles.hpp): KZG and BLS12-381."""
SECONDS_MIN = 0.02
VECTORS_EACH = 12

Bytes = npt.NDArray[np.uint8]

FAMILIES = {
    "ecRecover": (0x01, Fork.OSAKA),
    "modexp_eip7883": (0x05, Fork.OSAKA),
    "bn256Add": (0x06, Fork.OSAKA),
    "bn256ScalarMul": (0x07, Fork.OSAKA),
    "bn256Pairing": (0x08, Fork.OSAKA),
    "blake2F": (0x09, Fork.OSAKA),
    "pointEvaluation": (0x0A, Fork.OSAKA),
    "blsG1Add": (0x0B, Fork.OSAKA),
    "blsG1Mul": (0x0C, Fork.OSAKA),
    "blsG1MultiExp": (0x0C, Fork.OSAKA),
    "blsG2Add": (0x0D, Fork.OSAKA),
    "blsG2Mul": (0x0E, Fork.OSAKA),
    "blsG2MultiExp": (0x0E, Fork.OSAKA),
    "blsPairing": (0x0F, Fork.OSAKA),
    "blsMapG1": (0x10, Fork.OSAKA),
    "blsMapG2": (0x11, Fork.OSAKA),
    "p256Verify": (0x100, Fork.OSAKA),
}


def signed_batch(count: int, seed: int) -> tuple[Bytes, Bytes, Bytes]:
    """Hashes, signatures and parities that all recover to some key: random scalars over a pool of 4,096 points."""
    random = np.random.default_rng(seed)
    pool = random.integers(0, 256, (16384, 64), dtype=np.uint8)
    pool[:, [0, 32]] >>= 1  # below the order
    zeros = np.zeros(len(pool), dtype=np.uint8)
    pool = pool[crypto.recover_batch(pool[:, :32].copy(), pool, zeros).valid][:4096]
    signatures = random.integers(0, 256, (count, 64), dtype=np.uint8)
    signatures[:, 32] >>= 1
    signatures[:, :32] = pool[random.integers(0, len(pool), count), :32]
    parities = random.integers(0, 2, count, dtype=np.uint8)
    return random.integers(0, 256, (count, 32), dtype=np.uint8), signatures, parities


def seconds_of(run: Callable[[], Any], clock_s: Callable[[], float] = time.perf_counter) -> float:
    """Best time of one call, over REPEATS measurements of at least SECONDS_MIN each."""
    calls, best = 1, float("inf")
    for _ in range(REPEATS):
        while True:
            start = clock_s()
            for _ in range(calls):
                run()
            spent = clock_s() - start
            if spent >= SECONDS_MIN:
                break
            calls *= 2
        best = min(best, spent / calls)
    return best


def mgas_per_s(address: int, data: bytes, fork: Fork, expected: str | None) -> float:
    """Million gas a second of one call, with what calling costs; checked first where the output is known."""
    result = crypto.run_precompile(address, data, fork)
    assert result.success
    assert expected is None or result.output.hex() == expected, f"precompile {address:#x} gave {result.output.hex()}"
    gas = result.gas + CALL_GAS
    spent_s = seconds_of(lambda: crypto.run_precompile(address, data, fork), time.process_time)
    return gas / max(spent_s - python_call_s(), PRECOMPILE_S_MIN) / 1e6


@cache
def python_call_s() -> float:
    """What the way from Python costs, which a block's calls do not take: a call of IDENTITY without input."""
    return seconds_of(lambda: crypto.run_precompile(0x04, b"", Fork.OSAKA), time.process_time)


def precompile_row(name: str, address: int, rates: list[float]) -> dict[str, Any]:
    """The figures of one family, from the rates of its vectors in million gas a second."""
    return {
        "what": name,
        "mgas_per_s_min": round(min(rates)),
        "mgas_per_s_median": round(sorted(rates)[len(rates) // 2]),
        "flood_s": round(FLOOD_GAS / 1e6 / min(rates), 3),
        "on_gpu": "host" if address in ANSWERED_BY_HOST else "device",
    }


def bench_precompiles() -> Iterator[dict[str, Any]]:
    """Gas per second of each family's slowest and median vector; one thread."""
    for name, (address, fork) in FAMILIES.items():
        with tarfile.open(VECTORS) as archive:
            member = archive.extractfile(f"precompiles/{name}.json")
            assert member is not None
            cases = json.load(member)[:VECTORS_EACH]
        rates = [mgas_per_s(address, bytes.fromhex(one["Input"]), fork, one["Expected"]) for one in cases]
        yield precompile_row(name, address, rates)
    for name, address in (("sha256", 0x02), ("ripemd160", 0x03), ("identity", 0x04)):
        yield precompile_row(f"{name} 64 KiB", address, [mgas_per_s(address, bytes(1 << 16), Fork.OSAKA, None)])


def bench_cpu(threads: int) -> Iterator[dict[str, Any]]:
    """Recoveries and hashes a second on `threads` threads."""
    clock_s = time.process_time if threads == 1 else time.perf_counter
    count = 4096 * threads
    batch = signed_batch(count, seed=1)
    assert crypto.recover_batch(*batch, threads=threads).valid.all()
    seconds = seconds_of(lambda: crypto.recover_batch(*batch, threads=threads), clock_s)
    yield {"what": "recover", "threads": threads, "batch": count, "per_s": round(count / seconds)}
    items = np.zeros(64 * count, dtype=np.uint8)
    offsets = np.arange(count + 1, dtype=np.uint64) * 64
    seconds = seconds_of(lambda: crypto.keccak256_batch(items, offsets, threads=threads), clock_s)
    yield {"what": "keccak 64 B", "threads": threads, "batch": count, "per_s": round(count / seconds)}


def bench_gpu(gpu: GpuCrypto, counts: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Recoveries and hashes a second on the device: kernels alone, and with copies from and to pageable memory."""
    cupy = gpu.device.cupy
    for count in counts:
        batch = signed_batch(count, seed=count)
        expected, found = crypto.recover_batch(*batch), gpu.recover_batch(*batch)
        assert (expected.addresses == found.addresses).all()
        assert (expected.valid == found.valid).all()
        on_device = gpu.upload(*batch)
        seconds = device_seconds(cupy, partial(gpu.recover_on_device, on_device))
        whole = seconds_of(partial(gpu.recover_batch, *batch))
        yield {"what": "recover", "batch": count, "per_s": round(count / seconds), "with_copies": round(count / whole)}
    for size, permutations in ((64, 1), (136, 2), (1360, 11)):
        count = (1 << 28) // size
        items = np.random.default_rng(size).integers(0, 256, count * size, dtype=np.uint8)
        offsets = np.arange(count + 1, dtype=np.uint64) * size
        held = cupy.asarray(items), cupy.asarray(offsets)
        digests = gpu.hash_on_device(*held)[:5000].get()
        assert (digests == crypto.keccak256_batch(items, offsets[:5001])).all()
        seconds = device_seconds(cupy, partial(gpu.hash_on_device, *held))
        yield {"what": f"keccak {size} B", "batch": count, "permutations_per_s": round(count * permutations / seconds)}


def device_seconds(cupy: Any, run: Callable[[], Any]) -> float:
    """Median time of one call between two events on the device."""
    run()
    times = []
    for _ in range(2 * REPEATS + 1):
        start, stop = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        run()
        stop.record()
        stop.synchronize()
        times.append(float(cupy.cuda.get_elapsed_time(start, stop)) / 1e3)
    return sorted(times)[len(times) // 2]


def record(commit: str, device: str, executor: str, rows: Iterable[dict[str, Any]]) -> None:
    """Print and append each row as it comes."""
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as results:
        for row in rows:
            line = json.dumps({"bench": "crypto", "commit": commit, "device": device, "on": executor, **row})
            results.write(line + "\n")
            print(line, flush=True)  # noqa: T201 - a benchmark's output


def main() -> None:
    """Print and record every figure that this machine can give."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    processor = platform.processor() or platform.machine()
    on_cpu = itertools.chain(bench_precompiles(), *(bench_cpu(threads) for threads in sorted({1, os.cpu_count() or 1})))
    record(commit.stdout.strip(), processor, "cpu", on_cpu)
    try:
        device = Device(0, Path("build/kernels"))
        gpu = GpuCrypto(device)
        name = device.name
    except GpuUnavailable as reason:
        print(f"GPU half skipped: {reason}")  # noqa: T201 - a benchmark's output
    else:
        record(commit.stdout.strip(), name, "gpu", bench_gpu(gpu, (1 << 12, 1 << 16, 1 << 20, 1 << 22)))


if __name__ == "__main__":
    main()
