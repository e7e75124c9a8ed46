"""Opens audited units of an engine's answers. The answer is computed again for it, as a prompt is: a worker keeps
nothing of answers that were taken, and exact arithmetic gives the same rows every time.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from core.jobs.request import JobRequest
from worker.inference.engine import Completion
from worker.inference.errors import RequestError
from worker.inference.exact.engine import ExactEngine
from worker.inference.exact.model import ExactModel
from worker.inference.exact.ordering import sampling_of
from worker.inference.proof_arithmetic import ProofArithmetic
from worker.inference.proof_trace import RowRecorder
from zk.audit import AuditOpening, Unit, open_unit
from zk.merkle import Digests

__all__ = ["AnswerOpener"]


class AnswerOpener:
    """Implements `worker.jobs.Opener` for one engine and its model."""

    def __init__(self, model: ExactModel, engine: ExactEngine) -> None:
        self._model, self._engine = model, engine
        self._arithmetic = ProofArithmetic(model)

    async def open(
        self, request: JobRequest, salt: bytes, answer: Sequence[int], units: Sequence[Unit]
    ) -> tuple[Digests, list[AuditOpening]]:
        """The roots of all positions, and the openings. Raises RequestError when the model gives another answer to
        this request, and OpeningInvalid for units that the answer has not.
        """
        sampling = sampling_of(request.sampling, self._model.header.vocabulary)
        recorder = RowRecorder(self._model, request, salt, sampling)
        async with aclosing(self._engine.run(request, salt, recorder, answer)) as parts:
            ended = [part async for part in parts if isinstance(part, Completion)]
        if not ended or ended[0].tokens != tuple(answer):
            raise RequestError("this is not the answer that the model gives to this request")
        return await asyncio.to_thread(self._open, recorder, units)

    def _open(self, recorder: RowRecorder, units: Sequence[Unit]) -> tuple[Digests, list[AuditOpening]]:
        trace, rows = recorder.finished, recorder.committed
        assert trace is not None, "an answer that ended has a trace"
        return trace.position_roots, [open_unit(self._arithmetic, trace, rows, unit) for unit in units]
