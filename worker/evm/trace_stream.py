"""What a traced transaction did: the records of native trace_stream.hpp, read into the protocol's terms.

Owns the records' layouts, compared with the library's at load, and the stream's lifetime. Knows nothing of blocks.
"""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from struct import Struct

from core.execution import CallFrame, Halt, StructLog
from core.receipts import Log
from worker.evm import library
from worker.evm.disassembler import opcode_names
from worker.evm.errors import EngineLimit
from worker.evm.layouts import HALTS

__all__ = ["Instruction", "TraceStream", "TraceWish"]

STREAM_BYTES_MAX = 4 << 30

_INVALID, _SLOAD = 0xFE, 0x54
_CREATES = frozenset({0xF0, 0xF5})

_HEADER = Struct("<IIQ")  # kind, flags, bytes of the whole record
_INSTRUCTION = Struct("<QQqIIIII20sQQ")  # gas cost refund pc depth opcode stack_words halt self memory returned
_ENTER = Struct("<32sQQ20s20sII")  # value gas input_bytes from to opcode padding
_EXIT = Struct("<QQI12x")  # gas_used output_bytes halt
_LOG = Struct("<Q20sI")  # data_bytes address topics


class TraceWish(IntFlag):
    """What to record. Memory and return data come with the instructions."""

    INSTRUCTIONS = 1
    MEMORY = 2
    RETURNED = 4
    MESSAGES = 8


class _Kind(IntEnum):
    INSTRUCTION = 1
    ENTER = 2
    EXIT = 3
    LOG = 4


class _Flag(IntFlag):
    STORAGE_FOLLOWS = 1
    MEMORY_FOLLOWS = 2
    RETURNED_FOLLOWS = 4


@dataclass(frozen=True, slots=True)
class Instruction:
    """One executed instruction of account `address`.

    `stack` is little-endian 32-byte words, bottom first, as before it; `storage` the key and value of an SLOAD or
    SSTORE. `memory_bytes` is the memory's size; `memory` and `returned` are empty unless they were wished for.
    """

    pc: int
    opcode: int
    gas: int
    cost: int
    depth: int
    refund: int
    halt: Halt
    address: bytes
    stack: bytes
    memory_bytes: int
    memory: bytes
    returned: bytes
    storage: tuple[int, int] | None

    @property
    def name(self) -> str:
        """The instruction's name; geth's words for one that the fork does not have."""
        name = opcode_names().get(self.opcode)
        if name is None or (self.halt == Halt.INVALID_OPCODE and self.opcode != _INVALID):
            return f"opcode 0x{self.opcode:x} not defined"
        return name

    def stack_words(self) -> tuple[int, ...]:
        """The stack as numbers, bottom first."""
        return _words(self.stack)


@dataclass(slots=True)
class _OpenFrame:
    """A message that has begun."""

    kind: str
    sender: bytes
    to: bytes
    value: int
    gas: int
    data: bytes
    logs: list[Log] = field(default_factory=list)
    log_positions: list[int] = field(default_factory=list)
    calls: list[CallFrame] = field(default_factory=list)

    def close(self, gas_used: int, output: bytes, halt: Halt) -> CallFrame:
        return CallFrame(
            kind=self.kind,
            sender=self.sender,
            to=None if self.kind in ("CREATE", "CREATE2") and halt != Halt.NONE else self.to,
            value=self.value,
            gas=self.gas,
            gas_used=gas_used,
            data=self.data,
            output=output,
            halt=halt,
            logs=tuple(self.logs),
            calls=tuple(self.calls),
            log_positions=tuple(self.log_positions),
        )


