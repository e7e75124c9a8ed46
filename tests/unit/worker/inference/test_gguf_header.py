"""GGUF heads: what is read, and that every damage has a name."""

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.inference.errors import ModelCorrupt, ModelError, ModelNotFound, ModelUnsupported
from worker.inference.gguf_header import read_gguf_header


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def gguf(*, version: int = 3, data_bytes: int = 64, tensor_kind: int = 0) -> bytes:
    """A file with one f32[4, 4] tensor and three pairs of metadata."""
    pairs = [
        pair("general.architecture", 8, text("llama")),
        pair("llama.block_count", 4, struct.pack("<I", 7)),
        pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2) + text("<s>") + text("é")),
        pair("tokenizer.ggml.scores", 9, struct.pack("<IQ2f", 6, 2, 0.5, 1.5)),
        pair("tokenizer.ggml.bos_token_id", 4, struct.pack("<I", 1)),
    ]
    tensor = text("w") + struct.pack("<IQQIQ", 2, 4, 4, tensor_kind, 0)
    head = b"GGUF" + struct.pack("<IQQ", version, 1, len(pairs)) + b"".join(pairs) + tensor
    return head + bytes(-len(head) % 32) + bytes(data_bytes)


def write(tmp_path: Path, raw: bytes) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(raw)
    return path


def test_metadata_is_read(tmp_path: Path) -> None:
    header = read_gguf_header(write(tmp_path, gguf()))
    assert header.text("general.architecture") == "llama"
    assert header.integer("llama.block_count") == 7
    assert header.metadata["tokenizer.ggml.scores"] == [0.5, 1.5]
    assert header.token("tokenizer.ggml.bos_token_id") == "é"
    assert header.token("tokenizer.ggml.eos_token_id") == ""
    assert (header.tensor_count, header.file_bytes) == (1, len(gguf()))
    with pytest.raises(ModelCorrupt, match="no string"):
        header.text("tokenizer.chat_template")
    with pytest.raises(ModelCorrupt, match="no integer"):
        header.integer("general.architecture")


@pytest.mark.parametrize(
    ("raw", "error", "complaint"),
    [
        (b"", ModelCorrupt, "not a GGUF file"),
        (b"PK\3\4" + bytes(100), ModelCorrupt, "not a GGUF file"),
        (gguf(version=1), ModelUnsupported, "version 1"),
        (gguf(data_bytes=63), ModelCorrupt, "cut off"),
        (gguf(tensor_kind=4000), ModelUnsupported, "unknown type 4000"),
        (gguf()[:40], ModelCorrupt, "cut off"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), ModelCorrupt, "cut off"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, raw: bytes, error: type[Exception], complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        read_gguf_header(write(tmp_path, raw))


def test_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        read_gguf_header(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.integers(4, len(gguf()) - 65), byte=st.integers(0, 255), length=st.integers(0, len(gguf())))
def test_any_damage_is_read_or_refused(tmp_path: Path, place: int, byte: int, length: int) -> None:
    raw = bytearray(gguf())
    raw[place] = byte
    refused = False
    try:
        header = read_gguf_header(write(tmp_path, bytes(raw[:length])))
    except ModelError:
        refused = True
    assert refused or header.file_bytes == length
