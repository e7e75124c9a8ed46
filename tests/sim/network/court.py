"""A network of exact jobs with its money: every contract on a ledger, settlement, and disputes that are really played.

What the operator sends is carried out on the ledger and put into a block beside. Games are played at once, both sides,
by the parties that a real network has: the honest trace against what the worker claimed.
"""

from pathlib import Path

import numpy as np

from core.hashing import keccak256
from core.jobs.receipt import ReceiptDomain
from core.jobs.request import JobRequest, Message, Role, Sampling, Tier, request_hash
from core.memory_state import AccountContents
from core.signature import recover_senders
from core.transaction import TransactionColumns, decode_transaction
from market.contracts import (
    ARBITER,
    ARBITER_ADDRESS,
    ESCROW_ADDRESS,
    JOB_ESCROW,
    REGISTRY_ADDRESS,
    WORKER_REGISTRY,
    MarketParameters,
)
from market.contracts import predeploys as market_predeploys
from node.disputes.challenge import Dispute, dispute_of
from node.errors import ServiceError
from node.jobs.records import ClientJob
from protos.job_messages import SubmitJob
from sequencer.coordinator.disputes import Case, Disputes
from sequencer.coordinator.escrow import CallFailed, EscrowStatus, JobTerms, Settled, Standing
from sequencer.coordinator.settlement import Settlement, SettlementConfig
from tests.sim.network.exact_jobs import ExactWorld, SimulatedEngine
from tests.sim.network.jobs import OPERATOR, OPERATOR_KEY
from tests.sim.network.virtual_time import pass_time
from tests.sim.network.world import SimulatedWorker, identity
from tests.unit.market.bindings import signed_binding
from tests.unit.market.ledger import CHAIN_ID, ETHER, Ledger, Reverted, address_of
from tests.unit.zk.arena import Arena
from worker.evm.native_executor import NativeExecutor
from worker.inference.dispute_parties import DisputeParties
from worker.inference.exact.model import ExactModel
from worker.inference.exact.ordering import exact_terms
from worker.inference.exact.specification import exp2_table, sigmoid_table
from worker.jobs import JobRunner
from zk.contracts import DISPUTE, DISPUTE_ADDRESS, STEPS, STEPS_ADDRESS
from zk.contracts import predeploys as dispute_predeploys
from zk.dispute import Seat, Turn
from zk.dispute import Worker as WorkerParty
from zk.tape import Tape

__all__ = ["CLIENT", "PENALTY_WEI", "PRICE_MAX_WEI", "STAKE_WEI", "CourtWorld"]

PRICE_MAX_WEI = 10**6
STAKE_WEI = 2 * ETHER
PENALTY_WEI = 10 * PRICE_MAX_WEI
MOVE_SECONDS = 30
CLIENT, CHALLENGER = address_of("client"), address_of("challenger")
ARTIFACTS = {
    REGISTRY_ADDRESS: WORKER_REGISTRY,
    ESCROW_ADDRESS: JOB_ESCROW,
    ARBITER_ADDRESS: ARBITER,
    DISPUTE_ADDRESS: DISPUTE,
    STEPS_ADDRESS: STEPS,
}
PARAMETERS = MarketParameters(
    stake_min_wei=ETHER,
    challenge_seconds=60,
    exact_challenge_seconds=120,
    settlement_seconds=600,
    unbonding_seconds=7200,
)


