"""Steps.sol gives the bytes of the reference for every operation, and refuses every changed operand."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from eth_abi.abi import encode

from core.hashing import keccak256
from tests.unit.market.ledger import Ledger, Reverted
from tests.unit.worker.inference.random_models import BASE_HEADER
from tests.unit.zk.arena import WORKER, DisputeScene, evidence_of, new_ledger, recompute
from tests.unit.zk.scene import Claim
from worker.inference.exact.sampling import Sampling, choose
from worker.inference.exact.specification import exp2_table
from zk.choice import Choice
from zk.contracts import STEPS_ADDRESS
from zk.dispute import EVIDENCE_TYPE
from zk.instruction import Instruction, Operation
from zk.program import Programs
from zk.trace import key_value_leaf, residual_leaf

# What the importer accepts: SmolLM2 and Llama, Qwen 2.5 (bias), Qwen 3 (head norms), and head widths that are not whole
# tiles, not powers of two, or many; the vocabulary of 200 ends in the middle of a tile.
SHAPES = {
    "narrow": {},
    "plain": {"head_width": 32},
    "bias": {"qk_hadamard": 1, "qkv_bias": 1, "qkv_bits": 16, "o_bits": 16, "head_width": 64},
    "norms": {"qk_norm": 1, "qk_hadamard": 1, "head_width": 128},
    "norms_bias": {"qk_norm": 1, "qkv_bias": 1, "head_width": 48},
    "odd": {"head_width": 80},
    "wide": {"head_width": 256, "qk_hadamard": 1},
    "many_heads": {"heads": 80, "key_value_heads": 40},
}
SAMPLINGS = {
    "greedy": Sampling(),
    "drawn": Sampling(temperature_q16=60_000, seed=9),
    "top_k": Sampling(temperature_q16=60_000, top_k=7, seed=9),
    "top_p": Sampling(temperature_q16=90_000, top_p_q16=40_000, seed=10),
    "both": Sampling(temperature_q16=200_000, top_k=50, top_p_q16=50_000, seed=11),
    "one": Sampling(temperature_q16=60_000, top_k=1, top_p_q16=1, seed=12),
    "all": Sampling(temperature_q16=6_000_000, top_k=262_144, top_p_q16=65_535, seed=13),
}
PROMPT_TOKENS = 4
CHOOSING = {
    Operation.LARGEST,
    Operation.SEARCH,
    Operation.THRESHOLD,
    Operation.ABOVE,
    Operation.CUT,
    Operation.DRAW,
    Operation.PICK,
    Operation.TOKEN_DIGEST,
}
DRAW = next(one for one in Programs(BASE_HEADER).program(0) if one.operation == Operation.DRAW)
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
def choosing() -> Iterator[DisputeScene]:
    one = DisputeScene(8)
    yield one
    one.close()


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


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_every_way_of_choosing(choosing: DisputeScene, ledger: Ledger, sampling: str) -> None:
    claim = choosing.answer(choosing.order(choosing.prompt(PROMPT_TOKENS), SAMPLINGS[sampling]), 3)
    for position in (PROMPT_TOKENS, PROMPT_TOKENS + 2):
        tape = choosing.tapes(claim)(position, 0)
        assert tape.cells[tape.size - 1] == claim.trace.digest(position, 0)
        worker = choosing.worker(claim)
        for instruction in choosing.programs.program(0):
            if instruction.operation not in CHOOSING:
                continue
            # Every third pass of a search, all cells of everything else.
            step = 3 if instruction.operation == Operation.SEARCH else 1
            for cell in range(0, instruction.cells, step):
                index = instruction.first(position + 1) + cell
                digest, _ = recompute(ledger, choosing, claim, position, 0, index, worker)
                assert digest == keccak256(tape.cells[index]), (instruction.operation.name, cell)


def kept_weights(logits: list[int], sampling: Sampling) -> list[int]:
    """Section 5, by sorting: each token's weight, 0 where top_k or top_p leaves it out."""
    table, factor = exp2_table(), (6_051_102 << 16) // sampling.temperature_q16
    distances = [((max(logits) - one) * factor) >> 22 for one in logits]
    weights = [(int(table[(one & 65535) >> 4]) << 20) >> (one >> 16) for one in distances]
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[: sampling.top_k or None]
    total, kept, reached = sum(weights[i] for i in order), set(), 0
    for i in order:
        if sampling.top_p_q16 < 65_536 and reached >= (total >> 16) * sampling.top_p_q16:
            break
        kept.add(i)
        reached += weights[i]
    return [weight if i in kept else 0 for i, weight in enumerate(weights)]


def test_a_cut_without_sorting_keeps_what_sorting_keeps() -> None:
    """Many logits are equal; of those at the threshold, the lowest indexes are kept."""
    generator = np.random.default_rng(5)
    for seed in range(200):
        logits = generator.integers(-4, 4, 200) << int(generator.integers(12, 18))
        words = (70_000, int(generator.integers(0, 120)), int(generator.integers(1, 65_537)), seed, 0)
        choice = Choice(logits, words, exp2_table(), choose(logits, Sampling(*words), 9))
        expected = kept_weights(logits.tolist(), Sampling(*words))
        sums = [sum(expected[: 32 * tile]) for tile in range(1, 8)]
        assert choice.cells(DRAW)[:, 0].tolist() == sums, seed


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

        def send(shown: Any, instruction: Instruction = instruction, place: Any = place) -> None:
            encoded = encode([EVIDENCE_TYPE], [shown])
            ledger.send(WORKER, STEPS_ADDRESS, "recompute", instruction.encode(), encoded, place)

        send(evidence)
        count = 0
        for wrong in changed(evidence):
            count += 1
            with pytest.raises(Reverted):
                send(wrong)
        assert count > 5
