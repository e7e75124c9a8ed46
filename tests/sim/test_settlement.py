"""Settlement under virtual time: one transaction for many receipts, each job paid or refunded once, through crashes."""

from pathlib import Path

import pytest

from core.jobs.request import output_hash
from core.signature import recover_senders
from core.transaction import TransactionColumns, decode_transaction
from market.contracts import ESCROW_ADDRESS, JOB_ESCROW
from market.receipt_tree import leaf_of, root_from_proof
from protos.job_messages import JobQuery, SignedReceipt
from sequencer.coordinator.job_log import Assigned, Ended, Finished, Submitted
from sequencer.coordinator.settlement import Settlement, SettlementConfig
from sequencer.errors import TransactionUnderpriced
from tests.sim.network.jobs import OPERATOR, OPERATOR_KEY, FakeMarket, JobWorld, jobs_in
from tests.sim.network.virtual_time import pass_time, simulate
from tests.sim.network.world import identity
from tests.unit.market.ledger import address_of
from tests.unit.market.scene import receipt_for

WORKER = identity(1)
EIGHT_AT_ONCE = SettlementConfig(batch_max=8)


class SettlementWorld(JobWorld):
    """Jobs in every state, without workers; `sent` are the raw transactions that were handed to the mempool."""

    def __init__(
        self, folder: Path, market: FakeMarket | None = None, config: SettlementConfig = EIGHT_AT_ONCE
    ) -> None:
        super().__init__(folder, market=market)
        self.sent: list[bytes] = []
        self.refuses_next = False
        self.settlement = Settlement(
            self.coordinator,
            self.chain,
            self.market,
            OPERATOR_KEY,
            self._submit,
            config,
            self.threads,
            now_ms=self.now_ms,
        )

    async def _submit(self, raw: bytes) -> None:
        self.sent.append(raw)
        if self.refuses_next:
            self.refuses_next = False
            raise TransactionUnderpriced("transaction underpriced")

    async def finished(self, number: int) -> bytes:
        submit = self.fund(number)
        terms = self.market.jobs[submit.job_id]
        await self.coordinator.record(
            Submitted(
                submit.job_id,
                submit.request,
                submit.salt,
                terms.client,
                terms.worker,
                terms.model_hash,
                terms.request_hash,
                terms.price_max_wei,
                terms.deadline_ms,
                self.now_ms(),
            )
        )
        await self.coordinator.record(Assigned(submit.job_id, 1, WORKER.address, 3, 7, self.now_ms()))
        receipt = receipt_for(
            submit.job_id,
            model_hash=terms.model_hash,
            request_hash=terms.request_hash,
            output_hash=output_hash("42", submit.salt),
        )
        signed = SignedReceipt(receipt, WORKER.sign(receipt.digest(self.market.domain)))
        await self.coordinator.record(Finished(submit.job_id, 1, "42", signed, "none", self.now_ms()))
        return submit.job_id

    async def mine(self) -> None:
        """Put the transaction that was last sent into a block."""
        tx = decode_transaction(self.sent[-1])
        (sender,) = recover_senders([tx])
        assert sender == OPERATOR
        worker = self.worker(9)
        async with self.running(worker):
            await self.make_block(TransactionColumns.from_transactions([tx], [sender]))

    def states(self) -> list[str]:
        return [job.state for job in self.coordinator.table.jobs.values()]


def jobs_of(raw: bytes) -> tuple[str, list[bytes]]:
    """The escrow's function that a transaction calls, and for which jobs, or owners of payments."""
    tx = decode_transaction(raw)
    assert tx.to == ESCROW_ADDRESS
    function, arguments = JOB_ESCROW.decode_call(tx.data)
    if function == "settleBatch":
        return function, jobs_in(arguments["payments"])
    if function in ("show", "release"):
        return function, [arguments["receipt"][0]] if function == "show" else list(arguments["jobIds"])
    return function, list(arguments["owners"]) if function == "collect" else [arguments["jobId"]]


