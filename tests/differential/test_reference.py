"""The generator is sound, and the reference executor's state on demand is EELS's own state.

The second half runs the same transactions on a plain, complete EELS State: no loading on demand, one State for all
transactions of a block.
"""

from collections import Counter
from typing import Any

import pytest
from ethereum.exceptions import InvalidBlock, InvalidTransaction
from ethereum_types.bytes import Bytes20, Bytes32
from ethereum_types.numeric import U256, Uint

from core.execution import Halt
from core.fork import Fork
from core.memory_state import MemoryState
from tests.differential.assembler import OPCODES
from tests.differential.generator import Case, difference_between, generate
from worker.evm.reference import ReferenceExecutor
from worker.evm.reference.rules import ForkRules, Refused, rebind, rules_of

EXECUTOR = ReferenceExecutor()
FORKS = (Fork.SHANGHAI, Fork.CANCUN, Fork.PRAGUE, Fork.OSAKA)


def test_a_seed_makes_the_same_case_again() -> None:
    for seed in range(20):
        one, other = generate(seed), generate(seed)
        assert one.transactions == other.transactions
        assert (one.state.root, one.context) == (other.state.root, other.context)
    assert generate(1).state.root != generate(2).state.root
    assert generate(1).state.root != generate(1, Fork.CANCUN).state.root


def test_cases_reach_far() -> None:
    ran: Counter[str] = Counter()
    halts: Counter[Halt] = Counter()
    rejected = 0
    for seed in range(150):
        case = generate(seed)
        outcome = EXECUTOR.execute_transactions(case.state, case.context, case.transactions)
        rejected += len(outcome.rejections)
        first = case.transactions.take(outcome.included[:1])
        for trace in EXECUTOR.trace(case.state, case.context, first, range(len(first)), struct_logs=True):
            ran.update(log.op_name for log in trace.struct_logs)
            halts[trace.frame.halt] += 1
    assert rejected > 60
    assert len(halts) >= 4
    assert halts[Halt.NONE] > 60
    common = [name for name in OPCODES if not name.startswith(("DUP", "SWAP"))]
    assert sum(ran[name] > 0 for name in common) > 0.9 * len(common)


def test_difference_between_notices() -> None:
    case = next(case for case in map(generate, range(50)) if len(_outcome(case).included))
    other = next(case for case in map(generate, range(50, 100)) if len(_outcome(case).included))
    assert difference_between(_outcome(case), _outcome(case)) is None
    assert difference_between(_outcome(case), _outcome(other)) is not None


def _outcome(case: Case) -> Any:
    return EXECUTOR.execute_transactions(case.state, case.context, case.transactions)


@pytest.mark.parametrize("fork", FORKS)
def test_state_on_demand_is_the_whole_state(fork: Fork) -> None:
    for seed in range(40):
        case = generate(seed, fork)
        outcome = _outcome(case)
        root, gas_used, logs = _plain_eels(case, rules_of(fork))
        assert outcome.gas_used == gas_used, f"seed {seed}"
        assert [log.data for row in range(len(outcome.receipts)) for log in outcome.receipts.logs(row)] == logs
        assert case.state.root_after(outcome.difference) == root, f"seed {seed}"


def _plain_eels(case: Case, rules: ForkRules) -> tuple[bytes, int, list[bytes]]:
    environment, output = rules.block_environment(case.context), rules.vm.BlockOutput()
    environment.state = _whole_state(case.state, rules)
    for row in range(len(case.transactions)):
        sender = Bytes20(case.transactions.sender[row].tobytes())
        check = rebind(rules.fork.check_transaction, recover_sender=lambda *_, sender=sender: sender)
        process = rebind(rules.fork.process_transaction, check_transaction=check)
        try:
            tx = rules.transaction(case.transactions.transaction(row))
            process(environment, output, tx, Uint(len(output.receipt_keys)))
        except (InvalidTransaction, InvalidBlock, Refused):
            continue
    root = rules.state.state_root(environment.state)
    return bytes(root), int(output.block_gas_used), [bytes(log.data) for log in output.block_logs]


def _whole_state(state: MemoryState, rules: ForkRules) -> Any:
    whole = rules.state.State()
    for address, one in state.accounts.items():
        account = rules.account(Uint(one.nonce), U256(one.balance), one.code)
        rules.state.set_account(whole, Bytes20(address), account)
        for slot, value in one.storage.items():
            rules.state.set_storage(whole, Bytes20(address), Bytes32(slot.to_bytes(32, "big")), U256(value))
    return whole
