"""Reads a GGUF file as a float checkpoint: whatever it is quantised to is what we take for the true weights.

Tensors are dequantised a few rows at a time from the mapped file. Undoes llama.cpp's reordering of query and key rows
(architecture `llama` only, which interleaves rotary pairs), and rebuilds tokenizer.json from the file's own vocabulary.
"""

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from worker.inference.errors import CheckpointError, ModelError
from worker.inference.exact.checkpoint import DecoderConfig, Floats, linear_divisors, self_contained_template
from worker.inference.exact.tokenizer import byte_pair_tokenizer
from worker.inference.gguf_header import GgufTensor, read_gguf_header

__all__ = ["GgufCheckpoint"]

ARCHITECTURES: Final = ("llama", "qwen2", "qwen3")
CONTROL_TOKEN, USER_TOKEN = 3, 4

# How `dequantize` wants types that are not quantised; all others as bytes.
_PLAIN: Final = {GGMLQuantizationType.F32: np.float32, GGMLQuantizationType.F16: np.float16}

_NAMES: Final = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
}
_LAYER_NAMES: Final = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


class GgufCheckpoint:
    """A `Checkpoint` in one GGUF file. Raises CheckpointError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            header = read_gguf_header(path)
        except ModelError as error:
            raise CheckpointError(str(error)) from error
        self._fields: Mapping[str, Any] = header.metadata
        self._tensors = header.tensors
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r")
        self._architecture = str(self._field("general.architecture"))
        if self._architecture not in ARCHITECTURES:
            raise CheckpointError(
                f"{path}: architecture {self._architecture!r}; supported are {', '.join(ARCHITECTURES)}"
            )
        try:
            self.config = self._read_config()
        except (TypeError, ValueError, ArithmeticError) as error:
            raise CheckpointError(f"{path}: {error!r}") from error
        self.tokenizer = self._read_tokenizer()
        template = str(self._fields.get("tokenizer.chat_template", ""))
        begin, end = (header.token(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos"))
        self.chat_template = self_contained_template(template, begin, end)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.provenance: Mapping[str, Any] = {
            "source": path.name,
            "files": {path.name: {"bytes": header.file_bytes, "sha256": digest}},
        }

    def shape(self, name: str) -> tuple[int, ...]:
        return self._find(name).shape

    def rows(self, name: str, first: int, count: int) -> Floats:
        tensor = self._find(name)
        order = np.arange(first, min(first + count, tensor.shape[0]))
        if self._architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            order = self._rotary_order(tensor.shape[0])[order]
        return self._dequantise(tensor)[order] if len(tensor.shape) == 1 else self._dequantise(tensor, order)

    def _dequantise(self, tensor: GgufTensor, order: NDArray[np.int64] | None = None) -> Floats:
        """A tensor, or those rows of a matrix, as float32. Rows of a file are whole blocks."""
        raw = self._bytes[tensor.offset : tensor.offset + tensor.bytes]
        try:
            if order is not None:
                raw = raw.reshape(tensor.shape[0], -1)[order]
            values: Floats = dequantize(raw.view(_PLAIN.get(tensor.kind, np.uint8)), tensor.kind).astype(np.float32)
        except (NotImplementedError, ValueError) as error:
            raise CheckpointError(f"{self._path}: tensors of type {tensor.kind.name} cannot be read") from error
        return values

    def _rotary_order(self, rows: int) -> NDArray[np.int64]:
        """Row numbers in the file, in the order of the checkpoint: pairs (2i, 2i + 1) become (i, i + h/2)."""
        per_head = np.arange(rows).reshape(rows // self.config.head_width, self.config.head_width // 2, 2)
        return per_head.swapaxes(1, 2).reshape(rows)

    def _find(self, name: str) -> GgufTensor:
        stem, _, kind = name.rpartition(".")
        if stem.startswith("layers."):
            _, layer, inner = stem.split(".", 2)
            stored = f"blk.{layer}.{_LAYER_NAMES[inner]}.{kind}"
        else:
            stored = f"{_NAMES[stem]}.{kind}"
        if stored not in self._tensors:
            raise CheckpointError(f"{self._path}: tensor {stored} is missing")
        return self._tensors[stored]

    def _field(self, name: str) -> Any:
        if name not in self._fields:
            raise CheckpointError(f"{self._path}: the field {name} is missing")
        return self._fields[name]

    def _read_config(self) -> DecoderConfig:
        prefix = self._architecture
        heads, width = (
            int(self._field(f"{prefix}.attention.head_count")),
            int(self._field(f"{prefix}.embedding_length")),
        )
        head_width = int(self._fields.get(f"{prefix}.attention.key_length", width // heads))
        end = {self._fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")} - {None}
        return DecoderConfig(
            layers=int(self._field(f"{prefix}.block_count")),
            model_width=width,
            heads=heads,
            key_value_heads=int(self._fields.get(f"{prefix}.attention.head_count_kv", heads)),
            head_width=head_width,
            feed_forward_width=int(self._field(f"{prefix}.feed_forward_length")),
            vocabulary=self.shape("embed_tokens.weight")[0],
            context_max=min(
                int(self._field(f"{prefix}.context_length")),
                int(self._fields.get(f"{prefix}.attention.sliding_window") or 2**31),
            ),
            norm_epsilon=float(self._field(f"{prefix}.attention.layer_norm_rms_epsilon")),
            rotary_base=Decimal(str(self._fields.get(f"{prefix}.rope.freq_base", 10000.0))),
            rotary_divisors=self._rotary_divisors(head_width // 2),
            tied_head="output.weight" not in self._tensors,
            qkv_bias="blk.0.attn_q.bias" in self._tensors,
            qk_norm="blk.0.attn_q_norm.weight" in self._tensors,
            end_tokens=tuple(sorted(int(str(token)) for token in end)),
        )

    def _rotary_divisors(self, pairs: int) -> tuple[Decimal, ...]:
        if "rope_freqs.weight" in self._tensors:
            factors = self._dequantise(self._tensors["rope_freqs.weight"])
            return tuple(Decimal(float(factor)) for factor in factors)
        kind = self._fields.get(f"{self._architecture}.rope.scaling.type", "none")
        if kind == "none":
            return linear_divisors(pairs, Decimal(1))
        if kind == "linear":
            return linear_divisors(pairs, Decimal(str(self._field(f"{self._architecture}.rope.scaling.factor"))))
        raise CheckpointError(f"{self._path}: rotary scaling {kind!r} is not supported")

    def _read_tokenizer(self) -> bytes:
        beside = self._path.with_name("tokenizer.json")
        if beside.is_file():
            return beside.read_bytes()
        model = self._field("tokenizer.ggml.model")
        if model != "gpt2":
            raise CheckpointError(
                f"{self._path}: its {model!r} tokenizer cannot be rebuilt; put the model's tokenizer.json beside it"
            )
        tokens = [str(token) for token in self._field("tokenizer.ggml.tokens")]
        types = list(self._fields.get("tokenizer.ggml.token_type", [1] * len(tokens)))
        special = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL_TOKEN]
        added = [token for token, kind in zip(tokens, types, strict=True) if kind == USER_TOKEN]
        merges = [str(merge) for merge in self._field("tokenizer.ggml.merges")]
        return byte_pair_tokenizer(
            tokens, merges, str(self._fields.get("tokenizer.ggml.pre", "default")), special, added
        )
