"""The native engine as a library: instances, serial blocks, requests, limits."""

import ctypes
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from core.columns import int_from_limbs, limbs_from_ints
from core.execution import BlockContext, CallRequest, Halt
from core.fork import Fork
from core.memory_state import AccountContents, MemoryState
from core.transaction import Transaction, TransactionColumns, TransactionType
from worker.evm import BaseState, Batch, Engine, NativeExecutor, Outcomes, block_environments
from worker.evm.comparison import differing_rows
from worker.evm.disassembler import disassemble, opcode_names
from worker.evm.errors import ForkNotSupported
from worker.evm.layouts import AccountFlag, EntryFlag, Status
from worker.evm.state_resolver import StateResolver

SENDER, CONTRACT, COINBASE = bytes([0xAA]) * 20, bytes([0xCC]) * 20, bytes([0xC0]) * 20
CONTEXT = BlockContext(
    Fork.OSAKA, 1, 10, 1000, 30_000_000, COINBASE, base_fee_per_gas=7, block_hashes=(bytes(32),) * 10
)
WEALTH = 10**18
# slot 0 += 1; return slot 0
COUNTER = bytes.fromhex("5f54600101805f555f5260205ff3")
VECTORS = Path(__file__).parents[5] / "shared" / "vectors" / "precompiles" / "u256_opcodes.tar.gz"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(threads=2)


def transaction(
    nonce: int = 0, data: bytes = b"", gas_limit: int = 200_000, to: bytes | None = CONTRACT
) -> Transaction:
    return Transaction(TransactionType.LEGACY, None, nonce, gas_limit, 10, 10, to, 0, data, 0, 0, 0)


def columns(*transactions: Transaction) -> TransactionColumns:
    return TransactionColumns.from_transactions(transactions, [SENDER] * len(transactions))


def base_with(code: bytes) -> BaseState:
    base = BaseState(accounts_complete=True)
    base.add_account(SENDER, balance=WEALTH)
    base.add_account(
        CONTRACT, nonce=1, code=base.add_codes([code]), flags=AccountFlag.EXISTS | AccountFlag.STORAGE_COMPLETE
    )
    return base


def outputs(engine: Engine, code: bytes, data: list[bytes]) -> tuple[Outcomes, list[bytes]]:
    """The output of the same code for each of `data`, in instances mode."""
    base = base_with(code)
    batch = Batch.of(columns(*(transaction(data=one) for one in data)), block_environments([CONTEXT], base))
    outcomes = engine.run(base, batch)
    return outcomes, [outcomes.output(row) for row in range(len(data))]


def test_instances_do_not_see_each_other(engine: Engine) -> None:
    outcomes, words = outputs(engine, COUNTER, [b""] * 40)
    assert set(outcomes.results["status"].tolist()) == {Status.SUCCESS}
    assert {int.from_bytes(word, "big") for word in words} == {1}


def test_a_block_is_serial(engine: Engine) -> None:
    base = base_with(COUNTER)
    blocks = block_environments([CONTEXT], base)
    batch = Batch.of(columns(*(transaction(nonce) for nonce in range(3)), transaction(9)), blocks)
    outcomes = engine.run_block(base, batch, blocks)
    assert [int.from_bytes(outcomes.output(row), "big") for row in range(3)] == [1, 2, 3]
    assert int(outcomes.results["status"][3]) == Status.REJECTED
    used = int(outcomes.results["gas_used"].sum())
    assert int(blocks["gas_available"][0]) == CONTEXT.gas_limit - used
    changes = base.changes()
    (slot,) = changes.slots
    assert (int_from_limbs(slot["value"]), int_from_limbs(changes.slots_before[0])) == (3, 0)


def test_read_and_write_sets_hold_values(engine: Engine) -> None:
    outcomes, _ = outputs(engine, COUNTER, [b""])
    (slot,) = outcomes.slots(0)
    assert slot["flags"] & EntryFlag.WRITTEN
    assert (int_from_limbs(slot["original"]), int_from_limbs(slot["value"])) == (0, 1)
    accounts = {one["address"].tobytes(): one for one in outcomes.accounts(0)}
    assert int_from_limbs(accounts[SENDER]["original_balance"]) == WEALTH
    spent = int(outcomes.results["gas_used"][0]) * 10
    assert int_from_limbs(accounts[SENDER]["balance"]) == WEALTH - spent
    assert int_from_limbs(outcomes.results["coinbase_fee"][0]) == spent * 3 // 10


def test_missing_state_is_asked_for_and_memoised(engine: Engine) -> None:
    asked: list[bytes] = []

    class Counting(MemoryState):
        def account(self, address: bytes):  # type: ignore[no-untyped-def]
            asked.append(address)
            return super().account(address)

    state = Counting({SENDER: AccountContents(balance=WEALTH), CONTRACT: AccountContents(1, 0, COUNTER, {0: 41})})
    base = BaseState(accounts_complete=False)
    batch = Batch.of(columns(transaction()), block_environments([CONTEXT], base))
    asked.clear()
    outcomes = engine.run(base, batch, StateResolver(state))
    assert int.from_bytes(outcomes.output(0), "big") == 42
    assert sorted(asked) == sorted({SENDER, CONTRACT})


def test_results_do_not_depend_on_threads_or_order() -> None:
    base = base_with(COUNTER)
    rows = [transaction(gas_limit=gas) for gas in range(21_000, 71_000, 500)]
    batch = Batch.of(columns(*rows), block_environments([CONTEXT], base))
    one, four = Engine(threads=1).run(base, batch), Engine(threads=4).run(base, batch)
    assert len(set(one.results["status"].tolist())) > 1
    assert not len(differing_rows(one, four))


