"""Where an exact model runs: the choice, its errors, and on a Hopper GPU the same bytes as on the CPU."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from core.errors import GpuUnavailable
from core.gpu import Device
from tests.unit.worker.inference.random_models import random_model
from worker.inference.errors import EngineUnavailable
from worker.inference.exact.devices import CPU_ROWS_MAX, DeviceChoice, open_executor
from worker.inference.exact.gpu import GpuEngine
from worker.inference.exact.native import NativeEngine, sequence_rows
from worker.inference.exact.sampling import Sampling
from worker.inference.exact.tracing import Tracing
from worker.inference.proof_engine import ProofEngine
from zk.replay import replay

NO_SUCH_GPU = 1_000
SHAPES: dict[str, dict[str, int]] = {
    "plain": {},
    "every_option": {"qkv_bias": 1, "qk_norm": 1, "qk_hadamard": 1},
    "two_limbs": {"qkv_bits": 16, "gate_up_bits": 16, "head_bits": 16, "o_bits": 16},
    "tensor_64": {"head_width": 64, "heads": 6, "key_value_heads": 2, "model_width": 96, "vocabulary": 131},
    "tensor_128": {"head_width": 128, "heads": 4, "key_value_heads": 1, "qk_hadamard": 1},
    "loud_64": {"head_width": 64, "heads": 6, "key_value_heads": 2, "loud_bits": 6},
    "loud_128": {"head_width": 128, "heads": 4, "key_value_heads": 2, "loud_bits": 6},
    "odd_heads": {"head_width": 80, "heads": 14, "key_value_heads": 2, "model_width": 160},
    "groups_dealt_out": {"feed_forward_width": 9216},
}


@pytest.fixture
def nowhere(tmp_path: Path) -> Device:
    return Device(NO_SUCH_GPU, tmp_path)


@pytest.fixture(scope="module")
def hopper(tmp_path_factory: pytest.TempPathFactory) -> Device:
    device = Device(0, tmp_path_factory.mktemp("kernels"))
    try:
        architecture = device.architecture
    except GpuUnavailable as error:
        pytest.skip(f"no GPU: {error}")
    if architecture != "sm_90":
        pytest.skip(f"{device.name} is {architecture}; the exact kernels need sm_90")
    return device


def test_auto_takes_the_cpu_where_no_gpu_can(nowhere: Device) -> None:
    with closing(open_executor(random_model(1), DeviceChoice.AUTO, pages=2, threads=1, device=nowhere)) as executor:
        assert isinstance(executor, NativeEngine)
        assert executor.rows_max == CPU_ROWS_MAX


def test_a_gpu_that_is_not_there_is_refused_with_its_reason(nowhere: Device) -> None:
    with pytest.raises(EngineUnavailable, match="no exact engine on the GPU"):
        open_executor(random_model(1), DeviceChoice.GPU, pages=2, device=nowhere)


def test_the_cpu_asks_for_no_gpu(nowhere: Device) -> None:
    with closing(open_executor(random_model(1), DeviceChoice.CPU, pages=2, rows_max=7, device=nowhere)) as executor:
        assert isinstance(executor, NativeEngine)
        assert executor.rows_max == 7


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES)
def test_gpu_and_cpu_give_the_same_bytes(hopper: Device, shape: str) -> None:
    """Prompts and answers, every row of the trace. The CPU's own test against the reference is test_native.py."""
    model = random_model(3, **SHAPES[shape])
    generator = np.random.default_rng(4)
    with (
        closing(open_executor(model, DeviceChoice.GPU, pages=4, rows_max=128, device=hopper)) as gpu,
        closing(open_executor(model, DeviceChoice.CPU, pages=4, rows_max=128, threads=1)) as cpu,
    ):
        assert isinstance(gpu, GpuEngine)
        assert isinstance(cpu, NativeEngine)
        start = 0
        for count in (100, 1, 1, 3, 1, 40, 1):
            rows = sequence_rows(generator.integers(0, model.header.vocabulary, count).tolist(), start, range(4))
            ours, theirs = gpu.forward(rows, trace=Tracing.ROWS), cpu.forward(rows, trace=Tracing.ROWS)
            assert np.array_equal(ours.logits.get(), theirs.logits)
            for name in ("boundaries", "kv_rows"):
                assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
            assert ours.roots is not None
            assert theirs.roots is not None
            assert np.array_equal(ours.roots.wait(), theirs.roots.wait())
            start += count


@pytest.mark.gpu
def test_a_long_prompt_of_a_deep_model_has_the_cpus_roots(hopper: Device) -> None:
    """More positions than blocks hash at once, and than a block climbs together. Its CPU twin is test_gpu_trace.py."""
    model = random_model(3, layers=30, context_max=2048)
    tokens = np.random.default_rng(5).integers(0, model.header.vocabulary, 1500).tolist()
    with (
        closing(open_executor(model, DeviceChoice.GPU, pages=24, rows_max=1500, device=hopper)) as gpu,
        closing(open_executor(model, DeviceChoice.CPU, pages=24, rows_max=1500, threads=1)) as cpu,
    ):
        rows = sequence_rows(tokens, 0, range(24))
        found = [gpu.forward(rows, trace=Tracing.ROOTS).roots for _ in range(2)]
        expected = cpu.forward(rows, trace=Tracing.ROOTS).roots
        assert expected is not None
        for roots in found:
            assert roots is not None
            assert np.array_equal(roots.wait(), expected.wait())


@pytest.mark.gpu
def test_roots_that_nobody_waits_for_disturb_nothing(hopper: Device) -> None:
    """Their memory is that of copies to the device, once it is free."""
    model = random_model(3, head_width=64)
    with closing(open_executor(model, DeviceChoice.GPU, pages=4, rows_max=64, device=hopper)) as gpu:
        rows = sequence_rows([1, 2, 3], 0, range(4))
        first = gpu.forward(rows, trace=Tracing.ROOTS).roots
        assert first is not None
        expected = first.wait().copy()
        for count in range(1, 40):
            gpu.forward(sequence_rows([5] * count, 3, range(4)), trace=Tracing.ROOTS)
            again = gpu.forward(rows, trace=Tracing.ROOTS).roots
        assert again is not None
        assert np.array_equal(again.wait(), expected)


@pytest.mark.gpu
def test_a_gpu_replays_what_a_cpu_answered(hopper: Device) -> None:
    model, root = random_model(5, head_width=64), bytes(range(32))
    cpu = ProofEngine(model, root, tokens_max=96)
    gpu = ProofEngine(model, root, tokens_max=96, device=DeviceChoice.GPU)
    with closing(cpu), closing(gpu):
        statement, trace = cpu.answer((5, 6, 7), Sampling(52_000, 50, 60_000, 77, 1), 64, bytes(32))
        assert replay(gpu, statement, trace.root, statement.answer).accepted


@pytest.mark.gpu
def test_too_large_a_cache_is_refused(hopper: Device) -> None:
    with pytest.raises(EngineUnavailable, match="exceed"):
        open_executor(random_model(1), DeviceChoice.GPU, pages=1 << 27, device=hopper)
