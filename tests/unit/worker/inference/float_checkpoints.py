"""Small float checkpoints of every family, in memory and on disk, and a float decoder to hold exact models against."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from worker.inference.exact.checkpoint import DecoderConfig, Floats, inverse_frequencies, linear_divisors

__all__ = ["CONFIG", "TOKENIZER", "MemoryCheckpoint", "float_logits", "random_checkpoint", "write_folder"]

TOKENIZER = b'{"version":"1.0","model":{"type":"WordLevel","vocab":{"a":0,"b":1},"unk_token":"a"}}'
CONFIG = DecoderConfig(
    layers=2,
    model_width=96,
    heads=4,
    key_value_heads=2,
    head_width=32,
    feed_forward_width=160,
    vocabulary=120,
    context_max=64,
    norm_epsilon=1e-5,
    rotary_base=Decimal(10000),
    rotary_divisors=linear_divisors(16, Decimal(1)),
    tied_head=True,
    qkv_bias=False,
    qk_norm=False,
    end_tokens=(1,),
)


@dataclass
class MemoryCheckpoint:
    """A `Checkpoint` of arrays. `reads` remembers the largest number of rows asked for at once."""

    config: DecoderConfig
    tensors: dict[str, Floats]
    tokenizer: bytes = TOKENIZER
    chat_template: str = "{{ messages[0].content }}"
    provenance: Mapping[str, Any] = field(default_factory=lambda: {"source": "memory"})

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def rows(self, name: str, first: int, count: int) -> Floats:
        return self.tensors[name][first : first + count].copy()


def random_checkpoint(seed: int = 0, loudness: float = 1.0, **changes: Any) -> MemoryCheckpoint:
    """Weights of a trained model's size, with two residual channels louder than the others."""
    config = replace(CONFIG, **changes)
    generator = np.random.Generator(np.random.PCG64(seed))
    width, head = config.model_width, config.head_width
    loud = np.ones(width, dtype=np.float32)
    loud[generator.integers(0, width, 2)] = loudness

    def matrix(rows: int, columns: int, gain: float = 1.0) -> Floats:
        return (generator.standard_normal((rows, columns)) * gain / columns**0.5).astype(np.float32)

    tensors = {"embed_tokens.weight": matrix(config.vocabulary, width, 3.0) * loud}
    for layer in range(config.layers):
        prefix = f"layers.{layer}"
        for name in ("input", "post_attention"):
            tensors[f"{prefix}.{name}_layernorm.weight"] = generator.uniform(0.5, 1.5, width).astype(np.float32)
        for name, heads in (("q", config.heads), ("k", config.key_value_heads), ("v", config.key_value_heads)):
            tensors[f"{prefix}.self_attn.{name}_proj.weight"] = matrix(heads * head, width)
            if config.qkv_bias:
                bias = generator.normal(0, 1, heads * head)
                tensors[f"{prefix}.self_attn.{name}_proj.bias"] = bias.astype(np.float32)
            if config.qk_norm and name != "v":
                weight = generator.uniform(0.5, 2.0, head)
                tensors[f"{prefix}.self_attn.{name}_norm.weight"] = weight.astype(np.float32)
        tensors[f"{prefix}.self_attn.o_proj.weight"] = matrix(width, config.heads * head)
        for name in ("gate", "up"):
            tensors[f"{prefix}.mlp.{name}_proj.weight"] = matrix(config.feed_forward_width, width, 1.5)
        tensors[f"{prefix}.mlp.down_proj.weight"] = matrix(width, config.feed_forward_width)
    tensors["norm.weight"] = generator.uniform(0.5, 1.5, width).astype(np.float32)
    if not config.tied_head:
        tensors["lm_head.weight"] = matrix(config.vocabulary, width, 2.0)
    return MemoryCheckpoint(config, tensors)


def write_folder(checkpoint: MemoryCheckpoint, folder: Path, *, shards: int = 1, dtype: str = "float32") -> None:
    """The checkpoint as a Hugging Face folder, in one file or several."""
    config = checkpoint.config
    names = sorted(checkpoint.tensors)
    stored = {f"model.{n}" if not n.startswith("lm_head") else n: checkpoint.tensors[n].astype(dtype) for n in names}
    if shards == 1:
        save_file(stored, folder / "model.safetensors")
    else:
        weight_map = {name: f"model-{index % shards}.safetensors" for index, name in enumerate(stored)}
        for shard in sorted(set(weight_map.values())):
            save_file({name: stored[name] for name in stored if weight_map[name] == shard}, folder / shard)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    settings = {
        "model_type": "qwen2" if config.qkv_bias else "qwen3" if config.qk_norm else "llama",
        "num_hidden_layers": config.layers,
        "hidden_size": config.model_width,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.head_width,
        "intermediate_size": config.feed_forward_width,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context_max,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": float(config.rotary_base),
        "tie_word_embeddings": config.tied_head,
        "eos_token_id": list(config.end_tokens),
    }
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "tokenizer.json").write_bytes(checkpoint.tokenizer)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": checkpoint.chat_template}))


def float_logits(checkpoint: MemoryCheckpoint, tokens: list[int]) -> NDArray[np.float64]:
    """The decoder in float64, as its paper has it. [n, vocabulary]"""
    config, tensors = checkpoint.config, {name: t.astype(np.float64) for name, t in checkpoint.tensors.items()}

    def norm(x: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled: NDArray[np.float64] = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + config.norm_epsilon) * weight
        return scaled

    frequencies = [float(f) for f in inverse_frequencies(config.rotary_base, config.rotary_divisors)]
    angles = np.outer(np.arange(len(tokens)), frequencies)[:, None]
    cos, sin = np.cos(angles), np.sin(angles)

    def positioned(prefix: str, name: str, x: NDArray[np.float64], heads: int) -> NDArray[np.float64]:
        z = x @ tensors[f"{prefix}.self_attn.{name}_proj.weight"].T
        z = (z + tensors.get(f"{prefix}.self_attn.{name}_proj.bias", 0)).reshape(len(x), heads, -1)
        if name == "v":
            return z
        if config.qk_norm:
            z = norm(z, tensors[f"{prefix}.self_attn.{name}_norm.weight"])
        first, second = np.split(z, 2, axis=-1)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    x = tensors["embed_tokens.weight"][tokens]
    group = config.heads // config.key_value_heads
    future = np.triu(np.full((len(tokens), len(tokens)), -np.inf), 1)
    for layer in range(config.layers):
        prefix = f"layers.{layer}"
        z = norm(x, tensors[f"{prefix}.input_layernorm.weight"])
        q = positioned(prefix, "q", z, config.heads)
        k, v = (np.repeat(positioned(prefix, name, z, config.key_value_heads), group, axis=1) for name in "kv")
        scores = np.einsum("thd,shd->hts", q, k) / config.head_width**0.5 + future
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("hts,shd->thd", shares / shares.sum(-1, keepdims=True), v).reshape(len(x), -1)
        x = x + mixed @ tensors[f"{prefix}.self_attn.o_proj.weight"].T
        z = norm(x, tensors[f"{prefix}.post_attention_layernorm.weight"])
        gate, up = (z @ tensors[f"{prefix}.mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ tensors[f"{prefix}.mlp.down_proj.weight"].T
    head = tensors["embed_tokens.weight" if config.tied_head else "lm_head.weight"]
    return norm(x, tensors["norm.weight"]) @ head.T
