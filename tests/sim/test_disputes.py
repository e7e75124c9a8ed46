"""Disputes from seeds: whatever one party does, the other wins if it is honest. Every game runs the contracts."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from core.contract import AbiError
from tests.unit.market.ledger import Reverted
from tests.unit.zk.arena import CHALLENGER, WORKER, Arena, DisputeScene
from tests.unit.zk.cheats import CHEATS
from tests.unit.zk.scene import Claim, claim_rows, run_rows
from worker.inference.exact.sampling import Sampling
from zk.dispute import MOVES_MAX, Challenger, Seat, Turn, Worker, tokens_bytes
from zk.tape import Tape
from zk.trace import Statement, Trace

ANSWER_TOKENS = 5
# Lies whose traces are as deep as the model says; an answer whose root is another request's has no first move.
LIES = [name for name in CHEATS if name not in ("smaller_model", "other_temperature")]
SAMPLINGS = (
    Sampling(temperature_q16=60_000, seed=41),
    Sampling(),
    Sampling(temperature_q16=90_000, top_k=20, seed=42),
    Sampling(temperature_q16=90_000, top_k=30, top_p_q16=50_000, seed=43),
)

Generator = np.random.Generator
MakeTape = Callable[[int, int], Tape]
Recorded = tuple[str, tuple[Any, ...]]


class GaveUp(Exception):
    """A party lets its clock run out."""


class Mischief:
    """What a dishonest party does besides playing: falls silent, sends what is not its to send, or changed bytes."""

    def __init__(self, generator: Generator, moves: list[Recorded], *, silence: float, noise: float) -> None:
        """`moves` are those of other games; a move is preceded by others with probability `noise`."""
        self._generator, self._moves = generator, moves
        self._silence, self._noise = silence, noise

    def before_move(self, arena: Arena, sender: bytes) -> None:
        if self._generator.random() < self._silence:
            raise GaveUp
        while self._generator.random() < self._noise:
            function, arguments = self._moves[int(self._generator.integers(len(self._moves)))]
            if self._generator.random() < 0.5:
                arguments = tuple(self.changed(one) for one in arguments)
            try:
                arena.move(sender, function, arena.terms.solidity(), *arguments)
            except (Reverted, AbiError):
                continue

    def changed(self, value: Any) -> Any:
        """The same value with a byte, an element or the number itself changed."""
        if isinstance(value, bytes) and value:
            at = int(self._generator.integers(len(value)))
            if self._generator.random() < 0.2:
                return value[:at]
            return value[:at] + bytes([value[at] ^ (1 << int(self._generator.integers(8)))]) + value[at + 1 :]
        if isinstance(value, (tuple, list)) and value:
            at = int(self._generator.integers(len(value)))
            return (*value[:at], self.changed(value[at]), *value[at + 1 :])
        return int(self._generator.integers(0, 1 << 40)) if isinstance(value, int) else value


class RandomChallenger(Challenger):
    """Picks anything."""

    generator: Generator

    def choice(self, nodes: list[bytes]) -> int:
        return int(self.generator.integers(len(nodes)))


class EmbeddingChallenger(Challenger):
    """Leads to the first cell of the first position's embedding, right or wrong."""

    rounds = 0

    def choice(self, nodes: list[bytes]) -> int:
        self.rounds += 1
        return int(self.rounds == 2)  # of the trace's 7 levels, the second round ends at a leaf


class PromptChallenger(Challenger):
    """Leads to the first token of the prompt, right or wrong."""

    def choice(self, nodes: list[bytes]) -> int:
        return 0


@pytest.fixture(scope="module")
def scene() -> Iterator[DisputeScene]:
    one = DisputeScene(13)
    yield one
    one.close()


