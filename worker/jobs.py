"""A worker's jobs: accepted, run by an engine, answered, and kept on disk until the coordinator has the receipt.

    AssignJob -> running -> finished -> forgotten (ReceiptStored)
                    |  └-> failed: the coordinator is told why, and gives the job to somebody else
                    └-> cancelled (CancelJob), or interrupted by a crash: told as failed at the next start

Each state of a job is one small file, replaced atomically, so a worker that is killed at any instant sends its receipt
again, or says that the job was lost. Knows engines only through `worker.inference.engine`.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from core.errors import InvalidInput, WarpgridError
from core.jobs.receipt import Receipt, ReceiptDomain
from core.jobs.request import JobRequest, decode_tokens, encode_tokens, output_hash, request_hash
from protos.handshake import Signer
from protos.job_messages import (
    OPEN_ATTEMPT,
    OUTPUT_BYTES_MAX,
    OUTPUT_PIECE_BYTES_MAX,
    AnswerOpened,
    AssignJob,
    CancelJob,
    JobFailed,
    JobFinished,
    JobOutput,
    JobStarted,
    OpenAnswer,
    ReceiptStored,
    SignedReceipt,
)
from protos.messages import BlockReference
from worker.client import SequencerClient
from worker.inference.engine import Completion, Engine, Piece
from worker.inference.errors import EngineBusy, InferenceError
from worker.job_files import JobFiles
from zk.audit import AuditOpening, Unit
from zk.merkle import Digests
from zk.openings import VERSION as OPENINGS_VERSION
from zk.openings import decode_units, opened_of

__all__ = ["JobRunner", "JobsConfig", "OfferedModel", "Opener"]

_REASON_CHARACTERS_MAX = 256

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class JobsConfig:
    """`slots` jobs run at once; there is no queue here, the coordinator has it."""

    slots: int = 1


class Opener(Protocol):
    """Opens what an exact engine committed to. Implementation: `worker.inference.proof_opener`."""

    async def open(
        self, request: JobRequest, salt: bytes, answer: Sequence[int], units: Sequence[Unit]
    ) -> tuple[Digests, list[AuditOpening]]:
        """The roots of all positions, and the openings. Raises InvalidInput for what this model never answered."""


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """An engine and what its tokens cost; `opener` where its answers can be audited."""

    engine: Engine
    input_token_wei: int
    output_token_wei: int
    opener: Opener | None = None


class _Refused(WarpgridError):
    """Why a job is not run, or not to its end; `code` is JobFailed's."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class JobRunner:
    """Runs what the coordinator assigns. `now_ms` is Unix time, for receipts and deadlines."""

    def __init__(
        self,
        client: SequencerClient,
        files: JobFiles,
        models: Sequence[OfferedModel],
        signer: Signer,
        domain: ReceiptDomain,
        config: JobsConfig,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        self._client = client
        self._files = files
        self._models = {one.engine.model.model_hash: one for one in models}
        self._signer = signer
        self._domain = domain
        self._config = config
        self._now_ms = now_ms
        self._running: dict[tuple[bytes, int], asyncio.Task[None]] = {}
        self._opening: asyncio.Task[None] | None = None
        self._reasons: dict[tuple[bytes, int], str] = {}
        self._is_draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._interrupted = files.interrupted()
        client.on(AssignJob, self._on_assignment)
        client.on(CancelJob, self._on_cancel)
        client.on(OpenAnswer, self._on_open)
        client.on(ReceiptStored, self._on_stored)
        client.on_attached(self._on_attached)

    @property
    def running(self) -> int:
        """How many jobs run now."""
        return len(self._running)

    async def drain(self) -> None:
        """Take no more jobs, and return when those that run have ended."""
        self._is_draining = True
        await self._idle.wait()

    async def cancel_all(self) -> None:
        """Stop what runs."""
        for key, task in list(self._running.items()):
            self._reasons[key] = "the worker stops"
            task.cancel()
        if self._opening is not None:
            self._opening.cancel()
        tasks = [*self._running.values(), *([self._opening] if self._opening else [])]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _on_attached(self, _: BlockReference) -> None:
        """What the coordinator may have missed: receipts, and jobs that a crash ended."""
        for finished in self._files.finished():
            await self._client.post(finished)
        for job_id, attempt in self._interrupted:
            await self._client.post(JobFailed(job_id, attempt, "interrupted", "the worker was restarted"))
            self._files.forget(job_id, attempt)
        self._interrupted = []

    async def _on_assignment(self, job: AssignJob) -> None:
        key = (job.job_id, job.attempt)
        if key in self._running or self._files.has(job.job_id, job.attempt):
            return
        try:
            offered = self._require_acceptable(job)
        except _Refused as refusal:
            await self._fail(job, refusal)
            return
        self._files.start(job.job_id, job.attempt)
        self._idle.clear()
        task = asyncio.create_task(self._run(job, offered))
        self._running[key] = task
        task.add_done_callback(lambda _: self._ended(key))

    def _require_acceptable(self, job: AssignJob) -> OfferedModel:
        offered = self._models.get(job.model_hash)
        if self._is_draining:
            raise _Refused("draining", "this worker is about to stop")
        if offered is None or offered.engine.model.tier != job.request.tier:
            raise _Refused("model_missing", "this worker does not serve that model at that tier")
        if len(self._running) >= self._config.slots:
            raise _Refused("busy", f"{len(self._running)} jobs run already")
        if job.deadline_ms <= self._now_ms():
            raise _Refused("deadline", "the deadline is over")
        asked = (offered.input_token_wei, offered.output_token_wei)
        if not job.audit and (job.input_token_wei < asked[0] or job.output_token_wei < asked[1]):
            raise _Refused("price", f"this worker asks {asked[0]} and {asked[1]} wei a token read and made")
        return offered

    def _ended(self, key: tuple[bytes, int]) -> None:
        del self._running[key]
        self._reasons.pop(key, None)
        if not self._running:
            self._idle.set()

    async def _run(self, job: AssignJob, offered: OfferedModel) -> None:
        try:
            finished = await self._answer(job, offered.engine)
        except asyncio.CancelledError:
            reason = self._reasons.get((job.job_id, job.attempt))
            if reason is None:
                raise
            await self._fail(job, _Refused("cancelled", reason))
            return
        except _Refused as refusal:
            await self._fail(job, refusal)
            return
        except EngineBusy as error:
            await self._fail(job, _Refused("busy", str(error)))
            return
        except InferenceError as error:
            code = "request_invalid" if isinstance(error, InvalidInput) else "engine"
            await self._fail(job, _Refused(code, str(error)))
            return
        if finished.answer and not job.audit:
            self._files.keep(replace(job, expected=finished.answer))
        self._files.finish(finished)
        await self._client.post(finished)

    async def _answer(self, job: AssignJob, engine: Engine) -> JobFinished:
        """Run the job to its end; pieces of the answer are sent as they come."""
        started_ms = self._now_ms()
        await self._client.post(JobStarted(job.job_id, job.attempt))
        text: list[str] = []
        size = index = 0
        completion: Completion | None = None
        try:
            async with (
                asyncio.timeout((job.deadline_ms - started_ms) / 1000),
                contextlib.aclosing(self._generated(job, engine)) as parts,
            ):
                async for part in parts:
                    if isinstance(part, Completion):
                        completion = part
                        continue
                    size += len(part.text.encode())
                    if size > OUTPUT_BYTES_MAX:
                        raise _Refused("engine", f"the answer is longer than {OUTPUT_BYTES_MAX} bytes")
                    text.append(part.text)
                    for piece in _pieces(part):
                        await self._client.post(JobOutput(job.job_id, job.attempt, index, piece))
                        index += 1
        except TimeoutError as error:
            raise _Refused("deadline", "the answer was not finished by the deadline") from error
        if completion is None:
            raise _Refused("engine", "the engine ended without a completion")
        return self._signed(job, "".join(text), completion, started_ms)

    def _generated(self, job: AssignJob, engine: Engine) -> AsyncGenerator[Piece | Completion, None]:
        return engine.generate(job.request, job.salt, decode_tokens(job.expected))

    def _signed(self, job: AssignJob, output: str, completion: Completion, started_ms: int) -> JobFinished:
        input_wei, output_wei = (0, 0) if job.audit else (job.input_token_wei, job.output_token_wei)
        total_wei = completion.input_tokens * input_wei + completion.output_tokens * output_wei
        if total_wei > job.price_max_wei:
            raise _Refused("price", f"the answer costs {total_wei} wei, the job pays at most {job.price_max_wei}")
        receipt = Receipt(
            job_id=job.job_id,
            worker=self._signer.address,
            tier=job.request.tier,
            model_hash=job.model_hash,
            request_hash=request_hash(job.request, job.salt),
            output_hash=output_hash(output, job.salt),
            trace_root=completion.trace_root,
            input_tokens=completion.input_tokens,
            output_tokens=completion.output_tokens,
            started_at_ms=started_ms,
            finished_at_ms=max(started_ms, self._now_ms()),
            input_token_wei=input_wei,
            output_token_wei=output_wei,
            total_wei=total_wei,
        )
        signature = self._signer.sign(receipt.digest(self._domain))
        signed = SignedReceipt(receipt, signature)
        return JobFinished(job.job_id, job.attempt, output, signed, encode_tokens(completion.tokens))

    async def _fail(self, job: AssignJob, refusal: _Refused) -> None:
        _log.info("job_failed", job=job.job_id.hex(), attempt=job.attempt, code=refusal.code, detail=str(refusal))
        await self._client.post(JobFailed(job.job_id, job.attempt, refusal.code, str(refusal)[:_REASON_CHARACTERS_MAX]))
        self._files.forget(job.job_id, job.attempt)

    async def _on_cancel(self, message: CancelJob) -> None:
        key = (message.job_id, message.attempt)
        task = self._running.get(key)
        if task is not None:
            self._reasons[key] = message.reason
            task.cancel()

    async def _on_open(self, message: OpenAnswer) -> None:
        """An audit's challenge; one at a time, beside the jobs. Nothing of it is kept: who asks may ask again."""
        if self._opening is not None and not self._opening.done():
            await self._decline(message, _Refused("busy", "another audit is being answered"))
            return
        self._opening = asyncio.create_task(self._open(message))

    async def _open(self, message: OpenAnswer) -> None:
        try:
            opened = await self._opened(message)
        except _Refused as refusal:
            await self._decline(message, refusal)
        except (InferenceError, InvalidInput) as error:
            await self._decline(message, _Refused("request_invalid", str(error)))
        else:
            await self._client.post(opened)

    async def _opened(self, message: OpenAnswer) -> AnswerOpened:
        offered = self._models.get(message.model_hash)
        if message.version != OPENINGS_VERSION:
            raise _Refused("version", f"this worker opens answers by version {OPENINGS_VERSION}")
        if offered is None or offered.opener is None:
            raise _Refused("model_missing", "this worker does not serve that model with proofs")
        answer, units = decode_tokens(message.answer), decode_units(message.units)
        try:
            async with asyncio.timeout((message.deadline_ms - self._now_ms()) / 1000):
                roots, openings = await offered.opener.open(message.request, message.salt, answer, units)
        except TimeoutError as error:
            raise _Refused("deadline", "the answer was not opened by the deadline") from error
        return opened_of(message.job_id, roots, openings)

    async def _decline(self, message: OpenAnswer, refusal: _Refused) -> None:
        detail = str(refusal)[:_REASON_CHARACTERS_MAX]
        await self._client.post(JobFailed(message.job_id, OPEN_ATTEMPT, refusal.code, detail))

    async def _on_stored(self, message: ReceiptStored) -> None:
        self._files.forget(message.job_id, message.attempt)


def _pieces(part: Piece) -> list[str]:
    """The text in strings that fit into one message each; a character has at most four bytes."""
    step = OUTPUT_PIECE_BYTES_MAX // 4
    return [part.text[start : start + step] for start in range(0, len(part.text), step)]