def test_many_receipts_are_settled_in_one_transaction(tmp_path: Path) -> None:
    async def scene() -> None:
        world = SettlementWorld(tmp_path)
        ids = [await world.finished(number) for number in range(3)]
        for _ in range(3):
            await world.settlement.step()
        assert [jobs_of(raw) for raw in world.sent] == [("settleBatch", ids)]
        await world.mine()
        await world.settlement.step()
        assert world.states() == ["settled"] * 3
        records = [world.coordinator.status(JobQuery(one, b"")) for one in ids]
        leaves = [leaf_of(one.receipt.receipt.digest(world.market.domain)) for one in records if one.receipt]
        root = JOB_ESCROW.decode_call(decode_transaction(world.sent[0]).data)[1]["root"]
        for leaf, record in zip(leaves, records, strict=True):
            place = record.inclusion
            assert place is not None
            assert place.batch_id == 7
            assert root_from_proof(leaf, place.index, 3, place.proof) == root
        assert len(world.sent) == 1

    simulate(scene())


def test_a_batch_waits_for_more_receipts_but_not_for_ever(tmp_path: Path) -> None:
    async def scene() -> None:
        config = SettlementConfig(batch_max=3, wait_s=20.0)
        world = SettlementWorld(tmp_path, config=config)
        world.market.release_at_s = 2**40
        first = [await world.finished(number) for number in range(2)]
        await world.settlement.step()
        assert world.sent == []
        third = await world.finished(2)
        late = await world.finished(3)
        await world.settlement.step()
        assert jobs_of(world.sent[0]) == ("settleBatch", [*first, third])
        await world.mine()
        await world.settlement.step()
        await world.settlement.step()
        assert len(world.sent) == 1, "one receipt waits for others"
        await pass_time(21)
        await world.settlement.step()
        assert jobs_of(world.sent[1]) == ("settleBatch", [late])

    simulate(scene())


def test_a_demanded_receipt_is_shown_and_then_paid_by_itself(tmp_path: Path) -> None:
    market = FakeMarket()

    async def before() -> list[bytes]:
        world = SettlementWorld(tmp_path, market)
        market.release_at_s = world.now_ms() // 1000 + 60
        ids = [await world.finished(number) for number in range(2)]
        await world.settlement.step()
        await world.mine()
        await world.settlement.step()
        market.demanded.add(ids[1])
        world.log.close()
        return ids

    async def after(ids: list[bytes]) -> None:
        world = SettlementWorld(tmp_path, market)  # started anew: it sees what was demanded meanwhile
        await world.settlement.step()
        assert jobs_of(world.sent[0]) == ("show", [ids[1]])
        market.release_at_s += 60
        await world.mine()
        await world.settlement.step()
        market.demanded.clear()
        await world.settlement.step()
        assert len(world.sent) == 1
        await pass_time(62)
        await world.settlement.step()
        assert jobs_of(world.sent[1])[0] == "collect"
        await world.mine()
        await world.settlement.step()
        assert list(world.coordinator.table.open) == [ids[1]]
        await world.settlement.step()
        assert len(world.sent) == 2, "its own window is open"
        await pass_time(60)
        await world.settlement.step()
        assert jobs_of(world.sent[2]) == ("release", [ids[1]])
        await world.mine()
        await world.settlement.step()
        assert world.coordinator.table.open == {}

    simulate(after(simulate(before())))


def test_a_batch_is_halved_until_a_transaction_can_carry_it(tmp_path: Path) -> None:
    async def scene() -> None:
        world = SettlementWorld(tmp_path)
        world.market.gas_each = 6_000_000
        ids = [await world.finished(number) for number in range(4)]
        await world.settlement.step()
        assert jobs_of(world.sent[0]) == ("settleBatch", ids[:2])
        assert decode_transaction(world.sent[0]).gas_limit <= 2**24

    simulate(scene())