@pytest.fixture(scope="module")
def recorded(scene: DisputeScene) -> list[Recorded]:
    """Moves of other games, both sides', legal ones."""
    moves: list[Recorded] = []

    class Recorder(Arena):
        def move(self, sender: bytes, function: str, *arguments: object) -> None:
            moves.append((function, arguments[1:]))
            super().move(sender, function, *arguments)

    for seed in range(6):
        order = scene.order(scene.prompt(6), SAMPLINGS[seed % len(SAMPLINGS)])
        claim = scene.answer(order, ANSWER_TOKENS)
        terms = scene.terms(order, claim)
        challenger = RandomChallenger(terms, claim.trace, scene.opener, scene.tapes(claim))
        challenger.generator = np.random.default_rng([33, seed])
        Recorder(terms).play(scene.worker(claim), challenger)
    words, path = scene.opener.header()
    answer = np.array(claim.statement.answer, "<u4").tobytes()
    moves += [("refuteLength", (answer, at, words, path)) for at in range(ANSWER_TOKENS)]
    opening = claim.trace.open(6, 0)
    return [*moves, ("refuteAnswer", (answer, 0, opening.digest, opening.siblings)), ("timeout", ())]


def forced(claim: Claim, make: MakeTape, generator: Generator, corrupted: bool) -> MakeTape:
    """Tapes that end in the claimed leaf, as the contract demands; some with another wrong cell on the way."""
    filled: dict[tuple[int, int], Tape] = {}

    def tape(position: int, inner: int) -> Tape:
        if (position, inner) not in filled:
            honest = make(position, inner)
            cells = dict(honest.cells)
            if corrupted:
                place = int(generator.choice(sorted(cells)))
                cells[place] = bytes(len(cells[place]))
            cells[honest.size - 1] = claim.trace.digest(position, inner)
            filled[position, inner] = Tape(honest.size, cells)
        return filled[position, inner]

    return tape


def settle(arena: Arena, worker: Worker, challenger: Challenger, liar: bytes, mischief: Mischief) -> None:
    """Play; a party whose move is refused, or who gives up, loses by the clock."""
    arena.move(CHALLENGER, "open", arena.terms.solidity())
    seats = {WORKER: Seat(arena, arena.terms, worker), CHALLENGER: Seat(arena, arena.terms, challenger)}
    legal = 1
    try:
        while arena.turn() != Turn.OVER:
            for address, seat in seats.items():
                if address == liar:
                    mischief.before_move(arena, liar)
                legal += seat.act() is not None
                assert legal <= MOVES_MAX
    except (Reverted, GaveUp) as stopped:
        honest = CHALLENGER if liar == WORKER else WORKER
        while seats[honest].act() is not None:  # what is still its to do
            continue
        if arena.turn() == Turn.OVER:
            return
        if (arena.turn() == Turn.PICKS) != (liar == CHALLENGER):
            raise AssertionError("the honest party was stopped") from stopped
        arena.time_out(honest)


def lying_game(scene: DisputeScene, name: str, seed: int, recorded: list[Recorded], mischief: float) -> Arena:
    generator = np.random.default_rng([31, seed])
    order = scene.order(scene.prompt(6), SAMPLINGS[seed % len(SAMPLINGS)])
    claim = CHEATS[name](scene, order, ANSWER_TOKENS, generator)
    truth = scene.answer(order, len(claim.statement.answer))
    terms = scene.terms(order, claim)
    arena = Arena(terms)
    make = forced(claim, scene.tapes(claim), generator, corrupted=bool(seed % 2))
    trouble = Mischief(generator, recorded, silence=mischief / 10, noise=mischief)
    settle(arena, scene.worker(claim, make), scene.challenger(truth, terms), WORKER, trouble)
    return arena


def malicious_game(scene: DisputeScene, seed: int, recorded: list[Recorded], mischief: float) -> Arena:
    generator = np.random.default_rng([32, seed])
    order = scene.order(scene.prompt(int(generator.integers(3, 9))), SAMPLINGS[seed % len(SAMPLINGS)])
    claim = scene.answer(order, ANSWER_TOKENS)
    terms = scene.terms(order, claim)
    arena = Arena(terms)
    challenger = RandomChallenger(terms, claim.trace, scene.opener, scene.tapes(claim))
    challenger.generator = generator
    trouble = Mischief(generator, recorded, silence=mischief / 10, noise=mischief)
    settle(arena, scene.worker(claim), challenger, CHALLENGER, trouble)
    return arena


@pytest.mark.parametrize("name", LIES)
def test_a_lie_loses(scene: DisputeScene, recorded: list[Recorded], name: str) -> None:
    for seed in range(2):
        assert lying_game(scene, name, seed, recorded, 0.0).winner() == CHALLENGER, seed
    assert lying_game(scene, name, 2, recorded, 0.4).winner() == CHALLENGER


