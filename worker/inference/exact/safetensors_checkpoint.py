"""Reads a Hugging Face folder: config.json, safetensors (one file or shards), tokenizer.json, chat template.

The format's header is parsed here rather than by the `safetensors` package, whose numpy side cannot read bfloat16, the
type of nearly every checkpoint. Files are mapped, never loaded; every size is checked before it is used.
"""

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from worker.inference.errors import CheckpointError
from worker.inference.exact.checkpoint import (
    DecoderConfig,
    Floats,
    linear_divisors,
    llama3_divisors,
    self_contained_template,
)

__all__ = ["SafetensorsCheckpoint"]

HEADER_BYTES_MAX: Final = 100_000_000  # the format's own limit
JSON_BYTES_MAX: Final = 1 << 26
MODEL_TYPES: Final = ("llama", "mistral", "qwen2", "qwen3")

_TYPES: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class _Tensor:
    """A tensor in a mapped file: its type, shape and bytes."""

    def __init__(self, type_name: str, shape: tuple[int, ...], data: NDArray[np.uint8]) -> None:
        self.shape = shape
        self._type_name = type_name
        self._values = data.view(np.dtype(_TYPES[type_name])).reshape(shape)

    def rows(self, first: int, count: int) -> Floats:
        part = self._values[first : first + count]
        if self._type_name == "BF16":  # the upper half of a float32
            return (part.astype(np.uint32) << 16).view(np.float32)
        return part.astype(np.float32)


