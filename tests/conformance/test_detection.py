"""10,000 honest comparisons without a difference, and 10,000 cheats of thirteen kinds, all caught by replay."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from tests.unit.zk.cheats import CHEATS
from tests.unit.zk.scene import Scene
from worker.inference.exact.sampling import Sampling
from zk.replay import replay

CASES = 10_000
ANSWER_TOKENS = 5

pytestmark = pytest.mark.conformance


@pytest.fixture
def scene() -> Iterator[Scene]:
    one = Scene(17)
    yield one
    one.close()


def drawn_sampling(generator: np.random.Generator) -> Sampling:
    temperature = int(generator.choice([0, 30_000, 65_536]))
    top_p, seed = int(generator.integers(40_000, 65_537)), int(generator.integers(1 << 60))
    return Sampling(temperature, int(generator.choice([0, 40])), top_p, seed)


def test_honest_answers_never_differ(scene: Scene) -> None:
    """Each answer is generated token by token and replayed in chunks of another size: every other time against the
    worker's digests, else by roots alone, which the engine hashes."""
    generator = np.random.default_rng(51)
    for number in range(CASES):
        order = scene.order(scene.prompt(int(generator.integers(1, 24))), drawn_sampling(generator))
        claim = scene.answer(order, int(generator.integers(1, 12)))
        disclosed = claim.trace if number % 2 else None
        verdict = replay(scene.engine, order, claim.trace.root, claim.statement.answer, disclosed)
        assert verdict.accepted, (number, verdict.reason)


def test_every_cheat_is_caught(scene: Scene) -> None:
    caught: Counter[str] = Counter()
    names = list(CHEATS)
    for number in range(CASES):
        name = names[number % len(names)]
        generator = np.random.default_rng([52, number])
        order = scene.order(scene.prompt(int(generator.integers(4, 10))), Sampling(55_000, 60, 65_000, number))
        claim = CHEATS[name](scene, order, ANSWER_TOKENS, generator)
        disclosed = claim.trace if number // len(names) % 2 else None
        verdict = replay(scene.engine, order, claim.trace.root, claim.statement.answer, disclosed)
        assert not verdict.accepted, (name, number)
        caught[name] += 1
    assert sum(caught.values()) == CASES
    assert len(caught) == len(names)