def test_an_honest_worker_wins_whatever_is_picked(scene: DisputeScene, recorded: list[Recorded]) -> None:
    for seed in range(8):
        assert malicious_game(scene, seed, recorded, 0.0).winner() == WORKER, seed
        assert malicious_game(scene, seed, recorded, 0.6).winner() == WORKER, seed


@pytest.mark.parametrize("silent", [WORKER, CHALLENGER])
def test_silence_loses_at_every_move(scene: DisputeScene, silent: bytes) -> None:
    truth = scene.answer(scene.order(scene.prompt(5), SAMPLINGS[0]), ANSWER_TOKENS)
    terms = scene.terms(truth.statement, truth)
    other = CHALLENGER if silent == WORKER else WORKER
    moves_left, turns_missed = 0, set()
    while True:
        arena = Arena(terms)
        arena.move(CHALLENGER, "open", terms.solidity())
        challenger = EmbeddingChallenger(terms, truth.trace, scene.opener, scene.tapes(truth))
        seats = {WORKER: scene.worker(truth), CHALLENGER: challenger}
        at_table = {address: Seat(arena, terms, party) for address, party in seats.items()}
        moved = 0
        while moved < moves_left and arena.turn() != Turn.OVER:
            moved += at_table[silent].act() is not None
            while at_table[other].act() is not None:
                continue
        if arena.turn() == Turn.OVER:
            break
        while at_table[other].act() is not None:
            continue
        turns_missed.add(arena.turn())
        with pytest.raises(Reverted):
            arena.move(other, "timeout", terms.solidity())  # the clock has not run out yet
        arena.time_out(other)
        assert arena.winner() == other, moves_left
        moves_left += 1
    assert turns_missed == set(seats[silent].turns)


def test_a_token_of_the_prompt_is_proven_with_its_prefix(scene: DisputeScene) -> None:
    truth = scene.answer(scene.order(scene.prompt(5), SAMPLINGS[0]), ANSWER_TOKENS)
    prefix, tokens = truth.statement.prompt_prefix, tokens_bytes(truth.statement.prompt)
    forged = truth.trace.leaves.copy()
    forged[0, 0] ^= 1  # the token of position 0
    for leaves, winner in ((truth.trace.leaves, WORKER), (forged, CHALLENGER)):
        claim = Claim(truth.statement, Trace(truth.trace.shape, truth.statement, leaves), truth.rows)
        terms = scene.terms(truth.statement, claim)
        arena = Arena(terms)
        arena.move(CHALLENGER, "open", terms.solidity())
        challenger = PromptChallenger(terms, truth.trace, scene.opener, scene.tapes(truth))
        seats = (Seat(arena, terms, scene.worker(claim)), Seat(arena, terms, challenger))
        while arena.turn() != Turn.POSTS_TAPE:
            for seat in seats:
                if arena.turn() != Turn.POSTS_TAPE:
                    seat.act()
        for wrong in (tokens, bytes(32) + tokens, prefix + tokens[:-4], prefix + tokens + tokens[:4], prefix):
            with pytest.raises(Reverted) as refused:
                arena.move(WORKER, "provePrompt", terms.solidity(), wrong)
            assert refused.value.name == "NotAsCommitted"
        if winner == WORKER:
            assert seats[0].act() == "provePrompt"
        else:
            with pytest.raises(Reverted) as refused:
                seats[0].act()
            assert refused.value.name == "CellNotProven"
            arena.time_out(CHALLENGER)
        assert arena.winner() == winner
        assert max(gas for _, gas in arena.gas) < 200_000


def test_another_model_cannot_even_be_stated(scene: DisputeScene) -> None:
    """A worker that committed to another model's root, request or sampling has no first move."""
    truth = scene.answer(scene.order(scene.prompt(5), SAMPLINGS[0]), ANSWER_TOKENS)
    quiet = Mischief(np.random.default_rng(1), [], silence=0.0, noise=0.0)
    for change in ({"model_root": b"\x05" * 32}, {"request_hash": b"\x05" * 32}, {"sampling": (0, 0, 65536, 1, 0)}):
        ran = replace(truth.statement, **change)
        claim = Claim(ran, type(truth.trace)(truth.trace.shape, ran, truth.trace.leaves), truth.rows)
        terms = scene.terms(truth.statement, claim)
        arena = Arena(terms)
        settle(arena, scene.worker(claim), scene.challenger(truth, terms), WORKER, quiet)
        assert arena.winner() == CHALLENGER
        assert [function for function, _ in arena.gas] == ["open", "timeout"]


