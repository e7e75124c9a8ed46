"""vectors/precompiles: result and gas of every precompile, and every input that must fail; on the CPU and on a GPU."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from core import crypto
from core.crypto_gpu import GpuCrypto
from core.errors import GpuUnavailable
from core.fork import Fork
from core.gpu import Device
from tests.conformance.vectors import VECTORS, needs_vectors, read
from tests.unit.core.instructions import newer_instructions

pytestmark = needs_vectors

ARCHIVE = VECTORS / "precompiles/precompiles.tar.gz"

ADDRESSES = {
    "ecRecover": 0x01,
    "modexp": 0x05,
    "modexp_eip2565": 0x05,
    "modexp_eip7883": 0x05,
    "bn256Add": 0x06,
    "bn256ScalarMul": 0x07,
    "bn256Pairing": 0x08,
    "blake2F": 0x09,
    "blake2f": 0x09,
    "pointEvaluation": 0x0A,
    "blsG1Add": 0x0B,
    "blsG1Mul": 0x0C,
    "blsG1MultiExp": 0x0C,
    "blsG2Add": 0x0D,
    "blsG2Mul": 0x0E,
    "blsG2MultiExp": 0x0E,
    "blsPairing": 0x0F,
    "blsMapG1": 0x10,
    "blsMapG2": 0x11,
    "p256Verify": 0x100,
}
GPU_ADDRESSES = {0x01, 0x05, 0x06, 0x07, 0x08, 0x09, 0x100}
BLAKE_ROUNDS_MAX_ON_GPU = 1 << 24

# modexp.json holds Byzantium's prices, which no fork here charges; its results hold under any.
BYZANTIUM_PRICES = "modexp"


def files(folder: Path = ARCHIVE) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for name, content in read(folder) if folder.exists() else ():
        yield Path(name).stem, orjson.loads(content)


def fork_of(stem: str) -> Fork:
    return Fork.PRAGUE if stem in (BYZANTIUM_PRICES, "modexp_eip2565") else Fork.OSAKA


@pytest.fixture(params=[True, False], ids=["this processor", "any processor"])
def instructions(request: pytest.FixtureRequest) -> Iterator[None]:
    """All that this processor can do, then only what the build assumes."""
    with newer_instructions(request.param):
        yield


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("stem", [stem for stem, _ in files()])
def test_vectors_on_the_cpu(stem: str) -> None:
    cases = dict(files())[stem]
    address, fork = ADDRESSES[stem.removeprefix("fail-")], fork_of(stem)
    wrong = []
    for case in cases:
        result = crypto.run_precompile(address, bytes.fromhex(case["Input"]), fork)
        if "ExpectedError" in case:
            matches = not result.success
        else:
            same_gas = result.gas == case["Gas"] or stem == BYZANTIUM_PRICES
            matches = result.success and result.output.hex() == case["Expected"] and same_gas
        wrong += [] if matches else [case["Name"]]
    assert cases
    assert not wrong


def test_every_vector_was_seen() -> None:
    counts = {stem: len(cases) for stem, cases in files()}
    assert sum(counts.values()) == 1883
    assert {stem.removeprefix("fail-") for stem in counts} == set(ADDRESSES)


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> GpuCrypto:
    device = Device(0, tmp_path_factory.mktemp("kernels"))
    try:
        assert device.cupy
    except GpuUnavailable as error:
        pytest.skip(str(error))
    return GpuCrypto(device)


@pytest.mark.gpu
@pytest.mark.parametrize("stem", [s for s, _ in files() if ADDRESSES[s.removeprefix("fail-")] in GPU_ADDRESSES])
def test_vectors_on_a_gpu(stem: str, gpu: GpuCrypto) -> None:
    cases = [
        case
        for case in dict(files())[stem]
        if ADDRESSES[stem.removeprefix("fail-")] != 0x09 or case.get("Gas", 0) < BLAKE_ROUNDS_MAX_ON_GPU
    ]
    answers = gpu.run_precompile_batch(
        ADDRESSES[stem.removeprefix("fail-")], [bytes.fromhex(case["Input"]) for case in cases], fork_of(stem)
    )
    found = [answer.output.hex() if answer.status == 0 else None for answer in answers]
    assert found == [case.get("Expected") for case in cases]
