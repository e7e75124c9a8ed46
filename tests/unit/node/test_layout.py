"""The data directory of a local network: made once, gone on with, refused when it is something else."""

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from node.config import SequencerConfig, WorkerConfig, load
from node.errors import TestnetError
from node.keys import IdentityKey
from node.testnet import genesis as local_genesis
from node.testnet.layout import BASE_PORT_MAX, WORKERS_MAX, Founding, Testnet, find, prepare


def free_base_port(network: Testnet) -> Testnet:
    """The same network on ports that nobody has now."""
    for base_port in range(21_000, 60_000, 37):
        moved = replace(network, base_port=base_port)
        if all(is_free(port) for port in moved.ports()):
            return moved
    raise AssertionError("no free ports on this machine")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def wanted(tmp_path: Path) -> Testnet:
    return free_base_port(Testnet(tmp_path / "net", 2, 1, "smollm2", "reference"))


WATCHER = b"\x77" * 20


def genesis(wanted: Testnet) -> Founding:
    return Founding({"made": "once"}, WATCHER)


def test_made_once_and_gone_on_with(wanted: Testnet) -> None:
    assert prepare(wanted, genesis, fresh=False) == wanted
    assert find(wanted.data_dir) == wanted
    assert json.loads((wanted.data_dir / "genesis.json").read_text()) == {"made": "once"}
    assert prepare(wanted, lambda _: pytest.fail("the genesis is made once"), fresh=False) == wanted


def test_the_settings_files_are_what_the_roles_read(wanted: Testnet) -> None:
    prepare(wanted, genesis, fresh=False)
    sequencer = load(SequencerConfig, wanted.data_dir / "sequencer.toml", {}, {})
    assert sequencer.rpc_port == wanted.base_port
    assert sequencer.watchers == "0x" + WATCHER.hex()
    assert sequencer.genesis == wanted.data_dir / "genesis.json"
    workers = [load(WorkerConfig, member.config_file, {}, {}) for member in wanted.members()[1:]]
    assert [one.duty for one in workers] == ["worker", "worker", "watcher"]
    assert {one.sequencer for one in workers} == {f"{sequencer.grpc_host}:{sequencer.grpc_port}"}
    assert [one.model for one in workers] == ["smollm2", "smollm2", ""]
    listening = [sequencer.rpc_port, sequencer.grpc_port, sequencer.attach_port, sequencer.metrics_port]
    assert sorted(listening + [one.metrics_port for one in workers]) == sorted(wanted.ports())


def test_other_settings_are_refused_and_named(wanted: Testnet) -> None:
    prepare(wanted, genesis, fresh=False)
    with pytest.raises(TestnetError, match="workers: 2 there, 3 asked"):
        prepare(replace(wanted, workers=3), genesis, fresh=False)
    assert find(wanted.data_dir) == wanted


def test_fresh_removes_what_was_there(wanted: Testnet) -> None:
    prepare(wanted, genesis, fresh=True)
    (wanted.data_dir / "sequencer").mkdir()
    other = replace(wanted, workers=3)
    assert prepare(other, lambda _: Founding({"made": "again"}, WATCHER), fresh=True) == other
    assert not (wanted.data_dir / "sequencer").exists()
    assert json.loads((wanted.data_dir / "genesis.json").read_text()) == {"made": "again"}


def test_fresh_removes_nothing_that_is_no_network(wanted: Testnet) -> None:
    wanted.data_dir.mkdir()
    (wanted.data_dir / "thesis.txt").write_text("years of work")
    prepare(wanted, genesis, fresh=True)
    assert (wanted.data_dir / "thesis.txt").read_text() == "years of work"


def test_a_taken_port_is_named_before_anything_is_written(wanted: Testnet) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", wanted.ports()[1]))
        taken.listen()
        with pytest.raises(TestnetError, match=f"port {wanted.ports()[1]} is taken"):
            prepare(wanted, genesis, fresh=False)
    assert not wanted.data_dir.exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"workers": 1, "surprise": 2}', "\xff"])
def test_a_broken_manifest(tmp_path: Path, content: str) -> None:
    with pytest.raises(TestnetError, match="no local network"):
        find(tmp_path)
    (tmp_path / "testnet.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(TestnetError, match="not readable"):
        find(tmp_path)


def test_the_highest_base_port_has_room_for_every_process(tmp_path: Path) -> None:
    largest = Testnet(tmp_path, WORKERS_MAX, BASE_PORT_MAX, "smollm2", "reference")
    assert max(largest.ports()) == 65_535
    assert len(set(largest.ports())) == len(largest.ports())


def test_the_genesis_funds_every_member_with_keys_of_its_own(wanted: Testnet) -> None:
    made = local_genesis.testnet_genesis(wanted)
    keys = sorted(wanted.data_dir.glob("*/keys/identity.key"))
    assert [path.parent.parent.name for path in keys] == ["sequencer", "watcher", "worker-1", "worker-2"]
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    assert len({path.read_text() for path in keys}) == len(keys)
    assert len(made.genesis["alloc"]) >= 10 + len(keys)
    watcher = IdentityKey.load_or_create(wanted.data_dir / "watcher" / "keys" / "identity.key")
    assert made.watcher == watcher.address