def claim_of(scene: DisputeScene, order: Statement, answer: tuple[int, ...]) -> Claim:
    statement = replace(order, answer=answer)
    return claim_rows(scene.engine, statement, run_rows(scene.engine, statement))


class LengthScene(DisputeScene):
    """No stop strings; the order allows ANSWER_TOKENS tokens, and the model says which token ends an answer."""

    ends_by_text = False

    def __init__(self, end_tokens: tuple[int, ...]) -> None:
        super().__init__(13, end_tokens=end_tokens)  # type: ignore[arg-type]

    def game(self, order: Statement, claim: Claim, liar: bytes) -> Arena:
        truth = self.answer(order, len(claim.statement.answer))
        terms = self.terms(order, claim)
        arena = Arena(terms)
        quiet = Mischief(np.random.default_rng(1), [], silence=0.0, noise=0.0)
        settle(arena, self.worker(claim), self.challenger(truth, terms), liar, quiet)
        return arena


def test_the_end_of_an_answer(scene: DisputeScene) -> None:
    """Answers that stop early, late, or go on after an end token lose at once; right ends win."""
    prompt = scene.prompt(5)
    said = scene.answer(scene.order(prompt, Sampling()), ANSWER_TOKENS).statement.answer
    end = said[2]
    first = said.index(end) + 1  # the honest answer's length
    ending = LengthScene((end,))
    order = ending.order(prompt, Sampling(), ANSWER_TOKENS)
    assert ending.game(order, ending.answer(order, first), CHALLENGER).winner() == WORKER
    beyond, before, far = ANSWER_TOKENS, first - 1, ANSWER_TOKENS + 3
    for tokens in {beyond, before, far} - {0, first}:
        arena = ending.game(order, ending.answer(order, tokens), WORKER)
        assert arena.winner() == CHALLENGER, tokens
        assert arena.gas[-1][0] == "refuteLength"
    ending.close()
    endless = LengthScene(())
    order = endless.order(prompt, Sampling(), ANSWER_TOKENS)
    assert endless.game(order, endless.answer(order, ANSWER_TOKENS), CHALLENGER).winner() == WORKER
    for tokens in (ANSWER_TOKENS - 1, ANSWER_TOKENS + 1):
        assert endless.game(order, endless.answer(order, tokens), WORKER).winner() == CHALLENGER, tokens
    endless.close()


def test_a_stated_answer_is_the_one_in_the_trace(scene: DisputeScene) -> None:
    """All rows are right, but the answer that the root names is another."""
    order = scene.order(scene.prompt(5), SAMPLINGS[0])
    truth = scene.answer(order, ANSWER_TOKENS)
    answer = (*truth.statement.answer[:-1], (truth.statement.answer[-1] + 1) % 200)
    lied = replace(truth.statement, answer=answer)
    claim = Claim(lied, type(truth.trace)(truth.trace.shape, lied, truth.trace.leaves), truth.rows)
    terms = scene.terms(order, claim)
    arena = Arena(terms)
    quiet = Mischief(np.random.default_rng(1), [], silence=0.0, noise=0.0)
    settle(arena, scene.worker(claim), scene.challenger(truth, terms), WORKER, quiet)
    assert arena.winner() == CHALLENGER
    assert arena.gas[-1][0] == "refuteAnswer"


@pytest.mark.soak
def test_many_disputes(scene: DisputeScene, recorded: list[Recorded]) -> None:
    for seed in range(500):
        mischief = 0.5 * (seed % 3)
        lie = LIES[seed % len(LIES)]
        assert lying_game(scene, lie, 100 + seed, recorded, min(mischief, 0.8)).winner() == CHALLENGER, seed
        assert malicious_game(scene, 100 + seed, recorded, min(mischief, 0.8)).winner() == WORKER, seed