class LedgerMarket:
    """Implements `sequencer.coordinator.escrow.MarketChain`."""

    domain = ReceiptDomain(CHAIN_ID, ESCROW_ADDRESS)

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def terms(self, job_id: bytes) -> JobTerms:
        job = self._ledger.read(ESCROW_ADDRESS, "jobOf", job_id)
        client, deadline, tier, status, coordinator, _, _, worker, _, _, price_max_wei, _, model_hash, asked, _ = job
        named = (client, coordinator, worker, Tier(tier), deadline * 1000, price_max_wei, model_hash, asked)
        return JobTerms(*named, EscrowStatus(status))

    def standing(self, worker: bytes) -> Standing:
        read = self._ledger.read
        signer = read(REGISTRY_ADDRESS, "signerOf", worker)
        return Standing(signer, read(REGISTRY_ADDRESS, "bondedUntil", worker))

    def settled(self, job_id: bytes) -> Settled:
        job = self._ledger.read(ESCROW_ADDRESS, "jobOf", job_id)
        return Settled(job[8], job[5])

    def is_demanded(self, job_id: bytes) -> bool:
        return bool(self._ledger.read(ESCROW_ADDRESS, "jobOf", job_id)[3] == EscrowStatus.DEMANDED)

    def check(self, sender: bytes, data: bytes) -> int:
        outcome = self._ledger.call(sender, ESCROW_ADDRESS, data)
        if not outcome.succeeded:
            raise CallFailed("JobEscrow", JOB_ESCROW.decode_error(outcome.output))
        return outcome.gas_used


class CourtWorld(ExactWorld):
    """An ExactWorld whose coordinator settles, and disputes what it finds wrong. Its workers are bonded."""

    def __init__(self, folder: Path, model: ExactModel, *, units: int) -> None:
        predeploys = market_predeploys(PARAMETERS)
        predeploys |= dispute_predeploys(exp2_table().tolist(), sigmoid_table().tolist(), MOVE_SECONDS)
        accounts = {at: AccountContents(1, one.balance_wei, one.code, one.storage) for at, one in predeploys.items()}
        funded = (CLIENT, CHALLENGER, OPERATOR, *(identity(number).address for number in range(1, 5)))
        accounts |= {one: AccountContents(balance=1000 * ETHER) for one in funded}
        self.ledger = Ledger(NativeExecutor(), accounts, ARTIFACTS)
        self.engines: dict[bytes, SimulatedEngine] = {}
        self.skew_s = 0
        prosecutor = SimulatedProsecutor(self)
        market = LedgerMarket(self.ledger)
        won = lambda job: prosecutor.would_win(Case.of(job))  # noqa: E731
        super().__init__(folder, model, units=units, market=market, would_win=won)
        config = SettlementConfig(batch_max=4)
        self.settlement = Settlement(
            self.coordinator, self.chain, market, OPERATOR_KEY, self._submit, config, self.threads, now_ms=self.now_ms
        )
        self.disputes = Disputes(self.coordinator, prosecutor, self.threads, now_ms=self.now_ms)
        self._sent: list[bytes] = []

    def tick(self) -> None:
        """The ledger's clock follows the world's; games that were waited for put it ahead."""
        self.ledger.now = self.now_ms() // 1000 + self.skew_s

    def exact_worker(
        self, number: int, engine: SimulatedEngine, *, runner: type[JobRunner] = JobRunner, opener: object = None
    ) -> SimulatedWorker:
        worker = super().exact_worker(number, engine, runner=runner, opener=opener)
        self.tick()
        key = identity(number)
        member = (key.address, bytes(32), bytes(32), "")
        binding = signed_binding(key.address, key.secret, CHAIN_ID)
        self.ledger.send(key.address, REGISTRY_ADDRESS, "register", member, binding, value=STAKE_WEI)
        self.engines[key.address] = engine
        return worker

    def order(self, number: int, generator: np.random.Generator, *, worker: bytes = bytes(20)) -> SubmitJob:
        """A job that is funded in the escrow, and ordered in tokens."""
        self.tick()
        words = " ".join(str(word) for word in generator.integers(0, 1000, 3))
        sampling = Sampling(tokens_max=int(generator.integers(3, 7)), temperature_milli=900, seed=number)
        request = JobRequest("bytes", (Message(Role.USER, f"{number} {words}"),), sampling, Tier.EXACT)
        salt = keccak256(b"salt %d" % number)
        request = JobRequest(
            request.model, request.messages, sampling, Tier.EXACT, exact_terms(self.exact, request, salt)
        )
        asked = (self.model_hash, request_hash(request, salt), number)
        order = (OPERATOR, worker, int(Tier.EXACT), self.ledger.now + 900, PRICE_MAX_WEI, *asked)
        sent = self.ledger.send(CLIENT, ESCROW_ADDRESS, "open", order, value=PRICE_MAX_WEI)
        return SubmitJob(sent.result, request, salt)

    async def settle_all(self) -> None:
        """Settle, dispute and pay until nothing is left to do. Workers must be running."""
        for _ in range(100):
            if not self.coordinator.table.open:
                return
            self.tick()
            await self.settlement.step()
            for raw in self._sent:
                tx = decode_transaction(raw)
                (sender,) = recover_senders([tx])
                await self.make_block(TransactionColumns.from_transactions([tx], [sender]))
            self._sent.clear()
            await self.disputes.step()
            await pass_time(10)
        raise AssertionError(f"jobs are left: {self.coordinator.table.open}")

    async def _submit(self, raw: bytes) -> None:
        function, arguments = JOB_ESCROW.decode_call(decode_transaction(raw).data)
        self.ledger.send(OPERATOR, ESCROW_ADDRESS, function, *arguments.values())
        self._sent.append(raw)

    def status(self, job_id: bytes) -> EscrowStatus:
        self.tick()
        return EscrowStatus(self.ledger.read(ESCROW_ADDRESS, "jobOf", job_id)[3])

    def stake_wei(self, worker: bytes) -> int:
        return int(self.ledger.read(REGISTRY_ADDRESS, "workerOf", worker)[0])

    def credit_wei(self, owner: bytes) -> int:
        return self.ledger.variable(ESCROW_ADDRESS, "creditWei", owner)