def test_payments_are_collected_after_their_challenge_window(tmp_path: Path) -> None:
    async def scene() -> None:
        world = SettlementWorld(tmp_path)
        world.market.release_at_s = world.now_ms() // 1000 + 60
        ids = [await world.finished(number) for number in range(2)]
        await world.settlement.step()
        await world.mine()
        await world.settlement.step()
        await world.settlement.step()
        assert world.states() == ["settled"] * 2
        assert len(world.sent) == 1
        await pass_time(62)
        await world.settlement.step()
        owners = {world.market.jobs[one].client for one in ids} | {address_of("worker")}
        assert jobs_of(world.sent[1]) == ("collect", sorted(owners))
        await world.mine()
        await world.settlement.step()
        assert world.coordinator.table.open == {}
        assert world.states() == ["settled"] * 2

    simulate(scene())


def test_after_a_crash_the_same_bytes_are_sent_again(tmp_path: Path) -> None:
    market = FakeMarket()

    async def before() -> bytes:
        world = SettlementWorld(tmp_path, market)
        await world.finished(1)
        await world.settlement.step()
        world.log.close()
        return world.sent[0]

    async def after(raw: bytes) -> None:
        world = SettlementWorld(tmp_path, market)
        await world.settlement.step()
        await world.settlement.step()
        assert world.sent == [raw]
        await world.mine()
        await world.settlement.step()
        assert world.states() == ["settled"]

    simulate(after(simulate(before())))


def test_one_bad_receipt_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async def scene() -> None:
        world = SettlementWorld(tmp_path)
        good, bad, other = [await world.finished(number) for number in range(3)]
        world.market.unpayable.add(bad)
        for _ in range(12):
            await world.settlement.step()
            if world.coordinator.table.batches:
                await world.mine()
        settled = [job for raw in world.sent for job in jobs_of(raw)[1] if jobs_of(raw)[0] == "settleBatch"]
        assert sorted(settled) == sorted([good, other])
        assert world.coordinator.table.jobs[bad].state == "failed"
        assert bad not in world.coordinator.table.open

    simulate(scene())


def test_a_failed_job_is_refunded(tmp_path: Path) -> None:
    async def scene() -> None:
        world = SettlementWorld(tmp_path)
        await world.finished(1)
        (job,) = world.coordinator.table.jobs.values()
        job.state = "running"
        await world.coordinator.record(Ended(job.terms.job_id, "failed", "nobody could", world.now_ms()))
        await world.settlement.step()
        assert jobs_of(world.sent[0]) == ("refund", [job.terms.job_id])
        await world.mine()
        await world.settlement.step()
        assert world.states() == ["refunded"]

    simulate(scene())


@pytest.mark.parametrize("refuses", [True, False])
def test_what_is_not_mined_is_sent_again(tmp_path: Path, refuses: bool) -> None:
    async def scene() -> None:
        world = SettlementWorld(tmp_path)
        world.refuses_next = refuses
        await world.finished(1)
        await world.settlement.step()
        await world.settlement.step()
        assert len(world.sent) == 1
        await world.until(lambda: world.now_ms() >= first_ms + 10_000)
        await world.settlement.step()
        assert world.sent[0] == world.sent[1]

    first_ms = 1_700_000_000_000
    simulate(scene())


def test_a_transaction_that_lost_its_nonce_is_made_anew(tmp_path: Path) -> None:
    async def scene() -> None:
        world = SettlementWorld(tmp_path)
        first = await world.finished(1)
        await world.settlement.step()
        lost = world.sent[0]
        other = SettlementWorld(tmp_path / "other", world.market)
        await other.finished(2)
        await other.settlement.step()
        world.sent.append(other.sent[0])  # another transaction of the operator takes the nonce
        await world.mine()
        await world.settlement.step()
        await world.settlement.step()
        assert world.sent[-1] != lost
        assert jobs_of(world.sent[-1]) == ("settleBatch", [first])
        await world.mine()
        await world.settlement.step()
        assert world.states() == ["settled"]

    simulate(scene())
