"""Small models with random weights, to hold engines against each other. Shapes vary, quality does not matter."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.inference.exact.specification import Header, TensorSpec, tensor_specs

__all__ = ["BASE_HEADER", "RandomModel", "random_model"]

BASE_HEADER = Header(
    layers=2,
    model_width=64,
    heads=4,
    key_value_heads=2,
    head_width=16,
    feed_forward_width=96,
    vocabulary=200,
    context_max=256,
    residual_fraction=12,
    hidden_fraction=12,
    epsilon_q48=round(1e-5 * 2**48),
    attention_mantissa=41_000,
    attention_exponent=-33,
    qkv_bias=0,
    qk_norm=0,
    qk_hadamard=0,
    qkv_bits=8,
    o_bits=8,
    gate_up_bits=8,
    down_bits=16,
    head_bits=8,
    end_tokens=(1,),
)


class RandomModel:
    """Implements `worker.inference.exact.reference.Weights`."""

    def __init__(self, header: Header, tensors: dict[str, NDArray[Any]]) -> None:
        self.header = header
        self._tensors = tensors

    def tensor(self, name: str) -> NDArray[Any]:
        return self._tensors[name]


def random_model(seed: int, *, loud_bits: int = 0, **shape: int) -> RandomModel:
    """A model of BASE_HEADER with the fields in `shape` replaced. The same seed gives the same model.

    `loud_bits`: how many bits larger the first layer's queries, keys and values are than those of the others.
    """
    generator = np.random.default_rng(seed)
    header = replace(BASE_HEADER, **shape)
    tensors = {spec.name: _tensor(generator, spec) for spec in tensor_specs(header)}
    tensors["layers.0.qkv.exponent"] += np.int8(loud_bits)
    return RandomModel(header, tensors)


def _tensor(generator: np.random.Generator, spec: TensorSpec) -> NDArray[Any]:
    name = spec.name
    if name.endswith(".weight"):
        values = generator.integers(-127, 128, spec.shape)
    elif name.endswith(".mantissa"):
        values = generator.integers(2**15, 2**16, spec.shape)
    elif name.endswith(".exponent"):
        # Low enough for section 8's bounds, high enough that every part of the network is heard.
        low = {"embedding": -22, "down": -42}.get(name.split(".")[-2], -34)
        values = generator.integers(low, low + 3, spec.shape)
    elif name.endswith(".bias"):
        values = generator.integers(-4000, 4000, spec.shape)
    elif name.endswith("_norm"):
        values = generator.integers(30_000, 90_000, spec.shape)
    else:
        half = spec.columns
        angles = np.arange(spec.rows)[:, None] / 10_000 ** (np.arange(half) / half)
        values = np.rint((np.cos if name.endswith("cos") else np.sin)(angles) * 2**14)
    return values.astype(spec.dtype)
