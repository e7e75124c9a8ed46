"""Openings on the wire: every honest one arrives as it was, and whatever else comes is refused or found wrong."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.hashing import keccak256
from protos.job_messages import AUDIT_UNITS_MAX, AnswerOpened, UnitOpening
from protos.rpc import decode, encode
from tests.unit.zk.scene import Claim, Scene
from zk.audit import AuditKey, AuditVerdict, Unit, audit, open_unit
from zk.errors import OpeningInvalid
from zk.openings import VERSION, decode_units, encode_units, opened_of, openings_of
from zk.trace import Trace, key_value_leaf

UNITS = [Unit(4, 0), Unit(9, 1), Unit(9, 2), Unit(0, 1)]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    one = Scene(12)
    yield one
    one.close()


@pytest.fixture(scope="module")
def claim(scene: Scene) -> Claim:
    return scene.answer(scene.order(scene.prompt(9)), 5)


@pytest.fixture(scope="module")
def opened(scene: Scene, claim: Claim) -> AnswerOpened:
    openings = [open_unit(scene.arithmetic, claim.trace, claim.rows, unit) for unit in UNITS]
    return opened_of(bytes(32), claim.trace.position_roots, openings)


def verdict(scene: Scene, claim: Claim, opened: AnswerOpened) -> AuditVerdict:
    roots, read = openings_of(scene.model.header, UNITS, opened)
    key = AuditKey(scene.arithmetic, keccak256(b"secret"))
    return audit(scene.arithmetic, key, claim.statement, claim.trace.root, roots, UNITS, read)


def test_openings_arrive_as_they_were(scene: Scene, claim: Claim, opened: AnswerOpened) -> None:
    travelled = decode(AnswerOpened, encode(opened))
    assert travelled == opened
    roots, read = openings_of(scene.model.header, UNITS, travelled)
    assert np.array_equal(roots, claim.trace.position_roots)
    for unit, arrived in zip(UNITS, read, strict=True):
        sent = open_unit(scene.arithmetic, claim.trace, claim.rows, unit)
        assert arrived.unit == unit
        assert arrived.residual == sent.residual
        assert all(
            np.array_equal(getattr(arrived, name), getattr(sent, name)) for name in ("leaves", "earlier", "paths")
        )
        assert {name: values.tolist() for name, values in arrived.products.items()} == {
            name: values.tolist() for name, values in sent.products.items()
        }
    assert verdict(scene, claim, travelled).accepted


@pytest.mark.parametrize("value", [0, -1, 2**31 - 1, -(2**31), 2**31, -(2**31) - 1, 2**38, -(2**38)])
def test_products_of_every_size_survive(scene: Scene, opened: AnswerOpened, claim: Claim, value: int) -> None:
    first = open_unit(scene.arithmetic, claim.trace, claim.rows, UNITS[0])
    name, values = next(iter(first.products.items()))
    changed = values.copy()
    changed[1] = value
    wire = opened_of(bytes(32), claim.trace.position_roots, [replace(first, products={name: changed})])
    _, (read,) = openings_of(scene.model.header, UNITS[:1], wire)
    assert read.products[name].tolist() == changed.tolist()
    assert opened.openings[0].products[0].value_bytes == 4


@given(at=st.integers(0, 3), part=st.sampled_from(["leaves", "residual", "earlier", "paths"]), data=st.data())
@settings(max_examples=60)
def test_no_mangled_opening_passes(
    scene: Scene, claim: Claim, opened: AnswerOpened, at: int, part: str, data: st.DataObject
) -> None:
    raw = bytearray(getattr(opened.openings[at], part))
    if not raw:
        return
    where = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        raw[where] ^= data.draw(st.integers(1, 255))
    else:
        del raw[where : where + data.draw(st.integers(1, 40))]
    openings = list(opened.openings)
    openings[at] = replace(openings[at], **{part: bytes(raw)})
    try:
        found = verdict(scene, claim, replace(opened, openings=tuple(openings)))
    except OpeningInvalid:
        return
    assert [finding.unit for finding in found.findings] == [UNITS[at]]


@given(raw=st.binary(max_size=300))
@settings(max_examples=60)
def test_arbitrary_bytes_never_pass(scene: Scene, claim: Claim, raw: bytes) -> None:
    whole = AnswerOpened(VERSION, bytes(32), raw, (UnitOpening(raw, raw, raw, raw, ()),) * len(UNITS))
    with pytest.raises(OpeningInvalid):
        verdict(scene, claim, whole)


def test_other_versions_counts_and_units_are_refused(scene: Scene, opened: AnswerOpened) -> None:
    for changed in (replace(opened, version=2), replace(opened, openings=opened.openings[1:])):
        with pytest.raises(OpeningInvalid):
            openings_of(scene.model.header, UNITS, changed)
    assert decode_units(encode_units(UNITS)) == UNITS
    for raw in (b"", bytes(7), bytes(8 * (AUDIT_UNITS_MAX + 1))):
        with pytest.raises(OpeningInvalid):
            decode_units(raw)


def test_key_value_rows_that_nobody_computes_are_found(scene: Scene, claim: Claim) -> None:
    """A commitment may be to anything: a magnitude of zero, a key of -128. Neither crashes an auditor."""
    width = scene.model.header.head_width
    for place, value in ((slice(0, 1), 128), (slice(width, width + 4), 0), (slice(width + 3, width + 4), 128)):
        rows = claim.rows.kv_rows.copy()
        rows[2, 0, place] = value
        trace = scene.engine.commit(claim.statement, replace(claim.rows, kv_rows=rows))
        forged = type(claim)(claim.statement, trace, replace(claim.rows, kv_rows=rows))
        honest = open_unit(scene.arithmetic, claim.trace, claim.rows, UNITS[0])
        opening = replace(honest, leaves=_leaves(trace, 4), earlier=rows[:4, 0], paths=_paths(trace, 4, 0))
        key = AuditKey(scene.arithmetic, keccak256(b"secret"))
        found = audit(
            scene.arithmetic, key, claim.statement, forged.trace.root, trace.position_roots, UNITS[:1], [opening]
        )
        assert [finding.operation for finding in found.findings] == ["range of the key-value rows"]


def _leaves(trace: Trace, position: int) -> np.ndarray:  # type: ignore[type-arg]
    return trace.leaves[position * trace.shape.leaves : (position + 1) * trace.shape.leaves]


def _paths(trace: Trace, positions: int, layer: int) -> np.ndarray:  # type: ignore[type-arg]
    leaf, width = key_value_leaf(layer), trace.shape.leaves
    depth = width.bit_length() - 1
    siblings = [
        level[np.arange(positions) * (width >> at) + ((leaf >> at) ^ 1)]
        for at, level in enumerate(trace.levels[:depth])
    ]
    return np.stack(siblings, axis=1)
