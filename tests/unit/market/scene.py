"""A market with its contracts in place, a bonded worker, and short ways to say what the tests are about."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from core.contract import Artifact
from core.jobs.receipt import Receipt, ReceiptDomain, sign_receipt
from core.jobs.request import Tier
from core.memory_state import AccountContents
from market.batches import Batch
from market.contracts import (
    ESCROW_ADDRESS,
    JOB_ESCROW,
    REGISTRY_ADDRESS,
    WORKER_REGISTRY,
    MarketParameters,
    predeploys,
)
from tests.unit.market.bindings import signed_binding
from tests.unit.market.ledger import CHAIN_ID, ETHER, GENESIS_TIME, Ledger, Sent, address_of, key_of
from worker.evm.reference import ReferenceExecutor

PARAMETERS = MarketParameters(
    arbiter=address_of("arbiter"),
    stake_min_wei=ETHER,
    challenge_seconds=60,
    exact_challenge_seconds=60,
    settlement_seconds=600,
    unbonding_seconds=3600,
    penalty_multiple=10,
)
DOMAIN = ReceiptDomain(CHAIN_ID, ESCROW_ADDRESS)
MODEL = b"\x11" * 32
REQUEST = b"\x22" * 32
ATTACKER_ADDRESS = b"\xaa" * 20
FUNDED_WEI = 1000 * ETHER
ACCOUNTS = ("client", "other client", "coordinator", "worker", "second worker", "finder", "arbiter")


@dataclass(frozen=True)
class Order:
    """The escrow's Order; the field order is the struct's."""

    coordinator: bytes = field(default_factory=lambda: address_of("coordinator"))
    worker: bytes = bytes(20)
    tier: int = Tier.FLOAT
    deadline: int = GENESIS_TIME + 100
    price_max_wei: int = 10_000
    model_hash: bytes = MODEL
    request_hash: bytes = REQUEST
    nonce: int = 1

    def solidity(self) -> tuple[object, ...]:
        return (
            self.coordinator,
            self.worker,
            int(self.tier),
            self.deadline,
            self.price_max_wei,
            self.model_hash,
            self.request_hash,
            self.nonce,
        )


def receipt_for(job_id: bytes, worker: str = "worker", **changes: object) -> Receipt:
    """A receipt of 10 input tokens at 3 wei and 20 output tokens at 7 wei: 170 wei."""
    base = Receipt(
        job_id=job_id,
        worker=address_of(worker),
        tier=Tier.FLOAT,
        model_hash=MODEL,
        request_hash=REQUEST,
        output_hash=b"\x33" * 32,
        trace_root=bytes(32),
        input_tokens=10,
        output_tokens=20,
        started_at_ms=GENESIS_TIME * 1000 + 1,
        finished_at_ms=GENESIS_TIME * 1000 + 900,
        input_token_wei=3,
        output_token_wei=7,
        total_wei=170,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def binding_of(worker: str, signer: str) -> bytes:
    """The signer's proof for WorkerRegistry."""
    return signed_binding(address_of(worker), key_of(signer).secret, CHAIN_ID)


def identity_of(worker: str, endpoint: str = "grpc://127.0.0.1:7000") -> tuple[object, ...]:
    return (address_of(worker + " signer"), b"\x44" * 32, b"\x55" * 32, endpoint)


class Scene:
    """A fresh chain with both contracts and funded accounts; `worker` and `second worker` are bonded."""

    def __init__(
        self,
        parameters: MarketParameters = PARAMETERS,
        attacker: Artifact | None = None,
        accounts: Sequence[str] = ACCOUNTS,
    ) -> None:
        """An `attacker` contract, if there is one, stands at ATTACKER_ADDRESS; `accounts` have money."""
        artifacts = {REGISTRY_ADDRESS: WORKER_REGISTRY, ESCROW_ADDRESS: JOB_ESCROW}
        contents = {address_of(name): AccountContents(balance=FUNDED_WEI) for name in accounts}
        for address, predeploy in predeploys(parameters).items():
            contents[address] = AccountContents(1, predeploy.balance_wei, predeploy.code, predeploy.storage)
        if attacker:
            artifacts[ATTACKER_ADDRESS] = attacker
            contents[ATTACKER_ADDRESS] = AccountContents(1, code=attacker.deployed_code)
        self.ledger = Ledger(ReferenceExecutor(), contents, artifacts)
        self.register("worker")
        self.register("second worker")

    def registry(self, sender: str, function: str, *arguments: object, value: int = 0) -> Sent:
        return self.ledger.send(address_of(sender), REGISTRY_ADDRESS, function, *arguments, value=value)

    def escrow(self, sender: str, function: str, *arguments: object, value: int = 0) -> Sent:
        return self.ledger.send(address_of(sender), ESCROW_ADDRESS, function, *arguments, value=value)

    def register(self, worker: str, stake_wei: int = 2 * ETHER) -> Sent:
        binding = binding_of(worker, worker + " signer")
        return self.registry(worker, "register", identity_of(worker), binding, value=stake_wei)

    def open(self, client: str = "client", **changes: object) -> bytes:
        """Open and fund a job; its id."""
        order = Order(**changes)  # type: ignore[arg-type]
        job_id: bytes = self.escrow(client, "open", order.solidity(), value=order.price_max_wei).result
        return job_id

    def settle(self, *receipts: Receipt, signer: str = "worker signer", sender: str = "coordinator") -> Sent:
        """Settle a batch of receipts that all have the same signer."""
        signatures = [sign_receipt(receipt, DOMAIN, key_of(signer)) for receipt in receipts]
        return self.escrow(sender, "settle", [receipt.solidity() for receipt in receipts], signatures)

    def settle_batch(self, *receipts: Receipt, sender: str = "coordinator") -> tuple[Batch, int]:
        """Settle receipts by their root; the batch, and its number."""
        batch = Batch.of(DOMAIN, receipts)
        sent = self.escrow(sender, "settleBatch", int(batch.tier), batch.root, batch.payments)
        return batch, sent.result

    def show(self, batch: Batch, receipt: Receipt, sender: str = "finder", signer: str = "worker signer") -> Sent:
        """Show a receipt of a settled batch."""
        signature = sign_receipt(receipt, DOMAIN, key_of(signer))
        proof = batch.inclusion(0, receipt.job_id).proof
        return self.escrow(sender, "show", receipt.solidity(), signature, list(proof))

    def status(self, job_id: bytes) -> str:
        number = self.ledger.read(ESCROW_ADDRESS, "jobOf", job_id)[3]
        return ("unknown", "funded", "settling", "paid", "refunded", "expired", "rejected", "demanded")[number]

    def credit(self, name: str, contract: bytes = ESCROW_ADDRESS) -> int:
        return self.ledger.variable(contract, "creditWei", address_of(name))
