"""Gas of disputes over SmolLM2's shape: each kind of last step through the game, and the whole game.

python -m tests.bench.disputes --models-dir .warpgrid/models --model smollm2
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.unit.zk.arena import CHALLENGER, WORKER, Arena
from worker.inference.exact.model import ExactModel, ModelStore
from worker.inference.exact.sampling import Sampling
from worker.inference.proof_arithmetic import ProofArithmetic
from worker.inference.proof_engine import ProofEngine
from worker.inference.proof_model import TensorOpener
from zk.audit import CommittedRows
from zk.dispute import LEVELS_PER_ROUND, Challenger, MakeTape, ModelOpener, Terms, Worker
from zk.program import Programs
from zk.tape import Tape, fill
from zk.trace import Statement, Trace, key_value_leaf, residual_leaf

__all__ = ["main"]

PROMPT_TOKENS, ANSWER_TOKENS = 90, 11


class TargetedChallenger(Challenger):
    """Picks its way to one cell of one leaf, right or wrong."""

    def __init__(
        self, terms: Terms, trace: Trace, opener: ModelOpener, make_tape: MakeTape, targets: list[int]
    ) -> None:
        super().__init__(terms, trace, opener, make_tape)
        self._targets = targets

    def refutation(self) -> None:
        return None

    def choice(self, nodes: list[bytes]) -> int:
        left = self._tree.left - (self._tree.left % LEVELS_PER_ROUND or LEVELS_PER_ROUND)
        wanted = (self._targets[0] >> left) & (len(nodes) - 1)
        if left == 0:
            self._targets.pop(0)
        return wanted


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models-dir", type=Path, default=Path(".warpgrid/models"))
    parser.add_argument("--model", default="smollm2")
    arguments = parser.parse_args()
    model = ExactModel(ModelStore(arguments.models_dir).find(arguments.model))
    engine = ProofEngine(model, model.root, tokens_max=PROMPT_TOKENS + ANSWER_TOKENS)
    prompt = tuple(np.random.default_rng(1).integers(0, model.header.vocabulary, PROMPT_TOKENS).tolist())
    programs, words = Programs(model.header), (60_000, 40, 60_000, 1, 0)
    asked = terms_of(programs, Statement(model.root, bytes(32), words, prompt, (0,)))
    statement, trace = engine.answer(prompt, Sampling(*words), ANSWER_TOKENS, asked.request_hash)
    parts = list(engine.prefill(statement))
    rows = CommittedRows(
        np.concatenate([part.boundaries for part in parts]), np.concatenate([part.kv_rows for part in parts])
    )
    measure(model, statement, trace, rows)
    engine.close()


def terms_of(programs: Programs, statement: Statement) -> Terms:
    """The terms of an order, without the root of an answer."""
    return Terms(
        bytes(32),
        statement.model_root,
        programs.tree_root,
        bytes(32),
        statement.prompt_hash,
        statement.sampling,
        len(statement.prompt),
        ANSWER_TOKENS,
        ANSWER_TOKENS,
        True,
        programs.shape.layers,
        WORKER,
        CHALLENGER,
    )


def measure(model: ExactModel, statement: Statement, trace: Trace, rows: CommittedRows) -> None:
    opener = TensorOpener.of_model(model)
    assert opener.root == model.root, "the contract would see another model"
    programs, arithmetic = Programs(model.header), ProofArithmetic(model)
    position = PROMPT_TOKENS + 5
    tapes: dict[tuple[int, int], Tape] = {}

    def make(at: int, inner: int) -> Tape:
        if (at, inner) not in tapes:
            tapes[at, inner] = fill(arithmetic, statement, rows, programs.program(inner), at, inner)
        return tapes[at, inner]

    terms = replace(terms_of(programs, statement), trace_root=trace.root)
    seen: set[object] = set()
    for inner in (residual_leaf(0), key_value_leaf(15), residual_leaf(16), 0):
        for instruction in programs.program(inner):
            count = instruction.count(position + 1)
            key = (instruction.operation, instruction.parameters, len(instruction.operands), instruction.tensors != ())
            if key in seen:
                continue
            seen.add(key)
            cell = count - 1 - (instruction.width - 1 if instruction.cells_per_position else 0)
            target = instruction.first(position + 1) + cell
            arena = Arena(terms)
            challenger = TargetedChallenger(terms, trace, opener, make, [position * trace.shape.leaves + inner, target])
            moves = arena.play(Worker(trace, rows, programs, opener, make), challenger)
            assert arena.winner() == WORKER
            last, whole = arena.gas[-1][1], sum(gas for _, gas in arena.gas)
            print(f"{instruction.operation.name:18} {instruction.parameters!s:32} {last:9,} {whole:10,} {moves} moves")  # noqa: T201


if __name__ == "__main__":
    main()
