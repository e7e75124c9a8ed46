"""What the chain says about a job's money and a worker's stake, read from the market's contracts.

Reads only, on the newest state; every call blocks for one EVM execution. Knows nothing of queues or streams.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from core.chain import ChainReader
from core.chain_rules import context_of
from core.contract import Artifact, ContractError
from core.errors import WarpgridError
from core.execution import CallRequest, CallResult, Executor
from core.hashing import keccak256
from core.jobs.receipt import ReceiptDomain
from core.jobs.request import Tier
from market.contracts import ESCROW_ADDRESS, JOB_ESCROW, REGISTRY_ADDRESS, WORKER_REGISTRY, EscrowStatus

__all__ = ["CallFailed", "EscrowReader", "EscrowStatus", "JobTerms", "MarketChain", "Settled", "Standing"]

_CALL_GAS = 30_000_000
_STATUS_SHIFT = 8 * (20 + 8 + 1)
"""JobEscrow.Job begins with client, deadline and tier; the status is the next byte."""


class CallFailed(WarpgridError):
    """A call that must succeed did not; `reason` is the contract's error where it gave one."""

    code = "call_failed"

    def __init__(self, what: str, reason: ContractError | None) -> None:
        super().__init__(f"{what} reverted: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class JobTerms:
    """A job as its client funded it. `worker` is zero when any may answer; times are Unix milliseconds."""

    client: bytes
    coordinator: bytes
    worker: bytes
    tier: Tier
    deadline_ms: int
    price_max_wei: int
    model_hash: bytes
    request_hash: bytes
    status: EscrowStatus


@dataclass(frozen=True, slots=True)
class Standing:
    """A worker in the registry: who signs for it, and until when (Unix seconds) its stake is at risk; 0 for never."""

    signer: bytes
    bonded_until: int


@dataclass(frozen=True, slots=True)
class Settled:
    """A batch by its number, and the Unix time in seconds from which its payments can be collected."""

    batch_id: int
    release_at_s: int


class MarketChain(Protocol):
    """The market's contracts as the coordinator sees them. Methods block."""

    @property
    def domain(self) -> ReceiptDomain:
        """Where receipts count."""

    def terms(self, job_id: bytes) -> JobTerms | None:
        """What the escrow holds for a job; None when it was never opened."""

    def standing(self, worker: bytes) -> Standing:
        """The worker's record; zeros when it never registered."""

    def settled(self, job_id: bytes) -> Settled:
        """The batch that a settled job is paid with."""

    def is_demanded(self, job_id: bytes) -> bool:
        """Whether the client of a settled job waits for its receipt to be shown."""

    def check(self, sender: bytes, data: bytes) -> int:
        """The gas that a call of the escrow would use now. Raises CallFailed when it would revert."""


class EscrowReader:
    """Implements MarketChain by calls on the head's state."""

    def __init__(self, chain: ChainReader, executor: Executor) -> None:
        self._chain = chain
        self._executor = executor
        self.domain = ReceiptDomain(chain.config.chain_id, ESCROW_ADDRESS)

    def terms(self, job_id: bytes) -> JobTerms | None:
        job = self._read(JOB_ESCROW, ESCROW_ADDRESS, "jobOf", job_id)
        client, deadline, tier, status, coordinator, _, _, worker, *rest = job
        _, _, price_max_wei, _, model_hash, asked_hash, _ = rest
        if status == EscrowStatus.UNKNOWN:
            return None
        return JobTerms(
            client=client,
            coordinator=coordinator,
            worker=worker,
            tier=Tier(tier),
            deadline_ms=deadline * 1000,
            price_max_wei=price_max_wei,
            model_hash=model_hash,
            request_hash=asked_hash,
            status=EscrowStatus(status),
        )

    def standing(self, worker: bytes) -> Standing:
        signer = self._read(WORKER_REGISTRY, REGISTRY_ADDRESS, "signerOf", worker)
        bonded_until = self._read(WORKER_REGISTRY, REGISTRY_ADDRESS, "bondedUntil", worker)
        return Standing(signer, bonded_until)

    def settled(self, job_id: bytes) -> Settled:
        _, _, _, _, _, release_at, _, _, batch_id, *_ = self._read(JOB_ESCROW, ESCROW_ADDRESS, "jobOf", job_id)
        return Settled(batch_id, release_at)

    def is_demanded(self, job_id: bytes) -> bool:
        head = self._chain.head()
        slot = int.from_bytes(keccak256(job_id + JOB_ESCROW.storage["_jobs"][0].to_bytes(32, "big")), "big")
        word = self._chain.state(head.number).storage(ESCROW_ADDRESS, slot)  # looked at for every job: no EVM call
        return word >> _STATUS_SHIFT & 0xFF == EscrowStatus.DEMANDED

    def check(self, sender: bytes, data: bytes) -> int:
        result = self._call(sender, ESCROW_ADDRESS, data)
        if not result.succeeded:
            raise CallFailed("JobEscrow", JOB_ESCROW.decode_error(result.output))
        return result.gas_used + result.gas_refunded

    def _read(self, artifact: Artifact, address: bytes, function: str, *arguments: object) -> Any:
        result = self._call(bytes(20), address, artifact.encode_call(function, *arguments))
        if not result.succeeded:
            raise CallFailed(f"{artifact.name}.{function}", artifact.decode_error(result.output))
        return artifact.decode_result(function, result.output)

    def _call(self, sender: bytes, to: bytes, data: bytes) -> CallResult:
        head = self._chain.head()
        hashes = (head.block.header.parent_hash,) if head.number else ()  # the first block has no ancestor
        context = context_of(head.block.header, self._chain.config, hashes)
        request = CallRequest(sender, to, gas_limit=_CALL_GAS, data=data)
        return self._executor.call(self._chain.state(head.number), context, request)