class SimulatedProsecutor:
    """Implements `sequencer.coordinator.disputes.Prosecutor` on the ledger; plays the worker's side too."""

    def __init__(self, world: CourtWorld) -> None:
        self._world = world

    def would_win(self, case: Case) -> bool:
        try:
            self._dispute(case)
        except ServiceError:
            return False
        return True

    def advance(self, case: Case) -> bool:
        world, dispute = self._world, self._dispute(case)
        world.tick()
        assert case.inclusion is not None, "it is settled"
        signed, terms = case.signed, dispute.terms
        shown = (signed.receipt.solidity(), signed.signature, list(case.inclusion.proof))
        world.ledger.send(CHALLENGER, ESCROW_ADDRESS, "show", *shown)
        arguments = (terms.solidity(), signed.receipt.solidity())
        world.ledger.send(CHALLENGER, ARBITER_ADDRESS, "challenge", *arguments, value=PARAMETERS.bond_wei)
        arena = Arena(terms, world.ledger)
        seats = (Seat(arena, terms, self._accused(case)), Seat(arena, terms, dispute.challenger))
        try:
            while arena.turn() != Turn.OVER:
                for seat in seats:
                    seat.act()
        except Reverted:
            world.skew_s += MOVE_SECONDS + 1
            world.tick()
            arena.move(CHALLENGER, "timeout", terms.solidity())
        world.ledger.send(CHALLENGER, ARBITER_ADDRESS, "resolve", terms.solidity())
        return arena.winner() == CHALLENGER

    def _dispute(self, case: Case) -> Dispute:
        job = ClientJob(case.job_id, case.request, case.salt, PRICE_MAX_WEI, 0)
        return dispute_of(job, case.signed.receipt, self._world.exact, CHALLENGER)

    def _accused(self, case: Case) -> WorkerParty:
        """Whoever committed to its claim: its tapes end in the claimed leaf, as the contract demands."""
        claim = self._world.engines[case.signed.receipt.worker].claims[case.salt]
        parties = DisputeParties(self._world.exact)
        honest = parties.tapes(claim.statement, claim.rows)

        def tapes(position: int, inner: int) -> Tape:
            tape = honest(position, inner)
            return Tape(tape.size, {**tape.cells, tape.size - 1: claim.trace.digest(position, inner)})

        return parties.committed_worker(claim.trace, claim.rows, tapes)
