"""The cryptography of libwarpgrid_core over numpy arrays: hashing, signature recovery, precompiled contracts.

Owns the calls into native code; knows nothing of transactions, state or devices (`core.crypto_gpu` has the same batch
functions on a GPU). The library releases the interpreter's lock, so batches are split over threads.
"""

import ctypes
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from core import native
from core.errors import InvalidInput
from core.fork import Fork

__all__ = [
    "PRECOMPILE_GAS_UNPAYABLE",
    "PrecompileResult",
    "Recovered",
    "keccak256_batch",
    "native_precompile",
    "precompile_bounds",
    "precompile_gas",
    "recover_batch",
    "run_precompile",
    "sha256_batch",
    "validate_items",
    "validate_recovery_batch",
]

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.uint64]

PRECOMPILE_GAS_UNPAYABLE = 2**64 - 1
"""A price above every gas limit: the call must run out of gas."""

_THREAD_ITEMS_MIN = 256
_STATUS_SUCCESS = 0
_STATUS_FAILURE = 1
_U8 = ctypes.POINTER(ctypes.c_uint8)
_U64 = ctypes.POINTER(ctypes.c_uint64)


_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "warpgrid_keccak256_batch": (None, _U8, _U8, _U64, ctypes.c_uint64),
    "warpgrid_sha256_batch": (None, _U8, _U8, _U64, ctypes.c_uint64),
    "warpgrid_recover_batch": (None, _U8, _U8, _U8, _U8, _U8, ctypes.c_uint64),
    "warpgrid_precompile_at": (ctypes.c_uint32, _U8, ctypes.c_uint32),
    "warpgrid_precompile_gas": (ctypes.c_uint64, ctypes.c_uint32, _U8, ctypes.c_uint64, ctypes.c_uint32),
    "warpgrid_precompile_output_bytes": (ctypes.c_uint64, ctypes.c_uint32, _U8, ctypes.c_uint64),
    "warpgrid_precompile_scratch_words": (ctypes.c_uint64, ctypes.c_uint32, _U8, ctypes.c_uint64),
    "warpgrid_run_precompile": (
        *(ctypes.c_uint32, ctypes.c_uint32, _U8, ctypes.c_uint64, ctypes.c_uint32),
        *(_U8, _U64, _U64, ctypes.c_uint64),
    ),
}
"""Result and arguments of each entry point in core/native/host.cpp."""


@dataclass(frozen=True, slots=True, eq=False)
class Recovered:
    """Signers of a batch: `addresses` u8[n, 20], zero where `valid` bool[n] is false."""

    addresses: Bytes
    valid: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PrecompileResult:
    """Outcome of a precompiled contract: its price, whether the call succeeds, and its return data."""

    gas: int
    success: bool
    output: bytes


@cache
def _native(name: str) -> Callable[..., Any]:
    function = native.load("warpgrid_core")[name]  # an object of our own, whose types nobody else sets
    function.restype, *function.argtypes = _SIGNATURES[name]
    return function


def keccak256_batch(items: Bytes, offsets: Offsets, *, threads: int | None = None) -> Bytes:
    """The Keccak-256 digests u8[n, 32] of the runs items[offsets[i] : offsets[i + 1]], offsets u64[n + 1].

    Raises InvalidInput when the offsets are not ascending within `items`.
    """
    return _digests("warpgrid_keccak256_batch", items, offsets, threads)


def sha256_batch(items: Bytes, offsets: Offsets, *, threads: int | None = None) -> Bytes:
    """The SHA-256 digests u8[n, 32] of the runs of `items`, as in `keccak256_batch`."""
    return _digests("warpgrid_sha256_batch", items, offsets, threads)


def _digests(function: str, items: Bytes, offsets: Offsets, threads: int | None) -> Bytes:
    items, offsets = validate_items(items, offsets)
    digests = np.empty((len(offsets) - 1, 32), dtype=np.uint8)

    def run(start: int, stop: int) -> None:
        _native(function)(_bytes(digests[start:stop]), _bytes(items), _words(offsets[start : stop + 1]), stop - start)

    _split(run, len(digests), threads)
    return digests


def validate_items(items: Bytes, offsets: Offsets) -> tuple[Bytes, Offsets]:
    """Both arrays, contiguous; raises InvalidInput unless offsets are n + 1 ascending positions within the items."""
    items = np.ascontiguousarray(items, dtype=np.uint8)
    offsets = np.ascontiguousarray(offsets, dtype=np.uint64)
    if len(offsets) == 0 or int(offsets[-1]) > len(items) or bool((offsets[1:] < offsets[:-1]).any()):
        raise InvalidInput("offsets must be n + 1 ascending positions within the items")
    return items, offsets


