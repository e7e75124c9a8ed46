"""What only the client knows of its jobs: request, salt, answer. One private file a job (mode 0600)."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from core.files import write_whole
from core.jobs.exact import ExactTerms
from core.jobs.request import JobRequest, Message, Role, Sampling, Tier
from node.errors import ServiceError
from protos.errors import MalformedMessage
from protos.job_messages import Inclusion, SignedReceipt
from protos.rpc import decode, encode

__all__ = ["ClientJob", "JobRecords"]

_Message = TypeVar("_Message")


@dataclass(frozen=True, slots=True)
class ClientJob:
    """A job that was funded from here. `output` is None until it was answered; `answer` are the tokens that the worker
    says it is made of (u32, little-endian), on the exact tier; `signed` its receipt, and `inclusion` where that was
    settled."""

    job_id: bytes
    request: JobRequest
    salt: bytes
    price_max_wei: int
    opened_at_block: int
    output: str | None = None
    answer: bytes = b""
    signed: SignedReceipt | None = None
    inclusion: Inclusion | None = None


class JobRecords:
    """The files under one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, job: ClientJob) -> None:
        """Write or replace a job's file; it is whole, or as before."""
        hexadecimal = {"job_id": job.job_id.hex(), "salt": job.salt.hex(), "answer": job.answer.hex()}
        messages = {"signed": job.signed, "inclusion": job.inclusion}
        hexadecimal |= {name: encode(one).hex() for name, one in messages.items() if one is not None}
        content = asdict(replace(job, signed=None, inclusion=None)) | hexadecimal
        if job.request.exact is not None:
            content["request"]["exact"]["prompt_hash"] = job.request.exact.prompt_hash.hex()
        write_whole(self._path(job.job_id), json.dumps(content, ensure_ascii=False).encode(), mode=0o600)

    def load(self, job_id: bytes) -> ClientJob | None:
        """The job of this id, or None when it was not submitted from here. Raises ServiceError for a broken file."""
        path = self._path(job_id)
        try:
            content: dict[str, Any] = json.loads(path.read_text("utf-8"))
            asked = content["request"]
            request = JobRequest(
                model=asked["model"],
                messages=tuple(Message(Role(one["role"]), one["content"]) for one in asked["messages"]),
                sampling=Sampling(**asked["sampling"] | {"stop": tuple(asked["sampling"]["stop"])}),
                tier=Tier(asked["tier"]),
                exact=_exact_terms(asked.get("exact")),
            )
            return ClientJob(
                job_id,
                request,
                bytes.fromhex(content["salt"]),
                content["price_max_wei"],
                content["opened_at_block"],
                content["output"],
                bytes.fromhex(content.get("answer", "")),
                _message(SignedReceipt, content.get("signed")),
                _message(Inclusion, content.get("inclusion")),
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, MalformedMessage) as error:
            raise ServiceError(f"{path} is not a job's file: {error}") from error

    def ids(self) -> list[bytes]:
        """Every job submitted from here."""
        return [bytes.fromhex(one.stem) for one in sorted(self._folder.glob("*.json"))]

    def _path(self, job_id: bytes) -> Path:
        return self._folder / f"{job_id.hex()}.json"


def _message(kind: type[_Message], content: str | None) -> _Message | None:
    return None if content is None else decode(kind, bytes.fromhex(content))


def _exact_terms(content: dict[str, Any] | None) -> ExactTerms | None:
    if content is None:
        return None
    words: Any = tuple(content["sampling"])
    return ExactTerms(bytes.fromhex(content["prompt_hash"]), content["prompt_tokens"], words)
