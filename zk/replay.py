"""Replay: run the model again over the tokens of an answer, teacher-forced, and compare every committed row.

The first rung of the ladder, and a certain one: equal roots prove the whole answer, unequal ones prove that it is
wrong. Needs an engine for the model (`PrefillEngine`), which whoever composes the program passes in.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from zk.trace import LeafName, PositionsBuilder, Statement, Trace, TraceBuilder, TraceShape

__all__ = ["PrefillEngine", "PrefillRoots", "PrefillRows", "Verdict", "replay"]


class PrefillRows(NamedTuple):
    """Consecutive positions of a pass: int32[n, L + 1, d], u8[n, L, bytes], and the token that each position's logits
    choose for the next one [n] (-1 where the next token is given and nothing was chosen)."""

    boundaries: NDArray[np.int32]
    kv_rows: NDArray[np.uint8]
    chosen: list[int]


class PrefillRoots(NamedTuple):
    """The same of a pass that keeps no rows: u8[n, 32], the roots of positions, and the tokens chosen."""

    roots: NDArray[np.uint8]
    chosen: list[int]


class PrefillEngine(Protocol):
    """One model, ready to run."""

    @property
    def model_root(self) -> bytes: ...

    @property
    def trace_shape(self) -> TraceShape: ...

    def prefill(self, statement: Statement) -> Iterator[PrefillRows]:
        """Run all tokens of the statement but the last, in order; choose a token after the prompt and after every
        token of the answer, with the statement's sampling."""
        ...

    def prefill_roots(self, statement: Statement) -> Iterator[PrefillRoots]:
        """The same, hashed where it is computed: the quicker way to a root."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a replay found. `difference` names the first wrong row, if the worker disclosed its digests; `reason` is a
    sentence. `trace` is the honest one, where there were digests to compare it with."""

    accepted: bool
    reason: str
    difference: LeafName | None = None
    trace: Trace | None = None


def replay(
    engine: PrefillEngine,
    order: Statement,
    claimed_root: bytes,
    answer: tuple[int, ...],
    disclosed: Trace | None = None,
) -> Verdict:
    """Check an answer: `order` is what was asked for (its own answer field is not looked at), `answer` and
    `claimed_root` what the receipt says, `disclosed` the worker's digests, which serve only to name what differs.
    Without them no rows are kept, and the verdict has no trace.
    """
    if engine.model_root != order.model_root:
        return Verdict(False, "this engine runs another model than the one ordered")
    statement = replace(order, answer=answer)
    shape, choices = engine.trace_shape, _Choices(statement)
    trace, difference = None, None
    if disclosed is None:
        positions = PositionsBuilder(shape)
        for part in engine.prefill_roots(statement):
            positions.add(choices.position, part.roots)
            choices.take(part.chosen)
        root = positions.finish(statement)
    else:
        builder = TraceBuilder(shape)
        for rows in engine.prefill(statement):
            builder.add(choices.position, rows.boundaries, rows.kv_rows)
            choices.take(rows.chosen)
        trace = builder.finish(statement)
        root = trace.root
        if disclosed.root == claimed_root and disclosed.shape == shape:
            difference = trace.first_difference(disclosed)
    if choices.wrong is not None:
        at, chosen = choices.wrong
        token = LeafName(at, "token", 0)
        if difference is None or _order(shape, token) < _order(shape, difference):
            difference = token
        reason = f"the token at position {at} is {statement.tokens[at]}; this model chooses {chosen}"
        return Verdict(False, reason, difference, trace)
    if root != claimed_root:
        where = f"first difference: {difference}" if difference else "the worker disclosed no digests of this root"
        return Verdict(
            False, f"the trace root is not that of this model, request and sampling; {where}", difference, trace
        )
    return Verdict(True, "every row and token is equal", None, trace)


class _Choices:
    """How far a pass has come, and the first token of the answer, if any, that the model would not have chosen."""

    def __init__(self, statement: Statement) -> None:
        self._statement = statement
        self.position = 0
        self.wrong: tuple[int, int] | None = None

    def take(self, chosen: list[int]) -> None:
        """What the next positions choose for those after them."""
        prompt, tokens = len(self._statement.prompt), self._statement.tokens
        for token in chosen:
            self.position += 1
            if self.wrong is None and self.position >= prompt and token != tokens[self.position]:
                self.wrong = (self.position, token)


def _order(shape: TraceShape, name: LeafName) -> int:
    inner = 0 if name.kind == "token" else 2 * name.index + (1 if name.kind == "residual" else 2)
    return name.position * shape.leaves + inner
