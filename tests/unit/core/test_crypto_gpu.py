"""core.crypto_gpu against core.crypto: the same arrays give the same answers. Its CPU twin is in test_crypto.py."""

import numpy as np
import pytest

from core import crypto
from core.crypto_gpu import CRYPTO_KERNELS, PRECOMPILE_KERNELS, GpuCrypto
from core.errors import GpuError, GpuUnavailable
from core.fork import Fork
from core.gpu import Device, build_ahead, kernel_hash
from tests.unit.core.recovery_cases import crafted_signatures, recovery_arrays, signed


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> GpuCrypto:
    device = Device(0, tmp_path_factory.mktemp("kernels"))
    try:
        assert device.cupy
    except GpuUnavailable as error:
        pytest.skip(str(error))
    return GpuCrypto(device)


@pytest.mark.gpu
def test_recovery_on_a_gpu(gpu: GpuCrypto) -> None:
    arrays = recovery_arrays(signed(500, seed=1) + crafted_signatures())
    expected, found = crypto.recover_batch(*arrays), gpu.recover_batch(*arrays)
    assert (found.addresses == expected.addresses).all()
    assert (found.valid == expected.valid).all()


@pytest.mark.gpu
def test_keccak_on_a_gpu(gpu: GpuCrypto) -> None:
    random = np.random.default_rng(1)
    offsets = np.cumsum([0, *random.integers(0, 300, 1000)], dtype=np.uint64)
    items = random.integers(0, 256, int(offsets[-1]), dtype=np.uint8)
    assert (gpu.keccak256_batch(items, offsets) == crypto.keccak256_batch(items, offsets)).all()


@pytest.mark.gpu
def test_a_gpu_parks_what_only_the_host_answers(gpu: GpuCrypto) -> None:
    assert [answer.status for answer in gpu.run_precompile_batch(0x0B, [bytes(256)], Fork.OSAKA)] == [2]
    assert crypto.run_precompile(0x0B, bytes(256), Fork.OSAKA).success


@pytest.mark.gpu
def test_no_inputs_give_no_answers(gpu: GpuCrypto) -> None:
    assert gpu.run_precompile_batch(0x02, [], Fork.OSAKA) == []
    assert gpu.keccak256_batch(np.zeros(0, np.uint8), np.zeros(1, np.uint64)).shape == (0, 32)


def test_a_missing_gpu_is_an_error_that_says_so() -> None:
    device = Device(1_000_000, CRYPTO_KERNELS.parent)
    with pytest.raises(GpuUnavailable, match=r"pip install|nvidia-smi|no GPU number"):
        assert device.cupy


def test_a_kernel_is_named_by_what_it_includes() -> None:
    assert kernel_hash(CRYPTO_KERNELS) == kernel_hash(CRYPTO_KERNELS)
    assert kernel_hash(CRYPTO_KERNELS) != kernel_hash(PRECOMPILE_KERNELS)
    assert kernel_hash(CRYPTO_KERNELS) != kernel_hash(CRYPTO_KERNELS, ["WG_LADDER_BLOCKS_PER_SM=3"])


def test_building_ahead_without_a_compiler_says_what_to_do() -> None:
    with pytest.raises(GpuError, match="not installed"):
        build_ahead(CRYPTO_KERNELS, ["sm_90"], nvcc="no-such-nvcc")
