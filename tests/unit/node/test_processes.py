"""Processes of a local network: found by pid and command line, stopped politely, killed if they must be."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.errors import TestnetError
from node.testnet import processes
from node.testnet.processes import Member, running_pid, start, stop, tail

# A member outlives the object that started it, on purpose; Python warns of such.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

# Says that it is ready, then waits for a signal; arguments after the program are as in a real member's command.
WAITS = "import signal, sys; print('ready', flush=True); signal.pause()"
DEAF = "import signal, sys; signal.signal(15, signal.SIG_IGN); print('ready', flush=True)\nwhile True: signal.pause()"


@dataclass(frozen=True, slots=True)
class Script(Member):
    """A member that runs a small program instead of a role."""

    program: str = WAITS

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.program, "--config", str(self.config_file)]


@pytest.fixture
def members(tmp_path: Path) -> Iterator[list[Script]]:
    made = [Script("calm", "worker", tmp_path), Script("deaf", "worker", tmp_path, DEAF)]
    yield made
    for member in made:
        pid = running_pid(member)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def wait_ready(member: Member) -> None:
    for line in tail(member, follow=True):
        if line == "ready":
            return


def test_started_found_and_stopped(members: list[Script]) -> None:
    calm = members[0]
    assert running_pid(calm) is None
    pid = start(calm)
    wait_ready(calm)
    assert running_pid(calm) == pid
    assert os.getsid(pid) == pid, "Ctrl-C on the terminal must not reach it"
    assert stop([calm]) == []
    assert running_pid(calm) is None
    assert not calm.pid_file.exists()
    assert stop([calm]) == [], "stopping what does not run is no error"


def test_what_does_not_listen_is_killed_and_named(members: list[Script], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_TIMEOUT_S", 0.3)
    for member in members:
        start(member)
        wait_ready(member)
    assert stop(members) == ["deaf"]
    assert [running_pid(member) for member in members] == [None, None]


def test_a_pid_that_another_program_has_now_does_not_count(members: list[Script]) -> None:
    calm = members[0]
    other = subprocess.Popen([sys.executable, "-c", WAITS, "--config", "elsewhere.toml"], stdout=subprocess.DEVNULL)
    try:
        calm.pid_file.parent.mkdir()
        calm.pid_file.write_text(str(other.pid))
        assert running_pid(calm) is None
        assert stop([calm]) == []
        assert other.poll() is None, "a stranger must not be stopped"
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("content", ["", "x", "-1", "0", "99999999999"])
def test_a_broken_pid_file_means_not_running(members: list[Script], content: str) -> None:
    calm = members[0]
    calm.pid_file.parent.mkdir()
    calm.pid_file.write_text(content)
    assert running_pid(calm) is None


def test_the_tail_is_bounded_and_begins_with_a_whole_line(tmp_path: Path) -> None:
    member = Member("one", "worker", tmp_path)
    with pytest.raises(TestnetError, match="no log yet"):
        list(tail(member, follow=False))
    member.log_file.parent.mkdir()
    lines = [f"line {number} é" for number in range(20_000)]
    member.log_file.write_text("\n".join(lines) + "\n")
    shown = list(tail(member, follow=False))
    assert 0 < len(shown) < len(lines)
    assert shown == lines[-len(shown) :]
    member.log_file.write_bytes(b"not utf-8 \xff\xfe\n")
    assert list(tail(member, follow=False)) == ["not utf-8 \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"]
