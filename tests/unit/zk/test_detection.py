"""Honest answers pass every check; each kind of cheat is caught by replay, and by audits as often as predicted."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from core.hashing import keccak256
from tests.unit.zk.cheats import CHEATS
from tests.unit.zk.scene import SAMPLED, Claim, Scene, open_engine, run_rows
from worker.inference.exact.sampling import GREEDY
from zk.audit import AuditKey, AuditVerdict, Unit, audit, catch_probability, draw_units, open_unit, unit_count
from zk.replay import replay
from zk.trace import Statement

ANSWER_TOKENS = 6
AUDITOR_SECRET = keccak256(b"the auditor's secret")


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    one = Scene(11)
    yield one
    one.close()


def all_units(scene: Scene, statement: Statement) -> list[Unit]:
    layers = scene.model.header.layers
    units = [Unit(position, layer) for position in range(len(statement.tokens) - 1) for layer in range(layers)]
    return units + [Unit(len(statement.prompt) - 1 + i, layers) for i in range(len(statement.answer))]


def audited(scene: Scene, order: Statement, claim: Claim, units: list[Unit]) -> AuditVerdict:
    """The worker answers for the ordered model, whatever it ran."""
    key = AuditKey(scene.arithmetic, AUDITOR_SECRET)
    openings = [open_unit(scene.arithmetic, claim.trace, claim.rows, unit) for unit in units]
    received = replace(order, answer=claim.statement.answer)
    return audit(scene.arithmetic, key, received, claim.trace.root, claim.trace.position_roots, units, openings)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_an_honest_answer_passes_replay_and_a_whole_audit(scene: Scene, sampling: object) -> None:
    order = scene.order(scene.prompt(9), sampling)  # type: ignore[arg-type]
    claim = scene.answer(order, ANSWER_TOKENS)
    verdict = replay(scene.engine, order, claim.trace.root, claim.statement.answer, claim.trace)
    assert verdict.accepted, verdict.reason
    units = all_units(scene, claim.statement)
    assert len(units) == unit_count(scene.model.header.layers, claim.statement)
    outcome = audited(scene, order, claim, units)
    assert outcome.accepted, outcome


@pytest.mark.parametrize("shape", [{"qk_norm": 1, "qkv_bias": 1}, {"qk_hadamard": 1, "qkv_bits": 16, "o_bits": 16}])
def test_every_feature_of_the_specification_can_be_audited(shape: dict[str, int]) -> None:
    scene = Scene(3, **shape)
    order = scene.order(scene.prompt(5))
    claim = scene.answer(order, 4)
    outcome = audited(scene, order, claim, all_units(scene, claim.statement))
    scene.close()
    assert outcome.accepted, outcome


@pytest.mark.parametrize("name", CHEATS)
def test_each_cheat_is_caught(scene: Scene, name: str) -> None:
    generator = np.random.default_rng([21, *name.encode()])
    order = scene.order(scene.prompt(8))
    claim = CHEATS[name](scene, order, ANSWER_TOKENS, generator)
    verdict = replay(scene.engine, order, claim.trace.root, claim.statement.answer, claim.trace)
    assert not verdict.accepted

    received = replace(order, answer=claim.statement.answer)
    whole = audited(scene, order, claim, all_units(scene, received))
    assert not whole.accepted
    assert bool(whole.findings) == (name != "replayed_answer"), "only another order's root is refused as a whole"
    if whole.findings and verdict.difference is not None:  # replay and audit name the same place
        first = verdict.difference
        positions = {finding.unit.position for finding in whole.findings}
        at = first.position - 1 if first.kind == "token" and first.position >= len(order.prompt) else first.position
        assert at == min(positions), (first, sorted(positions))


@pytest.mark.parametrize("name", CHEATS)
def test_an_audit_catches_as_often_as_predicted(scene: Scene, name: str) -> None:
    generator = np.random.default_rng([22, *name.encode()])
    order = scene.order(scene.prompt(8))
    claim = CHEATS[name](scene, order, ANSWER_TOKENS, generator)
    received, layers = replace(order, answer=claim.statement.answer), scene.model.header.layers
    units = all_units(scene, received)
    wrong = len(audited(scene, order, claim, units).findings) or len(
        units
    )  # another order's root is refused as a whole
    draws, audits = 2, 40
    caught = 0
    for number in range(audits):
        drawn = draw_units(keccak256(b"beacon %d" % number), claim.trace.root, layers, received, draws)
        caught += not audited(scene, order, claim, drawn).accepted
    predicted = catch_probability(wrong, len(units), draws)
    deviation = (predicted * (1 - predicted) / audits) ** 0.5
    assert abs(caught / audits - predicted) <= 4 * deviation + 1e-9, (caught / audits, predicted)


def test_draws_are_uniform_and_follow_the_root(scene: Scene) -> None:
    order = replace(scene.order(scene.prompt(4)), answer=(1, 2, 3))
    units = all_units(scene, order)
    drawn = draw_units(bytes(32), bytes(32), scene.model.header.layers, order, 300 * len(units))
    counts = np.array([drawn.count(unit) for unit in units])
    assert counts.sum() == len(drawn)
    assert abs(counts - 300).max() < 6 * 300**0.5
    assert drawn[:20] != draw_units(bytes(32), keccak256(b"other root"), scene.model.header.layers, order, 20)


def test_replay_names_the_first_wrong_row(scene: Scene) -> None:
    order = scene.order(scene.prompt(6))
    claim = scene.answer(order, ANSWER_TOKENS)
    for position, inner, words in (
        (2, 1, "residual at boundary 0"),
        (4, 4, "key-value of layer 1"),
        (0, 5, "boundary 2"),
    ):
        leaves = claim.trace.leaves.copy()
        leaves[position * claim.trace.shape.leaves + inner] ^= 1
        forged = type(claim.trace)(claim.trace.shape, claim.statement, leaves)
        verdict = replay(scene.engine, order, forged.root, claim.statement.answer, forged)
        assert not verdict.accepted
        assert words in str(verdict.difference)
        assert f"position {position}" in str(verdict.difference)


def test_an_answer_for_another_model_is_not_replayed(scene: Scene) -> None:
    order = replace(scene.order(scene.prompt(6)), model_root=bytes(32))
    assert not replay(scene.engine, order, bytes(32), (1,)).accepted


def test_openings_of_other_units_or_with_wrong_products_are_refused(scene: Scene) -> None:
    order = scene.order(scene.prompt(6))
    claim = scene.answer(order, ANSWER_TOKENS)
    key = AuditKey(scene.arithmetic, AUDITOR_SECRET)
    unit, other = Unit(5, 1), Unit(4, 1)
    opening = open_unit(scene.arithmetic, claim.trace, claim.rows, unit)

    def check(units: list[Unit], *openings: object) -> AuditVerdict:
        roots = claim.trace.position_roots
        return audit(scene.arithmetic, key, claim.statement, claim.trace.root, roots, units, list(openings))  # type: ignore[arg-type]

    assert check([unit], opening).accepted
    assert not check([other], opening).accepted
    assert not check([other], replace(opening, unit=other)).accepted
    assert not check([unit]).accepted
    for name, product in opening.products.items():
        wrong = product.copy()
        wrong[len(wrong) // 2] += 1
        verdict = check([unit], replace(opening, products={**opening.products, name: wrong}))
        assert [finding.operation for finding in verdict.findings] == [f"{name} product"]
    damaged = opening.earlier.copy()
    damaged[0, 0] ^= 1
    for changed in (
        replace(opening, earlier=damaged),
        replace(opening, earlier=opening.earlier[1:], paths=opening.paths[1:]),
        replace(opening, paths=opening.paths[:, :-1]),
        replace(opening, residual=opening.residual[:-4]),
        replace(opening, leaves=opening.leaves[:-1]),
        replace(opening, products={}),
    ):
        assert not check([unit], changed).accepted


def test_chunking_does_not_change_the_trace(scene: Scene) -> None:
    order = scene.order(scene.prompt(21))
    claim = scene.answer(order, 12)
    with_others = open_engine(scene.model, scene.model_root)
    with_others._chunk_rows = 5
    rows = run_rows(with_others, claim.statement)
    with_others.close()
    assert np.array_equal(rows.boundaries, claim.rows.boundaries)
    assert np.array_equal(rows.kv_rows, claim.rows.kv_rows)
