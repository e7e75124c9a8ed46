"""Replay: run the model again over the tokens of an answer, teacher-forced, and compare every committed row.

The first rung of the ladder, and a certain one: equal roots prove the whole answer, unequal ones prove that it is
wrong. Needs an engine for the model (`PrefillEngine`), which whoever composes the program passes in.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from zk.trace import LeafName, Statement, Trace, TraceBuilder, TraceShape

__all__ = ["PrefillEngine", "PrefillRows", "Verdict", "replay"]


class PrefillRows(NamedTuple):
    """Consecutive positions of a pass: int32[n, L + 1, d], u8[n, L, bytes], and the token that each position's logits
    choose for the next one [n] (-1 where the next token is given and nothing was chosen)."""

    boundaries: NDArray[np.int32]
    kv_rows: NDArray[np.uint8]
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


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a replay found. `difference` names the first wrong row, if the worker disclosed its digests; `reason` is a
    sentence. `trace` is the honest one, where the model could be run."""

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
    """
    if engine.model_root != order.model_root:
        return Verdict(False, "this engine runs another model than the one ordered")
    statement = replace(order, answer=answer)
    shape = engine.trace_shape
    builder = TraceBuilder(shape)
    position, wrong_token = 0, None
    for rows in engine.prefill(statement):
        builder.add(position, rows.boundaries, rows.kv_rows)
        for chosen in rows.chosen:
            position += 1
            if position >= len(order.prompt) and chosen != statement.tokens[position] and wrong_token is None:
                wrong_token = (position, chosen)
    trace = builder.finish(statement)
    difference = None
    if disclosed is not None and disclosed.root == claimed_root and disclosed.shape == shape:
        difference = trace.first_difference(disclosed)
    if wrong_token is not None:
        at, chosen = wrong_token
        token = LeafName(at, "token", 0)
        if difference is None or _order(shape, token) < _order(shape, difference):
            difference = token
        reason = f"the token at position {at} is {statement.tokens[at]}; this model chooses {chosen}"
        return Verdict(False, reason, difference, trace)
    if trace.root != claimed_root:
        where = f"first difference: {difference}" if difference else "the worker disclosed no digests of this root"
        return Verdict(
            False, f"the trace root is not that of this model, request and sampling; {where}", difference, trace
        )
    return Verdict(True, "every row and token is equal", None, trace)


def _order(shape: TraceShape, name: LeafName) -> int:
    inner = 0 if name.kind == "token" else 2 * name.index + (1 if name.kind == "residual" else 2)
    return name.position * shape.leaves + inner
