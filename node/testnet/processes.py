"""Starts, finds and stops the processes of a local network. Knows processes and log files, not what runs in them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.errors import TestnetError

__all__ = ["Member", "running_pid", "start", "stop", "tail"]

STOP_TIMEOUT_S = 10.0
_POLL_INTERVAL_S = 0.05
_LOG_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Member:
    """One process of the network: `name` is its folder and log, `role` the command that runs it."""

    name: str
    role: str
    data_dir: Path

    @property
    def config_file(self) -> Path:
        return self.data_dir / f"{self.name}.toml"

    @property
    def pid_file(self) -> Path:
        return self.data_dir / "run" / f"{self.name}.pid"

    @property
    def log_file(self) -> Path:
        return self.data_dir / "logs" / f"{self.name}.log"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "node.cli", self.role, "start", "--config", str(self.config_file)]


def running_pid(member: Member) -> int | None:
    """The member's process id, or None when it does not run. A pid that belongs to another program does not count."""
    try:
        pid = int(member.pid_file.read_text())
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except (OSError, ValueError):
        return None
    return pid if str(member.config_file) in arguments else None


def start(member: Member) -> int:
    """Start the member in the background, in a session of its own, logging to its file; return its pid."""
    assert running_pid(member) is None, f"{member.name} runs already"
    for folder in (member.pid_file.parent, member.log_file.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with member.log_file.open("ab") as log:
        process = subprocess.Popen(
            member.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    member.pid_file.write_text(str(process.pid))
    return process.pid


def stop(members: Sequence[Member]) -> list[str]:
    """Ask every running member to stop, and kill those that have not within STOP_TIMEOUT_S; return the killed names."""
    asked = [(member, pid) for member in members if (pid := running_pid(member)) is not None]
    for _, pid in asked:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while any(_alive(pid) for _, pid in asked) and time.monotonic() < deadline:
        time.sleep(_POLL_INTERVAL_S)
    killed = []
    for member, pid in asked:
        if _alive(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            killed.append(member.name)
        member.pid_file.unlink(missing_ok=True)
    return killed


def _alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):  # reap it if it is our own child
        os.waitpid(pid, os.WNOHANG)
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def tail(member: Member, *, follow: bool) -> Iterator[str]:
    """The last lines of the member's log; with `follow`, new ones as they come, until interrupted."""
    if not member.log_file.exists():
        raise TestnetError(f"{member.name} has no log yet in {member.log_file}")
    with member.log_file.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - _LOG_TAIL_BYTES))
        if size > _LOG_TAIL_BYTES:
            log.readline()
        while True:
            line = log.readline()
            if line:
                yield line.decode("utf-8", "replace").rstrip("\n")
            elif follow:
                time.sleep(_POLL_INTERVAL_S)
            else:
                return
