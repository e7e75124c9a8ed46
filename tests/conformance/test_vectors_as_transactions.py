"""The vectors of precompiles and of 256-bit instructions as transactions, all in one mixed batch: on the CPU and a GPU.

Each precompile vector is a call of the precompile's address, each instruction vector a call of a contract that runs the
instruction.
"""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from core.errors import GpuUnavailable
from core.execution import BlockContext
from core.fork import Fork
from core.gpu import Device
from core.transaction import Transaction, TransactionColumns, TransactionType
from tests.conformance.test_precompiles import ADDRESSES, files, fork_of
from tests.conformance.vectors import VECTORS, needs_vectors
from worker.evm.base_state import BaseState
from worker.evm.batch import Batch, Outcomes, block_environments
from worker.evm.comparison import differing_rows
from worker.evm.disassembler import opcode_names
from worker.evm.engine import Engine
from worker.evm.gpu_engine import GpuEngine
from worker.evm.layouts import AccountFlag, MessageKind, Status

pytestmark = needs_vectors

SENDER = bytes([0xAA]) * 20
GAS_LIMIT = 1 << 36
INSTRUCTIONS = VECTORS / "precompiles" / "u256_opcodes.tar.gz"
FORKS = (Fork.OSAKA, Fork.PRAGUE)


class VectorBatch:
    """Row i must return `expected[i]`, or fail where that is None."""

    def __init__(self) -> None:
        self.base = BaseState(accounts_complete=True)
        self.base.add_account(SENDER, balance=10**30)
        self.expected: list[bytes | None] = []
        self._transactions: list[Transaction] = []
        self._forks: list[int] = []

    def add(self, target: bytes, data: bytes, expected: bytes | None, fork: Fork = Fork.OSAKA) -> None:
        self._transactions.append(
            Transaction(TransactionType.LEGACY, None, 0, GAS_LIMIT, 10, 10, target, 0, data, 0, 0, 0)
        )
        self._forks.append(FORKS.index(fork))
        self.expected.append(expected)

    def add_precompiles(self) -> None:
        for stem, cases in files():
            name = stem.removeprefix("fail-")
            for case in cases:
                expected = bytes.fromhex(case["Expected"]) if "Expected" in case else None
                target = ADDRESSES[name].to_bytes(20, "big")
                self.add(target, bytes.fromhex(case["Input"]), expected, fork_of(stem))

    def add_instructions(self) -> None:
        bytes_of = {name.lower(): byte for byte, name in opcode_names().items()}
        bytes_of["signext"] = bytes_of["signextend"]
        with tarfile.open(INSTRUCTIONS) as archive:
            for number, member in enumerate(one for one in archive if one.name.endswith(".json")):
                content = archive.extractfile(member)
                assert content is not None
                opcode = bytes_of[Path(member.name).stem.removeprefix("testcases_")]
                code = bytes.fromhex("5f35602035") + bytes([opcode]) + bytes.fromhex("5f5260205ff3")
                target = bytes([0xCC, *number.to_bytes(19, "big")])
                self.base.add_account(target, nonce=1, code=self.base.add_codes([code]), flags=AccountFlag.EXISTS)
                for case in json.load(content):
                    data = bytes.fromhex(case["X"].rjust(64, "0") + case["Y"].rjust(64, "0"))
                    self.add(target, data, bytes.fromhex(case["Expected"].rjust(64, "0")))

    def batch(self) -> Batch:
        contexts = [BlockContext(fork, 1, 10, 1000, 1 << 60, bytes(20), base_fee_per_gas=7) for fork in FORKS]
        columns = TransactionColumns.from_transactions(self._transactions, [SENDER] * len(self._transactions))
        blocks = block_environments(contexts, self.base)
        return Batch.of(columns, blocks, None, np.array(self._forks, "<u4"), MessageKind.SIMULATION)


@pytest.fixture(scope="module")
def vectors() -> VectorBatch:
    vectors = VectorBatch()
    vectors.add_precompiles()
    vectors.add_instructions()
    assert len(vectors.expected) == 1883 + 1701
    return vectors


def check(vectors: VectorBatch, outcomes: Outcomes) -> None:
    succeeded = (outcomes.results["status"] == Status.SUCCESS).tolist()
    found = [outcomes.output(row) if succeeded[row] else None for row in range(len(succeeded))]
    assert [row for row, one in enumerate(vectors.expected) if found[row] != one] == []


def test_on_the_cpu(vectors: VectorBatch) -> None:
    check(vectors, Engine().run(vectors.base, vectors.batch()))


@pytest.mark.gpu
def test_on_a_gpu(vectors: VectorBatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        engine = GpuEngine(Device(0, tmp_path_factory.mktemp("kernels")))
    except GpuUnavailable as error:
        pytest.skip(str(error))
    batch = vectors.batch()
    outcomes = engine.run(vectors.base, batch)
    check(vectors, outcomes)
    assert not len(differing_rows(outcomes, Engine().run(vectors.base, batch)))
