"""What travels between nodes, as frozen dataclasses: the form that everything but the codec sees.

Each class mirrors the message of the same name in protos/warpgrid/v1 field by field; units and meanings stand there.
Limits that a peer must keep are part of the type (`protos.limits`). Those about jobs stand in `protos.job_messages`.
Knows nothing of protobuf, gRPC or who handles what.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from core.block import Header
from core.chain_rules import Commitments
from core.execution import BlockContext, ExecutionOutcome, Rejection, Withdrawal
from core.fork import Fork
from core.receipts import ReceiptColumns
from core.state import StateDifference
from core.transaction import TransactionColumns
from protos.errors import MalformedMessage
from protos.job_messages import (
    AnswerOpened,
    AssignJob,
    CancelJob,
    JobFailed,
    JobFinished,
    JobOutput,
    JobStarted,
    OpenAnswer,
    ReceiptStored,
)
from protos.limits import TEXT_BYTES_MAX, Address, CountMax, Hash, Signature, SizeMax, Text

__all__ = [
    "BLOCKS_MAX",
    "PROTOCOL_VERSION",
    "AnnounceBlock",
    "BlockAnswer",
    "BlockBody",
    "BlockEnvironment",
    "BlockFinding",
    "BlockReference",
    "BlockRefusal",
    "Blocks",
    "Capabilities",
    "Certificate",
    "Challenge",
    "DescribeRequest",
    "Description",
    "EnrolRequest",
    "ExecuteBlock",
    "Failure",
    "FindingKept",
    "GetBlocks",
    "Goodbye",
    "Gpu",
    "Heartbeat",
    "Hello",
    "Model",
    "Register",
    "Registered",
    "SequencerMessage",
    "SignedFinding",
    "SnapshotBase",
    "SnapshotRequest",
    "SnapshotState",
    "WorkerMessage",
]

PROTOCOL_VERSION = 1

BLOCKS_MAX = 256
WITHDRAWALS_MAX = 16


@dataclass(frozen=True, slots=True)
class BlockReference:
    number: int
    hash: Hash


@dataclass(frozen=True, slots=True)
class BlockEnvironment:
    fork: Fork
    chain_id: int
    number: int
    timestamp: int
    gas_limit: int
    coinbase: Address
    base_fee_per_gas: int
    prev_randao: Hash
    difficulty: int
    excess_blob_gas: int
    parent_beacon_block_root: Hash
    withdrawals: Annotated[tuple[Withdrawal, ...], CountMax(WITHDRAWALS_MAX)]

    @classmethod
    def of(cls, context: BlockContext) -> "BlockEnvironment":
        """What of a context travels."""
        return cls(
            fork=context.fork,
            chain_id=context.chain_id,
            number=context.number,
            timestamp=context.timestamp,
            gas_limit=context.gas_limit,
            coinbase=context.coinbase,
            base_fee_per_gas=context.base_fee_per_gas,
            prev_randao=context.prev_randao,
            difficulty=context.difficulty,
            excess_blob_gas=context.excess_blob_gas,
            parent_beacon_block_root=context.parent_beacon_block_root,
            withdrawals=context.withdrawals,
        )

    def context(self, block_hashes: tuple[bytes, ...]) -> BlockContext:
        """The context, with the ancestors' hashes that the receiver knows itself."""
        return BlockContext(
            fork=self.fork,
            chain_id=self.chain_id,
            number=self.number,
            timestamp=self.timestamp,
            gas_limit=self.gas_limit,
            coinbase=self.coinbase,
            base_fee_per_gas=self.base_fee_per_gas,
            prev_randao=self.prev_randao,
            difficulty=self.difficulty,
            excess_blob_gas=self.excess_blob_gas,
            parent_beacon_block_root=self.parent_beacon_block_root,
            block_hashes=block_hashes,
            withdrawals=self.withdrawals,
        )


@dataclass(frozen=True, slots=True)
class ExecuteBlock:
    proposal_id: int
    parent_hash: Hash
    environment: BlockEnvironment
    transactions: TransactionColumns
    wants_body: bool


