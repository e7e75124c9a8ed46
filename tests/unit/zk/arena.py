"""Disputes on an executor: the contracts at their places, games between two parties, and single steps."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from eth_abi.abi import encode

from core.contract import Event
from core.memory_state import AccountContents
from tests.unit.market.ledger import Ledger, address_of
from tests.unit.zk.scene import SAMPLED, TOKENS_MAX, Claim, Scene
from worker.evm.native_executor import NativeExecutor
from worker.inference.exact.sampling import Sampling
from worker.inference.exact.specification import exp2_table, sigmoid_table
from worker.inference.proof_model import TensorOpener
from zk.contracts import DISPUTE, DISPUTE_ADDRESS, STEPS, STEPS_ADDRESS, predeploys
from zk.dispute import EVIDENCE_TYPE, Challenger, Terms, Worker, play
from zk.instruction import Instruction
from zk.program import Programs
from zk.tape import Tape, fill
from zk.trace import Statement

__all__ = ["CHALLENGER", "MOVE_SECONDS", "WORKER", "Arena", "DisputeScene", "evidence_of", "new_ledger", "recompute"]

MOVE_SECONDS = 3600
TEXT_HASH = b"\x07" * 32
WORKER, CHALLENGER = address_of("worker"), address_of("challenger")


def new_ledger() -> Ledger:
    accounts = {name: AccountContents(balance=10**18) for name in (WORKER, CHALLENGER)}
    for address, predeploy in predeploys(exp2_table().tolist(), sigmoid_table().tolist(), MOVE_SECONDS).items():
        accounts[address] = AccountContents(1, predeploy.balance_wei, predeploy.code, predeploy.storage)
    return Ledger(NativeExecutor(), accounts, {DISPUTE_ADDRESS: DISPUTE, STEPS_ADDRESS: STEPS})


class DisputeScene(Scene):
    """A scene whose model a dispute can open."""

    ends_by_text = True  # answers end where a test wants them to

    def __init__(self, seed: int = 1, **shape: int) -> None:
        super().__init__(seed, **shape)
        self._tokens_max = TOKENS_MAX
        self.opener = TensorOpener(self.model, b"\x01" * 32, b"\x02" * 32)
        self.model_root = self.opener.root
        self.programs = Programs(self.model.header)

    def tapes(self, claim: Claim) -> Callable[[int, int], Tape]:
        """How the parties of a claim compute tapes: with the ordered model's arithmetic, from the claim's rows."""

        def make(position: int, inner: int) -> Tape:
            program = self.programs.program(inner)
            return fill(self.arithmetic, claim.statement, claim.rows, program, position, inner)

        return make

    def worker(self, claim: Claim, make_tape: Callable[[int, int], Tape] | None = None) -> Worker:
        return Worker(claim.trace, claim.rows, self.programs, self.opener, make_tape or self.tapes(claim))

    def challenger(self, honest: Claim, terms: Terms) -> Challenger:
        return Challenger(terms, honest.trace, self.opener, self.tapes(honest))

    def order(self, prompt: tuple[int, ...], sampling: Sampling = SAMPLED, tokens_max: int = TOKENS_MAX) -> Statement:
        """An order for an answer of at most so many tokens, or one that a stop string ends."""
        order = super().order(prompt, sampling)
        return replace(order, request_hash=self._asked(order, tokens_max).request_hash)

    def _asked(self, order: Statement, tokens_max: int) -> Terms:
        """The terms of an order, with nothing in them of the answer."""
        self._tokens_max = tokens_max
        return Terms(
            bytes(32),
            order.model_root,
            self.programs.tree_root,
            TEXT_HASH,
            order.prompt_hash,
            order.sampling,
            len(order.prompt),
            1,
            tokens_max,
            self.ends_by_text,
            self.programs.shape.layers,
            WORKER,
            CHALLENGER,
        )

    def terms(self, order: Statement, claim: Claim) -> Terms:
        """What was ordered, and what the worker signed."""
        asked = self._asked(order, self._tokens_max)
        return replace(asked, trace_root=claim.trace.root, answer_tokens=len(claim.statement.answer))


class Arena:
    """One game, on a fresh chain if none is given. Implements `zk.dispute.DisputeChain`."""

    def __init__(self, terms: Terms, ledger: Ledger | None = None) -> None:
        self.terms = terms
        self.ledger = ledger or new_ledger()
        self.gas: list[tuple[str, int]] = []
        self._events: list[Event] = []

    def move(self, sender: bytes, function: str, *arguments: object) -> None:
        sent = self.ledger.send(sender, DISPUTE_ADDRESS, function, *arguments)
        self.gas.append((function, sent.gas_used))
        self._events += sent.events

    def turn(self) -> int:
        return int(self.ledger.read(DISPUTE_ADDRESS, "turnOf", self.terms.solidity()))

    def events(self) -> list[Event]:
        return self._events

    def winner(self) -> bytes:
        found: bytes = self.ledger.read(DISPUTE_ADDRESS, "winnerOf", self.terms.solidity())
        return found

    def play(self, worker: Worker, challenger: Challenger) -> int:
        return play(self, self.terms, worker, challenger)

    def time_out(self, by: bytes) -> None:
        """Let the clock of the party whose turn it is run out, and end the game."""
        self.ledger.now += MOVE_SECONDS + 1
        self.move(by, "timeout", self.terms.solidity())


def recompute(
    ledger: Ledger, scene: DisputeScene, claim: Claim, position: int, inner: int, index: int, worker: Worker
) -> tuple[bytes, int]:
    """The contract's digest of one cell of an honest tape, and the gas of the call."""
    tape = scene.tapes(claim)(position, inner)
    instruction, evidence = evidence_of(scene, worker, tape, position, inner, index)
    context = (
        tape.root,
        tape.depth,
        claim.trace.rows_root,
        len(claim.trace.levels) - 1,
        claim.trace.shape.leaves,
        scene.model_root,
        position,
        index,
        claim.statement.sampling,
    )
    encoded = encode([EVIDENCE_TYPE], [evidence])
    sent = ledger.send(WORKER, STEPS_ADDRESS, "recompute", instruction.encode(), encoded, context)
    return sent.result, sent.gas_used


def evidence_of(
    scene: DisputeScene, worker: Worker, tape: Tape, position: int, inner: int, index: int
) -> tuple[Instruction, Any]:
    slot = scene.programs.slot(inner, index, position + 1)
    instruction = scene.programs.instruction(inner, slot)
    return instruction, worker.evidence(tape, instruction, index, position)
