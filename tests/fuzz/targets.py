"""The decoders that strangers' bytes reach, as functions of bytes: each returns, or raises what it promises to.

Whatever is accepted must encode to the same bytes again where the format is canonical, so that no two byte strings mean
one thing. Every target comes with seeds: well-formed inputs from which a fuzzer begins.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core import rlp
from core.block import Block, decode_block, decode_header, encode_block, encode_header
from core.columns import Columns
from core.errors import InvalidInput
from core.genesis import Genesis, dev_genesis
from core.jobs.request import JobRequest, Message, Role
from core.receipts import ReceiptColumns
from core.state import StateDifference
from core.transaction import (
    AccessListEntry,
    Transaction,
    TransactionColumns,
    TransactionType,
    decode_transaction,
    encode_transaction,
)
from protos.errors import ProtocolError
from protos.job_messages import SubmitJob
from protos.messages import GetBlocks, Goodbye
from protos.rpc import decode, encode, sequencer_reader, worker_reader, worker_writer

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """`check` takes any bytes; what it raises is a finding."""

    check: Callable[[bytes], None]
    seeds: Sequence[bytes]


def _transactions() -> list[Transaction]:
    made = []
    for kind in (TransactionType.LEGACY, TransactionType.ACCESS_LIST, TransactionType.FEE_MARKET):
        access = () if kind == TransactionType.LEGACY else (AccessListEntry(b"\x07" * 20, (b"\x08" * 32,)),)
        made.append(
            Transaction(
                type=kind,
                chain_id=31_337,
                nonce=300,
                gas_limit=100_000,
                max_fee_per_gas=10**9,
                max_priority_fee_per_gas=10**9,
                to=b"\x09" * 20,
                value=10**18,
                data=b"\x0a" * 60,
                y_parity=1,
                r=2**200 + 1,
                s=2**199 + 1,
                access_list=access,
            )
        )
    return made


def _block() -> Block:
    funded = {b"\x01" * 20: 10**18}
    header = Genesis.from_geth(dev_genesis(31_337, funded, {}, timestamp=1_700_000_000)).block.block.header
    transactions = TransactionColumns.from_transactions(_transactions(), [b"\x02" * 20] * 3)
    return Block(header, transactions, (), ())


def _frames() -> bytes:
    """Two frames, each with its length before it in two bytes."""
    writer = worker_writer()
    raw = [frame for message in (GetBlocks(1, 2, 3), Goodbye("enough")) for frame in writer.frames(message)]
    return b"".join(len(frame).to_bytes(2, "big") + frame for frame in raw)


def _exact(read: Callable[[bytes], Any], write: Callable[[Any], bytes]) -> Callable[[bytes], None]:
    """A canonical format: what is accepted is written as it came."""

    def check(raw: bytes) -> None:
        try:
            value = read(raw)
        except (InvalidInput, ProtocolError):
            return
        assert write(value) == raw, "two encodings of one value are accepted"

    return check


def _columns(kind: type[Columns]) -> Callable[[bytes], None]:
    return _exact(kind.from_bytes, lambda table: table.to_bytes())


def _message(raw: bytes) -> None:
    """Protobuf is not canonical: what is accepted must mean the same after a round trip."""
    try:
        message = decode(SubmitJob, raw)
    except (InvalidInput, ProtocolError):
        return
    assert decode(SubmitJob, encode(message)) == message


def _stream(raw: bytes) -> None:
    """The input is a row of frames; a reader takes them until it refuses one."""
    for reader in (worker_reader(1 << 20), sequencer_reader(1 << 20)):
        position = 0
        try:
            while position + 2 <= len(raw):
                size = int.from_bytes(raw[position : position + 2], "big")
                reader.read(raw[position + 2 : position + 2 + size])
                position += 2 + size
        except (InvalidInput, ProtocolError):
            continue


_BLOCK = _block()
_JOB = SubmitJob(b"\x01" * 32, JobRequest("smollm2", (Message(Role.USER, "Hello?"),)), b"\x02" * 32)

TARGETS: Mapping[str, Target] = {
    "rlp": Target(_exact(rlp.decode, rlp.encode), [encode_block(_BLOCK)]),
    "transaction": Target(
        _exact(decode_transaction, encode_transaction), [encode_transaction(one) for one in _transactions()]
    ),
    "header": Target(_exact(decode_header, encode_header), [encode_header(_BLOCK.header)]),
    "block": Target(_exact(decode_block, encode_block), [encode_block(_BLOCK)]),
    "transaction_columns": Target(_columns(TransactionColumns), [_BLOCK.transactions.to_bytes()]),
    "receipt_columns": Target(_columns(ReceiptColumns), [ReceiptColumns.empty().to_bytes()]),
    "state_difference": Target(_columns(StateDifference), [StateDifference.empty().to_bytes()]),
    "message": Target(_message, [encode(_JOB)]),
    "stream": Target(_stream, [_frames()]),
}
