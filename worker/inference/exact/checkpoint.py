"""What an import needs of a float checkpoint, whatever its file format: a configuration, tensors by name, a tokenizer.

Owns the vocabulary between readers (`safetensors_checkpoint`, `gguf_checkpoint`) and `convert`. Opens no files.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from worker.inference.errors import CheckpointError

__all__ = [
    "Checkpoint",
    "DecoderConfig",
    "Floats",
    "inverse_frequencies",
    "linear_divisors",
    "llama3_divisors",
    "self_contained_template",
]

Floats = NDArray[np.float32]

DECIMAL_DIGITS: Final = 60
ROTARY_PAIRS_MAX: Final = 128


@dataclass(frozen=True)
class DecoderConfig:
    """A Llama-family decoder in the terms of its checkpoint.

    `rotary_divisors` has one entry for each of the head_width / 2 frequencies, all 1 without scaling.
    """

    layers: int
    model_width: int
    heads: int
    key_value_heads: int
    head_width: int
    feed_forward_width: int
    vocabulary: int
    context_max: int
    norm_epsilon: float
    rotary_base: Decimal
    rotary_divisors: tuple[Decimal, ...]
    tied_head: bool
    qkv_bias: bool
    qk_norm: bool
    end_tokens: tuple[int, ...]

    def __post_init__(self) -> None:
        sizes = (self.layers, self.model_width, self.heads, self.key_value_heads, self.head_width)
        if min(*sizes, self.feed_forward_width, self.vocabulary, self.context_max) < 1 or self.head_width % 2:
            raise CheckpointError("the configuration has a size below 1, or an odd head width")
        if not 0 <= self.norm_epsilon <= 2.0**-16 or not self.rotary_base > 1:
            raise CheckpointError("the configuration's norm epsilon or rotary base is out of range")
        if len(self.rotary_divisors) != self.head_width // 2 or min(self.rotary_divisors) <= 0:
            raise CheckpointError("the rotary scaling does not fit the head width")


class Checkpoint(Protocol):
    """A float checkpoint, opened. Tensors keep Hugging Face's names without the leading `model.`:

    embed_tokens, norm, lm_head (unless tied), and under layers.N: input_layernorm, post_attention_layernorm,
    self_attn.{q,k,v,o}_proj, self_attn.{q,k}_norm, mlp.{gate,up,down}_proj; each with `.weight` or `.bias`.
    """

    @property
    def config(self) -> DecoderConfig: ...

    @property
    def tokenizer(self) -> bytes:
        """tokenizer.json."""
        ...

    @property
    def chat_template(self) -> str:
        """A Jinja template that needs nothing but the messages (`self_contained_template`); may be empty."""
        ...

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Name and hashes of the source, for people; JSON values."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape. Raises CheckpointError when there is none of that name."""
        ...

    def rows(self, name: str, first: int, count: int) -> Floats:
        """Rows first .. first + count of a tensor, as float32, in memory of their own."""
        ...


def inverse_frequencies(base: Decimal, divisors: tuple[Decimal, ...]) -> list[Decimal]:
    """Radians per position for each pair: base^(-2i / head_width), divided by its scaling."""
    pairs = len(divisors)
    with localcontext(Context(prec=DECIMAL_DIGITS)):
        log_base = base.ln()
        return [(-log_base * i / pairs).exp() / divisor for i, divisor in enumerate(divisors)]


def linear_divisors(pairs: int, factor: Decimal) -> tuple[Decimal, ...]:
    """Position interpolation: every frequency divided by the same factor (1: no scaling).

    Raises CheckpointError when the head is wider than any that can be run, before anything of that size is made.
    """
    if not 1 <= pairs <= ROTARY_PAIRS_MAX:
        raise CheckpointError(f"a head width of {2 * pairs} cannot be imported; the most is {2 * ROTARY_PAIRS_MAX}")
    return (factor,) * pairs


def llama3_divisors(
    pairs: int, base: Decimal, *, factor: Decimal, low: Decimal, high: Decimal, original_context: Decimal
) -> tuple[Decimal, ...]:
    """Llama 3.1's scaling: low frequencies divided by `factor`, high ones kept, a linear blend between."""
    with localcontext(Context(prec=DECIMAL_DIGITS)):
        pi = Decimal("3.14159265358979323846264338327950288419716939937510582097494")
        divisors = []
        for frequency in inverse_frequencies(base, linear_divisors(pairs, Decimal(1))):
            turns = original_context * frequency / (2 * pi)
            blend = min(Decimal(1), max(Decimal(0), (turns - low) / (high - low)))
            divisors.append(1 / ((1 - blend) / factor + blend))
        return tuple(divisors)


def self_contained_template(template: str, begin_token: str, end_token: str) -> str:
    """A chat template that defines the special tokens which it may print, so that the prompt is fixed by it alone."""
    if not template:
        return ""
    tokens = {"bos_token": begin_token, "eos_token": end_token}
    return "".join(f"{{%- set {name} = {json.dumps(text)} -%}}\n" for name, text in tokens.items()) + template