@dataclass(frozen=True, slots=True)
class BlockBody:
    """`included` is u32, ascending, little-endian bytes."""

    included: bytes
    rejections: tuple[Rejection, ...]
    receipts: ReceiptColumns
    difference: StateDifference
    requests: tuple[bytes, ...]
    gas_used: int
    blob_gas_used: int

    @classmethod
    def of(cls, outcome: ExecutionOutcome) -> "BlockBody":
        return cls(
            included=np.asarray(outcome.included, "<u4").tobytes(),
            rejections=tuple(
                Rejection(one.index, one.reason, one.detail[: TEXT_BYTES_MAX // 4]) for one in outcome.rejections
            ),
            receipts=outcome.receipts,
            difference=outcome.difference,
            requests=outcome.requests,
            gas_used=outcome.gas_used,
            blob_gas_used=outcome.blob_gas_used,
        )

    def outcome(self, proposed: int) -> ExecutionOutcome:
        """The outcome it stands for, of a block with `proposed` transactions.

        Raises MalformedMessage when `included` and the rejections are not a partition of the proposed rows, or the
        receipts do not fit the included ones.
        """
        if len(self.included) % 4:
            raise MalformedMessage("BlockBody.included is not a whole number of u32")
        included = np.frombuffer(self.included, "<u4")
        rejected = np.fromiter((one.index for one in self.rejections), "<u8")
        seen = np.zeros(proposed, np.bool_)
        is_partition = len(included) + len(rejected) == proposed and bool(np.all(included[1:] > included[:-1]))
        if is_partition and proposed:
            is_partition = max(included.max(initial=0), rejected.max(initial=0)) < proposed
        if is_partition:
            seen[included] = True
            seen[rejected] = True
        if not is_partition or not seen.all():
            raise MalformedMessage(f"BlockBody: included and rejected rows are not the {proposed} that were proposed")
        if len(self.receipts) != len(included):
            raise MalformedMessage(f"BlockBody: {len(self.receipts)} receipts for {len(included)} transactions")
        return ExecutionOutcome(
            included, self.rejections, self.receipts, self.difference, self.gas_used, self.blob_gas_used, self.requests
        )


@dataclass(frozen=True, slots=True)
class BlockAnswer:
    proposal_id: int
    commitments: Commitments
    body: BlockBody | None
    execution_us: int


@dataclass(frozen=True, slots=True)
class BlockRefusal:
    proposal_id: int
    code: Text
    detail: Text
    head: BlockReference


@dataclass(frozen=True, slots=True)
class BlockFinding:
    block: BlockReference
    reason: Text
    commitments: Commitments | None
    executor: Text


@dataclass(frozen=True, slots=True)
class SignedFinding:
    finding: BlockFinding
    signature: Signature


@dataclass(frozen=True, slots=True)
class FindingKept:
    block: BlockReference


@dataclass(frozen=True, slots=True)
class AnnounceBlock:
    hash: Hash
    header: Header


@dataclass(frozen=True, slots=True)
class GetBlocks:
    request_id: int
    first: int
    count_max: int


@dataclass(frozen=True, slots=True)
class Blocks:
    """`blocks` are encoded (core.block.encode_block): whoever receives them decodes them away from the event loop."""

    request_id: int
    blocks: Annotated[tuple[bytes, ...], CountMax(BLOCKS_MAX)]
    head: BlockReference


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """Asks for the newest block with its state."""


@dataclass(frozen=True, slots=True)
class SnapshotBase:
    """`block` is encoded, for the same reason as in `Blocks`."""

    block: bytes
    receipts: ReceiptColumns
    headers: Annotated[tuple[Header, ...], CountMax(BLOCKS_MAX)]


@dataclass(frozen=True, slots=True)
class SnapshotState:
    difference: StateDifference
    last: bool


@dataclass(frozen=True, slots=True)
class DescribeRequest:
    """Asks nothing in particular."""


@dataclass(frozen=True, slots=True)
class Description:
    chain_id: int
    genesis_hash: Hash
    head: BlockReference
    at_ms: int
    attach_port: int
    workers: int
    first_block: int


@dataclass(frozen=True, slots=True)
class EnrolRequest:
    address: Address
    signing_request: Annotated[bytes, SizeMax(4 * 1024)]
    signature: Signature


@dataclass(frozen=True, slots=True)
class Certificate:
    pem: Annotated[bytes, SizeMax(16 * 1024)]
    attach_port: int


@dataclass(frozen=True, slots=True)
class Hello:
    protocol: int
    chain_id: int
    genesis_hash: Hash
    address: Address


@dataclass(frozen=True, slots=True)
class Challenge:
    nonce: Hash
    head: BlockReference


@dataclass(frozen=True, slots=True)
class Gpu:
    name: Text
    uuid: Text
    memory_bytes: int
    compute_capability: int
    driver: Text


@dataclass(frozen=True, slots=True)
class Model:
    name: Text
    model_hash: Hash
    tier: int
    input_token_wei: int
    output_token_wei: int
    context_tokens_max: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    software: Text
    duties: Annotated[tuple[Text, ...], CountMax(16)]
    executor: Text
    cpu_model: Text
    cpu_cores: int
    memory_bytes: int
    disk_free_bytes: int
    gpus: Annotated[tuple[Gpu, ...], CountMax(64)]
    models: Annotated[tuple[Model, ...], CountMax(256)]
    job_slots: int


@dataclass(frozen=True, slots=True)
class Register:
    capabilities: Capabilities
    signature: Signature


@dataclass(frozen=True, slots=True)
class Registered:
    session: int
    heartbeat_interval_ms: int
    head: BlockReference


@dataclass(frozen=True, slots=True)
class Heartbeat:
    at_ms: int
    head: BlockReference
    jobs_running: int


@dataclass(frozen=True, slots=True)
class Goodbye:
    reason: Text


@dataclass(frozen=True, slots=True)
class Failure:
    code: Text
    detail: Text


WorkerMessage = (
    Hello
    | Register
    | Heartbeat
    | BlockAnswer
    | BlockRefusal
    | GetBlocks
    | JobStarted
    | JobOutput
    | JobFinished
    | JobFailed
    | AnswerOpened
    | Goodbye
    | Failure
    | SignedFinding
)
SequencerMessage = (
    Challenge
    | Registered
    | Heartbeat
    | ExecuteBlock
    | AnnounceBlock
    | Blocks
    | AssignJob
    | CancelJob
    | ReceiptStored
    | OpenAnswer
    | Goodbye
    | Failure
    | SnapshotBase
    | SnapshotState
    | FindingKept
)
