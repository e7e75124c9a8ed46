"""Audit: check an answer on a CPU without running the model, by looking at a few places that the worker cannot foresee.

A *unit* is one layer at one position, or the head at a position whose next token was chosen. After the commitment,
public randomness draws units. The worker opens a unit's input rows and its matrix products W q; the auditor checks the
products by Freivalds, recomputes all the rest exactly, attention included, and hashes the results against the
commitment. So a unit passes only if its committed output is the exact function of its committed inputs: a trace in
which a share f of the units is wrong passes n draws with probability (1 - f)^n, whatever the worker answers.
"""

from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.crypto import keccak256_batch, sha256_batch
from core.hashing import keccak256
from zk.arithmetic import (
    ExactArithmetic,
    Ints,
    KeyValueRows,
    head_step,
    layer_step,
    trace_shape,
    unpack_key_values,
)
from zk.errors import OpeningInvalid
from zk.freivalds import FreivaldsKey, make_key
from zk.merkle import Digests, depth_of, empty_root, levels_of
from zk.trace import Statement, Trace, key_value_leaf, residual_leaf, token_digest

__all__ = [
    "AuditKey",
    "AuditOpening",
    "AuditVerdict",
    "CommittedRows",
    "Finding",
    "Unit",
    "audit",
    "catch_probability",
    "draw_units",
    "open_unit",
    "unit_count",
]

TAG: Final = b"warpgrid audit 1"


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """A layer at a position; `layer` equal to the number of layers is the head."""

    position: int
    layer: int


@dataclass(frozen=True)
class CommittedRows:
    """The rows behind a trace: int32[n, L + 1, d] and u8[n, L, bytes] for every position but the last."""

    boundaries: NDArray[np.int32]
    kv_rows: NDArray[np.uint8]


@dataclass(frozen=True)
class AuditOpening:
    """A worker's answer for one unit.

    `leaves` u8[W, 32] are all leaves of the unit's position, `residual` its input row, `earlier` u8[p, bytes] the
    layer's key-value rows of all positions before it with `paths` u8[p, log2 W, 32] up to their positions' roots, and
    `products` W q of each linear layer by name.
    """

    unit: Unit
    leaves: Digests
    residual: bytes
    earlier: NDArray[np.uint8]
    paths: NDArray[np.uint8]
    products: dict[str, Ints]

    @property
    def bytes(self) -> int:
        """Size on a wire: 5 bytes for a product of two limbs (below 2^38), 4 for others."""
        wide = {name: 5 if np.abs(y).max() >= 2**31 else 4 for name, y in self.products.items()}
        products = sum(wide[name] * len(y) for name, y in self.products.items())
        return self.leaves.nbytes + len(self.residual) + self.earlier.nbytes + self.paths.nbytes + products


@dataclass(frozen=True, slots=True)
class Finding:
    """A unit that is wrong, and the operation whose check failed."""

    unit: Unit
    operation: str


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """`accepted` means that nothing wrong was seen. `reason` speaks of the commitment, `findings` of units."""

    accepted: bool
    reason: str
    findings: tuple[Finding, ...] = ()


class AuditKey:
    """An auditor's secret vectors for one model, each made when it is first needed (a pass over its matrix)."""

    def __init__(self, arithmetic: ExactArithmetic, secret: bytes) -> None:
        """`secret` is at least 32 random bytes that no worker ever learns."""
        assert len(secret) >= 32, "a short secret can be guessed"
        self._arithmetic, self._secret = arithmetic, secret
        self._keys: dict[str, FreivaldsKey] = {}

    def key(self, name: str) -> FreivaldsKey:
        """The key of a linear layer."""
        if name not in self._keys:
            secret = sha256(self._secret + name.encode()).digest()
            self._keys[name] = make_key(self._arithmetic.linear(name).weight, secret)
        return self._keys[name]


def unit_count(layers: int, statement: Statement) -> int:
    """How many units an answer has: every layer at every position that was run, and one head for each answer token."""
    return layers * (len(statement.tokens) - 1) + len(statement.answer)


def catch_probability(wrong_units: int, units: int, draws: int) -> float:
    """The chance that at least one of `draws` independent draws hits one of the wrong units."""
    return 1.0 - (1.0 - wrong_units / units) ** draws


def draw_units(randomness: bytes, trace_root: bytes, layers: int, statement: Statement, draws: int) -> list[Unit]:
    """The challenge: uniform draws with repetition. `randomness` (32 bytes) must not have been known to anyone before
    the root was committed; the root is mixed in, so that one randomness serves many answers.
    """
    total = unit_count(layers, statement)
    in_layers = layers * (len(statement.tokens) - 1)
    units = []
    for number in range(draws):
        digest = keccak256(TAG + randomness + trace_root + number.to_bytes(4, "big"))
        index = int.from_bytes(digest, "big") % total
        if index < in_layers:
            units.append(Unit(*divmod(index, layers)))
        else:
            units.append(Unit(len(statement.prompt) - 1 + index - in_layers, layers))
    return units


def open_unit(arithmetic: ExactArithmetic, trace: Trace, rows: CommittedRows, unit: Unit) -> AuditOpening:
    """The worker's side: open a unit of its own trace. Raises OpeningInvalid for a unit that the answer has not."""
    shape = arithmetic.shape
    position, layer = unit.position, unit.layer
    if not (0 <= position < len(trace.statement.tokens) - 1 and 0 <= layer <= shape.layers):
        raise OpeningInvalid(f"there is no unit {unit}")
    x = rows.boundaries[position, layer]
    products: dict[str, Ints] = {}

    def accumulate(name: str, weight: NDArray[np.int8], q: Ints) -> Ints:
        products[name] = arithmetic.accumulate(weight, q)
        return products[name]

    width = trace.shape.leaves
    inner_depth = depth_of(width)
    leaves = trace.leaves[position * width : (position + 1) * width]
    if layer == shape.layers:
        head_step(arithmetic, x.astype(np.int64), accumulate)
        none = np.empty((0, trace.shape.key_value_bytes), np.uint8)
        return AuditOpening(unit, leaves, x.tobytes(), none, np.empty((0, inner_depth, 32), np.uint8), products)
    earlier = rows.kv_rows[:position, layer]
    layer_step(arithmetic, layer, position, x.astype(np.int64), unpack_key_values(shape, earlier), accumulate)
    leaf = key_value_leaf(layer)
    siblings = [
        level[np.arange(position) * (width >> depth) + ((leaf >> depth) ^ 1)]
        for depth, level in enumerate(trace.levels[:inner_depth])
    ]
    return AuditOpening(unit, leaves, x.tobytes(), earlier, np.stack(siblings, axis=1), products)


def audit(
    arithmetic: ExactArithmetic,
    key: AuditKey,
    order: Statement,
    claimed_root: bytes,
    position_roots: Digests,
    units: list[Unit],
    openings: list[AuditOpening],
) -> AuditVerdict:
    """Check a worker's openings for the units that were drawn.

    `order` is what was asked for, with the answer that was received; `position_roots` u8[positions, 32] come from the
    worker once for all openings.
    """
    rows_root = _rows_root(arithmetic, order, position_roots)
    if rows_root is None or order.root(rows_root) != claimed_root:
        return AuditVerdict(False, "the commitment is not to this model, request, sampling and answer")
    if [opening.unit for opening in openings] != units:
        return AuditVerdict(False, "the openings are not those that were drawn")
    findings = []
    for opening in openings:
        operation = _check(arithmetic, key, order, position_roots, opening)
        if operation is not None:
            findings.append(Finding(opening.unit, operation))
    wrong = f"{len(findings)} of {len(units)} units are wrong" if findings else "every unit is exact"
    return AuditVerdict(not findings, wrong, tuple(findings))


def _rows_root(arithmetic: ExactArithmetic, order: Statement, position_roots: Digests) -> bytes | None:
    if position_roots.shape != (len(order.tokens), 32):
        return None
    depth = depth_of(trace_shape(arithmetic.shape).leaves)
    return levels_of(position_roots, empty_root(depth))[-1].tobytes()


def _check(
    arithmetic: ExactArithmetic, key: AuditKey, order: Statement, position_roots: Digests, opening: AuditOpening
) -> str | None:
    """The operation that is wrong, or None."""
    shape = arithmetic.shape
    layout = trace_shape(shape)
    position, layer = opening.unit.position, opening.unit.layer
    if (
        opening.leaves.shape != (layout.leaves, 32)
        or levels_of(opening.leaves)[-1].tobytes() != position_roots[position].tobytes()
    ):
        return "commitment of the position"
    leaf = opening.leaves
    if len(opening.residual) != layout.residual_bytes:
        return "shape of the residual row"
    if sha256(opening.residual).digest() != leaf[residual_leaf(layer)].tobytes():
        return "commitment of the residual row"
    x = np.frombuffer(opening.residual, "<i4").astype(np.int64)
    failed: list[str] = []
    accumulate = partial(_checked_product, key, opening, failed)
    if layer == shape.layers:
        logits = head_step(arithmetic, x, accumulate)
        chosen = arithmetic.choose(logits, order.sampling, position + 1)
        return failed[0] if failed else None if chosen == order.tokens[position + 1] else "choice of the token"
    if layer == 0:
        wrong = _check_token(arithmetic, order.tokens[position], leaf, x)
        if wrong is not None:
            return wrong
    if not _earlier_rows_are_committed(opening, layout.key_value_bytes, position_roots):
        return "commitment of the key-value rows"
    earlier = unpack_key_values(shape, opening.earlier)
    if not _are_quantised(earlier):
        return "range of the key-value rows"
    output = layer_step(arithmetic, layer, position, x, earlier, accumulate)
    if failed:
        return failed[0]
    if sha256(output.key_value_row).digest() != leaf[key_value_leaf(layer)].tobytes():
        return f"layers.{layer} keys and values"
    if sha256(output.residual.tobytes()).digest() != leaf[residual_leaf(layer + 1)].tobytes():
        return f"layers.{layer} attention or feed-forward"
    return None


def _checked_product(
    key: AuditKey, opening: AuditOpening, failed: list[str], name: str, weight: NDArray[np.int8], q: Ints
) -> Ints:
    """The worker's W q if it is right; zeros, and a note in `failed`, if not."""
    y = opening.products.get(name)
    if y is None or not key.key(name).accepts(y, q):
        failed.append(f"{name} product")
        return np.zeros(len(weight), np.int64)
    return y


def _check_token(arithmetic: ExactArithmetic, token: int, leaf: Digests, x: Ints) -> str | None:
    if leaf[0].tobytes() != token_digest(token):
        return "token"
    return None if np.array_equal(arithmetic.embedding(np.array([token]))[0], x) else "embedding"


def _are_quantised(rows: KeyValueRows) -> bool:
    """Whether these can be anybody's key-value rows: outside these ranges the arithmetic means nothing."""
    values = (np.abs(one).max(initial=0) <= 127 for one in (rows.k, rows.v))
    return all(values) and all(one.min(initial=1) >= 1 for one in (rows.ka, rows.va))


def _earlier_rows_are_committed(opening: AuditOpening, row_bytes: int, position_roots: Digests) -> bool:
    position, leaf = opening.unit.position, key_value_leaf(opening.unit.layer)
    depth = depth_of(len(opening.leaves))
    if opening.earlier.shape != (position, row_bytes) or opening.paths.shape != (position, depth, 32):
        return False
    if position == 0:
        return True
    raw = np.ascontiguousarray(opening.earlier).reshape(-1)
    node = sha256_batch(raw, np.arange(0, len(raw) + 1, row_bytes, dtype=np.uint64), threads=1)
    offsets = np.arange(0, 64 * position + 1, 64, dtype=np.uint64)
    for level in range(depth):
        pair = (opening.paths[:, level], node) if leaf >> level & 1 else (node, opening.paths[:, level])
        node = keccak256_batch(np.concatenate(pair, axis=1).reshape(-1), offsets, threads=1)
    return np.array_equal(node, position_roots[:position])
