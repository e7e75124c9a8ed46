"""eth_simulateV1 beyond the shared vectors: order of blocks, budgets, system state, and numbers of logs."""

from typing import Any

import pytest

from core.execution import CallFrame, Halt
from core.receipts import Log
from sequencer.jsonrpc import RpcError
from sequencer.rpc_methods import MethodLimits
from sequencer.rpc_methods.overrides import BlockOverrides
from sequencer.rpc_methods.simulation.plan import SimulatedCalls, in_order
from sequencer.rpc_methods.simulation.transfers import emitted_logs
from tests.unit.sequencer.rpc_setting import ALICE, BOB, RpcSetting

TO = "0x" + "22" * 20


def block(**fields: Any) -> SimulatedCalls:
    return SimulatedCalls(BlockOverrides(**fields))


def test_gaps_are_filled_and_times_go_on() -> None:
    ordered = in_order([block(number=13), block()], base_number=10, base_timestamp=100, blocks_max=10)
    assert [(one.block.number, one.block.timestamp) for one in ordered] == [(11, 112), (12, 124), (13, 136), (14, 148)]


@pytest.mark.parametrize(
    ("blocks", "code"),
    [
        ([], -32602),
        ([block(number=10)], -38020),
        ([block(timestamp=100)], -38021),
        ([block(number=12), block(timestamp=120)], -38021),
        ([block(number=15)], -38026),
        ([block()] * 5, -38026),
    ],
)
def test_disorder_is_refused(blocks: list[SimulatedCalls], code: int) -> None:
    with pytest.raises(RpcError) as refusal:
        in_order(blocks, base_number=10, base_timestamp=100, blocks_max=4)
    assert refusal.value.rpc_code == code


def frame(value: int, halt: Halt = Halt.NONE, logs: int = 0, calls: tuple[CallFrame, ...] = ()) -> CallFrame:
    own = tuple(Log(b"\1" * 20, (), bytes([index])) for index in range(logs))
    positions = tuple(min(index, len(calls)) for index in range(logs))
    return CallFrame("CALL", b"\2" * 20, b"\3" * 20, value, 0, 0, b"", b"", halt, own, calls, positions)


def test_undone_logs_take_numbers_and_transfers_stand_where_they_happened() -> None:
    failed = frame(5, Halt.REVERT, logs=1, calls=(frame(0, logs=1),))
    emitted = emitted_logs(frame(7, logs=2, calls=(failed,)), 10, with_transfers=True)
    assert [(one.index, one.stands) for one in emitted] == [
        (10, True),  # the transfer of 7
        (11, True),  # the first own log, before the call
        (12, False),  # the transfer of 5
        (13, False),  # the failed one's log
        (14, False),  # the log of what it called
        (15, True),  # the second own log
    ]
    assert [one.index for one in emitted_logs(frame(7, logs=2), 0, with_transfers=False)] == [0, 1]


async def test_state_goes_on_from_block_to_block() -> None:
    setting = RpcSetting()
    sender, receiver = "0x" + ALICE.address.hex(), "0x" + BOB.address.hex()
    send = {"from": sender, "to": receiver, "value": hex(10**20)}
    read = {"to": TO, "input": "0x" + BOB.address.rjust(32, b"\0").hex()}
    balance_of = {TO: {"code": "0x6000353160005260206000f3"}}
    blocks = [{"calls": [send]}, {"stateOverrides": balance_of, "calls": [read, send, read]}]
    first, second = await setting.call("eth_simulateV1", {"blockStateCalls": blocks})
    assert first["calls"][0]["status"] == "0x1"
    before, _, after = (one["returnData"] for one in second["calls"])
    assert int(after, 16) - int(before, 16) == 10**20
    assert int(before, 16) == 11 * 10**20
    assert second["parentHash"] == first["hash"]
    assert setting.chain.head().number == 0, "nothing was made"


async def test_gas_over_all_blocks_is_bounded() -> None:
    setting = RpcSetting(methods=MethodLimits(call_gas_max=60_000))
    call = {"to": TO, "gas": hex(50_000)}
    spend = {TO: {"code": "0xfe"}}
    blocks = [{"stateOverrides": spend, "calls": [call, call]}]
    code, message = await setting.fail("eth_simulateV1", {"blockStateCalls": blocks})
    assert (code, message) == (-38013, "err: intrinsic gas too low: have 10000, want 21000 (supplied gas 10000)")
