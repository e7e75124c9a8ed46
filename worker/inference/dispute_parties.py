"""The parties of a dispute over one model: honest runs, and what each side shows of them (`zk.dispute`).

A run is a prefill of tokens that are known, or an answer made anew; nothing of it is kept between games.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import numpy as np

from worker.inference.exact.model import ExactModel
from worker.inference.exact.sampling import Sampling
from worker.inference.proof_arithmetic import ProofArithmetic
from worker.inference.proof_engine import ProofEngine
from worker.inference.proof_model import TensorOpener
from zk.audit import CommittedRows
from zk.dispute import Challenger, Terms, Worker
from zk.program import Programs
from zk.tape import Tape, fill
from zk.trace import Statement, Trace

__all__ = ["DisputeParties"]


class DisputeParties:
    """Makes parties for disputes over a model's answers."""

    def __init__(self, model: ExactModel) -> None:
        self.programs = Programs(model.header)
        self._model, self._arithmetic = model, ProofArithmetic(model)
        self.opener = TensorOpener.of_model(model)

    def answer(self, order: Statement, tokens: int) -> Statement:
        """The order with the model's own answer of exactly so many tokens, beyond any end token."""
        with closing(self._engine(len(order.prompt) + tokens)) as engine:
            answer = engine.generate(order.prompt, Sampling(*order.sampling), tokens)
        return replace(order, answer=answer)

    def run(self, statement: Statement) -> tuple[Trace, CommittedRows]:
        """The honest trace of a statement's tokens, with its rows."""
        with closing(self._engine(len(statement.tokens))) as engine:
            parts = list(engine.prefill(statement))
            boundaries = np.concatenate([part.boundaries for part in parts])
            rows = CommittedRows(boundaries, np.concatenate([part.kv_rows for part in parts]))
            return engine.commit(statement, rows), rows

    def worker(self, statement: Statement) -> Worker:
        """Whoever gave this answer, and can show all of it."""
        trace, rows = self.run(statement)
        return self.committed_worker(trace, rows, self.tapes(statement, rows))

    def committed_worker(self, trace: Trace, rows: CommittedRows, tapes: Callable[[int, int], Tape]) -> Worker:
        """Whoever committed to this trace, whatever it is."""
        return Worker(trace, rows, self.programs, self.opener, tapes)

    def challenger(self, terms: Terms, statement: Statement) -> Challenger:
        """Whoever says that this would have been the answer."""
        trace, rows = self.run(statement)
        return Challenger(terms, trace, self.opener, self.tapes(statement, rows))

    def tapes(self, statement: Statement, rows: CommittedRows) -> Callable[[int, int], Tape]:
        """How a party computes tapes: with the model's arithmetic, from its rows."""

        def make(position: int, inner: int) -> Tape:
            return fill(self._arithmetic, statement, rows, self.programs.program(inner), position, inner)

        return make

    def _engine(self, tokens: int) -> ProofEngine:
        return ProofEngine(self._model, self._model.root, tokens_max=tokens)
