"""Ether transfers as logs (traceTransfers): what an ERC-20 "Transfer" of ether would have said, among the real logs."""

from core.execution import CallFrame, Halt
from core.hashing import keccak256
from core.receipts import Log

__all__ = ["logs_with_transfers"]

_ETHER = b"\xee" * 20
_TRANSFER = keccak256(b"Transfer(address,address,uint256)")


def logs_with_transfers(frame: CallFrame) -> tuple[Log, ...]:
    """All logs of a message that succeeded, in the order of what happened; none of one that failed."""
    if frame.halt is not Halt.NONE:
        return ()
    logs: list[Log] = []
    if frame.value and frame.kind != "DELEGATECALL" and frame.to is not None:
        logs.append(_transfer_log(frame.sender, frame.to, frame.value))
    positions = frame.log_positions or (0,) * len(frame.logs)
    own = list(zip(positions, frame.logs, strict=True))
    for index, call in enumerate(frame.calls):
        while own and own[0][0] <= index:
            logs.append(own.pop(0)[1])
        logs.extend(logs_with_transfers(call))
    logs.extend(log for _, log in own)
    return tuple(logs)


def _transfer_log(sender: bytes, to: bytes, value: int) -> Log:
    return Log(_ETHER, (_TRANSFER, sender.rjust(32, b"\0"), to.rjust(32, b"\0")), value.to_bytes(32, "big"))
