"""Checks exact answers with models on disk: the coordinator's `Auditor`, put together from proofs and inference.

Owns the way from a request to the statement that a trace is of: template, tokenizer, sampling, and where an answer
ends. Decides nothing about jobs.
"""

import secrets
from collections.abc import Iterable
from functools import cache
from threading import Lock

from core.errors import InvalidInput
from protos.job_messages import AnswerOpened
from sequencer.coordinator.challenges import Answered
from worker.inference.exact.answer import AnswerText, whole_text
from worker.inference.exact.model import ExactModel
from worker.inference.exact.ordering import model_hash
from worker.inference.exact.tokenizer import ChatTokenizer
from worker.inference.proof_arithmetic import ProofArithmetic
from worker.inference.proof_engine import ProofEngine
from worker.inference.proof_trace import statement_of
from zk.audit import AuditKey, audit, draw_units
from zk.openings import decode_units, encode_units, openings_of
from zk.replay import replay
from zk.trace import Statement

__all__ = ["ModelAuditor"]

_TEXT_WRONG = "the answer's text is not that of its tokens, or it ends where this request's answer does not end"


class ModelAuditor:
    """Implements `sequencer.coordinator.challenges.Auditor`. Each challenge draws `units` units."""

    def __init__(self, models: Iterable[ExactModel], units: int) -> None:
        self._models = {model_hash(model.root, model.header): model for model in models}
        self._auditable = cache(lambda name: _Auditable(self._models[name]))
        self._units = units

    def knows(self, model_hash: bytes) -> bool:
        return model_hash in self._models

    def draw(self, answered: Answered, randomness: bytes) -> bytes:
        model = self._auditable(answered.model_hash)
        statement = model.statement(answered)
        drawn = draw_units(randomness, answered.trace_root, model.layers, statement, self._units)
        return encode_units(drawn)

    def check(self, answered: Answered, units: bytes, opened: AnswerOpened) -> str | None:
        model = self._auditable(answered.model_hash)
        return model.text_problem(answered) or model.audit_problem(answered, units, opened)

    def replay(self, answered: Answered) -> str | None:
        model = self._auditable(answered.model_hash)
        return model.text_problem(answered) or model.replay_problem(answered)


class _Auditable:
    """One model and the secret that its audits are made with."""

    def __init__(self, model: ExactModel) -> None:
        self._model = model
        self._tokenizer = ChatTokenizer(model.tokenizer, model.chat_template)
        self._arithmetic = ProofArithmetic(model)
        self._key = AuditKey(self._arithmetic, secrets.token_bytes(32))
        self._one_at_a_time = Lock()
        self.layers = model.header.layers

    def statement(self, answered: Answered) -> Statement:
        """What the receipt's trace must be of. Raises InvalidInput when there can be no such answer."""
        prompt = self._tokenizer.encode_chat(answered.request.messages)
        return statement_of(self._model, answered.request, answered.salt, prompt, answered.answer)

    def text_problem(self, answered: Answered) -> str | None:
        header, statement = self._model.header, self.statement(answered)
        if any(token >= header.vocabulary for token in answered.answer):
            return "the answer has tokens that the vocabulary lacks"
        sampling = answered.request.sampling
        tokens_max = min(sampling.tokens_max, header.context_max - len(statement.prompt))
        text = AnswerText(self._tokenizer, sampling.stop, header.end_tokens)
        return None if whole_text(text, answered.answer, tokens_max) == answered.output else _TEXT_WRONG

    def audit_problem(self, answered: Answered, units: bytes, opened: AnswerOpened) -> str | None:
        drawn, statement = decode_units(units), self.statement(answered)
        roots, openings = openings_of(self._model.header, drawn, opened)
        with self._one_at_a_time:
            verdict = audit(self._arithmetic, self._key, statement, answered.trace_root, roots, drawn, openings)
        if verdict.accepted:
            return None
        found = verdict.findings[0] if verdict.findings else None
        where = f": {found.operation}, position {found.unit.position}" if found else ""
        return f"{verdict.reason}{where}"

    def replay_problem(self, answered: Answered) -> str | None:
        statement = self.statement(answered)
        if len(statement.tokens) > self._model.header.context_max:
            raise InvalidInput(f"{len(statement.tokens)} tokens exceed the model's context")
        engine = ProofEngine(self._model, self._model.root, tokens_max=len(statement.tokens))
        try:
            verdict = replay(engine, statement, answered.trace_root, answered.answer)
        finally:
            engine.close()
        return None if verdict.accepted else verdict.reason
