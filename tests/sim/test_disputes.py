"""Disputes from seeds: whatever one party does, the other wins if it is honest. Every game runs the contracts."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from tests.unit.market.ledger import Reverted
from tests.unit.zk.arena import CHALLENGER, WORKER, Arena, DisputeScene
from tests.unit.zk.cheats import CHEATS
from tests.unit.zk.scene import Claim
from worker.inference.exact.sampling import Sampling
from zk.dispute import MOVES_MAX, Challenger, Turn, Worker
from zk.tape import Tape
from zk.trace import Statement

SAMPLING = Sampling(temperature_q16=60_000, seed=41)
ANSWER_TOKENS = 5
LIES = [name for name in CHEATS if name not in ("smaller_model", "other_temperature", "replayed_answer")]

MakeTape = Callable[[int, int], Tape]


class GaveUp(Exception):
    """A party lets its clock run out."""


class StallingWorker(Worker):
    """Plays on until it falls silent."""

    moves_left = 0

    def nodes(self) -> list[bytes]:
        self.moves_left -= 1
        if self.moves_left < 0:
            raise GaveUp
        return super().nodes()


class RandomChallenger(Challenger):
    """Picks anything. Some of them fall silent."""

    generator: np.random.Generator

    def choice(self, nodes: list[bytes]) -> int:
        if self.generator.random() < 0.05:
            raise GaveUp
        wanted = int(self.generator.integers(len(nodes)))
        self._tree.descend(wanted)
        return wanted


@pytest.fixture(scope="module")
def scene() -> Iterator[DisputeScene]:
    one = DisputeScene(13)
    yield one
    one.close()


def honest(scene: DisputeScene, order: Statement) -> Claim:
    return scene.answer(order, ANSWER_TOKENS)


def forced(claim: Claim, make: MakeTape, generator: np.random.Generator, corrupted: bool) -> MakeTape:
    """Tapes that end in the claimed leaf, as the contract demands; some with another wrong cell on the way."""

    def tape(position: int, inner: int) -> Tape:
        filled = make(position, inner)
        cells = dict(filled.cells)
        if corrupted:
            place = int(generator.choice(sorted(cells)))
            cells[place] = bytes(len(cells[place]))
        cells[filled.size - 1] = claim.trace.digest(position, inner)
        return Tape(filled.size, cells)

    return tape


def settle(arena: Arena, worker: Worker, challenger: Challenger) -> None:
    """Play; a party whose move is refused, or who gives up, loses by the clock."""
    try:
        moves = arena.play(worker, challenger)
        assert moves <= MOVES_MAX
    except (Reverted, GaveUp):
        assert arena.turn() != Turn.OVER
        silent_is_challenger = arena.turn() == Turn.PICKS
        arena.time_out(WORKER if silent_is_challenger else CHALLENGER)


def lying_game(scene: DisputeScene, name: str, seed: int) -> Arena:
    generator = np.random.default_rng([31, seed])
    order = scene.order(scene.prompt(6), SAMPLING)
    claim = CHEATS[name](scene, order, ANSWER_TOKENS, generator)
    truth = honest(scene, order)
    arena = Arena(scene.terms(order, claim))
    make = forced(claim, scene.tapes(claim), generator, corrupted=bool(seed % 2))
    settle(arena, scene.worker(claim, make), scene.challenger(truth))
    return arena


@pytest.mark.parametrize("name", LIES)
def test_a_lie_loses(scene: DisputeScene, name: str) -> None:
    for seed in range(2):
        assert lying_game(scene, name, seed).winner() == CHALLENGER, seed


def malicious_game(scene: DisputeScene, seed: int) -> Arena:
    generator = np.random.default_rng([32, seed])
    claim = honest(scene, scene.order(scene.prompt(int(generator.integers(3, 9))), SAMPLING))
    arena = Arena(scene.terms(claim.statement, claim))
    challenger = RandomChallenger(claim.trace, scene.tapes(claim))
    challenger.generator = generator
    settle(arena, scene.worker(claim), challenger)
    return arena


def test_an_honest_worker_wins_whatever_is_picked(scene: DisputeScene) -> None:
    for seed in range(12):
        assert malicious_game(scene, seed).winner() == WORKER, seed


def test_silence_loses(scene: DisputeScene) -> None:
    truth = honest(scene, scene.order(scene.prompt(5), SAMPLING))
    for moves in range(2):
        arena = Arena(scene.terms(truth.statement, truth))
        worker = StallingWorker(truth.trace, truth.rows, scene.programs, scene.opener, scene.tapes(truth))
        worker.moves_left = moves
        settle(arena, worker, scene.challenger(truth))
        assert arena.winner() == CHALLENGER


def test_another_model_cannot_even_be_stated(scene: DisputeScene) -> None:
    """A worker that committed to another model's root, request or sampling has no first move."""
    truth = honest(scene, scene.order(scene.prompt(5), SAMPLING))
    for change in ({"model_root": b"\x05" * 32}, {"request_hash": b"\x05" * 32}, {"sampling": (0, 0, 65536, 1, 0)}):
        ran = replace(truth.statement, **change)
        claim = Claim(ran, type(truth.trace)(truth.trace.shape, ran, truth.trace.leaves), truth.rows)
        arena = Arena(scene.terms(truth.statement, claim))
        settle(arena, scene.worker(claim), scene.challenger(truth))
        assert arena.winner() == CHALLENGER


@pytest.mark.conformance
def test_many_disputes(scene: DisputeScene) -> None:
    for seed in range(100):
        assert lying_game(scene, LIES[seed % len(LIES)], 100 + seed).winner() == CHALLENGER, seed
        assert malicious_game(scene, 100 + seed).winner() == WORKER, seed
