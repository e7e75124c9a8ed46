"""What settled receipts cost on chain: bytes of calldata and logs, and gas, by batch and one by one.

    python -m tests.bench.settlement

Runs the contracts, and checks that everybody has what is due in the end. Beside what the orders took before, on which
the answer's length has no influence either.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from core.jobs.receipt import Receipt, sign_receipt
from core.jobs.request import Tier
from core.receipts import Log
from market.batches import BATCH_RECEIPTS_MAX, Batch
from market.contracts import ESCROW_ADDRESS, JOB_ESCROW, SETTLE_RECEIPTS_MAX
from tests.unit.market.ledger import address_of, key_of
from tests.unit.market.scene import ACCOUNTS, DOMAIN, PARAMETERS, Scene, receipt_for

__all__ = ["main"]

SIZES = (1, 16, BATCH_RECEIPTS_MAX)
TOKENS = (64, 256, 512)
CLIENTS_MAX = 16
WORKERS = ("worker", "second worker")
RESULTS = Path(__file__).parent / "results"


class Meter:
    """Calls the escrow, and counts."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.calldata_bytes = self.log_bytes = self.gas = self.calls = 0

    def send(self, sender: str, function: str, *arguments: object) -> None:
        seen = len(self._scene.ledger.logs)
        sent = self._scene.escrow(sender, function, *arguments)
        self.calldata_bytes += len(JOB_ESCROW.encode_call(function, *arguments))
        self.log_bytes += sum(bytes_of(log) for log in self._scene.ledger.logs[seen:])
        self.gas += sent.gas_used
        self.calls += 1


def bytes_of(log: Log) -> int:
    """Address, topics and data."""
    return 20 + 32 * len(log.topics) + len(log.data)


def main() -> None:
    """Measure, check, print and record."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    columns = f"{'way':10} {'receipts':>8} {'calls':>5} {'calldata':>9} {'logs':>7} {'gas':>8}"
    print(f"{columns} a receipt; bytes a token of answers of {TOKENS}")  # noqa: T201
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "settlement.jsonl").open("a") as results:
        for name, way in (("one by one", one_by_one), ("batch", by_batch)):
            for size in SIZES:
                meter = measure(way, size)
                each = (meter.calldata_bytes + meter.log_bytes) / size
                tokens = "  ".join(f"{each / count:6.2f}" for count in TOKENS)
                print(  # noqa: T201
                    f"{name:10} {size:8} {meter.calls:5} {meter.calldata_bytes / size:9.1f}"
                    f" {meter.log_bytes / size:7.1f} {meter.gas / size:8,.0f}            {tokens}"
                )
                record = {"commit": commit.stdout.strip(), "way": name, "receipts": size, "gas": meter.gas}
                record |= {"calldata_bytes": meter.calldata_bytes, "log_bytes": meter.log_bytes}
                results.write(json.dumps(record) + "\n")


def measure(way: Callable[[Scene, Meter, list[Receipt], list[str]], None], size: int) -> Meter:
    """Settle and pay `size` receipts of two workers and at most CLIENTS_MAX clients."""
    clients = [f"client {number}" for number in range(min(size, CLIENTS_MAX))]
    scene = Scene(accounts=(*ACCOUNTS, *clients))
    receipts = []
    for number in range(size):
        client, worker = clients[number % len(clients)], WORKERS[number % len(WORKERS)]
        job = scene.open(client, nonce=number, tier=Tier.EXACT)
        receipts.append(receipt_for(job, worker, tier=Tier.EXACT, trace_root=bytes([1 + number % 255]) * 32))
    meter = Meter(scene)
    way(scene, meter, receipts, [*WORKERS, *clients])
    earned = sum(scene.credit(worker) for worker in WORKERS)
    returned = sum(scene.credit(client) for client in clients)
    assert earned == sum(one.total_wei for one in receipts), "every worker is paid"
    assert earned + returned == 10_000 * size == scene.ledger.balance(ESCROW_ADDRESS), "every client has the rest"
    return meter


def by_batch(scene: Scene, meter: Meter, receipts: list[Receipt], owners: list[str]) -> None:
    """As the coordinator does: the root and the payments, then one collection."""
    batch = Batch.of(DOMAIN, receipts)
    meter.send("coordinator", "settleBatch", int(batch.tier), batch.root, batch.payments)
    scene.ledger.now += PARAMETERS.exact_challenge_seconds
    meter.send("coordinator", "collect", 0, [address_of(owner) for owner in owners])


def one_by_one(scene: Scene, meter: Meter, receipts: list[Receipt], owners: list[str]) -> None:
    """Every receipt on chain, as a client that coordinates its own jobs does."""
    for start in range(0, len(receipts), SETTLE_RECEIPTS_MAX):
        some = receipts[start : start + SETTLE_RECEIPTS_MAX]
        signers = [key_of(f"{WORKERS[number % len(WORKERS)]} signer") for number in range(len(some))]
        signatures = [sign_receipt(one, DOMAIN, signer) for one, signer in zip(some, signers, strict=True)]
        meter.send("coordinator", "settle", [one.solidity() for one in some], signatures)
    scene.ledger.now += PARAMETERS.exact_challenge_seconds
    for start in range(0, len(receipts), SETTLE_RECEIPTS_MAX):
        meter.send("coordinator", "release", [one.job_id for one in receipts[start : start + SETTLE_RECEIPTS_MAX]])


if __name__ == "__main__":
    main()
