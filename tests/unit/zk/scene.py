"""A small model with its engine, honest answers, and the rows behind them, for tests of what is claimed about them."""

from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from core.hashing import keccak256
from core.jobs.exact import prompt_prefix
from tests.unit.worker.inference.random_models import RandomModel, random_model
from worker.inference.exact.sampling import Sampling
from worker.inference.proof_arithmetic import ProofArithmetic
from worker.inference.proof_engine import ProofEngine
from zk.audit import CommittedRows
from zk.trace import Statement, Trace

__all__ = ["SAMPLED", "TOKENS_MAX", "Claim", "Scene", "claim_rows", "open_engine"]

TOKENS_MAX = 64
PREFIX = prompt_prefix(b"\x0b" * 32)
SAMPLED = Sampling(temperature_q16=52_000, top_k=50, top_p_q16=60_000, seed=77, choice=1)


@dataclass(frozen=True)
class Claim:
    """What a worker says it did: the order with its answer, the committed trace, and the rows that it can open."""

    statement: Statement
    trace: Trace
    rows: CommittedRows


def words_of(sampling: Sampling) -> tuple[int, int, int, int, int]:
    return (sampling.temperature_q16, sampling.top_k, sampling.top_p_q16, sampling.seed, sampling.choice)


def open_engine(model: RandomModel, root: bytes) -> ProofEngine:
    return ProofEngine(model, root, tokens_max=TOKENS_MAX, chunk_rows=16)


def claim_rows(engine: ProofEngine, statement: Statement, rows: CommittedRows) -> Claim:
    """Commit to these rows under this statement, whatever they are."""
    return Claim(statement, engine.commit(statement, rows), rows)


def run_rows(engine: ProofEngine, statement: Statement) -> CommittedRows:
    """Teacher-forced rows of a statement's tokens."""
    parts = list(engine.prefill(statement))
    return CommittedRows(
        np.concatenate([part.boundaries for part in parts]), np.concatenate([part.kv_rows for part in parts])
    )


class Scene:
    """One model; close it when done. The same seed gives the same scene."""

    def __init__(self, seed: int = 1, **shape: int) -> None:
        self.model = random_model(seed, **shape)
        self.model_root = keccak256(b"model %d" % seed)
        self.engine = open_engine(self.model, self.model_root)
        self.arithmetic = ProofArithmetic(self.model)
        self.generator = np.random.default_rng([seed, 1])

    def close(self) -> None:
        self.engine.close()

    def prompt(self, length: int) -> tuple[int, ...]:
        return tuple(self.generator.integers(0, self.model.header.vocabulary, length).tolist())

    def order(self, prompt: tuple[int, ...], sampling: Sampling = SAMPLED) -> Statement:
        """An order; a statement needs an answer, and whoever answers replaces this one of one token."""
        request_hash = keccak256(np.array(prompt, "<u4").tobytes())
        return Statement(self.model_root, request_hash, words_of(sampling), prompt, (0,), PREFIX)

    def answer(self, order: Statement, tokens: int, engine: ProofEngine | None = None) -> Claim:
        """The claim of a worker that ran `engine` (the honest one by default) as if it were the ordered model."""
        runner = engine or self.engine
        answer = runner.generate(order.prompt, Sampling(*order.sampling), tokens)
        statement = replace(order, answer=answer)
        return claim_rows(self.engine, statement, run_rows(runner, statement))

    def with_model(self, order: Statement, tokens: int, model: RandomModel) -> Claim:
        """The claim of a worker that ran another model of the same shape."""
        with closing(open_engine(model, self.model_root)) as engine:
            return self.answer(order, tokens, engine)
