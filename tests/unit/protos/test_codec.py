"""Messages to bytes and back, their limits, and frames: numbered, chunked, bounded."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.chain_rules import Commitments, next_context
from core.execution import ExecutionOutcome, Rejection, RejectionReason
from core.receipts import Log, ReceiptColumns
from core.state import Account, AccountChange, StateDifference
from protos import rpc
from protos.errors import MalformedMessage, MessageTooLarge, ProtocolError, SequenceBroken
from protos.gen.warpgrid.v1 import jobs_pb2, network_pb2
from protos.job_messages import AssignJob, JobEvent, JobOutput, OpenAnswer, SubmitJob
from protos.messages import (
    AnnounceBlock,
    BlockAnswer,
    BlockBody,
    BlockEnvironment,
    BlockReference,
    Blocks,
    ExecuteBlock,
    Failure,
    Heartbeat,
    Hello,
    SequencerMessage,
    WorkerMessage,
)
from tests.sim.network.world import genesis, transfers
from tests.unit.protos.strategies import job_requests, worker_messages
from tests.unit.sequencer.fakes import Wallet

HASH = b"\x11" * 32
_MESSAGES = (*get_args(WorkerMessage), *get_args(SequencerMessage))


def through(writer: rpc.FrameWriter[Any], reader: rpc.FrameReader[Any], message: Any) -> Any:
    *begin, last = writer.frames(message)
    for frame in begin:
        assert len(frame) <= rpc.FRAME_BYTES_MAX
        assert reader.read(frame) is None
    return reader.read(last)


def read_all(reader: rpc.FrameReader[Any], frames: Iterable[bytes]) -> list[Any]:
    return [reader.read(frame) for frame in frames]


def outcome() -> ExecutionOutcome:
    log = Log(b"\x01" * 20, (HASH,), b"data")
    return ExecutionOutcome(
        np.array([0, 2], "<u4"),
        (Rejection(1, RejectionReason.NONCE_TOO_LOW, "nonce 0, expected 1"),),
        ReceiptColumns.from_rows([(2, True, 21_000, (log,)), (2, False, 30_000, ())]),
        StateDifference.from_changes({b"\x02" * 20: AccountChange(Account(1, 2**200), {1: 2**255})}),
        51_000,
        0,
        (b"\x00request",),
    )


def block_messages() -> list[Any]:
    first = genesis()
    header = first.block.block.header
    context = next_context(header, first.config, [first.block.hash], timestamp=header.timestamp, coinbase=b"\x0c" * 20)
    environment = BlockEnvironment.of(context)
    assert environment.context((first.block.hash,)) == context
    commitments = Commitments(HASH, HASH, HASH, bytes(256), 21_000, HASH, None, HASH)
    return [
        ExecuteBlock(7, first.block.hash, environment, transfers(Wallet(0), [0, 1]), True),
        AnnounceBlock(first.block.hash, header),
        Blocks(1, (b"block", b""), BlockReference(3, HASH)),
        BlockAnswer(7, commitments, BlockBody.of(outcome()), 1234),
        BlockAnswer(7, commitments, None, 0),
    ]


@pytest.mark.parametrize("message", block_messages(), ids=lambda one: type(one).__name__)
def test_block_messages_arrive_as_they_were_sent(message: Any) -> None:
    if isinstance(message, get_args(WorkerMessage)):
        assert through(rpc.worker_writer(), rpc.worker_reader(), message) == message
    else:
        assert through(rpc.sequencer_writer(), rpc.sequencer_reader(), message) == message


@settings(max_examples=25, deadline=None)
@given(st.lists(worker_messages, min_size=1, max_size=5))
def test_any_messages_arrive_in_order(messages: list[Any]) -> None:
    writer, reader = rpc.worker_writer(), rpc.worker_reader()
    assert [through(writer, reader, message) for message in messages] == messages


@settings(max_examples=40, deadline=None)
@given(job_requests)
def test_requests_arrive_as_they_were_sent(request: Any) -> None:
    submit = SubmitJob(HASH, request, HASH)
    assert rpc.decode(SubmitJob, rpc.encode(submit)) == submit
    assign = AssignJob(HASH, 1, request, HASH, HASH, 9, 2**127, 0, 1, False, bytes(8))
    assert through(rpc.sequencer_writer(), rpc.sequencer_reader(), assign) == assign
    challenge = OpenAnswer(1, HASH, request, HASH, HASH, bytes(12), bytes(16), 9)
    assert through(rpc.sequencer_writer(), rpc.sequencer_reader(), challenge) == challenge


@pytest.mark.parametrize("size", [rpc.FRAME_BYTES_MAX, 3 * rpc.FRAME_BYTES_MAX + 17])
def test_a_large_message_travels_in_chunks(size: int) -> None:
    message = Blocks(1, (bytes(size),), BlockReference(0, HASH))
    writer, reader = rpc.sequencer_writer(), rpc.sequencer_reader()
    assert len(list(rpc.sequencer_writer().frames(message))) == size // rpc.FRAME_BYTES_MAX + 1
    assert through(writer, reader, message) == message
    assert through(writer, reader, Failure("a", "b")) == Failure("a", "b")


def test_what_is_too_large_is_refused_on_both_sides() -> None:
    message = Blocks(1, (bytes(3 * rpc.FRAME_BYTES_MAX),), BlockReference(0, HASH))
    reader = rpc.sequencer_reader(message_bytes_max=2 * rpc.FRAME_BYTES_MAX)
    with pytest.raises(MessageTooLarge):
        read_all(reader, rpc.sequencer_writer().frames(message))
    with pytest.raises(MessageTooLarge):
        rpc.worker_reader().read(bytes(rpc.FRAME_BYTES_MAX + 1))
    huge = Blocks(1, (bytes(rpc.MESSAGE_BYTES_MAX),), BlockReference(0, HASH))
    with pytest.raises(MessageTooLarge):
        next(rpc.sequencer_writer().frames(huge))


def test_a_repeated_missing_or_reordered_message_breaks_the_stream() -> None:
    writer = rpc.worker_writer()
    one, two, three = (next(writer.frames(Failure("x", str(number)))) for number in range(3))
    for order in ([one, one], [two], [one, three]):
        reader = rpc.worker_reader()
        with pytest.raises(SequenceBroken):
            read_all(reader, order)


def test_chunks_are_not_interrupted_nor_nested() -> None:
    def frame(number: int, **body: Any) -> bytes:
        return bytes(network_pb2.WorkerMessage(sequence=number, **body).SerializeToString())

    part = network_pb2.Chunk(data=b"x", last=False)
    reader = rpc.worker_reader()
    reader.read(frame(1, chunk=part))
    with pytest.raises(MalformedMessage, match="between the chunks"):
        reader.read(frame(2, goodbye=network_pb2.Goodbye()))
    with pytest.raises(MalformedMessage, match="empty chunk"):
        rpc.worker_reader().read(frame(1, chunk=network_pb2.Chunk()))
    nested = network_pb2.WorkerMessage(chunk=part).SerializeToString()
    with pytest.raises(MalformedMessage, match="without a body"):
        rpc.worker_reader().read(frame(1, chunk=network_pb2.Chunk(data=nested, last=True)))
    with pytest.raises(MalformedMessage, match="without a body"):
        rpc.worker_reader().read(frame(1))


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (Hello(1, 1, b"short", bytes(20)), "Hello.genesis_hash"),
        (Hello(1, 1, HASH, bytes(21)), "Hello.address"),
        (JobOutput(HASH, 1, 0, "x" * 20_000), "JobOutput.text"),
        (Failure("x" * 2000, ""), "Failure.code"),
        (Heartbeat(0, BlockReference(0, b""), 0), "BlockReference.hash"),
    ],
)
def test_a_field_out_of_its_limits_is_named(message: Any, field: str) -> None:
    with pytest.raises(MalformedMessage, match=field):
        through(rpc.worker_writer(), rpc.worker_reader(), message)


def test_a_missing_part_is_named() -> None:
    raw = network_pb2.Heartbeat(at_ms=1).SerializeToString()
    with pytest.raises(MalformedMessage, match=r"Heartbeat\.head is missing"):
        rpc.decode(Heartbeat, raw)
    with pytest.raises(MalformedMessage, match=r"SubmitJob\.request is missing"):
        rpc.decode(SubmitJob, jobs_pb2.SubmitJob(job_id=HASH, salt=HASH).SerializeToString())


def test_events_keep_their_absent_receipt() -> None:
    event = JobEvent(0, "queued", "", 0, "", None, 1)
    assert rpc.decode(JobEvent, rpc.encode(event)) == event


@pytest.mark.parametrize(
    "change",
    [
        {"included": b"\0\0\0"},
        {"included": np.array([0, 1], "<u4").tobytes()},
        {"included": np.array([2, 0], "<u4").tobytes()},
        {"included": np.array([0, 9], "<u4").tobytes()},
        {"rejections": ()},
        {"receipts": ReceiptColumns.empty()},
    ],
)
def test_a_body_that_does_not_account_for_every_transaction_is_malformed(change: dict[str, Any]) -> None:
    body = BlockBody.of(outcome())
    assert body.outcome(3).included.tolist() == [0, 2]
    with pytest.raises(MalformedMessage):
        replace(body, **change).outcome(3)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=4))
def test_noise_is_a_protocol_error_and_nothing_else(frames: list[bytes]) -> None:
    for reader in (rpc.worker_reader(), rpc.sequencer_reader()):
        found: list[Any] = []
        with suppress(ProtocolError):
            found = read_all(reader, frames)
        assert all(one is None or isinstance(one, _MESSAGES) for one in found)


@settings(max_examples=200, deadline=None)
@given(worker_messages, st.data())
def test_a_damaged_message_is_a_protocol_error_or_another_message(message: Any, data: st.DataObject) -> None:
    raw = bytearray(next(rpc.worker_writer().frames(message)))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    found = None
    with suppress(ProtocolError):
        found = rpc.worker_reader().read(bytes(raw))
    assert found is None or isinstance(found, get_args(WorkerMessage))


def test_every_message_has_its_dataclass() -> None:
    for kind in _MESSAGES:
        rpc._plan(kind)
