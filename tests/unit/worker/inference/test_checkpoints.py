"""Readers of safetensors folders and GGUF files: what they read, and how they refuse."""

import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from tests.unit.worker.inference.float_checkpoints import CONFIG, MemoryCheckpoint, random_checkpoint, write_folder
from worker.inference.errors import CheckpointError
from worker.inference.exact.convert import open_checkpoint
from worker.inference.exact.safetensors_checkpoint import SafetensorsCheckpoint


def assert_same(actual: Any, expected: MemoryCheckpoint) -> None:
    assert actual.config == expected.config
    for name, tensor in expected.tensors.items():
        assert actual.shape(name) == tensor.shape
        assert np.array_equal(actual.rows(name, 0, len(tensor)), tensor)
        assert np.array_equal(actual.rows(name, 3, 5), tensor[3:8])


@pytest.mark.parametrize("changes", [{}, {"qkv_bias": True, "tied_head": False}, {"qk_norm": True}])
@pytest.mark.parametrize("shards", [1, 3])
def test_safetensors_folder(changes: dict[str, Any], shards: int, tmp_path: Path) -> None:
    checkpoint = random_checkpoint(1, **changes)
    write_folder(checkpoint, tmp_path, shards=shards)
    opened = open_checkpoint(tmp_path)
    assert_same(opened, checkpoint)
    assert opened.tokenizer == checkpoint.tokenizer
    assert opened.chat_template.endswith(checkpoint.chat_template)


def write_safetensors(path: Path, header: Any, data: bytes = b"") -> None:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)


def test_bfloat16_is_read_exactly(tmp_path: Path) -> None:
    write_folder(random_checkpoint(), tmp_path)
    values = np.array([1.0, -2.5, 3.0e38, 2.0**-120], dtype=np.float32)
    data = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    write_safetensors(
        tmp_path / "model.safetensors", {"x": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}, data
    )
    truncated = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    assert np.array_equal(SafetensorsCheckpoint(tmp_path).rows("x", 0, 4), truncated)


