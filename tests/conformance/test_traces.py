"""Instruction traces on every executor, against geth's answers to debug_traceBlockByNumber in vectors/rpc_compat."""

import tarfile
from itertools import islice
from typing import Any

import orjson
import pytest

from core.chain_rules import context_of
from core.execution import StructLog
from core.genesis import Genesis
from core.memory_state import MemoryState
from node.executors import EXECUTORS
from tests.conformance.chain_file import read_blocks, replay
from tests.conformance.vectors import VECTORS, needs_vectors

FOLDER = "rpc_compat/debug_traceBlockByNumber"
CASES = ("trace-block-with-transactions", "trace-block-return-data-behavior", "trace-block-storage-encoding")


def read(name: str) -> bytes:
    with tarfile.open(VECTORS / "rpc_compat" / "rpc_compat.tar.gz", "r:gz") as archive:
        content = archive.extractfile(name)
        assert content is not None
        return content.read()


def shown(log: StructLog, expected: dict[str, Any]) -> dict[str, Any]:
    """The log in geth's JSON, with those optional members that `expected` has."""
    members: dict[str, Any] = {
        "pc": log.pc,
        "op": log.op_name,
        "gas": log.gas,
        "gasCost": log.gas_cost,
        "depth": log.depth,
        "stack": [hex(word) for word in log.stack],
        "returnData": "0x" + log.return_data.hex(),
        "storage": {f"0x{slot:064x}": f"0x{value:064x}" for slot, value in log.storage.items()},
        "refund": log.refund,
        "error": log.halt.value,
    }
    required = {"pc", "op", "gas", "gasCost", "depth", "stack"} | ({"refund"} if log.refund else set())
    return {name: value for name, value in members.items() if name in required | expected.keys()}


@needs_vectors
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("executor_name", EXECUTORS)
def test_struct_logs_are_geths(executor_name: str, case: str) -> None:
    executor = EXECUTORS[executor_name]()
    genesis = Genesis.from_geth(orjson.loads(read("rpc_compat/genesis.json")))
    blocks = list(islice(read_blocks(read("rpc_compat/chain.rlp")), 2))
    states = [MemoryState().apply(genesis.difference)]
    states += [one.state for one in replay(genesis, iter(blocks), executor)]
    lines = read(f"{FOLDER}/{case}.io").decode().splitlines()
    requests = [orjson.loads(line[3:]) for line in lines if line.startswith(">> ")]
    answers = [orjson.loads(line[3:])["result"] for line in lines if line.startswith("<< ")]
    instructions = 0
    for request, answer in zip(requests, answers, strict=True):
        number = int(request["params"][0], 16)
        sealed = blocks[number - 1]
        context = context_of(
            sealed.block.header, genesis.config, [genesis.block.hash, *(one.hash for one in blocks)][:number]
        )
        rows = range(len(sealed.block.transactions))
        traces = executor.trace(states[number - 1], context, sealed.block.transactions, rows, struct_logs=True)
        for trace, expected in zip(traces, answer, strict=True):
            result = expected["result"]
            assert "0x" + trace.hash.hex() == expected["txHash"]
            assert (trace.gas_used, not trace.succeeded) == (result["gas"], result["failed"])
            assert "0x" + trace.output.hex() == result["returnValue"]
            logs = [shown(log, one) for log, one in zip(trace.struct_logs, result["structLogs"], strict=True)]
            assert logs == result["structLogs"]
            instructions += len(logs)
    assert instructions > 8
