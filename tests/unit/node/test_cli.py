"""The command line: every command explains itself, and what is wrong is one sentence and an exit status."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from node.cli import app, main
from node.lazy import Deferred
from worker.errors import ChainRejected

JOB_ID = "0x" + "5f" * 32


SENTENCES: dict[tuple[str, ...], str] = {}


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command, loaded; what deferred ones are said to be goes into SENTENCES."""
    for name, command in group.commands.items():
        if isinstance(command, Deferred):
            SENTENCES[(*path, name)] = command.help or ""
            command = command.load()
        LOADED[(*path, name)] = command
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


LOADED: dict[tuple[str, ...], Any] = {}
COMMANDS = dict(commands(typer.main.get_command(app)))


def test_a_deferred_commands_sentence_is_its_own() -> None:
    assert len(SENTENCES) >= 10
    assert {path: LOADED[path].help.splitlines()[0].partition(". ")[0].rstrip(".") for path in SENTENCES} == {
        path: sentence.rstrip(".") for path, sentence in SENTENCES.items()
    }


def test_the_commands() -> None:
    groups = {path[0] for path in COMMANDS}
    assert groups == {"testnet", "sequencer", "worker", "job", "model", "inference", "evm", "config"}
    assert {path[1] for path in COMMANDS if path[0] == "job"} == {
        "submit",
        "status",
        "list",
        "cancel",
        "demand",
        "verify",
        "dispute",
    }


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_says_what_it_does_and_shows_an_example(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*path, "--help"])
    assert shown.exit_code == 0
    assert "Example" in shown.output
    assert f"warpgrid {' '.join(path)}" in " ".join(COMMANDS[path].help.split())
    for option in COMMANDS[path].params:
        assert option.help, f"{option.name} is not explained"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["warpgrid", *arguments])
    try:
        return main()
    except SystemExit as ended:
        return int(ended.code or 0)


ELSEWHERE = ("--rpc", "http://127.0.0.1:1", "--grpc", "127.0.0.1:1")
MISTAKES = [
    (("testnet", "status"), "testnet", "no local network in .warpgrid/testnet"),
    (("testnet", "logs"), "testnet", "start one with `warpgrid testnet up`"),
    (("testnet", "down"), "testnet", "no local network"),
    (("testnet", "up", "--model", "none.gguf"), "invalid_config", "does not exist: give an exact model"),
    (("testnet", "up", "--executor", "abacus"), "invalid_config", "there is no executor `abacus`"),
    (("testnet", "up", "--model", "key", "--data-dir", "/proc/none", "--base-port", "18545"), "system", "/proc/none"),
    (("job", "status", "xyz"), "invalid_config", "`xyz` is not a job id: it must be 0x and 64 hex digits"),
    (("job", "cancel", "0x12"), "invalid_config", "it has 1 bytes, expected 32"),
    (("job", "verify", ""), "invalid_config", "it has 0 bytes"),
    (("job", "verify", JOB_ID), "testnet", "no local network"),
    (("job", "list", "--rpc", "http://127.0.0.1:1"), "invalid_config", "--rpc and --grpc go together"),
    (("job", "list", "--grpc", "127.0.0.1:1"), "invalid_config", "--rpc and --grpc go together"),
    (("job", "list", *ELSEWHERE), "service_unreachable", "no coordinator at 127.0.0.1:1"),
    (("job", "list", "--rpc", "x", "--grpc", "x"), "invalid_config", "must be host:port"),
    (("job", "submit", "--prompt", "x", *ELSEWHERE), "invalid_config", "--key-file is missing"),
    (("job", "submit", "--prompt", "x", *ELSEWHERE, "--key-file", "none"), "invalid_config", "none does not exist"),
    (("job", "submit", "hello"), "invalid_config", '--prompt "hello"'),
    (("config", "init", "miner"), "invalid_config", "roles are sequencer, worker"),
    (("config", "init", "worker", "-o", "key"), "invalid_config", "key exists"),
    (("config", "init", "worker", "-o", "none/x.toml"), "invalid_config", "cannot write none/x.toml"),
    (("worker", "doctor", "--genesis", "none.json"), "invalid_genesis", "cannot read none.json"),
    (("worker", "doctor", "--config", "none.toml"), "invalid_config", "cannot read none.toml"),
    (("worker", "start", "--sequencer", "nowhere"), "invalid_config", "must be host:port, not 'nowhere'"),
    (("worker", "start", "--genesis", "none.json"), "invalid_genesis", "cannot read none.json"),
    (("sequencer", "start", "--genesis", "key"), "invalid_genesis", "key is not JSON"),
    (("sequencer", "start", "--rpc-port", "70000"), "invalid_config", "--rpc-port: `rpc_port` is 70000"),
    (("model", "show", "none"), "model_not_found", "no model 'none'"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), MISTAKES, ids=lambda value: " ".join(value)[:60])
def test_a_mistake_gets_a_sentence(
    arguments: tuple[str, ...],
    code: str,
    words: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (here / "key").write_text("zz" if "sequencer" in arguments else "11" * 32)
    (here / "key").chmod(0o600)
    assert run(monkeypatch, *arguments) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error {code}: ")
    assert words in said.err
    assert "Traceback" not in said.err


def test_what_ends_a_role_of_many_parts_is_told_in_sentences(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended() -> None:
        inner = ExceptionGroup("worker", [ChainRejected("block 7 of the sequencer: gas_used is 1, expected 2")])
        raise ExceptionGroup("process", [inner])

    monkeypatch.setattr("node.cli.app", ended)
    assert run(monkeypatch, "worker", "start") == 1
    assert capsys.readouterr().err == "error chain_rejected: block 7 of the sequencer: gas_used is 1, expected 2\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("testnet", "status"), "testnet"),
        (("job", "list"), "testnet"),
        (("job", "verify", "xyz"), "invalid_config"),
        (("job", "submit", "--prompt", "hello"), "testnet"),
        (("worker", "doctor"), "invalid_genesis"),
    ],
)
def test_a_machine_gets_the_same_as_json(
    arguments: tuple[str, ...],
    code: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *arguments, "--json") == 1
    said = capsys.readouterr()
    assert said.err == ""
    fault = json.loads(said.out)["error"]
    assert fault["code"] == code
    assert fault["message"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("job", "verify"),
        ("job", "submit", "--max-tokens", "0"),
        ("job", "submit", "--temperature", "hot"),
        ("testnet", "up", "--workers", "0"),
        ("testnet", "up", "--base-port", "65530"),
        ("testnet", "fly"),
        ("job", "list", "--fast"),
    ],
    ids=" ".join,
)
def test_what_is_no_command_gets_the_usage(
    arguments: tuple[str, ...], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert "Usage: " in capsys.readouterr().err


def test_config_init_writes_what_start_reads(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "config", "init", "worker", "-o", "worker.toml") == 0
    assert run(monkeypatch, "config", "init", "worker") == 0
    assert capsys.readouterr().out == (here / "worker.toml").read_text()
    assert run(monkeypatch, "worker", "doctor", "--config", "worker.toml") == 1
    assert "genesis.json" in capsys.readouterr().err
