"""What a transaction did, told from EELS's trace events: instructions (EIP-3155) and messages (geth's callTracer).

EELS announces each instruction but not each message: a message is known by the new machine that the first event comes
from, and one that never started (no balance, too deep, address taken) by a call instruction after which none came.
"""

from dataclasses import dataclass, field
from threading import Lock, get_ident
from types import TracebackType
from typing import Any

from ethereum.trace import (
    EvmStop,
    GasAndRefund,
    OpEnd,
    OpException,
    OpStart,
    TraceEvent,
    TransactionEnd,
    set_evm_trace,
)

from core.execution import CallFrame, Halt, StructLog
from core.receipts import Log
from worker.evm.reference.rules import ForkRules, halt_of, logs_of

__all__ = ["Tracer"]

_STOP = 0x00
_SLOAD = 0x54
_SSTORE = 0x55
_LOG0, _LOG4 = 0xA0, 0xA4
_SELFDESTRUCT = 0xFF
_CREATES = frozenset({0xF0, 0xF5})
_VALUE_CALLS = frozenset({0xF1, 0xF2})
_MESSAGES = _CREATES | _VALUE_CALLS | {0xF4, 0xFA}

# geth's names where EELS has another.
_NAMES = {"KECCAK": "KECCAK256"}

_CALL_DEPTH_MAX = 1024
_NONCE_MAX = 2**64 - 1

# EELS has one tracer for the whole process.
_TRACING = Lock()


@dataclass(slots=True)
class _Instruction:
    """An instruction being executed: what `StructLog` shows, before its cost and its end are known."""

    pc: int
    op: int
    op_name: str
    gas: int
    depth: int
    refund: int
    stack: tuple[int, ...]
    memory: bytes
    return_data: bytes
    storage: dict[int, int]
    gas_cost: int = 0
    halt: Halt = Halt.NONE


@dataclass(slots=True)
class _OpenFrame:
    """A message being executed."""

    evm: Any
    kind: str
    logs: list[Log] = field(default_factory=list)
    log_positions: list[int] = field(default_factory=list)
    calls: list[CallFrame] = field(default_factory=list)
    op: int = _STOP
    op_name: str = ""
    instruction: _Instruction | None = None
    # What the instruction at hand will show as a message if no machine starts: the messages before it, and itself.
    calls_before: int = 0
    attempt: CallFrame | None = None


