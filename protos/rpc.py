"""The codec: dataclasses of `protos.messages` to protobuf bytes and back, and messages to frames of at most 1 MiB.

The only file of this room that knows the generated code. A conversion is derived once from a dataclass's type hints and
the message descriptor of the same name, so that both must agree field by field; the limits in the hints are checked on
decoding, and whatever breaks them is a MalformedMessage.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from types import UnionType
from typing import Annotated, Any, Generic, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from core.block import Header, decode_header, encode_header
from core.columns import Columns
from core.errors import InvalidInput
from core.jobs.request import Message as ChatMessage
from protos.errors import MalformedMessage, MessageTooLarge, SequenceBroken
from protos.gen.warpgrid.v1 import chain_pb2, jobs_pb2, network_pb2
from protos.limits import CountMax, Size, SizeMax
from protos.messages import SequencerMessage, WorkerMessage

__all__ = [
    "FRAME_BYTES_MAX",
    "MESSAGE_BYTES_MAX",
    "FrameReader",
    "FrameWriter",
    "decode",
    "encode",
    "sequencer_reader",
    "sequencer_writer",
    "worker_reader",
    "worker_writer",
]

FRAME_BYTES_MAX = 1024 * 1024
MESSAGE_BYTES_MAX = 64 * 1024 * 1024
_FRAME_OVERHEAD_BYTES = 64
_CHUNK_BYTES_MAX = FRAME_BYTES_MAX - _FRAME_OVERHEAD_BYTES
_INTEGER_BYTES_MAX = 32

_T = TypeVar("_T")
_M = TypeVar("_M")
_ToWire = Callable[[Any], Any]
_FromWire = Callable[[Any], Any]
_RENAMED: dict[Any, str] = {ChatMessage: "ChatMessage"}


@dataclass(frozen=True, slots=True)
class _Field:
    """How one field travels. With presence, absent is not the same as empty."""

    name: str
    to_wire: _ToWire
    from_wire: _FromWire
    has_presence: bool
    is_optional: bool


def encode(value: Any) -> bytes:
    """The protobuf bytes of one of the dataclasses of `protos.messages`."""
    return bytes(_to_message(value).SerializeToString(deterministic=True))


def decode(kind: type[_T], raw: bytes) -> _T:
    """The inverse of `encode`. Raises MalformedMessage naming the field that is wrong."""
    message = _message_class(cast(_Class, kind))()
    try:
        message.ParseFromString(raw)
    except DecodeError as error:
        raise MalformedMessage(f"{kind.__name__}: not a protobuf message") from error
    return _from_message(kind, message)


_Class = Any  # mypy takes the class of an unhashable dataclass for unhashable itself


@cache
def _message_class(kind: _Class) -> type[Message]:
    name = _RENAMED.get(kind, kind.__name__)
    for module in (network_pb2, chain_pb2, jobs_pb2):
        if name in module.DESCRIPTOR.message_types_by_name:
            return getattr(module, name)  # type: ignore[no-any-return]
    raise AssertionError(f"no message is called {name}")


@cache
def _plan(kind: _Class) -> tuple[_Field, ...]:
    descriptor = _message_class(kind).DESCRIPTOR
    hints = get_type_hints(kind, include_extras=True)
    declared = [one.name for one in fields(kind)]
    assert declared == [one.name for one in descriptor.fields], f"{kind.__name__} and its message differ"
    return tuple(_field(f"{kind.__name__}.{name}", hints[name], descriptor.fields_by_name[name]) for name in declared)


def _field(label: str, hint: Any, wire: Any) -> _Field:
    is_optional = get_origin(hint) in (UnionType, Union)
    if is_optional:
        hint = next(one for one in get_args(hint) if one is not type(None))
    limit = None
    if get_origin(hint) is Annotated:
        hint, limit = get_args(hint)
    is_repeated = get_origin(hint) is tuple
    count_max = None
    if is_repeated:
        count_max, limit = limit, None
        hint = get_args(hint)[0]
        if get_origin(hint) is Annotated:
            hint, limit = get_args(hint)
    to_wire, from_wire = _conversion(label, hint, limit, wire)
    if is_repeated:
        one_to_wire, one_from_wire = to_wire, from_wire

        def to_wire(values: Any) -> Any:
            return [one_to_wire(value) for value in values]

        def from_wire(values: Any) -> Any:
            if isinstance(count_max, CountMax) and len(values) > count_max.count:
                raise MalformedMessage(f"{label} has {len(values)} elements, at most {count_max.count} may be sent")
            return tuple(one_from_wire(value) for value in values)

    assert not is_optional or wire.has_presence, f"{label} may be None, so its wire form must be able to be absent"
    return _Field(wire.name, to_wire, from_wire, wire.has_presence, is_optional)


def _conversion(label: str, hint: Any, limit: Any, wire: Any) -> tuple[_ToWire, _FromWire]:
    if hint is Header:
        return encode_header, _typed_errors(label, decode_header)
    if isinstance(hint, type) and issubclass(hint, Columns):
        return hint.to_bytes, _typed_errors(label, hint.from_bytes)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return (lambda value: value.value), _typed_errors(label, hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return _to_message, lambda message: _from_message(hint, message)
    if hint is int and wire.type == FieldDescriptor.TYPE_BYTES:
        return _integer_to_wire, lambda raw: _integer_from_wire(label, raw)
    assert hint in (int, bool, bytes, str), f"{label}: no conversion for {hint}"
    return _same, lambda value: _within(label, value, limit)


def _same(value: Any) -> Any:
    return value


def _typed_errors(label: str, convert: Callable[[Any], Any]) -> _FromWire:
    def converted(value: Any) -> Any:
        try:
            return convert(value)
        except (InvalidInput, ValueError) as error:
            raise MalformedMessage(f"{label}: {error}") from error

    return converted


def _integer_to_wire(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def _integer_from_wire(label: str, raw: bytes) -> int:
    if len(raw) > _INTEGER_BYTES_MAX or raw[:1] == b"\0":
        raise MalformedMessage(f"{label} is not an integer of at most 256 bits without leading zeros")
    return int.from_bytes(raw, "big")


def _within(label: str, value: Any, limit: Any) -> Any:
    if limit is None:
        return value
    size = len(value.encode()) if isinstance(value, str) else len(value)
    if isinstance(limit, Size) and size != limit.bytes and not (limit.or_empty and size == 0):
        raise MalformedMessage(f"{label} has {size} bytes, expected {limit.bytes}")
    if isinstance(limit, SizeMax) and size > limit.bytes:
        raise MalformedMessage(f"{label} has {size} bytes, at most {limit.bytes} may be sent")
    return value


def _to_message(value: Any) -> Message:
    kind: _Class = type(value)
    arguments = {}
    for one in _plan(kind):
        part = getattr(value, one.name)
        if part is not None:
            arguments[one.name] = one.to_wire(part)
    return _message_class(kind)(**arguments)


def _from_message(kind: type[_T], message: Message) -> _T:
    parts: list[Any] = []
    for one in _plan(cast(_Class, kind)):
        if one.has_presence and not message.HasField(one.name):
            if not one.is_optional:
                raise MalformedMessage(f"{kind.__name__}.{one.name} is missing")
            parts.append(None)
        else:
            parts.append(one.from_wire(getattr(message, one.name)))
    try:
        return kind(*parts)
    except InvalidInput as error:
        raise MalformedMessage(f"{kind.__name__}: {error}") from error


class FrameWriter(Generic[_M]):
    """Turns messages into numbered frames, for one direction of one stream."""

    def __init__(self, frame_class: type[Message], kinds: dict[type, str]) -> None:
        self._frame_class = frame_class
        self._kinds = kinds
        self._sequence = 0

    def frames(self, message: _M) -> Iterator[bytes]:
        """The frames of one message; they must be sent in this order, with no other message between them."""
        frame = self._frame_class(**{self._kinds[type(message)]: _to_message(message)})
        size = frame.ByteSize()
        if size > MESSAGE_BYTES_MAX:
            raise MessageTooLarge(f"{type(message).__name__} has {size} bytes, at most {MESSAGE_BYTES_MAX} may be sent")
        if size <= _CHUNK_BYTES_MAX:
            yield self._numbered(frame)
            return
        raw = frame.SerializeToString()
        for start in range(0, size, _CHUNK_BYTES_MAX):
            stop = start + _CHUNK_BYTES_MAX
            chunk = network_pb2.Chunk(data=raw[start:stop], last=stop >= size)
            yield self._numbered(self._frame_class(chunk=chunk))

    def _numbered(self, frame: Message) -> bytes:
        self._sequence += 1
        frame.sequence = self._sequence  # type: ignore[attr-defined]
        raw = bytes(frame.SerializeToString())
        assert len(raw) <= FRAME_BYTES_MAX
        return raw


class FrameReader(Generic[_M]):
    """The other end of a FrameWriter. Holds at most one unfinished message."""

    def __init__(self, frame_class: type[Message], kinds: dict[type, str], message_bytes_max: int) -> None:
        self._frame_class = frame_class
        self._by_name = {name: kind for kind, name in kinds.items()}
        self._message_bytes_max = message_bytes_max
        self._sequence = 0
        self._parts = bytearray()

    def allow(self, message_bytes_max: int) -> None:
        """Permit messages of this size from now on."""
        self._message_bytes_max = message_bytes_max

    def read(self, raw: bytes) -> _M | None:
        """Take one frame; returns the message that it completes, if any.

        Raises MessageTooLarge, MalformedMessage or SequenceBroken; the stream is not to be used after that.
        """
        if len(raw) > FRAME_BYTES_MAX:
            raise MessageTooLarge(f"a frame of {len(raw)} bytes, at most {FRAME_BYTES_MAX} may be sent")
        frame = self._parse(raw)
        sequence = frame.sequence  # type: ignore[attr-defined]
        if sequence != self._sequence + 1:
            raise SequenceBroken(f"message {sequence} came after message {self._sequence}")
        self._sequence = sequence
        if frame.WhichOneof("body") != "chunk":
            if self._parts:
                raise MalformedMessage("a message came between the chunks of another")
            return self._message(frame)
        chunk = frame.chunk  # type: ignore[attr-defined]
        self._parts += chunk.data
        if len(self._parts) > self._message_bytes_max:
            raise MessageTooLarge(f"a chunked message above {self._message_bytes_max} bytes")
        if not chunk.last:
            if not chunk.data:
                raise MalformedMessage("an empty chunk that is not the last")
            return None
        whole = self._parse(bytes(self._parts))
        self._parts = bytearray()
        if whole.sequence:  # type: ignore[attr-defined]
            raise MalformedMessage("a chunked message carries a sequence number of its own")
        return self._message(whole)

    def _parse(self, raw: bytes) -> Message:
        frame = self._frame_class()
        try:
            frame.ParseFromString(raw)
        except DecodeError as error:
            raise MalformedMessage("not a protobuf message") from error
        return frame

    def _message(self, frame: Message) -> _M:
        name = frame.WhichOneof("body")
        if name not in self._by_name:
            raise MalformedMessage("a message without a body that this version knows")
        return _from_message(self._by_name[name], getattr(frame, name))


def _kinds(frame_class: Any, union: Any) -> dict[type, str]:
    """Which field of the frame carries which dataclass."""
    by_message = {_RENAMED.get(kind, kind.__name__): kind for kind in get_args(union)}
    body = frame_class.DESCRIPTOR.oneofs_by_name["body"].fields
    kinds = {by_message[one.message_type.name]: one.name for one in body if one.name != "chunk"}
    assert set(kinds) == set(get_args(union))
    return kinds


_WORKER_KINDS = _kinds(network_pb2.WorkerMessage, WorkerMessage)
_SEQUENCER_KINDS = _kinds(network_pb2.SequencerMessage, SequencerMessage)


def worker_writer() -> FrameWriter[WorkerMessage]:
    """Frames from a worker."""
    return FrameWriter(network_pb2.WorkerMessage, _WORKER_KINDS)


def worker_reader(message_bytes_max: int = MESSAGE_BYTES_MAX) -> FrameReader[WorkerMessage]:
    """Reads frames from a worker."""
    return FrameReader(network_pb2.WorkerMessage, _WORKER_KINDS, message_bytes_max)


def sequencer_writer() -> FrameWriter[SequencerMessage]:
    """Frames from a sequencer."""
    return FrameWriter(network_pb2.SequencerMessage, _SEQUENCER_KINDS)


def sequencer_reader(message_bytes_max: int = MESSAGE_BYTES_MAX) -> FrameReader[SequencerMessage]:
    """Reads frames from a sequencer."""
    return FrameReader(network_pb2.SequencerMessage, _SEQUENCER_KINDS, message_bytes_max)
