"""Steps.sol gives the bytes of the reference for every operation, and refuses every changed operand."""

from collections.abc import Iterator

import pytest

from core.hashing import keccak256
from tests.unit.market.ledger import Ledger, Reverted
from tests.unit.zk.arena import WORKER, DisputeScene, evidence_of, new_ledger, recompute
from tests.unit.zk.scene import Claim
from worker.inference.exact.sampling import Sampling
from zk.contracts import STEPS_ADDRESS
from zk.program import Operation
from zk.trace import key_value_leaf, residual_leaf

SHAPES = {"plain": {}, "every": {"qk_hadamard": 1, "qkv_bias": 1, "qkv_bits": 16, "o_bits": 16, "head_width": 64}}
PROMPT_TOKENS = 4
LEAVES = {"token": 0, "embedding": residual_leaf(0), "key_values": key_value_leaf(1), "layer": residual_leaf(2)}


@pytest.fixture(scope="module", params=SHAPES)
def scene(request: pytest.FixtureRequest) -> Iterator[DisputeScene]:
    one = DisputeScene(7, **SHAPES[request.param])
    yield one
    one.close()


@pytest.fixture(scope="module")
def claim(scene: DisputeScene) -> Claim:
    return scene.answer(scene.order(scene.prompt(PROMPT_TOKENS), Sampling(temperature_q16=60_000, seed=9)), 4)


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return new_ledger()


def samples(scene: DisputeScene, inner: int, position: int) -> Iterator[tuple[Operation, int]]:
    """The first, second and last cell of each register, and one that pads it, where there is one."""
    for instruction in scene.programs.program(inner):
        start, count = instruction.first(position + 1), instruction.count(position + 1)
        for cell in sorted({0, min(1, count - 1), count - 1}):
            yield instruction.operation, start + cell


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_operation_gives_the_cell(scene: DisputeScene, claim: Claim, ledger: Ledger, leaf: str) -> None:
    position, inner = PROMPT_TOKENS + 1, LEAVES[leaf]
    tape = scene.tapes(claim)(position, inner)
    assert tape.cells[tape.size - 1] == claim.trace.digest(position, inner)
    worker = scene.worker(claim)
    for operation, index in samples(scene, inner, position):
        digest, _ = recompute(ledger, scene, claim, position, inner, index, worker)
        expected = keccak256(tape.cells[index]) if index in tape.cells else bytes(32)
        assert digest == expected, (operation.name, index)


def test_a_greedy_token(scene: DisputeScene, ledger: Ledger) -> None:
    claim = scene.answer(scene.order(scene.prompt(PROMPT_TOKENS), Sampling()), 3)
    tape = scene.tapes(claim)(PROMPT_TOKENS, 0)
    worker = scene.worker(claim)
    for operation, index in samples(scene, 0, PROMPT_TOKENS):
        if operation >= Operation.LARGEST:
            digest, _ = recompute(ledger, scene, claim, PROMPT_TOKENS, 0, index, worker)
            assert digest == (keccak256(tape.cells[index]) if index in tape.cells else bytes(32)), operation.name


def changed(value: object) -> Iterator[object]:
    """The same evidence with one byte string changed, for each of its byte strings."""
    if isinstance(value, bytes) and value:
        yield bytes([value[0] ^ 1]) + value[1:]
    elif isinstance(value, (tuple, list)):
        for i, part in enumerate(value):
            for other in changed(part):
                yield (*value[:i], other, *value[i + 1 :])


def test_no_operand_can_be_another(scene: DisputeScene, claim: Claim, ledger: Ledger) -> None:
    """One changed byte anywhere in the openings of a dot product and of an attention score is refused."""
    position, inner = PROMPT_TOKENS + 1, residual_leaf(1)
    tape, worker = scene.tapes(claim)(position, inner), scene.worker(claim)
    context = (tape.root, tape.depth, claim.trace.rows_root, len(claim.trace.levels) - 1, claim.trace.shape.leaves)
    for wanted in (Operation.DOT, Operation.SCORE):
        instruction = next(one for one in scene.programs.program(inner) if one.operation == wanted)
        index = instruction.first(position + 1) + (instruction.width if wanted == Operation.SCORE else 3)
        instruction, evidence = evidence_of(scene, worker, tape, position, inner, index)
        place = (*context, scene.model_root, position, index, claim.statement.sampling)
        ledger.send(WORKER, STEPS_ADDRESS, "recompute", instruction.solidity(), evidence, place)
        count = 0
        for wrong in changed(evidence):
            count += 1
            with pytest.raises(Reverted):
                ledger.send(WORKER, STEPS_ADDRESS, "recompute", instruction.solidity(), wrong, place)
        assert count > 5
