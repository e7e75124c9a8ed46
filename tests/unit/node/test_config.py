"""Settings: where they come from, which comes first, and what a wrong one gets."""

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from node.config import ROLES, SequencerConfig, WorkerConfig, example_toml, load
from node.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    file = write(tmp_path, "[sequencer]\nrpc_port = 1\ngrpc_port = 1\nattach_port = 1\n")
    environ = {"WARPGRID_SEQUENCER_GRPC_PORT": "2", "WARPGRID_SEQUENCER_ATTACH_PORT": "2", "OTHER": "x"}
    flags = {"attach_port": 3, "rpc_host": None}
    config = load(SequencerConfig, file, flags, environ)
    assert (config.rpc_port, config.grpc_port, config.attach_port) == (1, 2, 3)
    assert config.rpc_host == SequencerConfig().rpc_host


def test_a_path_in_a_file_is_taken_from_the_files_folder(tmp_path: Path) -> None:
    config = load(WorkerConfig, write(tmp_path, '[worker]\ndata_dir = "here"\n'), {}, {})
    assert config.data_dir == tmp_path / "here"
    given = load(WorkerConfig, None, {}, {"WARPGRID_WORKER_DATA_DIR": "there"})
    assert given.data_dir == Path("there")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[sequencer]\nrpc_prot = 1\n", "did you mean `rpc_port`"),
        ("[sequencer]\nzzz = 1\n", "known settings: data_dir"),
        ("[sequencer]\nrpc_port = true\n", "`rpc_port` must be int, not True"),
        ("[sequencer]\nrpc_port = 1.5\n", "`rpc_port` must be int, not 1.5"),
        ('[sequencer]\nrpc_port = "web"\n', "whole number"),
        ("[sequencer]\nrpc_host = 1\n", "`rpc_host` must be str"),
        ("[sequencer]\nrpc_port = 65536\n", "allowed: 0 to 65535"),
        ("[sequencer]\nblock_interval_ms = 9\n", "allowed: 10 to 60000"),
        ("[sequencer]\nstates_kept = -1\n", "allowed: 0 to any"),
        ('[sequencer]\nlog_level = "loud"\n', "allowed: debug, info, warning, error"),
        ("sequencer = 3\n", "must be a table"),
        ("[sequencer\n", "is not TOML"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(SequencerConfig, write(tmp_path, text), {}, {})
    assert words in str(refused.value)
    assert "settings.toml" in str(refused.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load(SequencerConfig, tmp_path / "none.toml", {}, {})
    with pytest.raises(ConfigError, match="cannot read"):
        load(SequencerConfig, tmp_path, {}, {})
    (tmp_path / "latin.toml").write_bytes(b"[sequencer]\nrpc_host = '\xff'\n")
    with pytest.raises(ConfigError, match="not TOML"):
        load(SequencerConfig, tmp_path / "latin.toml", {}, {})


def test_the_origin_of_a_wrong_value_is_named() -> None:
    with pytest.raises(ConfigError, match=r"the environment \(WARPGRID_WORKER_JOBS_MAX\)"):
        load(WorkerConfig, None, {}, {"WARPGRID_WORKER_JOBS_MAX": "many"})
    with pytest.raises(ConfigError, match="--jobs-max: `jobs_max` is 0; allowed: 1 to 1024"):
        load(WorkerConfig, None, {"jobs_max": 0}, {})
    with pytest.raises(ConfigError, match="--executor: `executor` is 'fast'; allowed: cpu, reference"):
        load(WorkerConfig, None, {"executor": "fast"}, {})


@pytest.mark.parametrize("role", ROLES)
def test_the_example_says_every_default(role: str, tmp_path: Path) -> None:
    example = example_toml(role)
    assert load(ROLES[role], write(tmp_path, example), {}, {}) == ROLES[role]()
    lines = [line[1:] if line.startswith("#") and not line.startswith("# ") else line for line in example.splitlines()]
    spoken: dict[str, Any] = tomllib.loads("\n".join(lines))[role]
    assert spoken == {
        one.name: str(one.default) if isinstance(one.default, Path) else one.default for one in fields(ROLES[role])
    }
    assert load(ROLES[role], write(Path(tmp_path), "\n".join(lines)), {}, {}).log_level == "info"


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_within_their_own_limits(role: str) -> None:
    given = {one.name: one.default for one in fields(ROLES[role])}
    assert load(ROLES[role], None, given, {}) == ROLES[role]()
