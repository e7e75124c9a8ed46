"""What the reference executor tells of a transaction: instructions as geth logs them, messages as it traces calls."""

from dataclasses import replace

import pytest

from core.errors import BlockError
from core.execution import CallFrame, CallRequest, Halt, StructLog, TransactionTrace
from core.fork import Fork
from core.memory_state import AccountContents, MemoryState
from core.receipts import Log
from tests.differential.assembler import assemble, create_code
from tests.unit.worker.evm.test_reference import (
    ALICE,
    BOB,
    CONTEXT,
    CONTRACT,
    EXECUTOR,
    OTHER,
    columns,
    push_address,
    state_with,
    transfer,
)


def trace_call(code: bytes, inner: bytes = b"", gas_limit: int = 200_000) -> TransactionTrace:
    state = state_with(code, **{"x" + OTHER.hex(): AccountContents(1, 0, inner)})
    request = CallRequest(ALICE, CONTRACT, gas_limit)
    return EXECUTOR.trace_call(state, CONTEXT, request, struct_logs=True)


def test_struct_logs_of_a_small_program() -> None:
    trace = trace_call(assemble(5, 1, "SLOAD ADD", 2, "SSTORE", 1, 0, "MSTORE"))
    shown = [(one.pc, one.op_name, one.gas_cost, one.stack) for one in trace.struct_logs]
    assert shown == [
        (0, "PUSH1", 3, ()),
        (2, "PUSH1", 3, (5,)),
        (4, "SLOAD", 2_100, (5, 1)),
        (5, "ADD", 3, (5, 11)),
        (6, "PUSH1", 3, (16,)),
        (8, "SSTORE", 22_100, (16, 2)),
        (9, "PUSH1", 3, ()),
        (11, "PUSH0", 2, (1,)),
        (12, "MSTORE", 6, (1, 0)),
        (13, "STOP", 0, ()),
    ]
    gas = [one.gas for one in trace.struct_logs]
    assert gas[0] == 200_000 - 21_000
    assert all(
        before - log.gas_cost == after for before, log, after in zip(gas, trace.struct_logs, gas[1:], strict=False)
    )
    assert trace.struct_logs[2].storage == {1: 11}
    assert trace.struct_logs[5].storage == {1: 11, 2: 16}
    assert (trace.struct_logs[8].memory, trace.struct_logs[9].memory) == (b"", bytes(31) + b"\1")
    assert trace.gas_used == 21_000 + sum(one.gas_cost for one in trace.struct_logs)


def test_depth_gas_cost_and_return_data_of_a_message() -> None:
    inner = assemble(0xAB, 0, "MSTORE8", 1, 0, "RETURN")
    trace = trace_call(assemble(0, 0, 0, 0, push_address(OTHER), 5_000, "STATICCALL RETURNDATASIZE STOP"), inner)
    call = next(one for one in trace.struct_logs if one.op_name == "STATICCALL")
    assert call.gas_cost == 2_600 + 5_000
    assert [one.depth for one in trace.struct_logs] == [1] * 7 + [2] * 6 + [1] * 2
    assert trace.struct_logs[7].gas == 5_000
    assert trace.struct_logs[-2].return_data == b"\xab"
    frame = trace.frame.calls[0]
    assert (frame.kind, frame.sender, frame.to, frame.gas) == ("STATICCALL", CONTRACT, OTHER, 5_000)
    assert (frame.output, frame.gas_used, frame.halt) == (b"\xab", 5_000 - trace.struct_logs[12].gas, Halt.NONE)


@pytest.mark.parametrize(
    ("code", "name", "halt"),
    [
        (assemble(1, "ADD"), "ADD", Halt.STACK_UNDERFLOW),
        (assemble("INVALID"), "INVALID", Halt.INVALID_OPCODE),
        (b"\x0c", "opcode 0xc not defined", Halt.INVALID_OPCODE),
        (assemble(2**30, "MLOAD"), "MLOAD", Halt.OUT_OF_GAS),
        (assemble(0, 0, "REVERT"), "REVERT", Halt.NONE),
    ],
)
def test_the_last_instruction_tells_why_it_failed(code: bytes, name: str, halt: Halt) -> None:
    trace = trace_call(code)
    last = trace.struct_logs[-1]
    assert (last.op_name, last.halt) == (name, halt)
    assert not trace.succeeded
    assert trace.frame.halt == (halt or Halt.REVERT)


def calls_of(*steps: bytes, inner: bytes = b"") -> tuple[CallFrame, ...]:
    return trace_call(b"".join(steps) + assemble("STOP"), inner).frame.calls


def test_messages_that_never_start() -> None:
    too_dear = assemble(0, 0, 0, 0, 10**30, push_address(OTHER), "GAS CALL POP")
    create = assemble(0, 0, 10**30, "CREATE POP")
    calls = calls_of(too_dear, create)
    assert [(one.kind, one.to, one.value, one.halt) for one in calls] == [
        ("CALL", OTHER, 10**30, Halt.INSUFFICIENT_BALANCE),
        ("CREATE", None, 10**30, Halt.INSUFFICIENT_BALANCE),
    ]