class TraceStream:
    """A stream for the engine to write one transaction's trace into."""

    def __init__(self, wishes: TraceWish, bytes_max: int = STREAM_BYTES_MAX) -> None:
        self._library = library.load()
        _check_layouts(self._library)
        self._bytes_max = bytes_max
        self.handle = ctypes.c_void_p(self._library.warpgrid_evm_trace_create(wishes, bytes_max))

    def __del__(self) -> None:
        if handle := self.__dict__.pop("handle", None):
            self._library.warpgrid_evm_trace_destroy(handle)

    def instructions(self) -> Iterator[Instruction]:
        """The instructions in order. Raises EngineLimit when the trace did not fit."""
        memory = returned = b""
        for kind, flags, record in self._records():
            if kind != _Kind.INSTRUCTION:
                continue
            gas, cost, refund, pc, depth, opcode, height, halt, address, memory_bytes, returned_bytes = (
                _INSTRUCTION.unpack_from(record)
            )
            at, storage = _INSTRUCTION.size, None
            if flags & _Flag.STORAGE_FOLLOWS:
                slot, value = _words(record[at : at + 64])
                storage, at = (slot, value), at + 64
            stack = record[at : at + 32 * height]
            at += len(stack)
            if flags & _Flag.MEMORY_FOLLOWS:
                memory = record[at : at + memory_bytes]
                at += len(memory)
            if flags & _Flag.RETURNED_FOLLOWS:
                returned = record[at : at + returned_bytes]
            yield Instruction(
                pc,
                opcode,
                gas,
                cost,
                depth,
                refund,
                HALTS[halt],
                address,
                stack,
                memory_bytes,
                memory,
                returned,
                storage,
            )

    def struct_logs(self) -> tuple[StructLog, ...]:
        """The instructions as the protocol shows them, for which the stream wants everything but messages."""
        seen: dict[bytes, dict[int, int]] = {}
        logs = []
        for one in self.instructions():
            storage = seen.get(one.address, {})
            if one.storage is not None and not (one.opcode == _SLOAD and one.halt != Halt.NONE):
                storage = seen[one.address] = {**storage, one.storage[0]: one.storage[1]}
            logs.append(_struct_log(one, storage))
        return tuple(logs)

    def frame(self) -> CallFrame:
        """The outermost message, for which the stream wants messages. Raises EngineLimit as `instructions` does."""
        opened: list[_OpenFrame] = []
        closed = None
        for kind, _, record in self._records():
            if kind == _Kind.ENTER:
                value, gas, size, sender, to, opcode, _ = _ENTER.unpack_from(record)
                data = record[_ENTER.size : _ENTER.size + size]
                opened.append(_OpenFrame(opcode_names()[opcode], sender, to, _words(value)[0], gas, data))
            elif kind == _Kind.LOG:
                opened[-1].logs.append(_log(record))
                opened[-1].log_positions.append(len(opened[-1].calls))
            elif kind == _Kind.EXIT:
                gas_used, size, halt = _EXIT.unpack_from(record)
                closed = opened.pop().close(gas_used, record[_EXIT.size : _EXIT.size + size], HALTS[halt])
                if opened:
                    opened[-1].calls.append(closed)
        assert closed is not None
        assert not opened
        return closed

    def _records(self) -> Iterator[tuple[int, int, bytes]]:
        """(kind, flags, what follows the header) of each record."""
        first, size = ctypes.c_void_p(), ctypes.c_uint64()
        whole = self._library.warpgrid_evm_trace_view(self.handle, ctypes.byref(first), ctypes.byref(size))
        if not whole:
            raise EngineLimit(
                f"the trace is larger than {self._bytes_max >> 20} MiB: trace messages only, or leave out the memory"
            )
        at = 0
        while at < size.value:
            assert first.value is not None
            header = ctypes.string_at(first.value + at, _HEADER.size)
            kind, flags, record_bytes = _HEADER.unpack(header)
            yield kind, flags, ctypes.string_at(first.value + at + _HEADER.size, record_bytes - _HEADER.size)
            at += record_bytes


def _struct_log(one: Instruction, storage: dict[int, int]) -> StructLog:
    return StructLog(
        pc=one.pc,
        op=one.opcode,
        op_name=one.name,
        gas=one.gas,
        gas_cost=one.cost,
        depth=one.depth,
        refund=one.refund,
        stack=one.stack_words(),
        memory=one.memory,
        return_data=one.returned,
        storage=storage,
        halt=one.halt,
    )


def _log(record: bytes) -> Log:
    size, address, topics = _LOG.unpack_from(record)
    raw = record[_LOG.size : _LOG.size + 32 * topics + size]
    return Log(address, tuple(raw[32 * i : 32 * i + 32] for i in range(topics)), raw[32 * topics :])


def _words(raw: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(raw[at : at + 32], "little") for at in range(0, len(raw), 32))


def _check_layouts(native: ctypes.CDLL) -> None:
    """Assert that this module and the library agree on every record."""
    sizes = (ctypes.c_uint64 * 5)()
    native.warpgrid_evm_trace_layout(sizes)
    expected = [_HEADER.size, *(_HEADER.size + one.size for one in (_INSTRUCTION, _ENTER, _EXIT, _LOG))]
    assert list(sizes) == expected, f"native trace records {list(sizes)} differ from Python's {expected}"
