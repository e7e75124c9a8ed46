"""What a local network's data directory holds, and how it is made: genesis, keys, one settings file a process.

<data-dir>/testnet.json      what was asked for: workers, ports, model
<data-dir>/genesis.json      chain 31337: development accounts, contracts, the members' accounts
<data-dir>/NAME.toml         settings of one process
<data-dir>/NAME/             its blocks, state and keys
<data-dir>/logs/NAME.log, run/NAME.pid
"""

import json
import shutil
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from node.errors import TestnetError
from node.testnet.processes import Member, running_pid

__all__ = [
    "BASE_PORT",
    "BASE_PORT_MAX",
    "CHAIN_ID",
    "DATA_DIR",
    "WORKERS_MAX",
    "DataDir",
    "Founding",
    "Testnet",
    "find",
    "prepare",
]

DATA_DIR = Path(".warpgrid/testnet")
DataDir = Annotated[Path, typer.Option("--data-dir", help="folder of the network")]

CHAIN_ID = 31_337  # what wallets and tools expect of a local development chain
BASE_PORT = 8_545
WORKERS_MAX = 16
_GRPC_PORT_OFFSET = 5
_ATTACH_PORT_OFFSET = 6
_METRICS_PORT_OFFSET = 10
BASE_PORT_MAX = 65_535 - _METRICS_PORT_OFFSET - WORKERS_MAX - 1  # sequencer, workers and watcher have one each
_MANIFEST = "testnet.json"


@dataclass(frozen=True, slots=True)
class Testnet:
    """A local network: where it lives and what it was asked to be."""

    __test__ = False

    data_dir: Path
    workers: int
    base_port: int
    model: str
    executor: str

    @property
    def rpc_url(self) -> str:
        return f"http://127.0.0.1:{self.base_port}"

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.base_port + _GRPC_PORT_OFFSET}"

    def members(self) -> list[Member]:
        """Every process, in the order in which they are started."""
        names = [("sequencer", "sequencer"), *((f"worker-{i + 1}", "worker") for i in range(self.workers))]
        return [Member(name, role, self.data_dir) for name, role in [*names, ("watcher", "worker")]]

    def ports(self) -> list[int]:
        """Every port the network listens on."""
        metrics = range(len(self.members()))
        return [
            self.base_port,
            self.base_port + _GRPC_PORT_OFFSET,
            self.base_port + _ATTACH_PORT_OFFSET,
            *(self.base_port + _METRICS_PORT_OFFSET + one for one in metrics),
        ]

    def settings(self, member: Member, index: int, watcher: bytes) -> dict[str, Any]:
        """The settings file's content for one member; `watcher` is the watcher's address."""
        common = {
            "data_dir": member.name,
            "genesis": "genesis.json",
            "metrics_port": self.base_port + _METRICS_PORT_OFFSET + index,
        }
        if member.role == "sequencer":
            return common | {
                "rpc_port": self.base_port,
                "grpc_port": self.base_port + _GRPC_PORT_OFFSET,
                "attach_port": self.base_port + _ATTACH_PORT_OFFSET,
                "audit_models": str(Path(self.model).parent) if Path(self.model).is_dir() else "",
                "watchers": "0x" + watcher.hex(),
            }
        if member.name == "watcher":
            return common | {"sequencer": self.grpc_address, "duty": "watcher", "executor": "reference"}
        return common | {
            "sequencer": self.grpc_address,
            "rpc_url": self.rpc_url,
            "executor": self.executor,
            "model": self.model,
            "engine_threads": 1,
        }


@dataclass(frozen=True, slots=True)
class Founding:
    """What a new network begins with: its genesis (geth's format) and the address of its watcher."""

    genesis: dict[str, Any]
    watcher: bytes


def find(data_dir: Path) -> Testnet:
    """The network whose data directory this is. Raises TestnetError when there is none, or its manifest is broken."""
    manifest = data_dir / _MANIFEST
    try:
        asked = json.loads(manifest.read_text("utf-8"))
        return Testnet(data_dir.resolve(), **asked)
    except FileNotFoundError as error:
        raise TestnetError(f"no local network in {data_dir}: start one with `warpgrid testnet up`") from error
    except (ValueError, TypeError) as error:
        raise TestnetError(f"{manifest} is not readable ({error}): start anew with `testnet up --fresh`") from error


def prepare(wanted: Testnet, found: Callable[[Testnet], Founding], *, fresh: bool) -> Testnet:
    """Write the data directory of `wanted`, or take the one that is there (its chain goes on), and return it.

    With `fresh` everything that was there is removed first. Raises TestnetError when the network runs already, when it
    was made with other settings, or when a port is taken.
    """
    manifest = wanted.data_dir / _MANIFEST
    if fresh and manifest.exists():
        _refuse_if_running(find(wanted.data_dir))
        shutil.rmtree(wanted.data_dir)
    asked = {name: value for name, value in asdict(wanted).items() if name != "data_dir"}
    if manifest.exists():
        there = find(wanted.data_dir)
        _refuse_if_running(there)
        if there != wanted:
            raise TestnetError(
                f"{wanted.data_dir} holds a network made with other settings ({_differences(there, wanted)}): "
                "use the same ones, another --data-dir, or --fresh to begin anew"
            )
    for port in wanted.ports():
        _require_free(port)
    wanted.data_dir.mkdir(parents=True, exist_ok=True)
    if not manifest.exists():
        founding = found(wanted)
        (wanted.data_dir / "genesis.json").write_text(json.dumps(founding.genesis, indent=1))
        for index, member in enumerate(wanted.members()):
            member.config_file.write_text(_toml(member.role, wanted.settings(member, index, founding.watcher)))
        manifest.write_text(json.dumps(asked, indent=1))
    return wanted


def _refuse_if_running(network: Testnet) -> None:
    running = [member.name for member in network.members() if running_pid(member) is not None]
    if running:
        raise TestnetError(
            f"the network in {network.data_dir} runs already ({', '.join(running)}): `warpgrid testnet down` stops it"
        )


def _differences(there: Testnet, wanted: Testnet) -> str:
    before, after = asdict(there), asdict(wanted)
    return ", ".join(
        f"{name}: {before[name]} there, {after[name]} asked" for name in after if before[name] != after[name]
    )


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise TestnetError(f"port {port} is taken ({error.strerror}): choose others with --base-port") from error


def _toml(section: str, settings: dict[str, Any]) -> str:
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    return "\n".join([f"[{section}]", *lines]) + "\n"
