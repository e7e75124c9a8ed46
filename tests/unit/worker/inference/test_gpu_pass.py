"""Which kernels a batch on the GPU consists of, without a GPU. What they compute is test_devices.py's."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.unit.worker.inference.random_models import BASE_HEADER
from worker.inference.exact.gpu_pass import DeviceModel, Launch, Layer, Matrix, put_together, shape_of
from worker.inference.exact.native import Rows
from worker.inference.exact.specification import Header

PROCESSORS = 132
HEADER = replace(
    BASE_HEADER,
    layers=2,
    model_width=4096,
    heads=32,
    key_value_heads=8,
    head_width=128,
    feed_forward_width=14_336,
    vocabulary=1000,
    context_max=2048,
)
ROUND_OF_ONE = [
    *("stream_values_own", "prepare_heads", "attend_answers_128", "stream_residual_own"),
    *("stream_gated_own", "quantise_rows", "stream_residual"),
]


class FakeArray:
    """An array on no device: an address for each name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.data = SimpleNamespace(ptr=hash(name) & (1 << 40) - 1)

    def __getitem__(self, index: Any) -> "FakeArray":
        return FakeArray(f"{self.name}[{index}]")


class FakeBuffers(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        return FakeArray(name)

    def __contains__(self, name: object) -> bool:
        return True


def model_of(header: Header) -> DeviceModel:
    def matrix(name: str, outputs: int, columns: int, bits: int) -> Matrix:
        return Matrix(
            *(FakeArray(f"{name}.{one}") for one in ("weights", "mantissa", "shift")), None, outputs, columns, bits
        )

    width, f, attention = header.model_width, header.feed_forward_width, header.attention_width
    heads = (header.heads + 2 * header.key_value_heads) * header.head_width
    layers = [
        Layer(
            matrix(f"qkv{index}", heads, width, header.qkv_bits),
            matrix(f"o{index}", width, attention, header.o_bits),
            matrix(f"gate_up{index}", 2 * f, width, header.gate_up_bits),
            matrix(f"down{index}", width, f, header.down_bits),
            None,
            None,
        )
        for index in range(header.layers)
    ]
    tables = {name: FakeArray(name) for name in ("cosines", "sines", "exp2", "sigmoid", "embedding")}
    scales = {f"embedding_{name}": FakeArray(name) for name in ("mantissa", "exponent")}
    head = matrix("head", header.vocabulary, width, header.head_bits)
    return DeviceModel(
        header=header,
        put=lambda _: FakeArray("put"),
        processors=PROCESSORS,
        layers=layers,
        head=head,
        **tables,
        **scales,
    )


def batch(header: Header, rows: Rows, *, traced: bool = False) -> list[tuple[str, Launch]]:
    """The kernels of a batch by name, in order."""
    shape, _ = shape_of(header, rows, traced=traced)
    taken: list[Launch] = []
    inputs = tuple(FakeArray(name) for name in ("token", "position", "sequence", "wanted", "tiles"))
    named: Any = lambda name, shared_bytes: name  # noqa: E731 - stands for a kernel
    put_together(model_of(header), FakeBuffers(inputs=inputs), named, shape, taken.append)
    return [(str(launch.kernel), launch) for launch in taken]


def answers(count: int) -> Rows:
    """The next token of so many sequences."""
    each = np.arange(count, dtype=np.int32)
    return Rows(
        np.full(count, 7, np.int32), np.full(count, 300, np.int32), each, each[:, None] * 8 + np.arange(5), each
    )


def prompt(length: int) -> Rows:
    each = np.arange(length, dtype=np.int32)
    pages = np.arange(-(-length // 64), dtype=np.int32)[None]
    return Rows(each % 100, each, np.zeros(length, np.int32), pages, np.array([length - 1], np.int32))


def test_an_answer_alone_takes_seven_kernels_a_layer() -> None:
    names = [name for name, _ in batch(HEADER, answers(1))]
    assert names == ["embed", *ROUND_OF_ONE * HEADER.layers, "norm_rows", "norm_rows", "product_8", "finish_logits"]


@pytest.mark.parametrize("rows", [answers(1), answers(2), answers(16), answers(200), prompt(40), prompt(600)])
@pytest.mark.parametrize("traced", [False, True])
def test_every_matrix_is_multiplied_once(rows: Rows, traced: bool) -> None:
    launches = batch(HEADER, rows, traced=traced)
    products = [launch for name, launch in launches if name.startswith(("stream_", "product_"))]
    seen = Counter(one.name for launch in products for one in launch.arguments if isinstance(one, FakeArray))
    wanted = [f"{role}{layer}.weights" for layer in range(HEADER.layers) for role in ("qkv", "o", "gate_up", "down")]
    assert [seen[name] for name in (*wanted, "head.weights")] == [1] * (len(wanted) + 1)


@pytest.mark.parametrize("rows", [answers(1), answers(16), prompt(40)])
def test_every_boundary_is_noted_once_where_a_trace_is_wanted(rows: Rows) -> None:
    def noted(traced: bool) -> list[str]:
        arguments = [one for _, launch in batch(HEADER, rows, traced=traced) for one in launch.arguments]
        return [one.name for one in arguments if isinstance(one, FakeArray) and one.name.startswith("boundaries")]

    width = HEADER.model_width
    assert noted(True) == [f"boundaries[slice({index * width}, None, None)]" for index in range(HEADER.layers + 1)]
    assert noted(False) == []


def test_groups_are_dealt_out_where_a_block_has_many() -> None:
    counts = [
        [one.name for one in launch.arguments if isinstance(one, FakeArray) and one.name.startswith("claimed")]
        for name, launch in batch(HEADER, answers(1))
        if name.startswith("stream_")
    ]
    per_layer = len(counts) // HEADER.layers
    assert [index % per_layer for index, found in enumerate(counts) if found] == [2] * HEADER.layers
    assert counts[2] != counts[2 + per_layer]