def test_every_kind_of_message() -> None:
    steps = [
        assemble(0, 0, 0, 0, 0, push_address(OTHER), "GAS CALL POP"),
        assemble(0, 0, 0, 0, 0, push_address(OTHER), "GAS CALLCODE POP"),
        assemble(0, 0, 0, 0, push_address(OTHER), "GAS DELEGATECALL POP"),
        assemble(0, 0, 0, 0, push_address(BOB), "GAS STATICCALL POP"),
        assemble(32, 0, 32, 0, 4, "GAS STATICCALL POP"),
        assemble(0, 0, 0, "CREATE POP"),
        assemble(9, 0, 0, 0, "CREATE2 POP"),
        assemble(push_address(BOB), "SELFDESTRUCT"),
    ]
    calls = calls_of(*steps, inner=assemble("STOP"))
    assert [(one.kind, one.sender) for one in calls] == [
        (kind, CONTRACT)
        for kind in (
            "CALL",
            "CALLCODE",
            "DELEGATECALL",
            "STATICCALL",
            "STATICCALL",
            "CREATE",
            "CREATE2",
            "SELFDESTRUCT",
        )
    ]
    assert [one.to for one in calls[:5]] == [OTHER, OTHER, OTHER, BOB, bytes(19) + b"\4"]
    assert calls[4].output == bytes(32)
    assert all(one.halt == Halt.NONE for one in calls)


def test_logs_stand_between_messages_and_those_of_a_failed_one_are_told_too() -> None:
    inner = assemble(7, 0, 0, "LOG1", 0, 0, "REVERT")
    call = assemble(0, 0, 0, 0, 0, push_address(OTHER), "GAS CALL POP")
    frame = trace_call(assemble(1, 0, 0, "LOG1") + call + assemble(0, 0, "LOG0 STOP"), inner).frame
    assert frame.logs == (Log(CONTRACT, (bytes(31) + b"\1",), b""), Log(CONTRACT, (), b""))
    assert frame.log_positions == (0, 1)
    assert frame.calls[0].halt == Halt.REVERT
    assert frame.calls[0].logs == (Log(OTHER, (bytes(31) + b"\7",), b""),)


def test_creation_frames() -> None:
    trace = EXECUTOR.trace_call(
        state_with(), CONTEXT, CallRequest(ALICE, None, 200_000, data=create_code(b"\0")), struct_logs=False
    )
    assert (trace.frame.kind, trace.frame.data, trace.frame.output) == ("CREATE", create_code(b"\0"), b"\0")
    assert trace.frame.to is not None
    assert trace.struct_logs == ()
    taken = MemoryState({ALICE: AccountContents(balance=1), trace.frame.to: AccountContents(nonce=1)})
    collided = EXECUTOR.trace_call(taken, CONTEXT, CallRequest(ALICE, None, 200_000), struct_logs=False)
    assert (collided.frame.halt, collided.frame.to, collided.gas_used) == (Halt.ADDRESS_COLLISION, None, 200_000)


def test_trace_of_rows_agrees_with_execution() -> None:
    cancun = replace(CONTEXT, fork=Fork.CANCUN)
    state = state_with(assemble("NUMBER", 1, "SLOAD", 1, "ADD DUP1", 1, "SSTORE SSTORE"))
    to_contract = transfer(to=CONTRACT, value=0, gas_limit=90_000)
    block = columns(transfer(), replace(to_contract, nonce=1), replace(to_contract, nonce=2))
    outcome = EXECUTOR.execute_block(state, cancun, block)
    traces = EXECUTOR.trace(state, cancun, block, [2, 0], struct_logs=True)
    assert [one.hash for one in traces] == [block.hash[2].tobytes(), block.hash[0].tobytes()]
    assert [one.gas_used for one in traces] == outcome.receipts.gas_used[[2, 0]].tolist()
    stored = [one for one in traces[0].struct_logs if one.op_name == "SSTORE"]
    assert stored[0].stack[-2:] == (13, 1)
    assert (traces[1].struct_logs, traces[1].frame.kind, traces[1].frame.gas) == ((), "CALL", 21_000)
    with pytest.raises(BlockError, match="transaction 0"):
        EXECUTOR.trace(state, cancun, columns(transfer(nonce=9)), [0], struct_logs=False)


def test_deep_recursion_is_traced_to_its_end() -> None:
    again = assemble(0, 0, 0, 0, "ADDRESS GAS STATICCALL STOP")
    trace = trace_call(again, gas_limit=10_000_000)
    depth, frame = 1, trace.frame
    while frame.calls:
        depth, frame = depth + 1, frame.calls[0]
    deepest: StructLog = max(trace.struct_logs, key=lambda one: one.depth)
    assert depth == deepest.depth > 100
