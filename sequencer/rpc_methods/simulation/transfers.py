"""Logs of a simulated call with the numbers that geth gives them; ether transfers as logs (traceTransfers).

A transfer's log is what an ERC-20 "Transfer" of ether would have said. Every log that was emitted takes a number, also
one that a revert undid.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from core.execution import CallFrame, Halt
from core.hashing import keccak256
from core.receipts import Log

__all__ = ["NumberedLog", "emitted_logs"]

_ETHER = b"\xee" * 20
_TRANSFER = keccak256(b"Transfer(address,address,uint256)")


@dataclass(frozen=True, slots=True)
class NumberedLog:
    """A log, its number within the block, and whether it came to be."""

    log: Log
    index: int
    stands: bool


def emitted_logs(frame: CallFrame, first_index: int, *, with_transfers: bool) -> list[NumberedLog]:
    """All logs of a message and those that it sent, in the order of what happened."""
    emitted = _walk(frame, True, with_transfers)
    return [NumberedLog(log, index, stands) for index, (log, stands) in enumerate(emitted, first_index)]


def _walk(frame: CallFrame, stands: bool, with_transfers: bool) -> Iterator[tuple[Log, bool]]:
    stands = stands and frame.halt is Halt.NONE
    if with_transfers and frame.value and frame.kind != "DELEGATECALL" and frame.to is not None:
        yield _transfer_log(frame.sender, frame.to, frame.value), stands
    own = list(zip(frame.log_positions, frame.logs, strict=True))
    for index, call in enumerate(frame.calls):
        while own and own[0][0] <= index:
            yield own.pop(0)[1], stands
        yield from _walk(call, stands, with_transfers)
    for _, log in own:
        yield log, stands


def _transfer_log(sender: bytes, to: bytes, value: int) -> Log:
    return Log(_ETHER, (_TRANSFER, sender.rjust(32, b"\0"), to.rjust(32, b"\0")), value.to_bytes(32, "big"))