def recover_batch(hashes: Bytes, signatures: Bytes, y_parities: Bytes, *, threads: int | None = None) -> Recovered:
    """Who signed each of hashes u8[n, 32] with signatures u8[n, 64] (r, s big-endian) and y_parities u8[n] (0 or 1).

    Any s in [1, order) counts, as for the ECRECOVER precompile; whoever needs EIP-2 checks it. Raises InvalidInput for
    arrays of other shapes.
    """
    hashes, signatures, y_parities = validate_recovery_batch(hashes, signatures, y_parities)
    count = len(hashes)
    addresses, valid = np.empty((count, 20), dtype=np.uint8), np.empty(count, dtype=np.uint8)

    def run(start: int, stop: int) -> None:
        here = slice(start, stop)
        _native("warpgrid_recover_batch")(
            _bytes(addresses[here]),
            _bytes(valid[here]),
            _bytes(hashes[here]),
            _bytes(signatures[here]),
            _bytes(y_parities[here]),
            stop - start,
        )

    _split(run, count, threads)
    return Recovered(addresses, valid.astype(np.bool_))


def validate_recovery_batch(hashes: Bytes, signatures: Bytes, y_parities: Bytes) -> tuple[Bytes, Bytes, Bytes]:
    """The three arrays, contiguous; raises InvalidInput unless they are u8[n, 32], u8[n, 64] and u8[n]."""
    arrays = tuple(np.ascontiguousarray(array, dtype=np.uint8) for array in (hashes, signatures, y_parities))
    count = len(arrays[0])
    shapes = tuple(array.shape for array in arrays)
    if shapes != ((count, 32), (count, 64), (count,)):
        raise InvalidInput(f"expected hashes [n, 32], signatures [n, 64] and parities [n], got {shapes}")
    return arrays[0], arrays[1], arrays[2]


def precompile_gas(address: int, data: bytes, fork: Fork) -> int:
    """What a call of the precompile at this address costs; PRECOMPILE_GAS_UNPAYABLE when nothing can pay for it.

    Raises InvalidInput when there is none at this address under this fork.
    """
    number, rules = native_precompile(address, fork)
    return int(_native("warpgrid_precompile_gas")(number, _bytes(_array(data)), len(data), rules))


def run_precompile(address: int, data: bytes, fork: Fork) -> PrecompileResult:
    """Price and run the precompile at this address, whatever the price.

    A price of PRECOMPILE_GAS_UNPAYABLE is a failure. Raises InvalidInput when there is none at this address.
    """
    number, rules = native_precompile(address, fork)
    gas = precompile_gas(address, data, fork)
    if gas == PRECOMPILE_GAS_UNPAYABLE:
        return PrecompileResult(gas, False, b"")
    output_bytes, scratch_words = precompile_bounds(number, data)
    output, scratch = np.empty(output_bytes, dtype=np.uint8), np.empty(scratch_words, dtype=np.uint64)
    produced = ctypes.c_uint64()
    status = _native("warpgrid_run_precompile")(
        number,
        _bytes(_array(data)),
        len(data),
        rules,
        _bytes(output),
        ctypes.byref(produced),
        _words(scratch),
        len(scratch),
    )
    assert status in (_STATUS_SUCCESS, _STATUS_FAILURE), f"precompile {address:#x} gave status {status} on the host"
    return PrecompileResult(gas, status == _STATUS_SUCCESS, output[: produced.value].tobytes())


def native_precompile(address: int, fork: Fork) -> tuple[int, int]:
    """The native side's numbers of a precompile and of the fork whose rules it follows.

    Raises InvalidInput when there is none at this address, or the fork is older than CANCUN.
    """
    if fork < Fork.CANCUN:
        raise InvalidInput(f"precompiles are native from CANCUN on, not under {fork.name}")
    rules = int(min(fork, Fork.OSAKA) - Fork.CANCUN)
    place = np.frombuffer(address.to_bytes(20, "big"), dtype=np.uint8)
    number = int(_native("warpgrid_precompile_at")(_bytes(place), rules))
    if number == 0:
        raise InvalidInput(f"no precompile at {address:#x} under {fork.name}")
    return number, rules


def precompile_bounds(number: int, data: bytes) -> tuple[int, int]:
    """Upper bounds of output bytes and scratch words (u64) of a call, by the precompile's native number."""
    given = _bytes(_array(data))
    return (
        int(_native("warpgrid_precompile_output_bytes")(number, given, len(data))),
        int(_native("warpgrid_precompile_scratch_words")(number, given, len(data))),
    )


def _split(run: Callable[[int, int], None], count: int, threads: int | None) -> None:
    """Call run(start, stop) over 0..count on up to `threads` threads (default: one a core), in this one if few."""
    workers = min(threads or os.cpu_count() or 1, count // _THREAD_ITEMS_MIN)
    if workers <= 1:
        run(0, count)
        return
    cuts = [count * part // workers for part in range(workers + 1)]
    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(run, start, stop) for start, stop in itertools.pairwise(cuts)]:
            done.result()


def _array(data: bytes) -> Bytes:
    return np.frombuffer(data, dtype=np.uint8)


def _bytes(array: Bytes) -> "ctypes._Pointer[ctypes.c_uint8]":
    return array.ctypes.data_as(_U8)


def _words(array: npt.NDArray[np.uint64]) -> "ctypes._Pointer[ctypes.c_uint64]":
    return array.ctypes.data_as(_U64)
