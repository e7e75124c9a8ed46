"""Exact jobs under virtual time: a small real model, workers that serve it honestly, and workers that do not.

Nothing is scripted but the lie: prompts, traces, openings and checks are those of a real network.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from core.hashing import keccak256
from core.jobs.exact import prompt_prefix
from core.jobs.request import JobRequest, Message, Role, Sampling, Tier, request_hash
from node.auditing import ModelAuditor
from protos.job_messages import AssignJob, JobFinished, SignedReceipt, SubmitJob
from protos.messages import Model
from sequencer.coordinator.escrow import MarketChain
from sequencer.coordinator.fleet import DUTY_INFERENCE, DUTY_REPLICA
from sequencer.coordinator.job_table import Job
from sequencer.coordinator.jobs import JobsConfig
from tests.sim.network.jobs import INPUT_WEI, OUTPUT_WEI, JobWorld
from tests.sim.network.world import SimulatedWorker
from tests.unit.zk.scene import run_rows
from worker.inference.engine import Completion, Engine, FinishReason, ModelDescription, Piece
from worker.inference.exact.answer import AnswerText, whole_text
from worker.inference.exact.engine import sampling_of
from worker.inference.exact.model import ExactModel
from worker.inference.exact.ordering import model_hash
from worker.inference.exact.reference import Weights
from worker.inference.exact.tokenizer import ChatTokenizer
from worker.inference.proof_arithmetic import ProofArithmetic
from worker.inference.proof_engine import ProofEngine
from worker.inference.proof_trace import sampling_words
from worker.job_files import JobFiles
from worker.jobs import JobRunner, OfferedModel
from worker.jobs import JobsConfig as RunnerConfig
from zk.audit import AuditOpening, CommittedRows, Unit, open_unit
from zk.merkle import Digests
from zk.trace import Statement, Trace

__all__ = ["Claim", "ExactWorld", "Forge", "SimulatedEngine", "as_it_is"]


@dataclass(frozen=True)
class Claim:
    """What a worker says that it computed, and can open."""

    statement: Statement
    trace: Trace
    rows: CommittedRows


Forge = Callable[["SimulatedEngine", Claim], Claim]
"""From what was computed to what is claimed."""


def as_it_is(_: "SimulatedEngine", claim: Claim) -> Claim:
    return claim


@dataclass
class SimulatedEngine:
    """Serves `model` by running `weights` (its own, if honest) and claiming what `forge` makes of it.

    Implements `worker.inference.engine.Engine` and `worker.jobs.Opener`; everything is computed at once, in the caller.
    """

    exact: ExactModel
    weights: Weights | None = None
    forge: Forge = as_it_is
    claims: dict[bytes, Claim] = field(default_factory=dict)
    """What was claimed for each request, by its salt: shared by workers that collude."""

    def __post_init__(self) -> None:
        self.tokenizer = ChatTokenizer(self.exact.tokenizer, self.exact.chat_template)
        self.arithmetic = ProofArithmetic(self.exact)
        weights_bytes = sum(spec.bytes for spec in self.exact.specs)
        context = self.exact.header.context_max
        name = model_hash(self.exact.root, self.exact.header)
        self.model = ModelDescription("bytes", name, Tier.EXACT, context, weights_bytes)

    async def generate(
        self, request: JobRequest, salt: bytes | None = None, expected: Sequence[int] = ()
    ) -> AsyncGenerator[Piece | Completion, None]:
        assert salt is not None, "a job's answer is committed to"
        claim = self.claims.get(salt) or self.forge(self, self.compute(request, salt))
        self.claims[salt] = claim
        statement = claim.statement
        yield Piece(self.text(request, statement.answer))
        used = (len(statement.prompt), len(statement.answer))
        yield Completion(FinishReason.LENGTH, *used, claim.trace.root, statement.answer)

    def compute(self, request: JobRequest, salt: bytes) -> Claim:
        prompt = tuple(self.tokenizer.encode_chat(request.messages))
        sampling = sampling_of(request.sampling, self.exact.header.vocabulary)
        tokens_max, end = request.sampling.tokens_max, self.exact.header.end_tokens
        with closing(self._engine(len(prompt) + tokens_max)) as engine:
            answer = engine.generate(prompt, sampling, tokens_max, end)
            order = (self.exact.root, request_hash(request, salt), sampling_words(sampling))
            statement = Statement(*order, prompt, answer, prompt_prefix(salt))
            return self.committed(statement, run_rows(engine, statement))

    def committed(self, statement: Statement, rows: CommittedRows) -> Claim:
        """A claim of these rows, whatever they are."""
        with closing(self._engine(1)) as engine:
            return Claim(statement, engine.commit(statement, rows), rows)

    def text(self, request: JobRequest, answer: Sequence[int]) -> str:
        text = AnswerText(self.tokenizer, request.sampling.stop, self.exact.header.end_tokens)
        whole = whole_text(text, answer, request.sampling.tokens_max)
        return "(an answer that does not end here)" if whole is None else whole

    def _engine(self, tokens_max: int) -> ProofEngine:
        return ProofEngine(self.weights or self.exact, self.exact.root, tokens_max=tokens_max)

    async def open(
        self, request: JobRequest, salt: bytes, answer: Sequence[int], units: Sequence[Unit]
    ) -> tuple[Digests, list[AuditOpening]]:
        """With the arithmetic of the model that was ordered, whatever was run."""
        claim = self.claims[salt]
        openings = [open_unit(self.arithmetic, claim.trace, claim.rows, unit) for unit in units]
        return claim.trace.position_roots, openings

    async def close(self) -> None:
        return None


class GrindingRunner(JobRunner):
    """Sends many signed receipts for one answer, each with another trace root, before the one that it can open."""

    async def _answer(self, job: AssignJob, engine: Engine) -> JobFinished:
        finished = await super()._answer(job, engine)
        for number in range(5):
            forged = replace(finished.signed.receipt, trace_root=keccak256(b"root %d" % number))
            signature = self._signer.sign(forged.digest(self._domain))
            await self._client.post(replace(finished, signed=SignedReceipt(forged, signature)))
        return finished


class ExactWorld(JobWorld):
    """A JobWorld whose coordinator audits every answer of one exact model."""

    def __init__(
        self,
        folder: Path,
        model: ExactModel,
        *,
        units: int,
        audit_percent: int = 100,
        market: MarketChain | None = None,
        would_win: Callable[[Job], bool] = lambda job: False,
    ) -> None:
        self.exact, self.model_hash = model, model_hash(model.root, model.header)
        config = JobsConfig(audit_percent=audit_percent, audit_timeout_ms=20_000, stall_timeout_ms=10_000)
        super().__init__(folder, config, market, ModelAuditor([model], units), would_win)

    def exact_worker(
        self, number: int, engine: SimulatedEngine, *, runner: type[JobRunner] = JobRunner, opener: object = None
    ) -> SimulatedWorker:
        worker = self.worker(number, None, (DUTY_REPLICA, DUTY_INFERENCE))
        worker.models = [Model("bytes", self.model_hash, int(Tier.EXACT), INPUT_WEI, OUTPUT_WEI, 256)]
        worker.jobs = runner(  # type: ignore[attr-defined]
            worker.client,
            JobFiles(self.folder / f"worker-{number}-jobs"),
            [OfferedModel(engine, INPUT_WEI, OUTPUT_WEI, opener or engine)],  # type: ignore[arg-type]
            worker.signer,
            self.market.domain,
            RunnerConfig(),
            now_ms=self.now_ms,
        )
        return worker

    def order(self, number: int, generator: np.random.Generator, *, worker: bytes = bytes(20)) -> SubmitJob:
        """A funded job with a question of its own, for one worker or for any."""
        words = " ".join(str(word) for word in generator.integers(0, 1000, 3))
        sampling = Sampling(tokens_max=int(generator.integers(3, 7)), temperature_milli=900, seed=number)
        request = JobRequest("bytes", (Message(Role.USER, f"{number} {words}"),), sampling, Tier.EXACT)
        salt = keccak256(b"salt %d" % number)
        named = {"tier": Tier.EXACT, "model_hash": self.model_hash, "worker": worker}
        funded = self.fund(number, request_hash=request_hash(request, salt), **named)
        return SubmitJob(funded.job_id, request, salt)

    async def finished(self, submit: SubmitJob) -> str:
        """Hand a job in, and wait until its answer is judged; the verdict."""
        await self.follow(submit)
        job = self.coordinator.table.jobs[submit.job_id]
        await self.until(lambda: job.audit != "pending" or job.state == "failed", timeout_s=120)
        return job.audit
