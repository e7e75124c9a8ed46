"""From a float checkpoint to an exact model: fold norms, rotate the residual, quantise, tensor by tensor.

Matrices that read the residual pass through in slices, those that write it are held one at a time, so a model of any
size needs little more memory than its largest down projection. What is chosen here was chosen by measured perplexity
(docs/exact-inference.md, section 9).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from worker.inference.errors import CheckpointError, ModelUnsupported
from worker.inference.exact.checkpoint import Checkpoint, DecoderConfig, inverse_frequencies
from worker.inference.exact.gguf_checkpoint import GgufCheckpoint
from worker.inference.exact.model import ModelStore, ModelWriter
from worker.inference.exact.quantise import quantise_rows
from worker.inference.exact.rotary_tables import rotary_tables
from worker.inference.exact.rotation import Rotation
from worker.inference.exact.safetensors_checkpoint import SafetensorsCheckpoint
from worker.inference.exact.specification import PROJECTION_FRACTION, QUANTISED_MAX, Header, Role
from worker.inference.exact.tokenizer import ChatTokenizer

__all__ = ["Recipe", "header_of", "import_checkpoint", "open_checkpoint", "write_model"]

# Matrices are turned and rounded so many rows at a time, to stay in the cache and far from the size of a model.
SLICE_ROWS: Final = 256
HEAD_NORM_FRACTION: Final = 16
ATTENTION_DIGITS: Final = 40

Doubles = NDArray[np.float64]
Progress = Callable[[int, int], None]
Bits = Literal[8, 16]
MatrixRole = Role | Literal["embedding"]


@dataclass(frozen=True)
class Recipe:
    """The choices of an import. `context_max` of 0 keeps the checkpoint's own."""

    rotation_seed: int = 1
    qkv_bits: Bits = 8
    o_bits: Bits = 8
    gate_up_bits: Bits = 8
    down_bits: Bits = 16
    head_bits: Bits = 8
    residual_fraction: int = 16
    hidden_fraction: int = 16
    qk_hadamard: bool = True
    context_max: int = 0


def open_checkpoint(path: Path) -> Checkpoint:
    """A folder with safetensors, or a GGUF file. Raises CheckpointError."""
    if path.is_dir():
        return SafetensorsCheckpoint(path)
    if path.suffix == ".gguf" and path.is_file():
        return GgufCheckpoint(path)
    raise CheckpointError(f"{path} is neither a folder with safetensors nor a .gguf file")


def import_checkpoint(
    checkpoint: Checkpoint, store: ModelStore, name: str, recipe: Recipe, progress: Progress = lambda done, total: None
) -> bytes:
    """Convert a checkpoint into a model of the store and return its root. Interrupted, it leaves nothing."""
    # What cannot be used is refused before the long work.
    tokenizer = ChatTokenizer(checkpoint.tokenizer, checkpoint.chat_template)
    header = header_of(checkpoint.config, recipe)
    if tokenizer.vocabulary > header.vocabulary:
        raise CheckpointError(f"the tokenizer knows {tokenizer.vocabulary} tokens, the model {header.vocabulary}")
    with store.importing() as directory:
        writer = ModelWriter(directory, header)
        write_model(checkpoint, recipe, writer, progress)
        provenance = {"name": name, "recipe": asdict(recipe), **checkpoint.provenance}
        return writer.finish(checkpoint.tokenizer, checkpoint.chat_template, provenance)


def header_of(config: DecoderConfig, recipe: Recipe) -> Header:
    """The header of the model that a recipe makes. Raises ModelUnsupported for shapes beyond the specification."""
    context_max = min(config.context_max, recipe.context_max or config.context_max, 131_072)
    hadamard = recipe.qk_hadamard and config.head_width & (config.head_width - 1) == 0
    mantissa, exponent = attention_constant(config.head_width, hadamard)
    return Header(
        layers=config.layers,
        model_width=config.model_width,
        heads=config.heads,
        key_value_heads=config.key_value_heads,
        head_width=config.head_width,
        feed_forward_width=config.feed_forward_width,
        vocabulary=config.vocabulary,
        context_max=context_max,
        residual_fraction=recipe.residual_fraction,
        hidden_fraction=recipe.hidden_fraction,
        epsilon_q48=round(Decimal(config.norm_epsilon) * 2**48),
        attention_mantissa=mantissa,
        attention_exponent=exponent,
        qkv_bias=int(config.qkv_bias),
        qk_norm=int(config.qk_norm),
        qk_hadamard=int(hadamard),
        qkv_bits=recipe.qkv_bits,
        o_bits=recipe.o_bits,
        gate_up_bits=recipe.gate_up_bits,
        down_bits=recipe.down_bits,
        head_bits=recipe.head_bits,
        end_tokens=config.end_tokens,
    )