@pytest.mark.parametrize(
    ("code", "halt"),
    [
        ("fe", Halt.INVALID_OPCODE),
        ("0c", Halt.INVALID_OPCODE),
        ("01", Halt.STACK_UNDERFLOW),
        ("5b5f600056", Halt.STACK_OVERFLOW),
        ("600456", Halt.INVALID_JUMP),
        ("60045f5b57", Halt.INVALID_JUMP),
        ("5b5f56", Halt.OUT_OF_GAS),
        ("60015f5f3e", Halt.RETURN_DATA_BOUNDS),
        ("5f5ffd", Halt.REVERT),
        ("", Halt.NONE),
    ],
)
def test_halts(code: str, halt: Halt) -> None:
    state = MemoryState({SENDER: AccountContents(balance=WEALTH), CONTRACT: AccountContents(1, 0, bytes.fromhex(code))})
    result = NativeExecutor().call(state, CONTEXT, CallRequest(SENDER, CONTRACT, 100_000))
    assert result.halt == halt
    assert (result.gas_used == 100_000) == (halt not in (Halt.NONE, Halt.REVERT))


def test_unknown_rules_are_refused() -> None:
    old = BlockContext(Fork.LONDON, 1, 10, 1000, 30_000_000, COINBASE)
    with pytest.raises(ForkNotSupported, match="Cancun"):
        NativeExecutor().execute_block(MemoryState(), old, columns())


@pytest.mark.skipif(not VECTORS.exists(), reason=f"no test vectors at {VECTORS}")
def test_two_operand_instructions(engine: Engine) -> None:
    names = {name.lower(): byte for byte, name in opcode_names().items()}
    names["signext"] = names["signextend"]
    with tarfile.open(VECTORS, "r:gz") as archive:
        files = {Path(one.name).stem.removeprefix("testcases_"): one for one in archive if one.name.endswith(".json")}
        assert len(files) >= 20
        for name, member in files.items():
            content = archive.extractfile(member)
            assert content is not None
            cases = json.load(content)
            # X is pushed first, so Y is on top: push calldata[0:32], push calldata[32:64], run, return
            code = bytes.fromhex("5f35602035") + bytes([names[name]]) + bytes.fromhex("5f5260205ff3")
            data = [bytes.fromhex(one["X"].rjust(64, "0") + one["Y"].rjust(64, "0")) for one in cases]
            _, words = outputs(engine, code, data)
            assert [word.hex() for word in words] == [one["Expected"].rjust(64, "0") for one in cases], name


def test_every_operand_pair_agrees_with_python(engine: Engine) -> None:
    edges = [0, 1, 2, 3, 2**64 - 1, 2**64, 2**128 - 1, 2**128, 2**255 - 1, 2**255, 2**256 - 2, 2**256 - 1, 10**40]
    pairs = [(a, b) for a in edges for b in edges]
    data = [a.to_bytes(32, "big") + b.to_bytes(32, "big") for a, b in pairs]
    expected = {
        "ADD": lambda a, b: (a + b) % 2**256,
        "MUL": lambda a, b: a * b % 2**256,
        "SUB": lambda a, b: (a - b) % 2**256,
        "DIV": lambda a, b: a // b if b else 0,
        "MOD": lambda a, b: a % b if b else 0,
        "LT": lambda a, b: int(a < b),
        "SHL": lambda a, b: (b << a) % 2**256 if a < 256 else 0,
        "SHR": lambda a, b: b >> a if a < 256 else 0,
    }
    names = {name: byte for byte, name in opcode_names().items()}
    for name, rule in expected.items():
        code = bytes.fromhex("6020355f35") + bytes([names[name]]) + bytes.fromhex("5f5260205ff3")
        _, words = outputs(engine, code, data)
        assert [int.from_bytes(word, "big") for word in words] == [rule(a, b) for a, b in pairs], name


def test_modular_instructions_use_512_bits(engine: Engine) -> None:
    edges = [0, 1, 2**64, 2**255, 2**256 - 1, 2**256 - 2**32 - 977]
    triples = [(a, b, m) for a in edges for b in edges for m in edges]
    data = [b"".join(one.to_bytes(32, "big") for one in triple) for triple in triples]
    for opcode, rule in (("08", lambda a, b: a + b), ("09", lambda a, b: a * b)):
        code = bytes.fromhex("6040356020355f35" + opcode + "5f5260205ff3")
        _, words = outputs(engine, code, data)
        assert [int.from_bytes(word, "big") for word in words] == [rule(a, b) % m if m else 0 for a, b, m in triples]


def test_disassembler_shows_truncated_pushes() -> None:
    assert list(disassemble(bytes.fromhex("5f61aa"))) == [(0, "PUSH0"), (1, "PUSH2 0xaa00")]
    assert len(opcode_names()) == 150


def test_precompile_answers_are_found_by_key() -> None:
    base = base_with(COUNTER)
    for number in range(1, 101):
        base.add_answer(limbs_from_ints([number])[0], bytes([number]) * 3, 0)
    world, sizes = base.view()
    assert (world.answer_count, sizes[2]) == (256, 300)
    places = np.ctypeslib.as_array(ctypes.cast(world.answers, ctypes.POINTER(ctypes.c_uint64)), (256, 6))
    free = places[:, 5] >> np.uint64(32) == 0xFFFFFFFF
    assert np.flatnonzero(free).tolist() == [0, *range(101, 256)]  # each key at its own low bits
    assert places[1:101, 0].tolist() == list(range(1, 101))