def test_deep_json_is_refused_however_deep_python_may_recurse(tmp_path: Path) -> None:
    """The packages of the chain raise Python's limit so far that its own JSON reader overflows the C stack."""
    write_folder(random_checkpoint(), tmp_path)
    write_safetensors(tmp_path / "model.safetensors", b"[" * 10_000_000, bytes(4))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 10_000_000))
    try:
        with pytest.raises(CheckpointError, match="JSON"):
            open_checkpoint(tmp_path)
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{", "JSON"),
        (b"[]", "object"),
        (b"[" * 100_000, "JSON"),
        ({"x": {"dtype": "I32", "shape": [1], "data_offsets": [0, 4]}}, "tensor x is I32"),
        ({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "tensor x does not lie"),
        ({"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, "does not lie"),
        ({"x": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, "does not lie"),
        ({"x": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, "does not lie"),
        ({"x": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, "does not lie"),
        ({"x": {"dtype": "F32", "shape": [1], "data_offsets": [4]}}, "malformed"),
        ({"x": 7}, "malformed"),
    ],
)
def test_malformed_safetensors_are_refused(header: Any, message: str, tmp_path: Path) -> None:
    write_folder(random_checkpoint(), tmp_path)
    write_safetensors(tmp_path / "model.safetensors", header, bytes(4))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    write_folder(random_checkpoint(), tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for length in (0, 7, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            open_checkpoint(tmp_path)


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "weights.bin"])
def test_shards_outside_the_folder_are_refused(shard: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.safetensors").write_bytes(b"")
    write_folder(random_checkpoint(), folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": shard}}))
    with pytest.raises(CheckpointError, match="not a plain safetensors file name"):
        open_checkpoint(folder)


def test_missing_and_repeated_pieces_are_named(tmp_path: Path) -> None:
    write_folder(random_checkpoint(), tmp_path, shards=2)
    with pytest.raises(CheckpointError, match="nothing"):
        open_checkpoint(tmp_path).rows("nothing.weight", 0, 1)
    (tmp_path / "model-0.safetensors").write_bytes((tmp_path / "model-1.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="another shard"):
        open_checkpoint(tmp_path)
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-1\.safetensors: the index names this shard"):
        open_checkpoint(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    write_folder(random_checkpoint(), tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="neither"):
        open_checkpoint(tmp_path / "absent")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type"),
        ({"hidden_act": "gelu"}, "SiLU"),
        ({"attention_bias": True}, "biases"),
        ({"hidden_size": None}, "hidden_size|NoneType"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "yarn"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor"),
        ({"rms_norm_eps": 1.0}, "epsilon"),
        ({"num_hidden_layers": 0}, "below 1"),
        ({"head_dim": 10**15}, "head width"),
        ({"rms_norm_eps": float("nan")}, "cannot be read"),
        ({"rope_theta": float("nan")}, "cannot be read"),
        ({"rope_theta": 0.5}, "base"),
    ],
)
def test_configurations_that_cannot_be_imported(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_folder(random_checkpoint(), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


def test_configuration_details(tmp_path: Path) -> None:
    write_folder(random_checkpoint(), tmp_path)
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "model_type": "mistral", "sliding_window": 32, "eos_token_id": 2}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 2, 7]}))
    config = open_checkpoint(tmp_path).config
    assert (config.context_max, config.end_tokens) == (32, (2, 7))

    scaling = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500000.0}
    path.write_text(json.dumps({**settings, "rope_parameters": scaling}))
    config = open_checkpoint(tmp_path).config
    assert (config.rotary_base, set(config.rotary_divisors)) == (Decimal("500000.0"), {Decimal("2.0")})


def interleaved(tensor: Any, head_width: int) -> Any:
    """llama.cpp's order of query and key rows: the two halves of a head, alternating."""
    return tensor.reshape(-1, 2, head_width // 2, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)


def write_gguf(checkpoint: MemoryCheckpoint, path: Path, *, architecture: str = "llama", pre: str = "smollm") -> None:
    config, writer = checkpoint.config, gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.layers)
    writer.add_embedding_length(config.model_width)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.key_value_heads)
    writer.add_key_length(config.head_width)
    writer.add_feed_forward_length(config.feed_forward_width)
    writer.add_context_length(config.context_max)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_rope_freq_base(float(config.rotary_base))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = ["<end>", "<|im_end|>", *letters, "th", "the"]
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, *[1] * 28])
    writer.add_token_merges(["t h", "th e"])
    writer.add_eos_token_id(1)
    writer.add_chat_template("{{ messages[0].content }}")
    names = {
        "embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
        "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
        "q_norm": "attn_q_norm", "k_norm": "attn_k_norm",
        "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down",
    }  # fmt: skip
    for name, tensor in checkpoint.tensors.items():
        stem, kind = name.rsplit(".", 1)
        block = f"blk.{stem.split('.')[1]}." if stem.startswith("layers.") else ""
        permuted = architecture == "llama" and stem.endswith(("q_proj", "k_proj"))
        stored = interleaved(tensor, config.head_width) if permuted else tensor
        writer.add_tensor(f"{block}{names[stem.rsplit('.', 1)[-1]]}.{kind}", stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [("llama", {}), ("llama", {"tied_head": False}), ("qwen2", {"qkv_bias": True}), ("qwen3", {"qk_norm": True})],
)
def test_gguf_file(architecture: str, changes: dict[str, Any], tmp_path: Path) -> None:
    changes = {**changes, "norm_epsilon": float(np.float32(1e-5)), "rotary_base": Decimal("10000.0")}
    checkpoint = random_checkpoint(2, **changes)
    write_gguf(checkpoint, tmp_path / "model.gguf", architecture=architecture)
    opened = open_checkpoint(tmp_path / "model.gguf")
    assert_same(opened, checkpoint)
    assert opened.chat_template.endswith("{{ messages[0].content }}")
    assert "<|im_end|>" in opened.chat_template


def test_gguf_tokenizer_beside_the_file_wins(tmp_path: Path) -> None:
    write_gguf(random_checkpoint(), tmp_path / "model.gguf", pre="unheard-of")
    with pytest.raises(CheckpointError, match="unheard-of"):
        open_checkpoint(tmp_path / "model.gguf")
    (tmp_path / "tokenizer.json").write_bytes(b"beside")
    assert open_checkpoint(tmp_path / "model.gguf").tokenizer == b"beside"


def test_broken_gguf_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(random_checkpoint(), path)
    whole = path.read_bytes()
    for length in (0, 3, 20, 200, 1200, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            open_checkpoint(path)
    write_gguf(random_checkpoint(), path, architecture="gptneox")
    with pytest.raises(CheckpointError, match="gptneox"):
        open_checkpoint(path)


def test_config_is_shared_by_all_tests() -> None:
    """The two readers are compared with one configuration; it must not be the default everywhere."""
    assert CONFIG.heads != CONFIG.key_value_heads
    assert CONFIG.heads * CONFIG.head_width != CONFIG.model_width