class Tracer:
    """A context manager: while it is entered, it listens to this thread's EELS. Use it for one transaction."""

    def __init__(self, rules: ForkRules, *, struct_logs: bool) -> None:
        self._rules = rules
        self._wants_instructions = struct_logs
        self._instructions: list[_Instruction] = []
        self._open: list[_OpenFrame] = []
        self._root: CallFrame | None = None
        self._storage: dict[bytes, dict[int, int]] = {}
        self._thread = 0

    def __enter__(self) -> "Tracer":
        _TRACING.acquire()
        self._thread = get_ident()
        self._listener_before = set_evm_trace(self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        set_evm_trace(self._listener_before)
        _TRACING.release()

    def frame(self) -> CallFrame | None:
        """The outermost message, or None when it never started (its address was taken)."""
        return self._root

    def struct_logs(self) -> tuple[StructLog, ...]:
        """The instructions in order; none unless they were asked for."""
        return tuple(
            StructLog(
                pc=one.pc,
                op=one.op,
                op_name=one.op_name,
                gas=one.gas,
                gas_cost=one.gas_cost,
                depth=one.depth,
                refund=one.refund,
                stack=one.stack,
                memory=one.memory,
                return_data=one.return_data,
                storage=one.storage,
                halt=one.halt,
            )
            for one in self._instructions
        )

    def _hear(self, evm: Any, event: TraceEvent) -> None:
        if get_ident() != self._thread:
            return
        frame = self._frame_of(evm)
        match event:
            case OpStart():
                self._start(frame, int(event.op.value), event.op.name)
            case GasAndRefund():
                if frame.instruction is not None:
                    frame.instruction.gas_cost += event.gas_cost
            case OpEnd():
                self._end(frame)
            case OpException():
                self._fail(frame, event.error)
            case EvmStop():
                if evm.running and len(evm.code):
                    self._start(frame, _STOP, "STOP")
                    frame.instruction = None
            case TransactionEnd():
                self._root = self._close_above(0)
            case _:
                pass

    def _frame_of(self, evm: Any) -> _OpenFrame:
        """The frame of the machine that speaks; closes those that must have ended, opens it when it is new."""
        if self._open and self._open[-1].evm is evm:
            return self._open[-1]
        depth = int(evm.message.depth)
        if depth < len(self._open):
            known = self._open[depth].evm is evm
            if depth + known < len(self._open):
                self._close_above(depth + known)
            if known:
                return self._open[depth]
        kind = self._open[-1].op_name if self._open else ("CALL" if evm.message.target else "CREATE")
        self._open.append(_OpenFrame(evm, kind))
        return self._open[-1]

    def _close_above(self, depth: int) -> CallFrame:
        """End every open frame from `depth` up; returns the lowest of them."""
        while True:
            frame = self._open.pop()
            closed = _closed(frame, self._open[-1].evm if self._open else None)
            if self._open:
                self._open[-1].calls.append(closed)
            if len(self._open) == depth:
                return closed

    def _start(self, frame: _OpenFrame, op: int, name: str) -> None:
        frame.op, frame.op_name = op, _NAMES.get(name, name)
        frame.calls_before = len(frame.calls)
        frame.attempt = self._attempt(frame) if op in _MESSAGES or op == _SELFDESTRUCT else None
        if self._wants_instructions:
            frame.instruction = self._instruction(frame)
            self._instructions.append(frame.instruction)

    def _end(self, frame: _OpenFrame) -> None:
        if _LOG0 <= frame.op <= _LOG4:
            frame.logs += logs_of(frame.evm.logs[-1:])
            frame.log_positions.append(len(frame.calls))
        if frame.attempt is not None and len(frame.calls) == frame.calls_before:
            frame.calls.append(frame.attempt)
        frame.instruction = None

    def _fail(self, frame: _OpenFrame, error: BaseException) -> None:
        evm, halt = frame.evm, halt_of(error)
        if halt == Halt.INVALID_OPCODE:
            # EELS finds out before the instruction starts.
            op = evm.code[int(evm.pc)]
            self._start(frame, op, "INVALID" if op == 0xFE else f"opcode 0x{op:x} not defined")
        if frame.instruction is not None and halt != Halt.REVERT:
            frame.instruction.halt = halt
        frame.instruction = None

    def _instruction(self, frame: _OpenFrame) -> _Instruction:
        evm = frame.evm
        return _Instruction(
            pc=int(evm.pc),
            op=frame.op,
            op_name=frame.op_name,
            gas=int(evm.gas_left),
            depth=int(evm.message.depth) + 1,
            refund=sum(int(one.evm.refund_counter) for one in self._open),
            stack=tuple(map(int, evm.stack)),
            memory=bytes(evm.memory),
            return_data=bytes(getattr(evm, "return_data", b"")),
            storage=self._storage_seen(frame),
        )

    def _storage_seen(self, frame: _OpenFrame) -> dict[int, int]:
        """The slots of this account seen so far, the one of this instruction included, as geth tells them."""
        evm, address = frame.evm, frame.evm.message.current_target
        seen = self._storage.get(address, {})
        if frame.op == _SLOAD and evm.stack:
            key = evm.stack[-1]
            value = self._rules.state.get_storage(evm.message.block_env.state, address, key.to_be_bytes32())
        elif frame.op == _SSTORE and len(evm.stack) > 1:
            key, value = evm.stack[-1], evm.stack[-2]
        else:
            return seen
        seen = self._storage[address] = {**seen, int(key): int(value)}
        return seen

    def _attempt(self, frame: _OpenFrame) -> CallFrame | None:
        """The message that the instruction at hand asks for, as it looks should it never start."""
        evm = frame.evm
        stack, own = list(map(int, reversed(evm.stack[-7:]))), evm.message.current_target
        account = self._rules.state.get_account(evm.message.block_env.state, own)
        if frame.op == _SELFDESTRUCT and stack:
            beneficiary = _address(stack[0])
            return _message("SELFDESTRUCT", own, beneficiary, int(account.balance), 0, b"", Halt.NONE)
        needed = 3 if frame.op in _CREATES else 6
        if len(stack) < needed:
            return None
        creates = frame.op in _CREATES
        value = stack[0] if creates else stack[2] if frame.op in _VALUE_CALLS else 0
        if int(evm.message.depth) >= _CALL_DEPTH_MAX:
            halt = Halt.CALL_DEPTH
        elif value > int(account.balance):
            halt = Halt.INSUFFICIENT_BALANCE
        elif creates:
            halt = Halt.NONCE_OVERFLOW if int(account.nonce) == _NONCE_MAX else Halt.ADDRESS_COLLISION
        else:
            halt = Halt.NONE
        if creates:
            data = _memory(evm, stack[1], stack[2])
            return _message(frame.op_name, own, None, value, 0, data, halt)
        start = 3 if frame.op in _VALUE_CALLS else 2
        data = _memory(evm, stack[start], stack[start + 1])
        return _message(frame.op_name, own, _address(stack[1]), value, 0, data, halt)


def _closed(frame: _OpenFrame, parent: Any) -> CallFrame:
    """The frame of a message that has ended; `parent` is the machine that sent it."""
    evm, message = frame.evm, frame.evm.message
    halt = halt_of(evm.error)
    creates = frame.kind in ("CREATE", "CREATE2")
    to = message.code_address if frame.kind in ("DELEGATECALL", "CALLCODE") else message.current_target
    gas = int(message.gas)
    return CallFrame(
        kind=frame.kind,
        sender=bytes(message.caller if parent is None else parent.message.current_target),
        to=None if creates and halt != Halt.NONE else bytes(to),
        value=int(message.value),
        gas=gas,
        gas_used=gas - int(evm.gas_left),
        data=bytes(message.code if creates else message.data),
        output=bytes(evm.output),
        halt=halt,
        logs=tuple(frame.logs),
        calls=tuple(frame.calls),
        log_positions=tuple(frame.log_positions),
    )


def _message(kind: str, sender: bytes, to: bytes | None, value: int, gas: int, data: bytes, halt: Halt) -> CallFrame:
    return CallFrame(kind, bytes(sender), to, value, gas, 0, data, b"", halt, (), ())


def _address(word: int) -> bytes:
    return (word & (2**160 - 1)).to_bytes(20, "big")


def _memory(evm: Any, start: int, size: int) -> bytes:
    """Memory that an instruction names, zeros where it was never written; nothing where it could not pay for it."""
    if size > 2**24 or start > 2**32:
        return b""
    return bytes(evm.memory[start : start + size]).ljust(size, b"\0")
