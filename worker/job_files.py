"""The worker's jobs on disk: one file for each attempt that is running, or finished and not yet acknowledged.

A running attempt is an empty file, a finished one holds the encoded JobFinished. Files are replaced atomically and
synced. Knows nothing of engines or streams.
"""

from pathlib import Path

from core.errors import StoreCorrupt
from core.files import write_whole
from protos.errors import MalformedMessage
from protos.job_messages import AssignJob, JobFinished
from protos.rpc import decode, encode

__all__ = ["JobFiles"]


class JobFiles:
    """A folder of attempts, named `<job id>-<attempt>.running` and `.finished`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, job_id: bytes, attempt: int) -> None:
        """The attempt runs from now on."""
        write_whole(self._path(job_id, attempt, "running"), b"")

    def finish(self, finished: JobFinished) -> None:
        """The attempt is answered; the answer is on disk when this returns."""
        write_whole(self._path(finished.job_id, finished.attempt, "finished"), encode(finished))
        self._path(finished.job_id, finished.attempt, "running").unlink(missing_ok=True)

    def keep(self, job: AssignJob) -> None:
        """Remember a job with its answer (`expected`), for as long as somebody may dispute it."""
        write_whole(self._folder / f"{job.job_id.hex()}.kept", encode(job))

    def kept(self, job_id: bytes) -> AssignJob | None:
        """A job that was kept, or None. Raises StoreCorrupt."""
        path = self._folder / f"{job_id.hex()}.kept"
        try:
            return decode(AssignJob, path.read_bytes())
        except FileNotFoundError:
            return None
        except MalformedMessage as error:
            raise StoreCorrupt(f"{path} is no job: {error}") from error

    def drop_kept(self, before_s: float) -> None:
        """Forget what was kept before this Unix time."""
        for path in self._folder.glob("*.kept"):
            if path.stat().st_mtime < before_s:
                path.unlink(missing_ok=True)

    def forget(self, job_id: bytes, attempt: int) -> None:
        """Nobody needs it any more."""
        for state in ("running", "finished"):
            self._path(job_id, attempt, state).unlink(missing_ok=True)

    def has(self, job_id: bytes, attempt: int) -> bool:
        """Whether this attempt is running or finished."""
        return any(self._path(job_id, attempt, state).exists() for state in ("running", "finished"))

    def finished(self) -> list[JobFinished]:
        """The answers that nobody has acknowledged. Raises StoreCorrupt naming a file that is none."""
        answers = []
        for path in sorted(self._folder.glob("*.finished")):
            try:
                answers.append(decode(JobFinished, path.read_bytes()))
            except MalformedMessage as error:
                raise StoreCorrupt(f"{path} is no finished job: {error}") from error
        return answers

    def interrupted(self) -> list[tuple[bytes, int]]:
        """Job and attempt of those that ran when the worker was last ended."""
        found = []
        for path in sorted(self._folder.glob("*.running")):
            job_id, _, attempt = path.stem.partition("-")
            if not path.with_suffix(".finished").exists():
                found.append((bytes.fromhex(job_id), int(attempt)))
        return found

    def _path(self, job_id: bytes, attempt: int, state: str) -> Path:
        return self._folder / f"{job_id.hex()}-{attempt}.{state}"
