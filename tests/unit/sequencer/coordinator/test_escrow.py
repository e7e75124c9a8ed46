"""What the coordinator reads straight from the escrow's storage, against what the contract says."""

from types import SimpleNamespace
from typing import Any

from market.contracts import ESCROW_ADDRESS
from sequencer.coordinator.escrow import EscrowReader, EscrowStatus
from tests.unit.market.ledger import CHAIN_ID
from tests.unit.market.scene import PARAMETERS, Scene, receipt_for
from worker.evm.reference import ReferenceExecutor


def test_a_demanded_receipt_is_seen_in_storage() -> None:
    scene = Scene()
    chain: Any = SimpleNamespace(
        config=SimpleNamespace(chain_id=CHAIN_ID),
        head=lambda: SimpleNamespace(number=1),
        state=lambda number: scene.ledger.state,
    )
    reader = EscrowReader(chain, ReferenceExecutor())
    jobs = [scene.open(nonce=nonce) for nonce in range(3)]
    batch, _ = scene.settle_batch(*[receipt_for(job) for job in jobs[:2]])
    seen: list[tuple[EscrowStatus, ...]] = []

    def compare() -> None:
        statuses = tuple(EscrowStatus(scene.ledger.read(ESCROW_ADDRESS, "jobOf", job)[3]) for job in jobs)
        assert [reader.is_demanded(job) for job in jobs] == [one == EscrowStatus.DEMANDED for one in statuses]
        seen.append(statuses)

    compare()
    scene.escrow("client", "demand", jobs[0])
    compare()
    scene.show(batch, batch.receipts[0])
    compare()
    scene.escrow("client", "demand", jobs[1])
    scene.ledger.now += PARAMETERS.settlement_seconds + 1
    compare()
    scene.escrow("client", "expire", jobs[1])
    compare()
    assert len(set(seen)) == 4, "shown, it is as it was"
    assert not reader.is_demanded(bytes(32))
