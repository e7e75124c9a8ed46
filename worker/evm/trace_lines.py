"""Traces as lines of JSON (EIP-3155), with geth's names, order and wording: what goevmlab and its like compare.

Knows nothing of how a trace came to be.
"""

import json
from collections.abc import Iterator

from core.execution import Halt, StructLog, TransactionTrace

__all__ = ["trace_lines"]


def trace_lines(trace: TransactionTrace, *, with_memory: bool = False) -> Iterator[str]:
    """One line an instruction, then one with the transaction's output, gas and error."""
    for log in trace.struct_logs:
        yield json.dumps(_instruction(log, with_memory=with_memory), separators=(",", ":"))
    summary = {"output": trace.output.hex(), "gasUsed": hex(trace.gas_used)}
    if not trace.succeeded:
        summary["error"] = trace.frame.halt.value
    yield json.dumps(summary, separators=(",", ":"))


def _instruction(log: StructLog, *, with_memory: bool) -> dict[str, object]:
    line: dict[str, object] = {"pc": log.pc, "op": log.op, "gas": hex(log.gas), "gasCost": hex(log.gas_cost)}
    if with_memory:
        line["memory"] = f"0x{log.memory.hex()}"
    line |= {
        "memSize": len(log.memory),
        "stack": [hex(word) for word in log.stack],
        "depth": log.depth,
        "refund": log.refund,
        "opName": log.op_name,
    }
    if log.halt != Halt.NONE:
        line["error"] = log.halt.value
    return line