class SafetensorsCheckpoint:
    """A `Checkpoint` in a folder. Raises CheckpointError naming the file and what is wrong with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tensors: dict[str, _Tensor] = {}
        shards = _shards(folder)
        for shard in shards:
            for name, tensor in _open_shard(shard).items():
                if name in self._tensors:
                    raise CheckpointError(f"{shard}: tensor {name} is also in another shard")
                self._tensors[name] = tensor
        self.config = parse_config(
            _read_json(folder / "config.json"), _optional_json(folder / "generation_config.json")
        )
        self.tokenizer = _read_tokenizer(folder)
        self.chat_template = _read_chat_template(folder)
        self.provenance: Mapping[str, Any] = {
            "source": folder.name,
            "files": {shard.name: _headers_digest(shard) for shard in shards},
        }

    def shape(self, name: str) -> tuple[int, ...]:
        return self._find(name).shape

    def rows(self, name: str, first: int, count: int) -> Floats:
        return self._find(name).rows(first, count)

    def _find(self, name: str) -> _Tensor:
        for stored in (f"model.{name}", name):
            if stored in self._tensors:
                return self._tensors[stored]
        raise CheckpointError(f"{self._folder}: tensor {name} is missing")


def _shards(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        single = folder / "model.safetensors"
        if not single.exists():
            raise CheckpointError(f"{folder} holds neither model.safetensors nor its index")
        return [single]
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map")
    shards = []
    for name in sorted({str(value) for value in weight_map.values()}):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index} names the shard {name!r}, which is not a plain safetensors file name")
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name}: the index names this shard, but it is missing")
        shards.append(folder / name)
    return shards


def _open_shard(path: Path) -> dict[str, _Tensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if size < 8 or header_bytes > min(HEADER_BYTES_MAX, size - 8):
            raise CheckpointError(f"{path} is not a safetensors file: its header does not fit")
        header = _parse_json(path, file.read(header_bytes))
    start = 8 + header_bytes
    data = np.memmap(path, dtype=np.uint8, mode="r") if size else np.empty(0, np.uint8)
    return {
        name: _place(f"{path}: tensor {name}", entry, data[start:])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _place(where: str, entry: Any, data: NDArray[np.uint8]) -> _Tensor:
    try:
        type_name, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        well_formed = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where} has a malformed entry") from error
    if type_name not in _TYPES:
        raise CheckpointError(f"{where} is {type_name}; only {', '.join(_TYPES)} can be imported")
    elements = 1
    for extent in shape if well_formed else ():
        elements *= extent
    expected = elements * np.dtype(_TYPES[type_name]).itemsize
    if not well_formed or not begin <= end <= len(data) or end - begin != expected:
        raise CheckpointError(f"{where} does not lie within the file, or not with the size that its shape asks for")
    return _Tensor(type_name, shape, data[begin:end])


def parse_config(config: Mapping[str, Any], generation: Mapping[str, Any]) -> DecoderConfig:
    """config.json and generation_config.json as a DecoderConfig. Raises CheckpointError."""
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise CheckpointError(f"config.json: model_type is {model_type!r}; supported are {', '.join(MODEL_TYPES)}")
    if config.get("hidden_act", "silu") != "silu" or config.get("mlp_bias") or config.get("attention_bias"):
        raise CheckpointError("config.json: only SiLU, and no biases besides Qwen's, can be imported")
    try:
        return _parse_fields(config, generation, model_type)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(f"config.json: {error!r}") from error


def _parse_fields(config: Mapping[str, Any], generation: Mapping[str, Any], model_type: str) -> DecoderConfig:
    heads, width = int(config["num_attention_heads"]), int(config["hidden_size"])
    head_width = int(config.get("head_dim") or width // heads)
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    base = Decimal(str(rope.get("rope_theta") or config.get("rope_theta", 10000)))
    window = config.get("sliding_window") if model_type == "mistral" or config.get("use_sliding_window") else None
    end = generation.get("eos_token_id", config.get("eos_token_id"))
    end_tokens = [] if end is None else end if isinstance(end, list) else [end]
    return DecoderConfig(
        layers=int(config["num_hidden_layers"]),
        model_width=width,
        heads=heads,
        key_value_heads=int(config.get("num_key_value_heads") or heads),
        head_width=head_width,
        feed_forward_width=int(config["intermediate_size"]),
        vocabulary=int(config["vocab_size"]),
        # Within its window a sliding-window model is an ordinary one; beyond it, it is not imported.
        context_max=min(int(config["max_position_embeddings"]), int(window or 2**31)),
        norm_epsilon=float(config["rms_norm_eps"]),
        rotary_base=base,
        rotary_divisors=_rotary_divisors(rope, head_width // 2, base),
        tied_head=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=model_type == "qwen2",
        qk_norm=model_type == "qwen3",
        end_tokens=tuple(sorted({int(token) for token in end_tokens})),
    )


def _rotary_divisors(rope: Mapping[str, Any], pairs: int, base: Decimal) -> tuple[Decimal, ...]:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return linear_divisors(pairs, Decimal(1))
    factor = Decimal(str(rope["factor"]))
    if kind == "linear":
        return linear_divisors(pairs, factor)
    if kind == "llama3":
        low, high, context = (
            Decimal(str(rope[key]))
            for key in ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        )
        return llama3_divisors(pairs, base, factor=factor, low=low, high=high, original_context=context)
    raise CheckpointError(f"config.json: rotary scaling {kind!r} is not supported (default, linear, llama3 are)")


def _read_tokenizer(folder: Path) -> bytes:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: convert the tokenizer with transformers and save it there")
    return path.read_bytes()


def _read_chat_template(folder: Path) -> str:
    settings, path = _optional_json(folder / "tokenizer_config.json"), folder / "chat_template.jinja"
    template = path.read_text(encoding="utf-8") if path.is_file() else settings.get("chat_template") or ""
    if isinstance(template, list):  # several, by name
        by_name = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = by_name.get("default") or ""
    tokens = (settings.get(f"{name}_token") or "" for name in ("bos", "eos"))
    begin, end = (str(token.get("content", "") if isinstance(token, dict) else token) for token in tokens)
    return self_contained_template(str(template), begin, end)


def _optional_json(path: Path) -> dict[str, Any]:
    return _read_json(path) if path.exists() else {}


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing")
    if path.stat().st_size > JSON_BYTES_MAX:
        raise CheckpointError(f"{path} is larger than {JSON_BYTES_MAX} bytes")
    return _parse_json(path, path.read_bytes())


def _parse_json(path: Path, data: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(data)  # bounds the nesting; `json` overflows the C stack where EELS raised Python's limit
    except ValueError as error:
        raise CheckpointError(f"{path} holds JSON that cannot be read: {error}") from error
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return parsed


def _headers_digest(path: Path) -> dict[str, Any]:
    """Size and the hash of the header: enough to recognise a file without reading gigabytes twice."""
    with path.open("rb") as file:
        length = file.read(8)
        header = length + file.read(int.from_bytes(length, "little"))
    return {"bytes": path.stat().st_size, "header_sha256": hashlib.sha256(header).hexdigest()}
