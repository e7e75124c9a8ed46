"""Has the attached workers execute each block, and answers only with what they agree on.

`FleetExecution` is the `sequencer.ports.BlockExecution` of a network. All replicas get the block; the outcome counts
when enough of them gave the same commitments and one sent the body to them. A disagreement stops the block: the
evidence is kept, an arbiter decides (an attached watcher, or an executor of this node), who was wrong is shut out, and
then the block goes on. Knows nothing of gRPC.
"""

import asyncio
import itertools
from collections import OrderedDict
from concurrent.futures import Executor as ThreadExecutor
from dataclasses import dataclass, field, replace

import structlog

from core.chain import ChainReader, SealedBlock
from core.chain_rules import Commitments, commitments_of
from core.execution import BlockContext, ExecutionOutcome, Executor
from core.transaction import TransactionColumns
from protos.errors import MalformedMessage, UnexpectedMessage
from protos.messages import AnnounceBlock, BlockAnswer, BlockEnvironment, BlockRefusal, ExecuteBlock
from sequencer.coordinator.evidence import EvidenceStore
from sequencer.coordinator.fleet import DUTY_REPLICA, DUTY_WATCHER, Fleet, Member
from sequencer.ports import ExecutedBlock, ExecutionUnavailable

__all__ = ["ExecutionConfig", "FleetExecution"]

_ROUNDS_REMEMBERED = 8

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ExecutionConfig:
    """`answers_wanted` must agree, where that many are attached.

    A worker that has not answered after `answer_timeout_s` is dropped; after `round_timeout_s` the block is given back.
    """

    answers_wanted: int = 2
    answer_timeout_s: float = 30.0
    round_timeout_s: float = 90.0


@dataclass(slots=True)
class _Round:
    """One block that is asked about. `asked` and `answers` are by address; `votes` are those behind the verdict."""

    question: ExecuteBlock
    asked: dict[bytes, Member] = field(default_factory=dict)
    bodies_asked: set[bytes] = field(default_factory=set)
    answers: dict[bytes, BlockAnswer] = field(default_factory=dict)
    excluded: set[bytes] = field(default_factory=set)
    verdict: Commitments | None = None
    votes: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def commitments(self) -> set[Commitments]:
        return {answer.commitments for answer in self.answers.values()}

    def waiting(self) -> list[bytes]:
        """Who was asked, is still there, and has not answered."""
        return [one for one in self.asked if one not in self.answers and one not in self.excluded]

    def owing_bodies(self) -> list[bytes]:
        """Who was asked for a body, is still there, and has not sent it."""
        owing = self.bodies_asked - self.excluded
        return [one for one in owing if one not in self.answers or self.answers[one].body is None]