def attention_constant(head_width: int, hadamard: bool) -> tuple[int, int]:
    """(Cm, Ce): log2(e) / sqrt(head_width) / 127^2, with what the Hadamard's shift leaves, in 16 bits."""
    with localcontext(Context(prec=ATTENTION_DIGITS)):
        value = 1 / Decimal(2).ln() / Decimal(head_width).sqrt() / 127**2
        if hadamard:
            value = value * 4 ** ((head_width.bit_length() - 1) // 2) / head_width
        exponent = 0
        while value * 2**-exponent < 2**15:
            exponent -= 1
        mantissa = int((value * 2**-exponent).to_integral_value(ROUND_HALF_EVEN))
    return (mantissa, exponent) if mantissa < 2**16 else (2**15, exponent + 1)


def write_model(checkpoint: Checkpoint, recipe: Recipe, writer: ModelWriter, progress: Progress) -> None:
    """Write every tensor of the model; `progress` hears of each finished layer."""
    conversion = _Conversion(checkpoint, recipe, writer)
    total = writer.header.layers + 2
    conversion.vocabulary("embedding", "embed_tokens.weight", None)
    progress(1, total)
    for layer in range(writer.header.layers):
        conversion.layer(layer)
        progress(layer + 2, total)
    head = "embed_tokens.weight" if checkpoint.config.tied_head else "lm_head.weight"
    conversion.vocabulary("head", head, conversion.vector("norm.weight", writer.header.model_width))
    config = checkpoint.config
    frequencies = inverse_frequencies(config.rotary_base, config.rotary_divisors)
    cos, sin = rotary_tables(frequencies, writer.header.context_max)
    writer.tensor("rope.cos", cos)
    writer.tensor("rope.sin", sin)
    progress(total, total)


class _Conversion:
    """One import in progress."""

    def __init__(self, checkpoint: Checkpoint, recipe: Recipe, writer: ModelWriter) -> None:
        self._checkpoint = checkpoint
        self._writer = writer
        self._header = writer.header
        self._rotation = Rotation(writer.header.model_width, recipe.rotation_seed)

    def vocabulary(self, target: Literal["embedding", "head"], source: str, fold: Doubles | None) -> None:
        """The embedding, or the head with the last norm folded in."""
        self._expect(source, (self._header.vocabulary, self._header.model_width))
        self._reading_residual(target, source, target, self._header.vocabulary, 0, fold)

    def layer(self, layer: int) -> None:
        header, prefix = self._header, f"layers.{layer}"
        width, hidden = header.model_width, header.feed_forward_width
        key_value_width = header.key_value_heads * header.head_width

        norm = self.vector(f"{prefix}.input_layernorm.weight", width)
        first = 0
        for name, rows in (("q", header.attention_width), ("k", key_value_width), ("v", key_value_width)):
            source = f"{prefix}.self_attn.{name}_proj"
            self._reading_residual("qkv", f"{source}.weight", f"{prefix}.qkv", rows, first, norm)
            if header.qkv_bias:
                self._fixed_point(f"{prefix}.qkv.bias", self.vector(f"{source}.bias", rows), PROJECTION_FRACTION, first)
            first += rows
        if header.qk_norm:
            for name in ("q_norm", "k_norm"):
                weight = self.vector(f"{prefix}.self_attn.{name}.weight", header.head_width)
                self._fixed_point(f"{prefix}.{name}", weight, HEAD_NORM_FRACTION, 0)
        self._writing_residual("o", f"{prefix}.self_attn.o_proj.weight", f"{prefix}.o", header.attention_width)

        norm = self.vector(f"{prefix}.post_attention_layernorm.weight", width)
        for first, name in ((0, "gate"), (hidden, "up")):
            source = f"{prefix}.mlp.{name}_proj.weight"
            self._reading_residual("gate_up", source, f"{prefix}.gate_up", hidden, first, norm)
        self._writing_residual("down", f"{prefix}.mlp.down_proj.weight", f"{prefix}.down", hidden)

    def vector(self, source: str, length: int) -> Doubles:
        self._expect(source, (length,))
        return self._finite_rows(source, 0, length)

    def _reading_residual(
        self, role: MatrixRole, source: str, target: str, rows: int, first: int, fold: Doubles | None
    ) -> None:
        """A matrix whose input is the residual: each row is a vector of the residual space, turned by itself."""
        self._expect(source, (rows, self._header.model_width))
        for start in range(0, rows, SLICE_ROWS):
            part = self._finite_rows(source, start, min(SLICE_ROWS, rows - start))
            if fold is not None:
                part *= fold
            self._quantise(role, target, self._rotation.apply(part), first + start)

    def _writing_residual(self, role: MatrixRole, source: str, target: str, columns: int) -> None:
        """A matrix whose output is added to the residual: its columns are turned, so it is held whole."""
        width = self._header.model_width
        self._expect(source, (width, columns))
        matrix = self._finite_rows(source, 0, width)
        for start in range(0, columns, SLICE_ROWS):
            part = slice(start, start + SLICE_ROWS)
            matrix[:, part] = self._rotation.apply_transposed(matrix[:, part])
        for start in range(0, width, SLICE_ROWS):
            self._quantise(role, target, matrix[start : start + SLICE_ROWS], start)

    def _finite_rows(self, source: str, first: int, count: int) -> Doubles:
        values = self._checkpoint.rows(source, first, count).astype(np.float64)
        if not np.isfinite(values).all():
            raise CheckpointError(f"tensor {source} holds NaN or infinity")
        return values

    def _expect(self, source: str, shape: tuple[int, ...]) -> None:
        actual = self._checkpoint.shape(source)
        if actual != shape:
            raise CheckpointError(f"tensor {source} has shape {list(actual)}; the configuration asks for {list(shape)}")

    def _quantise(self, role: MatrixRole, target: str, rows: Doubles, first: int) -> None:
        input_max = 1 if role == "embedding" else QUANTISED_MAX[self._header.bits(role)]
        quantised = quantise_rows(rows, input_max, self._header.exponent_max(role), target)
        for kind, values in quantised._asdict().items():
            self._writer.rows(f"{target}.{kind}", first, values)

    def _fixed_point(self, target: str, values: Doubles, fraction: int, first: int) -> None:
        scaled = np.rint(np.ldexp(values, fraction))
        if np.abs(scaled).max() >= 2**31:
            raise ModelUnsupported(f"tensor {target} holds {np.abs(values).max():g}, more than the format can carry")
        self._writer.rows(target, first, scaled.astype(np.int32))
