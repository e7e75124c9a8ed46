"""What the coordinator must not forget about jobs: an append-only log, synced before anything is acknowledged.

Owns the records and their byte form (JSON; binary fields in hexadecimal) over `core.store.log`. What they mean is
`sequencer.coordinator.job_table`'s business.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor as ThreadExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import orjson

from core.errors import StoreCorrupt
from core.jobs.request import JobRequest
from core.store.identity import ChainIdentity
from core.store.log import BlockLog
from protos.errors import MalformedMessage
from protos.job_messages import SignedReceipt
from protos.rpc import decode, encode

__all__ = [
    "Assigned",
    "AttemptFailed",
    "Audited",
    "BatchDone",
    "BatchSent",
    "Ended",
    "Finished",
    "JobLog",
    "JobLogRecord",
    "Judged",
    "Submitted",
    "Unpayable",
]

_SEGMENT_BYTES_MAX = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job was taken in. Times are Unix milliseconds, as in every record."""

    job_id: bytes
    request: JobRequest
    salt: bytes
    client: bytes
    worker: bytes
    model_hash: bytes
    request_hash: bytes
    price_max_wei: int
    deadline_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Assigned:
    job_id: bytes
    attempt: int
    worker: bytes
    input_token_wei: int
    output_token_wei: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    job_id: bytes
    attempt: int
    code: str
    detail: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A valid receipt came in. `audit` is "none", or "pending" when the answer was drawn to be checked; `answer` are
    its tokens (u32, little-endian), on the exact tier."""

    job_id: bytes
    attempt: int
    output: str
    signed: SignedReceipt
    audit: str
    at_ms: int
    answer: bytes = b""


@dataclass(frozen=True, slots=True)
class Audited:
    """`verdict` is "agreed"; "disagreed" when the answer is wrong; "disputed" when it is wrong and its receipt is
    settled in order to be disputed; "withheld" when its worker does not open it, or two workers contradict each other
    and nobody can tell who is right: nothing is paid, and nobody is to blame; "unavailable" when nobody could check it.
    `liar` is the checker that was proven wrong, if one was.
    """

    job_id: bytes
    verdict: str
    detail: str
    at_ms: int
    liar: bytes = b""


@dataclass(frozen=True, slots=True)
class Judged:
    """The dispute that "disputed" led to is over: its worker "lost" or "won"."""

    job_id: bytes
    outcome: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The job ended without a receipt that counts: `state` is "failed" or "cancelled"."""

    job_id: bytes
    state: str
    detail: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class BatchSent:
    """A transaction for these jobs was signed: `purpose` is "settle", "collect", "show", "release" or "refund"."""

    purpose: str
    transaction_hash: bytes
    raw: bytes
    job_ids: tuple[bytes, ...]
    at_ms: int


@dataclass(frozen=True, slots=True)
class BatchDone:
    """What became of it: `outcome` is "succeeded", "reverted", or "lost" when another took its nonce.

    A settlement's payments can be collected from `release_at_ms` on; `batch_id` is the escrow's number for it.
    """

    transaction_hash: bytes
    outcome: str
    at_ms: int
    release_at_ms: int = 0
    batch_id: int = 0


@dataclass(frozen=True, slots=True)
class Unpayable:
    """The escrow would not accept the transaction of this `purpose` ("settle", "show" or "refund") for this job."""

    job_id: bytes
    purpose: str
    detail: str
    at_ms: int


JobLogRecord = (
    Submitted | Assigned | AttemptFailed | Finished | Audited | Judged | Ended | BatchSent | BatchDone | Unpayable
)

_KINDS: dict[str, type] = {kind.__name__: kind for kind in get_args(JobLogRecord)}


class JobLog:
    """The log in one folder. `replay` must run to its end before the first `append`; `thread` does the writing."""

    def __init__(self, folder: Path, identity: ChainIdentity, thread: ThreadExecutor) -> None:
        """Raises StoreMismatch for another chain's log, StoreCorrupt for a damaged one."""
        folder.mkdir(parents=True, exist_ok=True)
        self._log = BlockLog.open(folder, identity, segment_bytes_max=_SEGMENT_BYTES_MAX)
        self._next = 0
        self._thread = thread
        self._one_at_a_time = asyncio.Lock()

    def replay(self) -> Iterator[JobLogRecord]:
        """Every record, in order. An incomplete one at the end was never acknowledged, and is cut off."""
        for _, number, payload in self._log.recover(None, 0, -1):
            self._next = number + 1
            yield _from_json(payload)

    async def append(self, record: JobLogRecord) -> None:
        """Returns once the record is on disk."""
        async with self._one_at_a_time:
            payload = _to_json(record)
            await asyncio.get_running_loop().run_in_executor(self._thread, self._log.append, self._next, payload)
            self._next += 1

    def close(self) -> None:
        """Nothing is lost without it."""
        self._log.close()


def _to_json(record: JobLogRecord) -> bytes:
    values = {one.name: _plain(getattr(record, one.name)) for one in fields(record)}
    return orjson.dumps({"kind": type(record).__name__, **values})


def _plain(value: Any) -> Any:
    match value:
        case bytes():
            return value.hex()
        case tuple():
            return [_plain(one) for one in value]
        case int() if value.bit_length() > 53:
            return hex(value)
        case int() | str():
            return value
        case _:
            return encode(value).hex()


def _from_json(payload: bytes) -> JobLogRecord:
    try:
        values = orjson.loads(payload)
        kind = _KINDS[values.pop("kind")]
        hints = get_type_hints(kind)
        record: JobLogRecord = kind(**{name: _typed(hints[name], value) for name, value in values.items()})
    except (ValueError, KeyError, TypeError, MalformedMessage) as error:
        raise StoreCorrupt(f"the log of jobs holds a record that this version cannot read: {error}") from error
    return record


def _typed(hint: Any, value: Any) -> Any:
    if hint is bytes:
        return bytes.fromhex(value)
    if hint is int and isinstance(value, str):
        return int(value, 16)
    if hint in (int, str):
        return value
    if hint in (JobRequest, SignedReceipt):
        return decode(hint, bytes.fromhex(value))
    return tuple(bytes.fromhex(one) for one in value)