class FleetExecution:
    """Executes blocks through the fleet. One block at a time; implements `sequencer.ports.BlockExecution`.

    `arbiter` is this node's own executor for disputes, used when no watcher is attached; without either, a disputed
    block waits until a watcher comes. `threads` runs what would hold up the event loop.
    """

    def __init__(
        self,
        chain: ChainReader,
        fleet: Fleet,
        evidence: EvidenceStore,
        config: ExecutionConfig,
        threads: ThreadExecutor,
        arbiter: Executor | None = None,
    ) -> None:
        self._chain = chain
        self._fleet = fleet
        self._evidence = evidence
        self._config = config
        self._threads = threads
        self._arbiter = arbiter
        self._proposal_ids = itertools.count(1)
        self._rounds: OrderedDict[int, _Round] = OrderedDict()
        self._current: _Round | None = None
        self._last_execution_us: dict[bytes, int] = {}
        self._lock = asyncio.Lock()
        fleet.on(BlockAnswer, self._on_answer)
        fleet.on(BlockRefusal, self._on_refusal)
        fleet.observe(self)

    async def execute(self, context: BlockContext, transactions: TransactionColumns) -> ExecutedBlock:
        """See `sequencer.ports.BlockExecution`. Also unavailable while a watcher's finding halts sealing."""
        async with self._lock:
            self._require_no_halt()
            question = ExecuteBlock(
                next(self._proposal_ids),
                context.block_hashes[-1],
                BlockEnvironment.of(context),
                transactions,
                wants_body=False,
            )
            self._current = one = _Round(question)
            self._rounds[question.proposal_id] = one
            while len(self._rounds) > _ROUNDS_REMEMBERED:
                self._rounds.popitem(last=False)
            try:
                async with asyncio.timeout(self._config.round_timeout_s):
                    agreed = await self._agree(one, context)
            except TimeoutError as error:
                raise ExecutionUnavailable(self._explain(one)) from error
            finally:
                self._current = None
            self._require_no_halt()
            return agreed

    def vouchers(self, number: int) -> list[bytes]:
        """Who gave the outcome with which this block was sealed, where it is one of the last few."""
        return [
            address
            for one in self._rounds.values()
            if one.question.environment.number == number
            for address, answer in one.answers.items()
            if answer.commitments == one.verdict
        ]

    def _require_no_halt(self) -> None:
        reason = self._evidence.halt()
        if reason is not None:
            raise ExecutionUnavailable(reason)

    async def announce(self, sealed: SealedBlock) -> None:
        """Tell every worker that this block was sealed."""
        await self._fleet.broadcast(AnnounceBlock(sealed.hash, sealed.block.header))

    async def _agree(self, one: _Round, context: BlockContext) -> ExecutedBlock:
        for member in sorted(self._fleet.members(DUTY_REPLICA), key=self._slowness):
            await self._ask(one, member)
        loop = asyncio.get_running_loop()
        patience_ends = loop.time() + self._config.answer_timeout_s
        while True:
            one.changed.clear()
            if len(one.commitments()) > 1:
                await self._arbitrate(one, context)
            if self._is_settled(one):
                executed = await self._outcome(one, context)
                if executed is not None:
                    return executed
            try:
                async with asyncio.timeout_at(patience_ends):
                    await one.changed.wait()
            except TimeoutError:
                for address in {*one.waiting(), *one.owing_bodies()}:
                    self._give_up_on(one, address)
                patience_ends = loop.time() + self._config.answer_timeout_s

    def _is_settled(self, one: _Round) -> bool:
        """Enough equal answers are in: as many as wanted, or from all that can still be expected."""
        if one.verdict is not None:
            return bool(one.answers)
        votes = len(one.answers)
        return votes >= self._config.answers_wanted or (votes > 0 and not one.waiting())

    def _slowness(self, member: Member) -> int:
        return self._last_execution_us.get(member.address, 0)

    async def _ask(self, one: _Round, member: Member, *, wants_body: bool | None = None) -> None:
        """Ask a worker; the first one of a round is the primary, which sends the body too."""
        if member.address in one.excluded:
            return
        needs_body = not one.bodies_asked if wants_body is None else wants_body
        question = one.question
        if needs_body:
            one.bodies_asked.add(member.address)
            question = replace(question, wants_body=True)
        one.asked[member.address] = member
        if not await member.post(question):
            self._give_up_on(one, member.address)

    def _give_up_on(self, one: _Round, address: bytes) -> None:
        one.excluded.add(address)
        one.changed.set()
        member = self._fleet.member(address)
        if member is not None:
            member.expel("late", f"block {one.question.environment.number} was not answered in time")

    async def _outcome(self, one: _Round, context: BlockContext) -> ExecutedBlock | None:
        """The agreed outcome, once a body is in that has the agreed commitments; asks for one where there is none."""
        agreed = next(iter(one.commitments()))
        for address, answer in list(one.answers.items()):
            if answer.body is None:
                continue
            outcome = await self._checked(one, address, answer, context)
            if outcome is not None and one.commitments() == {agreed}:
                one.verdict = agreed
                one.votes = len(one.answers)
                return ExecutedBlock(outcome, agreed)
        if not one.owing_bodies():
            for address in one.answers:
                if address in one.asked and address not in one.excluded:
                    await self._ask(one, one.asked[address], wants_body=True)
                    break
        return None

    async def _checked(
        self, one: _Round, address: bytes, answer: BlockAnswer, context: BlockContext
    ) -> ExecutionOutcome | None:
        """The outcome of a body, or None when the body does not have the commitments that were sent with it."""
        assert answer.body is not None
        body, transactions = answer.body, one.question.transactions

        def recompute() -> tuple[ExecutionOutcome, Commitments]:
            outcome = body.outcome(len(transactions))
            return outcome, self._commitments(context, transactions, outcome)

        try:
            outcome, actual = await asyncio.get_running_loop().run_in_executor(self._threads, recompute)
        except MalformedMessage as error:
            problem = str(error)
        else:
            if actual == answer.commitments:
                return outcome
            problem = "the body does not have the roots that were sent with it"
        self._convict(one, {address: answer}, f"block {context.number}: {problem}", arbiter="recomputed")
        return None

    async def _arbitrate(self, one: _Round, context: BlockContext) -> None:
        """Answers differ: find out who is right, and shut out the others."""
        _log.error("block_disputed", number=context.number, opinions=len(one.commitments()))
        verdict, arbiter = await self._second_opinion(one, context)
        right = {address for address, answer in one.answers.items() if answer.commitments == verdict}
        if not right:
            self._evidence.keep(one.question, one.answers, {"arbiter": arbiter, "agrees_with": []})
            raise ExecutionUnavailable(
                f"block {context.number}: the workers disagree, and the arbiter ({arbiter}) with all of them; "
                "sealing stops here until the evidence is judged"
            )
        one.verdict, one.votes = verdict, len(right) + 1
        wrong = {address: answer for address, answer in one.answers.items() if address not in right}
        self._convict(one, wrong, f"block {context.number}: wrong commitments", arbiter=arbiter)

    async def _second_opinion(self, one: _Round, context: BlockContext) -> tuple[Commitments, str]:
        watcher = await self._watcher_answer(one)
        if watcher is not None:
            return watcher
        if self._arbiter is None:
            self._evidence.keep(one.question, one.answers, {"arbiter": None})
            raise ExecutionUnavailable(f"block {context.number}: the workers disagree and no watcher is attached")
        arbiter, transactions = self._arbiter, one.question.transactions

        def run() -> Commitments:
            outcome = arbiter.execute_block(self._chain.state(context.number - 1), context, transactions)
            return self._commitments(context, transactions, outcome)

        return await asyncio.get_running_loop().run_in_executor(self._threads, run), arbiter.name

    def _commitments(
        self, context: BlockContext, transactions: TransactionColumns, outcome: ExecutionOutcome
    ) -> Commitments:
        return commitments_of(context, transactions, outcome, self._chain.state(context.number - 1))

    async def _watcher_answer(self, one: _Round) -> tuple[Commitments, str] | None:
        """What an attached watcher says; None when there is none that answers."""
        for watcher in self._fleet.members(DUTY_WATCHER):
            if watcher.address in one.excluded:
                continue
            number = next(self._proposal_ids)
            consultation = _Round(replace(one.question, proposal_id=number))
            self._rounds[number] = consultation
            consultation.asked[watcher.address] = watcher
            if not await watcher.post(consultation.question):
                continue
            try:
                async with asyncio.timeout(self._config.answer_timeout_s):
                    while watcher.address not in consultation.answers and consultation.waiting():
                        consultation.changed.clear()
                        await consultation.changed.wait()
            except TimeoutError:
                watcher.expel("late", "the watcher was asked to judge a block and did not answer in time")
            finally:
                self._rounds.pop(number, None)
            if watcher.address in consultation.answers:
                return consultation.answers[watcher.address].commitments, f"watcher 0x{watcher.address.hex()}"
        return None

    def _convict(self, one: _Round, wrong: dict[bytes, BlockAnswer], reason: str, *, arbiter: str) -> None:
        kept = self._evidence.keep(
            one.question, one.answers | wrong, {"arbiter": arbiter, "wrong": [one.hex() for one in wrong]}
        )
        for address in wrong:
            one.answers.pop(address, None)
            one.excluded.add(address)
            _log.error("worker_convicted", worker=address.hex(), reason=reason, evidence=str(kept))
            member = self._fleet.member(address)
            if member is not None:
                self._fleet.ban(member, f"{reason}; evidence in {kept.name}")
        one.changed.set()

    async def _on_answer(self, member: Member, answer: BlockAnswer) -> None:
        one = self._rounds.get(answer.proposal_id)
        if one is None or member.address not in one.asked or member.address in one.excluded:
            return  # of a block that nobody waits for any more
        self._last_execution_us[member.address] = answer.execution_us
        if member.address in one.bodies_asked and answer.body is None:
            raise UnexpectedMessage("the block's body was asked for and is missing in the answer")
        if one.verdict is not None and answer.commitments != one.verdict:
            self._on_late_dissent(one, member, answer)
            return
        earlier = one.answers.get(member.address)
        if earlier is not None and earlier.commitments != answer.commitments:
            self._convict(one, {member.address: answer}, "two different answers to one question", arbiter="itself")
            return
        one.answers[member.address] = answer
        one.changed.set()

    def _on_late_dissent(self, one: _Round, member: Member, answer: BlockAnswer) -> None:
        """An answer that differs from what was sealed already. One vote alone cannot convict another."""
        number = one.question.environment.number
        if one.votes > 1:
            self._convict(one, {member.address: answer}, f"block {number}: wrong commitments", arbiter="agreed")
            return
        kept = self._evidence.keep(one.question, {**one.answers, member.address: answer}, {"arbiter": None})
        _log.error("sealed_block_doubted", number=number, worker=member.address.hex(), evidence=str(kept))
        member.expel("dissent", f"block {number} was sealed with other commitments; evidence in {kept.name}")

    async def _on_refusal(self, member: Member, refusal: BlockRefusal) -> None:
        one = self._rounds.get(refusal.proposal_id)
        member.head = refusal.head
        if one is not None and member.address in one.asked and member.address not in one.answers:
            _log.info("block_refused", worker=member.address.hex(), code=refusal.code, detail=refusal.detail)
            del one.asked[member.address]
            one.bodies_asked.discard(member.address)
            one.changed.set()

    async def heard(self, member: Member) -> None:
        """Part of FleetObserver: a worker that stands where the current block builds is asked too."""
        one = self._current
        if one is None or member.head.hash != one.question.parent_hash or not member.has_duty(DUTY_REPLICA):
            return
        if member.address not in one.asked:
            await self._ask(one, member)

    async def joined(self, member: Member) -> None:
        """Part of FleetObserver: a newcomer is asked once a heartbeat says that it has caught up."""

    async def left(self, member: Member, reason: str) -> None:
        """Part of FleetObserver."""
        for one in self._rounds.values():
            if one.asked.get(member.address) is member:
                del one.asked[member.address]
                one.bodies_asked.discard(member.address)
                one.changed.set()

    def _explain(self, one: _Round) -> str:
        number = one.question.environment.number
        attached = len(self._fleet.members(DUTY_REPLICA))
        return (
            f"block {number}: {len(one.answers)} answers from {attached} attached workers after "
            f"{self._config.round_timeout_s:g} s, {self._config.answers_wanted} are wanted"
        )
