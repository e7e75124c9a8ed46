"""The trace's layout, its openings, and what each part of it binds."""

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

from core.hashing import keccak256
from core.jobs.exact import prompt_prefix
from tests.unit.zk.scene import Claim, Scene
from zk.errors import TraceInvalid
from zk.trace import (
    Opening,
    Trace,
    TraceBuilder,
    TraceShape,
    key_value_leaf,
    residual_leaf,
    token_digest,
    verify_opening,
)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    one = Scene(5)
    yield one
    one.close()


@pytest.fixture(scope="module")
def claim(scene: Scene) -> Claim:
    return scene.answer(scene.order(scene.prompt(7)), 6)


def test_every_leaf_is_where_the_layout_says(scene: Scene, claim: Claim) -> None:
    header, trace = scene.model.header, claim.trace
    for position, token in enumerate(claim.statement.tokens):
        assert trace.digest(position, 0) == token_digest(token)
    for position in range(len(claim.statement.tokens) - 1):
        for boundary in range(header.layers + 1):
            row = claim.rows.boundaries[position, boundary].astype("<i4").tobytes()
            assert trace.digest(position, residual_leaf(boundary)) == sha256(row).digest()
        for layer in range(header.layers):
            row = claim.rows.kv_rows[position, layer].tobytes()
            assert trace.digest(position, key_value_leaf(layer)) == sha256(row).digest()
    assert not trace.leaves[-trace.shape.leaves + 1 :].any()


def test_the_tree_by_hand() -> None:
    """Three positions of a model of one layer, hashed here by the text of docs/trace.md alone."""
    shape = TraceShape(layers=1, residual_bytes=8, key_value_bytes=4)
    rows = np.arange(8, dtype=np.int32).reshape(2, 2, 2)
    kv_rows = np.arange(8, dtype=np.uint8).reshape(2, 1, 4)
    builder = TraceBuilder(shape)
    for position in range(2):
        builder.add(position, rows[position : position + 1], kv_rows[position : position + 1])
    statement = Scene(6).order((300, 5))
    statement = replace(statement, answer=(9,))
    trace = builder.finish(statement)

    def digest(data: bytes) -> bytes:
        return sha256(data).digest()

    positions = []
    for token, residual, key_value in ((300, rows[0], kv_rows[0]), (5, rows[1], kv_rows[1])):
        left = keccak256(digest(token.to_bytes(4, "little")) + digest(residual[0].tobytes()))
        right = keccak256(digest(key_value[0].tobytes()) + digest(residual[1].tobytes()))
        positions.append(keccak256(left + right))
    last = keccak256(keccak256(digest((9).to_bytes(4, "little")) + bytes(32)) + keccak256(bytes(64)))
    empty = keccak256(keccak256(bytes(64)) * 2)
    root = keccak256(keccak256(positions[0] + positions[1]) + keccak256(last + empty))
    assert trace.rows_root == root
    numbers = b"".join(number.to_bytes(32, "big") for number in (*statement.sampling, 2, 1))
    prompt = statement.prompt_prefix + (300).to_bytes(4, "little") + (5).to_bytes(4, "little")
    tokens = keccak256(prompt) + keccak256((9).to_bytes(4, "little"))
    assert trace.root == keccak256(
        keccak256(b"warpgrid trace 1") + statement.model_root + statement.request_hash + numbers + tokens + root
    )


def test_openings_verify_and_nothing_else_does(claim: Claim) -> None:
    trace, count = claim.trace, len(claim.statement.tokens)
    for position in range(count):
        for inner in range(trace.shape.leaves):
            opening = trace.open(position, inner)
            assert verify_opening(trace.shape, count, trace.rows_root, opening)
    good = trace.open(3, 2)
    bad = [
        replace(good, leaf=good.leaf + 1),
        replace(good, leaf=good.leaf + count * trace.shape.leaves),
        replace(good, leaf=-1),
        replace(good, digest=bytes(32)),
        replace(good, siblings=good.siblings[:-1]),
        replace(good, siblings=(*good.siblings, bytes(32))),
        Opening(good.leaf >> 1, keccak256(good.digest + good.siblings[0]), good.siblings[1:]),
    ]
    assert not [one for one in bad if verify_opening(trace.shape, count, trace.rows_root, one)]


def test_the_root_binds_everything(claim: Claim) -> None:
    statement, rows_root = claim.statement, claim.trace.rows_root
    others = [
        replace(statement, model_root=bytes(32)),
        replace(statement, request_hash=bytes(32)),
        replace(statement, prompt_prefix=bytes(32)),
        *(
            replace(statement, sampling=tuple(word + (i == j) for j, word in enumerate(statement.sampling)))
            for i in range(5)
        ),
        replace(statement, prompt=statement.prompt[:-1], answer=(statement.prompt[-1], *statement.answer)),
        replace(statement, answer=(*statement.answer[:-1], statement.answer[-1] ^ 1)),
    ]
    roots = {one.root(rows_root) for one in others} | {statement.root(rows_root), statement.root(bytes(32))}
    assert len(roots) == len(others) + 2


def test_a_guessed_prompt_is_confirmed_by_the_salt_and_by_nothing_else(scene: Scene) -> None:
    """A short prompt can be guessed, and then everything but the prefix is known: model, request hash, sampling and
    root are public, and rows and answer follow from the guess."""
    salts = (b"\x01" * 32, b"\x02" * 32)
    order = scene.order(scene.prompt(2))
    orders = [replace(order, prompt_prefix=prompt_prefix(salt)) for salt in salts]
    public = [scene.answer(one, 3).trace.root for one in orders]
    assert public[0] != public[1]
    guess = scene.answer(order, 3)
    known = (bytes(32), order.model_root, order.request_hash, *public, prompt_prefix(bytes(32)), *salts)
    for prefix in known:
        assert replace(guess.statement, prompt_prefix=prefix).root(guess.trace.rows_root) not in public
    with_salt = [replace(guess.statement, prompt_prefix=one.prompt_prefix) for one in orders]
    assert [one.root(guess.trace.rows_root) for one in with_salt] == public


def test_rows_that_do_not_fit_are_refused(scene: Scene, claim: Claim) -> None:
    builder = TraceBuilder(scene.engine.trace_shape)
    boundaries, kv_rows = claim.rows.boundaries[:1], claim.rows.kv_rows[:1]
    for position, residual, key_values in (
        (1, boundaries, kv_rows),
        (0, boundaries[:, :-1], kv_rows),
        (0, boundaries.astype(np.int64), kv_rows),
        (0, boundaries, kv_rows[:, :, 1:]),
    ):
        with pytest.raises(TraceInvalid):
            builder.add(position, residual, key_values)
    builder.add(0, boundaries, kv_rows)
    with pytest.raises(TraceInvalid):
        builder.finish(claim.statement)
    with pytest.raises(TraceInvalid):
        Trace(scene.engine.trace_shape, claim.statement, claim.trace.leaves[:-1])
