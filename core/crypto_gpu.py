"""The batch functions of `core.crypto` on a GPU: same arguments, same results, numpy arrays in and out.

Owns the order of the kernels' launches and their device memory; what they compute is in core/native/crypto.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from core.crypto import Recovered, native_precompile, precompile_bounds, validate_items, validate_recovery_batch
from core.fork import Fork
from core.gpu import Device, Kernels
from core.native import SOURCE_ROOT

__all__ = ["CRYPTO_KERNELS", "PRECOMPILE_KERNELS", "DeviceBatch", "GpuCrypto", "PrecompileAnswer"]

CRYPTO_KERNELS = SOURCE_ROOT / "core/native/kernels/crypto.cu"
PRECOMPILE_KERNELS = SOURCE_ROOT / "core/native/kernels/precompiles.cu"

# Fixed in kernels/crypto.cu and recovery_batch.hpp.
_COMB_ENTRIES = (256 // 16) << 16
_COMB_ENTRY_BYTES = 64
_RECORD_BYTES = 72
_POINT_BYTES = 96
_INVERSION_BATCH = 16

_STATUS_VALID = 1

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class PrecompileAnswer:
    """`status` is the native PrecompileStatus: 0 success, 1 failure, 2 the host must answer."""

    status: int
    output: bytes


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """A recovery batch on the device, with the memory that its passes need: 276 + 97 bytes a signature."""

    hashes: Any
    signatures: Any
    y_parities: Any
    records: Any
    points: Any
    addresses: Any
    status: Any

    def __len__(self) -> int:
        return len(self.y_parities)


@dataclass(frozen=True)
class GpuCrypto:
    """Hashing, recovery and precompiles on one device."""

    device: Device

    @cached_property
    def _kernels(self) -> Kernels:
        return self.device.kernels(CRYPTO_KERNELS, library="warpgrid_core")

    @cached_property
    def _comb(self) -> Any:
        """Multiples of secp256k1's generator, 64 MiB, made once."""
        comb = self.device.cupy.zeros(_COMB_ENTRIES * _COMB_ENTRY_BYTES, dtype=np.uint8)
        self._kernels.launch("recover_comb", _COMB_ENTRIES, comb, _COMB_ENTRIES)
        return comb

    def keccak256_batch(self, items: Bytes, offsets: Offsets) -> Bytes:
        """As core.crypto.keccak256_batch."""
        items, offsets = validate_items(items, offsets)
        digests = self.hash_on_device(self.device.cupy.asarray(items), self.device.cupy.asarray(offsets))
        return np.asarray(digests.get(), dtype=np.uint8)

    def hash_on_device(self, items: Any, offsets: Any) -> Any:
        """Digests u8[n, 32] of device arrays, on the device. The offsets must be valid."""
        count = len(offsets) - 1
        digests = self.device.cupy.empty((count, 32), dtype=np.uint8)
        self._kernels.launch("keccak256_batch", count, digests, items, offsets, count)
        return digests

    def recover_batch(self, hashes: Bytes, signatures: Bytes, y_parities: Bytes) -> Recovered:
        """As core.crypto.recover_batch."""
        batch = self.upload(*validate_recovery_batch(hashes, signatures, y_parities))
        self.recover_on_device(batch)
        status = np.asarray(batch.status.get(), dtype=np.uint8)
        return Recovered(np.asarray(batch.addresses.get(), dtype=np.uint8), status == _STATUS_VALID)

    def upload(self, hashes: Bytes, signatures: Bytes, y_parities: Bytes) -> DeviceBatch:
        """Copy a batch to the device and allocate what its passes need."""
        cupy, count = self.device.cupy, len(y_parities)
        return DeviceBatch(
            cupy.asarray(hashes),
            cupy.asarray(signatures),
            cupy.asarray(y_parities),
            cupy.empty(count * _RECORD_BYTES, dtype=np.uint8),
            cupy.empty(count * _POINT_BYTES, dtype=np.uint8),
            cupy.empty((count, 20), dtype=np.uint8),
            cupy.empty(count, dtype=np.uint8),
        )

    def recover_on_device(self, batch: DeviceBatch) -> None:
        """Queue the four passes over a batch, which fill its `addresses` and `status` (1 where valid)."""
        count, launch = len(batch), self._kernels.launch
        given = (batch.hashes, batch.signatures, batch.y_parities)
        groups = -(-count // _INVERSION_BATCH)
        launch("recover_scalars", groups, batch.records, *given, count)
        launch("recover_ladder", count, batch.points, batch.records, *given, self._comb, count)
        launch("recover_addresses", groups, batch.addresses, batch.status, batch.records, batch.points, count)
        launch("recover_exceptional", count, batch.addresses, batch.status, *given, count)

    def run_precompile_batch(self, address: int, inputs: Sequence[bytes], fork: Fork) -> list[PrecompileAnswer]:
        """Run one precompile on many inputs, whose gas counts as paid."""
        if not inputs:
            return []
        cupy, (number, rules) = self.device.cupy, native_precompile(address, fork)
        bounds = [precompile_bounds(number, data) for data in inputs]
        scratch_words = max(1, *(words for _, words in bounds))
        input_offsets = _offsets([len(data) for data in inputs])
        output_offsets = _offsets([output_bytes for output_bytes, _ in bounds])
        joined = np.frombuffer(b"".join(inputs) or b"\0", dtype=np.uint8)
        count = len(inputs)
        outputs = cupy.zeros(max(1, int(output_offsets[-1])), dtype=np.uint8)
        sizes, status = cupy.zeros(count, dtype=np.uint64), cupy.zeros(count, dtype=np.uint32)
        self.device.kernels(PRECOMPILE_KERNELS, library="warpgrid_core").launch(
            "run_precompile_batch",
            count,
            number,
            rules,
            cupy.asarray(joined),
            cupy.asarray(input_offsets),
            outputs,
            cupy.asarray(output_offsets),
            sizes,
            status,
            cupy.empty(count * scratch_words, dtype=np.uint64),
            scratch_words,
            count,
        )
        produced, starts = outputs.get().tobytes(), output_offsets.tolist()
        ends = (output_offsets[:-1] + sizes.get()).tolist()
        answers = zip(status.get().tolist(), starts[:-1], ends, strict=True)
        return [PrecompileAnswer(one, produced[start:end]) for one, start, end in answers]


def _offsets(sizes: Sequence[int]) -> Offsets:
    offsets = np.zeros(len(sizes) + 1, dtype=np.uint64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets
