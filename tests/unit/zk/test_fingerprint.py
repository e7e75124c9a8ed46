"""Fingerprints: rounding passes, other activations do not, and malformed ones are only suspicious."""

import numpy as np

from zk.fingerprint import BLOCK_TOKENS, TOP, Comparison, Fingerprint, compare, fingerprint

GENERATOR = np.random.default_rng(3)
ACTIVATIONS = GENERATOR.standard_normal((70, 64)).astype(np.float32)


def test_the_same_activations_have_the_same_fingerprint() -> None:
    made = fingerprint(ACTIVATIONS)
    assert made.places.shape == made.values.shape == (3, TOP)
    assert made.bytes == 3 * TOP * 6
    assert compare(made, ACTIVATIONS) == Comparison(TOP, 0.0)
    block = np.abs(ACTIVATIONS[:BLOCK_TOKENS].reshape(-1))
    assert set(made.places[0].tolist()) == set(np.argsort(-block, kind="stable")[:TOP].tolist())


def test_rounding_is_not_suspicious_and_other_activations_are() -> None:
    made = fingerprint(ACTIVATIONS)
    rounded = (ACTIVATIONS * (1 + 1e-3 * GENERATOR.standard_normal(ACTIVATIONS.shape))).astype(np.float32)
    assert not compare(made, rounded).suspicious
    assert compare(made, GENERATOR.standard_normal(ACTIVATIONS.shape).astype(np.float32)).suspicious
    changed = ACTIVATIONS.copy()
    changed[40:] = changed[40:] * 1.4
    assert compare(made, changed).suspicious


def test_fingerprints_of_the_wrong_shape_are_suspicious() -> None:
    made = fingerprint(ACTIVATIONS)
    far = made.places.copy()
    far[1, 0] = 10**6
    for wrong in (Fingerprint(made.places[:2], made.values[:2]), Fingerprint(far, made.values)):
        assert compare(wrong, ACTIVATIONS).suspicious
