"""What travels about jobs, as frozen dataclasses: the twins of protos/warpgrid/v1/jobs.proto."""

from dataclasses import dataclass
from typing import Annotated

from core.jobs.receipt import Receipt
from core.jobs.request import OUTPUT_TOKENS_MAX, JobRequest
from protos.limits import CountMax, Hash, OptionalAddress, OptionalHash, Signature, SizeMax, Text

__all__ = [
    "AUDIT_ATTEMPT",
    "AUDIT_UNITS_MAX",
    "OPEN_ATTEMPT",
    "OUTPUT_BYTES_MAX",
    "OUTPUT_PIECE_BYTES_MAX",
    "AnswerOpened",
    "AssignJob",
    "CancelJob",
    "Inclusion",
    "JobEvent",
    "JobFailed",
    "JobFinished",
    "JobList",
    "JobOutput",
    "JobQuery",
    "JobRecord",
    "JobStarted",
    "ListJobs",
    "OpenAnswer",
    "Product",
    "ReceiptStored",
    "SignedReceipt",
    "SubmitJob",
    "UnitOpening",
]

OUTPUT_PIECE_BYTES_MAX = 16 * 1024
OUTPUT_BYTES_MAX = 1024 * 1024
AUDIT_UNITS_MAX = 64
AUDIT_ATTEMPT = 2**31
"""The attempt number of every second opinion, so that it never meets a real attempt's; that of openings is the next."""
OPEN_ATTEMPT = AUDIT_ATTEMPT + 1

# Of openings: the largest model of docs/exact-inference.md, section 2.
_LEAVES_BYTES_MAX = 32 * 1024
_RESIDUAL_BYTES_MAX = 4 * 16_384
_PRODUCT_BYTES_MAX = 5 * 262_144
_EARLIER_BYTES_MAX = 32 * 1024 * 1024
_POSITION_ROOTS_BYTES_MAX = 32 * 131_072

PROOF_NODES_MAX = 16
Tokens = Annotated[bytes, SizeMax(4 * OUTPUT_TOKENS_MAX)]


@dataclass(frozen=True, slots=True)
class SignedReceipt:
    receipt: Receipt
    signature: Signature


@dataclass(frozen=True, slots=True)
class SubmitJob:
    job_id: Hash
    request: JobRequest
    salt: Hash


@dataclass(frozen=True, slots=True)
class JobQuery:
    job_id: Hash
    salt: OptionalHash


@dataclass(frozen=True, slots=True)
class ListJobs:
    offset: int
    count_max: int


@dataclass(frozen=True, slots=True)
class JobEvent:
    index: int
    state: Text
    text: Annotated[str, SizeMax(OUTPUT_PIECE_BYTES_MAX)]
    attempt: int
    detail: Text
    receipt: SignedReceipt | None
    at_ms: int
    answer: Tokens = b""


@dataclass(frozen=True, slots=True)
class Inclusion:
    """Where a receipt is among those that were settled together: the escrow's number of the batch, the place in it, and
    the siblings from the receipt's leaf up to the batch's root."""

    batch_id: int
    index: int
    proof: Annotated[tuple[Hash, ...], CountMax(PROOF_NODES_MAX)]


@dataclass(frozen=True, slots=True)
class JobRecord:
    job_id: Hash
    state: Text
    attempt: int
    worker: OptionalAddress
    detail: Text
    request: JobRequest | None
    output: Annotated[str, SizeMax(OUTPUT_BYTES_MAX)] | None
    receipt: SignedReceipt | None
    settlement: OptionalHash
    audit: Text
    submitted_at_ms: int
    deadline_ms: int
    answer: Tokens = b""
    inclusion: Inclusion | None = None


@dataclass(frozen=True, slots=True)
class JobList:
    jobs: Annotated[tuple[JobRecord, ...], CountMax(256)]


@dataclass(frozen=True, slots=True)
class AssignJob:
    job_id: Hash
    attempt: int
    request: JobRequest
    salt: Hash
    model_hash: Hash
    deadline_ms: int
    input_token_wei: int
    output_token_wei: int
    price_max_wei: int
    audit: bool
    expected: Tokens = b""


@dataclass(frozen=True, slots=True)
class CancelJob:
    job_id: Hash
    attempt: int
    reason: Text


@dataclass(frozen=True, slots=True)
class JobStarted:
    job_id: Hash
    attempt: int


@dataclass(frozen=True, slots=True)
class JobOutput:
    job_id: Hash
    attempt: int
    index: int
    text: Annotated[str, SizeMax(OUTPUT_PIECE_BYTES_MAX)]


@dataclass(frozen=True, slots=True)
class JobFinished:
    job_id: Hash
    attempt: int
    output: Annotated[str, SizeMax(OUTPUT_BYTES_MAX)]
    signed: SignedReceipt
    answer: Tokens = b""


@dataclass(frozen=True, slots=True)
class JobFailed:
    job_id: Hash
    attempt: int
    code: Text
    detail: Text


@dataclass(frozen=True, slots=True)
class OpenAnswer:
    version: int
    job_id: Hash
    request: JobRequest
    salt: Hash
    model_hash: Hash
    answer: Tokens
    units: Annotated[bytes, SizeMax(8 * AUDIT_UNITS_MAX)]
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class Product:
    name: Text
    value_bytes: int
    values: Annotated[bytes, SizeMax(_PRODUCT_BYTES_MAX)]


@dataclass(frozen=True, slots=True)
class UnitOpening:
    leaves: Annotated[bytes, SizeMax(_LEAVES_BYTES_MAX)]
    residual: Annotated[bytes, SizeMax(_RESIDUAL_BYTES_MAX)]
    earlier: Annotated[bytes, SizeMax(_EARLIER_BYTES_MAX)]
    paths: Annotated[bytes, SizeMax(_EARLIER_BYTES_MAX)]
    products: Annotated[tuple[Product, ...], CountMax(4)]


@dataclass(frozen=True, slots=True)
class AnswerOpened:
    version: int
    job_id: Hash
    position_roots: Annotated[bytes, SizeMax(_POSITION_ROOTS_BYTES_MAX)]
    openings: Annotated[tuple[UnitOpening, ...], CountMax(AUDIT_UNITS_MAX)]


@dataclass(frozen=True, slots=True)
class ReceiptStored:
    job_id: Hash
    attempt: int
